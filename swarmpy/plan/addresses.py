"""Addresses: for services virtual ones, one per network and IP version; one per network and version for tasks
and guests; one in the ingress network for nodes.

All is worked out from the world: an address is in use while a service, a node, a guest or a task that has not
ended holds it, so nothing can leak. A task keeps its addresses for its life; one that was freed comes round
again last. A network that is full is a sentence on the task that waits for it.
What belongs here: who gets which address. What does not: subnets (admission/network.py), arithmetic
(pools.py), what nodes are told (tables.py).
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from swarmpy.model import addressing
from swarmpy.model.errors import FailedPrecondition, InvalidArgument, NotFound
from swarmpy.model.lifecycle import TERMINAL, TaskState
from swarmpy.model.objects import Attachment, Network, Node, Subnet, Task, TaskStatus, Vip
from swarmpy.plan import places, pools
from swarmpy.plan.types import NOTHING, Plan
from swarmpy.state.changes import Change, Put
from swarmpy.state.snapshot import Snapshot

MESSAGE = "pending address allocation"
IPV6 = "ipv6"
"""The feature of nodes that can have IPv6 addresses in networks."""


class _Ledger:
    """The addresses of one network within one plan."""

    def __init__(self, world: Snapshot, network: Network) -> None:
        self.network = network
        self.used = held(world, network)
        self.subnets = list(network.subnets)

    def take(self, versions: frozenset[int] = frozenset({4, 6})) -> tuple[str, ...] | None:
        """One address of each version that the network has (of those asked for); None where one is out."""
        found: list[str] = []
        subnets = list(self.subnets)
        for version in sorted(versions & {_version(one) for one in subnets}):
            taken = self._first_free(subnets, version)
            if taken is None:
                return None
            found.append(taken)
        self.subnets = subnets
        self.used.update(addressing.bare(one) for one in found)
        return tuple(found)

    def claim(self, address: str) -> str:
        """That very address, as CIDR. Raises Refusal with Docker's sentence."""
        wanted = pools.canonical(addressing.bare(address))
        subnet = next((one for one in self.subnets if wanted and addressing.inside(wanted, one.subnet)), None)
        if subnet is None:
            raise InvalidArgument(
                f"Invalid address {address}: It does not belong to any of this network's subnets"
            )
        if wanted in self.used or not pools.givable(subnet, wanted):
            raise FailedPrecondition(f"Address already in use: {wanted} in network {self.network.name}")
        self.used.add(wanted)
        return f"{wanted}/{addressing.parse(subnet.subnet).prefixlen}"

    def _first_free(self, subnets: list[Subnet], version: int) -> str | None:
        for number, subnet in enumerate(subnets):
            if _version(subnet) == version:
                taken = pools.take(subnet, self.used)
                if taken is not None:
                    address, subnets[number] = taken
                    return address
        return None

    def mark(self) -> list[Subnet]:
        """Where it stands, for `back`."""
        return list(self.subnets)

    def back(self, mark: list[Subnet], addresses: tuple[str, ...]) -> None:
        """Undo what was taken since the mark."""
        self.subnets = mark
        self.used.difference_update(addressing.bare(one) for one in addresses)

    def full(self) -> str:
        """The sentence for who waits."""
        size = sum(pools.capacity(one) for one in self.subnets if _version(one) == 4)
        which = ", ".join(one.subnet for one in self.subnets)
        return (
            f"no address is free in network {self.network.name} ({which}): all {size} are in use; remove "
            "tasks or use a network with a larger subnet"
        )


class _Books:
    """All ledgers of one plan."""

    def __init__(self, world: Snapshot) -> None:
        self.world = world
        self.ingress = world.ingress_network()
        self._open: dict[str, _Ledger] = {}

    def of(self, network_id: str) -> _Ledger | None:
        """The network's ledger; None where there is no such network."""
        ledger = self._open.get(network_id)
        if ledger is None:
            network = self.world.networks.get(network_id)
            if network is None:
                return None
            ledger = self._open[network_id] = _Ledger(self.world, network)
        return ledger

    def cursors(self) -> list[Change]:
        """The networks whose cursor moved."""
        return [
            Put(replace(one.network, subnets=tuple(one.subnets)), "addresses were given away")
            for _, one in sorted(self._open.items())
            if tuple(one.subnets) != one.network.subnets
        ]


def _version(subnet: Subnet) -> int:
    return addressing.parse(subnet.subnet).version


def held(world: Snapshot, network: Network) -> set[str]:
    """The addresses in use in a network, without prefix lengths."""
    used = {
        addressing.bare(address)
        for task in (world.bucket_in(network.id) or {}).values()
        if task.status.state not in TERMINAL
        for place in task.networks
        if place.network_id == network.id
        for address in place.addresses
    }
    for guest in (world.guests_in(network.id) or {}).values():
        used.update(
            addressing.bare(address)
            for place in guest.networks
            if place.network_id == network.id
            for address in place.addresses
        )
    for service in world.services.rows.values():
        used.update(addressing.bare(vip.address) for vip in service.vips if vip.network_id == network.id)
    if network.view.ingress:
        for node in world.nodes.rows.values():
            used.update(addressing.bare(address) for address in node.ingress)
    return used


# ---------------------------------------------------------------- services


def of_services(
    _now: int, world: Snapshot, service_ids: Iterable[str]
) -> tuple[tuple[Change, ...], frozenset[str]]:
    """These services get the virtual addresses that they should have. A network without room leaves a
    service without an address there: the ids of such are the second part of the answer."""
    books = _Books(world)
    changes: list[Change] = []
    lacking: set[str] = set()
    for service_id in service_ids:
        service = world.services[service_id]
        wanted = [pair for key in places.of_service(service, books.ingress) for pair in _pairs(world, key)]
        known = {(vip.network_id, pools.version(vip.address)): vip for vip in service.vips}
        if list(known) == wanted:
            continue
        vips = [known.get(pair) or _vip(books, *pair) for pair in wanted]
        after = tuple(vip for vip in vips if vip is not None)
        if len(after) < len(wanted):
            lacking.add(service_id)
        if after != service.vips:
            changes.append(Put(replace(service, vips=after), "virtual addresses were allocated"))
    return (*changes, *books.cursors()), frozenset(lacking)


def _pairs(world: Snapshot, network_id: str) -> list[tuple[str, int]]:
    """A virtual address for each IP version of a network. In the ingress network nobody asks for one: the
    mesh goes by ports, so that Docker's one will do."""
    network = world.networks.get(network_id)
    if network is None or network.view.ingress:
        return [(network_id, 4)]
    return [(network_id, version) for version in sorted({4} | {_version(one) for one in network.subnets})]


def _vip(books: _Books, network_id: str, version: int) -> Vip | None:
    ledger = books.of(network_id)
    taken = ledger.take(frozenset({version})) if ledger else None
    return Vip(network_id, taken[0]) if taken else None


# ---------------------------------------------------------------- tasks


def of_tasks(now: int, world: Snapshot, tasks: Iterable[Task]) -> Plan:
    """These tasks, all that wait for their places in networks, get them, or the reason why they cannot."""
    books = _Books(world)
    changes: list[Change] = []
    for task in sorted(tasks, key=lambda one: (one.created_at, one.slot, one.id)):
        changes += _place(now, books, task)
    return Plan((*changes, *books.cursors())) if changes else NOTHING


def _place(now: int, books: _Books, task: Task) -> list[Change]:
    """All places of the task, or none: it must not use up addresses in one network while it waits for
    another."""
    known = {place.network_id: place for place in task.networks}
    found: list[Attachment] = []
    undo: list[tuple[_Ledger, list[Subnet], tuple[str, ...]]] = []
    err = ""
    for one in places.of_task(task, books.ingress):
        place = known.get(one.target)
        if place is None:
            ledger = books.of(one.target)
            mark = ledger.mark() if ledger else []
            addresses = ledger.take() if ledger else None
            if ledger is None or addresses is None:
                err = ledger.full() if ledger else f"network {one.target} not found"
                break
            undo.append((ledger, mark, addresses))
            place = Attachment(
                network_id=one.target, addresses=addresses, aliases=one.aliases, driver_opts=one.driver_opts
            )
        found.append(place)
    if not err:
        return [Put(replace(task, networks=tuple(found)), "addresses were allocated")]
    for ledger, mark, addresses in undo:
        ledger.back(mark, addresses)
    return _waits(now, task, err)


def _waits(now: int, task: Task, err: str) -> list[Change]:
    status = task.status
    if (status.state, status.message, status.err) == (TaskState.PENDING, MESSAGE, err):
        return []
    fresh = status.state != TaskState.PENDING
    waiting = TaskStatus(state=TaskState.PENDING, at=now, message=MESSAGE, err=err)
    return [Put(replace(task, status=waiting, state_since=now if fresh else task.state_since), err)]


# ---------------------------------------------------------------- guests


def for_guest(world: Snapshot, wanted: Iterable[Attachment]) -> tuple[list[Attachment], list[Change]]:
    """Places for a container that is no task, and what that changes of the networks. The addresses that are
    asked for are given, or none. Raises Refusal."""
    books = _Books(world)
    found: list[Attachment] = []
    for one in wanted:
        ledger = books.of(one.network_id)
        if ledger is None:
            raise NotFound(f"network {one.network_id} not found")
        claimed = [ledger.claim(address) for address in one.addresses]
        rest = frozenset({4, 6}) - {pools.version(address) for address in claimed}
        taken = ledger.take(rest)
        if taken is None:
            raise FailedPrecondition(ledger.full())
        addresses = sorted((*claimed, *taken), key=pools.version)
        found.append(replace(one, addresses=tuple(addresses)))
    return found, books.cursors()


# ---------------------------------------------------------------- nodes


def of_nodes(
    _now: int, world: Snapshot, node_ids: Iterable[str]
) -> tuple[tuple[Change, ...], frozenset[str]]:
    """These nodes have their own addresses in the ingress network, and none where there is no such network. A
    node whose kernel has no IPv6 gets none of that kind: it takes part with the other. The second part of
    the answer: the ids of those for whom no address was left."""
    ingress = world.ingress_network()
    books = _Books(world)
    changes: list[Change] = []
    lacking: set[str] = set()
    for node_id in node_ids:
        node = world.nodes[node_id]
        if ingress is None:
            if node.ingress:
                changes.append(Put(replace(node, ingress=()), "the ingress network was removed"))
            continue
        after, complete = _of_node(books, ingress, node)
        if not complete:
            lacking.add(node_id)
        if after != node.ingress:
            changes.append(Put(replace(node, ingress=after), "it takes part in the routing mesh"))
    return (*changes, *books.cursors()), frozenset(lacking)


def mesh_of(ingress: Network | None) -> object:
    """What of the ingress network the addresses of nodes depend on: equal as long as it is so."""
    return ingress and (ingress.id, *(one.subnet for one in ingress.subnets))


def _of_node(books: _Books, ingress: Network, node: Node) -> tuple[tuple[str, ...], bool]:
    """What it has, and for each version that it lacks the next free address, as before where none is left;
    and whether it has all that it should have."""
    able = {4, 6} if IPV6 in node.description.features else {4}
    wanted = able & {_version(one) for one in ingress.subnets}
    kept = [one for one in node.ingress if pools.version(one) in wanted and _belongs(one, ingress)]
    complete = True
    for version in sorted(wanted - {pools.version(one) for one in kept}):
        ledger = books.of(ingress.id)
        taken = ledger.take(frozenset({version})) if ledger else None
        if taken is None and version == 4:
            return (), False  # there is no taking part without
        complete = complete and taken is not None
        kept += taken or ()
    return tuple(sorted(kept, key=pools.version)), complete


def _belongs(address: str, network: Network) -> bool:
    return any(addressing.inside(address, one.subnet) for one in network.subnets)
