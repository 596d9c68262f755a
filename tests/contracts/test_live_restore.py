"""The worker on a real Engine that is killed, brought back, and frozen: what it says stays true."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from swarmpy.adapters.clock import SystemClock
from swarmpy.adapters.disk import FileDisk
from swarmpy.adapters.docker import DockerEngine
from swarmpy.adapters.sockets import ProcSockets
from swarmpy.agent import journal
from swarmpy.agent.worker import Worker
from swarmpy.model.lifecycle import TaskState
from swarmpy.model.messages import Assigned, Assignments
from swarmpy.plan.template import NodeFacts
from tests.contracts.engines import Real, until

pytestmark = pytest.mark.lab


def task(key: str, image: str) -> Assigned:
    script = "trap 'exit 0' TERM; sleep 1000 & wait"
    template = {"ContainerSpec": {"Image": image, "Command": ["sh", "-c", script]}}
    return Assigned(
        id=key, service_id="s1", service_name="web", slot=1, node_id="n1", template=json.dumps(template),
        endpoint="{}", desired=TaskState.RUNNING,
    )  # fmt: skip


@pytest.fixture(scope="module")
def house() -> Iterator[Real]:
    house = Real()
    yield house
    house.close()


@pytest.fixture(autouse=True)
def tidy(house: Real) -> Iterator[None]:
    yield
    house.tidy()


class Node:
    """A worker, and everything it said."""

    def __init__(self, house: Real, folder: Path) -> None:
        self.engine = DockerEngine(house.private.url)
        self.said: list[tuple[str, str]] = []
        self.disk = FileDisk(folder)
        self.worker = Worker(
            "c1", self.engine, ProcSockets(), self.disk, SystemClock(), lambda: NodeFacts("n1"),
            lambda key, status: self.said.append((key, status.state.word)),
        )  # fmt: skip

    async def reaches(self, key: str, state: str) -> None:
        async def there() -> bool:
            return (key, state) in self.said

        await until(there)


@asynccontextmanager
async def working(house: Real, folder: Path) -> AsyncIterator[Node]:
    node = Node(house, folder)
    node.worker.remember(journal.load(node.disk))
    running = asyncio.create_task(node.worker.run())
    try:
        yield node
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        node.engine.close()


async def test_the_engine_is_killed_and_comes_back(house: Real, tmp_path: Path) -> None:
    tasks = (task("stays", house.image), task("ends", house.image))
    async with working(house, tmp_path) as node:
        node.worker.assign(Assignments(seq=1, full=True, tasks=tasks))
        await node.reaches("stays", "running")
        await node.reaches("ends", "running")
        before = {one.labels["com.docker.swarm.task.id"]: one for one in await node.engine.containers([])}
        said = len(node.said)
        house.kill()
        os.kill(before["ends"].pid, signal.SIGKILL)
        await asyncio.sleep(2)
        assert len(node.said) == said, "while the Engine is away nothing is concluded"
        house.revive()
        await node.reaches("ends", "failed")
        (stays,) = await node.engine.containers(["com.docker.swarm.task.id=stays"])
        assert (stays.state, stays.pid, stays.started_at) == (
            "running", before["stays"].pid, before["stays"].started_at,
        )  # fmt: skip
        assert {key for key, _ in node.said[said:]} == {"ends"}
        # Events are heard again: sooner than the next look round.
        house.kill_container(stays.id)
        async with asyncio.timeout(5):
            await node.reaches("stays", "failed")


async def test_engine_and_agent_are_killed_together(house: Real, tmp_path: Path) -> None:
    async with working(house, tmp_path) as node:
        node.worker.assign(Assignments(seq=1, full=True, tasks=(task("t1", house.image),)))
        await node.reaches("t1", "running")
        (before,) = await node.engine.containers([])

        async def kept() -> bool:
            return bool(journal.load(node.disk).tasks)

        await until(kept)
        house.kill()
    async with working(house, tmp_path) as node:
        await asyncio.sleep(1)
        house.revive()
        (after,) = await node.engine.containers([])
        assert after == before
        await asyncio.sleep(1)
        assert {state for _, state in node.said} <= {"running"}
        assert node.worker.container_of("t1") == before.id


async def test_the_engine_hangs(house: Real, tmp_path: Path) -> None:
    async with working(house, tmp_path) as node:
        node.worker.assign(Assignments(seq=1, full=True, tasks=(task("t1", house.image),)))
        await node.reaches("t1", "running")
        said = len(node.said)
        house.freeze()
        node.worker.assign(Assignments(seq=2, full=False, tasks=(task("t2", house.image),)))
        await asyncio.sleep(2)
        assert {key for key, _ in node.said[said:]} <= {"t2"}
        assert ("t2", "ready") not in node.said
        house.thaw()
        await node.reaches("t2", "running")
        assert {state for key, state in node.said[said:] if key == "t1"} <= {"running"}
