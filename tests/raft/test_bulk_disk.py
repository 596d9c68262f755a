"""Snapshots on a disk handle of their own: no write waits for one, and none outlives its log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from swarmpy.adapters.raft import RaftLog, RaftSettings
from swarmpy.daemon import RealTools
from swarmpy.pki.seal import PlainSealer
from swarmpy.ports import Member
from swarmpy.sim.disk import Platter, SimDisk
from tests.raft.fakes import FakeClock, FakeEntropy, FakeWire, ListMachine, Network, run_virtual

SLOW = 5.0


class SlowDisk(SimDisk):
    """Its jobs begin late."""

    async def work(self, job: Callable[[], Any]) -> Any:
        await asyncio.sleep(SLOW)
        return await super().work(job)


class StubbornDisk(SimDisk):
    """As with a thread: a job goes on when nobody waits for it any more."""

    async def work(self, job: Callable[[], Any]) -> Any:
        return await asyncio.shield(asyncio.ensure_future(self._slowly(job)))

    async def _slowly(self, job: Callable[[], Any]) -> Any:
        await asyncio.sleep(1.0)
        return await super().work(job)


def log_on(platter: Platter, bulk: SimDisk) -> RaftLog:
    return RaftLog(
        "a",
        "a:2377",
        SimDisk(platter),
        FakeWire(Network(1), "a"),
        FakeClock(),
        FakeEntropy(1),
        ListMachine(),
        PlainSealer(),
        bootstrap_members=[Member("a", "a:2377")],
        settings=RaftSettings(snapshot_entries=10, keep_entries=2),
        bulk=bulk,
    )


def now() -> float:
    return asyncio.get_running_loop().time()


async def leading(log: RaftLog) -> None:
    status = log.status()
    while status.role.value != "leader":
        status = await log.wait_status(status)


def test_no_write_waits_for_a_snapshot() -> None:
    async def main() -> None:
        log = log_on(platter := Platter("bulk"), SlowDisk(platter))
        await log.start()
        await leading(log)
        begin, longest = now(), 0.0
        while now() - begin < 3 * SLOW:
            at = now()
            await log.propose(b"x")
            longest = max(longest, now() - at)
            await asyncio.sleep(0.1)
        assert longest < 0.1
        stored = [path for path in platter.live if path.startswith("raft/snapshot/")]
        assert len(stored) == 1, "snapshots were stored, and the older ones removed"
        await log.stop()

    run_virtual(main())


def test_stopping_waits_for_the_snapshot_that_is_being_stored() -> None:
    """What is done with the folder afterwards (another start, forgetting the seat) must not be overtaken."""

    async def main() -> None:
        log = log_on(platter := Platter("bulk"), StubbornDisk(platter))
        await log.start()
        await leading(log)
        for _ in range(12):
            await log.propose(b"x")
        assert not [path for path in platter.live if path.startswith("raft/snapshot/")]
        await log.stop()
        stopped = {path: bytes(file.data) for path, file in platter.live.items()}
        await asyncio.sleep(2 * SLOW)
        assert {path: bytes(file.data) for path, file in platter.live.items()} == stopped

    run_virtual(main())


def test_the_daemon_gives_snapshots_a_handle_of_their_own(tmp_path: Path) -> None:
    tools = RealTools(tmp_path, "unix:///nowhere.sock")
    log = tools.log("a", "a:2377", FakeWire(Network(1), "a"), ListMachine(), PlainSealer(), bootstrap=True)
    assert isinstance(log, RaftLog)
    journal, bulk = log._disks
    assert journal is tools.disk
    assert bulk is not journal
