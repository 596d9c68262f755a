"""What the real guard and the simulated one have in common: one suite, held by both.

The simulator's clusters are worth as much as the simulated guard is like the real one. What only packets can tell
(fragments, forged addresses, containers, other people's tables) is in test_guard.py.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from typing import Any, Protocol

import pytest

from swarmpy.adapters.netns import inside
from swarmpy.adapters.nftables import NftGuard, library
from swarmpy.ports import Guard, GuardTable
from swarmpy.sim.balancer import Netfilter
from swarmpy.sim.guard import SimGuard, arrives, leaves
from swarmpy.sim.loop import SimLoop
from swarmpy.sim.trace import Trace
from tests.contracts.forger import send
from tests.contracts.netlab import Lab

PORT, SEALED, OTHER = 4789, 4790, 4000
NODE, MEMBER, STRANGER = "10.99.0.1", "10.99.0.2", "10.99.0.66"
TABLE = GuardTable(local=NODE, port=PORT, peers=(MEMBER,))


class Site(Protocol):
    """A guarded node, a member and a stranger."""

    def guard(self) -> Guard: ...
    def play(self, scenario: Coroutine[Any, Any, None]) -> None: ...
    def flush(self) -> None: ...
    def admits(self, source: str, port: int) -> bool: ...
    def lets_process_speak(self, target: str, port: int) -> bool: ...


class Simulated:
    def __init__(self) -> None:
        self.loop = SimLoop()
        self.kernel = Netfilter(self.loop, "n1", "seed", Trace(self.loop.time))

    def guard(self) -> Guard:
        return SimGuard(self.kernel)

    def play(self, scenario: Coroutine[Any, Any, None]) -> None:
        self.loop.run(scenario)

    def flush(self) -> None:
        self.kernel.flush_guard()

    def admits(self, source: str, port: int) -> bool:
        return arrives(self.kernel, source, port)

    def lets_process_speak(self, target: str, port: int) -> bool:
        return leaves(self.kernel, target, port, process=True) is not None

    def close(self) -> None:
        self.loop.close()


class Real:
    def __init__(self) -> None:
        self.lab = Lab()
        self.lab.bridge("under")
        self.spaces = {}
        for name, address in (("node", NODE), ("member", MEMBER), ("stranger", STRANGER)):
            space = self.spaces[address] = self.lab.space(name)
            self.lab.plug(space, "eth0", "under", f"{address}/24")
        self.ears = {port: inside(self.spaces[NODE], self._ear, port) for port in (PORT, SEALED, OTHER)}

    @staticmethod
    def _ear(port: int) -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind(("", port))
        made.settimeout(10 if port == OTHER else 0)
        return made

    def guard(self) -> Guard:
        return NftGuard(self.spaces[NODE])

    def play(self, scenario: Coroutine[Any, Any, None]) -> None:
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(scenario)
        finally:
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()

    def flush(self) -> None:
        inside(self.spaces[NODE], library.run, "flush ruleset\n")

    def admits(self, source: str, port: int) -> bool:
        """Whether the word is there when the one that was sent after it, to a port of nobody's, is."""
        for target in (port, OTHER):
            inside(self.spaces[source], send, NODE, target, b"word")
        assert self.ears[OTHER].recv(100) == b"word"
        try:
            return self.ears[port].recv(100) == b"word"
        except BlockingIOError:
            return False

    def lets_process_speak(self, target: str, port: int) -> bool:
        return inside(self.spaces[NODE], send, target, port, b"word") == "sent"

    def close(self) -> None:
        for ear in self.ears.values():
            ear.close()
        self.lab.close()


@pytest.fixture(params=[Simulated, Real])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    made = request.param()
    try:
        yield made
    finally:
        made.close()


def held(site: Site, scenario: Callable[[Guard], Coroutine[Any, Any, None]]) -> None:
    site.play(scenario(site.guard()))


def test_without_it_everybody_may_speak(site: Site) -> None:
    assert site.admits(STRANGER, PORT)
    assert site.admits(STRANGER, SEALED)
    assert site.lets_process_speak(MEMBER, PORT)


def test_members_and_nobody_else(site: Site) -> None:
    async def scenario(guard: Guard) -> None:
        await guard.apply(TABLE)
        assert (site.admits(MEMBER, PORT), site.admits(STRANGER, PORT)) == (True, False)
        assert site.admits(STRANGER, SEALED), "no port of ours without encrypted networks"
        await guard.apply(replace(TABLE, peers=(STRANGER,)))
        assert (site.admits(MEMBER, PORT), site.admits(STRANGER, PORT)) == (False, True)
        await guard.apply(replace(TABLE, peers=()))
        assert (site.admits(MEMBER, PORT), site.admits(STRANGER, PORT)) == (False, False)

    held(site, scenario)


def test_processes_speak_to_no_member_and_to_everybody_else(site: Site) -> None:
    async def scenario(guard: Guard) -> None:
        await guard.apply(replace(TABLE, sealed=SEALED))
        assert not site.lets_process_speak(MEMBER, PORT)
        assert not site.lets_process_speak(MEMBER, SEALED)
        assert not site.lets_process_speak(NODE, PORT)
        assert site.lets_process_speak(MEMBER, OTHER)
        assert site.lets_process_speak(STRANGER, PORT)

    held(site, scenario)


def test_the_sealed_port_takes_nothing_in_the_clear(site: Site) -> None:
    async def scenario(guard: Guard) -> None:
        await guard.apply(replace(TABLE, sealed=SEALED))
        assert (site.admits(MEMBER, SEALED), site.admits(STRANGER, SEALED)) == (False, False)
        assert site.admits(MEMBER, PORT)

    held(site, scenario)


def test_fingerprints(site: Site) -> None:
    async def scenario(guard: Guard) -> None:
        assert await guard.observe() == ""
        mark = await guard.apply(TABLE)
        assert mark == await guard.observe() == await guard.apply(TABLE) != ""
        assert await site.guard().observe() == mark, "an agent that starts anew knows its own"
        other = await guard.apply(replace(TABLE, peers=()))
        assert other == await guard.observe() != mark
        assert await guard.apply(TABLE) == mark
        site.flush()
        assert await guard.observe() == ""
        assert site.admits(STRANGER, PORT)
        assert await guard.apply(TABLE) == mark == await guard.observe()
        assert not site.admits(STRANGER, PORT)

    held(site, scenario)


def test_clear(site: Site) -> None:
    async def scenario(guard: Guard) -> None:
        await guard.clear()
        await guard.apply(TABLE)
        await guard.clear()
        await guard.clear()
        assert await guard.observe() == ""
        assert site.admits(STRANGER, PORT)
        assert site.lets_process_speak(MEMBER, PORT)

    held(site, scenario)
