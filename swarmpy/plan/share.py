"""A node's share of its networks: what their tables mean for the kernel of one node.

What belongs here: from a table to links, forwarding entries, sandboxes, the mesh, without a look at what the
kernel holds. What does not: comparing (fabric.py), what tables say (tables.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

from swarmpy.model.fabric import Endpoint, IngressNode, PublishedPort, ServiceEntry, Table, sealed_port
from swarmpy.model.links import (
    Link,
    MeshPort,
    MeshTable,
    Neighbour,
    Return,
    SandboxTable,
    VirtualService,
)
from swarmpy.plan.probing import PORT as PROBES

# ---------------------------------------------------------------- links and forwarding


def link_of(table: Table, node_id: str, local: str) -> Link:
    """The links of the network on this node. In the ingress network each node has its own address and MAC."""
    own = _own(table, node_id)
    if not table.ingress:
        gateways, mac = table.gateways, ""
    elif own is None:
        gateways, mac = (), ""
    else:
        lengths = {":" in cidr: cidr.partition("/")[2] for cidr in table.subnets}
        gateways = tuple(f"{one}/{lengths[':' in one]}" for one in own.addresses)
        mac = own.mac
    return Link(
        network_id=table.id, vni=table.vni, mtu=table.mtu, local=local,
        port=sealed_port(table.port) if table.encrypted else table.port,
        gateways=gateways, bridge_mac=mac,
    )  # fmt: skip


def _own(table: Table, node_id: str) -> IngressNode | None:
    return next((one for one in table.nodes if one.id == node_id), None)


def local_of(tables: Mapping[str, Table], node_id: str) -> str:
    """This node's VXLAN address, as the other nodes know it; "" where no table tells."""
    for table in tables.values():
        own = _own(table, node_id)
        if own is not None:
            return own.vtep
        for endpoint in table.endpoints:
            if endpoint.node_id == node_id:
                return endpoint.vtep
    return ""


def served_at(table: Table) -> tuple[str, ...]:
    """Where names are served: at the network's gateways, which only this node's containers reach."""
    return () if table.ingress else tuple(cidr.partition("/")[0] for cidr in table.gateways)


def neighbours(table: Table, node_id: str) -> Iterable[Neighbour]:
    """The network's stations on other nodes."""
    for endpoint in table.endpoints:
        if endpoint.node_id != node_id and endpoint.vtep:
            yield Neighbour(endpoint.mac, endpoint.vtep, endpoint.addresses)
    for node in table.nodes:
        if node.id != node_id and node.vtep:
            yield Neighbour(node.mac, node.vtep, node.addresses)


# ---------------------------------------------------------------- balancers


def _backends(table: Table) -> dict[str, list[Endpoint]]:
    found: dict[str, list[Endpoint]] = {}
    for endpoint in table.endpoints:
        if endpoint.serving:
            found.setdefault(endpoint.service_id, []).append(endpoint)
    return found


def _same_kind(address: str, others: Iterable[str]) -> tuple[str, ...]:
    return tuple(one for one in others if (":" in one) == (":" in address))


def _services(table: Table) -> tuple[VirtualService, ...]:
    backends = _backends(table)

    def of(entry: ServiceEntry, vip: str) -> VirtualService:
        serving = backends.get(entry.id, ())
        return VirtualService(
            vip, tuple(sorted(one for end in serving for one in _same_kind(vip, end.addresses)))
        )

    return tuple(of(entry, vip) for entry in table.services for vip in entry.vips)


def _only(version: int, addresses: Iterable[str]) -> str:
    """The first address of that IP version, "" where there is none."""
    return next((one for one in addresses if (":" in one) == (version == 6)), "")


def _returns(table: Table, *, six: bool) -> tuple[Return, ...]:
    return tuple(
        Return(node.number, node.mac, address, _only(6, node.addresses) if six else "")
        for node in table.nodes
        if (address := _only(4, node.addresses))
    )


class Sandboxes:
    """Tables of sandboxes, the parts of each network worked out once."""

    def __init__(self, tables: Mapping[str, Table]) -> None:
        self._tables = tables
        self._services: dict[str, tuple[VirtualService, ...]] = {}
        self._homes: dict[str, list[tuple[Table, Endpoint]]] | None = None

    def _of_task(self, task_id: str) -> list[tuple[Table, Endpoint]]:
        if self._homes is None:
            self._homes = {}
            for _, table in sorted(self._tables.items()):
                for endpoint in table.endpoints:
                    self._homes.setdefault(endpoint.id, []).append((table, endpoint))
        return self._homes.get(task_id, [])

    def table(self, task_id: str) -> SandboxTable | None:
        """What the namespace of the task's container is to hold; None where the task is in no table."""
        homes = self._of_task(task_id)
        if not homes:
            return None
        services: list[VirtualService] = []
        address = address6 = ""
        returns: tuple[Return, ...] = ()
        for table, endpoint in homes:
            if table.id not in self._services:
                self._services[table.id] = _services(table)
            services += self._services[table.id]
            if table.ingress:
                address, address6 = _only(4, endpoint.addresses), _only(6, endpoint.addresses)
                returns = _returns(table, six=bool(address6))
        return SandboxTable(tuple(sorted(services)), address, returns, address6)


# ---------------------------------------------------------------- the routing mesh


def mesh_of(table: Table, node_id: str, listening: Set[int] = frozenset()) -> MeshTable | None:
    """The mesh of this node by the ingress network's table; None where it takes no part. What the node itself
    listens on is never taken, whatever is published: it would not hear that the port was withdrawn."""
    own = _own(table, node_id)
    if own is None:
        return None
    backends = _backends(table)
    six = bool(_only(6, own.addresses))
    udp = {PROBES, table.port, sealed_port(table.port)}
    taken = {"tcp": listening, "udp": udp}
    ports = [one for one in table.ports if one.published not in taken.get(one.protocol, ())]
    return MeshTable(
        network_id=table.id,
        addresses=own.addresses,
        ports=tuple(sorted(_port(one, backends.get(one.service_id, []), node_id, six=six) for one in ports)),
        hosts=tuple(sorted((one.protocol, one.published, one.host) for one in ports)),
    )


def _port(port: PublishedPort, serving: list[Endpoint], node_id: str, *, six: bool) -> MeshPort:
    chosen = [one for one in serving if port.source != "local" or one.node_id == node_id]
    addresses = (address for one in chosen for address in one.addresses if six or ":" not in address)
    return MeshPort(
        port.protocol, port.published, port.target, tuple(sorted(addresses)), port.source == "snat"
    )
