"""Rosters: the slots of one service, kept up to date by the tasks that changed.

What belongs here: which slots there are, what is so of each by its own tasks alone, and which of them are to
be looked at. What does not: what to do about them (replicas, restart, rollout, promotion, reap).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from itertools import islice

from swarmpy.model.lifecycle import TERMINAL, TaskState
from swarmpy.model.objects import Service, Task
from swarmpy.plan.policy import occupants
from swarmpy.plan.slots import Place, Slot, slot_of

FAILURES = (TaskState.FAILED, TaskState.REJECTED)


class Homes:
    """Where the tasks of a service are."""

    def __init__(self) -> None:
        self.nodes: dict[str, set[Place]] = {}
        """Places with but one wanted task, which has a node: by that node."""
        self.idle: set[Place] = set()
        """Places without a wanted task that runs."""

    def move(self, place: Place, old: Slot | None, new: Slot | None) -> None:
        """Take in what became of a slot."""
        before, after = _home(old), _home(new)
        if before and before != after:
            self.nodes[before].discard(place)
            if not self.nodes[before]:
                del self.nodes[before]
        if after and before != after:
            self.nodes.setdefault(after, set()).add(place)
        runs = new is not None and any(task.status.state == TaskState.RUNNING for task in new.live)
        _put(self.idle, place, new is not None and not runs)


class Roster:
    """The slots of one service; places without any task have none. `usable`: ids of the nodes on which tasks
    may stay, as they are at present: shared with whoever keeps them so."""

    def __init__(self, usable: Set[str], *, is_global: bool = False) -> None:
        self.is_global, self._usable = is_global, usable
        self.slots: dict[Place, Slot] = {}
        """Also those whose tasks are all to be removed."""
        self.filled: set[Place] = set()
        """Places that something fills (policy.occupants)."""
        self.vacant: set[Place] = set()
        """Places with tasks that do not fill them."""
        self.broken: set[Place] = set()
        """Places with a wanted task that cannot go on where it is (restart.py)."""
        self.preparing: set[Place] = set()
        """Places with a task that may start later (desired READY)."""
        self.unwanted: set[Place] = set()
        """Places with a task that is not wanted."""
        self.failed: dict[str, Task] = {}
        """Tasks that failed or were rejected."""
        self.versions: dict[int, int] = {}
        """How many tasks there are of each spec version."""
        self.restless: set[Place] = set()
        """Places to look at."""
        self.unsurveyed: set[Place] | None = None
        """Places that changed since they were surveyed (survey.py); None: nobody keeps a survey."""
        self._homes: Homes | None = None
        self._low = 0
        """All numbers up to this one are filled."""

    def place_of(self, task: Task) -> Place:
        """The place of a task of the service."""
        return task.node_id if self.is_global else task.slot

    def revise(self, changed: Iterable[tuple[Task | None, Task | None]]) -> list[Place]:
        """Take in what became of tasks: each as it was and as it is, None where it was or is not. Returns
        their places."""
        touched: list[Place] = []
        for old, new in changed:
            if old is not None:
                self._count(old, -1)
            if new is not None:
                self._count(new, 1)
            task = new or old
            if task is None:
                continue
            place = self.place_of(task)
            touched.append(place)
            slot = self.slots.get(place)
            if slot is None or (len(slot.tasks) == 1 and slot.tasks[0].id == task.id and not slot.leaving):
                tasks = []
            else:
                tasks = [one for one in (*slot.tasks, *slot.leaving) if one.id != task.id]
            if new is not None:
                tasks.append(new)
            self._set(place, tasks)
        return touched

    def recheck(self, place: Place) -> None:
        """The node of a task of the place changed."""
        slot = self.slots.get(place)
        _put(self.broken, place, slot is not None and any(map(self._is_broken, slot.live)))
        self.stir(place)

    def _is_broken(self, task: Task) -> bool:
        return task.status.state in TERMINAL or (bool(task.node_id) and task.node_id not in self._usable)

    def _count(self, task: Task, number: int) -> None:
        count = self.versions.get(task.spec_version, 0) + number
        if count:
            self.versions[task.spec_version] = count
        else:
            del self.versions[task.spec_version]
        if task.status.state in FAILURES:
            if number > 0:
                self.failed[task.id] = task
            else:
                self.failed.pop(task.id, None)

    def _set(self, place: Place, tasks: list[Task]) -> None:
        filled, low = self.filled, self._low
        old = self.slots.get(place)
        new: Slot | None = None
        if len(tasks) == 1 and tasks[0].desired == TaskState.RUNNING:  # as almost all are
            [task] = tasks
            new = self.slots[place] = Slot(place, (task,))
            filled.add(place)
            for places in (self.vacant, self.preparing, self.unwanted):
                if places:
                    places.discard(place)
            if self._is_broken(task):
                self.broken.add(place)
            elif self.broken:
                self.broken.discard(place)
        elif tasks:
            new = self.slots[place] = slot_of(place, tasks)
            held = bool(new.tasks) and bool(occupants(new))
            _put(filled, place, held)
            _put(self.vacant, place, bool(new.tasks) and not held)
            _put(self.broken, place, any(map(self._is_broken, new.live)))
            _put(self.preparing, place, any(task.desired == TaskState.READY for task in new.tasks))
            _put(self.unwanted, place, any(task.desired > TaskState.RUNNING for task in tasks))
        else:
            self.slots.pop(place, None)
            for places in (filled, self.vacant, self.broken, self.preparing, self.unwanted):
                places.discard(place)
        if self._homes is not None:
            self._homes.move(place, old, new)
        if isinstance(place, int) and place <= low and place not in filled:
            self._low = place - 1
        self.stir(place)

    def homes(self) -> Homes:
        """Where the tasks are. Kept up to date until `forget_homes`."""
        if self._homes is None:
            self._homes = homes = Homes()
            for place, slot in self.slots.items():
                tasks = slot.tasks
                if len(tasks) != 1 or tasks[0].desired != TaskState.RUNNING or not tasks[0].node_id:
                    homes.move(place, None, slot)
                    continue
                [task] = tasks  # as almost all are
                homes.nodes.setdefault(task.node_id, set()).add(place)
                if task.status.state != TaskState.RUNNING:
                    homes.idle.add(place)
        return self._homes

    def forget_homes(self) -> None:
        """Nobody is going to ask for `homes` for a while."""
        self._homes = None

    def stir(self, place: Place) -> None:
        """Look at the place again."""
        self.restless.add(place)
        if self.unsurveyed is not None:
            self.unsurveyed.add(place)

    def stir_all(self) -> None:
        """Look at all places again."""
        self.restless.update(self.slots)
        if self.unsurveyed is not None:
            self.unsurveyed.update(self.slots)

    def free(self) -> Iterator[int]:
        """The numbers of free slots, from the lowest."""
        while self._low + 1 in self.filled:
            self._low += 1
        number = self._low
        while True:
            number += 1
            if number not in self.filled:
                yield number


def _home(slot: Slot | None) -> str:
    """The node of the only wanted task, "" where there is no such."""
    if slot is None:
        return ""
    live = slot.live
    return live[0].node_id if len(live) == 1 else ""


def _put(places: set[Place], place: Place, member: bool) -> None:
    if member:
        places.add(place)
    else:
        places.discard(place)


def roster_of(tasks: Mapping[str, Task] | None, service: Service | None, usable: Set[str]) -> Roster:
    """An empty roster for the tasks of a service, or of one that was removed."""
    if service is not None:
        return Roster(usable, is_global=service.view.is_global)
    return Roster(usable, is_global=any(not task.slot for task in islice((tasks or {}).values(), 1)))
