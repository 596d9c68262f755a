"""The core's state under readable names, its outbox, and its membership.

What belongs here: access to pysyncobj's name-mangled fields, what leaves the core (outbox), who takes part.
What does not: elections (election.py), replication (replication.py).

pysyncobj's `otherNodes` are the other voters (they make its quorums) and its `readonlyNodes` are the
learners (it replicates to them and never counts them).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from pysyncobj.node import Node
from pysyncobj.transport import Transport

from swarmpy.adapters.raft.blob import Snapshot
from swarmpy.adapters.raft.config import Membership
from swarmpy.adapters.raft.journal import Journal
from swarmpy.adapters.raft.pinned import RAFT_STATE, Surroundings, SyncObj, SyncObjConf, raft_node
from swarmpy.adapters.raft.settings import RaftSettings
from swarmpy.ports import Image, Machine

FOLLOWER: int = RAFT_STATE.FOLLOWER
CANDIDATE: int = RAFT_STATE.CANDIDATE
LEADER: int = RAFT_STATE.LEADER

NEVER, FOREVER = float("-inf"), float("inf")


class SafetyError(RuntimeError):
    """A promise of Raft is broken (a bug, or a disk that lies): the member stops before it does harm."""


@dataclass(frozen=True, slots=True)
class Send:
    """A message that waits for the barrier."""

    to: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Drop:
    """The connection to this member has to be broken."""

    to: str


Outgoing = Send | Drop | Callable[[], None]
"""What waits for the barrier: messages, broken connections and callbacks, in order."""


@dataclass(slots=True)
class SnapshotSend:
    """A snapshot on its way to one member."""

    index: int
    blob: Image
    crc: int
    sent: int = 0
    acked: int = 0
    moved: float = NEVER


@dataclass(slots=True)
class Progress:
    """What the leader knows of one member, beyond pysyncobj's next and match indexes."""

    probing: bool = True
    """Not known where the logs agree: one message at a time until it is."""
    inflight: deque[tuple[int, int, float]] = field(default_factory=deque)
    """Unanswered entries: (last index, bytes, when sent)."""
    reset_seq: int = 0
    """Refusals of messages before this one are old news."""
    echoed: int = 0
    """The newest of our messages that was answered."""
    snapshot: SnapshotSend | None = None
    delay: float = 0.0
    """About how many seconds it takes to answer."""
    asked: tuple[int, float] | None = None
    """The message (its number, and when it was sent) whose answer is timed."""

    def restart(self, seq: int) -> None:
        """Forget what is on its way."""
        self.probing = True
        self.inflight.clear()
        self.snapshot = None
        self.asked = None
        self.reset_seq = seq

    def answered(self, seq: int, now: float) -> None:
        """It answered the message with this number."""
        self.echoed = max(self.echoed, seq)
        if self.asked is not None and seq >= self.asked[0]:
            self.delay += (now - self.asked[1] - self.delay) / 4
            self.asked = None

    def patience(self, now: float) -> float:
        """After how many seconds it can be expected to answer: as usual, or no sooner than it keeps us
        waiting by now."""
        return self.delay if self.asked is None else max(self.delay, now - self.asked[1])


class _OutboxTransport(Transport):  # type: ignore[misc]  # pysyncobj has no types
    """pysyncobj's transport: nothing leaves before the barrier."""

    ready = True

    def __init__(self, core: CoreState) -> None:
        super().__init__(core, None, [])
        self._core = core

    def send(self, node: Node, message: dict[str, Any]) -> None:
        """Queue. pysyncobj's own request_vote gets the fields it does not know."""
        if message["type"] == "request_vote" and "pre" not in message:
            message = {**message, "pre": False, "force": self._core.forced}
        self._core.outbox.append(Send(node.id, message))

    def destroy(self) -> None:
        """Nothing is open."""


def _field(name: str) -> Any:
    """A readable name for a private field of SyncObj."""
    mangled = f"_SyncObj__{name}"

    def put(self: Any, value: Any) -> None:
        setattr(self, mangled, value)

    return property(attrgetter(mangled), put)


class CoreState(SyncObj):  # type: ignore[misc]  # pysyncobj has no types
    """SyncObj with its fields named, an outbox for a transport, and the membership from the log."""

    term: int = _field("raftCurrentTerm")
    voted_for: str | None = _field("votedForNodeId")
    votes_count: int = _field("votesCount")
    log: Journal = _field("raftLog")
    raft_state: int = _field("raftState")
    leader: Node | None = _field("raftLeader")
    commit_index: int = _field("raftCommitIndex")
    applied_index: int = _field("raftLastApplied")
    next_index: dict[Node, int] = _field("raftNextIndex")
    match_index: dict[Node, int] = _field("raftMatchIndex")
    last_heard: dict[Node, float] = _field("lastResponseTime")
    voters: set[Node] = _field("otherNodes")
    learners: set[Node] = _field("readonlyNodes")
    connected: set[Node] = _field("connectedNodes")
    election_deadline: float = _field("raftElectionDeadline")
    transfer_pending: bool = _field("transferInProgress")
    noop_index: int | None = _field("noopIDx")
    waiting: dict[int, list[tuple[int, Callable[[Any, int], None]]]] = _field("commandsWaitingCommit")

    def __init__(
        self,
        node_id: str,
        surroundings: Surroundings,
        machine: Machine,
        settings: RaftSettings,
        snapshot: Snapshot | None,
    ) -> None:
        self.me = raft_node(node_id)
        self.settings = settings
        self.machine = machine
        self.surroundings = surroundings
        self.outbox: list[Outgoing] = []
        self.forced = False
        self.progress: dict[str, Progress] = {}
        start = (0, Membership())
        if snapshot is not None:
            start = (snapshot.index, snapshot.membership)
        self.memberships: list[tuple[int, Membership]] = [start]
        self.waiting = {}  # SyncObj looks at every attribute before it makes its own of this
        conf = SyncObjConf(
            autoTick=False,
            appendEntriesUseBatch=True,
            appendEntriesPeriod=settings.heartbeat,
            raftMinTimeout=settings.election_min,
            raftMaxTimeout=settings.election_max,
            leaderFallbackTimeout=settings.election_min,
            connectionTimeout=settings.election_max,
            commandsWaitLeader=False,
            dynamicMembershipChange=False,
        )
        super().__init__(self.me, [], conf=conf, transport=_OutboxTransport(self))
        if snapshot is not None:
            self.commit_index = self.applied_index = snapshot.index
        self.read_memberships(start[0] + 1)

    # -------------------------------------------------- short words

    @property
    def now(self) -> float:
        """Seconds on the injected clock."""
        return self.surroundings.now()

    @property
    def last_index(self) -> int:
        """Index of the last entry of the log."""
        return self.log[-1][1]

    @property
    def last_term(self) -> int:
        """Term of the last entry of the log."""
        return self.log[-1][2]

    @property
    def base_index(self) -> int:
        """Index of the first entry of the log."""
        return self.log[0][1]

    def send(self, node: Node, kind: str, **fields: Any) -> None:
        """Queue a message behind the barrier."""
        self.outbox.append(Send(node.id, {"type": kind, **fields}))

    def entries_from(self, index: int, count: int, size: int) -> list[tuple[bytes, int, int]]:
        """Up to `count` entries from `index` on, up to about `size` bytes."""
        found: list[tuple[bytes, int, int]] = self._SyncObj__getEntries(index, count, size)
        return found

    # -------------------------------------------------- membership

    @property
    def membership(self) -> Membership:
        """The membership in force: the latest in the log, committed or not."""
        return self.memberships[-1][1]

    @property
    def membership_index(self) -> int:
        """Where the membership in force stands in the log."""
        return self.memberships[-1][0]

    @property
    def committed_membership(self) -> Membership:
        """The latest membership that cannot be taken back."""
        return self.membership_at(self.commit_index)

    def membership_at(self, index: int) -> Membership:
        """The membership in force after the entry at `index`."""
        first = self.memberships[0]
        return next((m for at, m in reversed(self.memberships) if at <= index), first[1])

    def is_voter(self) -> bool:
        """Whether this member votes."""
        found = self.membership.find(self.me.id)
        return found is not None and found.voter

    def has_majority(self, ids: set[str]) -> bool:
        """Whether these voters (others are not counted) are a majority."""
        voters = self.membership.voters()
        return len(ids.intersection(voters)) * 2 > len(voters)

    def read_memberships(self, index: int) -> None:
        """Find memberships in the log from `index` on, and let the last one take effect."""
        self.memberships = [self.memberships[0], *(m for m in self.memberships[1:] if m[0] < index)]
        for command, at, _ in self.log[max(0, index - self.base_index) :]:
            found = Membership.from_entry(command)
            if found is not None:
                self.memberships.append((at, found))
        self.use_membership()

    def forget_memberships(self, index: int) -> None:
        """A snapshot at `index` carries the membership then: older ones are not needed."""
        kept = [m for m in self.memberships if m[0] > index]
        self.memberships = [(index, self.membership_at(index)), *kept]

    def use_membership(self) -> None:
        """Let the membership in force take effect on voters, learners and progress."""
        others = [m for m in self.membership.members if m.id != self.me.id]
        self.voters = {raft_node(m.id) for m in others if m.voter}
        self.learners = {raft_node(m.id) for m in others if not m.voter}
        everyone = self.voters | self.learners
        for node in sorted(everyone, key=lambda n: str(n.id)):
            if node.id not in self.progress:
                self.progress[node.id] = Progress()
                self.next_index[node] = self.last_index + 1
                self.match_index[node] = 0
                self.last_heard[node] = self.now
        for node in [n for n in self.next_index if n not in everyone]:
            del self.next_index[node], self.match_index[node]
            self.last_heard.pop(node, None)
            self.progress.pop(node.id, None)
