"""The manager's judgement: all planners in their order, as one plan.

Each step sees the world as the steps before it left it, so that one pass takes a new service to ASSIGNED
tasks and a lost node's tasks to their new nodes. `plan` looks at everything each time; `Planner` remembers
what was at rest, and decides the same. What does not belong here: any decision of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from swarmpy.model.objects import Node, Service
from swarmpy.plan import (
    addresses,
    enforcer,
    global_,
    guests,
    keys,
    liveness,
    placement,
    promotion,
    reap,
    replicas,
    restart,
    rollout,
)
from swarmpy.plan.filters import Seats
from swarmpy.plan.memory import Memory
from swarmpy.plan.types import Plan, earliest, merged
from swarmpy.state.changes import Change, Delete, Put
from swarmpy.state.snapshot import Snapshot

OfWorld = Callable[[int, Snapshot], Plan]
OfSeats = Callable[[int, Snapshot, Seats], Plan]
OfService = Callable[[int, Snapshot, Service], Plan]
OfServices = Callable[[int, Snapshot, Sequence[str]], tuple[tuple[Change, ...], frozenset[str]]]
"""Changes, and the services that are not at rest although nothing could be done for them now."""
OfNode = Callable[[int, Snapshot, Node], Plan]


@dataclass(frozen=True, slots=True)
class Step:
    """One planner: of the whole world, of what its nodes hold, of each service, of several services that
    share something, or of each node."""

    world: OfWorld | None = None
    seats: OfSeats | None = None
    service: OfService | None = None
    services: OfServices | None = None
    node: OfNode | None = None


def _nodes(now: int, world: Snapshot) -> Plan:
    """What changes nodes, and what lost ones held: others may wait for it."""
    plans: list[Plan] = []
    for step in (liveness.plan, guests.plan, addresses.of_nodes):
        plans.append(step(now, world))
        if plans[-1].changes:
            world = world.evolve(plans[-1].changes, at=now)
    return merged(plans)


STEPS = (
    Step(world=_nodes),
    Step(service=enforcer.of_service),
    Step(node=enforcer.of_node),
    Step(service=replicas.of_service),
    Step(world=replicas.of_removed),
    Step(service=global_.of_service),
    Step(service=restart.of_service),
    Step(service=rollout.of_service),
    Step(service=promotion.of_service),
    Step(services=addresses.of_services),
    Step(world=addresses.of_tasks),
    Step(seats=placement.plan),
    Step(service=reap.of_service),
    Step(world=reap.of_removed),
    Step(world=keys.plan),
)
"""Facts about nodes first, then what should exist, then where it goes, then what may be forgotten. Only the
first changes nodes, only the last the cluster. A step of a service depends on nothing but the service, its
tasks, the nodes, the cluster and, at the instant that it names as its wake, on time; a step of a node on the
node and its tasks."""


MOST = 2000
"""Changes of one step in one plan at most; it goes on at once in the next. A batch holds no more than half of
it, and a leader that works out tens of thousands for each batch is silent for too long."""


def plan(now: int, world: Snapshot, most: int = MOST) -> Plan:
    """Everything that should change now, one change per object, and when to look again."""
    return _run(now, world, Memory(), most)


class Planner:
    """`plan` for one leader's term: services and nodes at rest are not looked at again until something that
    they depend on changes. The decisions are those of `plan`, which is its oracle in the tests."""

    def __init__(self, most: int = MOST) -> None:
        self._memory, self._most = Memory(), most

    def plan(self, now: int, world: Snapshot) -> Plan:
        """Everything that should change now, one change per object, and when to look again."""
        return _run(now, world, self._memory, self._most)


def _run(now: int, world: Snapshot, memory: Memory, most: int) -> Plan:
    working = world
    changes: list[Change] = []
    wakes: list[int | None] = []
    for number, step in enumerate(STEPS):
        if number == 1:
            memory.begin(now, world, working)
        decided = _decide(step, now, working, memory, most)
        if len(decided.changes) > most:
            decided = Plan(decided.changes[:most], now)
        wakes.append(decided.wake_at)
        if decided.changes:
            changes += decided.changes
            working = working.evolve(decided.changes, at=now)
    wakes.append(memory.end())
    return Plan(coalesce(world, changes), earliest(wakes))


def _decide(step: Step, now: int, working: Snapshot, memory: Memory, most: int) -> Plan:
    if step.world is not None:
        return step.world(now, working)
    if step.seats is not None:
        return step.seats(now, working, memory.seats)
    changes: list[Change] = []
    if step.services is not None:
        shared, restless = step.services(now, working, memory.services)
        memory.note_services(shared, restless)
        return Plan(shared)
    if step.service is not None:
        for number, service_id in enumerate(memory.services):
            if len(changes) >= most:
                memory.put_off(services=memory.services[number:])
                return Plan(tuple(changes), now)
            decided = step.service(now, working, working.services[service_id])
            memory.note_service(service_id, decided)
            changes += decided.changes
    if step.node is not None:
        for number, node_id in enumerate(memory.nodes):
            if len(changes) >= most:
                memory.put_off(nodes=memory.nodes[number:])
                return Plan(tuple(changes), now)
            decided = step.node(now, working, working.nodes[node_id])
            memory.note_node(node_id, decided)
            changes += decided.changes
    return Plan(tuple(changes))


def coalesce(base: Snapshot, changes: Iterable[Change]) -> tuple[Change, ...]:
    """The last change of each object, in the order of their first ones, with all their causes. What was made
    and deleted within the plan never was."""
    last: dict[tuple[str, str], Change] = {}
    for change in changes:
        key = change.key
        before = last.get(key)
        if before is not None and before.cause and before.cause != change.cause:
            cause = f"{before.cause}; {change.cause}"
            change = Put(change.item, cause) if isinstance(change, Put) else Delete(*key, cause)  # noqa: PLW2901  the joined cause replaces it
        last[key] = change
    return tuple(
        change for key, change in last.items() if isinstance(change, Put) or base.object(*key) is not None
    )
