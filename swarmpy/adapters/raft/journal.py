"""The log in memory, and what of it still has to reach the disk.

What belongs here: pysyncobj's journal interface over a list, recording every change as a record, so that a
turn's changes become one disk write. What does not: the format on disk and the disk (store.py).

pysyncobj addresses entries by position, not by index, and wants tuples (bytes, index, term).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, overload

Entry = tuple[bytes, int, int]
"""(command with its kind byte, index, term)."""

BASE: Entry = (b"\x01", 1, 0)
"""The first entry of every log: a no-op that all members agree on without talking."""

ENTRY, CUT, TERM = 1, 2, 3
"""Kinds of records: [ENTRY, index, term, command], [CUT, first removed index], [TERM, term, vote]."""

Record = list[Any]


@dataclass(frozen=True, slots=True)
class LogImage:
    """A whole log, as a new generation of the journal starts with it."""

    term: int
    vote: str | None
    entries: tuple[Entry, ...]
    snapshot_index: int = 0
    """The snapshot the entries rely on; 0 when there is none."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one turn has to make durable: records to append, or a whole new generation."""

    records: list[Record] = field(default_factory=list)
    image: LogImage | None = None


class Journal:
    """pysyncobj's journal over a list. Durable only after the batches taken from it are written."""

    def __init__(self, image: LogImage) -> None:
        self._entries: list[Entry] = list(image.entries) or [BASE]
        self._term = image.term
        self._vote = image.vote
        self.snapshot_index = image.snapshot_index
        self.size = sum(len(entry[0]) for entry in self._entries)
        """Bytes of commands held."""
        self._records: list[Record] = []
        self._rewrite = False

    # -------------------------------------------------- what pysyncobj calls

    def add(self, command: bytes, idx: int, term: int) -> None:
        """Append an entry."""
        assert not self._entries or idx == self._entries[-1][1] + 1, "entries follow each other"
        self._entries.append((command, idx, term))
        self.size += len(command)
        self._records.append([ENTRY, idx, term, command])

    def deleteEntriesFrom(self, position: int) -> None:  # noqa: N802 - pysyncobj's name
        """Cut the tail, from this position on."""
        if position >= len(self._entries):
            return
        assert position > 0, "the first entry is never removed"
        self._records.append([CUT, self._entries[position][1]])
        self.size -= sum(len(entry[0]) for entry in self._entries[position:])
        del self._entries[position:]

    def deleteEntriesTo(self, position: int) -> None:  # noqa: N802 - pysyncobj's name
        """Trim the head: a new generation will be written that starts at this position."""
        if position <= 0:
            return
        self.size -= sum(len(entry[0]) for entry in self._entries[:position])
        del self._entries[:position]
        self._rewrite = True

    def setCurrentTerm(self, term: int, voted_for: str | None) -> None:  # noqa: N802  the overridden name is pysyncobj's
        """Remember term and vote."""
        if (term, voted_for) == (self._term, self._vote):
            return
        assert term >= self._term, "a term never goes back"
        self._term, self._vote = term, voted_for
        self._records.append([TERM, term, voted_for])

    def getCurrentTerm(self) -> int:  # noqa: N802 - pysyncobj's name
        """The last term."""
        return self._term

    def getVotedForNodeId(self) -> str | None:  # noqa: N802 - pysyncobj's name
        """Who got our vote in the last term."""
        return self._vote

    def getRaftCommitIndex(self) -> int:  # noqa: N802 - pysyncobj's name
        """Always the least: the commit index is learned anew, never trusted from disk."""
        return 1

    def setRaftCommitIndex(self, index: int) -> None:  # noqa: N802 - pysyncobj's name
        """Not kept (see getRaftCommitIndex)."""

    def onOneSecondTimer(self) -> None:  # noqa: N802 - pysyncobj's name
        """Nothing to do each second."""

    def _destroy(self) -> None:
        """Nothing is open."""

    @overload
    def __getitem__(self, item: int) -> Entry: ...
    @overload
    def __getitem__(self, item: slice) -> list[Entry]: ...
    def __getitem__(self, item: int | slice) -> Entry | list[Entry]:
        return self._entries[item]

    def __len__(self) -> int:
        return len(self._entries)

    # -------------------------------------------------- what our core and the turn call

    def term_at(self, index: int) -> int | None:
        """Term of the entry at `index`; None when it is not held."""
        position = index - self._entries[0][1]
        if 0 <= position < len(self._entries):
            return self._entries[position][2]
        return None

    def reset_to_snapshot(self, index: int, term: int) -> None:
        """An installed snapshot, which is durable: keep what follows it where the log agrees, else start from
        it."""
        position = index - self._entries[0][1]
        if self.term_at(index) == term:
            del self._entries[:position]
        else:
            self._entries = [(BASE[0], index, term)]
        self.size = sum(len(entry[0]) for entry in self._entries)
        self.snapshot_index = index
        self._rewrite = True

    def snapshot_stored(self, index: int, keep: int, keep_bytes: int) -> None:
        """A snapshot up to `index` is durable: trim, keeping a few entries before it."""
        self.snapshot_index = index
        position = index - self._entries[0][1]
        while position > 0 and keep > 0 and keep_bytes > 0:
            position -= 1
            keep -= 1
            keep_bytes -= len(self._entries[position][0])
        self.deleteEntriesTo(position)
        self._rewrite = True

    def take(self) -> Batch | None:
        """What has to become durable now, and nothing is pending any more."""
        if self._rewrite:
            image = LogImage(self._term, self._vote, tuple(self._entries), self.snapshot_index)
            self._records, self._rewrite = [], False
            return Batch(image=image)
        if not self._records:
            return None
        records, self._records = self._records, []
        return Batch(records=records)
