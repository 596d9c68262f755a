"""The Raft core: SyncObj with every defect of the audit overridden, driven one turn at a time.

What belongs here: the dispatch of messages, the tick, proposals, applying, reads, transfer. What does not:
any I/O, any waiting: results go to the outbox, and node.py makes them wait for the disk.

SyncObj keeps: terms and votes, the campaign, the commit rule, check-quorum, the apply loop. All calls
happen inside `pinned.driving(core.surroundings)`.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from pysyncobj.node import Node

from swarmpy.adapters.raft.config import NO_OP, REGULAR, Membership
from swarmpy.adapters.raft.installing import Installing
from swarmpy.adapters.raft.pinned import FAIL_REASON, raft_node
from swarmpy.adapters.raft.state import LEADER, NEVER, Send

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ApplyFailed:
    """The result of an entry on which the machine raised: it is applied, with no effect we know of."""

    reason: str


@dataclass(slots=True)
class Proposal:
    """An entry that wants to be appended. `done(index, result, reason)` is called behind the barrier;
    `reason` is a FAIL_REASON."""

    entry: bytes
    done: Callable[[int, Any, int], None]


@dataclass(slots=True)
class Read:
    """A reader that waits for proof of leadership: a majority has to answer message `seq` or a later
    one. `done(index)` is called behind the barrier; None means not the leader any more."""

    seq: int
    index: int
    done: Callable[[int | None], None]


class Core(Installing):
    """One member's Raft core."""

    def __init__(self, *args: Any) -> None:
        self.proposals: deque[Proposal] = deque()
        self.reads: list[Read] = []
        self.asked, self.asked_at = 0, NEVER
        """The number of the first message that asked for reads last, and when it was sent."""
        self.transfer_to: str | None = None
        self.transfer_asked = NEVER
        self.removed = False
        self.told_removed: set[str] = set()
        self.last_word: dict[str, float] = {}
        super().__init__(*args)

    # -------------------------------------------------- messages

    def receive(self, sender: str, message: dict[str, Any]) -> None:
        """A checked message from an authenticated member, or from one that we do not know yet.

        Unknown senders are heard: after a long absence our membership may be older than the leader. Those
        that a committed membership removed are only told so.
        """
        node = raft_node(sender)
        if sender in self.committed_membership.removed:
            self.send(node, "removed", term=self.term)
            return
        self.last_word[sender] = self.now
        kind = message["type"]
        if kind == "removed":
            # Ids are never used again, so this stays true whatever the terms are.
            self.removed = True
        else:
            handlers[kind](self, node, message)

    def _SyncObj__onMessageReceived(self, node: Any, message: Any) -> None:  # noqa: N802  the overridden name is pysyncobj's
        """SyncObj's own handler is never used: see `receive`."""
        raise AssertionError("messages go through Core.receive")

    def connection_up(self, peer: str) -> None:
        """A connection to this peer works: what was on its way before is lost."""
        node = raft_node(peer)
        self._SyncObj__onNodeConnected(node)
        if self.raft_state == LEADER and peer in self.progress:
            self.rewind(node, self.match_index[node] + 1)
            self.heartbeat(node)

    def connection_down(self, peer: str) -> None:
        """The last connection to this peer broke. A snapshot that was on its way begins anew with the
        next one, and takes no memory until then."""
        node = raft_node(peer)
        if peer in self.progress:
            self.progress[peer].snapshot = None
        self._SyncObj__onNodeDisconnected(node)
        if self.leader == node:
            self.leader_connection_lost()

    # -------------------------------------------------- the tick

    def tick(self) -> None:
        """One turn of SyncObj: campaign, commit, check the quorum, apply, append; then reads."""
        if self.removed:
            self._turn_away()  # who waits here would wait for ever, and the loop would turn for them
            return
        before = self.commit_index
        self.doTick(0.0)
        if self.raft_state == LEADER:
            if self.commit_index > max(before, self.fed_commit):
                self.notice_at = min(self.notice_at, self.now + self.settings.notice)
            if self.now >= self.notice_at:
                self._SyncObj__sendAppendEntries()
            self._hand_over()
            self._say_removed()
        else:
            self.transfer_to = None
        self._answer_reads()

    def pulse(self) -> list[Send]:
        """Heartbeats that need not wait for the disk: they promise nothing that is not durable. They keep
        a leader with a slow disk in office; the node sends them while a write takes long."""
        assert self.raft_state == LEADER
        waiting, self.outbox = self.outbox, []
        for node in self.everyone():
            if node in self.connected:
                self._append(node, max(self.match_index[node], self.base_index), [])
        pulses = [item for item in self.outbox if isinstance(item, Send)]
        self.outbox = waiting
        return pulses

    def next_deadline(self) -> float:
        """When the next tick has something to do by itself, on the injected clock."""
        if self.raft_state == LEADER:
            deadline: float = min(self._SyncObj__newAppendEntriesTime, self.notice_at)
            if self._unspoken():
                return min(deadline, self.asked_at + self.settings.hedge)
            return deadline
        return self.election_deadline

    def _SyncObj__tryLogCompaction(self) -> None:  # noqa: N802  the overridden name is pysyncobj's
        """Snapshots are the node's business: it has the disk."""

    # -------------------------------------------------- proposals

    def _checkCommandsToApply(self) -> None:  # noqa: N802 - pysyncobj's name
        """Append what was proposed: at most one disk write's worth a turn, and replicate it at once.

        Defects fixed: SyncObj forwards to a leader that may never answer; here the proposer is told who
        leads. During a transfer nothing is appended: it waits, or learns that we do not lead any more.
        """
        if self.raft_state != LEADER:
            self._turn_away()
            return
        size = 0
        while self.proposals and self.transfer_to is None and size < self.settings.turn_bytes:
            proposal = self.proposals.popleft()
            index = self.last_index + 1
            self.log.add(proposal.entry, index, self.term)
            self.waiting[index].append((self.term, partial(self._proposed, proposal, index)))
            size += len(proposal.entry)
        if size:
            self._SyncObj__sendAppendEntries()

    def _turn_away(self) -> None:
        """Tell all proposers that this member does not lead."""
        while self.proposals:
            proposal = self.proposals.popleft()
            self._tell(partial(proposal.done, 0, None, FAIL_REASON.NOT_LEADER))

    def _proposed(self, proposal: Proposal, index: int, result: Any, reason: int) -> None:
        self._tell(partial(proposal.done, index, result, reason))

    def _tell(self, callback: Callable[[], None]) -> None:
        self.outbox.append(callback)

    def change_membership(self, membership: Membership, done: Callable[[int, Any, int], None]) -> bool:
        """Append a membership; False while another change, or the no-op of our term, is not committed.

        Defect fixed: SyncObj's guard of one change at a time was never set.
        """
        if self.raft_state != LEADER or self.transfer_to is not None or not self.may_change():
            return False
        index = self.last_index + 1
        self.log.add(membership.to_entry(), index, self.term)
        self.memberships.append((index, membership))
        self.use_membership()
        proposal = Proposal(b"", done)
        self.waiting[index].append((self.term, partial(self._proposed, proposal, index)))
        self._SyncObj__sendAppendEntries()
        return True

    def may_change(self) -> bool:
        """Whether the last change and our no-op are committed."""
        return self.commit_index >= max(self.membership_index, self.noop_index or 0)

    # -------------------------------------------------- applying

    def _SyncObj__applyLogEntries(self) -> bool:  # noqa: N802  the overridden name is pysyncobj's
        """Apply committed entries, as many as fit a turn; the rest follows in the next ones.

        Defect fixed: SyncObj applies all of them at once. After a restart these may be thousands, and
        meanwhile nothing else runs and no heart beats.
        """
        until = self.now + self.settings.apply_seconds
        last = min(self.commit_index, self.applied_index + self.settings.apply_entries)
        while self.applied_index < last and self.now <= until:
            command, index, term = self.log[self.applied_index + 1 - self.base_index]
            waiting = self.waiting.pop(index, ())
            result = self._SyncObj__doApplyCommand(command)
            for proposed_in, told in waiting:
                mine = proposed_in == term
                told(result if mine else None, FAIL_REASON.SUCCESS if mine else FAIL_REASON.DISCARDED)
            self.applied_index = index
        return False

    def _SyncObj__doApplyCommand(self, command: bytes) -> Any:  # noqa: N802  the overridden name is pysyncobj's
        """Apply one committed entry. Defects fixed: no pickle; an exception is a result, so no entry is
        poison, applied twice or stuck; there are no version entries."""
        index = self.applied_index + 1
        kind = command[:1]
        if kind == REGULAR:
            try:
                return self.machine.apply(index, command[1:])
            except Exception as error:
                logger.exception("the machine raised on entry %d", index)
                return ApplyFailed(f"{type(error).__name__}: {error}")
        if kind != NO_OP:
            membership = Membership.from_entry(command)
            if membership is not None and self.me.id in membership.removed:
                self.removed = True
        return None

    def unapplied(self) -> bool:
        """Whether the next turn goes on applying what this one did not come to."""
        return not self.removed and self.applied_index < self.commit_index

    def _say_removed(self) -> None:
        """Tell those that a committed entry removed; they may still be connected."""
        for peer in sorted(self.committed_membership.removed - self.told_removed):
            self.told_removed.add(peer)
            if raft_node(peer) in self.connected:
                self.outbox.append(Send(peer, {"type": "removed", "term": self.term}))

    # -------------------------------------------------- reads

    def read(self, done: Callable[[int | None], None]) -> None:
        """Ask for an index at or after everything acknowledged before this call (ReadIndex).

        Defect fixed: SyncObj offers only the leader's own opinion that it leads.
        """
        if self.raft_state != LEADER:
            self._tell(partial(done, None))
            return
        self.reads.append(Read(self.seq + 1, max(self.commit_index, self.noop_index or 0), done))

    def ask_for_reads(self) -> None:
        """Have our leadership proved where readers came since we last asked: by the members that answer
        soonest, as many as it takes; by everyone where these keep us waiting."""
        if self.raft_state != LEADER or not self._unspoken():
            return
        if self.reads[-1].seq > self.asked:
            self.asked, self.asked_at = self.seq + 1, self.now
            for node in self._quickest():
                if not self.feed(node):
                    self.heartbeat(node)
        elif self.now >= self.asked_at + self.settings.hedge:
            self._SyncObj__sendAppendEntries()

    def _unspoken(self) -> bool:
        """Whether there are readers since whose coming not everyone was spoken to."""
        return bool(self.reads) and self.reads[-1].seq > self.spoken + 1

    def _quickest(self) -> list[Node]:
        """The voters that make a majority with us soonest."""
        ready = sorted(
            self.connected & self.voters, key=lambda n: (self.progress[n.id].patience(self.now), n.id)
        )
        return ready[: len(self.membership.voters()) // 2]

    def _answer_reads(self) -> None:
        if self.raft_state != LEADER:
            reads, self.reads = self.reads, []
            for read in reads:
                self._tell(partial(read.done, None))
            return
        if not self.reads:
            return
        echoed = sorted((self.progress[node.id].echoed for node in self.voters), reverse=True)
        needed = len(self.membership.voters()) // 2
        proved = self.seq if needed == 0 else echoed[needed - 1]
        waiting = []
        for read in self.reads:
            enough = needed == 0 or read.seq <= proved
            if enough and read.index <= self.applied_index:
                self._tell(partial(read.done, read.index))
            else:
                waiting.append(read)
        self.reads = waiting

    # -------------------------------------------------- what the leader knows of the others

    def reachable(self) -> frozenset[str]:
        """Ids heard from within the last election time-out; meaningful on the leader."""
        if self.raft_state != LEADER:
            return frozenset()
        since = self.now - self.settings.election_min
        heard = {str(node.id) for node, at in self.last_heard.items() if at > since}
        return frozenset(heard & {str(n.id) for n in self.connected}) | {self.me.id}

    def silence(self) -> dict[str, float]:
        """For how many seconds nothing came from each other member that was ever heard. Unlike SyncObj's time
        of the last answer, it does not begin anew with a term."""
        others = (one.id for one in self.membership.members if one.id in self.last_word)
        return {member_id: self.now - self.last_word[member_id] for member_id in others}

    def caught_up(self, member_id: str) -> bool:
        """Whether this member is reachable and its log is nearly as long as ours."""
        match = self.match_index.get(raft_node(member_id), 0)
        near = self.last_index - match <= self.settings.promote_lag
        return match > 0 and near and member_id in self.reachable()

    def best_successor(self) -> str | None:
        """The reachable voter with the longest log."""
        reachable = self.reachable()
        known = [(self.match_index[n], str(n.id)) for n in self.voters if n.id in reachable]
        return max(known)[1] if known else None

    # -------------------------------------------------- handing over

    def _hand_over(self) -> None:
        """Ask the chosen member to campaign, as soon as it has everything."""
        if self.transfer_to is None:
            return
        node = raft_node(self.transfer_to)
        if node not in self.voters:
            self.transfer_to = None
        elif (
            self.match_index[node] == self.last_index
            and self.now - self.transfer_asked > self.settings.election_min / 2
        ):
            self.transfer_asked = self.now
            self.send(node, "timeout_now", term=self.term)


handlers: dict[str, Callable[[Core, Any, dict[str, Any]], None]] = {
    "request_vote": Core.on_request_vote,
    "response_vote": Core.on_response_vote,
    "append_entries": Core.on_append_entries,
    "next_node_idx": Core.on_next_node_idx,
    "install": Core.on_install,
    "installed": Core.on_installed,
    "timeout_now": Core.on_timeout_now,
}
