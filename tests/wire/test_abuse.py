"""A real listener on loopback under what strangers and bad nodes send: an honest peer is always answered, nothing
is held without bound, and the log has no traceback."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import ssl
import struct
import time
import tracemalloc
from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest

from swarmpy.adapters.wire import TlsWire, WireSettings, bootstrap_call, codec, dialer, fetch_bundle
from swarmpy.pki import rpc
from swarmpy.pki.ca import digest
from swarmpy.pki.identity import Identity, bootstrap_context
from swarmpy.pki.rate import Rate
from swarmpy.pki.tokens import make_token
from swarmpy.ports import RefusedError

from .conftest import Town, at

MIB = 1024 * 1024


@pytest.fixture
def descriptors() -> Iterator[None]:
    """Room for thousands of sockets in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
async def server(town: Town, caplog: pytest.LogCaptureFixture) -> AsyncIterator[TlsWire]:
    """Serves a few methods; afterwards its log must be clean."""
    wire = await town.server()

    async def ping(peer, body):
        return {}

    async def bundle(peer, body):
        return {"bundle": town.authority.cert_pem}

    async def session(channel, hello):
        while True:
            await channel.send(await channel.recv())

    for method in ("ping", "join"):
        wire.on_call(method, ping)
    wire.on_call("ca.bundle", bundle)
    wire.on_channel("session", session)
    with caplog.at_level(logging.INFO):
        yield wire
        await asyncio.sleep(0)
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


async def answers(town: Town, wire: TlsWire, seconds: float = 3.0) -> None:
    """An honest node that dials anew is answered."""
    await town.wire("m2").call(at(wire), "ping", {}, timeout=seconds)


async def plain(wire: TlsWire, data: bytes = b"") -> asyncio.StreamWriter:
    _, writer = await asyncio.open_connection("127.0.0.1", wire.port)
    writer.write(data)
    return writer


HELLO = bytes.fromhex("16030101fc010001f80303") + bytes(200)
"""The first part of a ClientHello."""

FIRST_BYTES = {
    "nothing": b"",
    "half a hello": HELLO,
    "HTTP": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a record of 64 KiB": b"\x16\x03\x03\xff\xff" + bytes(2000),
    "noise": bytes(range(256)) * 8,
    "SSL 2": b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + bytes(35),
}


@pytest.mark.usefixtures("descriptors")
async def test_two_thousand_connections_that_never_shake_hands(town: Town, server: TlsWire) -> None:
    writers = []
    tracemalloc.start()
    try:
        for n in range(2000):
            writers.append(await plain(server, HELLO))
            if n % 400 == 399:
                await answers(town, server)
        held = tracemalloc.get_traced_memory()[0]
        await answers(town, server)
    finally:
        tracemalloc.stop()
        for writer in writers:
            writer.transport.abort()
    # Both ends live in this process: the dialling one alone takes some 20 KiB each.
    assert held < 150 * MIB


@pytest.mark.parametrize("kind", FIRST_BYTES)
async def test_first_bytes_that_are_no_tls(town: Town, server: TlsWire, kind: str) -> None:
    writers = [await plain(server, FIRST_BYTES[kind]) for _ in range(20)]
    await answers(town, server)
    for writer in writers[::2]:
        writer.close()
    await answers(town, server)
    for writer in writers:
        writer.transport.abort()


async def as_node(town: Town, wire: TlsWire) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    context = Identity(town.identity("m3")).client_context()
    return await asyncio.open_connection("127.0.0.1", wire.port, ssl=context)


POST = b"POST /rpc/ping HTTP/1.1\r\nHost: x\r\n"
REQUESTS = {
    "noise": bytes(range(256)) * 40,
    "half a line": b"POST /rpc/pi",
    "no host": b"POST /rpc/ping HTTP/1.1\r\n\r\n",
    "endless line": b"GET /" + b"x" * 100_000,
    "endless header": POST + b"X: " + b"y" * 100_000,
    "endless headers": POST + b"".join(b"X-%d: y\r\n" % n for n in range(5000)) + b"\r\n",
    "negative length": POST + b"Content-Length: -5\r\n\r\n",
    "length of 16 EiB": POST + b"Content-Length: 18446744073709551615\r\n\r\n{}",
    "chunk of 4 GiB": POST + b"Transfer-Encoding: chunked\r\n\r\nffffffff\r\n" + bytes(5000),
    "chunk that is none": POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
    "both lengths": POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "half a body": POST + b"Content-Length: 500\r\n\r\n" + b"\x81",
    "body of lies": POST + b"Content-Length: 5\r\n\r\n\xdd\xff\xff\xff\xff",
    "a hundred requests in one": (POST + b"Content-Length: 1\r\n\r\n\x80") * 100,
    "upgrade to nothing": b"GET /channel/session HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
    "websocket without a key": b"GET /channel/session HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\r\n",
}


@pytest.mark.parametrize("kind", REQUESTS)
async def test_what_a_bad_node_says_instead_of_http(town: Town, server: TlsWire, kind: str) -> None:
    reader, writer = await as_node(town, server)
    writer.write(REQUESTS[kind])
    await answers(town, server)
    writer.transport.abort()
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        async with asyncio.timeout(5):
            await reader.read()
    await answers(town, server)


HANDSHAKE = (
    b"GET /channel/session HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def frame(data: bytes, head: int = 0x82, length: int | None = None) -> bytes:
    """A masked websocket frame, with another length than it has if asked."""
    told = len(data) if length is None else length
    if told < 126:
        size = bytes([0x80 | told])
    elif told < 65536:
        size = bytes([0xFE]) + struct.pack(">H", told)
    else:
        size = bytes([0xFF]) + struct.pack(">Q", told)
    return bytes([head]) + size + bytes(4) + data


GREETING = frame(codec.pack([codec.HELLO, {}, 1000]))
FRAMES = {
    "no hello": frame(codec.pack([codec.DATA, {}])),
    "hello of a stranger": frame(codec.pack([codec.HELLO, {"node_id": "m9"}, 1000])),
    "hello with a huge window": frame(codec.pack([codec.HELLO, {}, 2**40])),
    "text": frame(b"hello", 0x81),
    "no UTF-8": frame(b"\xff\xfe", 0x81),
    "noise": frame(bytes(range(256))),
    "frame of 16 EiB": GREETING + frame(b"x", length=2**63 - 1),
    "frame of 1 GiB": GREETING + frame(bytes(10_000), length=2**30),
    "length with the sign": GREETING + frame(b"", length=2**64 - 1),
    "not masked": GREETING + b"\x82\x01\x80",
    "reserved bits": GREETING + frame(b"x", 0xF2),
    "unknown opcode": GREETING + frame(b"x", 0x83),
    "ping of 200 bytes": GREETING + frame(bytes(200), 0x89),
    "a thousand pings": GREETING + frame(b"", 0x89) * 1000,
    "endless fragments": GREETING + frame(b"x", 0x02) + frame(bytes(60_000), 0x00) * 400,
    "close with nonsense": GREETING + frame(b"\x00\x01", 0x88),
    "credit below zero": GREETING + frame(codec.pack([codec.CREDIT, -5])),
    "credit that is true": GREETING + frame(codec.pack([codec.CREDIT, True])),
    "accept from the wrong side": GREETING + frame(codec.pack([codec.ACCEPT, 10])),
    "refusal of nothing": GREETING + frame(codec.pack([codec.REFUSE, {}])),
    "data without end": GREETING + frame(codec.pack([codec.DATA, {"x": bytes(60_000)}])) * 100,
    "data that is no body": GREETING + frame(codec.pack([codec.DATA, [1, 2]])),
    "array of 4 G": GREETING + frame(b"\xdd\xff\xff\xff\xff"),
}


@pytest.mark.parametrize("kind", FRAMES)
async def test_what_a_bad_node_says_on_a_channel(town: Town, server: TlsWire, kind: str) -> None:
    """Each in full, and cut off half-way."""
    tracemalloc.start()
    for data in (FRAMES[kind], FRAMES[kind][: len(FRAMES[kind]) // 2]):
        reader, writer = await as_node(town, server)
        writer.write(HANDSHAKE)
        assert b" 101 " in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        writer.write(data)
        await answers(town, server)
        writer.transport.abort()
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert held < 80 * MIB
    await answers(town, server)


async def test_bodies_that_trickle_do_not_hold_others_up(town: Town, server: TlsWire) -> None:
    pairs = [await as_node(town, server) for _ in range(50)]
    for _, writer in pairs:
        writer.write(POST + b"Content-Length: 1000\r\n\r\n")
    for _ in range(3):
        for _, writer in pairs:
            writer.write(b"\x00")
        began = time.monotonic()
        await answers(town, server)
        assert time.monotonic() - began < 2
    for _, writer in pairs:
        writer.transport.abort()


# ------------------------------------------------------------ callers without a certificate


async def test_idle_strangers_do_not_keep_a_join_out(town: Town, server: TlsWire) -> None:
    context = bootstrap_context(town.authority.cert_pem)
    idle = [
        await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
        for _ in range(WireSettings().strangers)
    ]
    await bootstrap_call(at(server), town.authority.cert_pem, "join", {})
    for _, writer in idle:
        writer.transport.abort()


async def test_a_rack_joins_at_once_from_one_address(town: Town, server: TlsWire) -> None:
    token = make_token(digest(town.authority.cert_pem), os.urandom)

    async def join() -> None:
        bundle = await fetch_bundle(at(server), token, timeout=20)
        await bootstrap_call(at(server), bundle, "join", {"token": token}, timeout=20)

    await asyncio.gather(*(join() for _ in range(50)))


async def test_too_many_strangers_calls_are_told_when_to_come_back(town: Town) -> None:
    settings = WireSettings(stranger_calls=Rate(burst=4, per_second=2))
    wire = await town.server(settings=settings)

    async def serve(peer, body):
        return {}

    for method in ("join", "ping"):
        wire.on_call(method, serve)
    context = bootstrap_context(town.authority.cert_pem)
    async with dialer.new_session(WireSettings()) as session:

        async def join() -> None:
            await dialer.post(session, context, at(wire), "join", {}, 5.0)

        for _ in range(4):
            await join()
        with pytest.raises(
            RefusedError, match=r"without a certificate from 127\.0\.0\.1: try again in 1 s"
        ) as said:
            await join()
        assert said.value.code == "Unavailable"
        assert said.value.data["reason"] == rpc.RATE_LIMITED
        # What the table refuses anyway counts too, so that probing it is no way around.
        with pytest.raises(RefusedError, match="try again"):
            await dialer.post(session, context, at(wire), "ping", {}, 5.0)
        socket = await dialer.connect(session, context, at(wire), "raft", settings)
        with pytest.raises(RefusedError, match="try again"):
            await dialer.greet(socket, {}, 1000)
        for _ in range(10):  # nodes are not counted
            await town.wire("w1", "worker").call(at(wire), "ping", {})
        await asyncio.sleep(said.value.data["retry_after"])
        await join()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
async def test_old_tls_is_refused(town: Town, server: TlsWire, version: ssl.TLSVersion) -> None:
    context = Identity(town.identity("m2")).client_context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.maximum_version = version
    # Which of the two it is depends on whether the alert or the reset is read first.
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
    async with dialer.new_session(WireSettings()) as session:
        with pytest.raises(aiohttp.ClientConnectionError):
            await session.post(f"https://{at(server)}/rpc/ping", data=codec.pack({}), ssl=context)
    await answers(town, server)
