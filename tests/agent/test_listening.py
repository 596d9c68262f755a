"""A task that publishes TCP ports is starting until its program listens: on a simulated Engine, in virtual
time."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from swarmpy.agent.listening import EVERY, UNSEEN
from swarmpy.model.lifecycle import TaskState
from swarmpy.model.messages import Assigned
from swarmpy.plan.listening import BOUND, LABEL
from swarmpy.sim.containers import Behaviour
from swarmpy.sim.sockets import SimSockets
from tests.agent.rig import Rig, task

SOON = 3 * EVERY
"""Seconds within which what came true is seen to, and reported."""


def web(
    *ports: Any, key: str = "t1", image: str = "shy:1", wait: str = "", desired: TaskState = TaskState.RUNNING
) -> Assigned:
    """A task that publishes these ports: a target port, or a port's fields."""
    published = [one if isinstance(one, dict) else {"TargetPort": one, "PublishedPort": one} for one in ports]
    made = task(key, desired, image=image, service_labels={LABEL: wait} if wait else {})
    return msgspec.structs.replace(made, endpoint=json.dumps({"Ports": published}))


def rig(**late: float) -> Rig:
    """Containers of shy:1 never listen, but on ports (p80=SECONDS) some time after their start."""
    made = Rig()
    delays = {int(name[1:]): seconds for name, seconds in late.items()}
    made.dockerd.behaviours["shy:1"] = Behaviour(listens=None, late=delays)
    return made


async def running(rig: Rig, key: str = "t1") -> float:
    """Seconds between the start of the task's container and the report that it runs."""
    await rig.reaches(key, "running")
    return rig.loop.time() - rig.of(key)[0].began


@pytest.mark.parametrize("mode", ["ingress", "host"])
def test_it_runs_as_soon_as_it_listens(mode: str) -> None:
    one = rig(p80=4)

    async def scenario() -> None:
        await one.leader.assign(web({"TargetPort": 80, "PublishedPort": 8080, "PublishMode": mode}))
        await one.boot()
        assert 4 <= await running(one) <= 4 + SOON
        assert one.leader.history["t1"][-2:] == ["starting", "running"]
        assert one.leader.statuses["t1"].message == "started"
        looks = one.sockets.looks
        await asyncio.sleep(60)
        assert one.sockets.looks == looks, "nobody looks at what runs"

    one.run(scenario)


def test_all_its_ports_have_to_listen() -> None:
    one = rig(p80=0, p81=3, p82=1.5)

    async def scenario() -> None:
        await one.leader.assign(web(80, 81, 82))
        await one.boot()
        assert 3 <= await running(one) <= 3 + SOON

    one.run(scenario)


@pytest.mark.parametrize(
    ("wait", "bound", "sentence"),
    [
        ("", BOUND, "nothing listened on TCP port 81 within 10 s"),
        ("2500ms", 2.5, "nothing listened on TCP port 81 within 2.5 s"),
        ("1m", 60, "nothing listened on TCP port 81 within 60 s"),
    ],
)
def test_what_never_listens_runs_when_its_bound_has_passed_and_that_is_said_once(
    wait: str, bound: float, sentence: str, caplog: pytest.LogCaptureFixture
) -> None:
    one = rig(p80=0)

    async def scenario() -> None:
        with caplog.at_level(logging.WARNING):
            await one.leader.assign(web(80, 81, wait=wait))
            await one.boot()
            await one.until(lambda: one.leader.state("t1") == "running", 100)
            assert bound <= one.loop.time() - one.of("t1")[0].began <= bound + SOON
            assert one.leader.statuses["t1"].message == f"started: {sentence}"
            await asyncio.sleep(60)
        assert [record.getMessage() for record in caplog.records] == [
            f"task {web(80).name} runs, but {sentence}"
        ]

    one.run(scenario)


@pytest.mark.parametrize(
    "made",
    [
        web(80, wait="0s"),
        web({"TargetPort": 80, "Protocol": "udp"}, {"TargetPort": 80, "Protocol": "sctp"}),
        web(),
    ],
    ids=["turned off", "no TCP port", "no port"],
)
def test_it_runs_at_once_where_nothing_is_waited_for(made: Assigned) -> None:
    one = rig()

    async def scenario() -> None:
        await one.leader.assign(made)
        await one.boot()
        assert await running(one) <= SOON
        assert one.leader.statuses["t1"].message == "started"
        assert one.sockets.looks == 0

    one.run(scenario)


def test_a_health_check_says_more_than_sockets_do() -> None:
    one = rig()
    one.dockerd.behaviours["probed:1"] = Behaviour(listens=None, probed=True)

    async def scenario() -> None:
        await one.leader.assign(web(80, image="probed:1"))
        await one.boot()
        assert await running(one) < 1
        assert one.of("t1")[0].health == "healthy"
        assert one.sockets.looks == 0

    one.run(scenario)


async def _waits(one: Rig) -> None:
    """The container runs and is looked at."""
    await one.reaches("t1", "starting")
    await one.until(lambda: one.sockets.looks > 2)


def test_it_is_stopped_while_it_is_waited_for() -> None:
    one = rig()

    async def scenario() -> None:
        await one.leader.assign(web(80))
        await one.boot()
        await _waits(one)
        await one.leader.assign(web(80, desired=TaskState.SHUTDOWN))
        await one.reaches("t1", "shutdown", 2)
        assert "running" not in one.leader.history["t1"]
        looks = one.sockets.looks
        await asyncio.sleep(30)
        assert one.sockets.looks == looks

    one.run(scenario)


@pytest.mark.parametrize("heard", [True, False])
def test_one_that_ends_while_it_is_waited_for_has_failed_at_once(heard: bool) -> None:
    one = rig()
    one.dockerd.deaf = 0.0 if heard else 1.0

    async def scenario() -> None:
        await one.leader.assign(web(80))
        await one.boot()
        await _waits(one)
        one.dockerd.finish(one.of("t1")[0], 3)
        await one.reaches("t1", "failed", 0.5)
        assert "running" not in one.leader.history["t1"]

    one.run(scenario)


def test_a_restart_of_the_agent_goes_on_waiting() -> None:
    one = rig(p80=8)

    async def scenario() -> None:
        await one.leader.assign(web(80))
        await one.boot()
        await _waits(one)
        one.crash()
        await asyncio.sleep(1)
        await one.boot()
        assert 8 <= await running(one) <= 8 + SOON
        assert len(one.dockerd.starts) == 1

    one.run(scenario)


def test_what_began_to_listen_while_the_agent_was_away_is_adopted_at_once() -> None:
    one = rig(p80=3)

    async def scenario() -> None:
        await one.leader.assign(web(80))
        await one.boot()
        await _waits(one)
        one.crash()
        await asyncio.sleep(5)
        assert one.leader.state("t1") == "starting"
        await one.boot()
        booted = one.loop.time()
        await one.reaches("t1", "running", 5)
        assert one.loop.time() - booted < 1
        assert len(one.dockerd.starts) == 1

    one.run(scenario)


@pytest.mark.parametrize("remembers", [True, False])
def test_what_ran_is_never_starting_again(remembers: bool) -> None:
    """Not after its agent began anew, nor after somebody restarted its container, though it does not listen."""
    one = rig()

    async def scenario() -> None:
        await one.leader.assign(web(80, wait="1s"))
        await one.boot()
        await one.reaches("t1", "running")
        one.crash()
        if not remembers:
            one.platter.wipe()
        await one.boot()
        await asyncio.sleep(5)
        (container,) = one.of("t1")
        one.dockerd.finish(container, 0, quiet=True)
        one.dockerd.begin(container.id)
        await one.until(lambda: one.leader.statuses["t1"].pid == container.pid)
        await asyncio.sleep(15)
        first = one.leader.history["t1"].index("running")
        assert set(one.leader.history["t1"][first:]) == {"running"}
        assert len(one.of("t1")) == 1

    one.run(scenario)


class Blind(SimSockets):
    """Nobody may look into namespaces."""

    async def listening(self, asked: Mapping[int, frozenset[int]]) -> Mapping[int, frozenset[int]]:
        await super().listening(asked)
        return {}


def test_what_cannot_be_looked_at_is_not_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    one = rig()
    one.sockets = Blind(one.dockerd)

    async def scenario() -> None:
        await one.leader.assign(web(80, wait="1m"))
        await one.boot()
        assert await running(one) <= UNSEEN + 1
        assert one.leader.statuses["t1"].message == "started"
        assert [record.getMessage() for record in caplog.records if "listen" in record.getMessage()] == [
            f"the sockets of container {one.of('t1')[0].id} cannot be looked at: it is taken to listen"
        ]

    one.run(scenario)


def test_many_are_waited_for_together_and_each_runs_when_it_listens() -> None:
    one = Rig()
    keys = [f"t{number}" for number in range(20)]
    for number, _ in enumerate(keys):
        one.dockerd.behaviours[f"i{number}:1"] = Behaviour(listens=None, late={80: number / 4})

    async def scenario() -> None:
        await one.leader.assign(*(web(80, key=key, image=f"i{n}:1") for n, key in enumerate(keys)))
        for number, key in enumerate(keys):
            one.leader.want[key] = msgspec.structs.replace(one.leader.want[key], slot=number + 1)
        await one.boot()
        seen: dict[str, float] = {}

        def all_run() -> bool:
            for key in keys:
                if key not in seen and one.leader.state(key) == "running":
                    seen[key] = one.loop.time() - one.of(key)[0].began
            return len(seen) == len(keys)

        await one.until(all_run)
        for number, key in enumerate(keys):
            assert number / 4 <= seen[key] <= number / 4 + 1, key

    one.run(scenario)
