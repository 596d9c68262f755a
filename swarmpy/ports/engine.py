"""The local container engine. See the package's charter."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from swarmpy.ports.basics import Instant


class EngineError(Exception):
    """The Engine refused or failed; the text is for the user. `missing`: the thing does not exist."""

    def __init__(self, message: str, *, missing: bool = False, conflict: bool = False) -> None:
        super().__init__(message)
        self.missing = missing
        self.conflict = conflict


class EngineGoneError(EngineError):
    """The Engine does not answer at all."""


@dataclass(frozen=True, slots=True)
class ContainerSeen:
    """A container as the Engine reports it. `state` is Docker's word: created, running, paused,
    restarting, removing, exited, dead. `health` is "", starting, healthy or unhealthy; "" unless it runs."""

    id: str
    name: str
    labels: Mapping[str, str]
    state: str
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    health: str = ""
    health_log: str = ""
    started_at: Instant = 0
    finished_at: Instant = 0
    ports: tuple[tuple[str, int, int], ...] = ()
    """Published host ports: (protocol, target port, host port)."""
    sandbox: str = ""
    """Path of its network namespace while it runs."""
    networks: tuple[tuple[str, str], ...] = ()
    """(network's name, the Engine's endpoint id while it runs) of each network that it is connected to."""
    options: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """The driver's options of each of these networks that has some, by the network's name."""
    hostname: str = ""


@dataclass(frozen=True, slots=True)
class EngineEvent:
    """Something happened to a container: create, start, die, health_status, destroy, oom, … `labels` holds
    the container's labels, and may hold more."""

    action: str
    container_id: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class LogFrame:
    """A piece of a container's output. `stream` is stdout or stderr; `time` is set when asked for."""

    stream: str
    data: bytes
    time: str = ""


@dataclass(frozen=True, slots=True)
class LogQuery:
    """What part of a container's output is wanted. `tail` -1 is all; `since` in ns, 0 is from start."""

    stdout: bool = True
    stderr: bool = True
    follow: bool = False
    tail: int = -1
    since: Instant = 0
    timestamps: bool = False


class Engine(Protocol):
    """The local container engine."""

    async def info(self) -> Mapping[str, Any]:
        """Docker's GET /info, as is. Raises EngineGoneError."""

    async def version(self) -> Mapping[str, Any]:
        """Docker's GET /version, as is."""

    async def containers(self, labels: Iterable[str]) -> list[ContainerSeen]:
        """All containers, running or not, that carry every label (`k` or `k=v`)."""

    async def inspect(self, container_id: str) -> ContainerSeen:
        """One container. Raises EngineError(missing=True)."""

    async def has_image(self, image: str) -> bool:
        """Whether the reference resolves locally."""

    async def pull(self, image: str, auth: str = "") -> None:
        """Pull; `auth` is X-Registry-Auth content ("" for none). Raises EngineError with the registry's
        sentence, the image named in it. A cancelled pull ends at the Engine too."""

    async def create(self, name: str, config: Mapping[str, Any]) -> str:
        """Docker's POST /containers/create with this body; returns the id.
        Raises EngineError(conflict=True) when the name is taken."""

    async def ensure_network(self, name: str, network_id: str) -> None:
        """Have a local network of that name whose endpoints our driver plugs, carrying the label
        `io.swarmpy.network=ID`; one of ours with another id, whose network is gone, gives way to it. Raises
        EngineError where the name is taken: by a network of the Engine's own, or by one in use."""

    async def networks(self) -> Mapping[str, str]:
        """The Engine's networks of ours: cluster-wide network id by name."""

    async def remove_network(self, name: str) -> None:
        """Remove one of them; missing is fine. Raises EngineError while containers are connected to it."""

    async def connect(self, container_id: str, network: str, options: Mapping[str, str]) -> None:
        """Connect a container that does not run yet to one more network, with these driver options."""

    async def disconnect(self, container_id: str, network: str) -> None:
        """Disconnect a container, running or not, by force; one that is not connected, or gone, is fine."""

    async def connected(self, *, without: str) -> list[ContainerSeen]:
        """All containers, running or not, that are connected to a network of ours and carry no such label."""

    async def start(self, container_id: str) -> None:
        """Start it; started already is fine. Raises EngineError(missing=True), or with the Engine's sentence
        where it cannot run; that is then its `error` too."""

    async def stop(self, container_id: str, grace_seconds: float) -> None:
        """Stop signal, then SIGKILL after the grace period; stopped already is fine. Returns when it has
        stopped. Raises EngineError(missing=True)."""

    async def remove(self, container_id: str) -> None:
        """Remove by force, with its anonymous volumes; missing is fine."""

    def events(self) -> AsyncIterator[EngineEvent]:
        """Container events from now on; ends or raises EngineGoneError when the Engine goes."""

    def logs(self, container_id: str, query: LogQuery) -> AsyncIterator[LogFrame]:
        """Output frames, one for each line. With `follow`, ends when the container stops. Raises
        EngineError(missing=True), or EngineGoneError when the Engine goes."""
