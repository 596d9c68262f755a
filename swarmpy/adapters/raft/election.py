"""Elections: pre-vote, leader stickiness, votes that are counted once, check-quorum.

What belongs here: everything that decides who leads and when leadership ends. What does not: the log's
content (replication.py).

Sources: D. Ongaro, "Consensus: Bridging Theory and Practice" (2014), 4.2.3 (disruptive servers), 6.2
(check-quorum), 9.6 (pre-vote), 3.10 (transfer).
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from pysyncobj.node import Node

from swarmpy.adapters.raft.pinned import FAIL_REASON
from swarmpy.adapters.raft.state import CANDIDATE, FOLLOWER, LEADER, NEVER, CoreState, SafetyError


class Election(CoreState):
    """SyncObj's elections with the defects of the audit fixed."""

    def __init__(self, *args: Any) -> None:
        self.votes: set[str] = set()
        self.prevotes: set[str] = set()
        self.prevote_won = False
        self.heard_leader = NEVER
        super().__init__(*args)
        if self.membership.voters() == (self.me.id,):
            self.election_deadline = NEVER

    # -------------------------------------------------- leading and not leading

    def hears_leader(self) -> bool:
        """Whether a leader was heard within the least election time-out (stickiness)."""
        if self.raft_state == LEADER:
            return True
        fresh = self.now - self.heard_leader < self.settings.election_min
        return self.leader is not None and fresh

    def follow(self, node: Node, term: int) -> None:
        """A message of the leader of `term` (which is not older than ours) arrived."""
        if self.raft_state == LEADER and term == self.term:
            raise SafetyError(f"{node.id} and {self.me.id} both lead term {term}")
        if term > self.term:
            self._SyncObj__setCurrentTerm(term, None)
            self.transfer_pending = False
        self._SyncObj__setState(FOLLOWER)
        self.leader = node
        self.heard_leader = self.now
        self.prevotes = set()
        if not self.transfer_pending:
            self.prevote_won = False
            self.postpone_election()

    def step_down(self, term: int) -> None:
        """A later term exists. Defect fixed: replies carry terms, so a stale leader learns of it."""
        self._SyncObj__setCurrentTerm(term, None)
        self._SyncObj__setState(FOLLOWER)
        self.leader = None
        self.prevotes = set()
        self.prevote_won = False

    def postpone_election(self) -> None:
        """Draw a new election deadline."""
        self.election_deadline = self.now + self._SyncObj__generateRaftTimeout()

    def leader_connection_lost(self) -> None:
        """The leader's process may be gone: stop protecting it and ask for pre-votes soon."""
        self.heard_leader = NEVER
        hint = self.settings.hint_max - self.settings.hint_min
        wait = self.settings.hint_min + hint * self.surroundings.chance()
        self.election_deadline = min(self.election_deadline, self.now + wait)

    def _SyncObj__setState(self, new_state: int) -> None:  # noqa: N802  the overridden name is pysyncobj's
        """Defect fixed: waiters of a leader that steps down hang for ever; here all fail, as ambiguous."""
        if self.raft_state == LEADER and new_state != LEADER:
            self.fail_waiters()
            self.postpone_election()
        super()._SyncObj__setState(new_state)

    def fail_waiters(self) -> None:
        """Tell every waiting proposer that the outcome of its entry is unknown."""
        waiting, self.waiting = self.waiting, defaultdict(list)
        for index in sorted(waiting):
            for _, callback in waiting[index]:
                callback(None, FAIL_REASON.UNKNOWN_OUTCOME)

    def _SyncObj__setCurrentTerm(self, term: int, voted_for: str | None) -> None:  # noqa: N802  the overridden name is pysyncobj's
        """Defect fixed: votes were a counter; they are a set of voters, empty in each new term."""
        self.votes = {self.me.id} if voted_for == self.me.id else set()
        super()._SyncObj__setCurrentTerm(term, voted_for)

    # -------------------------------------------------- campaigning

    def _SyncObj__connectedToAnyone(self) -> bool:  # noqa: N802  the overridden name is pysyncobj's
        """SyncObj asks this when the election deadline has passed: may the campaign begin?

        Defect fixed: without pre-vote a member that cannot be heard drives the term up for ever. Here the
        first answer is no, and pre-votes are asked for; when a majority would vote, it is yes. Learners
        and removed members never campaign.
        """
        if not self.is_voter():
            self.postpone_election()
            return False
        if self.prevote_won or not self.voters:
            self.prevote_won = False
            self.prevotes = set()
            return True
        self.forced = False
        self.transfer_pending = False
        self.postpone_election()
        self.leader = None
        self.prevotes = {self.me.id}
        for node in sorted(self.voters, key=lambda n: str(n.id)):
            self.send(
                node,
                "request_vote",
                term=self.term + 1,
                last_log_index=self.last_index,
                last_log_term=self.last_term,
                pre=True,
                force=False,
            )
        return False

    def campaign_now(self) -> None:
        """Let the next tick begin a real election."""
        self.prevotes = set()
        self.prevote_won = True
        self.election_deadline = NEVER

    def on_timeout_now(self, node: Node, message: dict[str, Any]) -> None:
        """The leader hands over to us."""
        if message["term"] == self.term and node == self.leader and self.is_voter():
            self.forced = True
            self.transfer_pending = True
            self.campaign_now()

    # -------------------------------------------------- voting

    def on_request_vote(self, node: Node, message: dict[str, Any]) -> None:
        """Answer a candidate.

        Defects fixed: refusals are answered with our term; a member that hears a leader protects it (the
        term does not move either), unless that leader asked for the election; the same candidate asking
        twice gets the same vote twice.
        """
        term, pre = message["term"], message["pre"]
        if self.hears_leader() and not message["force"]:
            self._answer(node, self.term, pre=pre, granted=False)
            return
        if term > self.term and not pre:
            self.step_down(term)
        theirs = (message["last_log_term"], message["last_log_index"])
        granted = theirs >= (self.last_term, self.last_index)
        if pre:
            granted = granted and term > self.term
        else:
            granted = granted and term == self.term and self.raft_state == FOLLOWER
            granted = granted and self.voted_for in (None, node.id)
        if granted and not pre:
            self._SyncObj__setCurrentTerm(term, node.id)
            self.prevote_won = False
            self.postpone_election()
        self._answer(node, term if granted else self.term, pre=pre, granted=granted)

    def _answer(self, node: Node, term: int, *, pre: bool, granted: bool) -> None:
        self.send(node, "response_vote", term=term, pre=pre, granted=granted)

    def on_response_vote(self, node: Node, message: dict[str, Any]) -> None:
        """Count a vote. Defect fixed: votes have a voter, and only those of voters count."""
        term = message["term"]
        if not message["granted"]:
            if term > self.term:
                self.step_down(term)
            return
        if node not in self.voters:
            return
        if message["pre"]:
            if self.prevotes and term == self.term + 1:
                self.prevotes.add(node.id)
                if self.has_majority(self.prevotes):
                    self.campaign_now()
            return
        if self.raft_state == CANDIDATE and term == self.term:
            self.votes.add(node.id)
            if self.has_majority(self.votes):
                self._SyncObj__onBecomeLeader()
