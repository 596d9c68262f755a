"""The replicated log and the state machine that it drives. See the package's charter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

Image = bytes | bytearray | memoryview
"""A machine's saved state. Large ones are never copied in one call: nothing else of the process would run."""


class Machine(Protocol):
    """The deterministic state machine that a replicated log drives. Nothing here may raise for bad
    entries: a refused entry is a result."""

    def apply(self, index: int, entry: bytes) -> Any:
        """Apply the committed entry at `index`; the return value reaches the proposer."""

    def save(self) -> Callable[[], Image]:
        """Capture the present state at once (cheap); the returned function encodes it, and may run in
        another thread while `apply` goes on."""

    def load(self, image: Image) -> Callable[[], None]:
        """Decode a saved state, changing nothing (slow; may run in another thread); the returned function
        replaces the present state by it at once. Raises ValueError when the image is not one."""


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
    silence: Mapping[str, float] = field(default_factory=dict)
    """For how many seconds this member heard nothing of each other one that it ever heard, terms before this
    one included. Followers hear only the leader (only meaningful on the leader)."""


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
    """Why the log stopped by itself, or did not start (a full disk, say); None while it runs. It may be
    started again."""

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
