"""The Prober port: one contract for the simulated one in virtual time and the real one in namespaces."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from swarmpy.adapters.netns import inside
from swarmpy.adapters.prober import LEAST, UdpProber
from swarmpy.ports import FabricError, Prober
from swarmpy.sim.loop import SimLoop
from swarmpy.sim.prober import SimProber, Underlay
from tests.contracts.netlab import Lab, ip

KEY, OTHER = b"k" * 32, b"o" * 32
PORT = 7946
A, B = "10.66.0.1", "10.66.0.2"
Work = Callable[["Site"], Coroutine[Any, Any, None]]


class Site:
    """Two machines: `a` asks, `b` answers."""

    def __init__(self, a: Prober, b: Prober, narrow: Callable[[], None]) -> None:
        self.a, self.b, self.narrow = a, b, narrow
        self.heard: list[tuple[str, int, int]] = []
        a.begin(lambda *what: self.heard.append(what))
        b.begin(lambda *_what: None)

    async def numbers(self, *wanted: int, patience: float = 5.0) -> None:
        """Wait until these questions are answered."""
        async with asyncio.timeout(patience):
            while {number for _, number, _ in self.heard} < set(wanted):
                await asyncio.sleep(0.01)

    async def nothing_but(self, *, number: int, size: int = 0) -> None:
        """What was asked before is surely not answered once this later question is."""
        self.a.ask(B, number, size)
        await self.numbers(number)
        assert [one[1] for one in self.heard] == [number]


def virtual(work: Work) -> None:
    underlay = Underlay()

    async def run() -> None:
        site = Site(SimProber(underlay), SimProber(underlay), lambda: setattr(underlay, "mtu", 1400))
        await work(site)
        await site.a.stop()
        await site.b.stop()

    loop = SimLoop()
    try:
        loop.run_until_complete(run())
    finally:
        loop.close()


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with ExitStack() as stack:
        made = Lab()
        stack.callback(made.close)
        made.bridge("under")
        for name, address in (("ma", A), ("mb", B)):
            made.plug(made.space(name), "eth0", "under", f"{address}/24")
        yield made


@pytest.fixture(params=["simulated", "real"])
def play(request: pytest.FixtureRequest) -> Callable[[Work], None]:
    if request.param == "simulated":
        return virtual
    found: Lab = request.getfixturevalue("lab")
    spaces = {
        name: next(f"/run/netns/{one}" for one in found.spaces if one.endswith("m" + name)) for name in "ab"
    }

    def narrow() -> None:
        ip(f"-n {found.name(spaces['b'])} link set eth0 mtu 1400")

    def run(work: Work) -> None:
        ip(f"-n {found.name(spaces['b'])} link set eth0 mtu 1500")
        a, b = UdpProber(spaces["a"]), UdpProber(spaces["b"])

        async def whole() -> None:
            try:
                await work(Site(a, b, narrow))
            finally:
                await a.stop()
                await b.stop()

        asyncio.run(whole())

    return run


def test_questions_small_and_wide_are_answered(play: Callable[[Work], None]) -> None:
    async def work(site: Site) -> None:
        await site.a.serve(A, PORT, KEY)
        await site.b.serve(B, PORT, KEY)
        site.a.ask(B, 7)
        site.a.ask(B, 2**64 - 1, 1472)
        await site.numbers(7, 2**64 - 1)
        assert sorted(site.heard) == [(B, 7, LEAST), (B, 2**64 - 1, 1472)]

    play(work)


def test_what_is_too_wide_for_the_way_is_lost_and_nothing_else(play: Callable[[Work], None]) -> None:
    async def work(site: Site) -> None:
        await site.a.serve(A, PORT, KEY)
        await site.b.serve(B, PORT, KEY)
        site.narrow()
        site.a.ask(B, 1, 1472)
        await site.nothing_but(number=2, size=1372)

    play(work)


def test_only_who_has_the_key_is_answered(play: Callable[[Work], None]) -> None:
    async def work(site: Site) -> None:
        await site.a.serve(A, PORT, OTHER)
        await site.b.serve(B, PORT, KEY)
        site.a.ask(B, 1)
        await asyncio.sleep(0.05)
        await site.b.serve(B, PORT, OTHER)
        await site.nothing_but(number=2)

    play(work)


def test_who_stopped_neither_asks_nor_answers_and_may_begin_again(play: Callable[[Work], None]) -> None:
    async def work(site: Site) -> None:
        site.a.ask(B, 0)
        await site.a.serve(A, PORT, KEY)
        await site.b.serve(B, PORT, KEY)
        await site.b.stop()
        await site.b.stop()
        site.a.ask(B, 1)
        await asyncio.sleep(0.05)
        await site.b.serve(B, PORT, KEY)
        await site.nothing_but(number=2)

    play(work)


def test_an_address_that_the_machine_does_not_have_is_refused_with_a_sentence(lab: Lab) -> None:
    async def work() -> None:
        with pytest.raises(FabricError, match=r"at 10\.66\.0\.9, UDP port 7946: .*what else uses that port"):
            await UdpProber(lab.hub).serve("10.66.0.9", PORT, KEY)

    asyncio.run(work())


# ---------------------------------------------------------------- the real one among strangers

LOCAL = "127.0.0.1"


async def ready(key: bytes = KEY) -> tuple[UdpProber, list[tuple[str, int, int]], int]:
    """A prober on loopback, its answers, and a port that was free."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind((LOCAL, 0))
        port = free.getsockname()[1]
    prober, heard = UdpProber(), []
    prober.begin(lambda *what: heard.append(what))
    await prober.serve(LOCAL, port, key)
    return prober, heard, port


async def test_forged_repeated_and_broken_frames_are_not_answered() -> None:
    prober, heard, port = await ready()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.2", port))
        stranger.settimeout(5)
        prober.ask("127.0.0.2", 5, 100)
        frame = stranger.recv(2000)
        assert len(frame) == 100
        # Sent back as it is (a question to somebody else), shortened, bent, as garbage, as nothing.
        for bad in (
            frame,
            frame[:-1],
            frame[:20],
            b"",
            b"swp1" + bytes(96),
            frame[:30] + b"\xff" + frame[31:],
        ):
            stranger.sendto(bad, (LOCAL, port))
        bent = bytearray(frame)
        bent[4] = 2  # the question made an answer, with the question's seal
        stranger.sendto(bytes(bent), (LOCAL, port))
        # A question sealed for us by somebody who knows the key is answered, and only that.
        friend = UdpProber()
        await friend.serve("127.0.0.3", port, KEY)
        seen: list[tuple[str, int, int]] = []
        friend.begin(lambda *what: seen.append(what))
        friend.ask(LOCAL, 9)
        async with asyncio.timeout(5):
            while not seen:
                await asyncio.sleep(0.01)
        await friend.stop()
        stranger.setblocking(False)
        with pytest.raises(BlockingIOError):
            stranger.recv(2000)
    assert heard == []
    await prober.stop()


async def test_a_node_answers_while_its_loop_is_busy() -> None:
    busy, _, port = await ready()
    answered = threading.Event()

    async def ask() -> None:
        friend = UdpProber()
        friend.begin(lambda *_what: answered.set())
        await friend.serve("127.0.0.3", port, KEY)
        async with asyncio.timeout(20):
            while not answered.is_set():
                friend.ask(LOCAL, 1)
                await asyncio.sleep(0.01)
        await friend.stop()

    thread = threading.Thread(target=lambda: asyncio.run(ask()))
    thread.start()
    came = answered.wait(20)  # the node's loop turns no further than this line
    thread.join()
    assert came
    await busy.stop()


def test_sockets_are_opened_in_the_namespace_of_the_underlay(lab: Lab) -> None:
    space = f"/run/netns/{lab.spaces[1]}"

    async def work() -> None:
        prober = UdpProber(space)
        await prober.serve(A, PORT, KEY)
        try:
            with pytest.raises(OSError, match="in use"):
                inside(space, _bind, A)
        finally:
            await prober.stop()
        inside(space, _bind, A)

    asyncio.run(work())


def _bind(address: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.bind((address, PORT))
