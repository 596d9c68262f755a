"""The survey: where each slot of a service stands in an update, kept up to date by the slots that changed.

A slot is *dirty* while its task runs an older template; *in flight* from the birth of its first task of the
new version until that one runs (and for the Delay after); then it is done. What belongs here: that judgement.
What does not: how many may be in flight, and what is done with them (rollout.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from swarmpy.model.lifecycle import TERMINAL, TaskState
from swarmpy.model.objects import Service, Task
from swarmpy.plan.global_ import wants
from swarmpy.plan.policy import may_restart, occupants
from swarmpy.plan.restart import restart_delay
from swarmpy.plan.slots import Place, Slot, dirtiness, is_active, is_dirty
from swarmpy.state.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the slots of a service stand at an instant. Instants in cluster time, ns."""

    dirty: list[Place]
    """Not begun."""
    flying: int
    """How many there are whose new task has not run yet."""
    resting: list[int]
    """Done, within the Delay: when each delay ends."""
    failed: list[int]
    """The new task failed beside the old one: when each may be tried again."""
    latest: int
    """When the last slot of this update was done; 0: none was."""


@dataclass(slots=True)
class Survey:
    """Where the slots of a service stand, by place, whatever the time."""

    replaced: dict[Place, tuple[list[Task], Task]] = field(default_factory=dict)
    """Start-first: tasks that are still wanted, and the one that runs now instead of them."""
    dirty: dict[Place, int] = field(default_factory=dict)
    """Not begun: from when on each may be renewed. Later than now is who failed beside the old task."""
    frozen: dict[Place, int] = field(default_factory=dict)
    """Likewise, but on a node that takes nothing new: these only hold up others, until then."""
    flying: set[Place] = field(default_factory=set)
    """The new task has not run yet."""
    done: dict[Place, int] = field(default_factory=dict)
    """Slots that this update has renewed: since when."""

    def clear(self) -> None:
        """Begin anew."""
        for held in (self.replaced, self.dirty, self.frozen, self.flying, self.done):
            held.clear()

    def revise(self, world: Snapshot, service: Service, slots: Iterable[tuple[Place, Slot | None]]) -> None:
        """Look at these slots anew; None: there is nothing in the place any more."""
        judged: dict[tuple[str, str], bool | None] = {}
        for place, slot in slots:
            self._forget(place)
            if slot is None or not slot.tasks:
                continue
            task = slot.newest
            if len(slot.tasks) > 1 or task.desired > TaskState.RUNNING or isinstance(place, str):
                self._look(world, service, slot)
            elif task.spec_version == service.spec_version:
                if task.replaces:
                    self._look(world, service, slot)
            else:  # at the beginning of an update almost all are of this kind, and of one template
                key = (task.template, task.endpoint)
                if key not in judged:
                    judged[key] = dirtiness(service, *key)
                dirty = judged[key]
                if dirty:
                    self.dirty[place] = 0
                elif dirty is None:
                    self._look(world, service, slot)

    def _forget(self, place: Place) -> None:
        if place in self.dirty:
            del self.dirty[place]
        for held in (self.replaced, self.frozen, self.done):
            if held:
                held.pop(place, None)
        self.flying.discard(place)

    def at(self, now: int, delay: int) -> Progress:
        """Where they stand at an instant. A slot that was renewed rests for the delay (ns)."""
        return Progress(
            dirty=sorted(place for place, since in self.dirty.items() if since <= now),
            flying=len(self.flying),
            resting=[since + delay for since in self.done.values() if since + delay > now],
            failed=[since for held in (self.dirty, self.frozen) for since in held.values() if since > now],
            latest=max(self.done.values(), default=0),
        )

    def _look(self, world: Snapshot, service: Service, slot: Slot) -> None:
        node = world.nodes.get(slot.place) if isinstance(slot.place, str) else None
        if isinstance(slot.place, str) and not wants(service, node):
            return  # nodes that take nothing new are left alone
        held = occupants(slot)
        if not held:
            return
        old = [task for task in held if is_dirty(service, task, world.nodes.get(task.node_id))]
        new = [task for task in held if task not in old]
        runs = _successor(old, new)
        others = [task for task in slot.live if runs is not None and task.id != runs.id]
        if runs and others:
            self.replaced[slot.place] = (others, runs)
        if old and not new:
            again = _again_at(world, slot, service)
            if again is None:
                self.flying.add(slot.place)
            elif not isinstance(slot.place, str) or is_active(node):
                self.dirty[slot.place] = again
            else:
                self.frozen[slot.place] = again
            return
        done_at = _done_at(slot, service)
        if isinstance(slot.place, str) and not is_active(node) and _is_held_back(new):
            return  # its node was paused before it got the task: no reason to hold up all the others
        if done_at is None or (old and runs is None):
            self.flying.add(slot.place)
        elif done_at:
            self.done[slot.place] = done_at


def surveyed(world: Snapshot, service: Service, slots: Iterable[Slot]) -> Survey:
    """The survey of all slots of a service."""
    survey = Survey()
    survey.revise(world, service, ((slot.place, slot) for slot in slots))
    return survey


def _again_at(world: Snapshot, slot: Slot, service: Service) -> int | None:
    """When a slot of old tasks may be renewed: now (0), unless that was tried and failed; then the restart
    policy says whether (None: not by itself) and after which delay."""
    last = slot.newest
    if last.spec_version != service.spec_version or last.status.state not in TERMINAL:
        return 0
    if not may_restart(slot, last):
        return None
    return last.state_since + restart_delay(world.nodes.get(last.node_id), last)


def _is_held_back(new: list[Task]) -> bool:
    """Whether none of the slot's new tasks was given to its node yet."""
    return all(task.status.state < TaskState.ASSIGNED for task in new)


def _successor(old: list[Task], new: list[Task]) -> Task | None:
    """The task that may stay alone in its slot: a new one that runs, else the last old one if it runs (the
    update that made it was itself overtaken by another)."""
    runs = [task for task in new if task.status.state == TaskState.RUNNING]
    if not runs and old and not new and old[-1].status.state == TaskState.RUNNING:
        runs = old[-1:]
    return runs[-1] if runs else None


def _done_at(slot: Slot, service: Service) -> int | None:
    """When the first task of the present version in the slot got to run or ended; None: not yet; long ago
    (0) for slots that this update did not touch."""
    if slot.newest.spec_version != service.spec_version:
        return 0
    tasks = slot.run_of(slot.newest)
    if not tasks[0].replaces:
        return 0
    return min((task.state_since for task in tasks if task.status.state >= TaskState.RUNNING), default=None)
