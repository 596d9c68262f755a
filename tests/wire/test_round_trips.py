"""Calls and channels between two nodes, as they should be."""

from __future__ import annotations

import asyncio

import pytest

from swarmpy.ports import RefusedError, WireError

from .conftest import Town, at


async def test_call_carries_bodies_and_names_the_caller(town: Town) -> None:
    server = await town.server("m1")
    seen = []

    async def status(peer, body):
        seen.append(peer)
        return {"echo": body}

    server.on_call("control.status", status)
    client = town.wire("m2")
    body = {"text": "ä", "bytes": b"\x00\xff", "n": [1, -2, 2**63], "none": None, "d": {"x": 1.5}}
    assert await client.call(at(server), "control.status", body) == {"echo": body}
    assert (seen[0].node_id, seen[0].role, seen[0].cluster_id) == ("m2", "manager", "c1uster")


async def test_calls_share_a_connection(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    server = await town.server("m1")
    seen = []
    dialled = []
    dial = asyncio.BaseEventLoop.create_connection

    async def ping(peer, body):
        seen.append(peer.address)
        return {}

    async def counted(loop, *words, **more):
        dialled.append(words)
        return await dial(loop, *words, **more)

    monkeypatch.setattr(asyncio.BaseEventLoop, "create_connection", counted)
    server.on_call("ping", ping)
    client = town.wire("w1", "worker")
    for _ in range(5):
        await client.call(at(server), "ping", {})
    assert len(dialled) == 1
    assert seen == ["127.0.0.1"] * 5, "an address has no port: it is where the peer is, not this connection"


async def test_refusal_of_a_handler_arrives_whole(town: Town) -> None:
    server = await town.server()

    async def ping(peer, body):
        raise RefusedError("NotFound", "no such thing", {"name": "x"})

    server.on_call("ping", ping)
    with pytest.raises(RefusedError) as caught:
        await town.wire("m2").call(at(server), "ping", {})
    assert (caught.value.code, caught.value.message) == ("NotFound", "no such thing")
    assert caught.value.data == {"name": "x"}


async def test_channel_carries_both_ways_in_order(town: Town) -> None:
    server = await town.server()

    async def session(channel, hello):
        assert hello == {"node_id": "w1"}
        while True:
            body = await channel.recv()
            await channel.send({"n": body["n"] + 1})

    server.on_channel("session", session)
    client = town.wire("w1", "worker")
    channel = await client.open(at(server), "session", {"node_id": "w1"})
    assert channel.peer.node_id == "m1"
    for n in range(200):
        await channel.send({"n": n})
    assert [(await channel.recv())["n"] for _ in range(200)] == list(range(1, 201))
    await channel.close()
    with pytest.raises(WireError):
        await channel.recv()
    with pytest.raises(WireError):
        await channel.send({})


async def test_what_was_sent_before_the_end_is_still_received(town: Town) -> None:
    server = await town.server()

    async def session(channel, hello):
        for n in range(10):
            await channel.send({"n": n})

    server.on_channel("session", session)
    channel = await town.wire("w1", "worker").open(at(server), "session", {})
    await asyncio.sleep(0.05)
    assert [(await channel.recv())["n"] for _ in range(10)] == list(range(10))
    with pytest.raises(WireError, match="closed the channel"):
        await channel.recv()


async def test_channel_refused_by_its_handler(town: Town) -> None:
    server = await town.server()

    async def session(channel, hello):
        raise RefusedError("Unavailable", "not the leader", {"leader": "m9"})

    server.on_channel("session", session)
    with pytest.raises(RefusedError, match="not the leader") as caught:
        await town.wire("w1", "worker").open(at(server), "session", {})
    assert caught.value.data == {"leader": "m9"}


async def test_channel_refused_after_use_says_why(town: Town) -> None:
    server = await town.server()

    async def session(channel, hello):
        await channel.recv()
        raise RefusedError("FailedPrecondition", "the node was removed")

    server.on_channel("session", session)
    channel = await town.wire("w1", "worker").open(at(server), "session", {})
    await channel.send({})
    with pytest.raises(WireError, match="the node was removed") as caught:
        await channel.recv()
    assert isinstance(caught.value, RefusedError)
    assert caught.value.code == "FailedPrecondition"
