"""A member that is far behind gets the snapshot: in checked pieces at its pace, whole or not at all.

Virtual time over links of limited bandwidth. Interrupted in every way, the transfer comes to its end, the
leader goes on beating and committing, and no more is under way than the window allows.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from swarmpy.ports import Body, LogRole, Member
from tests.raft.cluster import Cluster
from tests.raft.fakes import FakeChannel, MemDisk, run_virtual

MIB = 1 << 20
BANDWIDTH = 20e6
"""Bytes a second."""


def now() -> float:
    return asyncio.get_running_loop().time()


class Tap:
    """Sees each message when it is sent."""

    def __init__(self, cluster: Cluster, target: str) -> None:
        self.cluster, self.target = cluster, target
        self.pieces: list[tuple[str, int, int, int]] = []
        """(sender, snapshot's index, offset, size)"""
        self.acked: dict[str, int] = {}
        self.most_under_way = 0
        self.burst = self.largest_burst = 0
        self.burst_at = 0.0
        self.beats: dict[str, list[float]] = {}
        self.largest = 0
        self.on_piece: Callable[[int], None] = lambda sent: None
        cluster.net.tap = self.see

    def see(self, source: str, target: str, body: Body) -> None:
        kind = body.get("type")
        if kind == "append_entries":
            self.beats.setdefault(target, []).append(now())
        elif kind == "install" and target == self.target:
            size = len(body["data"])
            self.largest = max(self.largest, size)
            self.pieces.append((source, body["index"], body["offset"], size))
            under_way = body["offset"] + size - self.acked.get(source, 0)
            self.most_under_way = max(self.most_under_way, under_way)
            self.burst = size + (self.burst if self.burst_at == now() else 0)
            self.burst_at = now()
            self.largest_burst = max(self.largest_burst, self.burst)
            self.on_piece(body["offset"] + size)
        elif kind == "installed" and source == self.target:
            self.acked[target] = max(self.acked.get(target, 0), body["offset"])

    def longest_silence(self, target: str, begin: float, end: float) -> float:
        times = [begin, *(t for t in self.beats.get(target, ()) if begin <= t <= end), end]
        return max(b - a for a, b in itertools.pairwise(times))

    @property
    def sent(self) -> int:
        return sum(size for _, _, _, size in self.pieces)


async def with_a_straggler(megabytes: int, **settings: Any) -> tuple[Cluster, str, str]:
    """Three members; the last one missed so much that only a snapshot helps. (cluster, leader, straggler)"""
    chosen = {"snapshot_entries": 6, "keep_entries": 1, "keep_bytes": 1, **settings}
    cluster = await Cluster("abc", **chosen).boot()
    await cluster.propose(b"first")
    await cluster.settle()
    leader = (await cluster.wait_leader()).self_id
    lost = next(name for name in "abc" if name != leader)
    await cluster.kill(lost)
    for number in range(megabytes):
        await cluster.propose(bytes([number]) * MIB)
    for _ in range(8):
        await cluster.propose(b"last")
    await asyncio.sleep(2)
    cluster.net.bandwidth = BANDWIDTH
    assert (await cluster.wait_leader()).self_id == leader
    return cluster, leader, lost


async def caught_up(cluster: Cluster, name: str, timeout: float = 30.0) -> None:
    """Wait until this member holds what the leader holds."""
    async with asyncio.timeout(timeout):
        while True:
            leader = cluster.leader()
            if leader is not None and name in cluster.logs:
                mine, theirs = cluster.logs[name].status(), leader.status()
                if mine.applied_index == theirs.applied_index:
                    assert cluster.machines[name].entries == cluster.machines[leader.self_id].entries
                    return
            await asyncio.sleep(0.02)


def window(cluster: Cluster) -> int:
    return cluster.settings.chunk * cluster.settings.chunks_in_flight


def test_a_large_snapshot_goes_in_pieces_while_hearts_beat_and_writes_go_on() -> None:
    async def main() -> None:
        cluster, leader, lost = await with_a_straggler(24, snapshot_entries=8)
        tap = Tap(cluster, lost)
        term = cluster.logs[leader].status().term
        begin = now()
        await cluster.start(lost)
        installed = asyncio.ensure_future(caught_up(cluster, lost))
        writes = 0
        while not installed.done():
            at = now()
            await cluster.propose(b"meanwhile %d" % writes)
            assert now() - at < 0.5, "a write waits for no snapshot"
            writes += 1
            await asyncio.sleep(0.1)
        await installed
        assert now() - begin > 1.2, "it took a while at this bandwidth"
        assert writes > 8, "and more snapshots were taken meanwhile"
        assert 24 * MIB <= tap.sent < 40 * MIB, "once, not again for each newer snapshot"
        assert tap.largest <= cluster.settings.chunk
        assert max(tap.most_under_way, tap.largest_burst) <= window(cluster)
        other = next(name for name in "abc" if name not in (leader, lost))
        for name in (other, lost):
            silence = tap.longest_silence(name, begin + 0.3, now())
            assert silence < cluster.settings.election_min / 2, f"{name} heard nothing for {silence} s"
        status = cluster.logs[leader].status()
        assert (status.role, status.term) == (LogRole.LEADER, term)

    run_virtual(main())


@pytest.mark.parametrize("part", [0.1, 0.5, 0.95])
def test_a_broken_connection_resumes_where_it_was_and_floods_nothing(part: float) -> None:
    async def main() -> None:
        cluster, _, lost = await with_a_straggler(12)
        tap = Tap(cluster, lost)
        cuts = 0

        def cut(sent: int) -> None:
            nonlocal cuts
            if cuts < 3 and sent > (part + cuts / 100) * 12 * MIB:
                cuts += 1
                for channel in list(cluster.net.channels):
                    if lost in (channel.me, channel.other):
                        asyncio.get_running_loop().call_soon(cluster.net.sever, channel)

        tap.on_piece = cut
        await cluster.start(lost)
        await caught_up(cluster, lost)
        assert cuts == 3
        assert tap.largest_burst <= window(cluster), "what the member has is not sent again in one burst"
        assert tap.sent < 12.2 * MIB + 4 * 2 * window(cluster)

    run_virtual(main())


@pytest.mark.parametrize("part", [0.3, 0.9])
def test_a_receiver_that_dies_half_way_begins_anew(part: float) -> None:
    async def main() -> None:
        cluster, _, lost = await with_a_straggler(8)
        tap = Tap(cluster, lost)
        half = asyncio.Event()
        tap.on_piece = lambda sent: half.set() if sent > part * 8 * MIB else None
        await cluster.start(lost)
        await half.wait()
        await cluster.kill(lost)
        await asyncio.sleep(0.5)
        tap.acked.clear()
        await cluster.start(lost)
        assert cluster.machines[lost].values() == [b"first"] or not cluster.machines[lost].values()
        await caught_up(cluster, lost)
        assert max(tap.most_under_way, tap.largest_burst) <= window(cluster)

    run_virtual(main())


@pytest.mark.parametrize("tear", [False, True])
def test_a_receiver_that_dies_at_any_disk_operation_of_the_installation(tear: bool) -> None:
    """What it acknowledged before is there, and the leader brings it up to date again."""

    async def main(at: int) -> bool:
        cluster, _, lost = await with_a_straggler(1, keep_entries=0)
        await cluster.start(lost)
        disk = cluster.disks[lost]
        tap = Tap(cluster, lost)
        armed = False

        def arm(sent: int) -> None:
            nonlocal armed
            if not armed and sent > MIB:  # the last piece is on its way
                armed, disk.fail_at = True, disk.operations + at

        tap.on_piece = arm
        async with asyncio.timeout(20):
            while not disk.dead:
                if armed and cluster.logs[lost].status().applied_index > 8 and disk.fail_at is not None:
                    await caught_up(cluster, lost)
                    if not disk.dead:
                        assert disk.operations < disk.fail_at
                        return False
                await asyncio.sleep(0.01)
        await cluster.kill(lost, tear=tear)
        await cluster.start(lost)
        await caught_up(cluster, lost)
        await cluster.propose(b"after")
        await cluster.settle()
        return True

    died = 0
    for at in range(1, 30):
        if not run_virtual(main(at)):
            break
        died += 1
    assert died >= 8, "snapshot and journal: write, sync, rename, sync of the folder each; removals"


def test_a_newer_snapshot_during_the_transfer_does_not_disturb_it() -> None:
    async def main() -> None:
        cluster, leader, lost = await with_a_straggler(8)
        tap = Tap(cluster, lost)
        await cluster.start(lost)
        first = cluster.logs[leader]._engine
        assert first is not None
        at_start = first.core.log.snapshot_index
        installed = asyncio.ensure_future(caught_up(cluster, lost, 60))
        for number in range(40):
            await cluster.propose(b"newer %d" % number)
        assert first.core.log.snapshot_index > at_start, "a newer snapshot was taken meanwhile"
        assert not installed.done()
        await installed
        await cluster.settle()
        indexes = [index for _, index, _, _ in tap.pieces]
        assert indexes == sorted(indexes), "one after the other, never two at a time"

    run_virtual(main())


def test_a_leader_lost_during_the_transfer_is_replaced_by_another_one() -> None:
    async def main() -> None:
        cluster, leader, lost = await with_a_straggler(8)
        # The straggler may not lead (it lacks entries), so two of three suffice only with its vote.
        tap = Tap(cluster, lost)
        half = asyncio.Event()
        tap.on_piece = lambda sent: half.set() if sent > 4 * MIB else None
        await cluster.start(lost)
        await half.wait()
        await cluster.kill(leader)
        new = await cluster.wait_leader(20)
        assert new.self_id not in (leader, lost)
        await caught_up(cluster, lost)
        await cluster.propose(b"after")
        senders = {sender for sender, _, _, _ in tap.pieces}
        assert senders == {leader, new.self_id}

    run_virtual(main())


def test_a_damaged_piece_is_noticed_and_never_loaded() -> None:
    async def main() -> None:
        cluster, _, lost = await with_a_straggler(4)
        tap = Tap(cluster, lost)
        real = FakeChannel.send
        damaged = 0

        async def send(channel: FakeChannel, body: Body) -> None:
            nonlocal damaged
            if body.get("type") == "install" and body["offset"] > 2 * MIB and not damaged:
                damaged += 1
                data = bytearray(body["data"])
                data[77] ^= 1
                body = {**body, "data": bytes(data)}
            await real(channel, body)

        FakeChannel.send = send  # type: ignore[method-assign]
        try:
            await cluster.start(lost)
            machine = cluster.machines[lost]
            loads = machine.loads
            await caught_up(cluster, lost)
        finally:
            FakeChannel.send = real  # type: ignore[method-assign]
        assert damaged == 1
        assert machine.loads == loads + 1, "the damaged one was not loaded"
        assert tap.sent > 2 * 4 * MIB, "it was sent again"

    run_virtual(main())


def test_a_joining_member_gets_the_snapshot_and_its_vote() -> None:
    async def main() -> None:
        cluster, leader, lost = await with_a_straggler(16)
        await cluster.start(lost)
        await caught_up(cluster, lost)
        tap = Tap(cluster, "d")
        cluster.disks["d"] = MemDisk(4)
        await cluster.start("d")
        begin = now()
        term = cluster.logs[leader].status().term
        await cluster.logs[leader].add_member(Member("d", "d:2377"))
        assert {m.id for m in cluster.logs[leader].status().members if m.voter} == set("abcd")
        await caught_up(cluster, "d")
        assert max(tap.most_under_way, tap.largest_burst) <= window(cluster)
        for name in "abc".replace(leader, ""):
            assert tap.longest_silence(name, begin, now()) < cluster.settings.election_min / 2
        assert cluster.logs[leader].status().term == term

    run_virtual(main())
