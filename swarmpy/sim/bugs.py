"""Planted bugs: known mistakes, switched on only by tests, to see that the simulator catches them.

What belongs here: each bug as a replacement of one function, in force inside `planted(name)`. What does not:
the correct code, which knows nothing of this file.

A checker that never fails proves nothing: every bug here has to be found within a bounded number of seeds
(tests/sim/test_bugs.py), by whatever invariant sees it first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from swarmpy.adapters.raft import frames
from swarmpy.adapters.raft import store as raft_store
from swarmpy.adapters.raft.core import Core
from swarmpy.adapters.raft.engine import Engine
from swarmpy.adapters.raft.frames import CorruptError
from swarmpy.adapters.raft.journal import Journal
from swarmpy.adapters.raft.node import RaftLog
from swarmpy.adapters.raft.pinned import FAIL_REASON
from swarmpy.adapters.raft.store import Store
from swarmpy.sim.disk import SimDisk
from swarmpy.sim.registers import Registers

Patch = tuple[Any, str, Any]


@dataclass(frozen=True, slots=True)
class Bug:
    """A mistake. `world`: consensus or cluster, where it shows. `seeds`: within how many it must be found."""

    name: str
    what: str
    world: str
    patches: Callable[[], list[Patch]]
    seeds: int = 40
    faults: tuple[str, ...] | None = None
    """The fault kinds that show it soonest; None is any."""


BUGS: dict[str, Bug] = {}


def bug(name: str, what: str, *, world: str = "consensus", seeds: int = 40,
        faults: tuple[str, ...] | None = None) -> Callable[[Callable[[], list[Patch]]], None]:  # fmt: skip
    """Register the decorated maker of patches."""

    def register(patches: Callable[[], list[Patch]]) -> None:
        BUGS[name] = Bug(name, what, world, patches, seeds, faults)

    return register


@contextmanager
def planted(name: str) -> Generator[None, None, None]:
    """Have the bug inside the block ("" plants none). Raises KeyError for an unknown one."""
    if not name:
        yield
        return
    patches = BUGS[name].patches()
    before = [(owner, attribute, getattr(owner, attribute)) for owner, attribute, _ in patches]
    for owner, attribute, replacement in patches:
        setattr(owner, attribute, replacement)
    try:
        yield
    finally:
        for owner, attribute, original in before:
            setattr(owner, attribute, original)


# ---------------------------------------------------------------- disks and promises

POWER = ("power-cut", "blackout", "crash-point")


@bug("no-fsync", "the journal is written but never synced", faults=POWER)
def _no_fsync() -> list[Patch]:
    sync = SimDisk.sync

    def lazy(self: SimDisk, path: str) -> None:
        if not path.endswith(".log"):
            sync(self, path)

    return [(SimDisk, "sync", lazy)]


@bug("no-dir-sync", "new files are renamed into place without syncing their folder", faults=POWER)
def _no_dir_sync() -> list[Patch]:
    return [(SimDisk, "sync_dir", lambda self, folder: None)]


@bug("ack-before-fsync", "replies go out while the disk still writes", faults=POWER)
def _ack_before_fsync() -> list[Patch]:
    async def hasty(self: Any, batch: Any, *, leads: bool) -> None:
        self._spawn(self._disk.work(partial(self._store.write, batch)))
        await asyncio.sleep(0)

    return [(Engine, "_barrier", hasty)]


@bug("vote-not-saved", "a vote is not written to the journal")
def _vote_not_saved() -> list[Patch]:
    def forgetful(self: Any, term: int, voted_for: str | None) -> None:
        self._term, self._vote = term, voted_for

    return [(Journal, "setCurrentTerm", forgetful)]


@bug("cut-not-saved", "entries cut from the log's tail come back after a restart")
def _cut_not_saved() -> list[Patch]:
    def forgetful(self: Any, position: int) -> None:
        del self._entries[position:]

    return [(Journal, "deleteEntriesFrom", forgetful)]


@bug("snapshot-not-saved", "the log is trimmed although the snapshot was not stored")
def _snapshot_not_saved() -> list[Patch]:
    return [(Store, "save_snapshot", lambda self, index, blob: None)]


@bug("corruption-ignored", "a damaged journal is read up to the damage", seeds=80, faults=("bit-rot", "kill"))
def _corruption_ignored() -> list[Patch]:
    read = frames.read_frames

    def lenient(*args: Any, **more: Any) -> Generator[tuple[int, bytes, int], None, None]:
        try:
            yield from read(*args, **more)
        except CorruptError:
            return

    return [(raft_store, "read_frames", lenient)]


# ---------------------------------------------------------------- Raft

NET = ("partition", "isolate-leader", "pause-leader", "kill-leader", "cut-pair", "reset-all")


@bug("stock-truncation", "a follower cuts its log at prevLogIdx even where it matches", seeds=100,
     faults=(*NET, "slow-net"))  # fmt: skip
def _stock_truncation() -> list[Patch]:
    def keep(self: Any, prev: int, entries: list[list[Any]]) -> None:
        if prev + 1 <= self.last_index:
            self._SyncObj__deleteEntriesFrom(prev + 1)
        for offset, (command, term) in enumerate(entries):
            self.log.add(command, prev + 1 + offset, term)
        self.read_memberships(prev + 1)

    return [(Core, "_keep", keep)]


@bug("stale-read", "a leader answers reads without asking a majority",
     faults=("pause-leader", "isolate-leader", "slow-net"))  # fmt: skip
def _stale_read() -> list[Patch]:
    def read(self: Any, done: Callable[[int | None], None]) -> None:
        self._tell(partial(done, self.commit_index if self.raft_state == 2 else None))

    return [(Core, "read", read)]


@bug("install-unsaved", "a received snapshot is taken over before it is on the disk")
def _install_unsaved() -> list[Patch]:
    async def install(self: Any, arrived: Any) -> None:
        snapshot = arrived.opened()
        self.post(partial(self.core.install, arrived, snapshot, self.core.machine.load(snapshot.image)))

    return [(Engine, "_install", install)]


@bug("votes-for-anybody", "votes are given without looking at the candidate's log", faults=NET)
def _votes_for_anybody() -> list[Patch]:
    ask = Core.on_request_vote

    def vote(self: Any, node: Any, message: dict[str, Any]) -> None:
        ask(self, node, {**message, "last_log_term": 1 << 40})

    return [_handler("request_vote", vote)]


@bug("votes-twice", "a member forgets in memory whom it voted for", faults=NET, seeds=100)
def _votes_twice() -> list[Patch]:
    ask = Core.on_request_vote

    def vote(self: Any, node: Any, message: dict[str, Any]) -> None:
        self.voted_for = None
        ask(self, node, message)

    return [_handler("request_vote", vote)]


@bug("minority-elects", "a candidate leads with its own vote alone", faults=NET)
def _minority_elects() -> list[Patch]:
    return [(Core, "has_majority", lambda self, ids: True)]


@bug("commits-unproved", "a follower commits its own tail because the leader's commit index is there",
     faults=(*NET, "slow-net"))  # fmt: skip
def _commits_unproved() -> list[Patch]:
    append = Core.on_append_entries

    def careless(self: Any, node: Any, message: dict[str, Any]) -> None:
        append(self, node, message)
        if message["term"] >= self.term:
            self.commit_index = max(self.commit_index, min(message["commit_index"], self.last_index))

    return [_handler("append_entries", careless)]


@bug("ambiguous-is-refused", "an entry whose fate is unknown is reported as not appended", faults=NET)
def _ambiguous_is_refused() -> list[Patch]:
    settle = RaftLog._settle

    def wrong(self: RaftLog, future: Any) -> Callable[[int, Any, int], None]:
        done = settle(self, future)

        def report(index: int, result: Any, reason: int) -> None:
            done(index, result, reason if reason == FAIL_REASON.SUCCESS else FAIL_REASON.NOT_LEADER)

        return report

    return [(RaftLog, "_settle", wrong)]


@bug("acks-early", "the leader confirms an entry when it is appended, not when it is committed", faults=NET)
def _acks_early() -> list[Patch]:
    propose = Engine.propose

    def hasty(self: Any, proposal: Any) -> None:
        propose(self, proposal)
        index = self.core.last_index + len(self.core.proposals)
        asyncio.get_running_loop().call_soon(proposal.done, index, [index, True], FAIL_REASON.SUCCESS)

    return [(Engine, "propose", hasty)]


@bug("applies-twice", "a retried request takes effect again")
def _applies_twice() -> list[Patch]:
    apply = Registers.apply

    def again(self: Registers, index: int, data: bytes) -> list[Any]:
        self.answers.clear()
        return apply(self, index, data)

    return [(Registers, "apply", again)]


def _handler(kind: str, replacement: Any) -> Patch:
    """The core's dispatch table is a dictionary: patch a view of it."""
    from swarmpy.adapters.raft import core

    return core, "handlers", {**core.handlers, kind: replacement}
