"""The running log dies at every operation of its disk: what `propose` returned for is there afterwards.

One real RaftLog in virtual time, with snapshots in the background every few entries.
"""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest

from swarmpy.ports import AmbiguousError, LogError
from swarmpy.sim.disk import Platter
from tests.raft.cluster import Cluster
from tests.raft.crashing import Died, DyingDisk, killed, power_cuts
from tests.raft.fakes import run_virtual

WORDS = [b"%d" % number for number in range(14)]
SETTINGS: dict[str, Any] = {"snapshot_entries": 4, "keep_entries": 2}


def cluster_on(disk: DyingDisk, **settings: Any) -> Cluster:
    cluster = Cluster("a", **(settings or SETTINGS))
    cluster.disks["a"] = disk  # type: ignore[assignment]  # the same port
    return cluster


async def write_until_death(disk: DyingDisk) -> list[bytes]:
    """Propose the words one after the other; those that were acknowledged."""
    died = asyncio.Event()

    def heard(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        assert isinstance(context.get("exception"), Died), context
        died.set()

    asyncio.get_running_loop().set_exception_handler(heard)
    acked: list[bytes] = []

    async def write() -> None:
        cluster = cluster_on(disk)
        await cluster.boot()
        for word in WORDS:
            await cluster.propose(word)
            acked.append(word)
        await asyncio.sleep(1)  # the last snapshot is stored

    writing = asyncio.ensure_future(write())
    death = asyncio.ensure_future(died.wait())
    await asyncio.wait({writing, death}, return_when=asyncio.FIRST_COMPLETED)
    death.cancel()
    if writing.done():
        writing.result()
    else:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
    return acked


def come_back(platter: Platter) -> list[bytes]:
    """Start on what is left, write one more word; what the machine then holds."""

    async def main() -> list[bytes]:
        cluster = await cluster_on(DyingDisk(platter)).boot()
        await cluster.propose(b"after")
        return cluster.machines["a"].values()

    held: list[bytes] = run_virtual(main())
    return held


@pytest.mark.parametrize("part", range(2))
def test_a_running_log_keeps_what_it_acknowledged_at_any_crash(part: int) -> None:
    count = DyingDisk(Platter("count"))
    assert run_virtual(write_until_death(count)) == WORDS
    snapshots = 0
    for at in range(1 + part, count.sides + 1, 2):
        disk = DyingDisk(platter := Platter("crash"), at)
        acked = run_virtual(write_until_death(disk))
        snapshots += "snapshot" in disk.last
        for cut in (killed(platter), platter.unlucky(), *list(power_cuts(platter))[-3:]):
            held = come_back(cut)
            words = held[:-1]
            assert held[-1] == b"after"
            assert words in (acked, WORDS[: len(acked) + 1]), f"died {disk.last!r} (side {at})"
    assert snapshots >= 10, "it also died while snapshots were stored"


def test_a_failed_sync_stops_the_log_before_it_acknowledges_and_is_never_tried_again() -> None:
    """EIO from fdatasync: the pages are gone, and another fdatasync would say that all is well."""

    async def main() -> None:
        disk = DyingDisk(platter := Platter("eio"))
        cluster = await cluster_on(disk, snapshot_entries=1000).boot()
        await cluster.propose(b"before")
        log = cluster.logs["a"]
        platter.failing_sync = 1
        with pytest.raises(AmbiguousError):
            await cluster.propose(b"lost")
        await log.failed.wait()
        sides = disk.sides
        assert disk.last.startswith("before sync raft/journal")
        with pytest.raises(LogError):
            await log.propose(b"refused")
        await asyncio.sleep(5)
        assert disk.sides == sides, "nothing more is written, nothing is synced again"
        assert log.failure is not None
        assert "Input/output error" in log.failure
        await log.stop()
        # What a restart then finds in the page cache has to reach the platter by another way.
        await log.start()
        await cluster.propose(b"after")
        machine = cluster.machines["a"].values()
        assert machine in ([b"before", b"after"], [b"before", b"lost", b"after"])
        left = copy.deepcopy(platter).unlucky()
        await log.stop()
        again = await cluster_on(DyingDisk(left)).boot()
        await again.propose(b"again")
        assert again.machines["a"].values() == [*machine, b"again"]

    run_virtual(main())
