"""Waiting for a program to listen: why a started container is not running yet.

A container without a health check would be running, and in traffic, as soon as its process exists; the first
requests would be refused, because the program does not listen yet. So a task that publishes TCP ports stays
starting until something listens on each of their target ports in its container's network namespace, or until
the bound has passed; then it is running all the same, as with Docker.
What belongs here: the decision, and what is known of a container's sockets. What does not: looking at them
(agent/listening, ports.Sockets).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from swarmpy.model.durations import duration
from swarmpy.model.messages import Assigned
from swarmpy.model.specs import SECOND, endpoint_view

LABEL = "io.swarmpy.listen-wait"
"""Service label: how long a task that does not listen stays starting, as a duration such as 30s; 0s: not at
all."""
BOUND = 10.0
"""Seconds, where the service does not say."""
LONGEST = 3600.0


@dataclass(frozen=True, slots=True)
class Looked:
    """What is known of a running container's sockets."""

    ports: frozenset[int] = frozenset()
    """TCP ports that something listens on; of those that were asked for."""
    seconds: float = 0.0
    """Since this agent first saw its process."""
    hidden: bool = False
    """Its namespace cannot be looked into: nobody waits for what nobody would see."""


NOT_LOOKED = Looked()


@dataclass(frozen=True, slots=True)
class Await:
    """Look at the container's sockets until something listens on all these TCP ports, and for `seconds` at
    most; then plan again. `pid`: the process whose namespace it is."""

    key: str
    container_id: str
    pid: int
    ports: frozenset[int]
    seconds: float


def seconds_of(text: str) -> float | None:
    """A bound as it is written, in seconds; None for what is none."""
    try:
        seconds = duration(text) / SECOND
    except ValueError:
        return None
    return seconds if 0 <= seconds <= LONGEST else None


def bound_of(labels: Mapping[str, str]) -> float:
    """The bound that the service's labels ask for, in seconds; what cannot be read is the default."""
    seconds = seconds_of(labels.get(LABEL, ""))
    return BOUND if seconds is None else seconds


def awaited(endpoint: str) -> frozenset[int]:
    """The target ports, in the container, of all TCP ports that the endpoint publishes."""
    return frozenset(
        port.target_port for port in endpoint_view(endpoint).ports if (port.protocol or "tcp") == "tcp"
    )


class Started(Protocol):
    """A container whose process runs (engine.Container)."""

    @property
    def id(self) -> str:
        """The Engine's id of it."""

    @property
    def pid(self) -> int:
        """Its first process."""

    @property
    def health(self) -> str:
        """The word of its health check, "" where it has none."""

    @property
    def sockets(self) -> Looked:
        """What is known of its sockets."""


def judge(assigned: Assigned, one: Started) -> Await | str:
    """What a started container that is not running yet waits for; or, where nothing keeps it, what is to be
    said of that ("" where it listens, or nobody asked)."""
    closed, left = missing(assigned, one.health, one.sockets)
    if not closed:
        return ""
    ports = awaited(assigned.endpoint)
    return Await(assigned.id, one.id, one.pid, ports, left) if left else _overdue(assigned, closed)


def missing(assigned: Assigned, health: str, looked: Looked) -> tuple[frozenset[int], float]:
    """The ports on which nothing listens yet, and for how many more seconds that keeps the task from
    running. A health check (`health` is not "") says more than sockets do: then nothing is waited for."""
    bound = bound_of(assigned.service_labels)
    if health or looked.hidden or not bound:
        return frozenset(), 0.0
    return awaited(assigned.endpoint) - looked.ports, max(0.0, bound - looked.seconds)


def named(ports: Iterable[int]) -> str:
    """The ports in a sentence."""
    numbers = [str(port) for port in sorted(ports)]
    return f"TCP port{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}"


def _overdue(assigned: Assigned, ports: Iterable[int]) -> str:
    """What is said once of a task that runs although it does not listen."""
    return f"nothing listened on {named(ports)} within {bound_of(assigned.service_labels):g} s"
