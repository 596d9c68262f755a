"""What a node does next for its networks: tables + what its kernel holds -> actions.

What belongs here: the comparison, as a pure, level-triggered function; it repairs whatever differs, however
that came about. Order matters: what is new can be reached before anything points to it, and nothing points
any more to what goes. What does not: carrying out (agent/fabric), what tables say (plan/tables).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field

from swarmpy.model.fabric import Endpoint, IngressNode, PublishedPort, ServiceEntry, Table, sealed_port
from swarmpy.model.links import (
    Link,
    LinkSeen,
    MeshPort,
    MeshTable,
    Neighbour,
    Return,
    SandboxTable,
    VirtualService,
)
from swarmpy.plan import guarding
from swarmpy.plan.guarding import Cipher, Fenced, Guard
from swarmpy.plan.probing import PORT as PROBES


@dataclass(frozen=True, slots=True)
class World:
    """All that is known on the node. `local`: its own VXLAN address. `links`: the kernel's, None while they
    were not looked at. `sandboxes`: path by task id, of containers that run. `programmed`: what each sandbox
    surely holds; `mesh` and `served` likewise; unless `mesh_known`, the kernel may hold another mesh.
    `endpoints`: the Engine's endpoints that exist, None while that is not known. `fenced`: what guards the
    node's ports. `listening`: TCP ports of the node's own manager, which the mesh spares. `complete`: the
    leader sent all tables, so that others' leftovers may go."""

    node_id: str
    local: str
    tables: Mapping[str, Table]
    links: Mapping[str, LinkSeen] | None = None
    sandboxes: Mapping[str, str] = field(default_factory=dict)
    programmed: Mapping[str, SandboxTable] = field(default_factory=dict)
    mesh: MeshTable | None = None
    mesh_known: bool = True
    served: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    endpoints: frozenset[str] | None = None
    fenced: Fenced = field(default_factory=Fenced)
    listening: frozenset[int] = frozenset()
    complete: bool = False


# ---- actions


@dataclass(frozen=True, slots=True)
class Ensure:
    """Make or mend a network's links."""

    link: Link


@dataclass(frozen=True, slots=True)
class Forward:
    """Change forwarding entries."""

    network_id: str
    add: tuple[Neighbour, ...] = ()
    remove: tuple[Neighbour, ...] = ()


@dataclass(frozen=True, slots=True)
class Balance:
    """Make a container's namespace as the table says."""

    sandbox: str
    table: SandboxTable
    before: SandboxTable | None


@dataclass(frozen=True, slots=True)
class Mesh:
    """Make the routing mesh as the table says; None: take it away."""

    table: MeshTable | None
    before: MeshTable | None


@dataclass(frozen=True, slots=True)
class Serve:
    """Answer names at these addresses of the network; () no more."""

    network_id: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unplug:
    """Remove links that no container has."""

    network_id: str
    endpoint_id: str


@dataclass(frozen=True, slots=True)
class Drop:
    """Remove a network's links."""

    network_id: str


Action = Guard | Cipher | Ensure | Forward | Balance | Mesh | Serve | Unplug | Drop


def plan(world: World) -> tuple[Action, ...]:
    """What to do now, in this order; () when all is as it should be."""
    seen = world.links
    if seen is None or not world.local:
        return ()
    actions: list[Action] = list(guarding.before(world.tables, world.local, world.fenced))
    later: list[Action] = []
    for network_id, table in sorted(world.tables.items()):
        link = link_of(table, world.node_id, world.local)
        known = seen.get(network_id)
        served, addresses = world.served.get(network_id, ()), served_at(table)
        whole = known is not None and known.link is not None
        if served and not whole:
            # Whoever removed the namespace took its name only: what listens in it keeps it, and its VNI.
            actions.append(Serve(network_id, ()))
        if known is None or known.link != link:
            actions.append(Ensure(link))
        add, replaced, remove = _forwarding(table, world.node_id, known)
        if add:
            actions.append(Forward(network_id, add=add, remove=replaced))
        if remove:
            later.append(Forward(network_id, remove=remove))
        if whole and served != addresses:
            actions.append(Serve(network_id, addresses))
    actions += _balancers(world)
    actions += _mesh(world)
    last = guarding.after(world.tables, world.local, world.fenced, complete=world.complete)
    return (*actions, *later, *_leftovers(world, seen), *last)


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


def _forwarding(
    table: Table, node_id: str, known: LinkSeen | None
) -> tuple[tuple[Neighbour, ...], tuple[Neighbour, ...], tuple[Neighbour, ...]]:
    """What comes, what goes first because it is to change, and what goes for good."""
    wanted = {one.mac: one for one in neighbours(table, node_id)}
    have = known.neighbours if known is not None else {}
    add = tuple(one for mac, one in sorted(wanted.items()) if have.get(mac) != one)
    fresh = {address for one in add for address in one.addresses}
    # The kernel knows an address once: whoever had one that is given to another now goes before that one
    # comes, else taking it away would take the other's.
    first = {mac for mac, one in have.items() if mac not in wanted and not fresh.isdisjoint(one.addresses)}
    replaced = tuple(have[one.mac] for one in add if one.mac in have)
    replaced += tuple(have[mac] for mac in sorted(first))
    return add, replaced, tuple(have[mac] for mac in sorted(have) if mac not in wanted and mac not in first)


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


def _balancers(world: World) -> Iterable[Action]:
    wanted = Sandboxes(world.tables)
    for task_id, path in sorted(world.sandboxes.items()):
        table = wanted.table(task_id)
        before = world.programmed.get(path)
        if table is not None and table != before:
            yield Balance(path, table, before)


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


def _mesh(world: World) -> Iterable[Action]:
    tables = [table for table in world.tables.values() if table.ingress]
    wanted = mesh_of(tables[0], world.node_id, world.listening) if tables else None
    left = wanted is None and world.complete and not world.mesh_known
    if wanted != world.mesh or left:
        yield Mesh(wanted, world.mesh)


# ---------------------------------------------------------------- what nobody needs any more


def _leftovers(world: World, seen: Mapping[str, LinkSeen]) -> Iterable[Action]:
    for network_id, link in sorted(seen.items()):
        if network_id in world.tables:
            if world.endpoints is not None:
                for endpoint_id in sorted(set(link.plugs) - world.endpoints):
                    yield Unplug(network_id, endpoint_id)
        elif world.complete:
            yield Drop(network_id)
    if world.complete:
        for network_id in sorted(set(world.served) - set(world.tables)):
            yield Serve(network_id, ())


# ---------------------------------------------------------------- about actions


def network_of(action: Action) -> str:
    """The network whose links the action is about, "" for other actions."""
    match action:
        case Ensure(link):
            return link.network_id
        case Forward() | Unplug() | Drop() | Serve():
            return action.network_id
    return ""


def subjects(action: Action) -> set[str]:
    """What fails together: an action itself, and everything else of a network whose links are not right."""
    return {key(action), network_of(action)} - {""}


def blocked(action: Action, failed: Set[str], tables: Mapping[str, Table]) -> bool:
    """Whether the action has to wait after these failed. Nothing new is sent or awaited unguarded, nor in the
    clear where it is to be encrypted; what goes may go."""
    if subjects(action) & failed:
        return True
    if not isinstance(action, Ensure) and not (isinstance(action, Forward) and action.add):
        return False
    table = tables.get(network_of(action))
    return "Guard" in failed or ("Cipher" in failed and table is not None and table.encrypted)


def key(action: Action) -> str:
    """What the action is about, for not trying twice in one turn."""
    kind = type(action).__name__
    match action:
        case Balance():
            return f"{kind} {action.sandbox}"
        case Guard() | Cipher() | Mesh():
            return kind
    return f"{kind} {network_of(action)}"


def drift(action: Action) -> str:
    """What had become of the kernel where the action was needed though no table had changed; "" for what may
    be needed at any time."""
    match action:
        case Ensure():
            return "its links were damaged"
        case Forward(_, add, remove):
            return f"{len(add)} forwarding entries were missing or wrong, {len(remove)} too many"
        case Drop():
            return "links that no task needs were there"
    return ""
