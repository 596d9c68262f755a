"""Invariants of consensus, checked at every step of a running simulation.

What belongs here: what must always be true of the members' logs, votes and applied entries, whatever the
machine is. What does not: clients' histories (history.py), tasks and nodes (invariants.py).

The names in brackets are the properties of Ongaro's thesis (2014), figure 3.2.
"""

from __future__ import annotations

import hashlib
from operator import attrgetter
from typing import Any

from swarmpy.adapters.raft import RaftLog
from swarmpy.adapters.raft.journal import Journal
from swarmpy.adapters.raft.state import LEADER
from swarmpy.adapters.raft.store import Store
from swarmpy.pki.seal import PlainSealer
from swarmpy.ports import Body
from swarmpy.sim.disk import SimDisk
from swarmpy.sim.stage import Box, Stage

_MARKS = attrgetter("raft_state", "term", "commit_index", "membership")
DEAD = 2.5
"""Virtual seconds after which no leader may count a machine that does not run among the living."""


class RaftWatch:
    """Looks over the shoulders of all members of one log."""

    def __init__(self, stage: Stage, *, sealer: Any = None, folder: str = "raft") -> None:
        self.stage = stage
        self.folder = folder
        self.sealer = sealer or PlainSealer()
        self.leaders: dict[int, str] = {}
        """Term to leader."""
        self.entries: dict[tuple[int, int], tuple[bytes, int]] = {}
        """(index, term) to (digest of the command, term of the entry before)."""
        self.applied: dict[int, tuple[bytes, bytes]] = {}
        """Index to (entry, digest of everything up to it) of regular entries."""
        self.committed: dict[int, int] = {}
        """Index to term of entries that some member applied."""
        self.top = 0
        """The largest committed index."""
        self._cores: dict[str, Any] = {}
        self._roles: dict[str, tuple[int, int]] = {}
        self._marks: dict[str, tuple[Any, ...]] = {}
        """What was seen at the last look, of which there are thousands a second and most see nothing new."""
        self._commits: dict[str, int] = {}
        self._confirmed: dict[str, int] = {}
        """The largest index that a member told a leader to have on its disk."""
        self._acks = stage.chance("acks")
        self._seats: dict[str, tuple[str, int]] = {}
        """Seat to the machine that took it, and which of its disks."""
        self._memberships: dict[str, Any] = {}
        """Machine to the last membership of its log."""

    # ------------------------------------------------------------ members come and go

    def attach(self, box: Box, log: RaftLog) -> None:
        """A member started."""
        engine: Any = log._engine
        core = engine.core
        self._sits(box, core)
        floor = min(self._confirmed.get(box.host, 0), self._commits.get(box.name, 0))
        if core.last_index < floor:
            self.stage.violate("keeps-its-word", f"{box.name} starts with a log up to {core.last_index}, but "
                               f"had confirmed {floor}, which is committed")  # fmt: skip
        self._cores[box.name] = core
        self._marks.pop(box.name, None)
        self._commits[box.name] = core.applied_index
        journal: Journal = core.log
        before: int | None = None
        for command, index, term in journal[:]:
            if before is not None:  # the first entry may stand for a snapshot: only its place counts
                self._entry(box.name, index, term, command, before)
            before = term
        add = journal.add

        def watched(command: bytes, idx: int, term: int) -> None:
            self._entry(box.name, idx, term, command, journal.term_at(idx - 1))
            add(command, idx, term)

        journal.add = watched  # type: ignore[method-assign]  # only this instance is watched

    def forget(self, box: Box) -> None:
        """The machine takes another seat: what it said under the old one binds it no more."""
        for kept in (self._cores, self._roles, self._commits, self._marks):
            kept.pop(box.name, None)
        self._confirmed.pop(box.host, None)

    def look(self) -> None:
        """Called after every round of callbacks."""
        for name in list(self._cores):
            box = self.stage.boxes[name]
            if not box.running:
                del self._cores[name]
                self._roles.pop(name, None)
                self._marks.pop(name, None)
                continue
            core = self._cores[name]
            marks = _MARKS(core)
            if self._marks.get(name) == marks:
                continue
            self._marks[name] = marks
            role = (core.raft_state, core.term)
            if self._roles.get(name) != role:
                self._roles[name] = role
                if role[0] == LEADER:
                    self._leads(name, core)
            if self._memberships.get(name) is not core.membership:
                self._reshaped(name, core)
            commit = core.commit_index
            if commit > self._commits[name]:
                self._committed(name, core, commit)

    def memberships(self) -> list[Any]:
        """The memberships of all logs that run, and the last ones of those that do not."""
        return [self._memberships[name] for name in sorted(self._memberships)]

    def membership_of(self, name: str) -> Any:
        """The membership of the log on that machine; None where none runs."""
        core = self._cores.get(name)
        return core.membership if core is not None else None

    # ------------------------------------------------------------ seats

    def _sits(self, box: Box, core: Any) -> None:
        """A seat is taken by one disk for ever, and never again with an empty log."""
        seat, disk = core.me.id, (box.name, box.platter.generation)
        known = self._seats.setdefault(seat, disk)
        if known != disk:
            self.stage.violate("one-seat", f"{box.name} takes seat {seat}, which is that of {known[0]}")
        elif core.last_index <= 1 < self._confirmed.get(box.host, 0):
            self.stage.violate("one-seat", f"{box.name} takes seat {seat} again with an empty log; it had "
                               f"confirmed entries up to {self._confirmed[box.host]}")  # fmt: skip

    def _reshaped(self, name: str, core: Any) -> None:
        """The log has another membership: a leader that takes a seat away leaves a living majority."""
        before, after = self._memberships.get(name), core.membership
        self._memberships[name] = after
        ids = [member.id for member in after.members]
        if len(set(ids)) != len(ids):
            self.stage.violate("one-seat", f"{name} counts a seat twice: {ids}")
        if before is None or core.raft_state != LEADER or not set(before.voters()) - set(after.voters()):
            return
        voters = after.voters()
        dead = [seat for seat in voters if self._dead(seat)]
        if len(dead) * 2 >= len(voters):
            self.stage.violate("keeps-quorum", f"{name} takes a seat away and leaves {len(voters)} managers, "
                               f"of which {len(dead)} are long dead")  # fmt: skip

    def _dead(self, seat: str) -> bool:
        holders = [box for box in self.stage.boxes.values() if box.me.node_id == seat]
        now = self.stage.loop.instant
        return not any(box.stopped_at is None or now - box.stopped_at < DEAD for box in holders)

    # ------------------------------------------------------------ the properties

    def _leads(self, name: str, core: Any) -> None:
        """At most one leader a term [Election Safety], with every committed entry [Leader Completeness]."""
        self.stage.trace.emit(name, f"leads term {core.term}")
        known = self.leaders.setdefault(core.term, name)
        if known != name:
            self.stage.violate("one-leader", f"{known} and {name} both lead term {core.term}")
        if core.last_index < self.top:
            self.stage.violate("leader-complete", f"{name} leads term {core.term} with a log up to "
                               f"{core.last_index}, but {self.top} is committed")  # fmt: skip
        elif core.log.term_at(self.top) not in (None, self.committed.get(self.top)):
            self.stage.violate("leader-complete", f"{name} leads term {core.term} with another entry "
                               f"{self.top} than the committed one")  # fmt: skip

    def _committed(self, name: str, core: Any, commit: int) -> None:
        """Committed entries never change [State Machine Safety]."""
        for index in range(self._commits[name] + 1, commit + 1):
            term = core.log.term_at(index)
            if term is None:
                continue
            known = self.committed.setdefault(index, term)
            if known != term:
                self.stage.violate("committed-stays", f"{name} commits entry {index} of term {term}, but "
                                   f"that of term {known} was committed")  # fmt: skip
        self._commits[name] = commit
        self.top = max(self.top, commit)

    def _entry(self, name: str, index: int, term: int, command: bytes, before: int | None) -> None:
        """Equal index and term mean equal entry and equal log before it [Log Matching]."""
        digest = hashlib.blake2b(command, digest_size=8).digest()
        known = self.entries.setdefault((index, term), (digest, -1 if before is None else before))
        if known[0] != digest or (before is not None and known[1] not in (before, -1)):
            self.stage.violate("log-matching", f"{name} holds another entry ({index}, {term}) than others")

    def saw_applied(self, name: str, index: int, entry: bytes, digest: bytes) -> None:
        """A member applied an entry: all apply the same, in the same order."""
        known = self.applied.setdefault(index, (entry, digest))
        if known[0] != entry:
            self.stage.violate("same-entries", f"{name} applied another entry at {index} than others")
        elif known[1] != digest:
            self.stage.violate("same-state", f"{name} has another state after {index} than others")

    def saw_loaded(self, name: str, index: int, digest: bytes) -> None:
        """A member loaded a snapshot: it must be the state that the entries make."""
        known = self.applied.get(index)
        if known is not None and known[1] != digest:
            self.stage.violate("snapshot-is-replay", f"{name} loaded at {index} what no replay makes")

    # ------------------------------------------------------------ promises

    def tap(self, host: str, target: str, body: Body) -> None:
        """A message leaves: what it promises must be durable already."""
        kind = body.get("type")
        if kind == "response_vote" and body.get("granted") and not body.get("pre"):
            self._check_vote(host, body["term"])
        elif kind == "next_node_idx" and body.get("success"):
            index = body["next_node_idx"] - 1
            if index > self._confirmed.get(host, 0):
                self._confirmed[host] = index
            if self._acks.random() < 0.02:
                self._check_ack(host, index)
        elif kind == "append_entries" and self._acks.random() < 0.01:
            self._check_term(host, body["term"])

    def _durable(self, host: str) -> tuple[Box, Any]:
        """What would be found on this machine's disk after the unluckiest power cut now."""
        box = next(box for box in self.stage.boxes.values() if box.host == host)
        store = Store(SimDisk(box.platter.unlucky()), self.folder, self.sealer, box.me.node_id)
        return box, store.open().image

    def _check_vote(self, host: str, term: int) -> None:
        box, image = self._durable(host)
        if image.term < term or (image.term == term and image.vote is None):
            self.stage.violate("vote-durable", f"{box.name} voted in term {term} before that was on its disk")

    def _check_term(self, host: str, term: int) -> None:
        box, image = self._durable(host)
        if image.term < term:
            self.stage.violate("term-durable", f"{box.name} leads in term {term} before that was on its disk")

    def _check_ack(self, host: str, index: int) -> None:
        box, image = self._durable(host)
        if image.entries[-1][1] < index:
            self.stage.violate("ack-durable", f"{box.name} confirmed entry {index}, but its disk ends at "
                               f"{image.entries[-1][1]}")  # fmt: skip
