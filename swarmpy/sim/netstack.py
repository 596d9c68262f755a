"""A simulated kernel's network: namespaces, bridges, VXLAN devices, ports. It outlives every process.

What belongs here: what there is, how it breaks, and where frames would go. What does not: how it is made as
it should be (overlay.py), deciding when it breaks (faults.py). Single steps are atomic, as system calls are.
"""

from __future__ import annotations

import asyncio
import errno
import os
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from swarmpy.adapters.overlay.identity import Identity
from swarmpy.ports import Plug
from swarmpy.sim.loop import NEUTRAL, SimLoop
from swarmpy.sim.trace import Trace

T = TypeVar("T")

OTHER_MAC = "02:ff:ff:ff:ff:ff"
OTHER_ADDRESS = "10.255.77.1/24"


@dataclass
class Bridge:
    """A network's bridge."""

    mac: str
    mtu: int
    up: bool = True
    addresses: list[str] = field(default_factory=list)


@dataclass
class Tunnel:
    """A VXLAN device: `forwards` by MAC, `answers` by address."""

    vni: int
    local: str
    port: int
    mtu: int
    up: bool = True
    enslaved: bool = True
    proxy: bool = True
    forwards: dict[str, list[str]] = field(default_factory=dict)
    answers: dict[str, str] = field(default_factory=dict)


@dataclass
class Port:
    """A pair of links, one end in the bridge. `plug` is None where it does not say whose it is; `place` is
    the sandbox of the free end, "" at home."""

    plug: Plug | None
    mac: str
    mtu: int
    free: str
    up: bool = True
    enslaved: bool = True
    place: str = ""


@dataclass
class Room:
    """A namespace with a name. `identity` is None for one that is not ours."""

    identity: Identity | None
    looped: bool = True
    tuned: bool = False
    bridge: Bridge | None = None
    tunnel: Tunnel | None = None
    ports: dict[str, Port] = field(default_factory=dict)

    def drop_bridge(self) -> None:
        """Its ports stay, in no bridge."""
        self.bridge = None
        for port in self.ports.values():
            port.enslaved = False
        if self.tunnel is not None:
            self.tunnel.enslaved = False


class Netstack:
    """One machine's."""

    def __init__(self, loop: SimLoop, name: str, seed: str, trace: Trace, underlay: dict[str, int]) -> None:
        self.loop = loop
        self.name = name
        self.chance = random.Random(seed)  # noqa: S311  a simulation must be repeatable
        self.trace = trace
        self.underlay = underlay
        """MTU by address."""
        self.latency = (0.0002, 0.002)
        self.refuse = 0.0
        """Chance that a step is refused."""
        self.lacks: set[str] = set()
        """Of: overlay, ipv6."""
        self.taken_ports: set[int] = set()
        """UDP ports of other programs."""
        self.hanging = False
        self.rooms: dict[str, Room] = {}
        self.severed: set[str] = set()
        """Sandboxes that somebody took a pair from: only a new container gets one."""
        self._stuck: list[Callable[[], None]] = []

    # ------------------------------------------------------------ system calls

    async def call(self, action: Callable[[], T]) -> T:
        """A system call: carried out even when the caller dies meanwhile. Raises OSError."""
        answer: asyncio.Future[T] = self.loop.create_future()
        self._later(self._begin, action, answer)
        return await answer

    def _later(self, action: Callable[..., None], *args: Any) -> None:
        delay = self.chance.uniform(*self.latency) / 2
        self.loop.call_at(self.loop.instant + delay, action, *args, context=NEUTRAL)

    def _begin(self, action: Callable[[], T], answer: asyncio.Future[T]) -> None:
        if self.hanging:
            self._stuck.append(lambda: self._begin(action, answer))
            return
        result: Any = None
        error: OSError | None = None
        try:
            if self.refuse and self.chance.random() < self.refuse:
                fail(errno.ENOBUFS)
            result = action()
        except OSError as refused:
            error = refused
        self._later(_settle, answer, result, error)

    def add_tunnel(self, room: Room, tunnel: Tunnel) -> None:
        """What the kernel checks when a VXLAN device is made and brought up."""
        if "overlay" in self.lacks:
            fail(errno.EOPNOTSUPP)
        others = (one.tunnel for one in self.rooms.values() if one.tunnel is not None)
        if any((one.vni, one.port) == (tunnel.vni, tunnel.port) for one in others):
            fail(errno.EEXIST)
        if tunnel.port in self.taken_ports:
            fail(errno.EADDRINUSE)
        room.tunnel = tunnel

    def add_address(self, bridge: Bridge, cidr: str) -> None:
        """Give the bridge an address."""
        if ":" in cidr and "ipv6" in self.lacks:
            fail(errno.EOPNOTSUPP)
        if cidr not in bridge.addresses:
            bridge.addresses.append(cidr)

    # ------------------------------------------------------------ the machine's own doings

    def take(self, free: str, sandbox: str) -> None:
        """The Engine moves the free end of a pair into a sandbox. Raises OSError where there is none."""
        for port in self._ports():
            if port.free == free and not port.place:
                port.place = sandbox
                return
        fail(errno.ENODEV)

    def give_back(self, free: str, sandbox: str) -> None:
        """The Engine moves the free end back home; one that is not there is fine."""
        for port in self._ports():
            if port.free == free and port.place == sandbox:
                port.place = ""

    def end_sandbox(self, sandbox: str) -> None:
        """A container's namespace ends, and the pairs that have an end in it."""
        for room in self.rooms.values():
            room.ports = {name: port for name, port in room.ports.items() if port.place != sandbox}

    def _ports(self) -> Iterable[Port]:
        return (port for name in sorted(self.rooms) for port in self.rooms[name].ports.values())

    def reboot(self) -> None:
        """The machine goes down: nothing of it all is left."""
        self.rooms = {}
        self._stuck = []
        self.hanging = False

    def hang(self) -> None:
        """System calls do not return."""
        self.hanging = True

    def heal(self) -> None:
        """Behave well from now on; what waited is carried out."""
        self.hanging, self.refuse = False, 0.0
        stuck, self._stuck = self._stuck, []
        for begin in stuck:
            begin()

    # ------------------------------------------------------------ what others break

    def drift(self, room_name: str, what: str) -> bool:
        """Somebody does `what` (a name of DRIFTS) to the namespace; False where that cannot be done."""
        room = self.rooms.get(room_name)
        if room is None:
            return False
        before = {port.place for port in room.ports.values() if port.plug is not None}
        done = DRIFTS[what](room)
        if done:
            self.trace.emit(self.name, f"drift in {room_name}: {what}")
        self.severed |= before - {port.place for port in room.ports.values() if port.plug is not None}
        return done

    # ------------------------------------------------------------ frames

    def route(self, room_name: str, address: str) -> tuple[str, str, int, int] | None:
        """Where a frame for that address of another node leaves for: (MAC, VTEP, VNI, UDP port)."""
        room = self.rooms.get(room_name)
        tunnel = room.tunnel if room is not None else None
        if room is None or tunnel is None or room.bridge is None or not room.bridge.up:
            return None
        mac = tunnel.answers.get(address, "") if tunnel.up and tunnel.enslaved and tunnel.proxy else ""
        vteps = tunnel.forwards.get(mac, [])
        return (mac, vteps[0], tunnel.vni, tunnel.port) if mac and vteps else None

    def arrives(self, vni: int, port: int, mac: str) -> str:
        """The endpoint that gets a frame which comes in for that MAC, "" where it is lost."""
        for name in sorted(self.rooms):
            room = self.rooms[name]
            tunnel, bridge = room.tunnel, room.bridge
            if (
                tunnel is None
                or (tunnel.vni, tunnel.port) != (vni, port)
                or not (tunnel.up and tunnel.enslaved)
            ):
                continue
            for one in room.ports.values():
                if (
                    bridge
                    and bridge.up
                    and one.mac == mac
                    and one.up
                    and one.enslaved
                    and one.place
                    and one.plug
                ):
                    return one.plug.endpoint_id
        return ""


def fail(code: int) -> None:
    """Refuse as the kernel does."""
    raise OSError(code, os.strerror(code))


def _settle(answer: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if answer.done():
        return
    if error is None:
        answer.set_result(result)
    else:
        answer.set_exception(error)
        answer.exception()  # seen, even when the caller has gone


# ---------------------------------------------------------------- drift


def _set(part: str, word: str, value: object) -> Callable[[Room], bool]:
    def change(room: Room) -> bool:
        owner = room if not part else getattr(room, part)
        if owner is None or getattr(owner, word) == value:
            return False
        setattr(owner, word, value)
        return True

    return change


def _bridge_gone(room: Room) -> bool:
    present = room.bridge is not None
    room.drop_bridge()
    return present


def _bridge_down(room: Room) -> bool:
    """The kernel forgets the IPv6 addresses of a link that goes down."""
    if room.bridge is None or not room.bridge.up:
        return False
    room.bridge.up = False
    room.bridge.addresses = [cidr for cidr in room.bridge.addresses if ":" not in cidr]
    return True


def _tunnel_down(room: Room) -> bool:
    """The kernel forgets the neighbours of a link that goes down, not where frames are forwarded."""
    if room.tunnel is None or not room.tunnel.up:
        return False
    room.tunnel.up = False
    room.tunnel.answers = {}
    return True


def _gateway_gone(room: Room) -> bool:
    if room.bridge is None or not room.bridge.addresses:
        return False
    room.bridge.addresses.pop(0)
    return True


def _gateway_surplus(room: Room) -> bool:
    if room.bridge is None or OTHER_ADDRESS in room.bridge.addresses:
        return False
    room.bridge.addresses.append(OTHER_ADDRESS)
    return True


def _another_tunnel(room: Room) -> bool:
    if room.tunnel is None:
        return False
    room.tunnel = Tunnel(room.tunnel.vni ^ 0x10000, room.tunnel.local, room.tunnel.port, room.tunnel.mtu,
                         proxy=False)  # fmt: skip
    return True


def _port(word: str, value: object) -> Callable[[Room], bool]:
    def change(room: Room) -> bool:
        for port in room.ports.values():
            if getattr(port, word) != value:
                setattr(port, word, value)
                return True
        return False

    return change


def _port_gone(room: Room) -> bool:
    present = min(room.ports, default=None)
    if present is not None:
        del room.ports[present]
    return present is not None


DRIFTS: dict[str, Callable[[Room], bool]] = {
    "tunnel gone": _set("", "tunnel", None),
    "tunnel down": _tunnel_down,
    "tunnel mtu": _set("tunnel", "mtu", 1300),
    "tunnel loose": _set("tunnel", "enslaved", False),
    "another tunnel": _another_tunnel,
    "bridge gone": _bridge_gone,
    "bridge down": _bridge_down,
    "bridge mtu": _set("bridge", "mtu", 1300),
    "bridge mac": _set("bridge", "mac", OTHER_MAC),
    "gateway gone": _gateway_gone,
    "gateway surplus": _gateway_surplus,
    "loopback down": _set("", "looped", False),
    "knob": _set("", "tuned", False),
    "port down": _port("up", False),
    "port loose": _port("enslaved", False),
    "port mtu": _port("mtu", 1300),
    "port nameless": _port("plug", None),
    "port gone": _port_gone,
}
"""What others do to a namespace of ours, by name."""
