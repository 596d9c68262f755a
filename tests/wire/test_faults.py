"""What goes wrong when dialling and serving, and the sentences for it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time

import pytest

from swarmpy.adapters.wire import TlsWire, WireSettings, bootstrap_call, codec, dialer, fetch_bundle
from swarmpy.model.errors import NotFound
from swarmpy.pki.ca import DAY, Authority, digest
from swarmpy.pki.errors import TokenError, WrongClusterError
from swarmpy.pki.identity import Identity, bootstrap_context
from swarmpy.pki.tokens import make_token
from swarmpy.ports import (
    AmbiguousError,
    NoQuorumError,
    NotLeaderError,
    RefusedError,
    WireError,
)

from .conftest import Town, at


async def ping(peer, body):
    return {}


@pytest.mark.parametrize(
    "address",
    [
        *("", "host", "host:", ":2377", "host:x", "host:99999", "1.2.3.4:0", "::1:2377", "a b:1", "[::1]"),
        *("host:-1", "host:²", "h/x:1", "u@h:1", "h?:1", "h#:1"),
    ],
)
async def test_malformed_addresses(town: Town, address: str) -> None:
    client = town.wire("m2")
    for ask in (client.call(address, "ping", {}), client.open(address, "raft", {})):
        with pytest.raises(WireError, match=r"address|host name") as caught:
            await ask
        assert "\n" not in str(caught.value)


async def test_nobody_there(town: Town) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        for ask in (town.wire("m2").call(address, "ping", {}), town.wire("m2").open(address, "raft", {})):
            with pytest.raises(WireError, match=f"nothing listens on {address}"):
                await ask


async def test_no_such_host(town: Town) -> None:
    with pytest.raises(WireError, match="no such host name"):
        await town.wire("m2").call("nowhere.invalid:2377", "ping", {})


async def test_silence_is_a_timeout(town: Town, relays) -> None:
    server = await town.server()
    relay, address = await relays(server)
    relay.deafen()
    client = town.wire("m2")
    for ask in (client.call(address, "ping", {}, timeout=0.2), client.open(address, "raft", {}, timeout=0.2)):
        began = time.monotonic()
        with pytest.raises(WireError, match=r"did not answer within 0\.2 s"):
            await ask
        assert time.monotonic() - began < 1


async def test_a_slow_handler_is_a_timeout_and_the_wire_goes_on(town: Town) -> None:
    server = await town.server()
    slow = asyncio.Event()

    async def handler(peer, body):
        if body:
            await slow.wait()
        return {}

    server.on_call("ping", handler)
    client = town.wire("m2")
    with pytest.raises(WireError, match="did not answer"):
        await client.call(at(server), "ping", {"slow": True}, timeout=0.1)
    await client.call(at(server), "ping", {})
    slow.set()


async def test_a_server_without_tls(town: Town) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    with pytest.raises(WireError, match="does not speak TLS"):
        await town.wire("m2").call(address, "ping", {})
    server.close()
    await server.wait_closed()


async def test_dialling_a_worker_as_a_manager_sends_nothing(town: Town) -> None:
    worker = town.wire("w1", "worker")
    await worker.start("127.0.0.1:0")
    called = []

    async def handler(peer, body):
        called.append(body)
        return {}

    worker.on_call("control.submit", handler)
    with pytest.raises(WireError, match="node w1 is a worker, not a manager"):
        await town.wire("m2").call(at(worker), "control.submit", {"secret": 1})
    assert called == []


async def test_dialling_another_cluster(town: Town) -> None:
    foreign = Authority.create(time.time_ns())
    same_ca = TlsWire(Identity(town.identity("m1", cluster="c2")), town.clock)
    other_ca = TlsWire(Identity(town.identity_of(foreign)), town.clock)
    town.wires += [same_ca, other_ca]
    for server, why in ((same_ca, "belongs to cluster c2"), (other_ca, "self.signed|unable to get")):
        await server.start("127.0.0.1:0")
        with pytest.raises(WireError, match=f"not a manager of this cluster: .*({why})"):
            await town.wire("m2").call(at(server), "ping", {})


async def test_our_expired_certificate_is_said(town: Town) -> None:
    server = await town.server()
    server.on_call("ping", ping)
    client = town.wire("m2", identity=town.identity("m2", age=91 * DAY))
    with pytest.raises(WireError, match=r"cannot call others.*expired"):
        await client.call(at(server), "ping", {})
    with pytest.raises(WireError, match=r"cannot call others.*expired"):
        await client.open(at(server), "raft", {})


@pytest.mark.parametrize(("error", "code", "data"), [
    (NotFound("no such node"), "NotFound", {}),
    (NotLeaderError("m7"), "Unavailable", {"reason": "not_leader", "leader": "m7"}),
    (AmbiguousError("lost it"), "Ambiguous", {"reason": "ambiguous"}),
    (NoQuorumError("alone"), "Unavailable", {"reason": "no_quorum"}),
])  # fmt: skip
async def test_meant_exceptions_travel(town: Town, error, code, data) -> None:
    server = await town.server()

    async def handler(*args):
        raise error

    server.on_call("ping", handler)
    server.on_channel("session", handler)
    client = town.wire("m2")
    for ask in (client.call(at(server), "ping", {}), client.open(at(server), "session", {})):
        with pytest.raises(RefusedError) as caught:
            await ask
        assert (caught.value.code, caught.value.message) == (code, str(error))
        assert caught.value.data == data


async def test_other_exceptions_stay_at_home(town: Town, caplog) -> None:
    server = await town.server()

    async def handler(*args):
        raise KeyError("secret-path")

    async def bad_reply(peer, body):
        return {"x": object()}

    server.on_call("ping", handler)
    server.on_call("cluster.managers", bad_reply)
    server.on_channel("session", handler)
    client = town.wire("m2")
    with caplog.at_level(logging.ERROR):
        for ask in (client.call(at(server), "ping", {}), client.call(at(server), "cluster.managers", {}),
                    client.open(at(server), "session", {})):  # fmt: skip
            with pytest.raises(RefusedError, match="internal error") as caught:
                await ask
            assert caught.value.code == "Internal"
            assert "secret" not in str(caught.value)
    assert "secret-path" in caplog.text


async def test_a_method_without_handler(town: Town) -> None:
    server = await town.server()
    client = town.wire("m2")
    for ask in (client.call(at(server), "ping", {}), client.open(at(server), "session", {})):
        with pytest.raises(RefusedError, match="does not serve") as caught:
            await ask
        assert caught.value.code == "Unavailable"
    for wrong in ("nothing", "raft"):
        with pytest.raises(ValueError, match="table"):
            server.on_call(wrong, ping)
        with pytest.raises(ValueError, match="table"):
            await client.call(at(server), wrong, {})


async def test_port_in_use_and_other_listening_troubles(town: Town) -> None:
    server = await town.server()
    for listen, why in (
        (at(server), "the port is in use"),
        ("203.0.113.7:0", "no interface of this machine"),
        ("nowhere.invalid:1", "no such host name"),
        ("2377", "not an address"),
    ):
        with pytest.raises(WireError, match=why):
            await town.wire("m3").start(listen)
    with pytest.raises(WireError, match="listens already"):
        await server.start("127.0.0.1:0")


@pytest.mark.parametrize("listen", ["localhost:0", "[::1]:0", "0.0.0.0:0", ":0"])
async def test_listening_forms(town: Town, listen: str) -> None:
    server = town.wire("m1")
    await server.start(listen)
    server.on_call("ping", ping)
    host = "[::1]" if "::" in listen else "127.0.0.1"
    await town.wire("m2").call(f"{host}:{server.port}", "ping", {})


async def test_the_port_is_free_again_at_once(town: Town) -> None:
    server = await town.server("m1")
    server.on_call("ping", ping)
    client = town.wire("m2")
    await client.call(at(server), "ping", {})
    address = at(server)
    await server.stop()
    again = town.wire("m1")
    await again.start(address)
    again.on_call("ping", ping)
    await client.call(address, "ping", {})


async def test_joining_from_nothing(town: Town) -> None:
    server = await town.server()
    root = town.authority.cert_pem
    asked = []

    async def bundle(peer, body):
        assert peer.role == "none"
        return {"bundle": root}

    async def join(peer, body):
        asked.append((peer.node_id, body))
        return {"node_id": "n9"}

    server.on_call("ca.bundle", bundle)
    server.on_call("join", join)
    token = make_token(digest(root))
    fetched = await fetch_bundle(at(server), token)
    assert fetched == root
    assert await bootstrap_call(at(server), fetched, "join", {"token": token}) == {"node_id": "n9"}
    assert asked == [("", {"token": token})]
    with pytest.raises(WrongClusterError, match="another cluster"):
        await fetch_bundle(at(server), make_token(bytes(32)))
    with pytest.raises(TokenError, match="invalid join token"):
        await fetch_bundle(at(server), "SWMTKN-1-x")
    with pytest.raises(WireError, match="nothing listens"):
        await fetch_bundle("127.0.0.1:1", token)
    foreign = Authority.create(time.time_ns()).cert_pem
    with pytest.raises(WireError, match="not a manager of this cluster"):
        await bootstrap_call(at(server), foreign, "join", {"token": token})
    with pytest.raises(RefusedError, match="needs a certificate"):
        await bootstrap_call(at(server), fetched, "ping", {})
    worker = town.wire("w1", "worker")
    await worker.start("127.0.0.1:0")
    with pytest.raises(WireError, match="is a worker"):
        await bootstrap_call(at(worker), fetched, "join", {"token": token})
    assert len(asked) == 1


async def test_strangers_are_bounded_and_short_lived(town: Town) -> None:
    settings = WireSettings(strangers=3, stranger_seconds=0.5)
    server = await town.server(settings=settings)
    server.on_call("ping", ping)
    context = bootstrap_context(town.authority.cert_pem)
    idle = [await asyncio.open_connection("127.0.0.1", server.port, ssl=context) for _ in range(3)]
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
    writers = [writer, *(pair[1] for pair in idle)]
    with contextlib.suppress(ConnectionError):
        assert await asyncio.wait_for(reader.read(), 1) == b""
    # Nodes with a certificate are not kept out by them.
    await town.wire("m2").call(at(server), "ping", {})
    began = time.monotonic()
    for quiet, _ in idle:
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(quiet.read(), 2) == b""
    assert time.monotonic() - began < 1
    for writer in writers:
        writer.transport.abort()


async def test_a_handshake_that_never_comes_holds_nothing(town: Town) -> None:
    settings = WireSettings(handshakes=2, handshake_seconds=0.3)
    server = await town.server(settings=settings)
    server.on_call("ping", ping)
    quiet = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(2)]
    for reader, writer in quiet:
        assert await asyncio.wait_for(reader.read(), 2) == b""
        writer.transport.abort()
    await town.wire("m2").call(at(server), "ping", {})


async def test_a_body_that_never_comes_is_refused(town: Town) -> None:
    server = await town.server(settings=WireSettings(body_seconds=0.2))
    server.on_call("ping", ping)
    context = Identity(town.identity("m2")).client_context()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
    writer.write(b"POST /rpc/ping HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc")
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n"), 2)
    assert b"400" in answer
    writer.transport.abort()


async def test_compressed_bodies_are_not_unpacked(town: Town) -> None:
    import zlib

    server = await town.server()
    server.on_call("ping", ping)
    context = Identity(town.identity("m2")).client_context()
    data = zlib.compress(codec.pack({"x": bytes(500)}))
    async with (
        dialer.new_session(WireSettings()) as session,
        session.post(f"https://{at(server)}/rpc/ping", data=data, ssl=context,
                     headers={"Content-Encoding": "deflate"}) as response,
    ):  # fmt: skip
        refusal = codec.refusal_from(codec.unpack_body(await response.read()))
    assert refusal.data == {"reason": "bad_request"}


async def test_an_answer_above_the_limit(town: Town, caplog) -> None:
    server = await town.server()

    async def handler(peer, body):
        return {"x": bytes(5000)}

    server.on_call("ping", handler)
    with caplog.at_level(logging.ERROR), pytest.raises(RefusedError, match="too large to send"):
        await town.wire("m2").call(at(server), "ping", {})
