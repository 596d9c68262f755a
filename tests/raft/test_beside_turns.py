"""What takes long happens beside the turns, or in parts of them: hearts beat, votes are given and commits go on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from swarmpy.adapters.raft.blob import Snapshot
from swarmpy.adapters.raft.config import Membership
from swarmpy.adapters.raft.engine import Engine
from swarmpy.adapters.raft.installing import Arrived
from swarmpy.adapters.raft.pinned import RaftNode
from swarmpy.ports import LogRole
from tests.raft.cluster import Cluster
from tests.raft.fakes import MemDisk, run_virtual
from tests.raft.test_snapshot_transfer import Tap, caught_up, now, with_a_straggler


class Slow:
    """A second handle on a disk, whose thread takes its time."""

    def __init__(self, disk: MemDisk, seconds: float) -> None:
        self._disk, self._seconds = disk, seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(self._disk, name)

    async def work(self, job: Callable[[], Any]) -> Any:
        await asyncio.sleep(self._seconds)
        return job()


def engine_of(cluster: Cluster, name: str) -> Engine:
    engine = cluster.logs[name]._engine
    assert engine is not None
    return engine


async def preparing(cluster: Cluster, name: str) -> None:
    """Wait until this member has a whole snapshot and makes it ready."""
    async with asyncio.timeout(10):
        while engine_of(cluster, name).core._preparing is None:
            await asyncio.sleep(0.01)


def test_a_member_answers_while_it_makes_a_snapshot_ready() -> None:
    async def main() -> None:
        cluster, leader, lost = await with_a_straggler(4)
        tap = Tap(cluster, lost)
        await cluster.start(lost, bulk=Slow(cluster.disks[lost], 5.0))
        await preparing(cluster, lost)
        status, begin, whole = cluster.logs[leader].status(), now(), tap.sent
        while now() < begin + 4.5:
            assert lost in cluster.logs[leader].status().reachable
            assert cluster.logs[lost].status().leader == leader
            await asyncio.sleep(0.05)
        assert engine_of(cluster, lost).core._preparing is not None
        await caught_up(cluster, lost)
        assert tap.sent <= whole + 2 * cluster.settings.chunk, "only its end was sent again, to ask"
        assert cluster.machines[lost].loads == 2, "the blank one of the start, and this one"
        assert cluster.logs[leader].status().term == status.term

    run_virtual(main())


def test_a_member_that_makes_a_snapshot_ready_votes_and_goes_on_with_another_leader() -> None:
    async def main() -> None:
        cluster, leader, lost = await with_a_straggler(4)
        await cluster.start(lost, bulk=Slow(cluster.disks[lost], 5.0))
        await preparing(cluster, lost)
        begin = now()
        await cluster.kill(leader)
        new = await cluster.wait_leader(4)
        assert new.self_id not in (leader, lost)
        assert now() < begin + 4
        assert engine_of(cluster, lost).core._preparing is not None
        await caught_up(cluster, lost)
        await cluster.propose(b"after")
        await cluster.settle()

    run_virtual(main())


def test_a_snapshot_that_is_ready_too_late_changes_nothing() -> None:
    """Meanwhile the log has come further without it, or this member leads, who has all that was committed."""

    async def main() -> None:
        cluster = await Cluster("abc").boot()
        for number in range(10):
            await cluster.propose(b"%d" % number)
        await cluster.settle()
        leader = (await cluster.wait_leader()).self_id
        other = next(name for name in "abc" if name != leader)

        def take() -> None:
            raise AssertionError("it was taken")

        for name, index in ((other, 5), (leader, 5), (leader, 1000)):
            engine = engine_of(cluster, name)
            blob = Snapshot(index, 1, Membership(), b"old").to_blob()
            message = {"type": "install", "index": index, "seq": 1}
            arrived = Arrived(RaftNode(leader), message, (index, len(blob), 0), blob)
            before = cluster.logs[name].status()
            engine.post(partial(engine.core.install, arrived, Snapshot.from_blob(blob), take))
            await asyncio.sleep(0.1)
            assert cluster.logs[name].failure is None
            assert cluster.logs[name].status().commit_index == before.commit_index
            assert cluster.logs[name].status().role is before.role
        await cluster.propose(b"after")
        await cluster.settle()

    run_virtual(main())


def test_committed_entries_are_applied_in_parts() -> None:
    """After a restart thousands may be known to be committed at once."""

    async def main() -> None:
        cluster = await Cluster("abc", apply_entries=3).boot()
        leader = await cluster.wait_leader()
        await asyncio.gather(*(leader.propose(b"%d" % number) for number in range(50)))
        lost = next(name for name in "abc" if name != leader.self_id)
        await cluster.settle()
        await cluster.kill(lost)
        await cluster.start(lost)
        core = engine_of(cluster, lost).core
        tick, parts = core.tick, []

        def ticked() -> None:
            before = core.applied_index
            tick()
            parts.append(core.applied_index - before)

        core.tick = ticked
        begin = now()
        await cluster.settle()
        assert now() - begin < 3, "one part follows the other at once"
        assert cluster.machines[lost].values() == [b"%d" % number for number in range(50)]
        assert max(parts) == 3
        core.removed = True
        core.commit_index += 1
        assert not core.unapplied(), "who was removed applies nothing more, and its loop must not turn for it"
        assert cluster.logs[leader.self_id].status().role is LogRole.LEADER

    run_virtual(main())
