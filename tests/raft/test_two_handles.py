"""The daemon's log has two handles on the disk: a slow snapshot delays no commit, and touches nothing of the journal's."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from pathlib import Path

import pytest

from swarmpy.adapters.disk import FileDisk
from swarmpy.adapters.raft.blob import Snapshot
from swarmpy.adapters.raft.config import Membership
from swarmpy.adapters.raft.journal import BASE, ENTRY, Batch, LogImage
from swarmpy.adapters.raft.node import RaftLog
from swarmpy.adapters.raft.store import Store
from swarmpy.daemon import RealTools
from swarmpy.pki.seal import PlainSealer
from swarmpy.ports import LogRole
from tests.raft.fakes import FakeWire, ListMachine, Network


class SlowSnapshots:
    """From now on writing a snapshot takes until `go`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = threading.Event()
        self.go = threading.Event()
        replace = FileDisk.replace

        def slowly(disk: FileDisk, path: str, data: bytes) -> None:
            if path.endswith(".img"):
                self.begun.set()
                self.go.wait(30)
            replace(disk, path, data)

        monkeypatch.setattr(FileDisk, "replace", slowly)


def a_log(tmp_path: Path) -> RaftLog:
    tools = RealTools(tmp_path, "unix:///nowhere")
    wire = FakeWire(Network(1), "a")
    log = tools.log("a", "a:2377", wire, ListMachine(), PlainSealer(), bootstrap=True)
    assert isinstance(log, RaftLog)
    log._settings = dataclasses.replace(log._settings, snapshot_entries=5, keep_entries=0)
    return log


async def led(log: RaftLog) -> RaftLog:
    await log.start()
    seen = log.status()
    while seen.role is not LogRole.LEADER:
        seen = await log.wait_status(seen)
    return log


async def test_a_slow_snapshot_delays_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = SlowSnapshots(monkeypatch)
    log = await led(a_log(tmp_path))
    try:
        for number in range(10):
            await log.propose(b"%d" % number)
        assert await asyncio.to_thread(slow.begun.wait, 10)
        for number in range(10, 30):
            await log.propose(b"%d" % number, timeout=10)
        assert not slow.go.is_set()
    finally:
        slow.go.set()
        await log.stop()


async def test_stopping_waits_for_the_snapshot_that_a_thread_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = SlowSnapshots(monkeypatch)
    log = await led(a_log(tmp_path))
    for number in range(10):
        await log.propose(b"%d" % number)
    assert await asyncio.to_thread(slow.begun.wait, 10)
    stopping = asyncio.create_task(log.stop())
    done, _ = await asyncio.wait({stopping}, timeout=0.2)
    assert not done
    slow.go.set()
    await stopping
    assert not list(tmp_path.rglob("*.tmp"))
    assert list(tmp_path.rglob("*.img"))


def test_nobody_else_uses_the_handles_of_the_log(tmp_path: Path) -> None:
    """A FileDisk closes the file that it appends to when it writes another: shared between threads, the
    journal's descriptor could be closed, and given to another file, in the middle of an append."""
    tools = RealTools(tmp_path, "unix:///nowhere")
    log = tools.log("a", "a:2377", FakeWire(Network(1), "a"), ListMachine(), PlainSealer(), bootstrap=True)
    assert isinstance(log, RaftLog)
    journal, bulk = log._disks
    assert len({id(tools.disk), id(journal), id(bulk)}) == 3


def test_saving_a_snapshot_leaves_the_journals_file_open(tmp_path: Path) -> None:
    journal, bulk = FileDisk(tmp_path), FileDisk(tmp_path)
    store = Store(journal, "raft", PlainSealer(), "a", bulk)
    store.open()
    store.create(LogImage(1, None, (BASE,)))
    store.write(Batch(records=[[ENTRY, 2, 1, b"\x00x"]]))
    appending = journal._appending
    assert appending is not None
    store.save_snapshot(2, Snapshot(2, 1, Membership(), b"image").to_blob())
    assert journal._appending == appending
    assert store.read_blob() is not None
    assert journal._appending == appending
    journal.close()
    bulk.close()


def test_a_snapshot_replaced_while_it_is_read_is_read_again(tmp_path: Path) -> None:
    journal = FileDisk(tmp_path)

    class Slow(FileDisk):
        def read(self, path: str) -> bytes:
            if path.endswith(f"{2:016x}.img"):
                entries = (BASE, (b"\x00x", 2, 1), (b"\x00y", 3, 1))
                blob = Snapshot(3, 1, Membership(), b"newer").to_blob()
                store.save_snapshot(3, blob)
                store.write(Batch(image=LogImage(1, None, entries, 3)))
            return super().read(path)

    store = Store(journal, "raft", PlainSealer(), "a", Slow(tmp_path))
    store.open()
    store.create(LogImage(1, None, (BASE,)))
    store.save_snapshot(2, Snapshot(2, 1, Membership(), b"older").to_blob())
    found = store.read_blob()
    assert found is not None
    assert found[0] == 3
    journal.close()
