"""The simulated Engine connects containers as libnetwork does: through the driver, before the process runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from swarmpy.ports import EngineError, EngineGoneError, FabricError, Joined, Link, Plug, Plugged
from swarmpy.sim.clock import SimClock
from swarmpy.sim.dockerd import Dockerd
from swarmpy.sim.engine import SimEngine
from swarmpy.sim.kernel import Kernel
from swarmpy.sim.libnetwork import Libnetwork
from swarmpy.sim.loop import Process, SimLoop
from swarmpy.sim.trace import Trace

LINK = Link("n1", 4096, 1450, "192.0.2.1", gateways=("10.0.1.1/24",))


class Stand:
    """An Engine, a kernel, and a plumber that plugs what it is asked to."""

    def __init__(self) -> None:
        self.loop = SimLoop()
        trace = Trace(self.loop.time)
        self.failures: list[BaseException] = []
        self.kernel = Kernel(
            self.loop, "w1", "seed", trace, "192.0.2.1", lambda _, one: self.failures.append(one)
        )
        self.daemon = Dockerd(self.loop, "w1", "seed", SimClock(self.loop.time), trace)
        self.daemon.images.add("web:1")
        Libnetwork(self.daemon, self.kernel)
        self.engine = SimEngine(self.daemon)
        self.process = Process("agent")
        self.ports = self.kernel.ports(self.process)
        self.refuses = ""
        self.seen: list[str] = []

    async def create(self, endpoint: Plugged) -> tuple[tuple[str, ...], str]:
        self.seen.append("create")
        return ("10.0.1.7/24",), "02:00:00:00:00:07"

    async def join(self, endpoint: Plugged) -> Joined:
        self.seen.append("join")
        if self.refuses:
            raise FabricError(self.refuses)
        assert not self.kernel.exists(endpoint.sandbox)
        return Joined(
            await self.ports.overlay.plug(Plug(endpoint.endpoint_id, "n1", "02:00:00:00:00:07", 1450)), "eth"
        )

    async def leave(self, endpoint_id: str) -> None:
        self.seen.append("leave")
        await self.ports.overlay.unplug("n1", endpoint_id)

    def die(self) -> None:
        self.loop.kill(self.process)
        self.kernel.process_gone()

    async def container(self) -> str:
        await self.ports.overlay.ensure(LINK)
        await self.ports.driver.start(self)
        await self.engine.ensure_network("blue", "n1")
        ends = {"blue": {"DriverOpts": {"io.swarmpy.network": "n1"}}}
        return await self.engine.create(
            "c", {"Image": "web:1", "NetworkingConfig": {"EndpointsConfig": ends}}
        )

    @property
    def free_ends(self) -> list[str]:
        """Where the free ends of the pairs are."""
        return [port.place for port in self.kernel.stack._ports()]

    def run(self, scenario: Callable[[Stand, str], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            await scenario(self, await self.container())

        self.loop.run(main())
        assert not self.failures
        assert not self.loop.problems


def test_a_container_is_connected_before_it_runs_and_given_back_when_it_ends() -> None:
    async def scenario(stand: Stand, key: str) -> None:
        starting = asyncio.ensure_future(stand.engine.start(key))
        assert await stand.ports.sandboxes.appeared(stand.daemon.find(key).sandbox_of(1), patience=5.0)
        assert stand.daemon.find(key).state == "created"
        await starting
        assert stand.seen == ["create", "join"]
        assert stand.free_ends == [stand.daemon.find(key).sandbox]
        await stand.engine.stop(key, 1.0)
        await asyncio.sleep(0.5)
        assert "leave" in stand.seen
        assert stand.free_ends == list(stand.kernel.namespaces) == []

    Stand().run(scenario)


def test_a_start_fails_with_the_drivers_sentence_and_leaves_nothing() -> None:
    async def scenario(stand: Stand, key: str) -> None:
        stand.refuses = "no room in the kernel"
        with pytest.raises(EngineError, match="no room in the kernel"):
            await stand.engine.start(key)
        await asyncio.sleep(0.5)
        assert stand.daemon.find(key).state == "created"
        assert stand.free_ends == list(stand.kernel.namespaces) == []

    Stand().run(scenario)


def test_without_a_driver_a_start_fails_after_a_while_and_an_end_leaves_links_behind() -> None:
    async def scenario(stand: Stand, key: str) -> None:
        await stand.engine.start(key)
        stand.die()
        await stand.engine.stop(key, 1.0)
        await asyncio.sleep(40.0)
        assert stand.free_ends == [""]
        assert stand.kernel.namespaces == {}
        began = stand.loop.time()
        with pytest.raises(EngineError, match="connection refused"):
            await stand.engine.start(key)
        assert 14.0 < stand.loop.time() - began < 17.0

    Stand().run(scenario)


def test_an_engine_that_dies_during_a_start_cleans_up_when_it_is_back() -> None:
    async def scenario(stand: Stand, key: str) -> None:
        starting = asyncio.ensure_future(stand.engine.start(key))
        await stand.ports.sandboxes.appeared(stand.daemon.find(key).sandbox_of(1), patience=5.0)
        stand.daemon.die()
        with pytest.raises(EngineGoneError):
            await starting
        await asyncio.sleep(1.0)
        assert stand.daemon.find(key).state == "created"
        stand.daemon.revive()
        await asyncio.sleep(1.0)
        assert stand.free_ends == list(stand.kernel.namespaces) == []

    Stand().run(scenario)


def test_with_live_restore_an_engines_death_disturbs_nothing() -> None:
    async def scenario(stand: Stand, key: str) -> None:
        await stand.engine.start(key)
        path = stand.daemon.find(key).sandbox
        stand.daemon.die()
        await asyncio.sleep(1.0)
        assert stand.free_ends == [path]
        stand.daemon.finish(stand.daemon.find(key), 1)
        await asyncio.sleep(1.0)
        assert stand.free_ends == [path], "nobody is there to clean up"
        stand.daemon.revive()
        await asyncio.sleep(1.0)
        assert stand.free_ends == list(stand.kernel.namespaces) == []

    Stand().run(scenario)
