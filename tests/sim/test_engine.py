"""The simulated Engine: containers, events, and a daemon that outlives its clients."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from swarmpy.ports import EngineError, EngineGoneError, LogQuery
from swarmpy.sim.clock import SimClock
from swarmpy.sim.dockerd import Dockerd
from swarmpy.sim.engine import SimEngine
from swarmpy.sim.loop import Process, SimLoop
from swarmpy.sim.trace import Trace


def play(scenario: Callable[[SimLoop, Dockerd, SimEngine], Coroutine[Any, Any, Any]]) -> Any:
    loop = SimLoop()
    daemon = Dockerd(loop, "w1", "seed", SimClock(loop.time), Trace(loop.time))
    return loop.run(scenario(loop, daemon, SimEngine(daemon)))


async def make(engine: SimEngine, image: str, name: str = "c", **config: Any) -> str:
    await engine.pull(image)
    key = await engine.create(name, {"Image": image, "Labels": {"k": "v"}, **config})
    await engine.start(key)
    return key


def test_life_of_a_container() -> None:
    async def scenario(loop: SimLoop, daemon: Dockerd, engine: SimEngine) -> None:
        with pytest.raises(EngineError, match="No such image"):
            await engine.create("c", {"Image": "web"})
        key = await make(engine, "web:1")
        assert [seen.id for seen in await engine.containers(["k=v"])] == [key]
        assert await engine.containers(["k=other"]) == []
        assert (await engine.inspect(key)).state == "running"
        with pytest.raises(EngineError) as taken:
            await engine.create("c", {"Image": "web:1"})
        assert taken.value.conflict
        await engine.stop(key, 10)
        assert (await engine.inspect(key)).exit_code == 0
        await engine.remove(key)
        await engine.remove(key)
        with pytest.raises(EngineError) as missing:
            await engine.inspect(key)
        assert missing.value.missing

    play(scenario)


def test_images_decide_what_happens() -> None:
    async def scenario(loop: SimLoop, daemon: Dockerd, engine: SimEngine) -> None:
        with pytest.raises(EngineError, match="pull access denied"):
            await engine.pull("missing:1")
        crash = await make(engine, "crash", "one")
        job = await make(engine, "registry:5000/job:2", "two")
        probed = await make(engine, "web", "three", Healthcheck={"Test": ["CMD", "true"]})
        assert (await engine.inspect(probed)).health == "starting"
        await asyncio.sleep(5)
        assert (await engine.inspect(crash)).exit_code == 1
        assert (await engine.inspect(job)).state == "exited"
        assert (await engine.inspect(probed)).health == "healthy"

    play(scenario)


def test_grace_ends_with_kill() -> None:
    async def scenario(loop: SimLoop, daemon: Dockerd, engine: SimEngine) -> None:
        key = await make(engine, "stubborn")
        before = loop.time()
        await engine.stop(key, 1)
        assert loop.time() - before < 1.1
        assert (await engine.inspect(key)).exit_code == 137

    play(scenario)


def test_ports_clash() -> None:
    async def scenario(loop: SimLoop, daemon: Dockerd, engine: SimEngine) -> None:
        ports = {"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}}
        key = await make(engine, "web", "one", HostConfig=ports)
        assert (await engine.inspect(key)).ports == (("tcp", 80, 8080),)
        with pytest.raises(EngineError, match="already allocated"):
            await make(engine, "web", "two", HostConfig=ports)

    play(scenario)


def test_events_and_death_with_live_restore() -> None:
    async def scenario(loop: SimLoop, daemon: Dockerd, engine: SimEngine) -> list[str]:
        seen: list[str] = []

        async def watch() -> None:
            try:
                async for event in engine.events():
                    seen.append(event.action)  # noqa: PERF401  what came before the end counts
            except EngineGoneError:
                seen.append("gone")

        watching = asyncio.create_task(watch())
        await asyncio.sleep(0)
        key = await make(engine, "web")
        daemon.die()
        await watching
        with pytest.raises(EngineGoneError):
            await engine.info()
        with pytest.raises(EngineGoneError):
            await engine.events().__anext__()
        daemon.revive()
        assert (await engine.inspect(key)).state == "running"
        daemon.live_restore = False
        daemon.die()
        daemon.revive()
        assert (await engine.inspect(key)).state == "exited"
        return seen

    assert play(scenario) == ["create", "start", "gone"]


def test_requests_are_carried_out_for_dead_clients() -> None:
    async def scenario(loop: SimLoop, daemon: Dockerd, engine: SimEngine) -> None:
        await engine.pull("web")
        process = Process("agent")

        async def agent() -> None:
            await SimEngine(daemon, process).create("c", {"Image": "web"})

        loop.spawn(process, agent())
        await asyncio.sleep(0)
        loop.kill(process)
        await asyncio.sleep(1)
        assert len(daemon.containers) == 1

    play(scenario)


def test_a_hanging_engine_answers_later() -> None:
    async def scenario(loop: SimLoop, daemon: Dockerd, engine: SimEngine) -> None:
        daemon.hang()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await engine.info()
        task = asyncio.create_task(engine.version())
        await asyncio.sleep(1)
        daemon.unhang()
        assert (await task)["Version"]

    play(scenario)


def test_logs_follow_until_the_stop() -> None:
    async def scenario(loop: SimLoop, daemon: Dockerd, engine: SimEngine) -> list[bytes]:
        key = await make(engine, "job")
        return [frame.data async for frame in engine.logs(key, LogQuery(follow=True))]

    assert play(scenario) == [b"hello from c\n"]
