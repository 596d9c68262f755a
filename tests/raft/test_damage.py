"""Damaged files of the log: a torn end is left out and said so, anything else is refused with one sentence.

The journals are written by the real store under a real sealer; the damage is done byte by byte.
"""

from __future__ import annotations

import copy
import logging
import re
import struct

import pytest

from swarmpy.adapters.raft.blob import Snapshot
from swarmpy.adapters.raft.config import REGULAR
from swarmpy.adapters.raft.frames import HEADER_SIZE, CorruptError
from swarmpy.adapters.raft.journal import BASE, Journal, LogImage
from swarmpy.adapters.raft.store import Recovered, Store
from swarmpy.pki.seal import Sealer
from swarmpy.sim.disk import Platter, SimDisk
from tests.raft.crashing import CROWD

KEY = bytes(range(32))
SENTENCE = re.compile(r"[^\n]{40,400}")
"""One line, neither bare nor a dump."""


def words(found: Recovered) -> list[bytes]:
    return [command[1:] for command, index, _ in found.image.entries if index > 1]


class Written:
    """A journal of `count` entries, one write each, and where each write begins in its file."""

    def __init__(self, count: int = 4, *, size: int = 40, node: str = "m1") -> None:
        self.platter = Platter("damage")
        store = self.store(node=node)
        store.open()
        store.create(LogImage(1, node, (BASE,)))
        journal = Journal(LogImage(1, node, (BASE,)))
        self.starts: list[int] = []
        for number in range(count):
            self.starts.append(len(self.data))
            journal.add(REGULAR + b"%d " % number * size, number + 2, 1)
            batch = journal.take()
            assert batch is not None
            store.write(batch)
        self.words = [b"%d " % number * size for number in range(count)]

    def store(self, key: bytes = KEY, node: str = "m1") -> Store:
        return Store(SimDisk(self.platter), "raft", Sealer(key), node)

    @property
    def path(self) -> str:
        (name,) = SimDisk(self.platter).list("raft/journal")
        return f"raft/journal/{name}"

    @property
    def data(self) -> bytes:
        return SimDisk(self.platter).read(self.path)

    def with_data(self, data: bytes) -> Written:
        other = copy.copy(self)
        other.platter = copy.deepcopy(self.platter)
        SimDisk(other.platter).write(self.path, data)
        return other

    def flipped(self, offset: int, mask: int = 0x10) -> Written:
        data = bytearray(self.data)
        data[offset] ^= mask
        return self.with_data(bytes(data))


def refused(store: Store) -> str:
    """Opening is refused with a sentence, and the second time it is the same."""
    with pytest.raises(CorruptError) as first:
        store.open()
    with pytest.raises(CorruptError) as second:
        store.open()
    assert str(first.value) == str(second.value)
    assert SENTENCE.fullmatch(str(first.value))
    return str(first.value)


# ---------------------------------------------------------------- torn ends


def test_cut_at_every_byte_of_the_last_two_writes(caplog: pytest.LogCaptureFixture) -> None:
    written = Written(4, size=200)
    data = written.data
    for cut in range(written.starts[2], len(data)):
        caplog.clear()
        torn = written.with_data(data[:cut])
        whole = sum(1 for start in (*written.starts[1:], len(data)) if start <= cut)
        assert words(torn.store().open()) == written.words[:whole]
        left_over = cut - [*written.starts, len(data)][whole]
        told = [record for record in caplog.records if "not finished" in record.getMessage()]
        assert len(told) == (1 if left_over else 0)
        if told:
            assert told[0].levelno == logging.WARNING
            assert f"{left_over} bytes" in told[0].getMessage()


def test_an_end_whose_sectors_were_not_written_is_torn(caplog: pytest.LogCaptureFixture) -> None:
    """The file has its new size, but some of the last write's sectors read as zeros: every combination."""
    written = Written(3, size=900)
    data, start = written.data, written.starts[-1]
    sectors = (len(data) - start) // 512
    assert sectors >= 4
    for mask in range(1, 1 << sectors):
        torn = bytearray(data)
        for sector in range(sectors):
            if mask >> sector & 1:
                torn[start + 512 * sector : start + 512 * (sector + 1)] = bytes(512)
        caplog.clear()
        assert words(written.with_data(bytes(torn)).store().open()) == written.words[:2]
        assert "not finished" in caplog.text


def test_after_a_torn_end_the_log_goes_on_in_a_file_of_its_own() -> None:
    written = Written(3)
    torn = written.with_data(written.data[:-100])
    store = torn.store()
    journal = Journal(store.open().image)
    journal.add(REGULAR + b"new", journal[-1][1] + 1, 1)
    batch = journal.take()
    assert batch is not None
    store.write(batch)
    assert words(torn.store().open()) == [*written.words[:2], b"new"]


# ---------------------------------------------------------------- damage


def test_any_flipped_byte_of_the_journal_is_refused() -> None:
    """Header (magic, length, number, checksums), sealed body and padding, base, middle and last write."""
    written = Written(4)
    ends = [*written.starts[1:], len(written.data)]
    begin = {"base": (0, written.starts[0])} | {
        f"write {number}": span for number, span in enumerate(zip(written.starts, ends, strict=True))
    }
    for what, (start, end) in begin.items():
        header = range(start, start + HEADER_SIZE)
        for offset in (*header, *range(start + HEADER_SIZE, end, 5), end - 1):
            for mask in (0x01, 0x80):
                sentence = refused(written.flipped(offset, mask).store())
                assert written.path in sentence, what
                assert "join it again" in sentence


def test_a_header_that_lies_about_its_length_is_refused_and_not_taken_for_a_torn_end() -> None:
    """Made longer than the rest of the file, the length must not make acknowledged writes vanish."""
    written = Written(4)
    data = bytearray(written.data)
    struct.pack_into("<I", data, written.starts[1] + 4, 1 << 20)
    assert "header is damaged" in refused(written.with_data(bytes(data)).store())


@pytest.mark.parametrize("size", [512, 4096])
def test_zeroed_pages_before_a_whole_write_are_refused(size: int) -> None:
    written = Written(6, size=1000)
    data = written.data
    for start in range(0, written.starts[-1] - size + 1, size):
        zeroed = data[:start] + bytes(size) + data[start + size :]
        refused(written.with_data(zeroed).store())


def test_a_write_lost_repeated_or_exchanged_is_refused() -> None:
    written = Written(4)
    data, (a, b, c, d) = written.data, written.starts
    for made in (
        data[:b] + data[c:],
        data[:c] + data[b:c] + data[c:],
        data[:b] + data[c:d] + data[b:c] + data[d:],
        data[a:],
    ):
        refused(written.with_data(made).store())


def test_a_journal_cut_inside_its_base_or_emptied_is_refused() -> None:
    written = Written(1)
    for size in (0, 1, 23, 24, 100, written.starts[0] - 1):
        assert "cut short inside its base" in refused(written.with_data(written.data[:size]).store())
    refused(written.with_data(bytes(len(written.data))).store())


def test_a_base_of_many_frames_that_lost_its_last_ones_is_refused() -> None:
    """Cut between two frames every frame is whole: the base says how many there are."""
    platter = Platter("long")
    store = Store(SimDisk(platter), "raft", Sealer(KEY), "m1")
    store.open()
    big = tuple((REGULAR + bytes([number]) * (3 << 20), number + 2, 1) for number in range(5))
    store.create(LogImage(1, None, (BASE, *big)))
    disk = SimDisk(platter)
    (name,) = disk.list("raft/journal")
    data = disk.read(f"raft/journal/{name}")
    cuts = [at for at in range(512, len(data), 512) if data[at : at + 4] == b"SWF1"]
    assert len(cuts) >= 2
    for cut in cuts:
        disk.write(f"raft/journal/{name}", data[:cut])
        refused(Store(SimDisk(platter), "raft", Sealer(KEY), "m1"))


# ---------------------------------------------------------------- files that are not ours


def test_a_journal_under_another_key_says_that_the_key_is_wrong() -> None:
    sentence = refused(Written(2).store(key=bytes(32)))
    assert "sealed with a key that this node does not have" in sentence
    assert "damaged" not in sentence
    assert "put back" in sentence


def test_the_journal_of_another_manager_is_refused() -> None:
    assert "another manager" in refused(Written(2).store(node="m2"))


def test_a_journal_under_another_number_is_refused() -> None:
    written = Written(2)
    SimDisk(written.platter).rename(written.path, "raft/journal/00000000000000ff.log")
    assert "of another name" in refused(written.store())


def test_stray_names_are_left_alone_and_half_written_files_are_removed() -> None:
    written = Written(2)
    disk = SimDisk(written.platter)
    for name in ("notes", "zzzzzzzzzzzzzzzz.log", "00000000000000000009.log", "00000000000000ff.img"):
        disk.append(f"raft/journal/{name}", b"?")
    disk.append("raft/snapshot/0000000000000009.img.tmp", b"half a snapshot")
    disk.append("raft/journal/00000000000000ff.log.tmp", b"half a journal")
    assert words(written.store().open()) == written.words
    assert disk.list("raft/snapshot") == []
    assert {"notes", "zzzzzzzzzzzzzzzz.log"} <= set(disk.list("raft/journal"))
    assert not any(name.endswith(".tmp") for name in disk.list("raft/journal"))


# ---------------------------------------------------------------- snapshots


def with_snapshot() -> tuple[Written, str]:
    """The journal relies on the snapshot at 4 (the first three entries), and begins there."""
    written = Written(4)
    store = written.store()
    image = store.open().image
    store.save_snapshot(4, Snapshot(4, 1, CROWD, b"the machine" * 100).to_blob())
    journal = Journal(image)
    journal.snapshot_stored(4, 0, 0)
    batch = journal.take()
    assert batch is not None
    store.write(batch)
    return written, "raft/snapshot/0000000000000004.img"


def test_any_flipped_byte_of_a_snapshot_is_refused() -> None:
    written, path = with_snapshot()
    data = SimDisk(written.platter).read(path)
    for offset in (*range(HEADER_SIZE), *range(HEADER_SIZE, len(data), 11), len(data) - 1):
        platter = copy.deepcopy(written.platter)
        platter.rot(path, offset)
        sentence = refused(Store(SimDisk(platter), "raft", Sealer(KEY), "m1"))
        assert path in sentence


def test_a_snapshot_cut_anywhere_emptied_or_missing_is_refused() -> None:
    written, path = with_snapshot()
    data = SimDisk(written.platter).read(path)
    for size in (0, 1, 24, 512, len(data) // 2, len(data) - 1):
        platter = copy.deepcopy(written.platter)
        SimDisk(platter).write(path, data[:size])
        assert path in refused(Store(SimDisk(platter), "raft", Sealer(KEY), "m1"))
    SimDisk(written.platter).unlink(path)
    assert "snapshot 4 that the journal relies on is missing" in refused(written.store())


def test_the_snapshot_of_another_index_or_manager_in_its_place_is_refused() -> None:
    written, path = with_snapshot()
    other, _ = with_snapshot()
    stranger = Store(SimDisk(other.platter), "raft", Sealer(KEY), "m2")
    stranger.save_snapshot(4, Snapshot(4, 1, CROWD, b"another machine").to_blob())
    foreign = copy.deepcopy(written.platter)
    SimDisk(foreign).write(path, SimDisk(other.platter).read(path))
    assert "another manager" in refused(Store(SimDisk(foreign), "raft", Sealer(KEY), "m1"))
    SimDisk(written.platter).rename(path, "raft/snapshot/0000000000000005.img")
    assert "of another name" in refused(written.store())


def test_a_snapshot_that_is_replaced_while_it_is_looked_for_is_no_damage() -> None:
    """Another thread stores a newer one and removes the old one between the look and the reading."""
    written, path = with_snapshot()
    newer = Snapshot(5, 1, CROWD, b"newer")

    class Overtaken(SimDisk):
        def read(self, wanted: str) -> bytes:
            if wanted == path and self.exists(path):
                written.store().save_snapshot(5, newer.to_blob())
                self.unlink(path)
            return super().read(wanted)

    store = Store(Overtaken(written.platter), "raft", Sealer(KEY), "m1")
    assert store.read_blob() == (5, newer.to_blob())


def test_a_snapshot_without_a_journal_is_refused() -> None:
    written, _ = with_snapshot()
    SimDisk(written.platter).unlink(written.path)
    assert "votes are forgotten" in refused(written.store())
