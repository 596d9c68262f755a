"""WINDOWS: the Protocols through which shells see the outside world.

What belongs here: the shape of every outside thing (time, entropy, disk, wire, log, engine) and the small
value types that cross it. What does not: any implementation; those are in adapters/ (real) and sim/
(simulated), and one contract suite per port holds both to the same behaviour.

Shells use asyncio freely: the simulator runs them on an event loop with virtual time, so `asyncio.sleep`,
timeouts and `loop.time()` are simulated there. What a shell must not do is read the wall clock, draw random
numbers, touch files, open sockets or start threads except through a port.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol, TypeVar

from swarmpy.model.commands import AnyCommand, Result
from swarmpy.state.snapshot import Snapshot

Instant = int
"""Nanoseconds since 1970-01-01T00:00:00Z."""

T = TypeVar("T")

# ---------------------------------------------------------------- time and chance


class Clock(Protocol):
    """The node's clocks. `now` may jump; `monotonic` never goes back."""

    def now(self) -> Instant:
        """Wall clock, nanoseconds since the epoch."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary start; never decreases."""


class Entropy(Protocol):
    """The only source of randomness for shells."""

    def token(self, size: int) -> bytes:
        """`size` unpredictable bytes."""

    def uniform(self, low: float, high: float) -> float:
        """A float drawn uniformly from [low, high)."""


# ---------------------------------------------------------------- disk


class Disk(Protocol):
    """A small file system rooted at the node's state directory; paths are relative, '/'-separated.

    The blocking calls raise OSError. `work` runs one of them (or a function made of them) away from the
    event loop. Nothing is durable before `sync`; a new name is not durable before `sync_dir`.
    """

    def list(self, folder: str) -> list[str]:
        """Names in `folder`, sorted; empty when the folder does not exist."""

    def exists(self, path: str) -> bool:
        """Whether the file exists."""

    def read(self, path: str) -> bytes:
        """The whole file. Raises FileNotFoundError."""

    def append(self, path: str, data: bytes) -> None:
        """Add bytes to the end of the file, creating it (mode 0600) where missing."""

    def write(self, path: str, data: bytes) -> None:
        """Replace the file's content in place (not atomic); see `replace`."""

    def replace(self, path: str, data: bytes) -> None:
        """Atomically and durably replace: temporary file, sync, rename, sync of the folder."""

    def truncate(self, path: str, size: int) -> None:
        """Cut the file to `size` bytes."""

    def sync(self, path: str) -> None:
        """fdatasync the file."""

    def sync_dir(self, folder: str) -> None:
        """Make creations, renames and removals in `folder` durable."""

    def rename(self, old: str, new: str) -> None:
        """Rename, replacing `new`."""

    def unlink(self, path: str) -> None:
        """Remove a file; missing is fine."""

    def mkdir(self, folder: str) -> None:
        """Create the folder and its parents (mode 0700); existing is fine."""

    async def work(self, job: Callable[[], T]) -> T:
        """Run blocking work off the event loop, in order of submission, and return its result."""


# ---------------------------------------------------------------- the replicated log


class Machine(Protocol):
    """The deterministic state machine that a replicated log drives. Nothing here may raise for bad
    entries: a refused entry is a result."""

    def apply(self, index: int, entry: bytes) -> Any:
        """Apply the committed entry at `index`; the return value reaches the proposer."""

    def save(self) -> Callable[[], bytes]:
        """Capture the present state at once (cheap); the returned function encodes it, and may run in
        another thread while `apply` goes on."""

    def load(self, image: bytes) -> None:
        """Replace the state by a saved one. Raises ValueError when the image is not one."""


class LogRole(Enum):
    """What this member is to its log at the moment."""

    FOLLOWER = "follower"
    CANDIDATE = "candidate"
    LEADER = "leader"
    LEARNER = "learner"
    REMOVED = "removed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Member:
    """A member of the log: `id` is never reused; `address` is HOST:PORT of its wire server."""

    id: str
    address: str
    voter: bool = True


@dataclass(frozen=True, slots=True)
class LogStatus:
    """A moment's view of the log, for people and for shells."""

    role: LogRole
    term: int
    leader: str | None
    commit_index: int
    applied_index: int
    members: tuple[Member, ...]
    reachable: frozenset[str] = field(default_factory=frozenset)
    """Member ids heard from within the last election time-out (only meaningful on the leader)."""


class LogError(Exception):
    """Base of what a log refuses. Never raised itself."""


class NotLeaderError(LogError):
    """Not the leader: nothing was appended; try the member named in `leader`."""

    def __init__(self, leader: str | None = None) -> None:
        super().__init__(f"this manager is not the leader (leader: {leader or 'unknown'})")
        self.leader = leader


class AmbiguousError(LogError):
    """The leadership or the connection was lost after the entry was appended: it may or may not apply."""


class NoQuorumError(LogError):
    """Leadership could not be proved to a majority in time."""


class Log(Protocol):
    """A replicated, durable, totally ordered log driving a Machine. Members are seats: see model.ids."""

    failure: str | None
    """Why the log stopped by itself (a full disk, say); None while it runs. It may be started again."""

    async def start(self) -> None:
        """Recover from disk and take part. Raises CorruptError-like OSError/ValueError sentences."""

    async def stop(self) -> None:
        """Stop taking part; nothing acknowledged is lost."""

    def status(self) -> LogStatus:
        """The present view."""

    async def propose(self, entry: bytes, *, timeout: float = 10.0) -> tuple[int, Any]:
        """Append, replicate, commit, apply; returns (index, what Machine.apply returned).

        Raises NotLeaderError (definitely not appended) or AmbiguousError.
        """

    async def read_index(self, *, timeout: float = 5.0) -> int:
        """On the leader: prove leadership to a majority and return an index at or after every entry
        acknowledged before the call; this member has applied it on return. Raises NotLeaderError or
        NoQuorumError."""

    async def wait_applied(self, index: int, *, timeout: float = 5.0) -> None:
        """Return once this member applied `index`. Raises NoQuorumError after `timeout`."""

    async def wait_status(self, seen: LogStatus | None) -> LogStatus:
        """Return as soon as role, term, leader or members differ from `seen`."""

    async def add_member(self, member: Member, *, timeout: float = 30.0) -> None:
        """Leader only: add as learner, promote to voter when caught up. One change at a time."""

    async def remove_member(self, member_id: str, *, timeout: float = 10.0) -> None:
        """Leader only: remove. The leader cannot remove itself: transfer first."""

    async def transfer(self, member_id: str | None = None, *, timeout: float = 5.0) -> None:
        """Leader only: hand leadership to a caught-up member; returns once it is handed over."""

    async def recover_alone(self) -> None:
        """While stopped: keep what is on disk and make this member the only one, for a cluster that lost
        its majority for good. Raises LogError where there is nothing to recover."""


# ---------------------------------------------------------------- the wire between nodes


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is on the other end, as its certificate says. `node_id` is "" and `role` "none" for a caller
    without a certificate (bootstrap only)."""

    node_id: str
    role: str
    cluster_id: str
    serial: str
    address: str = ""


class WireError(Exception):
    """The other side could not be reached, broke off, or did not answer in time."""


class RefusedError(Exception):
    """The other side answered with a refusal: a code (see model.errors) and a sentence for the user."""

    def __init__(self, code: str, message: str, data: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = dict(data or {})


Body = Mapping[str, Any]
"""What calls carry: a msgpack-able mapping of str to None, bool, int, float, str, bytes, lists, dicts."""


class Channel(Protocol):
    """A bidirectional, ordered stream of bodies between two nodes."""

    peer: Peer

    async def send(self, body: Body) -> None:
        """Send one body, waiting while the other side is slow. Raises WireError."""

    async def recv(self) -> Body:
        """The next body. Raises WireError when the channel is closed or broken."""

    async def close(self) -> None:
        """Close; idempotent."""


CallHandler = Callable[[Peer, Body], Awaitable[Body]]
ChannelHandler = Callable[[Channel, Body], Awaitable[None]]
"""Handler of an opened channel: (channel, hello body). The channel closes when it returns."""


class Wire(Protocol):
    """Calls and channels between nodes, mutually authenticated."""

    def on_call(self, method: str, handler: CallHandler) -> None:
        """Serve a method. Who may call it is in pki.rpc's table; unlisted methods are refused."""

    def on_channel(self, method: str, handler: ChannelHandler) -> None:
        """Serve a channel method."""

    async def call(self, address: str, method: str, body: Body, *, timeout: float = 5.0) -> Body:
        """Call a method of the node at HOST:PORT. Raises WireError or RefusedError."""

    async def open(self, address: str, method: str, hello: Body, *, timeout: float = 5.0) -> Channel:
        """Open a channel. Raises WireError or RefusedError."""

    async def start(self, listen: str) -> None:
        """Listen on HOST:PORT."""

    async def stop(self) -> None:
        """Stop listening and break all channels."""


# ---------------------------------------------------------------- the container engine


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
    restarting, removing, exited, dead. `health` is "", starting, healthy or unhealthy."""

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


@dataclass(frozen=True, slots=True)
class EngineEvent:
    """Something happened to a container of ours: die, start, health_status, destroy, oom, …"""

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
        """Pull; `auth` is X-Registry-Auth content ("" for none)."""

    async def create(self, name: str, config: Mapping[str, Any]) -> str:
        """Docker's POST /containers/create with this body; returns the id.
        Raises EngineError(conflict=True) when the name is taken."""

    async def start(self, container_id: str) -> None:
        """Start it."""

    async def stop(self, container_id: str, grace_seconds: float) -> None:
        """Stop signal, then SIGKILL after the grace period; stopped already is fine."""

    async def remove(self, container_id: str) -> None:
        """Remove by force, with its anonymous volumes; missing is fine."""

    def events(self) -> AsyncIterator[EngineEvent]:
        """Container events from now on; ends or raises EngineGoneError when the Engine goes."""

    def logs(self, container_id: str, query: LogQuery) -> AsyncIterator[LogFrame]:
        """Output frames. With `follow`, ends when the container stops."""


# ---------------------------------------------------------------- the cluster, as the API sees it


@dataclass(frozen=True, slots=True)
class ManagersView:
    """Who leads, and which managers (node ids) the leader heard from lately."""

    leader: str | None
    reachable: frozenset[str]


@dataclass(frozen=True, slots=True)
class TaskLogFrame:
    """A piece of a task's output, or (with `problem`) a sentence saying what is missing from the stream."""

    task_id: str
    node_id: str
    service_id: str
    stream: str
    data: bytes
    time: str = ""
    problem: str = ""


class Control(Protocol):
    """The control plane, on any manager: follower or leader makes no difference to the caller.

    Everything raises model.errors.Refusal; Unavailable where there is no leader or no quorum in time.
    """

    async def world(self) -> Snapshot:
        """A linearizable read: the world at or after every write acknowledged before the call."""

    async def submit(self, command: AnyCommand) -> Result:
        """Have the leader admit and commit a command; returns once it is applied on this manager too."""

    async def managers(self) -> ManagersView:
        """Leader and reachability."""

    async def changed(self, since: int, *, timeout: float = 30.0) -> Snapshot:
        """This manager's world as soon as its version is larger than `since` (not linearizable)."""

    def logs(self, tasks: tuple[str, ...], query: LogQuery) -> AsyncIterator[TaskLogFrame]:
        """Merged output of tasks (full ids) from their nodes. With query.follow it goes on until closed."""

    def explain(self, world: Snapshot, reference: str) -> Mapping[str, Any]:
        """Why tasks run where they run or do not: see plan/explain."""


@dataclass(frozen=True, slots=True)
class InitRequest:
    """POST /swarm/init, decoded. `spec` is the SwarmSpec's JSON text. Addresses are IP, interface or
    IP:PORT, "" for the default."""

    listen_address: str = "0.0.0.0:2377"  # noqa: S104  Docker's default; the port only talks mutual TLS
    advertise_address: str = ""
    data_path_address: str = ""
    data_path_port: int = 0
    address_pools: tuple[str, ...] = ()
    subnet_size: int = 0
    force_new_cluster: bool = False
    auto_lock: bool = False
    availability: str = "active"
    spec: str = "{}"


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """POST /swarm/join, decoded. Only the first remote address is used, as in Docker."""

    remote_addresses: tuple[str, ...]
    token: str
    listen_address: str = "0.0.0.0:2377"  # noqa: S104  see InitRequest
    advertise_address: str = ""
    data_path_address: str = ""
    availability: str = "active"


@dataclass(frozen=True, slots=True)
class NodeView:
    """What this node is at the moment. `state`: inactive, pending, active, error or locked."""

    state: str = "inactive"
    node_id: str = ""
    address: str = ""
    is_manager: bool = False
    error: str = ""
    managers: tuple[tuple[str, str], ...] = ()
    """(node id, HOST:PORT) of the managers this node knows."""
    cluster_id: str = ""


class LocalNode(Protocol):
    """This node's membership. Everything raises model.errors.Refusal."""

    def view(self) -> NodeView:
        """The present state."""

    @property
    def control(self) -> Control | None:
        """The control plane; None on a node that is not an active manager."""

    async def init(self, request: InitRequest) -> str:
        """Begin a cluster; returns the node id."""

    async def join(self, request: JoinRequest) -> None:
        """Join a cluster; returns once the node is a member (up to 20 s, then goes on by itself)."""

    async def leave(self, *, force: bool = False) -> None:
        """Leave the cluster: tasks are stopped and removed, the state is wiped."""
