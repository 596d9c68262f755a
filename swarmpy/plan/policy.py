"""Restart policy: whether an ended task may be replaced, and which tasks therefore still fill their slot.

Everything is read from the retained history of the slot (the reaper keeps MaxAttempts + 1 tasks), so a new
leader decides as the old one would have. What does not belong here: replacing (restart.py).
"""

from __future__ import annotations

from swarmpy.model.lifecycle import TaskState
from swarmpy.model.objects import Task
from swarmpy.plan.slots import Slot


def may_restart(slot: Slot, task: Task) -> bool:
    """Whether the policy that the task was made with allows a replacement after it.

    `any` always, `on-failure` unless it completed, `none` never. MaxAttempts counts replacements of this
    run of one spec version in this slot; with a Window, only those made within it before the task ended.
    """
    policy = task.view.restart_policy
    if policy.condition == "none":
        return False
    if policy.condition == "on-failure" and task.status.state == TaskState.COMPLETE:
        return False
    if policy.max_attempts <= 0:
        return True
    attempts = slot.run_of(task)[1:]
    if policy.window > 0:
        attempts = [one for one in attempts if one.created_at > task.state_since - policy.window]
    return len(attempts) < policy.max_attempts


def occupants(slot: Slot) -> list[Task]:
    """The tasks that fill the slot: the live ones, else the last one where the policy says that nothing
    may follow it (until an update). Empty: the slot is free."""
    live = slot.live
    if live or may_restart(slot, slot.newest):
        return live
    return [slot.newest]
