"""The reaper: how much history is kept, and when a task that is to be removed is really gone.

What belongs here: deleting tasks. What does not: deciding that a task is to be removed (replicas.py).
"""

from __future__ import annotations

from swarmpy.model.lifecycle import TERMINAL, TaskState
from swarmpy.model.objects import Service, Task
from swarmpy.plan.slots import Slot, is_job, retire
from swarmpy.plan.types import Plan
from swarmpy.state.changes import Change, Delete, Put
from swarmpy.state.snapshot import Snapshot


def of_slot(now: int, world: Snapshot, service: Service | None, slot: Slot) -> Plan:
    """One slot: removed tasks that are gone, unassigned ones that nobody wants, surplus history. Of a removed
    service (None) there is but what is to be removed."""
    changes = [change for task in slot.leaving for change in _gone(task)]
    if service is None or not slot.tasks:
        return Plan(tuple(changes))
    changes += [
        Put(retire(task, now), f"task {task.name} is no longer wanted") for task in slot.tasks
        if task.desired == TaskState.SHUTDOWN and task.status.state < TaskState.ASSIGNED
    ]  # fmt: skip
    limit = world.cluster.view.history_limit if world.cluster else 5
    if limit >= 0 and not is_job(service):
        kept = max(limit, kept_for_policy(slot))
        changes += [
            Delete("task", task.id, f"only {kept} tasks are kept per slot") for task in _surplus(slot, kept)
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
