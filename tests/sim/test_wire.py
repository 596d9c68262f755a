"""The simulated wire: refusals, order, breaks, partitions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from swarmpy.model.errors import NotFound
from swarmpy.ports import Body, Channel, Peer, RefusedError, WireError
from swarmpy.sim.loop import Process, SimLoop
from swarmpy.sim.net import Conditions, SimNet
from swarmpy.sim.trace import Trace
from swarmpy.sim.wire import SimWire


class Two:
    """A manager `a` that serves and a manager `b` that dials."""

    def __init__(self, seed: str = "s") -> None:
        self.loop = SimLoop()
        self.net = SimNet(self.loop, seed, Trace(self.loop.time))
        self.a_process, self.b_process = Process("a"), Process("b")
        self.a = SimWire(self.net, "10.0.0.1", self.a_process, Peer("a", "manager", "c", "1"))
        self.b = SimWire(self.net, "10.0.0.2", self.b_process, Peer("b", "manager", "c", "2"))
        self.at = "10.0.0.1:2377"

    def run(self, scenario: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        async def main() -> Any:
            await self.a.start(self.at)
            return await self.loop.spawn(self.b_process, scenario())

        return self.loop.run(main())


async def echo(peer: Peer, body: Body) -> Body:
    return {"from": peer.node_id, **body}


def test_a_call_and_its_refusals() -> None:
    two = Two()

    async def missing(peer: Peer, body: Body) -> Body:
        raise NotFound("no such thing")

    two.a.on_call("ping", echo)
    two.a.on_call("cluster.managers", missing)

    async def scenario() -> None:
        assert await two.b.call(two.at, "ping", {"n": 1}) == {"from": "b", "n": 1}
        with pytest.raises(RefusedError, match="no such thing") as refused:
            await two.b.call(two.at, "cluster.managers", {})
        assert refused.value.code == "NotFound"
        with pytest.raises(RefusedError, match="serves no call"):
            await two.b.call(two.at, "rm -rf", {})
        two.b.me = Peer("w", "worker", "c", "3")
        with pytest.raises(RefusedError, match="managers only"):
            await two.b.call(two.at, "control.submit", {})
        two.b.me = Peer("w", "worker", "other", "3")
        with pytest.raises(RefusedError, match="another cluster"):
            await two.b.call(two.at, "ping", {})
        with pytest.raises(WireError, match="refuses connections"):
            await two.b.call("10.0.0.1:1", "ping", {})

    two.run(scenario)


def test_a_wall_times_calls_out_and_healing_helps() -> None:
    two = Two()
    two.a.on_call("ping", echo)

    async def scenario() -> None:
        heal = two.net.wall(["10.0.0.1"], ["10.0.0.2"], both=False)
        before = two.loop.time()
        with pytest.raises(WireError, match="no answer"):
            await two.b.call(two.at, "ping", {}, timeout=2)
        assert two.loop.time() == pytest.approx(before + 2)
        heal()
        await two.b.call(two.at, "ping", {}, timeout=2)

    two.run(scenario)


def test_channels_keep_order_under_loss() -> None:
    two = Two()
    got: list[int] = []

    async def serve(channel: Channel, hello: Body) -> None:
        for _ in range(100):
            got.append((await channel.recv())["n"])  # noqa: PERF401
        await channel.send({"bye": True})

    two.a.on_channel("raft", serve)
    two.net.usual = Conditions(latency=(0.001, 0.5), loss=0.3)

    async def scenario() -> Body:
        channel = await two.b.open(two.at, "raft", {})
        assert channel.peer.node_id == "a"
        for number in range(100):
            await channel.send({"n": number})
        return await channel.recv()

    assert two.run(scenario) == {"bye": True}
    assert got == list(range(100))


def test_a_slow_reader_stops_the_sender() -> None:
    two = Two()
    sent: list[int] = []

    async def serve(channel: Channel, hello: Body) -> None:
        await channel.send({})
        await asyncio.sleep(1000)

    two.a.on_channel("raft", serve)

    async def scenario() -> None:
        channel = await two.b.open(two.at, "raft", {})

        async def flood() -> None:
            while True:
                await channel.send({"data": bytes(100_000)})
                sent.append(1)

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(flood(), 10)

    two.run(scenario)
    assert len(sent) == 3


def test_a_handler_can_refuse_the_channel() -> None:
    two = Two()

    async def serve(channel: Channel, hello: Body) -> None:
        raise RefusedError("Unavailable", "not the leader")

    two.a.on_channel("raft", serve)

    async def scenario() -> None:
        with pytest.raises(RefusedError, match="not the leader"):
            await two.b.open(two.at, "raft", {})

    two.run(scenario)


def test_the_death_of_a_process_breaks_its_channels_and_calls() -> None:
    two = Two()

    async def serve(channel: Channel, hello: Body) -> None:
        await channel.recv()
        await channel.recv()

    async def slow(peer: Peer, body: Body) -> Body:
        await asyncio.sleep(100)
        return {}

    two.a.on_channel("raft", serve)
    two.a.on_call("ping", slow)

    async def scenario() -> None:
        opening = asyncio.create_task(two.b.open(two.at, "raft", {}))
        call = asyncio.create_task(two.b.call(two.at, "ping", {}, timeout=50))
        channel = await opening
        await asyncio.sleep(1)
        two.loop.kill(two.a_process)
        two.a.gone("killed")
        with pytest.raises(WireError):
            await channel.recv()
        with pytest.raises(WireError, match="broke"):
            await call
        with pytest.raises(WireError):
            await channel.send({})

    two.run(scenario)


@pytest.mark.parametrize("seed", range(8))
def test_a_long_partition_delivers_or_breaks(seed: int) -> None:
    two = Two(f"seed {seed}")
    ends: list[str] = []

    async def serve(channel: Channel, hello: Body) -> None:
        try:
            while True:
                ends.append(str((await channel.recv())["n"]))
        except WireError:
            ends.append("broken")

    two.a.on_channel("raft", serve)

    async def scenario() -> None:
        channel = await two.b.open(two.at, "raft", {})
        heal = two.net.wall(["10.0.0.1"], ["10.0.0.2"])
        await channel.send({"n": 1})
        await asyncio.sleep(1 + seed * 2)
        heal()
        await asyncio.sleep(15)

    two.run(scenario)
    assert ends in (["1"], ["broken"])


def test_a_duplicated_call_runs_twice() -> None:
    two = Two()
    ran: list[int] = []

    async def count(peer: Peer, body: Body) -> Body:
        ran.append(1)
        return {}

    two.a.on_call("ping", count)
    two.net.usual = Conditions(duplicate=1.0)

    async def scenario() -> None:
        await two.b.call(two.at, "ping", {})
        await asyncio.sleep(1)

    two.run(scenario)
    assert len(ran) == 2


def test_revocation_cuts_and_refuses() -> None:
    two = Two()

    async def serve(channel: Channel, hello: Body) -> None:
        await channel.send({})
        await channel.recv()

    two.a.on_channel("raft", serve)

    async def scenario() -> None:
        channel = await two.b.open(two.at, "raft", {})
        await channel.recv()
        two.a.revoked.revoke("b")
        with pytest.raises(WireError):
            await channel.recv()
        with pytest.raises(RefusedError, match="removed"):
            await two.b.open(two.at, "raft", {})

    two.run(scenario)
