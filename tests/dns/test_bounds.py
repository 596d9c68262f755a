"""What one client does never keeps others from their answers; TCP framing; memory."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import time

import dns.message
import pytest

from swarmpy.adapters.dns import Limits, NameServers
from swarmpy.adapters.dns.answers import Ours
from swarmpy.adapters.dns.memory import Allowance, Memory
from swarmpy.model.links import Answer
from tests.dns.servers import OWN, PORT, address, ask, texts

WEB = dns.message.make_query("web", "A", id=7).to_wire()


@pytest.fixture
async def strict(table):
    limits = Limits(rate=2000, burst=400, connections=6, connections_client=4, idle=30)
    names = NameServers(table, port=PORT, limits=limits)
    where = address()
    await names.serve("n", OWN, [where])
    yield where
    await names.stop()


async def connect(server: str, source: str | None = None):
    return await asyncio.open_connection(server, PORT, local_addr=(source, 0) if source else None)


async def reply_of(reader: asyncio.StreamReader) -> dns.message.Message:
    async with asyncio.timeout(5):
        return dns.message.from_wire(await reader.readexactly(int.from_bytes(await reader.readexactly(2))))


async def ended(reader: asyncio.StreamReader) -> bool:
    with contextlib.suppress(ConnectionError):
        return await asyncio.wait_for(reader.read(), 5) == b""
    return True


async def test_several_questions_on_one_connection_however_they_are_cut(server) -> None:
    reader, writer = await connect(server)
    framed = len(WEB).to_bytes(2) + WEB
    writer.write(framed * 3)
    for _ in range(3):
        assert texts(await reply_of(reader)) == ["10.0.1.2"]
    for byte in framed:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0)
    assert (await reply_of(reader)).id == 7
    writer.write(framed)
    writer.write_eof()
    assert (await reply_of(reader)).id == 7
    assert await ended(reader)
    writer.close()


@pytest.mark.parametrize("junk", [b"\0\0", b"\0\3abc", b"\xff\xff" + bytes([255]) * 65535])
async def test_junk_ends_that_connection_only(server, junk, caplog) -> None:
    reader, writer = await connect(server)
    writer.write(junk)
    assert await ended(reader)
    writer.close()
    assert texts(await ask(server, "web", tcp=True)) == ["10.0.1.2"]
    assert not caplog.records


async def test_who_says_nothing_is_hung_up_on(names, server) -> None:
    names._served["net1"].zone._limits = Limits(idle=0.2)
    for start in (b"", b"\0", len(WEB).to_bytes(2) + WEB[:9]):
        reader, writer = await connect(server)
        writer.write(start)
        assert await ended(reader)
        writer.close()


async def test_who_does_not_read_is_hung_up_on(table) -> None:
    table.answers["big"] = Answer(addresses=tuple(f"10.{n >> 8}.{n & 255}.7" for n in range(4000)))
    names = NameServers(table, port=PORT, limits=Limits(idle=0.4))
    where = address()
    await names.serve("n", OWN, [where])
    query = dns.message.make_query("big", "A").to_wire()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, (where, PORT))
        await loop.sock_sendall(client, (len(query).to_bytes(2) + query) * 20)
        zone = names._served["n"].zone
        async with asyncio.timeout(20):
            while not zone._connections:
                await asyncio.sleep(0.01)
            while zone._connections:
                await asyncio.sleep(0.01)
    await names.stop()


async def test_who_comes_when_there_are_no_more_files_is_answered_later(server, caplog) -> None:
    reader, writer = await connect(server)
    writer.write(len(WEB).to_bytes(2) + WEB)
    await reply_of(reader)
    loop, waiting = asyncio.get_running_loop(), socket.socket()
    waiting.setblocking(False)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        await loop.sock_connect(waiting, (server, PORT))
        await loop.sock_sendall(waiting, len(WEB).to_bytes(2) + WEB)
        async with asyncio.timeout(5):
            while "no connection is accepted" not in caplog.text:
                await asyncio.sleep(0)
        writer.write(len(WEB).to_bytes(2) + WEB)
        assert (await reply_of(reader)).id == 7, "who is connected is answered"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    try:
        async with asyncio.timeout(5):
            assert await loop.sock_recv(waiting, 4096)
    finally:
        waiting.close()
        writer.close()
    assert caplog.text.count("no connection is accepted") <= 5, "and does not spin meanwhile"


async def test_connections_are_bounded_and_shared(strict) -> None:
    one, two, three = address(), address(), address()
    greedy = [await connect(strict, one) for _ in range(4)]
    for reader, writer in greedy:
        writer.write(len(WEB).to_bytes(2) + WEB)
        await reply_of(reader)
    fifth = await connect(strict, one)
    assert await ended(fifth[0])
    others = [await connect(strict, two) for _ in range(2)]
    for reader, writer in others:
        writer.write(len(WEB).to_bytes(2) + WEB)
        await reply_of(reader)
    # All six are taken: the greediest makes way.
    assert texts(await ask(strict, "web", tcp=True, source=three)) == ["10.0.1.2"]
    assert await ended(greedy[0][0])
    for _, writer in [*greedy, fifth, *others]:
        writer.close()


@pytest.mark.parametrize("made_up", [False, True], ids=["one name", "made up names"])
async def test_a_flood_does_not_starve_others(strict, table, made_up) -> None:
    table.default = Answer(refused=True)
    greedy, modest = address(), address()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        asyncio.DatagramProtocol, local_addr=(greedy, 0), remote_addr=(strict, PORT)
    )
    flooding = True
    sent = 0

    async def flood() -> None:
        nonlocal sent
        while flooding:
            for _ in range(50):
                name = b"%08d" % sent if made_up else b"aaaaaaaa"
                transport.sendto(WEB[:12] + b"\x08" + name + b"\0\0\1\0\1")
                sent += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(flood())
    began = time.monotonic()
    slowest = 0.0
    while time.monotonic() - began < 0.7:
        before = time.monotonic()
        assert texts(await ask(strict, "web", source=modest)) == ["10.0.1.2"]
        slowest = max(slowest, time.monotonic() - before)
        await asyncio.sleep(0.01)
    flooding = False
    await task
    transport.close()
    assert slowest < 2
    answered = len([question for question in table.asked if question.client == greedy])
    assert answered <= 400 / 20 + 2000 / 20 * (time.monotonic() - began) + 1
    assert sent > 10 * answered


def test_an_allowance_fills_again_and_is_each_clients_own() -> None:
    allowance = Allowance(rate=10, burst=20)
    assert [allowance.take("a", 10, 0.0) for _ in range(3)] == [True, True, False]
    assert allowance.take("b", 20, 0.0)
    assert not allowance.take("a", 10, 0.9)
    assert allowance.take("a", 10, 1.1)
    assert [allowance.take("a", 20, 1000.0) for _ in range(2)] == [True, False]
    for number in range(10_000):
        allowance.take(f"c{number}", 1, 1000.0)
    assert len(allowance._buckets) <= 4096


def test_memory_is_bounded() -> None:
    memory = Memory(size=20_000)
    for number in range(1000):
        memory.keep(("c", b"%d" % number), Ours((b"x" * 100,), lasting=True))
        assert len(memory.kept) <= 40
        assert ("c", b"%d" % number) in memory.kept
    memory.forget()
    memory.keep(("c", b"once"), Ours((b"x",)))
    memory.keep(("c", b"y" * 1000), Ours((b"x",), lasting=True))
    assert not memory.kept
