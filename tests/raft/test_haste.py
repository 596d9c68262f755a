"""What the log does at once, and what it never does too early: entries that travel while the leader writes, readers
that ask as few members as it takes, commits that are told soon."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.raft.cluster import Cluster
from tests.raft.fakes import run_virtual


def now() -> float:
    return asyncio.get_running_loop().time()


async def settled(size: str = "abc", **settings: Any) -> tuple[Cluster, str, list[str]]:
    """A cluster with an entry in it, its leader's name and the others'."""
    cluster = await Cluster(size, **settings).boot()
    leader = (await cluster.wait_leader()).self_id
    await cluster.propose(b"first")
    await asyncio.sleep(1)
    return cluster, leader, [name for name in size if name != leader]


def test_a_write_takes_one_disk_and_not_two() -> None:
    async def main() -> None:
        cluster, leader, _ = await settled()
        for disk in cluster.disks.values():
            disk.delay = lambda: 0.1
        began = now()
        await cluster.logs[leader].propose(b"x")
        assert 0.1 <= now() - began < 0.15

    run_virtual(main())


def test_a_leader_acknowledges_nothing_that_is_not_on_its_own_disk() -> None:
    """Both others have it, which would be a majority, but the leader may count itself only when it has, too."""

    async def main() -> None:
        cluster, leader, others = await settled()
        cluster.disks[leader].delay = lambda: 0.5
        told: list[int] = []
        cluster.net.tap = lambda source, _, body: (
            told.append(body["commit_index"])
            if source == leader and body["type"] == "append_entries"
            else None
        )
        before = cluster.logs[leader].status().commit_index
        proposing = asyncio.ensure_future(cluster.logs[leader].propose(b"x"))
        await asyncio.sleep(0.4)
        held = [any(b"x" in each[0] for each in cluster.logs[name]._engine.core.log[:]) for name in others]
        assert held == [True, True]
        assert not proposing.done()
        assert told
        assert set(told) == {before}
        index, _ = await proposing
        assert index == before + 1

    run_virtual(main())


def test_an_entry_that_only_the_leaders_lost_disk_lacks_is_kept() -> None:
    """The leader loses its power while it writes; the others have what it sent meanwhile, and go on from it."""

    async def main() -> None:
        cluster, leader, others = await settled()
        cluster.disks[leader].delay = lambda: 0.5
        proposing = asyncio.ensure_future(cluster.logs[leader].propose(b"x"))
        await asyncio.sleep(0.1)
        await cluster.kill(leader)
        with pytest.raises(Exception, match="log of this manager stopped"):
            await proposing
        await cluster.propose(b"y")
        cluster.disks[leader].delay = lambda: 0.0
        log = await cluster.start(leader)
        await cluster.propose(b"z")
        await asyncio.sleep(1)
        values = [cluster.machines[name].values() for name in (leader, *others)]
        assert values == [[b"first", b"x", b"y", b"z"]] * 3
        assert log.failure is None

    run_virtual(main())


@pytest.mark.parametrize(("size", "enough"), [("abc", 1), ("abcde", 2)])
def test_readers_ask_as_few_as_it_takes(size: str, enough: int) -> None:
    async def main() -> None:
        cluster, leader, _ = await settled(size, heartbeat=2.0, election_min=7.0, election_max=8.0)
        asked: list[str] = []
        cluster.net.tap = lambda source, target, _: asked.append(target) if source == leader else None
        for _ in range(10):
            await asyncio.gather(*(cluster.logs[leader].read_index() for _ in range(20)))
        assert len(asked) == 10 * enough

    run_virtual(main())


def test_readers_ask_those_that_answer_soonest() -> None:
    async def main() -> None:
        cluster, leader, others = await settled()
        slow, quick = others
        cluster.net.latency = lambda a, b: 0.03 if slow in (a, b) else 0.001
        for _ in range(30):  # until it is known, heartbeats and all
            await cluster.logs[leader].read_index()
            await asyncio.sleep(0.05)
        for _ in range(20):
            began = now()
            await cluster.logs[leader].read_index()
            assert now() - began < 0.005
        cluster.net.latency = lambda a, b: 0.03 if quick in (a, b) else 0.001
        for _ in range(30):
            await cluster.logs[leader].read_index()
            await asyncio.sleep(0.05)
        began = now()
        await cluster.logs[leader].read_index()
        assert now() - began < 0.005

    run_virtual(main())


def test_a_member_that_falls_silent_delays_one_reader_a_little_and_no_other() -> None:
    async def main() -> None:
        cluster, leader, others = await settled()
        for name in others:
            cluster.net.blocked |= {(name, leader), (leader, name)}
            for number in range(20):
                began = now()
                await cluster.logs[leader].read_index()
                assert now() - began < (0.05 if number < 2 else 0.005)
            cluster.net.heal()
            await asyncio.sleep(1)

    run_virtual(main())


def test_readers_wait_for_a_majority_and_not_for_less() -> None:
    async def main() -> None:
        cluster, leader, others = await settled("abcde")
        for name in others[:3]:
            cluster.net.cut({leader}, {name})
        with pytest.raises(Exception, match=r"majority|not the leader"):
            await cluster.logs[leader].read_index(timeout=0.8)

    run_virtual(main())


def test_a_commit_is_told_soon_though_nothing_follows_it() -> None:
    async def main() -> None:
        cluster, leader, others = await settled(heartbeat=2.0, election_min=7.0, election_max=8.0)
        index, _ = await cluster.logs[leader].propose(b"x")
        began = now()
        for name in others:
            await cluster.logs[name].wait_applied(index)
        assert now() - began < 0.005

    run_virtual(main())
