"""An agent whose manager's machine goes silent finds another one in time, over the real wire."""

from __future__ import annotations

import asyncio
import random
import socket
import time

import pytest

from swarmpy.agent import session as agent_session
from swarmpy.agent.session import Session
from swarmpy.model import messages as m
from swarmpy.model.objects import Description

from .conftest import Town, at


class Dice:
    """Manager addresses are tried as given; pauses are drawn."""

    def token(self, size: int) -> bytes:
        return bytes(size)

    def uniform(self, low: float, high: float) -> float:
        return low if low == 0 else random.uniform(low, high)


async def leading(town: Town, name: str, began: asyncio.Event) -> str:
    """A manager that holds sessions."""
    wire = await town.server(name)

    async def serve(channel, hello):
        await channel.send(m.to_body(m.Welcome(beat_seconds=0.2, node_role="worker", managers=())))
        began.set()
        while True:
            await channel.recv()
            await channel.send(m.to_body(m.Acknowledged(number=0)))

    wire.on_channel("session", serve)
    return at(wire)


def session_of(town: Town, addresses: list[str]) -> Session:
    managers = [(f"m{n}", address) for n, address in enumerate(addresses)]
    wire = town.wire("w1", "worker")
    return Session("w1", wire, Dice(), managers, "10.0.0.9", Description, lambda message: None, list)


@pytest.mark.parametrize("hole", ["no answer to SYN", "no answer to TLS"])
async def test_a_manager_that_is_gone_costs_one_dial(town: Town, hole: str) -> None:
    began = asyncio.Event()
    with socket.socket() as listening, socket.socket() as filler:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        if hole == "no answer to SYN":
            # The backlog is full: the kernel drops every further SYN, as a dead machine does.
            filler.connect(listening.getsockname())
        silent = f"127.0.0.1:{listening.getsockname()[1]}"
        session = session_of(town, [silent, await leading(town, "m2", began)])
        start = time.monotonic()
        running = asyncio.create_task(session.run())
        await asyncio.wait_for(began.wait(), agent_session.DIAL + 3)
        assert time.monotonic() - start > agent_session.DIAL * 0.9, "the silent one was tried"
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_manager_that_goes_silent_is_left(town: Town, relays) -> None:
    first, second = asyncio.Event(), asyncio.Event()
    await leading(town, "m1", first)
    relay, address = await relays(town.wires[0])
    session = session_of(town, [address])
    running = asyncio.create_task(session.run())
    await asyncio.wait_for(first.wait(), 5)
    session.managers = [("m1", address), ("m2", await leading(town, "m2", second))]
    relay.deafen()
    # Three beats of silence, one dial to the deaf one at most, and the pause between.
    await asyncio.wait_for(second.wait(), 3 * 0.2 + 1.0 + agent_session.DIAL + agent_session.LAST_PAUSE + 2)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
