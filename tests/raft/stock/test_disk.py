"""What a crash, a power cut or a damaged file does to what was acknowledged and promised."""

from __future__ import annotations

import mmap
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pysyncobj.journal
import pytest
from pysyncobj.config import SERIALIZER_STATE
from pysyncobj.journal import FileJournal

from swarmpy.adapters.disk import FileDisk
from swarmpy.adapters.raft.frames import CorruptError
from swarmpy.adapters.raft.journal import BASE, ENTRY, Batch, LogImage
from swarmpy.adapters.raft.store import Store
from swarmpy.pki.seal import PlainSealer
from tests.raft.fakes import CrashError, MemDisk
from tests.raft.stock.conftest import Stage
from tests.raft.stock.world import World, numbered

# ---------------------------------------------------------------- nothing is synced


class InlineFiles(FileDisk):
    """Real files and real syncs, in the thread of the test."""

    async def work(self, job: Callable[[], Any]) -> Any:
        return job()

    def crash(self) -> None:
        self.close()


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What reaches the disk, in order: "write" and "sync"."""
    seen: list[str] = []

    class Map(mmap.mmap):
        def flush(self, *args: Any) -> None:
            seen.append("sync")
            super().flush(*args)

    def spied(word: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            result = real(*args, **more)
            seen.append(word)
            return result

        return call

    for name in ("fsync", "fdatasync", "sync"):
        monkeypatch.setattr(os, name, spied("sync", getattr(os, name)))
    monkeypatch.setattr(os, "write", spied("write", os.write))
    monkeypatch.setattr(pysyncobj.journal, "mmap", SimpleNamespace(mmap=Map))
    return seen


def sixty_writes_and_an_election(world: World) -> World:
    world.boot()
    assert world.leader() == "a"
    for value in numbered("v", 60):
        world.commit("a", value)
    world.crash("a")
    world.commit(world.leader("bc"), b"after")
    return world


def test_stock_syncs_nothing_at_all(stock: Stage, steps: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    real = FileJournal._destroy

    def close(self: FileJournal) -> None:
        # The only flush there is. A process that is killed does not come here.
        before = len(steps)
        real(self)
        assert steps[before:] == ["sync"]
        del steps[before:]

    monkeypatch.setattr(FileJournal, "_destroy", close)
    world = sixty_writes_and_an_election(stock("abc", files=True))
    assert len(world.acked) == 61
    assert steps.count("sync") == 0


def on_disk(root: Path, name: str) -> LogImage:
    """What a member would find if it started now."""
    store = Store(FileDisk(root / name), "raft", PlainSealer(), name)
    newest = max((root / name / "raft" / "journal").glob("*.log"))
    return store._replay(int(newest.stem, 16))


def test_ours_syncs_before_it_speaks(ours: Stage, steps: list[str], tmp_path: Path) -> None:
    world = ours("abc", disks={name: InlineFiles(tmp_path / name) for name in "abc"})
    promises: list[str] = []
    broken: list[str] = []

    def watch(source: str, target: str, message: dict[str, Any]) -> dict[str, Any]:
        """Whatever a message promises is in the sender's file, and nothing of the file is unsynced. A leader's
        entries promise nothing of its own disk but the term, and that what they call committed is there."""
        kept, ahead = True, message["type"] == "append_entries"
        found = on_disk(tmp_path, source)
        if message["type"] == "next_node_idx" and message["success"]:
            kept = found.entries[-1][1] >= message["next_node_idx"] - 1
        elif message["type"] == "append_entries":
            kept = found.term == message["term"] and found.entries[-1][1] >= message["commit_index"]
        elif message["type"] == "response_vote" and message["granted"] and not message["pre"]:
            kept = (found.term, found.vote) == (message["term"], target)
        elif message["type"] == "request_vote" and not message["pre"]:
            kept = (found.term, found.vote) == (message["term"], source)
        else:
            return message
        promises.append(message["type"])
        if not kept or (steps[-1] != "sync" and not ahead):
            broken.append(f"{source}: {message['type']}")
        return message

    world.tap = watch
    sixty_writes_and_an_election(world)
    assert len(world.acked) == 61
    assert broken == []
    assert set(promises) == {"next_node_idx", "append_entries", "response_vote", "request_vote"}
    assert steps.count("sync") > 120
    world.close()


# ---------------------------------------------------------------- a damaged file of term and vote


def voting_twice(world: World, damage: Callable[[], None]) -> list[str]:
    """c votes for b in term 5; its file is damaged while it is down; a asks for the same term. Who got a vote."""
    world.boot()
    world["c"].receive("b", world.cast.vote_request(5, 100, 4))
    world.crash("c")
    damage()
    world.start("c")
    world.connect_to("c", "ab")
    world["c"].receive("a", world.cast.vote_request(5, 100, 4))
    return [target for source, target, message in world.log if source == "c" and world.cast.grants(message)]


def test_stock_votes_twice_in_a_term(stock: Stage, tmp_path: Path) -> None:
    def damage() -> None:
        (tmp_path / "c" / "journal.meta").write_bytes(b"\x00" * 40)

    assert voting_twice(stock("abc", files=True), damage) == ["b", "a"]


def test_stock_votes_once_with_a_whole_file(stock: Stage) -> None:
    assert voting_twice(stock("abc", files=True), lambda: None) == ["b"]


def test_ours_votes_once(ours: Stage) -> None:
    assert voting_twice(ours("abc"), lambda: None) == ["b"]


@pytest.mark.parametrize("place", [0.001, 0.5, 0.999])
def test_ours_does_not_start_with_a_damaged_journal(ours: Stage, place: float) -> None:
    world = ours("abc")
    with pytest.raises(CorruptError, match="remove"):
        voting_twice(world, lambda: flip(world.knobs["disks"]["c"], ".log", place))


def flip(disk: MemDisk, suffix: str, place: float) -> None:
    """One bit, somewhere in the newest file of this kind."""
    name = max(name for name in disk.names if name.endswith(suffix))
    data = bytearray(disk.read(name))
    data[int(len(data) * place)] ^= 1
    disk.replace(name, bytes(data))


# ---------------------------------------------------------------- a commit index from before the power cut


def everybody_loses_the_tail(world: World, save: Callable[[], None], restore: Callable[[], None]) -> World:
    """The newest pages of every journal are lost in a power cut, the small file beside it is not. Then a leads
    again, alone, and gets writes."""
    world.boot()
    assert world.leader() == "a"
    world.commit("a", b"first")
    world.run(1.5)
    save()
    world.commit("a", *numbered("v", 20))
    world.run(1.5)
    world.close()
    restore()
    for name in "ab":
        world.start(name)
    world.connect("a", "b")
    world.until(lambda: world["a"].leads)
    world.disconnect("a", "b")
    world.outcomes.clear()
    world.propose("a", *numbered("alone", 3))
    world.run(1)
    return world


def test_stock_commits_what_nobody_else_has(stock: Stage, tmp_path: Path) -> None:
    def each(source: str, target: str) -> None:
        for name in "abc":
            shutil.copy(tmp_path / name / source, tmp_path / name / target)

    world = everybody_loses_the_tail(
        stock("abc", files=True), lambda: each("journal", "early"), lambda: each("early", "journal")
    )
    assert world.acked == numbered("alone", 3)


def test_ours_believes_no_commit_index_from_before(ours: Stage) -> None:
    world = ours("abc")
    kept: dict[str, bytes] = {}

    def save() -> None:
        for name, disk in world.knobs["disks"].items():
            kept[name] = disk.read(journal_of(disk))

    def restore() -> None:
        for name, disk in world.knobs["disks"].items():
            disk.replace(journal_of(disk), kept[name])

    everybody_loses_the_tail(world, save, restore)
    assert world.acked == []
    assert world["a"].applied_index < world["a"].last_index


def journal_of(disk: MemDisk) -> str:
    return max(name for name in disk.names if name.endswith(".log"))


# ---------------------------------------------------------------- a crash while the journal is trimmed


def test_stock_loses_the_tail_in_the_middle_of_a_trim(
    stock: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = FileJournal(str(tmp_path / "journal"))
    for index in range(1, 101):
        journal.add(b"x", index, 1)
    real, left = FileJournal.add, iter(range(5))

    def dies(self: FileJournal, *entry: Any) -> None:
        if next(left, None) is None:
            raise CrashError
        real(self, *entry)

    monkeypatch.setattr(FileJournal, "add", dies)
    with pytest.raises(CrashError):
        journal.deleteEntriesTo(10)
    journal._destroy()
    again = FileJournal(str(tmp_path / "journal"))
    assert len(again) == 5
    again._destroy()


def test_ours_keeps_the_tail_whichever_operation_is_the_last() -> None:
    entries = tuple((b"\x00%d" % index, index, 1) for index in range(2, 101))
    operations = 0
    while True:
        disk = MemDisk()
        store = Store(disk, "raft", PlainSealer(), "a")
        store.open()
        store.create(LogImage(1, None, (BASE,)))
        store.write(Batch(records=[[ENTRY, index, term, command] for command, index, term in entries]))
        disk.fail_at = disk.operations + operations + 1
        try:
            store.write(Batch(image=LogImage(1, None, entries[9:])))
        except CrashError:
            disk.crash()
        else:
            break
        found = Store(disk, "raft", PlainSealer(), "a").open().image.entries
        assert found[-90:] == entries[9:]
        operations += 1
    assert operations >= 4


# ---------------------------------------------------------------- a crash between the snapshot and the trim


def a_crash_before_the_trim(world: World, snapshot: Callable[[], None]) -> World:
    """The snapshot lies on the disk, the journal is not trimmed yet, writes go on; then the process is killed."""
    world.boot()
    assert world.leader() == "a"
    world.commit("a", *numbered("before", 10))
    snapshot()
    world.commit("a", *numbered("after", 20))
    world.crash("a")
    world.start("a")
    world.until(lambda: world["a"].leads)
    world.run(2)
    return world


def test_stock_throws_the_journal_away(stock: Stage, tmp_path: Path) -> None:
    state = SERIALIZER_STATE.NOT_SERIALIZING
    world = stock("a", files=True, serialize_checker=lambda: state)

    def snapshot() -> None:
        nonlocal state
        world["a"].compact()
        # As with a forked child that has renamed its file and was not waited for yet.
        state = SERIALIZER_STATE.SERIALIZING

    a_crash_before_the_trim(world, snapshot)
    assert (tmp_path / "a" / "dump").exists()
    assert world.lost("a") == numbered("after", 20)


def test_ours_joins_the_snapshot_and_the_journal(ours: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    world = ours("a")

    def snapshot() -> None:
        engine = world["a"].engine  # type: ignore[attr-defined]
        monkeypatch.setattr(engine, "_snapshot_stored", lambda _: None)
        world["a"].compact()

    a_crash_before_the_trim(world, snapshot)
    assert [name for name in world.knobs["disks"]["a"].names if name.endswith(".img")]
    assert world["a"].values == numbered("before", 10) + numbered("after", 20)


# ---------------------------------------------------------------- damaged records and snapshots


def restarted(world: World, damage: Callable[[], None]) -> World:
    world.boot()
    assert world.leader() == "a"
    world.commit("a", *numbered("v", 10))
    if world.knobs.get("compacted"):
        world["a"].compact()
    world.crash("a")
    damage()
    world.start("a")
    world.until(lambda: world["a"].leads)
    world.run(2)
    return world


def test_stock_applies_a_record_with_a_flipped_bit(stock: Stage, tmp_path: Path) -> None:
    def damage() -> None:
        path = tmp_path / "a" / "journal"
        data = path.read_bytes()
        assert data.count(b"v7") == 1
        path.write_bytes(data.replace(b"v7", b"v6"))

    world = restarted(stock("a", files=True), damage)
    assert world["a"].values.count(b"v6") == 2


def test_ours_refuses_a_record_with_a_flipped_bit(ours: Stage) -> None:
    world = ours("a")

    def damage() -> None:
        disk = world.knobs["disks"]["a"]
        data = disk.read(journal_of(disk))
        assert data.count(b"v7") == 1
        disk.replace(journal_of(disk), data.replace(b"v7", b"v6"))

    with pytest.raises(CorruptError, match="remove"):
        restarted(world, damage)


def test_ours_refuses_a_bit_flipped_anywhere(ours: Stage) -> None:
    """Term and vote, entries, frames and their padding: what was synced once is found whole or refused."""
    world = ours("abc").boot()
    world.leader()
    for value in numbered("v", 5):
        world.commit("a", value)
    world["c"].receive("b", world.cast.vote_request(9, 100, 8))
    world.crash("c")
    disk: MemDisk = world.knobs["disks"]["c"]
    name = journal_of(disk)
    data = disk.read(name)
    refused = 0
    for position in range(0, len(data), 11):
        damaged = bytearray(data)
        damaged[position] ^= 1 << position % 8
        other = MemDisk()
        other.replace(name, bytes(damaged))
        try:
            Store(other, "raft", PlainSealer(), "c").open()
        except CorruptError:
            refused += 1
    assert refused == len(range(0, len(data), 11)) > 200


def test_stock_leads_with_an_empty_state_when_the_snapshot_is_damaged(stock: Stage, tmp_path: Path) -> None:
    world = restarted(
        stock("a", files=True, compacted=True),
        lambda: (tmp_path / "a" / "dump").write_bytes(b"\x00" * 100) and None,
    )
    assert world["a"].leads
    assert len(world.lost("a")) >= 8


@pytest.mark.parametrize("place", [0.01, 0.3, 0.5, 0.7, 0.99])
def test_ours_refuses_a_damaged_snapshot(ours: Stage, place: float) -> None:
    world = ours("a", compacted=True)
    with pytest.raises(CorruptError, match="remove"):
        restarted(world, lambda: flip(world.knobs["disks"]["a"], ".img", place))
