"""The simulated disk keeps what was promised and, by luck, some of the rest."""

from __future__ import annotations

import errno

import pytest

from swarmpy.sim.disk import Platter, SimDisk
from swarmpy.sim.loop import Killed, Process, SimLoop


def many(number: int = 200) -> list[tuple[Platter, SimDisk]]:
    platters = [Platter(f"seed {place}") for place in range(number)]
    return [(platter, SimDisk(platter)) for platter in platters]


def test_synced_bytes_survive_and_unsynced_may_be_torn() -> None:
    seen = set()
    for platter, disk in many():
        disk.append("log", b"first")
        disk.sync("log")
        disk.sync_dir("")
        disk.append("log", b"second")
        platter.power_cut()
        content = disk.read("log")
        assert content.startswith(b"first")
        seen.add(content)
    assert {b"first", b"firstsecond"} < seen
    assert any(b"\0" in content for content in seen)


def test_names_need_the_sync_of_their_folder() -> None:
    outcomes = set()
    for platter, disk in many():
        disk.mkdir("a/b")
        disk.append("a/b/file", b"x")
        disk.sync("a/b/file")
        platter.power_cut()
        outcomes.add(disk.exists("a/b/file"))
        assert disk.exists("a/b")
    assert outcomes == {True, False}
    for platter, disk in many():
        disk.mkdir("a")
        disk.append("a/file", b"x")
        disk.sync("a/file")
        disk.sync_dir("a")
        platter.power_cut()
        assert disk.read("a/file") == b"x"


def test_replace_is_all_or_nothing_at_every_crash_point() -> None:
    for point in range(20):
        platter = Platter(f"seed {point}")
        disk = SimDisk(platter)
        disk.replace("meta", b"old")
        left = [point]

        def die(what: str, path: str, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise Killed

        disk.hook = die
        done = False
        try:
            disk.replace("meta", b"new!")
            done = True
        except Killed:
            pass
        disk.hook = None
        platter.power_cut()
        assert disk.read("meta") in ({b"new!"} if done else {b"old", b"new!"})


def test_full_disk_writes_a_part() -> None:
    platter = Platter("s")
    disk = SimDisk(platter)
    platter.capacity = 4
    with pytest.raises(OSError, match="No space") as caught:
        disk.append("file", b"123456")
    assert caught.value.errno == errno.ENOSPC
    assert disk.read("file") == b"1234"


def test_a_failed_sync_loses_its_pages_for_good() -> None:
    platter = Platter("seed 3")
    disk = SimDisk(platter)
    disk.append("file", b"kept")
    disk.sync("file")
    disk.sync_dir("")
    disk.append("file", b"lost")
    platter.failing_sync = 1
    with pytest.raises(OSError, match="Input/output"):
        disk.sync("file")
    disk.sync("file")
    assert platter.live["file"].safe == 4


def test_rot_changes_a_byte() -> None:
    platter = Platter("s")
    disk = SimDisk(platter)
    disk.append("file", b"\x00\x00")
    platter.rot("file", 1, 0x80)
    assert disk.read("file") == b"\x00\x80"


def test_list_shows_files_and_folders_sorted() -> None:
    disk = SimDisk(Platter("s"))
    disk.mkdir("raft/wal")
    disk.append("raft/meta", b"")
    disk.append("raft/wal/2", b"")
    disk.append("raft/wal/1", b"")
    assert disk.list("raft") == ["meta", "wal"]
    assert disk.list("raft/wal") == ["1", "2"]
    assert disk.list("none") == []
    with pytest.raises(FileNotFoundError):
        disk.read("raft/none")


def test_work_is_in_order_and_takes_time() -> None:
    loop = SimLoop()
    disk = SimDisk(Platter("s"))
    order: list[int] = []

    async def main() -> float:
        import asyncio

        tasks = [asyncio.create_task(disk.work(lambda n=n: order.append(n))) for n in range(5)]
        await asyncio.sleep(0)
        tasks[3].cancel()
        await asyncio.wait(tasks)
        with pytest.raises(FileNotFoundError):
            await disk.work(lambda: disk.read("none"))
        return loop.time()

    assert loop.run(main()) > 0
    assert order == [0, 1, 2, 4]


def test_a_dead_process_cannot_write() -> None:
    process = Process("m1")
    disk = SimDisk(Platter("s"), process)
    process.alive = False
    with pytest.raises(OSError, match="dead"):
        disk.append("file", b"x")
