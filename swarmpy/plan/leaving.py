"""Leaving traffic: how long a task that is to stop goes on running, so that no request meets its end.

A task that is no longer wanted is out of all tables at once. Its node is told to stop it only when every
reachable node on its networks has said that its balancers know, or when that takes too long; then the drain
delay passes, in which requests that were under way come to their end.
What belongs here: the decision. What does not: who has said so (manager/leaving.py).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from swarmpy.model.lifecycle import TaskState
from swarmpy.model.objects import Task

PATIENCE = 10.0
"""Seconds for which nodes that do not answer are waited for. Slow ones took up to three seconds."""
BACK = 15.0
"""Seconds for which a node that is down is taken to come back: of one whose daemon alone is away, and slow to
start, the kernel goes on balancing."""
DRAIN = 1.0
"""Seconds between the last answer and the stop signal, where the service does not say."""
LONGEST = 3600.0
DRAIN_LABEL = "io.swarmpy.drain-delay"
"""Service label: seconds between leaving traffic and the stop signal."""


@dataclass(frozen=True, slots=True)
class Leaver:
    """A task on its way out. Times in seconds of the leader's monotonic clock; `answered` is when the last
    node had answered, None while one has not."""

    task_id: str
    version: int
    """The world's version since which it is not in traffic."""
    since: float
    drain: float
    answered: float | None = None


def leaves(task: Task, told: TaskState | None) -> bool:
    """Whether the task is in traffic as its node was last told, and is not to be any more."""
    return (
        bool(task.networks)
        and task.desired > TaskState.RUNNING
        and task.status.state == TaskState.RUNNING
        and told is not None
        and told <= TaskState.RUNNING
    )


def drain_of(labels: dict[str, str]) -> float:
    """The drain delay that the service's labels ask for, in seconds; what cannot be read is the default."""
    seconds = seconds_of(labels.get(DRAIN_LABEL, ""))
    return DRAIN if seconds is None else seconds


def seconds_of(text: str) -> float | None:
    """A drain delay as it is written; None for what is none."""
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if 0 <= seconds <= LONGEST else None


def wait(now: float, leaver: Leaver, silent: Collection[str]) -> float:
    """Seconds for which the task is to go on; 0: it may be told to stop. `silent`: nodes on its networks
    that have not said that it is out of their balancers."""
    if leaver.answered is not None:
        return max(0.0, leaver.answered + leaver.drain - now)
    patience = leaver.since + PATIENCE - now
    if silent and patience > 0:
        return patience + leaver.drain
    return leaver.drain
