"""Promotion: when a replacement that was prepared (desired READY) may start (desired RUNNING).

It starts once its delay is over and nothing else of its slot runs: so a restart and a stop-first update
never overlap. What does not belong here: making replacements (restart.py, rollout.py).
"""

from __future__ import annotations

import msgspec

from swarmpy.model.lifecycle import TERMINAL, TaskState
from swarmpy.model.objects import Service, Task
from swarmpy.model.specs import SECOND
from swarmpy.plan.slots import Slot, stopped
from swarmpy.plan.types import Plan, earliest
from swarmpy.state.changes import Change, Put
from swarmpy.state.snapshot import Snapshot

PATIENCE = 60 * SECOND
"""How long a replacement waits for the old task to stop, beyond its delay (SwarmKit: one minute)."""


def of_slot(now: int, world: Snapshot, _service: Service, slot: Slot) -> Plan:
    """One slot: a waiting replacement starts, or tells when to look again."""
    changes: list[Change] = []
    wakes: list[int] = []
    for task in slot.live:
        if task.desired != TaskState.READY or task.status.state in TERMINAL:
            continue
        until, why = waiting(world, slot, task)
        if now >= until:
            started = msgspec.structs.replace(task, desired=TaskState.RUNNING)
            changes.append(Put(started, f"task {task.name} may start: {why}"))
        else:
            wakes.append(until)
    return Plan(tuple(changes), earliest(wakes))


def waiting(world: Snapshot, slot: Slot, task: Task) -> tuple[int, str]:
    """The instant at which the task may start if nothing else happens, and the reason in words.

    A task that takes longer to stop because its stop grace period is longer gets that time on top: starting
    beside it would run two tasks in one slot.
    """
    ending = still_stopping(world, slot, task)
    if not ending:
        why = "its restart delay is over" if task.not_before else "the old task stopped"
        return task.not_before, why
    grace = max(int(one.view.container.grace_seconds * SECOND) for one in ending)
    patience = PATIENCE + max(0, grace - 10 * SECOND)
    return max(task.not_before, task.created_at) + patience, "the old task took too long to stop"


def still_stopping(world: Snapshot, slot: Slot, task: Task) -> list[Task]:
    """The other tasks of the slot that are to stop and may still run."""
    return [
        other for other in (*slot.tasks, *slot.leaving)
        if other.id != task.id and other.desired > TaskState.RUNNING and not stopped(world, other)
    ]  # fmt: skip
