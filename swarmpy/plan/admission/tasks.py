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
PORTION = 800_000
"""Bytes of the tasks in one part of a report: well below what the leader commits at once (manager/writer)."""
BESIDE = 1_000
"""Bytes that a task has besides its template."""


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


def portions(
    world: Snapshot, statuses: tuple[tuple[str, TaskStatus], ...]
) -> tuple[tuple[tuple[str, TaskStatus], ...], ...]:
    """A node's report in parts, each of whose changes fit one entry of the log: a change of a task carries
    all of it. Reports may be taken up in parts, as each task's status is about itself."""
    parts: list[list[tuple[str, TaskStatus]]] = [[]]
    room = PORTION
    for task_id, status in statuses:
        task = world.tasks.get(task_id)
        need = BESIDE + len(status.err.encode())
        if task is not None:
            need += len(task.template.encode()) + len(task.endpoint.encode())
        if need > room and parts[-1]:
            parts.append([])
            room = PORTION
        parts[-1].append((task_id, status))
        room -= need
    return tuple(tuple(part) for part in parts)


def _move(now: int, task: Task, status: TaskStatus) -> Task | None:
    if status.state < AGENT_FIRST or status.state in (TaskState.REMOVE, TaskState.ORPHANED):
        return None
    if not may_follow(task.status.state, status.state) or status == task.status:
        return None
    since = task.state_since if status.state == task.status.state else now
    return replace(task, status=status, state_since=since)
