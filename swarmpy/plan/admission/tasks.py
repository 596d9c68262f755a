"""Admission of agents' reports: what a node says of its own tasks.

An agent may only move its own tasks, only forwards, and only in the states that agents own; everything else
in a report is dropped silently, because reports are repeated and may cross with newer decisions.
"""

from __future__ import annotations

from msgspec.structs import replace

from swarmpy.model.commands import ReportTasks, Result
from swarmpy.model.lifecycle import TaskState, may_follow
from swarmpy.model.objects import Task, TaskStatus
from swarmpy.state.changes import Change, Put
from swarmpy.state.snapshot import Snapshot

AGENT_FIRST = TaskState.ACCEPTED
"""The first state that belongs to the agent."""


def report(now: int, world: Snapshot, command: ReportTasks) -> tuple[list[Change], Result]:
    """The changes that a report makes."""
    changes: list[Change] = []
    for task_id, status in command.statuses:
        task = world.tasks.get(task_id)
        if task is None or task.node_id != command.node:
            continue
        moved = _move(now, task, status)
        if moved is not None:
            changes.append(Put(moved, f"node reported {status.state.word}"))
    return changes, Result(id=command.node)


def _move(now: int, task: Task, status: TaskStatus) -> Task | None:
    if status.state < AGENT_FIRST or status.state in (TaskState.REMOVE, TaskState.ORPHANED):
        return None
    if not may_follow(task.status.state, status.state) or status == task.status:
        return None
    since = task.state_since if status.state == task.status.state else now
    return replace(task, status=status, state_since=since)
