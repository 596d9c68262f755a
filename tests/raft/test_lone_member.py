"""One manager alone: nobody's answer wakes it, so its own disk has to."""

from __future__ import annotations

import asyncio

from tests.raft.cluster import Cluster
from tests.raft.fakes import run_virtual


def test_a_lone_member_commits_as_soon_as_its_disk_has_the_entry() -> None:
    """Not at the next tick of a timer: that was thirty milliseconds for each write."""

    async def main() -> None:
        cluster = await Cluster("a").boot()
        leader = await cluster.wait_leader()
        await leader.read_index()
        cluster.disks["a"].delay = lambda: 0.001
        begin = asyncio.get_running_loop().time()
        for number in range(20):
            await leader.propose(b"%d" % number)
        assert asyncio.get_running_loop().time() - begin < 20 * 0.003

    run_virtual(main())
