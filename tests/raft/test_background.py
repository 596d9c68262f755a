"""What fails beside the turns of the engine ends the log as loudly as what fails in them."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable

import pytest

from swarmpy.ports import LogRole
from tests.raft.cluster import Cluster
from tests.raft.fakes import run_virtual


async def a_leader_that_has_to_read_its_snapshot() -> tuple[Cluster, str, str]:
    """One member stays away until the leader has only a snapshot for it."""
    cluster = await Cluster("abc", snapshot_entries=10, keep_entries=0).boot()
    leader = await cluster.wait_leader()
    away = next(name for name in "abc" if name != leader.self_id)
    await cluster.kill(away)
    for number in range(30):
        await leader.propose(b"%d" % number)
    await asyncio.sleep(0.2)
    return cluster, leader.self_id, away


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), RuntimeError("a bug")])
def test_a_snapshot_that_cannot_be_read_stops_the_leader_and_its_channels(error: Exception) -> None:
    async def main() -> None:
        cluster, name, away = await a_leader_that_has_to_read_its_snapshot()
        log = cluster.logs[name]
        disk, read = cluster.disks[name], cluster.disks[name].read

        def fails(path: str) -> bytes:
            if path.endswith(".img"):
                raise error
            return read(path)

        disk.read = fails  # type: ignore[method-assign]
        await cluster.start(away)
        async with asyncio.timeout(5):
            await log.failed.wait()
        await asyncio.sleep(0.1)
        assert (error.strerror if isinstance(error, OSError) else str(error)) in str(log.failure)
        assert not any(name in (channel.me, channel.other) for channel in cluster.net.channels)
        index = await cluster.propose(b"the others go on")
        await cluster.logs[away].wait_applied(index)

    run_virtual(main())


def test_a_state_that_cannot_be_encoded_stops_the_log() -> None:
    async def main() -> None:
        cluster = await Cluster("a", snapshot_entries=10).boot()
        leader = await cluster.wait_leader()

        def broken() -> Callable[[], bytes]:
            def encode() -> bytes:
                raise RuntimeError("no such state")

            return encode

        cluster.machines["a"].save = broken  # type: ignore[method-assign]
        results = await asyncio.gather(
            *(leader.propose(b"%d" % n) for n in range(40)), return_exceptions=True
        )
        assert any(isinstance(result, tuple) for result in results)
        async with asyncio.timeout(5):
            await leader.failed.wait()
        assert "no such state" in str(leader.failure)
        assert leader.status().role is LogRole.STOPPED

    run_virtual(main())
