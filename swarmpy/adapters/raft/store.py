"""The log on disk: generations of the journal, and snapshots.

What belongs here: files, their names, their order of becoming durable, recovery. What does not: when to
write (node.py) and what (journal.py). Everything here blocks: it runs inside `Disk.work`.

A journal file is one generation, `journal/<number>.log`: a base (a whole log) and then appended records.
It is only ever appended to. Starting, trimming and installing a snapshot write a new generation beside it
(`Disk.replace`: aside, synced, renamed, folder synced) and then remove the old one. Each start does it too,
so that nothing is ever appended behind a torn tail, or to pages whose sync failed before the restart.

Snapshots are `snapshot/<index>.img`; a generation names the snapshot it relies on, which is durable first.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgpack

from swarmpy.adapters.raft.blob import Snapshot, pieces
from swarmpy.adapters.raft.config import Membership
from swarmpy.adapters.raft.frames import CorruptError, FrameWriter, read_frames
from swarmpy.adapters.raft.journal import BASE, CUT, ENTRY, TERM, Batch, Entry, LogImage, Record
from swarmpy.pki.seal import Sealing
from swarmpy.ports import Disk, Image, Member

logger = logging.getLogger(__name__)

_FORMAT = 1
_BASE_FRAME = 1024 * 1024
"""The base of a generation is written in frames of about this size."""
_JOURNAL = re.compile(r"([0-9a-f]{16})\.log")
_SNAPSHOT = re.compile(r"([0-9a-f]{16})\.img")
_LEFTOVER = ".tmp"
"""How the name ends of a file that a `Disk.replace` left behind when its process was killed."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """What the disk holds: `fresh` when it held nothing."""

    image: LogImage
    snapshot: Snapshot | None
    fresh: bool

    def alone(self, me: Member) -> LogImage:
        """The same log with one more entry: `me` is the only member, the ids of all others are spent."""
        base = self.snapshot.membership if self.snapshot else Membership()
        membership = base.after(command for command, _, _ in self.image.entries).alone(me)
        term = self.image.term + 1
        entry = (membership.to_entry(), self.image.entries[-1][1] + 1, term)
        return LogImage(term, None, (*self.image.entries, entry), self.image.snapshot_index)


def first_image(founders: Sequence[Member]) -> LogImage:
    """What a new log begins with; a member that joins has no founders and waits to be told."""
    if not founders:
        return LogImage(0, None, (BASE,))
    entry = (Membership.of(founders).to_entry(), 2, 1)
    return LogImage(1, None, (BASE, entry))


class Store:
    """One member's files in `folder` of `disk`. Its methods block and raise OSError or CorruptError.

    `bulk` is a second handle on the same files, for one other thread: `save_snapshot` and `read_blob` use it
    and nothing of the journal's, so they may run while `write` does.
    """

    def __init__(
        self, disk: Disk, folder: str, sealer: Sealing, node_id: str, bulk: Disk | None = None
    ) -> None:
        self._disk = disk
        self._bulk = bulk or disk
        self._journals = f"{folder}/journal"
        self._snapshots = f"{folder}/snapshot"
        self._sealer = sealer
        self._node_id = node_id
        self._generation = 0
        self._writer: FrameWriter | None = None

    # -------------------------------------------------- recovery

    def open(self) -> Recovered:
        """Read everything, refuse damage, and start a new generation with what was found."""
        for folder in (self._journals, self._snapshots):
            self._disk.mkdir(folder)
            self._tidy(folder)
        journals = self._numbered(self._disk, self._journals, _JOURNAL)
        snapshot = self.load_snapshot()
        if not journals:
            if snapshot is not None:
                raise CorruptError(
                    f"the journal in {self._journals} is missing although there is a snapshot: this "
                    "manager's votes are forgotten; remove it and join again with an empty directory"
                )
            return Recovered(LogImage(0, None, (BASE,)), None, fresh=True)
        self._generation = journals[-1]
        image = self._replay(journals[-1])
        if image.snapshot_index and (snapshot is None or snapshot.index < image.snapshot_index):
            raise CorruptError(
                f"the snapshot {image.snapshot_index} that the journal relies on is missing from "
                f"{self._snapshots}; remove this manager and join it again with an empty directory"
            )
        image = _join(image, snapshot)
        self._rewrite(image)
        return Recovered(image, snapshot, fresh=False)

    def _tidy(self, folder: str) -> None:
        """Remove what a killed process left half written, and make the names that are there durable: it
        may have died between the rename of a snapshot and the sync of its folder."""
        for name in self._disk.list(folder):
            if name.endswith(_LEFTOVER):
                self._disk.unlink(f"{folder}/{name}")
        self._disk.sync_dir(folder)

    def load_snapshot(self) -> Snapshot | None:
        """The newest snapshot. Raises CorruptError."""
        found = self._read_blob(self._disk)
        if found is None:
            return None
        index, blob = found
        name = self._snapshot_name(index)
        try:
            snapshot = Snapshot.from_blob(blob)
        except ValueError as error:
            raise CorruptError(f"the snapshot {name} is damaged: {error}") from error
        if snapshot.index != index:
            raise CorruptError(f"the snapshot {name} is really that of index {snapshot.index}")
        return snapshot

    def read_blob(self) -> tuple[int, bytearray] | None:
        """Index and content of the newest snapshot. Raises CorruptError."""
        while True:
            try:
                return self._read_blob(self._bulk)
            except FileNotFoundError:
                # An installed snapshot replaced it meanwhile; that one is durable, so this ends.
                continue

    def _read_blob(self, disk: Disk) -> tuple[int, bytearray] | None:
        found = self._numbered(disk, self._snapshots, _SNAPSHOT)
        if not found:
            return None
        index = found[-1]
        name = self._snapshot_name(index)
        data = disk.read(name)
        blob = bytearray()
        for _, payload, _ in read_frames(data, self._sealer, self._snapshot_context(index), what=name):
            blob += payload
        return index, blob

    def _replay(self, generation: int) -> LogImage:
        name = self._journal_name(generation)
        data = self._disk.read(name)
        context = self._journal_context(generation)
        whole = 0

        def frames() -> Iterator[tuple[int, bytes]]:
            nonlocal whole
            for number, payload, end in read_frames(data, self._sealer, context, what=name):
                yield number, payload
                whole = end

        image = replay(name, self._node_id, frames())
        if whole < len(data):
            logger.warning(
                "the journal %s ends in a write that was not finished: its last %d bytes are left out; "
                "nothing in them was acknowledged",
                name,
                len(data) - whole,
            )
        return image

    @staticmethod
    def _numbered(disk: Disk, folder: str, form: re.Pattern[str]) -> list[int]:
        names = map(form.fullmatch, disk.list(folder))
        return sorted(int(name[1], 16) for name in names if name is not None)

    # -------------------------------------------------- writing

    def write(self, batch: Batch) -> None:
        """Make a turn's batch durable."""
        if batch.image is not None:
            self._rewrite(batch.image)
            return
        if self._writer is None:
            raise OSError("the journal is not open")
        name = self._journal_name(self._generation)
        self._disk.append(name, self._writer.frame(msgpack.packb(batch.records)))
        self._disk.sync(name)

    def save_snapshot(self, index: int, blob: Image) -> None:
        """Make a snapshot durable, our own or a received one; the ones before it go when the next generation
        is written."""
        writer = FrameWriter(self._sealer, self._snapshot_context(index))
        data = bytearray()
        for piece in pieces(blob):
            data += writer.frame(piece)
        self._bulk.replace(self._snapshot_name(index), data)

    def create(self, image: LogImage) -> None:
        """Start the journal of a new member."""
        self._rewrite(image)

    def _rewrite(self, image: LogImage) -> None:
        """A new generation that begins with `image`; what it makes useless is removed."""
        generation = self._generation + 1
        writer = FrameWriter(self._sealer, self._journal_context(generation))
        groups = _grouped(image.entries)
        base = [_FORMAT, self._node_id, len(groups), image.term, image.vote, image.snapshot_index]
        groups[0].insert(0, base)
        data = bytearray()
        for group in groups:
            data += writer.frame(msgpack.packb(group))
        self._disk.replace(self._journal_name(generation), data)
        self._generation, self._writer = generation, writer
        for old in self._numbered(self._disk, self._journals, _JOURNAL):
            if old < generation:
                self._disk.unlink(self._journal_name(old))
        for index in self._numbered(self._disk, self._snapshots, _SNAPSHOT):
            if index < image.snapshot_index:
                self._disk.unlink(self._snapshot_name(index))

    # -------------------------------------------------- names

    def _journal_name(self, generation: int) -> str:
        return f"{self._journals}/{generation:016x}.log"

    def _snapshot_name(self, index: int) -> str:
        return f"{self._snapshots}/{index:016x}.img"

    def _journal_context(self, generation: int) -> bytes:
        return b"\x00".join([b"swarmpy journal", self._node_id.encode(), b"%016x" % generation])

    def _snapshot_context(self, index: int) -> bytes:
        return b"\x00".join([b"swarmpy snapshot", self._node_id.encode(), b"%016x" % index])


def replay(name: str, node_id: str, frames: Iterable[tuple[int, bytes]]) -> LogImage:
    """The log that the (number, payload) of a journal's frames tell. Raises CorruptError."""
    found: _Replay | None = None
    for number, payload in frames:
        records = _records(name, payload)
        if found is None:
            found = _Replay(name, node_id, records.pop(0) if records else None)
        for record in records:
            found.feed(record)
        found.frames = number + 1
    if found is None or found.frames < found.base_frames:
        raise CorruptError(
            f"the journal {name} is cut short inside its base; remove this manager and join it "
            "again with an empty directory"
        )
    return found.image()


class _Replay:
    """Rebuilds a log from the records of one generation, refusing what cannot follow."""

    def __init__(self, name: str, node_id: str, base: Any) -> None:
        try:
            form, owner, self.base_frames, self._term, self._vote, self._snapshot_index = base
        except (TypeError, ValueError) as error:
            raise CorruptError(f"the journal {name} does not begin with a base") from error
        numbers = (self.base_frames, self._term, self._snapshot_index)
        if not all(map(_natural, numbers)) or not _name(self._vote):
            raise CorruptError(f"the journal {name} does not begin with a base")
        if form != _FORMAT:
            raise CorruptError(f"the journal {name} has the unknown format {form}")
        if owner != node_id:
            raise CorruptError(f"the journal {name} belongs to manager {owner}, not to {node_id}")
        self._name = name
        self._entries: list[Entry] = []
        self.frames = 0

    def feed(self, record: Record) -> None:
        """Apply one record. Raises CorruptError when it cannot follow the ones before."""
        if not _is_record(record):
            raise CorruptError(f"the journal {self._name} has a record of unknown kind")
        kind = record[0]
        if kind == ENTRY:
            _, index, term, command = record
            last = self._entries[-1] if self._entries else None
            if last is not None and (index != last[1] + 1 or term < last[2]):
                raise CorruptError(f"the journal {self._name} has a gap before entry {index}")
            self._entries.append((command, index, term))
        elif kind == CUT:
            position = record[1] - self._entries[0][1] if self._entries else 0
            if not 0 < position <= len(self._entries):
                raise CorruptError(f"the journal {self._name} cuts at {record[1]}, which it lacks")
            del self._entries[position:]
        elif kind == TERM:
            if record[1] < self._term:
                raise CorruptError(f"the journal {self._name} goes back to term {record[1]}")
            self._term, self._vote = record[1], record[2]

    def image(self) -> LogImage:
        """The log."""
        if not self._entries:
            raise CorruptError(f"the journal {self._name} has no entries")
        return LogImage(self._term, self._vote, tuple(self._entries), self._snapshot_index)


def _records(name: str, payload: bytes) -> list[Any]:
    try:
        records = msgpack.unpackb(payload, max_bin_len=len(payload))
    except Exception as error:  # msgpack raises half a dozen unrelated classes
        raise CorruptError(f"the journal {name} holds what are no records") from error
    if type(records) is not list:
        raise CorruptError(f"the journal {name} holds what are no records")
    return records


def _natural(value: Any) -> bool:
    return type(value) is int and value >= 0


def _name(value: Any) -> bool:
    return value is None or type(value) is str


_SHAPES: Mapping[int, tuple[Callable[[Any], bool], ...]] = {
    ENTRY: (_natural, _natural, lambda command: type(command) is bytes),
    CUT: (_natural,),
    TERM: (_natural, _name),
}


def _is_record(record: Any) -> bool:
    if type(record) is not list or not record or type(record[0]) is not int:
        return False
    shape = _SHAPES.get(record[0], ())
    return len(record) == len(shape) + 1 > 1 and all(
        good(part) for good, part in zip(shape, record[1:], strict=True)
    )


def _join(image: LogImage, snapshot: Snapshot | None) -> LogImage:
    """The log after a snapshot that is newer than the journal knows (a crash came between the two)."""
    if snapshot is None or snapshot.index == image.snapshot_index:
        return image
    first = image.entries[0][1]
    position = snapshot.index - first
    agrees = position < len(image.entries) and image.entries[position][2] == snapshot.term
    base: Entry = (BASE[0], snapshot.index, snapshot.term)
    entries = image.entries if agrees else (base,)
    if snapshot.term > image.term:
        return LogImage(snapshot.term, None, entries, snapshot.index)
    return LogImage(image.term, image.vote, entries, snapshot.index)


def _grouped(entries: tuple[Entry, ...]) -> list[list[Record]]:
    """Entries as records, in groups of about one frame."""
    groups: list[list[Record]] = [[]]
    size = 0
    for command, index, term in entries:
        if size > _BASE_FRAME:
            groups.append([])
            size = 0
        groups[-1].append([ENTRY, index, term, command])
        size += len(command) + 32
    return groups
