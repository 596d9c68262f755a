"""Replicas: as many slots as a replicated service asks for, and none for a service that was removed.

What belongs here: adding and removing slots. What does not: replacing the task of a slot (restart.py,
rollout.py), choosing nodes (placement.py), deleting tasks (reap.py).
"""

from __future__ import annotations

from itertools import islice

from swarmpy.model.lifecycle import TaskState
from swarmpy.model.objects import Service
from swarmpy.plan.policy import occupants
from swarmpy.plan.slots import Slot, is_job, leaving, new_task, replicas_of, retire, slots_of, stopped
from swarmpy.plan.types import Plan, merged
from swarmpy.state.changes import Change, Put
from swarmpy.state.snapshot import Snapshot

ADDED = 1000
"""Slots that one plan adds to a service, and takes from removed ones, at most; the next follow at once. One
batch holds no more, and a leader that works out tens of thousands each time only to commit the first of them
is silent for too long."""


def plan(now: int, world: Snapshot) -> Plan:
    """All replicated services, and what removed services left."""
    return merged([*(of_service(now, world, service) for service in world.services), of_removed(now, world)])


def of_removed(now: int, world: Snapshot) -> Plan:
    """Tasks of removed services are to be removed."""
    removed = tuple(islice((
        Put(retire(task, now, TaskState.REMOVE), f"service {task.service_name} was removed")
        for service_id in world.orphan_services()
        for task in world.tasks_of(service_id)
        if task.desired < TaskState.REMOVE
    ), ADDED))  # fmt: skip
    return Plan(removed, now if len(removed) == ADDED else None)


def of_service(now: int, world: Snapshot, service: Service) -> Plan:
    """One service: slots added from the lowest free number, or removed in Swarm's order."""
    if service.view.is_global or is_job(service):
        return Plan()
    wanted = replicas_of(service)
    filled: list[Slot] = []
    history: list[Slot] = []
    for slot in slots_of(world, service):
        (filled if occupants(slot) else history).append(slot)
    changes: list[Change] = []
    wake_at: int | None = None
    if len(filled) > wanted:
        why = f"service {service.name} was scaled down to {wanted}"
        for slot in _victims(filled, len(filled) - wanted):
            changes += _removed(now, slot, why)
    elif len(filled) < wanted:
        missing = wanted - len(filled)
        changes += _added(now, world, service, filled, history, min(missing, ADDED))
        wake_at = now if missing > ADDED else None
    for slot in history:
        if isinstance(slot.place, int) and slot.place > wanted:
            changes += _removed(now, slot, f"slot {slot.place} of service {service.name} is no longer used")
    return Plan(tuple(changes), wake_at)


def _added(
    now: int, world: Snapshot, service: Service, filled: list[Slot], history: list[Slot], count: int
) -> list[Change]:
    taken = {slot.place for slot in filled}
    before = {slot.place: slot for slot in history}
    why = f"service {service.name} wants {replicas_of(service)} replicas"
    changes: list[Change] = []
    removed = leaving(world, service)
    number = 0
    while len(changes) < count:
        number += 1
        if number in taken:
            continue
        # Where the slot's last task is still stopping, the new one waits for it; it may be one that an
        # earlier scaling down removed.
        old, gone = before.get(number), removed.get(number)
        waits_for = gone.id if gone is not None else ""
        if old is not None and any(not stopped(world, task) for task in old.tasks):
            waits_for = old.newest.id
        task = new_task(
            now, world, service, old or number, why="replicas", replaces=waits_for,
            desired=TaskState.READY if waits_for else TaskState.RUNNING,
        )  # fmt: skip
        changes.append(Put(task, f"{why}: slot {number} was free"))
    return changes


def _removed(now: int, slot: Slot, why: str) -> list[Change]:
    return [Put(retire(task, now, TaskState.REMOVE), why) for task in slot.tasks]


def _victims(slots: list[Slot], count: int) -> list[Slot]:
    """The slots to give up: first those that are on no node yet or in the middle of a change, then those
    on the nodes that have most copies, then those that do not run, then the highest."""
    by_health = sorted(slots, key=lambda slot: (not _runs(slot), slot.place))
    copies: dict[str, int] = {}
    ranked: list[tuple[int, int, Slot]] = []
    for place, slot in enumerate(by_health):
        node = _sole_node(slot)
        if node:
            copies[node] = copies.get(node, 0) + 1
        ranked.append((copies[node] if node else len(slots) + 1, place, slot))
    ranked.sort(key=lambda entry: entry[:2])
    return [slot for _, _, slot in ranked[len(ranked) - count :]]


def _sole_node(slot: Slot) -> str:
    live = slot.live
    return live[0].node_id if len(live) == 1 else ""


def _runs(slot: Slot) -> bool:
    return any(task.status.state == TaskState.RUNNING for task in slot.live)
