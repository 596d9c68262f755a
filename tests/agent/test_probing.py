"""The agent's questions to other nodes, in virtual time: losses reach the balancers, paths are tried and said."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec.structs import replace as with_

from swarmpy.agent.probing import Probing
from swarmpy.model.fabric import Table
from swarmpy.plan.probing import PORT
from swarmpy.sim.clock import SimEntropy
from swarmpy.sim.loop import SimLoop
from swarmpy.sim.prober import SimProber, Underlay
from tests.plan.test_fabric import table

KEY = b"k" * 32
ADDRESSES = ("10.0.0.1", "10.0.0.2", "10.0.0.3")


def in_virtual_time(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    loop = SimLoop()
    try:
        loop.run_until_complete(work())
    finally:
        loop.close()


class Node:
    """A node that asks, and answers."""

    def __init__(self, underlay: Underlay, address: str, *, key: bytes = KEY) -> None:
        self.tables: dict[str, Table] = {"n1": table(peers=ADDRESSES)}
        self.lost: list[frozenset[str]] = []
        self.prober = SimProber(underlay)
        self._address, self._key = address, key
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """A life of the agent."""
        self.probing = Probing(
            self.prober,
            SimEntropy(int(self._address[-1])),
            lambda: self._address,
            lambda: self.tables,
            self.lost.append,
        )
        self.probing.know(self._key)
        self.task = asyncio.ensure_future(self.probing.run())

    async def die(self) -> None:
        assert self.task is not None
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.prober.stop()


@asynccontextmanager
async def three(
    underlay: Underlay, *, keys: tuple[bytes, ...] = (KEY, KEY, KEY)
) -> AsyncGenerator[list[Node], None]:
    nodes = [Node(underlay, one, key=key) for one, key in zip(ADDRESSES, keys, strict=True)]
    for node in nodes:
        node.start()
    try:
        await asyncio.sleep(3)
        yield nodes
    finally:
        for node in nodes:
            await node.die()


def test_a_dead_node_is_lost_and_comes_back() -> None:
    async def work() -> None:
        async with three(Underlay()) as nodes:
            assert nodes[0].lost == []
            await nodes[2].die()
            await asyncio.sleep(1.0)
            assert [one.lost for one in nodes[:2]] == [[frozenset({ADDRESSES[2]})]] * 2
            assert nodes[0].probing.lost == (ADDRESSES[2],)
            nodes[2].start()
            await asyncio.sleep(2.5)
            assert nodes[0].lost[-1] == frozenset()
            assert nodes[2].lost == []

    in_virtual_time(work)


def test_a_node_that_is_cut_off_blames_nobody() -> None:
    async def work() -> None:
        cut = False
        underlay = Underlay(lambda source, target: not (cut and ADDRESSES[0] in (source, target)))
        async with three(underlay) as nodes:
            cut = True
            await asyncio.sleep(5)
            assert nodes[0].lost == []
            assert nodes[1].lost == [frozenset({ADDRESSES[0]})]

    in_virtual_time(work)


def test_a_node_with_another_key_is_never_heard_and_therefore_never_lost() -> None:
    async def work() -> None:
        async with three(Underlay(), keys=(KEY, KEY, b"x" * 32)) as nodes:
            await nodes[2].die()
            await asyncio.sleep(5)
            assert nodes[0].lost == []

    in_virtual_time(work)


def test_a_peer_that_leaves_the_tables_is_asked_no_more_and_without_tables_nothing_is_sent() -> None:
    async def work() -> None:
        underlay = Underlay()
        async with three(underlay) as nodes:
            for node in nodes:
                node.tables = {}
                node.probing.look()
            await asyncio.sleep(3)  # trials that had begun end
            sent = underlay.sent
            await asyncio.sleep(60)
            assert underlay.sent == sent

    in_virtual_time(work)


def test_a_port_that_cannot_be_had_is_said_and_asked_for_again() -> None:
    async def work() -> None:
        underlay = Underlay()
        squatter = SimProber(underlay)
        await squatter.serve(ADDRESSES[0], PORT, KEY)
        async with three(underlay) as nodes:
            assert "probes" in nodes[0].probing.problems
            assert not nodes[0].probing.serving
            await squatter.stop()
            await asyncio.sleep(6)
            assert nodes[0].probing.problems == {}
            assert nodes[0].probing.serving

    in_virtual_time(work)


def test_a_path_that_is_too_narrow_is_said_once_and_forgotten_when_it_is_wide(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def work() -> None:
        underlay = Underlay()
        underlay.mtu = 1400
        async with three(underlay) as nodes:
            await asyncio.sleep(120)
            [first, second] = [text for key, text in nodes[0].probing.problems.items()]
            assert "10.0.0.2 does not pass packets of 1500 bytes" in first
            assert "10.0.0.3" in second
            assert (
                sum("10.0.0.2 does not pass" in one.getMessage() for one in caplog.records) == 2
            )  # two nodes say it
            assert nodes[0].lost == []
            assert nodes[0].tables["n1"].mtu == 1450
            underlay.mtu = 1500
            await asyncio.sleep(65)
            assert nodes[0].probing.problems == {}

    with caplog.at_level(logging.WARNING):
        in_virtual_time(work)


def test_a_wider_table_has_its_paths_tried_anew() -> None:
    async def work() -> None:
        async with three(Underlay()) as nodes:
            assert nodes[0].probing.problems == {}
            nodes[0].tables = {"n1": with_(nodes[0].tables["n1"], mtu=8950)}
            await asyncio.sleep(4)
            assert "9000 bytes" in nodes[0].probing.problems["path 10.0.0.2"]

    in_virtual_time(work)


def test_paths_are_tried_on_demand_in_spite_of_loss() -> None:
    async def work() -> None:
        count = 0

        def passes(_source: str, _target: str) -> bool:
            nonlocal count
            count += 1
            return count % 3 != 0

        async with three(Underlay(passes)) as nodes:
            [two, nobody] = await nodes[0].probing.try_paths({"10.0.0.2": 1472, "10.0.0.9": 1472}, 2.0)
            assert (two.small, two.full) == (True, True)
            assert (nobody.small, nobody.full) == (False, False)

    in_virtual_time(work)
