"""Rosters: the slots of one service, kept up to date by the tasks that changed.

What belongs here: which slots there are, what is so of each by its own tasks alone, and which of them are to
be looked at. What does not: what to do about them (replicas, restart, rollout, promotion, reap).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from swarmpy.model.lifecycle import TaskState
from swarmpy.model.objects import Service, Task
from swarmpy.plan.policy import occupants
from swarmpy.plan.slots import Place, Slot, slot_of

FAILURES = (TaskState.FAILED, TaskState.REJECTED)


class Roster:
    """The slots of one service; places without any task have none."""

    def __init__(self, tasks: Iterable[Task] = (), *, is_global: bool = False) -> None:
        self.is_global = is_global
        self.slots: dict[Place, Slot] = {}
        """Also those whose tasks are all to be removed."""
        self.filled: set[Place] = set()
        """Places that something fills (policy.occupants)."""
        self.vacant: set[Place] = set()
        """Places with tasks that do not fill them."""
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
        self._low = 0
        """All numbers up to this one are filled."""
        places: dict[Place, list[Task]] = {}
        for task in tasks:
            places.setdefault(self.place_of(task), []).append(task)
            self._count(task, 1)
        for place, held in places.items():
            self._set(place, held)

    def place_of(self, task: Task) -> Place:
        """The place of a task of the service."""
        return task.node_id if self.is_global else task.slot

    def revise(self, changed: Iterable[tuple[Task | None, Task | None]]) -> list[Place]:
        """Take in what became of tasks: each as it was and as it is, None where it was or is not. Returns
        their places."""
        touched: dict[Place, dict[str, Task | None]] = {}
        for old, new in changed:
            if old is not None:
                touched.setdefault(self.place_of(old), {})[old.id] = None
                self._count(old, -1)
            if new is not None:
                touched.setdefault(self.place_of(new), {})[new.id] = new
                self._count(new, 1)
        for place, tasks in touched.items():
            slot = self.slots.get(place)
            known = {task.id: task for task in (*slot.tasks, *slot.leaving)} if slot is not None else {}
            known_and_new = known | tasks
            self._set(place, [task for task in known_and_new.values() if task is not None])
        return list(touched)

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
        filled, vacant = self.filled, self.vacant
        if not tasks:
            self.slots.pop(place, None)
            for places in (filled, vacant, self.preparing, self.unwanted):
                places.discard(place)
        elif len(tasks) == 1 and tasks[0].desired == TaskState.RUNNING:  # as almost all are
            self.slots[place] = Slot(place, (tasks[0],))
            filled.add(place)
            if place in vacant or place in self.preparing or place in self.unwanted:
                for places in (vacant, self.preparing, self.unwanted):
                    places.discard(place)
        else:
            slot = self.slots[place] = slot_of(place, tasks)
            held = bool(slot.tasks) and bool(occupants(slot))
            _put(filled, place, held)
            _put(vacant, place, bool(slot.tasks) and not held)
            _put(self.preparing, place, any(task.desired == TaskState.READY for task in slot.tasks))
            _put(self.unwanted, place, any(task.desired > TaskState.RUNNING for task in tasks))
        if isinstance(place, int) and place <= self._low and place not in filled:
            self._low = place - 1
        self.stir(place)

    def stir(self, place: Place) -> None:
        """Look at the place again."""
        self.restless.add(place)
        if self.unsurveyed is not None:
            self.unsurveyed.add(place)

    def free(self) -> Iterator[int]:
        """The numbers of free slots, from the lowest."""
        while self._low + 1 in self.filled:
            self._low += 1
        number = self._low
        while True:
            number += 1
            if number not in self.filled:
                yield number

    def kept(self, places: Iterable[Place]) -> Iterator[Slot]:
        """The slots of these places, in order, as far as they have tasks that are not to be removed."""
        for place in sorted(places):
            slot = self.slots.get(place)
            if slot is not None and slot.tasks:
                yield slot


def _put(places: set[Place], place: Place, member: bool) -> None:
    if member:
        places.add(place)
    else:
        places.discard(place)


def roster_of(tasks: Mapping[str, Task] | None, service: Service | None) -> Roster:
    """The roster of a service, or of one that was removed."""
    held = list((tasks or {}).values())
    is_global = service.view.is_global if service is not None else any(not task.slot for task in held)
    return Roster(held, is_global=is_global)
