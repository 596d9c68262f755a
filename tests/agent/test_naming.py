"""The Engine's networks: made for containers, removed with the cluster's networks, never in the way."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from swarmpy.agent.naming import EngineNetworks
from swarmpy.plan.container import Place, Wire
from swarmpy.ports import EngineError, EngineGoneError
from swarmpy.sim.clock import SimClock
from swarmpy.sim.dockerd import Dockerd
from swarmpy.sim.engine import SimEngine
from swarmpy.sim.loop import SimLoop
from swarmpy.sim.trace import Trace

Scenario = Callable[[Dockerd, SimEngine, EngineNetworks, dict[str, Wire]], Coroutine[Any, Any, Any]]


def play(scenario: Scenario) -> Any:
    loop = SimLoop()
    daemon = Dockerd(loop, "w1", "seed", SimClock(loop.time), Trace(loop.time))
    daemon.images.add("web:1")
    engine, wires = SimEngine(daemon), {"new": Wire("red"), "other": Wire("blue")}
    return loop.run(scenario(daemon, engine, EngineNetworks(engine, lambda: wires), wires))


def config(network: str) -> dict[str, Any]:
    return {"Image": "web:1", "NetworkingConfig": {"EndpointsConfig": {network: {"DriverOpts": {}}}}}


def test_a_name_is_free_again_once_its_network_is_gone() -> None:
    """The Engine's network outlived the cluster's: no container could be made for the next one of that name."""

    async def scenario(daemon: Dockerd, engine: SimEngine, networks: EngineNetworks, wires: Any) -> None:
        await engine.ensure_network("red", "old")
        await networks.ensure(Place("red", "new", {}))
        assert daemon.networks == {"red": "new"}

    play(scenario)


def test_while_the_old_network_is_in_use_the_new_one_waits() -> None:
    async def scenario(daemon: Dockerd, engine: SimEngine, networks: EngineNetworks, wires: Any) -> None:
        await engine.ensure_network("red", "old")
        old = await engine.create("c", config("red"))
        await engine.start(old)
        with pytest.raises(EngineGoneError, match="active endpoints"):
            await networks.ensure(Place("red", "new", {}))
        await engine.stop(old, 1.0)
        await networks.ensure(Place("red", "new", {}))
        assert daemon.networks == {"red": "new"}

    play(scenario)


def test_a_name_that_a_carried_network_uses_is_refused_for_good() -> None:
    async def scenario(daemon: Dockerd, engine: SimEngine, networks: EngineNetworks, wires: Any) -> None:
        await engine.ensure_network("red", "other")
        await engine.start(await engine.create("c", config("red")))
        with pytest.raises(EngineError) as refused:
            await networks.ensure(Place("red", "new", {}))
        assert not isinstance(refused.value, EngineGoneError)
        assert daemon.networks == {"red": "other"}

    play(scenario)


def test_what_is_carried_no_more_goes_and_what_is_needed_stays() -> None:
    async def scenario(daemon: Dockerd, engine: SimEngine, networks: EngineNetworks, wires: Any) -> None:
        for name, key in (("red", "new"), ("green", "gone"), ("grey", "coming")):
            await engine.ensure_network(name, key)
        used = await engine.create("c", config("green"))
        await engine.start(used)
        networks.stale = True
        await networks.tidy({"coming"})
        assert networks.stale
        assert sorted(daemon.networks) == ["green", "grey", "red"]
        await engine.stop(used, 1.0)
        await networks.tidy(())
        assert not networks.stale
        assert daemon.networks == {"red": "new"}

    play(scenario)
