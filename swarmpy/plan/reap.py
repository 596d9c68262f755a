"""The reaper: how much history is kept, and when a task that is to be removed is really gone.

What belongs here: deleting tasks. What does not: deciding that a task is to be removed (replicas.py).
"""

from __future__ import annotations

from swarmpy.model.lifecycle import TERMINAL, TaskState
from swarmpy.model.objects import Service, Task
from swarmpy.plan.slots import Slot, is_job, retire, slots_of
from swarmpy.plan.types import Plan, merged
from swarmpy.state.changes import Change, Delete, Put
from swarmpy.state.snapshot import Snapshot


def plan(now: int, world: Snapshot) -> Plan:
    """All services, and what removed services left."""
    return merged([*(of_service(now, world, service) for service in world.services), of_removed(now, world)])


def of_removed(now: int, world: Snapshot) -> Plan:
    """Tasks of removed services that are gone."""
    return Plan(tuple(
        change for service_id in world.orphan_services()
        for task in world.tasks_of(service_id) for change in _gone(task)
    ))  # fmt: skip


def of_service(now: int, world: Snapshot, service: Service) -> Plan:
    """One service: removed tasks that are gone, unassigned ones that nobody wants, surplus history."""
    changes: list[Change] = []
    bucket = (world.bucket(service.id) or {}).values()
    unwanted = [task for task in bucket if task.desired > TaskState.RUNNING]
    if not unwanted:
        return Plan()
    for task in sorted(unwanted, key=lambda one: one.id):
        changes += _gone(task)
        if task.desired == TaskState.SHUTDOWN and task.status.state < TaskState.ASSIGNED:
            changes.append(Put(retire(task, now), f"task {task.name} is no longer wanted"))
    limit = world.cluster.view.history_limit if world.cluster else 5
    if limit >= 0 and not is_job(service):
        for slot in slots_of(world, service):
            kept = max(limit, kept_for_policy(slot))
            changes += [
                Delete("task", task.id, f"only {kept} tasks are kept per slot")
                for task in _surplus(slot, kept)
            ]
    return Plan(tuple(changes))


def kept_for_policy(slot: Slot) -> int:
    """How many tasks the slot keeps whatever the limit: MaxAttempts + 1, because restarts are counted from
    them."""
    attempts = slot.newest.view.restart_policy.max_attempts
    return attempts + 1 if attempts > 0 else 0


def _gone(task: Task) -> list[Change]:
    if task.desired == TaskState.REMOVE and _over(task):
        return [Delete("task", task.id, f"task {task.name} was to be removed and has ended")]
    return []


def _over(task: Task) -> bool:
    """Whether the task has ended, or never was on a node."""
    return task.status.state in TERMINAL or task.status.state < TaskState.ASSIGNED


def _surplus(slot: Slot, limit: int) -> list[Task]:
    """The oldest ended tasks beyond the limit. The last task of a slot without a live one stays whatever
    the limit: it says whether the slot may be filled again."""
    surplus = len(slot.tasks) - limit
    if surplus <= 0:
        return []
    keep = "" if slot.live else slot.newest.id
    ended = [
        task for task in slot.tasks if task.desired > TaskState.RUNNING and _over(task) and task.id != keep
    ]
    return ended[:surplus]
