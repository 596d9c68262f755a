"""ports.Overlay on a simulated kernel: one process's hands. The kernel (netstack.py) lives on when it dies.

What belongs here: the same steps in the same order as the real adapter takes them, one system call each, so
that a process can die between any two of them. What does not: what the kernel has.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Mapping, Sequence

from swarmpy.adapters.overlay import identity, sentences
from swarmpy.adapters.overlay.identity import Identity, free_name, port_name, room_name
from swarmpy.adapters.overlay.netns import FOLDER
from swarmpy.adapters.overlay.sentences import doing
from swarmpy.model.fabric import mac_of
from swarmpy.ports import Link, LinkSeen, Neighbour, Plug
from swarmpy.sim.netstack import Bridge, Netstack, Port, Room, Tunnel, fail


def _no_step(name: str) -> None:
    """Nobody watches the steps."""


class SimOverlay:
    """ports.Overlay: one client of a Netstack. `step` is told of each change before it is made."""

    def __init__(self, stack: Netstack, step: Callable[[str], None] = _no_step) -> None:
        self.stack = stack
        self._step = step
        self._turn = asyncio.Lock()

    # ------------------------------------------------------------ the port

    async def probe(self) -> frozenset[str]:
        """What the kernel can do."""
        return await self.stack.call(lambda: frozenset({"overlay", "ipv6"}) - self.stack.lacks)

    def underlay_mtu(self, address: str) -> int:
        """MTU of the interface that has this address; 0 where none has."""
        return self.stack.underlay.get(address, 0)

    async def observe(self) -> Mapping[str, LinkSeen]:
        """All networks of ours in the kernel, by network id."""
        async with self._turn:
            with doing("look at the links", ""):
                return await self.stack.call(self._look)

    async def ensure(self, link: Link) -> None:
        """Make the network's links, or mend them."""
        async with self._turn:
            await self._ensure(link)

    async def remove(self, network_id: str) -> None:
        """Remove the network's links with all plugs; missing is fine."""
        async with self._turn:
            room = self.stack.rooms.get(room_name(network_id))
            if room is not None:
                _refuse_foreign(room, network_id)
                await self._demolish(room_name(network_id), room)

    async def forward(self, network_id: str, add: Sequence[Neighbour], remove: Sequence[Neighbour]) -> None:
        """Set forwarding and neighbour entries in bulk."""
        what = "set the forwarding entries"
        async with self._turn:
            room = self._opened(what, network_id)
            if room.tunnel is None:
                raise sentences.unmade(what, network_id, "VXLAN device")
            with doing(what, network_id):
                await self._do("forward", _program, room, add, remove)

    async def plug(self, plug: Plug) -> str:
        """Make the pair of links; returns the name of the free end."""
        what = f"plug in endpoint {plug.endpoint_id}"
        identity.write_plug(plug)  # refuses what the real one could not write down
        port, free = port_name(plug.endpoint_id), free_name(plug.endpoint_id)
        async with self._turn:
            room = self._opened(what, plug.network_id)
            if room.bridge is None:
                raise sentences.unmade(what, plug.network_id, "bridge")
            with doing(what, plug.network_id):
                for other in self.stack.rooms.values():
                    if port in other.ports and (other is room or not other.ports[port].place):
                        await self._do("plug-old", other.ports.pop, port, None)
                made = Port(plug, plug.mac, plug.mtu, free)
                await self._do("plug", room.ports.update, {port: made})
        return free

    async def unplug(self, network_id: str, endpoint_id: str) -> None:
        """Remove the pair of links, wherever its free end is; missing is fine."""
        async with self._turn:
            if room_name(network_id) in self.stack.rooms:
                what = f"unplug endpoint {endpoint_id}"
                room = self._opened(what, network_id)
                with doing(what, network_id):
                    await self._do("unplug", room.ports.pop, port_name(endpoint_id), None)

    def namespace(self, network_id: str) -> str:
        """Path of the network's namespace."""
        return f"{FOLDER}/{room_name(network_id)}"

    async def clear(self) -> None:
        """Remove everything of ours from the kernel."""
        async with self._turn:
            for name, room in sorted(self.stack.rooms.items()):
                if room.identity is not None:
                    await self._demolish(name, room)

    # ------------------------------------------------------------ the steps

    async def _do(self, name: str, action: Callable[..., object], *args: object, **words: object) -> None:
        self._step(name)
        await self.stack.call(lambda: action(*args, **words))

    def _opened(self, what: str, network_id: str) -> Room:
        room = self.stack.rooms.get(room_name(network_id))
        if room is None:
            raise sentences.unmade(what, network_id, "namespace")
        _refuse_foreign(room, network_id)
        return room

    def _look(self) -> dict[str, LinkSeen]:
        return {room.identity.network_id: _seen(room, room.identity)
                for _, room in sorted(self.stack.rooms.items()) if room.identity is not None}  # fmt: skip

    async def _ensure(self, link: Link) -> None:
        name, network = room_name(link.network_id), link.network_id
        with doing("read the addresses", network):
            link = identity.normal(link)
        wanted = Identity.of(network, link.bridge_mac, link.gateways)
        if name not in self.stack.rooms:
            with doing("make the namespace", network):
                await self._do("mount", self.stack.rooms.setdefault, name, Room(wanted))
        room = self.stack.rooms[name]
        _refuse_foreign(room, network)
        with doing("set up the namespace", network):
            if not room.looped or room.identity != wanted:
                await self._do("loopback", _set, room, looped=True, identity=wanted)
            if not room.tuned:
                await self._do("knobs", _set, room, tuned=True)
        await self._bridge(room, link)
        await self._tunnel(room, link)
        with doing("mend the ports", network):
            for port_id, port in sorted(room.ports.items()):
                plug = port.plug
                if plug is None:
                    await self._do("port-nameless", room.ports.pop, port_id, None)
                elif (port.mtu, port.up, port.enslaved) != (plug.mtu, True, True):
                    await self._do("tune-port", _set, port, mtu=plug.mtu, up=True, enslaved=True)

    async def _bridge(self, room: Room, link: Link) -> None:
        with doing("make the bridge", link.network_id):
            if room.bridge is None:
                mac = link.bridge_mac or mac_of("bridge", link.network_id, link.local)
                await self._do("bridge", _set, room, bridge=Bridge(mac, link.mtu))
            bridge = room.bridge
            assert bridge is not None
            mac = link.bridge_mac or bridge.mac
            if (bridge.mtu, bridge.up, bridge.mac) != (link.mtu, True, mac):
                await self._do("tune-bridge", _set, bridge, mtu=link.mtu, up=True, mac=mac)
        with doing("set the bridge's addresses", link.network_id, sentences.ADDRESS):
            for cidr in identity.canonical(set(bridge.addresses) - set(link.gateways)):
                await self._do("address-surplus", bridge.addresses.remove, cidr)
            for cidr in link.gateways:
                if cidr not in bridge.addresses:
                    await self._do("address", self.stack.add_address, bridge, cidr)

    async def _tunnel(self, room: Room, link: Link) -> None:
        old = room.tunnel
        with doing(f"make the VXLAN device (VNI {link.vni}, UDP port {link.port})", link.network_id,
                   sentences.of_tunnel(link)):  # fmt: skip
            right = (link.vni, link.local, link.port, True)
            kept: list[Neighbour] = []
            if old is not None and (old.vni, old.local, old.port, old.proxy) != right:
                kept = [one for one in _known(old).values() if one.vtep and "," not in one.vtep]
                await self._do("tunnel-wrong", _set, room, tunnel=None)
                old = None
            if old is None:
                made = Tunnel(link.vni, link.local, link.port, link.mtu)
                await self._do("tunnel", self.stack.add_tunnel, room, made)
                if kept:
                    await self._do("entries", _program, room, kept, ())
            elif (old.mtu, old.up, old.enslaved) != (link.mtu, True, True):
                await self._do("tune-tunnel", _set, old, mtu=link.mtu, up=True, enslaved=True)

    async def _demolish(self, name: str, room: Room) -> None:
        with doing("remove the links", name):
            await self._do("remove-links", _set, room, tunnel=None, bridge=None, ports={})
            await self._do("remove-name", self.stack.rooms.pop, name, None)


def _set(thing: object, **words: object) -> None:
    for word, value in words.items():
        setattr(thing, word, value)


def _refuse_foreign(room: Room, network_id: str) -> None:
    alias = room.identity.alias if room.identity else ""
    sentences.refuse_foreign(alias, network_id, f"{FOLDER}/{room_name(network_id)}")


def _program(room: Room, add: Sequence[Neighbour], remove: Sequence[Neighbour]) -> None:
    tunnel = room.tunnel
    if tunnel is None:
        fail(errno.ENODEV)
        return
    for one in remove:
        tunnel.forwards.pop(one.mac, None)
        for address in one.addresses:
            tunnel.answers.pop(address, None)
    for one in add:
        # The kernel replaces the first of several, and is content where the new one is among them.
        vteps = tunnel.forwards.setdefault(one.mac, [one.vtep])
        if one.vtep not in vteps:
            vteps[0] = one.vtep
        tunnel.answers.update(dict.fromkeys(one.addresses, one.mac))


def _known(tunnel: Tunnel) -> dict[str, Neighbour]:
    answers: dict[str, list[str]] = {}
    for address, mac in tunnel.answers.items():
        answers.setdefault(mac, []).append(address)
    return {mac: Neighbour(mac, ",".join(sorted(tunnel.forwards.get(mac, ()))),
                           tuple(identity.canonical(answers.get(mac, ()))))
            for mac in sorted({*tunnel.forwards, *answers})}  # fmt: skip


def _seen(room: Room, own: Identity) -> LinkSeen:
    plugs = {port.plug.endpoint_id: port.plug for _, port in sorted(room.ports.items())
             if port.plug is not None and port.enslaved}  # fmt: skip
    return LinkSeen(own.network_id, _whole(room, own), _known(room.tunnel) if room.tunnel else {}, plugs)


def _whole(room: Room, own: Identity) -> Link | None:
    bridge, tunnel = room.bridge, room.tunnel
    if bridge is None or tunnel is None or not (room.looped and room.tuned):
        return None
    ports = all(port.plug is not None and port.up and port.enslaved and port.mtu == port.plug.mtu
                for port in room.ports.values())  # fmt: skip
    whole = (
        bridge.up and tunnel.up and tunnel.enslaved and tunnel.proxy and bridge.mtu == tunnel.mtu and ports
    )
    if not whole:
        return None
    return Link(own.network_id, tunnel.vni, tunnel.mtu, tunnel.local, tunnel.port,
                own.gateways(bridge.addresses), bridge.mac if own.own_mac else "")  # fmt: skip
