"""ports.Mesh with nftables. See meshrender.py for the rules, seal.py for how changes by others are noticed.

What belongs here: the order in which host and ingress namespace are made. What does not: the rules' text.
The ingress namespace goes first: the host sends nothing to where nobody would send it on.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Mapping

from swarmpy.adapters.netns import OWN, inside
from swarmpy.adapters.nftables import conntrack, library, meshrender, pair, render, routes, seal, six
from swarmpy.adapters.nftables.meshrender import HOST_MAPS, INNER, MAPS, NAME, OUTER, SHUT, Host, Pair
from swarmpy.ports import FabricError, MeshPort, MeshTable

_NUMBERS = {"tcp": 6, "udp": 17, "sctp": 132}


class NftMesh:
    """The routing mesh of this node. `namespace` is the path of a network's namespace, `host` of the host's
    own, `run` carries out a transaction of nft commands in the thread's namespace."""

    def __init__(
        self, namespace: Callable[[str], str], host: str = OWN, run: Callable[[str], object] = library.run
    ) -> None:
        self._namespace = namespace
        self._host = host
        self._run = run
        self._turn = asyncio.Lock()
        self._left: dict[str, seal.Seal] = {}
        """By namespace; see NftBalancer."""
        self._shut = False
        """Whether the host forwarded nothing over IPv6 before us: it is to forward for the mesh only."""

    async def observe(self) -> str:
        """Fingerprint of what the kernel has."""
        async with self._turn:
            return await asyncio.to_thread(self._observe)

    async def apply(self, table: MeshTable, before: MeshTable | None) -> str:
        """Make host and ingress namespace as the table says."""
        async with self._turn:
            return await asyncio.to_thread(self._apply, table, before)

    async def clear(self) -> None:
        """Remove everything of ours."""
        async with self._turn:
            await asyncio.to_thread(self._clear)

    def _observe(self) -> str:
        network_id, outer, lacks = inside(self._host, _host_seen, self._left.get(self._host))
        space = self._namespace(network_id) if network_id else ""
        if not outer or lacks or not os.path.exists(space):
            return ""
        return outer if inside(space, _inner_seen, self._left.get(space)) == outer else ""

    def _apply(self, table: MeshTable, before: MeshTable | None) -> str:
        space, label = self._namespace(table.network_id), render.digest(table)
        if not os.path.exists(space):
            raise FabricError(f"the ingress network's namespace {space} is not there (yet)")
        own6 = any(":" in one for one in table.addresses)
        wanted6 = own6 and inside(self._host, six.reachable)
        links = inside(self._host, pair.ensure, table.network_id, space, wanted6)
        inside(space, self._inner, space, table, before, links, label)
        inside(self._host, self._outer, table, before, links, label)
        return label

    def _inner(self, space: str, table: MeshTable, before: MeshTable | None, links: Pair, label: str) -> None:
        own = next((address for address in table.addresses if ":" not in address), "")
        bridge = routes.link_with(own) if own else ""
        if not bridge:
            raise FabricError(f"no link of the ingress network has the address {own or '(none)'} (yet)")
        for name in ("all", bridge, INNER):
            routes.set_switch(f"ipv4/conf/{name}/rp_filter", "0")
        routes.set_switch("ipv4/ip_forward", "1")
        routes.set_default(links.outer, INNER)
        if links.inner6:
            routes.set_switch("ipv6/conf/all/forwarding", "1")
            routes.set_default(links.outer6, INNER)
            for name in (bridge, INNER):
                pair.speak(name)
        found, about = seal.read(NAME, MAPS, self._left.get(space)), seal.digest(_inner_about())
        if (found.label, found.about) == (label, about):
            return
        same = before is not None and render.digest(before) == found.label
        if not found.label or found.about != about:
            self._run(meshrender.whole(table, links, bridge))
        else:
            known: Mapping[str, MeshPort | None] = {
                chain: None for chain in found.chains if meshrender.is_port(chain)
            }
            if before is not None and same and before.addresses == table.addresses:
                known = {meshrender.chain_of(port): port for port in before.ports}
            fixed = before is None or not same or before.addresses != table.addresses
            text = meshrender.change(table, links, bridge, known, fixed=fixed)
            self._run(found.lifted(meshrender.TABLE) + text)
        _cut_inner(table, links)
        self._left[space] = seal.write(NAME, MAPS, label, about)

    def _outer(self, table: MeshTable, before: MeshTable | None, links: Pair, label: str) -> None:
        routes.set_switch(f"ipv4/conf/{OUTER}/route_localnet", "1")
        routes.set_switch(f"ipv4/conf/{OUTER}/rp_filter", "0")
        routes.set_switch("ipv4/ip_forward", "1")
        pair.docker_accept()
        found, about = seal.read(NAME, HOST_MAPS, self._left.get(self._host)), seal.digest(_host_about())
        # Forwarding is switched on behind rules that let pass nothing but the mesh.
        self._shut |= SHUT in found.chains or (bool(links.outer6) and not six.forwards())
        if (found.label, found.about) == (label, about):
            return
        known: tuple[Host, ...] | None = None
        if before is not None and render.digest(before) == found.label:
            known = before.hosts
        if not found.label or found.about != about:
            self._run(meshrender.host_whole(table.hosts, links, shut=self._shut))
            known = None
        else:
            self._run(found.lifted(meshrender.TABLE) + meshrender.host_change(table.hosts, known))
        if links.outer6:
            six.begin()
            about = seal.digest(_host_about())
        if known is None or set(known) != set(table.hosts):
            _cut_outer(table, links)
        self._left[self._host] = seal.write(NAME, HOST_MAPS, label, about)

    def _clear(self) -> None:
        network_id = inside(self._host, pair.found)
        space = self._namespace(network_id) if network_id else ""
        inside(self._host, self._clear_host)
        inside(self._host, pair.docker_forget)
        if space and os.path.exists(space):
            inside(space, self._clear_table, MAPS)
        inside(self._host, pair.remove)

    def _clear_host(self) -> None:
        if self._shut or SHUT in seal.read(NAME, HOST_MAPS).chains:
            six.close()
            self._shut = False
        self._clear_table(HOST_MAPS)

    def _clear_table(self, maps: tuple[str, ...]) -> None:
        if seal.read(NAME, maps).chains:
            self._run(f"delete table {meshrender.TABLE}\n")


def _host_seen(left: seal.Seal | None) -> tuple[str, str, bool]:
    """(network, label of the host's rules, whether Docker's chain lacks ours)."""
    network_id, found = pair.found(), seal.read(NAME, HOST_MAPS, left)
    label = found.label if found.label and found.about == seal.digest(_host_about()) else ""
    return network_id, label, bool(label and pair.docker_lacks())


def _inner_seen(left: seal.Seal | None) -> str:
    found = seal.read(NAME, MAPS, left)
    return found.label if found.label and found.about == seal.digest(_inner_about()) else ""


def _host_about() -> tuple[object, ...]:
    return (_link(OUTER), *(routes.switch(path) for path in (
        f"ipv4/conf/{OUTER}/route_localnet", f"ipv4/conf/{OUTER}/rp_filter", "ipv4/ip_forward")),
        *six.about())  # fmt: skip


def _inner_about() -> tuple[object, ...]:
    """Of links that speak for the mesh only: the bridge's ports come and go with containers. The pair's end
    has a link-local address of the kernel's, which comes some time after the link is up; others' are ours."""
    defaults = [one for family in routes.families() for one in routes.routes(family) if not one.destination]
    found = routes.addresses()
    speaking = {one.link for one in found if not one.address.startswith("fe80:")}
    names = [name for number, name in socket.if_nameindex() if number in speaking]
    end = pair.link(INNER)
    given = {one for one in found if end and one.link == end.number and one.address.startswith("fe80:")}
    places = sorted(one for one in found if one.link in speaking and one not in given)
    return (_link(INNER), defaults, places, routes.switch("ipv4/ip_forward"),
            routes.switch("ipv6/conf/all/forwarding"),
            [routes.switch(f"ipv4/conf/{name}/rp_filter") for name in ("all", *names)])  # fmt: skip


def _link(name: str) -> tuple[object, ...]:
    """A link and its addresses, () where there is none."""
    link = pair.link(name)
    if link is None:
        return ()
    return (
        link,
        sorted(
            one
            for one in routes.addresses()
            if one.link == link.number and not one.address.startswith("fe80:")
        ),
    )


def _cut_inner(table: MeshTable, links: Pair) -> None:
    """End flows that do not go where the table says."""
    wanted = {(_NUMBERS.get(port.protocol, 0), port.published): (set(port.backends), port.target)
              for port in table.ports}  # fmt: skip

    def astray(flow: conntrack.Flow) -> bool:
        if flow.target not in {links.inner, links.inner6}:
            return False
        backends, target = wanted.get((flow.protocol, flow.port), (set[str](), 0))
        return flow.backend not in backends or flow.backend_port != target

    conntrack.cut(astray)


def _cut_outer(table: MeshTable, links: Pair) -> None:
    """End flows into the mesh by ports that are not published, and past it by ports that are."""
    published = {(_NUMBERS.get(protocol, 0), port, address) for protocol, port, address in table.hosts}
    own = {one.address for one in routes.addresses()}

    def astray(flow: conntrack.Flow) -> bool:
        entered = flow.backend in {links.inner, links.inner6}
        wanted = bool(published & {(flow.protocol, flow.port, ""), (flow.protocol, flow.port, flow.target)})
        return entered != wanted and (entered or flow.target in own)

    conntrack.cut(astray)
