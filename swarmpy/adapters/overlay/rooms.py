"""A network's namespace, opened: what is in it, and whether that is as it should be.

What belongs here: reading. What does not: changing anything (mending).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from swarmpy.adapters.overlay import identity, links, netlink
from swarmpy.adapters.overlay.identity import BRIDGE, LOOPBACK, TUNNEL, Identity
from swarmpy.adapters.overlay.links import Device
from swarmpy.adapters.overlay.netlink import Netlink
from swarmpy.adapters.overlay.netns import Spaces
from swarmpy.ports import Link, LinkSeen, Neighbour, Plug

SYSCTLS = (
    # Bridged packets are no business of the namespace's packet filter. It is switched on in every namespace
    # when the module is loaded, so also later than we were here.
    ("bridge/bridge-nf-call-iptables", "0"),
    ("bridge/bridge-nf-call-ip6tables", "0"),
    ("bridge/bridge-nf-call-arptables", "0"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/conf/default/send_redirects", "0"),
    # Else the first address of a subnet takes the others with it when it is removed.
    ("ipv4/conf/all/promote_secondaries", "1"),
    ("ipv6/conf/all/disable_ipv6", "0"),
    ("ipv6/conf/default/disable_ipv6", "0"),
    ("ipv6/conf/all/accept_ra", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    # No link-local addresses: nothing here speaks for itself.
    ("ipv6/conf/default/addr_gen_mode", "1"),
)
"""What the namespace's knobs are set to, where the kernel has them."""
_KNOBS = Path("/proc/sys/net")


def drifted_knobs() -> list[tuple[Path, str]]:
    """Knobs of the calling thread's namespace that are not as they should be."""
    found: list[tuple[Path, str]] = []
    for name, value in SYSCTLS:
        with suppress(FileNotFoundError):
            if (_KNOBS / name).read_text().strip() != value:
                found.append((_KNOBS / name, value))
    return found


@dataclass(frozen=True, slots=True)
class Room:
    """The namespace as it was read. Its `inside` is a netlink socket that stands in it."""

    descriptor: int
    inside: Netlink
    identity: Identity | None
    devices: Mapping[str, Device]
    addresses: tuple[str, ...] = ()
    """Of the bridge."""
    knobs: bool = True
    """Whether they are as they should be."""
    ports: Mapping[str, Plug | None] = field(default_factory=dict)
    """By the name of the link, None for one that does not say whose it is."""


@contextmanager
def entered(spaces: Spaces, name: str) -> Generator[Room, None, None]:
    """The namespace of that name. Raises FileNotFoundError."""
    with spaces.opened(name) as descriptor:
        with spaces.inside(descriptor):
            inside = Netlink()
            knobs = not drifted_knobs()
        with inside:
            yield read(descriptor, inside, knobs=knobs)


def read(descriptor: int, inside: Netlink, *, knobs: bool) -> Room:
    """What the kernel has there now."""
    devices = links.devices(inside)
    bridge = devices.get(BRIDGE)
    found = links.addresses(inside) if bridge else []
    return Room(
        descriptor=descriptor,
        inside=inside,
        identity=identity.read_network(devices[LOOPBACK].alias) if LOOPBACK in devices else None,
        devices=devices,
        addresses=tuple(cidr for index, cidr in found if bridge and index == bridge.index),
        knobs=knobs,
        ports={name: identity.read_plug(one.alias) for name, one in devices.items()
               if one.kind == "veth" and name.startswith(identity.PORT)},
    )  # fmt: skip


def seen(room: Room) -> LinkSeen | None:
    """The room in the port's words; None for one that is not ours."""
    if room.identity is None:
        return None
    bridge, tunnel = room.devices.get(BRIDGE), room.devices.get(TUNNEL)
    index = bridge.index if bridge else 0
    plugs = {plug.endpoint_id: plug for name, plug in room.ports.items()
             if plug is not None and index and room.devices[name].master == index}  # fmt: skip
    known = known_neighbours(room.inside, tunnel) if tunnel and tunnel.kind == "vxlan" else {}
    return LinkSeen(room.identity.network_id, whole(room), known, plugs)


def whole(room: Room) -> Link | None:
    """The links, where nothing is missing, down, half-made or out of tune."""
    bridge, tunnel, loop = (room.devices.get(name) for name in (BRIDGE, TUNNEL, LOOPBACK))
    if room.identity is None or not room.knobs or bridge is None or tunnel is None or loop is None:
        return None
    right = (
        loop.up and bridge.up and tunnel.up and bridge.kind == "bridge" and tunnel.kind == "vxlan"
        and tunnel.proxy and not tunnel.learning and tunnel.master == bridge.index
        and bridge.mtu == tunnel.mtu
        and all(plug is not None and fits(room.devices[name], plug, bridge.index)
                for name, plug in room.ports.items())
    )  # fmt: skip
    if not right:
        return None
    return Link(
        network_id=room.identity.network_id,
        vni=tunnel.vni,
        mtu=tunnel.mtu,
        local=tunnel.local,
        port=tunnel.port,
        gateways=room.identity.gateways(room.addresses),
        bridge_mac=bridge.mac if room.identity.own_mac else "",
    )


def fits(port: Device, plug: Plug, bridge: int) -> bool:
    """Whether the port is as its plug was made."""
    return port.up and port.master == bridge and port.mtu == plug.mtu


def known_neighbours(inside: Netlink, tunnel: Device) -> dict[str, Neighbour]:
    """By MAC: where frames go, and for which addresses the device answers. One side may be missing, and a
    MAC that goes to several VTEPs (which is nobody's wish) names them all: it equals no wanted one."""
    vteps: dict[str, list[str]] = {}
    answers: dict[str, list[str]] = {}
    for mac, vtep in netlink.forwards(inside, tunnel.index):
        vteps.setdefault(mac, []).append(vtep)
    for address, mac in netlink.neighbours(inside, tunnel.index):
        answers.setdefault(mac, []).append(address)
    return {mac: Neighbour(mac, ",".join(sorted(vteps.get(mac, ()))),
                           tuple(identity.canonical(answers.get(mac, ()))))
            for mac in sorted({*vteps, *answers})}  # fmt: skip
