"""One member's files on a simulated disk that dies at a chosen operation, and every way it may come back.

What belongs here: the disk that dies, the fates of what was not durable, the member that writes a script.
What does not: what has to hold afterwards (test_crash_points.py).
"""

from __future__ import annotations

import copy
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgpack

from swarmpy.adapters.raft.blob import Snapshot
from swarmpy.adapters.raft.config import REGULAR, Membership
from swarmpy.adapters.raft.journal import BASE, Entry, Journal, LogImage
from swarmpy.adapters.raft.store import Recovered, Store
from swarmpy.pki.seal import PlainSealer
from swarmpy.ports import Member
from swarmpy.sim.disk import Platter, SimDisk

CROWD = Membership.of([Member("m1", "m1:2377")])


class Died(BaseException):
    """The process ends here; nothing catches it."""


class DyingDisk(SimDisk):
    """Dies before or after its operation number `at` (counted from 1, each having both sides)."""

    def __init__(self, platter: Platter, at: int | None = None) -> None:
        super().__init__(platter, hook=self._count)
        self.at = at
        self.sides = 0
        self.last = ""

    def _count(self, what: str, path: str) -> None:
        self.sides += 1
        self.last = f"{what} {path}"
        if self.at is not None and self.sides >= self.at:
            raise Died(self.last)


def killed(platter: Platter) -> Platter:
    """kill -9: what was written is there, durable or not."""
    return copy.deepcopy(platter)


def power_cuts(platter: Platter, seeds: int = 4) -> Iterator[Platter]:
    """Power cuts: the unlucky one, every subset of the names that were not durable, and torn contents."""
    yield platter.unlucky()
    count = len(platter.pending)
    subsets = [c for n in range(count + 1) for c in itertools.combinations(range(count), n)]
    if len(subsets) > 16:
        subsets = random.Random(count).sample(subsets, 16)
    for subset in subsets:
        other = copy.deepcopy(platter)
        other.pending = [other.pending[i] for i in subset]
        for op in list(other.pending):
            other.settle(op.folder)
        other.live = dict(other.durable)
        other.power_cut()
        yield other
    for seed in range(seeds):
        other = copy.deepcopy(platter)
        other.chance = random.Random(seed)
        other.power_cut()
        yield other


@dataclass(frozen=True, slots=True)
class View:
    """What a member's files mean: its promises (term and vote) and the whole log from the beginning."""

    term: int
    vote: str | None
    log: tuple[tuple[bytes, int], ...]
    """(command, term) of each entry from the first; the machine's image stands for what was trimmed."""


FIRST = View(0, None, ((BASE[0], 0),))
"""A new member's."""


def image_of(log: tuple[tuple[bytes, int], ...]) -> bytes:
    packed: bytes = msgpack.packb(log)
    return packed


def view_of(image: LogImage, snapshot: Snapshot | None) -> View:
    first = image.entries[0][1]
    log: tuple[tuple[bytes, int], ...] = ()
    if snapshot is not None:
        log = tuple((command, term) for command, term in msgpack.unpackb(snapshot.image))
        assert len(log) == snapshot.index
        assert first <= snapshot.index, "the log begins at the snapshot, or before it"
        assert snapshot.index <= image.entries[-1][1], "the log reaches the snapshot"
        kept = image.entries[snapshot.index - first]
        assert kept[2] == snapshot.term, "the log and the snapshot agree where they meet"
        entries: tuple[Entry, ...] = image.entries[snapshot.index - first + 1 :]
    else:
        assert first == 1
        entries = image.entries
    return View(image.term, image.vote, (*log, *((command, term) for command, _, term in entries)))


class Scribe:
    """A member as far as the disk sees it. `acked` holds what it may have told others; `trying` also what
    the write in progress would make of it."""

    def __init__(self, disk: SimDisk) -> None:
        self.disk = disk
        self.acked = View(0, None, ())
        self.trying = FIRST
        self.store: Store
        self.journal: Journal
        self.snapshot: Snapshot | None

    def open(self) -> Recovered:
        """Start the process on what the disk holds."""
        self.store = Store(self.disk, "raft", PlainSealer(), "m1")
        found = self.store.open()
        image = found.image
        if found.fresh:
            self.store.create(image)
            self.acked = self.trying
        self.journal, self.snapshot = Journal(image), found.snapshot
        return found

    def flush(self) -> None:
        """The barrier of one turn; then the turn's messages go out."""
        batch = self.journal.take()
        if batch is None:
            return
        self.trying = self.view()
        self.store.write(batch)
        self.acked = self.trying

    def view(self) -> View:
        journal = self.journal
        image = LogImage(
            journal.getCurrentTerm(), journal.getVotedForNodeId(), tuple(journal[:]), journal.snapshot_index
        )
        return view_of(image, self.snapshot)

    # -------------------------------------------------- what a turn does

    def append(self, *words: bytes) -> None:
        for word in words:
            index = self.journal[-1][1] + 1
            self.journal.add(REGULAR + word, index, self.journal.getCurrentTerm())
        self.flush()

    def elect(self, term: int, vote: str | None) -> None:
        self.journal.setCurrentTerm(term, vote)
        self.flush()

    def conflict(self, index: int, *words: bytes) -> None:
        """A new leader's entries replace ours from `index` on, in one turn with its term."""
        self.journal.setCurrentTerm(self.journal.getCurrentTerm() + 1, None)
        self.journal.deleteEntriesFrom(index - self.journal[0][1])
        self.append(*words)

    def save(self, index: int, keep: int) -> None:
        """A snapshot in the background, then the turn that trims the log."""
        log = self.view().log[:index]
        made = Snapshot(index, log[-1][1], CROWD, image_of(log))
        self.store.save_snapshot(index, made.to_blob())
        self.snapshot = made
        self.journal.snapshot_stored(index, keep, 1 << 20)
        self.flush()

    def install(self, index: int, word: bytes) -> None:
        """A leader's snapshot of a log that goes on where ours does not: durable beside the turns, then taken over
        in one."""
        self.elect(self.journal.getCurrentTerm() + 1, None)
        term = self.journal.getCurrentTerm()
        log = tuple((REGULAR + word + b"%d" % number, term) for number in range(index))
        made = Snapshot(index, term, CROWD, image_of(log))
        self.trying = View(term, None, log)
        self.store.save_snapshot(index, made.to_blob())
        self.snapshot = made
        self.journal.reset_to_snapshot(index, term)
        self.flush()


Step = Callable[[Scribe], object]

SCRIPT: tuple[Step, ...] = (
    lambda s: s.open(),
    lambda s: s.elect(1, "m1"),
    lambda s: s.append(b"a1"),
    lambda s: s.append(b"a2", b"a3" * 700),
    lambda s: s.elect(2, "m2"),
    lambda s: s.append(b"b1", b"b2"),
    lambda s: s.conflict(5, b"c1"),
    lambda s: s.save(4, keep=2),
    lambda s: s.append(b"c2"),
    lambda s: s.open(),
    lambda s: s.append(b"c3"),
    lambda s: s.save(7, keep=0),
    lambda s: s.conflict(8, b"d1", b"d2"),
    lambda s: s.install(12, b"i"),
    lambda s: s.append(b"e1"),
    lambda s: s.open(),
    lambda s: s.elect(9, "m3"),
    lambda s: s.save(13, keep=5),
    lambda s: s.append(b"e2"),
)
