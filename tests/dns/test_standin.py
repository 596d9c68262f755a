"""Who answers while the daemon is away: the handover both ways, and what may go wrong with either side.

The stand-in runs beside the daemon's name servers in the test's own loop, but for the last tests, where it is the
real process and the daemon is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import dns.message
import dns.query
import pytest

from swarmpy.adapters.disk import FileDisk
from swarmpy.adapters.dns import Keeper, NameServers, handover, keeper
from swarmpy.adapters.dns.handover import Call, Held, Reply
from swarmpy.adapters.dns.sockets import Pair, bound
from swarmpy.adapters.dns.standin import StandIn
from swarmpy.agent import journal
from swarmpy.model import codec
from swarmpy.model.fabric import ServiceEntry, Table
from swarmpy.model.links import Answer, Question
from tests.dns.servers import OWN, PORT, address, ask, texts

DAEMON, STANDIN, LATER = "10.0.0.1", "10.0.0.2", "10.0.0.3"


def saying(text: str) -> Callable[[Question], Answer]:
    """What answers all with one address."""
    return lambda question: Answer(addresses=(text,))


class World:
    """Daemons and stand-ins of one state directory."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "names.sock")
        self.loop = asyncio.get_running_loop()
        self.running: list[asyncio.Task[None]] = []
        self.known = {"net1", "net2"}
        self.says = STANDIN
        self.version = "1"
        self.broken = 0

    def spawn(self, connection: socket.socket) -> None:
        if self.broken:
            self.broken -= 1
            raise OSError("no more processes")
        first = connection.dup()

        def begin() -> None:
            made = StandIn(self.path, self.version, lambda: (saying(self.says), self.known))
            self.running.append(self.loop.create_task(made.run(first)))

        self.loop.call_soon_threadsafe(begin)

    def daemon(self, says: str = DAEMON, version: str = "1") -> NameServers:
        self.version = version
        return NameServers(saying(says), port=PORT, keeper=Keeper(self.path, version, self.spawn))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    for task in made.running:
        task.cancel()
    await asyncio.gather(*made.running, return_exceptions=True)


async def settled(names: NameServers) -> None:
    """The stand-in has been told all."""
    async with asyncio.timeout(10):
        while names._keeper._connection is None or names._keeper._renewing is not None:
            await asyncio.sleep(0.01)
        await names._keeper._ask(Call("list"))


async def says(where: str, *, tcp: bool = False) -> str:
    return texts(await ask(where, "web", tcp=tcp))[0]


async def becomes(where: str, text: str) -> None:
    async with asyncio.timeout(10):
        while await says(where) != text:
            await asyncio.sleep(0.01)


@asynccontextmanager
async def asking(where: str) -> AsyncIterator[list[str]]:
    """Somebody who asks without end, and may not be disappointed once."""
    heard: list[str] = []
    enough = False

    async def loop() -> None:
        while not enough:
            heard.append(await says(where))
            heard.append(await says(where, tcp=True))

    task = asyncio.create_task(loop())
    try:
        yield heard
    finally:
        enough = True  # cancelling may get lost: https://github.com/python/cpython/issues/86296
        await task


async def test_it_answers_while_the_daemon_is_away_and_nobody_notices(world: World) -> None:
    where = address()
    first = world.daemon()
    await first.serve("net1", OWN, [where])
    await settled(first)
    async with asking(where) as heard:
        assert await says(where) == DAEMON
        for _ in range(3):
            await first.stop()
            await becomes(where, STANDIN)
            assert await says(where, tcp=True) == STANDIN
            second = world.daemon(LATER)
            await second.serve("net1", OWN, [where])
            await becomes(where, LATER)
            assert [await says(where) for _ in range(20)] == [LATER] * 20, "nobody else reads"
            first = second
        assert len(world.running) == 1, "the same one all the time"
    assert set(heard) == {DAEMON, STANDIN, LATER}
    await first.wipe()
    await asyncio.wait_for(world.running[0], 5)
    with pytest.raises(ConnectionRefusedError):
        await ask(where, "web", tcp=True)


@pytest.mark.parametrize("turns", range(8))
async def test_a_connection_is_answered_by_one_or_the_other_whenever_it_comes(turns: int) -> None:
    """However far its acceptance has come when who answers changes."""
    where = address()
    pairs = await bound(OWN, [where], PORT)
    servers = [NameServers(saying(text), port=PORT) for text in (DAEMON, STANDIN)]
    query = dns.message.make_query("web", "A").to_wire()
    try:
        copies = [[Pair(one.address, one.udp.dup(), one.tcp.dup()) for one in pairs] for _ in servers]
        await servers[0].adopt("net1", ((0, 0), (where,)), copies[0])
        with socket.create_connection((where, PORT), 5) as client:
            client.sendall(len(query).to_bytes(2) + query)
            client.setblocking(False)
            for _ in range(turns):
                await asyncio.sleep(0)
            await servers[0].release("net1")
            await servers[1].adopt("net1", ((0, 0), (where,)), copies[1])
            async with asyncio.timeout(5):
                reply = await asyncio.get_running_loop().sock_recv(client, 4096)
        assert texts(dns.message.from_wire(reply[2:]))[0] in (DAEMON, STANDIN)
    finally:
        for pair in pairs:
            pair.close()
        for one in servers:
            await one.stop()


async def test_a_node_that_left_and_joins_again_has_another(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    where = address()
    names = world.daemon()
    for number in range(3):
        await names.serve("net1", OWN, [where])
        await settled(names)
        assert len(world.running) == number + 1
        await names.wipe()
        await asyncio.wait_for(world.running[number], 5)
    assert not [one for one in caplog.records if one.levelname == "WARNING"], "it is meant to go"


async def test_a_daemon_that_begins_takes_network_after_network(world: World) -> None:
    one, two = address(), address()
    first = world.daemon()
    await first.serve("net1", OWN, [one])
    await first.serve("net2", OWN, [two])
    await settled(first)
    await first.stop()
    second = world.daemon(LATER)
    await second.serve("net2", OWN, [two])
    await becomes(one, STANDIN)
    assert await says(two) == LATER
    await second.withdraw("net1")  # which it never served
    with pytest.raises(ConnectionRefusedError):
        await ask(one, "web", tcp=True)
    await second.withdraw("net2")
    with pytest.raises(ConnectionRefusedError):
        await ask(two, "web", tcp=True)
    await second.stop()
    await asyncio.wait_for(world.running[0], 10)  # it has nothing to do


async def test_a_network_that_moved_is_bound_anew(world: World) -> None:
    one, two = address(), address()
    first = world.daemon()
    await first.serve("net1", OWN, [one])
    await settled(first)
    await first.stop()
    await becomes(one, STANDIN)
    second = world.daemon(LATER)
    await second.serve("net1", OWN, [one, two])
    assert [await says(one), await says(two)] == [LATER] * 2
    await second.wipe()


async def test_what_it_knows_nothing_of_waits_for_the_daemon(world: World) -> None:
    where = address()
    first = world.daemon()
    await first.serve("net3", OWN, [where])
    await settled(first)
    await first.stop()
    waiting = [asyncio.create_task(says(where, tcp=tcp)) for tcp in (False, True)]
    done, _ = await asyncio.wait(waiting, timeout=0.3)
    assert not done
    second = world.daemon(LATER)
    await second.serve("net3", OWN, [where])
    assert await asyncio.wait_for(asyncio.gather(*waiting), 5) == [LATER] * 2
    await second.wipe()


async def test_one_of_another_version_is_replaced_and_nobody_notices(world: World) -> None:
    one, two = address(), address()
    first = world.daemon()
    await first.serve("net1", OWN, [one])
    await first.serve("net2", OWN, [two])
    await settled(first)
    async with asking(one), asking(two):
        await first.stop()
        await becomes(one, STANDIN)
        world.says = "10.0.0.9"
        second = world.daemon(LATER, version="2")
        await second.serve("net1", OWN, [one])
        await becomes(one, LATER)
        await becomes(two, "10.0.0.9")
        await asyncio.wait_for(world.running[0], 5)
        await second.serve("net2", OWN, [two])
        await becomes(two, LATER)
        await second.stop()
        await becomes(one, "10.0.0.9")
    await world.daemon(version="2").wipe()
    await asyncio.wait_for(world.running[1], 5)


async def test_one_that_is_lost_or_does_not_begin_is_replaced(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(keeper, "AGAIN", 0.05)
    where = address()
    world.broken = 2
    names = world.daemon()
    await names.serve("net1", OWN, [where])
    assert await says(where) == DAEMON, "names do not wait for it"
    await settled(names)
    assert "no more processes" in caplog.text
    world.running[0].cancel()
    async with asyncio.timeout(10):
        while len(world.running) < 2:
            await asyncio.sleep(0.01)
    await settled(names)
    await names.stop()
    await becomes(where, STANDIN)
    await world.daemon().wipe()


async def test_what_cannot_be_understood_changes_nothing(world: World) -> None:
    where = address()
    names = world.daemon()
    await names.serve("net1", OWN, [where])
    await settled(names)
    await names.stop()
    await becomes(where, STANDIN)

    def nonsense() -> None:
        for message in (b"x", b"\xc1", codec.encode(Reply()), codec.encode(Call("take")), b"y" * 1000):
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as made:
                made.settimeout(5)
                made.connect(world.path)
                made.send(message)
                made.recv(1000)
        held = Held("net1", (1, 2), ("10.0.0.1",))
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as made:
            made.settimeout(5)
            made.connect(world.path)
            handover.send(made, Call("hold", held))  # without the sockets
            made.recv(1000)

    await asyncio.to_thread(nonsense)
    await becomes(where, STANDIN)
    await world.daemon().wipe()


async def test_it_ends_where_its_place_is_another_s(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swarmpy.adapters.dns.standin.LOOK", 0.05)
    where = address()
    names = world.daemon()
    await names.serve("net1", OWN, [where])
    await settled(names)
    await names.stop()
    await becomes(where, STANDIN)
    os.unlink(world.path)
    await asyncio.wait_for(world.running[0], 5)
    with pytest.raises(ConnectionRefusedError):
        await ask(where, "web", tcp=True)


# ---------------------------------------------------------------- processes

SERVING = """
import asyncio, sys
from pathlib import Path
from swarmpy import standin
from swarmpy.adapters.dns import Keeper, NameServers
from swarmpy.model.links import Answer

folder, port, where, text, version = sys.argv[1:]

async def main():
    keeper = Keeper(str(Path(folder) / standin.SOCKET), version, standin.spawner(Path(folder)))
    names = NameServers(lambda question: Answer(addresses=(text,)), port=int(port), keeper=keeper)
    await names.serve("net1", "/proc/self/ns/net", [where])
    while keeper._connection is None or keeper._renewing is not None:
        await asyncio.sleep(0.01)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await names.wipe()

asyncio.run(main())
"""


def serving(folder: Path, where: str, text: str, version: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SERVING, str(folder), str(PORT), where, text, version]
    made = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert made.stdout.readline() == "ready\n"
    return made


def ended(process: subprocess.Popen[str]) -> None:
    process.stdin.close()
    process.wait(10)
    process.stdout.close()


def answer(where: str) -> str:
    reply = dns.query.udp(dns.message.make_query("web", "A"), where, 5, PORT)
    return str(reply.answer[0][0])


def of_the_folder(folder: Path) -> list[int]:
    """Stand-ins that run."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
            if b"swarmpy.standin" in words and str(folder).encode() in words:
                found.append(int(entry.name))
    return found


def down_to(count: int, folder: Path) -> bool:
    until = time.monotonic() + 10
    while len(of_the_folder(folder)) != count and time.monotonic() < until:
        time.sleep(0.02)
    return len(of_the_folder(folder)) == count


def test_a_daemon_that_is_killed_leaves_somebody_who_answers(tmp_path: Path) -> None:
    """By what the agent wrote down. Killed again and again, and each question is answered at once."""
    web = ServiceEntry(id="s", name="web", vips=(STANDIN,))
    table = Table(id="net1", name="net", vni=1, mtu=1450, subnets=(), gateways=(), services=(web,))
    disk = FileDisk(tmp_path)
    journal.save_networks(disk, journal.KeptNetworks(tables={"net1": table}))
    disk.close()
    where = address()
    try:
        for _ in range(2):
            daemon = serving(tmp_path, where, DAEMON, "0")
            assert answer(where) == DAEMON
            daemon.kill()
            daemon.wait()
            daemon.stdin.close()
            daemon.stdout.close()
            began = time.monotonic()
            assert answer(where) in (STANDIN, DAEMON)
            assert time.monotonic() - began < 2
            assert answer(where) == STANDIN
        assert down_to(1, tmp_path)
        ended(serving(tmp_path, where, DAEMON, "0"))
        assert down_to(0, tmp_path)
    finally:
        for pid in of_the_folder(tmp_path):
            os.kill(pid, signal.SIGKILL)


def test_one_that_is_stuck_is_ended_for_it_has_the_sockets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = address()
    try:
        daemon = serving(tmp_path, where, DAEMON, "0")
        (stuck,) = of_the_folder(tmp_path)
        os.kill(stuck, signal.SIGSTOP)
        daemon.kill()
        daemon.wait()
        daemon.stdin.close()
        daemon.stdout.close()
        ended(serving(tmp_path, where, DAEMON, "0"))
        assert down_to(0, tmp_path)
    finally:
        for pid in of_the_folder(tmp_path):
            os.kill(pid, signal.SIGKILL)
