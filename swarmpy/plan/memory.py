"""Memory: rosters of all services, and what of the world is to be looked at.

What no planner would change stays so until something that it depends on does: a slot until one of its tasks,
the node of one, or the cluster changes; a service until its object or a slot of it does; a node until its
object or one of its tasks does; each also until the instant that a planner named. So a plan costs what has
changed since the last one. The drafts of a plan are changes, too: what one step did the next ones look at,
and the next plan again, whatever became of it.
What does not belong here: any decision; forgetting everything must never change a plan, only its cost.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from swarmpy.model.lifecycle import NodeState
from swarmpy.model.objects import Network, Service, Task
from swarmpy.plan.addresses import mesh_of
from swarmpy.plan.enforcer import reserves
from swarmpy.plan.roster import Roster, roster_of
from swarmpy.plan.seats import Seats
from swarmpy.plan.slots import Place, usable
from swarmpy.plan.survey import Survey
from swarmpy.plan.types import earliest
from swarmpy.state.snapshot import Snapshot
from swarmpy.state.table import differing

W = TypeVar("W")
Pairs = list[tuple[Task | None, Task | None]]
"""Tasks as they were and as they are."""
TASKS, PORTION = 1000, 50
"""Tasks, and nodes, that are taken in at once."""
Waker = tuple[int, Place]
"""(number of a step, place)."""


@dataclass(slots=True)
class Known:
    """A service, or (None) what is left of one that was removed."""

    service: Service | None
    roster: Roster
    survey: Survey = field(default_factory=Survey)
    wakes: dict[int, int] = field(default_factory=dict)
    """When steps, by number, want to look at it again although nothing changed."""
    sleepers: dict[Waker, int] = field(default_factory=dict)
    """When they want to look at places again."""


def batched(pairs: Pairs) -> Iterator[Pairs]:
    """The pairs in portions."""
    return (pairs[start : start + TASKS] for start in range(0, len(pairs), TASKS))


class Memory:
    """What was known of the world after the last plan, and what to look at in this one."""

    def __init__(self) -> None:
        self.known: dict[str, Known] = {}
        """All services by id, removed ones that have tasks included."""
        self.nodes: set[str] = set()
        """Ids of nodes to look at."""
        self.seats = Seats(self._failed)
        self._world = Snapshot()
        self._ingress: Network | None = None
        self._mesh: object = None
        self._usable: set[str] = set()
        """Ids of nodes on which tasks may stay."""
        self._stirred: set[str] = set()
        self._sleeping: set[str] = set()
        self._node_wakes: dict[tuple[int, str], int] = {}
        self._again: dict[str, set[Place]] | None = None
        self._nodes_again: set[str] = set()

    # ---- in the order of a plan

    def prepare(self, world: Snapshot) -> Iterator[None]:
        """Take in a world in portions, each of which takes but a few milliseconds."""
        yield from self._follow(world)
        yield from self.seats.prepare(world)

    def begin(self, now: int, world: Snapshot) -> None:
        """Find out what to look at."""
        self._again = None
        for _ in self._follow(world):
            pass
        self._again, self._nodes_again = {}, set()
        for service_id in self._sleeping:
            known = self.known[service_id]
            if any(now >= at for at in known.wakes.values()):
                self._stirred.add(service_id)
            for (_, place), at in known.sleepers.items():
                if now >= at:
                    self._stirred.add(service_id)
                    known.roster.stir(place)
        self.nodes.update(node_id for (_, node_id), at in self._node_wakes.items() if now >= at)

    def draft(self, world: Snapshot) -> None:
        """Look at what the steps before have made of the world."""
        for _ in self._follow(world):
            pass

    def end(self) -> int | None:
        """Nothing is looked at again but drafts and what was put off. Returns when to look again."""
        for service_id in self._stirred:
            if service_id in self.known:
                self.known[service_id].roster.restless.clear()
        self._stirred = set()
        for service_id, places in (self._again or {}).items():
            if service_id in self.known:
                self.known[service_id].roster.restless |= places
                self._stirred.add(service_id)
        self.nodes, self._nodes_again = self._nodes_again, set()
        found = [earliest(self._node_wakes.values())]
        for service_id in self._sleeping:
            known = self.known[service_id]
            found += (earliest(known.wakes.values()), earliest(known.sleepers.values()))
        return earliest(found)

    # ---- for the steps

    def services(self, of: Callable[[Known], bool]) -> list[str]:
        """Ids of the services of that kind to look at, sorted."""
        return sorted(key for key in self._stirred if of(self.known[key]))

    def wake(self, service_id: str, step: int, at: int | None) -> None:
        """When a step wants to look at a service again."""
        self._wake(service_id, self.known[service_id].wakes, step, at)

    def wake_place(self, service_id: str, waker: Waker, at: int | None) -> None:
        """When a step wants to look at a place of a service again."""
        self._wake(service_id, self.known[service_id].sleepers, waker, at)

    def _wake(self, service_id: str, wakes: dict[W, int], waker: W, at: int | None) -> None:
        if at is not None:
            wakes[waker] = at
            self._sleeping.add(service_id)
        elif wakes.pop(waker, None) is not None:
            known = self.known[service_id]
            if not known.wakes and not known.sleepers:
                self._sleeping.discard(service_id)

    def wake_node(self, waker: tuple[int, str], at: int | None) -> None:
        """When a step wants to look at a node again."""
        if at is not None:
            self._node_wakes[waker] = at
        elif self._node_wakes:
            self._node_wakes.pop(waker, None)

    def put_off(self, services: Iterable[str] = (), nodes: Iterable[str] = ()) -> None:
        """These are looked at in the next plan, too, with all that is to be looked at of them now."""
        for service_id in services:
            self._once_more(service_id, self.known[service_id].roster.restless)
        self._nodes_again.update(nodes)

    def put_off_places(self, service_id: str, places: Iterable[Place]) -> None:
        """These places are looked at in the next plan, too."""
        self._once_more(service_id, places)

    def _once_more(self, service_id: str, places: Iterable[Place]) -> None:
        if self._again is not None:
            self._again.setdefault(service_id, set()).update(places)

    # ---- following the world

    def _follow(self, world: Snapshot) -> Iterator[None]:
        old, self._world = self._world, world
        if old is world:
            return
        moved = old.networks is not world.networks and self._follow_networks(old, world)
        nodes = [
            key for key in differing(old.nodes, world.nodes) if old.nodes.get(key) is not world.nodes.get(key)
        ]  # fmt: skip
        for key in nodes:
            if usable(world.nodes.get(key)):
                self._usable.add(key)
            else:
                self._usable.discard(key)
        fresh = self._follow_services(old, world)
        for service_id in fresh:
            yield from self._enlist(
                service_id, [(None, task) for task in (world.bucket(service_id) or {}).values()]
            )
        yield from self._follow_tasks(old, world, fresh)
        if moved:  # who has all addresses is to be seen anew
            self.seats.waiting.begin(world.unplaced(), self._ingress)
        yield from self._follow_nodes(world, nodes)
        if old.cluster is not world.cluster:
            self._stir_nodes(world.nodes.rows)
            for service_id, known in self.known.items():
                self._stir_all(service_id, known)

    def _follow_networks(self, old: Snapshot, world: Snapshot) -> bool:
        """Take in networks; returns whether the ingress network is another one."""
        before, self._ingress = self._ingress, world.ingress_network()
        mesh = mesh_of(self._ingress)
        if mesh != self._mesh:
            self._mesh = mesh
            self._stir_nodes(world.nodes.rows)
        if old.networks.rows.keys() != world.networks.rows.keys():
            for service_id, known in self.known.items():
                self._stir(service_id, known, ())
        return (before and before.id) != (self._ingress and self._ingress.id)

    def _failed(self, _world: Snapshot, service_id: str) -> Iterable[Task]:
        known = self.known.get(service_id)
        return known.roster.failed.values() if known is not None else ()

    def _follow_services(self, old: Snapshot, world: Snapshot) -> set[str]:
        """Take in services; returns those whose roster is of the new world already."""
        fresh: set[str] = set()
        for key in differing(old.services, world.services):
            before, after = old.services.get(key), world.services.get(key)
            known = self.known.get(key)
            if before is after:
                continue
            if known is not None and after is None:
                self._orphan(key, known)
                continue
            if not (known and before and after) or before.view.is_global != after.view.is_global:
                self._begin(key, after)
                fresh.add(key)
                continue
            known.service = after
            self._stir(key, known, ())
            if before.spec_version != after.spec_version or before.spec != after.spec:
                known.roster.unsurveyed = None
                if after.view.is_global or after.view.task_template.placement.constraints:
                    self._stir_all(key, known)
        return fresh

    def _orphan(self, service_id: str, known: Known) -> None:
        """A service was removed: what is left of it has its places."""
        self._drop(service_id)
        if known.roster.slots:
            rest = self.known[service_id] = Known(None, known.roster)
            rest.roster.stir_all()
            self._stirred.add(service_id)
            self._once_more(service_id, rest.roster.slots)

    def _drop(self, service_id: str) -> None:
        del self.known[service_id]
        self._sleeping.discard(service_id)
        self._stirred.discard(service_id)

    def _begin(self, service_id: str, service: Service | None) -> None:
        """A service that was made, removed, or is not known; its tasks are to be enlisted."""
        self._sleeping.discard(service_id)
        self.known[service_id] = known = Known(
            service, roster_of(self._world.bucket(service_id), service, self._usable)
        )
        self._stir(service_id, known, self._world.nodes.rows if known.roster.is_global else ())

    def _enlist(self, service_id: str, changed: Pairs) -> Iterator[None]:
        """Put tasks into the roster, as they were and as they are."""
        known = self.known[service_id]
        for portion in batched(changed):
            places = known.roster.revise(portion)
            self._stirred.add(service_id)
            self._once_more(service_id, places)
            yield
        if known.service is None and not known.roster.slots:
            self._drop(service_id)

    def _follow_tasks(self, old: Snapshot, world: Snapshot, fresh: set[str]) -> Iterator[None]:
        was, present = old.tasks.rows, world.tasks.rows
        groups: dict[str, Pairs] = {}
        for key in differing(old.tasks, world.tasks):
            before, after = was.get(key), present.get(key)
            task = after or before
            if task is None or before is after:
                continue
            group = groups.get(task.service_id)
            if group is None:
                group = groups[task.service_id] = []
            group.append((before, after))
        yield
        for service_id, pairs in groups.items():
            for portion in batched(pairs):
                self.seats.note(portion)
                self.seats.waiting.revise(portion, self._ingress)
                self._of_nodes(world, portion)
                yield
            if service_id in fresh:
                continue
            if service_id in self.known:
                yield from self._enlist(service_id, pairs)
                continue
            self._begin(service_id, None)
            held = (world.bucket(service_id) or {}).values()
            yield from self._enlist(service_id, [(None, task) for task in held])

    def _of_nodes(self, world: Snapshot, changed: Pairs) -> None:
        """Tasks matter to judgements of their nodes only where they reserve something (enforcer), or the node
        is not ready, where nothing may be left of them (liveness)."""
        tasks = [task for pair in changed for task in pair if task is not None and task.node_id]
        reserving = any(map(reserves, {task.template for task in tasks}))
        for node_id in {task.node_id for task in tasks}:
            node = world.nodes.get(node_id)
            if node is not None and (reserving or node.status.state is not NodeState.READY):
                self._stir_nodes((node_id,))

    def _follow_nodes(self, world: Snapshot, nodes: Collection[str]) -> Iterator[None]:
        """Nodes that changed matter to the services that have tasks on them, and to global ones."""
        every = [(key, known) for key, known in self.known.items() if known.roster.is_global] if nodes else []
        for number, node_id in enumerate(nodes):
            if node_id in world.nodes:
                self._stir_nodes((node_id,))
            else:
                self.nodes.discard(node_id)
                self._nodes_again.discard(node_id)
                self._node_wakes = {
                    waker: at for waker, at in self._node_wakes.items() if waker[1] != node_id
                }
            for task in (world.bucket_on(node_id) or {}).values():
                known = self.known[task.service_id]
                place = known.roster.place_of(task)
                known.roster.recheck(place)
                self._stir(task.service_id, known, (place,))
            for service_id, known in every:
                self._stir(service_id, known, (node_id,))
            if number % PORTION == 0:
                yield

    def _stir(self, service_id: str, known: Known, places: Iterable[Place]) -> None:
        self._stirred.add(service_id)
        for place in places:
            known.roster.stir(place)
        self._once_more(service_id, places)

    def _stir_all(self, service_id: str, known: Known) -> None:
        known.roster.stir_all()
        self._stirred.add(service_id)
        self._once_more(service_id, known.roster.slots)
        if known.roster.is_global:
            self._stir(service_id, known, list(self._world.nodes.rows))

    def _stir_nodes(self, nodes: Iterable[str]) -> None:
        stirred = set(nodes)
        self.nodes |= stirred
        if self._again is not None:
            self._nodes_again |= stirred
