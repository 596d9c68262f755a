"""One node as its planner sees it: tasks, containers, and what can be done about them.

What belongs here: the values. What does not: what is done when (engine.py), doing it (agent/worker).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from swarmpy.model.messages import Assigned
from swarmpy.model.objects import TaskStatus
from swarmpy.plan import listening
from swarmpy.plan.container import TASK_LABEL, Place, Wire
from swarmpy.plan.template import NodeFacts


class LocalTask(msgspec.Struct, frozen=True, kw_only=True):
    """A task as its agent holds it. `status` is the furthest that the task is known to have come."""

    assigned: Assigned
    status: TaskStatus
    prepared: bool = False
    """The image was pulled (or found) since this process began."""
    problem: str = ""
    """What the Engine said when it refused an action; becomes the task's end."""
    doomed: str = ""
    """Why the container is being stopped although it is wanted (unhealthy, or severed)."""
    leaving: bool = False
    """No longer assigned: its container is stopped and removed, then it is forgotten."""

    @property
    def id(self) -> str:
        """The task's id."""
        return self.assigned.id


@dataclass(frozen=True, slots=True)
class Container:
    """What planning needs to know of an observed container: see ports.ContainerSeen for the words."""

    id: str
    state: str
    labels: Mapping[str, str] = field(default_factory=dict)
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    health: str = ""
    ports: tuple[tuple[str, int, int], ...] = ()
    networks: tuple[str, ...] = ()
    """Names of the networks that it is connected to."""
    wired: bool = True
    """Whether its network namespace holds what it should: before that it gets no traffic."""
    sockets: listening.Looked = listening.NOT_LOOKED
    severed: str = ""
    """Why it cannot run on although it does: it lost a link to a network for good."""

    @property
    def task_id(self) -> str:
        """The task that the container belongs to, "" if its label is lost."""
        return self.labels.get(TASK_LABEL, "")

    @property
    def alive(self) -> bool:
        """Whether a process of it runs."""
        return self.state in ("running", "paused", "restarting")


@dataclass(frozen=True, slots=True)
class NodeWorld:
    """All that is known on the node. `complete`: a full set of assignments arrived since the daemon began,
    so that a container of no known task is an orphan. `busy`: ids of tasks and of orphaned containers with
    an action under way; `pulling`: those of them whose action is a pull."""

    node: NodeFacts
    cluster_id: str
    tasks: Mapping[str, LocalTask]
    containers: tuple[Container, ...]
    complete: bool = False
    busy: frozenset[str] = frozenset()
    pulling: frozenset[str] = frozenset()
    networks: Mapping[str, Wire] = field(default_factory=dict)
    """The networks that this node carries, by id."""


# ---- actions; `key` is the task's id, or the container's where no task is known


@dataclass(frozen=True, slots=True)
class Report:
    """The task's new status; `doomed`: why it is being stopped; `remark`: what the node's log says of it."""

    key: str
    status: TaskStatus
    doomed: str = ""
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Pull:
    """Make the image present."""

    key: str
    image: str
    auth: str = ""


@dataclass(frozen=True, slots=True)
class Create:
    """Create the container."""

    key: str
    name: str
    config: Mapping[str, object]
    places: tuple[Place, ...] = ()
    """Its networks; the first is in `config`, the others are connected before it starts."""


@dataclass(frozen=True, slots=True)
class Start:
    """Start the container."""

    key: str
    container_id: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop the container; `grace` in seconds."""

    key: str
    container_id: str
    grace: float


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove the container."""

    key: str
    container_id: str


@dataclass(frozen=True, slots=True)
class Cancel:
    """Give up the pull that is under way: nobody wants its image any more."""

    key: str


@dataclass(frozen=True, slots=True)
class Forget:
    """Nothing is left of the task: drop its record."""

    key: str


EngineAction = Pull | Create | Start | Stop | Remove
Action = Report | EngineAction | listening.Await | Cancel | Forget
