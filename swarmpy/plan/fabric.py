"""What a node does next for its networks: tables + what its kernel holds -> actions.

What belongs here: the comparison, as a pure, level-triggered function; it repairs whatever differs, however
that came about. Order matters: what is new can be reached before anything points to it, and nothing points
any more to what goes. What does not: carrying out (agent/fabric), what tables say (plan/tables).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field

from swarmpy.model.fabric import Table
from swarmpy.model.links import (
    Link,
    LinkSeen,
    MeshTable,
    Neighbour,
    SandboxTable,
)
from swarmpy.plan import guarding
from swarmpy.plan.guarding import Cipher, Fenced, Guard
from swarmpy.plan.share import Sandboxes, link_of, mesh_of, neighbours, served_at


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


# ---------------------------------------------------------------- parts of the comparison


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


def _balancers(world: World) -> Iterable[Action]:
    wanted = Sandboxes(world.tables)
    for task_id, path in sorted(world.sandboxes.items()):
        table = wanted.table(task_id)
        before = world.programmed.get(path)
        if table is not None and table != before:
            yield Balance(path, table, before)


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
