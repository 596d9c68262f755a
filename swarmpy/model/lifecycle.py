"""The task's life: its states, who may set them, and which may follow which.

The numbers are SwarmKit's: they only grow, so comparing two states compares how far a task has come.
The manager owns NEW to ASSIGNED and the desired state; the agent of the task's node owns the rest.
"""

from __future__ import annotations

from enum import IntEnum


class TaskState(IntEnum):
    """Observed or desired state of a task; larger is later and states never go back."""

    NEW = 0
    PENDING = 64
    ASSIGNED = 192
    ACCEPTED = 256
    PREPARING = 320
    READY = 384
    STARTING = 448
    RUNNING = 512
    COMPLETE = 576
    SHUTDOWN = 640
    FAILED = 704
    REJECTED = 768
    REMOVE = 800
    ORPHANED = 832

    @property
    def word(self) -> str:
        """Docker's word for the state, as in the API's JSON."""
        return self.name.lower()


STATE_BY_WORD = {state.word: state for state in TaskState}

DESIRED = (
    TaskState.READY,
    TaskState.RUNNING,
    TaskState.COMPLETE,
    TaskState.SHUTDOWN,
    TaskState.REMOVE,
)
"""States that a manager may desire, in the order in which they may follow each other."""

TERMINAL = frozenset(
    {
        TaskState.COMPLETE,
        TaskState.SHUTDOWN,
        TaskState.FAILED,
        TaskState.REJECTED,
        TaskState.ORPHANED,
    }
)
"""Observed states in which the task's container no longer runs and never will again."""

_AGENT = (
    TaskState.ACCEPTED,
    TaskState.PREPARING,
    TaskState.READY,
    TaskState.STARTING,
    TaskState.RUNNING,
)
_ENDS = (TaskState.COMPLETE, TaskState.SHUTDOWN, TaskState.FAILED, TaskState.REJECTED)


def _transitions() -> dict[TaskState, frozenset[TaskState]]:
    table: dict[TaskState, frozenset[TaskState]] = {
        TaskState.NEW: frozenset({TaskState.PENDING, TaskState.ASSIGNED, TaskState.SHUTDOWN}),
        TaskState.PENDING: frozenset({TaskState.ASSIGNED, TaskState.SHUTDOWN}),
        TaskState.ASSIGNED: frozenset({*_AGENT, *_ENDS, TaskState.ORPHANED}),
    }
    for place, state in enumerate(_AGENT):
        # A slow link coalesces reports: an agent may be seen to skip states, never to go back.
        table[state] = frozenset({*_AGENT[place + 1 :], *_ENDS, TaskState.ORPHANED})
    table[TaskState.RUNNING] = table[TaskState.RUNNING]
    for state in TERMINAL:
        table[state] = frozenset()
    table[TaskState.REMOVE] = frozenset()
    return table


TRANSITIONS = _transitions()
"""Observed state -> observed states that may follow it directly in the replicated store."""


def may_follow(old: TaskState, new: TaskState) -> bool:
    """Whether an observed state may be replaced by another (staying is allowed)."""
    return new == old or new in TRANSITIONS[old]


def is_active(desired: TaskState, observed: TaskState) -> bool:
    """Whether the task counts on its node: it is wanted and has not ended (SwarmKit: desired <= complete)."""
    return desired <= TaskState.COMPLETE and observed <= TaskState.RUNNING


def is_held(observed: TaskState) -> bool:
    """Whether a node holds the task: it was given to it and has not ended, so that it keeps
    its reservations and ports."""
    return TaskState.ASSIGNED <= observed <= TaskState.RUNNING


class NodeState(IntEnum):
    """What the leader knows of a node. DISCONNECTED is *suspect*: its session broke or went silent; it
    gets nothing new, but its tasks stay until it is DOWN."""

    UNKNOWN = 0
    READY = 1
    DISCONNECTED = 2
    DOWN = 3

    @property
    def word(self) -> str:
        """Docker's word, as in the API's JSON."""
        return self.name.lower()


class Availability(IntEnum):
    """What an operator asked of a node."""

    ACTIVE = 0
    PAUSE = 1
    DRAIN = 2

    @property
    def word(self) -> str:
        """Docker's word, as in the API's JSON."""
        return self.name.lower()


class Role(IntEnum):
    """What a node is in the cluster."""

    WORKER = 0
    MANAGER = 1

    @property
    def word(self) -> str:
        """Docker's word, as in the API's JSON."""
        return self.name.lower()
