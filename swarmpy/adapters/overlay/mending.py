"""A network's links made as they should be, whatever is there; and taken away.

What belongs here: the order of steps. Each may be the last one of a process that is killed: what it leaves is
recognised and mended, or swept, by the next call. What does not belong here: which links are wanted.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Sequence

from swarmpy.adapters.overlay import identity, links, netlink, rooms, sentences
from swarmpy.adapters.overlay.identity import BRIDGE, LOOPBACK, TUNNEL, Identity
from swarmpy.adapters.overlay.links import Device
from swarmpy.adapters.overlay.netlink import Message, Netlink
from swarmpy.adapters.overlay.netns import Spaces
from swarmpy.adapters.overlay.rooms import Room
from swarmpy.adapters.overlay.sentences import doing
from swarmpy.model.fabric import mac_of
from swarmpy.ports import Link, Neighbour

GONE = (errno.ENODEV, errno.ENOENT, errno.EADDRNOTAVAIL)


class Mender:
    """Makes one network's links right. For use in a Worker's thread only."""

    def __init__(self, spaces: Spaces, link: Link, step: Callable[[str], None]) -> None:
        self._spaces = spaces
        self._step = step
        self._name = identity.room_name(link.network_id)
        with doing("read the addresses", link.network_id):
            self._link = link = identity.normal(link)
        self._identity = Identity.of(link.network_id, link.bridge_mac, link.gateways)

    def mend(self) -> None:
        """Make the namespace where it is missing, then everything in it."""
        network = self._link.network_id
        if not self._spaces.exists(self._name):
            with doing("make the namespace", network):
                self._spaces.create(self._name, self._furnish)
        with doing("open the namespace", network), rooms.entered(self._spaces, self._name) as room:
            sentences.refuse_foreign(room.devices[LOOPBACK].alias, network, self._spaces.path(self._name))
            self._house(room)
            furnished = self._bridge(room)
            self._gateways(furnished)
            self._tunnel(furnished)
            self._ports(furnished)

    def _furnish(self) -> None:
        self._step("identity")
        with Netlink() as inside:
            inside.do(links.change(LOOPBACK, up=True, alias=self._identity.alias))

    def _house(self, room: Room) -> None:
        loop = room.devices[LOOPBACK]
        with doing("set up the namespace", self._link.network_id):
            if not loop.up or loop.alias != self._identity.alias:
                self._step("loopback")
                room.inside.do(links.change(LOOPBACK, up=True, alias=self._identity.alias))
            if not room.knobs:
                self._step("knobs")
                with self._spaces.inside(room.descriptor):
                    for path, value in rooms.drifted_knobs():
                        path.write_text(value)

    def _bridge(self, room: Room) -> Room:
        link, bridge = self._link, room.devices.get(BRIDGE)
        with doing("make the bridge", link.network_id, sentences.BRIDGE):
            if bridge is not None and bridge.kind != "bridge":
                self._step("bridge-wrong")
                room.inside.do(links.delete(BRIDGE))
                bridge = None
            if bridge is None:
                # A bridge without a MAC of its own takes on those of its ports, and changes with them.
                mac = link.bridge_mac or mac_of("bridge", link.network_id, link.local)
                self._step("bridge")
                room.inside.do(*links.add_bridge(BRIDGE, mac=mac, mtu=link.mtu))
                return rooms.read(room.descriptor, room.inside, knobs=True)
            self._tune(room, bridge, link.mtu, mac=link.bridge_mac)
        return room

    def _gateways(self, room: Room) -> None:
        index = room.devices[BRIDGE].index
        surplus = set(room.addresses) - set(self._link.gateways)
        missing = [cidr for cidr in self._link.gateways if cidr not in room.addresses]
        with doing("set the bridge's addresses", self._link.network_id, sentences.ADDRESS):
            for cidr in identity.canonical(surplus):
                self._step("address-surplus")
                _forgive(room.inside, links.drop_address(index, cidr))
            for cidr in missing:
                self._step("address")
                room.inside.do(links.add_address(index, cidr))

    def _tunnel(self, room: Room) -> None:
        link, tunnel = self._link, room.devices.get(TUNNEL)
        bridge = room.devices[BRIDGE].index
        kept: Sequence[Neighbour] = ()
        with doing(f"make the VXLAN device (VNI {link.vni}, UDP port {link.port})", link.network_id,
                   sentences.of_tunnel(link)):  # fmt: skip
            if tunnel is not None:
                # What cannot be changed while it lives is made anew, and keeps its entries.
                right = (tunnel.kind, tunnel.vni, tunnel.local, tunnel.port, tunnel.learning, tunnel.proxy)
                if right != ("vxlan", link.vni, link.local, link.port, False, True):
                    if tunnel.kind == "vxlan":
                        kept = whole_entries(rooms.known_neighbours(room.inside, tunnel).values())
                    self._step("tunnel-wrong")
                    room.inside.do(links.delete(TUNNEL))
                    tunnel = None
            if tunnel is None:
                self._step("tunnel")
                with Netlink() as home:
                    home.do(links.add_vxlan(TUNNEL, room.descriptor, bridge, vni=link.vni, local=link.local,
                                            port=link.port, mtu=link.mtu))  # fmt: skip
                self._keep(room, kept)
                return
            self._tune(room, tunnel, link.mtu, master=bridge)

    def _keep(self, room: Room, kept: Sequence[Neighbour]) -> None:
        tunnel = links.device(room.inside, TUNNEL)
        if kept and tunnel is not None:
            self._step("entries")
            program(room.inside, tunnel.index, kept, ())

    def _ports(self, room: Room) -> None:
        bridge = room.devices[BRIDGE].index
        with doing("mend the ports", self._link.network_id):
            for name, plug in sorted(room.ports.items()):
                if plug is None:
                    self._step("port-nameless")
                    _forgive(room.inside, links.delete(name))
                    continue
                self._tune(room, room.devices[name], plug.mtu, master=bridge)

    def _tune(self, room: Room, one: Device, mtu: int, *, master: int = 0, mac: str = "") -> None:
        wrong = (one.mtu != mtu or not one.up or (master and one.master != master)
                 or (mac and one.mac != mac))  # fmt: skip
        if wrong:
            self._step(f"tune-{one.name}")
            room.inside.do(links.change(one.name, up=True, mtu=mtu, master=master, mac=mac))


def whole_entries(known: Iterable[Neighbour]) -> list[Neighbour]:
    """Those whose frames go to one VTEP: what is in disorder is not worth keeping."""
    return [one for one in known if one.vtep and "," not in one.vtep]


def _forgive(inside: Netlink, message: Message) -> None:
    """Removing what went meanwhile is fine."""
    try:
        inside.do(message)
    except OSError as error:
        if error.errno not in GONE:
            raise


def program(
    inside: Netlink, index: int, add: Sequence[Neighbour], remove: Sequence[Neighbour]
) -> tuple[int, OSError | None]:
    """Removals, then additions, in bulk. Returns how many messages were refused, and the first refusal."""
    gone: list[Message] = []
    come: list[Message] = []
    for one in remove:
        gone.append(netlink.drop_forward(index, one.mac))
        gone += [netlink.drop_neighbour(index, address) for address in one.addresses]
    for one in add:
        come.append(netlink.set_forward(index, one.mac, one.vtep))
        come += [netlink.set_neighbour(index, address, one.mac) for address in one.addresses]
    refused = [error for error in inside.bulk(gone) if error and error.errno not in GONE]
    refused += [error for error in inside.bulk(come) if error and error.errno != errno.EEXIST]
    return len(refused), refused[0] if refused else None


def demolish(spaces: Spaces, name: str, step: Callable[[str], None]) -> None:
    """Remove the links, then the namespace's name. A namespace that merely ends is cleared by the kernel
    later, and holds its VNI until then."""
    if spaces.exists(name):
        with rooms.entered(spaces, name) as room:
            step("remove-links")
            _forgive(room.inside, links.delete_ours())
            for device in links.devices(room.inside).values():
                if device.kind in ("vxlan", "bridge", "veth"):
                    step("remove-stranger")
                    _forgive(room.inside, links.delete(device.name))
        step("remove-name")
    spaces.delete(name)
