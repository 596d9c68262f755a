"""The manager's judgement: all planners in their order, as one plan.

Each step sees the world as the steps before it left it, so that one pass takes a new service to ASSIGNED
tasks and a lost node's tasks to their new nodes. `plan` looks at everything each time; `Planner` remembers
what was at rest, looks at what changed, and decides the same.
What does not belong here: any decision of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from swarmpy.model.objects import Node, Service, Task
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
from swarmpy.plan.memory import Known, Memory
from swarmpy.plan.roster import Roster
from swarmpy.plan.seats import Seats
from swarmpy.plan.slots import Place, Slot, is_job
from swarmpy.plan.types import NOTHING, Plan, earliest
from swarmpy.state.changes import Change, Delete, Put
from swarmpy.state.snapshot import Snapshot

OfWorld = Callable[[int, Snapshot], Plan]
OfSeats = Callable[[int, Snapshot, Seats], Plan]
OfTasks = Callable[[int, Snapshot, Collection[Task]], Plan]
OfKnown = Callable[[int, Snapshot, Known, int], Plan]
"""The last argument: changes of which no more are of use."""
OfSlot = Callable[[int, Snapshot, Service, Slot], Plan]
OfPlace = Callable[[int, Snapshot, Known, Place], Plan]
OfNode = Callable[[int, Snapshot, Node], Plan]
OfSeveral = Callable[[int, Snapshot, Sequence[str]], tuple[tuple[Change, ...], frozenset[str]]]
"""Changes, and those that are not at rest although nothing could be done for them now."""


def _living(known: Known) -> bool:
    return known.service is not None and not is_job(known.service)


def _is_global(known: Known) -> bool:
    return known.roster.is_global and _living(known)


def _is_constrained(known: Known) -> bool:
    service = known.service
    return (
        service is not None and _living(known) and not known.roster.is_global
        and bool(service.view.task_template.placement.constraints)
    )  # fmt: skip


def _exists(known: Known) -> bool:
    return known.service is not None


def _is_removed(known: Known) -> bool:
    return known.service is None


@dataclass(frozen=True, slots=True)
class Step:
    """One planner: of the whole world, of what its nodes hold, of the tasks that lack addresses, of each
    service, of places of each service, of several services that share something, likewise of nodes."""

    world: OfWorld | None = None
    seats: OfSeats | None = None
    lacking: OfTasks | None = None
    service: OfKnown | None = None
    place: OfPlace | None = None
    of: Callable[[Known], bool] = _living
    """Of a step of services or places: which services are its concern."""
    among: Callable[[Roster], set[Place]] | None = None
    """Of a step of places: the only ones that can be its concern."""
    services: OfSeveral | None = None
    node: OfNode | None = None
    nodes: OfSeveral | None = None
    apart: bool = False
    """Whether what it does is no concern of the steps after it: it is spared a draft of the world."""


def _slots(
    planner: OfSlot,
    of: Callable[[Known], bool] = _living,
    among: Callable[[Roster], set[Place]] | None = None,
) -> Step:
    """A planner of the slots with tasks that are not to be removed."""

    def of_place(now: int, world: Snapshot, known: Known, place: Place) -> Plan:
        slot = known.roster.slots.get(place)
        if slot is None or not slot.tasks or known.service is None:
            return NOTHING
        return planner(now, world, known.service, slot)

    return Step(place=of_place, of=of, among=among)


def _replicas(now: int, world: Snapshot, known: Known, most: int) -> Plan:
    if known.service is None:
        return NOTHING
    return replicas.of_service(now, world, known.service, known.roster, min(most, replicas.ADDED))


def _removed(now: int, _world: Snapshot, known: Known, place: Place) -> Plan:
    slot = known.roster.slots.get(place)
    return replicas.of_removed(now, slot) if slot is not None else NOTHING


def _global(now: int, world: Snapshot, known: Known, place: Place) -> Plan:
    slot = known.roster.slots.get(place)
    held = slot if slot is not None and slot.tasks else None
    return global_.of_place(now, world, known.service, str(place), held) if known.service else NOTHING


def _rollout(now: int, world: Snapshot, known: Known, _most: int) -> Plan:
    if known.service is None:
        return NOTHING
    return rollout.of_service(now, world, known.service, known.roster, known.survey)


def _reap(now: int, world: Snapshot, known: Known, place: Place) -> Plan:
    slot = known.roster.slots.get(place)
    return reap.of_slot(now, world, known.service, slot) if slot is not None else NOTHING


STEPS = (
    Step(node=liveness.of_node),
    Step(world=liveness.of_removed),
    Step(world=guests.plan),
    Step(nodes=addresses.of_nodes),
    _slots(enforcer.of_slot, _is_constrained),
    Step(node=enforcer.of_node),
    Step(service=_replicas),
    Step(place=_removed, of=_is_removed),
    Step(place=_global, of=_is_global),
    _slots(restart.of_slot, among=lambda roster: roster.broken),
    Step(service=_rollout),
    _slots(promotion.of_slot, among=lambda roster: roster.preparing),
    Step(services=addresses.of_services),
    Step(lacking=addresses.of_tasks),
    Step(seats=placement.plan, apart=True),
    Step(place=_reap, among=lambda roster: roster.unwanted),
    Step(place=_reap, of=_is_removed, among=lambda roster: roster.unwanted),
    Step(world=keys.plan, apart=True),
)
"""Facts about nodes first, then what should exist, then where it goes, then what may be forgotten (the reaper
last: placement counts failures). What each depends on is what memory.py says; whoever depends on more must
say so there."""


MOST = 1000
"""Changes of one step in one plan at most; it goes on at once in the next. A batch holds no more, and a
leader that works out tens of thousands for each batch is silent for too long."""


def plan(now: int, world: Snapshot, most: int = MOST) -> Plan:
    """Everything that should change now, one change per object, and when to look again."""
    return _run(now, world, Memory(), most)


class Planner:
    """`plan` for one leader's term: what is at rest is not looked at again until something that it depends on
    changes. The decisions are those of `plan`, which is its oracle in the tests."""

    def __init__(self, most: int = MOST) -> None:
        self._memory, self._most = Memory(), most

    def prepare(self, world: Snapshot) -> Iterator[None]:
        """Take in a world before the first plan, in portions: a leader that begins must not be silent while
        it gets to know a hundred thousand tasks. It need not be the world that is planned then."""
        return self._memory.prepare(world)

    def plan(self, now: int, world: Snapshot) -> Plan:
        """Everything that should change now, one change per object, and when to look again."""
        return _run(now, world, self._memory, self._most)


def _run(now: int, world: Snapshot, memory: Memory, most: int) -> Plan:
    working = world
    changes: list[Change] = []
    wakes: list[int | None] = []
    memory.begin(now, world)
    for number, step in enumerate(STEPS):
        if step.world is None:
            memory.draft(working)
        decided = _Turn(number, step, now, working, memory, most).decide()
        if len(decided.changes) > most:
            decided = Plan(decided.changes[:most], now)
        wakes.append(decided.wake_at)
        if decided.changes:
            changes += decided.changes
            if not step.apart:
                working = working.evolve(decided.changes, at=now)
    memory.draft(working)  # nothing may come of what the last steps did, either
    rest = memory.end()
    wakes.append(max(now, rest) if rest is not None else None)
    return Plan(coalesce(world, changes), earliest(wakes))


@dataclass(frozen=True, slots=True)
class _Turn:
    """One step in one plan. It goes on until it has more changes than it may make: so it does not matter how
    many it looked at in vain. What it did not come to is looked at again."""

    number: int
    step: Step
    now: int
    world: Snapshot
    memory: Memory
    most: int

    def decide(self) -> Plan:
        step, now, world, memory = self.step, self.now, self.world, self.memory
        if step.world is not None:
            return step.world(now, world)
        if step.seats is not None:
            return step.seats(now, world, memory.seats)
        if step.lacking is not None:
            tasks = memory.seats.waiting.lacking.values()
            return step.lacking(now, world, tasks) if tasks else NOTHING
        if step.services is not None:
            service_ids = memory.services(_exists)
            changes, restless = step.services(now, world, service_ids)
            memory.put_off(services=service_ids if len(changes) > self.most else restless)
            return Plan(changes)
        if step.nodes is not None:
            node_ids = sorted(memory.nodes)
            changes, restless = step.nodes(now, world, node_ids)
            memory.put_off(nodes=node_ids if len(changes) > self.most else restless)
            return Plan(changes)
        if step.node is not None:
            return self._of_nodes(step.node)
        return self._of_services()

    def _of_nodes(self, planner: OfNode) -> Plan:
        changes: list[Change] = []
        node_ids = sorted(self.memory.nodes)
        for count, node_id in enumerate(node_ids):
            decided = planner(self.now, self.world, self.world.nodes[node_id])
            self.memory.wake_node((self.number, node_id), decided.wake_at)
            changes += decided.changes
            if len(changes) > self.most:
                self.memory.put_off(nodes=node_ids[count:])
                break
        return Plan(tuple(changes))

    def _of_services(self) -> Plan:
        changes: list[Change] = []
        service_ids = self.memory.services(self.step.of)
        for count, service_id in enumerate(service_ids):
            known = self.memory.known[service_id]
            if self.step.service is not None:
                decided = self.step.service(self.now, self.world, known, self.most + 1 - len(changes))
                self.memory.wake(service_id, self.number, decided.wake_at)
                changes += decided.changes
            elif self.step.place is not None:
                self._of_places(service_id, known, self.step.place, changes)
            if len(changes) > self.most:
                rest = service_ids[count:] if self.step.service is not None else service_ids[count + 1 :]
                self.memory.put_off(services=rest)
                break
        return Plan(tuple(changes))

    def _of_places(self, service_id: str, known: Known, planner: OfPlace, changes: list[Change]) -> None:
        places, sleepers = known.roster.restless, known.sleepers
        if self.step.among is not None:
            concerned = places & self.step.among(known.roster)
            for place in places - concerned if sleepers else ():
                self.memory.wake_place(service_id, (self.number, place), None)
            places = concerned
        ordered = sorted(places)
        for count, place in enumerate(ordered):
            decided = planner(self.now, self.world, known, place)
            if decided is NOTHING and not sleepers:
                continue
            self.memory.wake_place(service_id, (self.number, place), decided.wake_at)
            changes += decided.changes
            if len(changes) > self.most:
                self.memory.put_off_places(service_id, ordered[count:])
                return


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
