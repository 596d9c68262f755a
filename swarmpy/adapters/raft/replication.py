"""Replication: the leader's feeding of its followers, and the followers' keeping of what they proved.

What belongs here: append_entries, its answers, and the pace of both. What does not: snapshots
(installing.py), elections (election.py).

Sources: Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm" (2014), 5.3 and 5.4;
flow control after etcd's raft (probe, replicate, snapshot).
"""

from __future__ import annotations

import logging
from typing import Any

from pysyncobj.node import Node

from swarmpy.adapters.raft.election import Election
from swarmpy.adapters.raft.state import FOREVER, LEADER, SafetyError

logger = logging.getLogger(__name__)

_BATCH_ENTRIES = 4096


class Replication(Election):
    """SyncObj's replication with the defects of the audit fixed."""

    def __init__(self, *args: Any) -> None:
        self.seq = 0
        self.spoken = 0
        """The number of the last message before those that went to everyone."""
        self.fed_commit = 0
        """The commit index that everyone was told last."""
        self.notice_at = FOREVER
        """When the others are told of a commit, unless there is something else to say before."""
        super().__init__(*args)

    # -------------------------------------------------- the leader's side

    def _SyncObj__onBecomeLeader(self) -> None:  # noqa: N802  the overridden name is pysyncobj's
        """A new leader knows nothing of its followers' logs; then SyncObj appends the no-op."""
        for node in self.everyone():
            self.progress[node.id].restart(self.seq + 1)
        super()._SyncObj__onBecomeLeader()

    def everyone(self) -> list[Node]:
        """The other voters and the learners, in order of id."""
        return sorted(self.voters | self.learners, key=lambda n: str(n.id))

    def next_seq(self) -> int:
        """The number of the next message to a follower; its answer repeats it."""
        self.seq += 1
        return self.seq

    def _SyncObj__sendAppendEntries(self) -> None:  # noqa: N802  the overridden name is pysyncobj's
        """Speak to everyone: entries where there are any, a heartbeat where not.

        Defects fixed: SyncObj floods (no window), cuts large entries into pickles, and pushes snapshots as
        fast as it can.
        """
        self._SyncObj__newAppendEntriesTime = self.now + self.settings.heartbeat
        self.fed_commit = self.commit_index
        self.spoken, self.notice_at = self.seq, FOREVER
        for node in self.everyone():
            if node in self.connected:
                self.resend_if_lost(node)
                if not self.feed(node):
                    self.heartbeat(node)

    def feed(self, node: Node) -> bool:
        """Send what the window allows; whether anything was sent."""
        progress = self.progress[node.id]
        if progress.snapshot is not None or self.next_index[node] <= self.base_index:
            return self.feed_snapshot(node)
        sent = False
        while self.next_index[node] <= self.last_index and self._window_open(node):
            first = self.next_index[node]
            entries = self.entries_from(first, _BATCH_ENTRIES, self.settings.batch)
            self._append(node, first - 1, [[entry[0], entry[2]] for entry in entries])
            size = sum(len(entry[0]) for entry in entries)
            progress.inflight.append((entries[-1][1], size, self.now))
            self.next_index[node] = entries[-1][1] + 1
            sent = True
        return sent

    def feed_snapshot(self, node: Node) -> bool:
        """See installing.py."""
        raise NotImplementedError

    def _window_open(self, node: Node) -> bool:
        progress = self.progress[node.id]
        if progress.probing:
            return not progress.inflight
        if len(progress.inflight) >= self.settings.window_messages:
            return False
        return sum(size for _, size, _ in progress.inflight) < self.settings.window

    def heartbeat(self, node: Node) -> None:
        """An append without entries: at the end of what was sent, so that it also proves it."""
        progress = self.progress[node.id]
        prev = self.match_index[node] if progress.snapshot else self.next_index[node] - 1
        self._append(node, max(prev, self.base_index), [])

    def _append(self, node: Node, prev: int, entries: list[list[Any]]) -> None:
        prev_term = self.log.term_at(prev)
        assert prev_term is not None, "the entry before is held"
        seq, progress = self.next_seq(), self.progress[node.id]
        if progress.asked is None:
            progress.asked = (seq, self.now)
        self.send(
            node,
            "append_entries",
            term=self.term,
            commit_index=self.commit_index,
            prevLogIdx=prev,
            prevLogTerm=prev_term,
            entries=entries,
            seq=seq,
        )

    def resend_if_lost(self, node: Node) -> None:
        """Entries that stay unanswered are sent again from what is known to match."""
        progress = self.progress[node.id]
        if progress.inflight and self.now - progress.inflight[0][2] > self.settings.resend:
            self.rewind(node, self.match_index[node] + 1)

    def rewind(self, node: Node, index: int) -> None:
        """Go on from `index`, carefully; refusals of what was sent before are ignored."""
        self.next_index[node] = index
        self.progress[node.id].restart(self.seq + 1)

    def on_next_node_idx(self, node: Node, message: dict[str, Any]) -> None:
        """A follower's answer.

        Defects fixed: an answer of another term proves nothing; `match` never passes our own log; a
        refusal rewinds once, not once for each message that was on its way.
        """
        if not self.is_answer(node, message):
            return
        progress = self.progress[node.id]
        next_index = message["next_node_idx"]
        if not message["success"]:
            if progress.snapshot is None and message["seq"] >= progress.reset_seq:
                self._refused(node, next_index)
            return
        self.matched(node, next_index - 1)
        if self.next_index[node] <= self.last_index:
            self.feed(node)

    def _refused(self, node: Node, next_index: int) -> None:
        lowest = self.match_index[node] + 1
        self.rewind(node, max(lowest, min(next_index, self.next_index[node])))
        if next_index < lowest:
            logger.error("%s lost entries that it had acknowledged: replace it", node.id)
        else:
            self.feed(node)

    def matched(self, node: Node, index: int) -> None:
        """The follower's log equals ours up to `index`, and is on its disk."""
        if index > self.last_index:
            raise SafetyError(f"{node.id} acknowledged entry {index} of {self.last_index}")
        progress = self.progress[node.id]
        progress.probing = False
        self.match_index[node] = max(self.match_index[node], index)
        self.next_index[node] = max(self.next_index[node], self.match_index[node] + 1)
        while progress.inflight and progress.inflight[0][0] <= self.match_index[node]:
            progress.inflight.popleft()

    def is_answer(self, node: Node, message: dict[str, Any]) -> bool:
        """Whether this answers us as the leader of this term; then the follower was heard."""
        if message["term"] > self.term:
            self.step_down(message["term"])
            return False
        progress = self.progress.get(node.id)
        if self.raft_state != LEADER or message["term"] != self.term or progress is None:
            return False
        if message["seq"] > self.seq:
            raise SafetyError(f"{node.id} answered message {message['seq']} of {self.seq}")
        progress.answered(message["seq"], self.now)
        self.last_heard[node] = self.now
        return True

    # -------------------------------------------------- the follower's side

    def on_append_entries(self, node: Node, message: dict[str, Any]) -> None:
        """Keep what the leader sent.

        Defects fixed: entries that match are kept (SyncObj cut the log at prevLogIdx always, and lost what
        it had acknowledged); only a real conflict cuts, never below the commit index; the answer claims no
        more than this message proves; the commit index follows only what it proves.
        """
        if not self.accept_leader(node, message):
            return
        prev, entries = message["prevLogIdx"], message["entries"]
        if prev < self.base_index:
            # What is below our base was committed before: it matches. Go on behind it.
            entries = entries[self.base_index - prev :]
            proved = prev + len(message["entries"])
            prev = min(proved, self.base_index)
        elif (refused := self._disagrees(prev, message["prevLogTerm"])) is not None:
            self._answer_append(node, message, refused, success=False)
            return
        self._keep(prev, entries)
        proved = prev + len(entries)
        self.commit_index = max(self.commit_index, min(message["commit_index"], proved))
        self._answer_append(node, message, proved + 1, success=True)

    def accept_leader(self, node: Node, message: dict[str, Any]) -> bool:
        """Whether the sender leads our term or a later one; if not, it is told our term."""
        if message["term"] < self.term:
            self._answer_append(node, message, self.last_index + 1, success=False)
            return False
        self.follow(node, message["term"])
        return True

    def _disagrees(self, prev: int, prev_term: int) -> int | None:
        """Where the leader should go on, when our log does not have its entry `prev`; None when it has."""
        ours = self.log.term_at(prev)
        if ours == prev_term:
            return None
        if ours is None:
            return self.last_index + 1
        first = prev
        while first - 1 > self.commit_index and self.log.term_at(first - 1) == ours:
            first -= 1
        return first

    def _keep(self, prev: int, entries: list[list[Any]]) -> None:
        first_new: int | None = None
        for offset, (command, term) in enumerate(entries):
            index = prev + 1 + offset
            if index <= self.last_index:
                if self.log.term_at(index) == term:
                    continue
                self._cut(index)
            if first_new is None:
                first_new = index
            self.log.add(command, index, term)
        if first_new is not None:
            self.read_memberships(first_new)

    def _cut(self, index: int) -> None:
        if index <= self.commit_index:
            raise SafetyError(f"the leader {self.leader} contradicts entry {index}, which was committed here")
        self._SyncObj__deleteEntriesFrom(index)

    def _answer_append(self, node: Node, message: dict[str, Any], next_index: int, *, success: bool) -> None:
        self.send(
            node,
            "next_node_idx",
            term=self.term,
            next_node_idx=next_index,
            success=success,
            seq=message["seq"],
        )
