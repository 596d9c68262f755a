"""What is not the cluster's reaches the Engine as bytes: streams, uploads, upgrades, half-closed ends."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmpy.api import passthrough
from swarmpy.api.passthrough import FrontDoor, closing, is_ours
from swarmpy.api.server import AddressInUseError, ApiServer, engine_path
from tests.api.conftest import Rig
from tests.api.fakes import FakeClock, FakeEntropy, FakeLocal


async def connect(rig: Rig) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_unix_connection(str(rig.socket))


async def test_plain_requests_pass(rig: Rig) -> None:
    assert await rig.call("GET", "/v1.41/containers/json") == (200, [{"Id": "c1"}])
    assert await rig.call("GET", "/version") == (
        200, {"ApiVersion": "1.41", "MinAPIVersion": "1.12", "Version": "20.10.24"},
    )  # fmt: skip
    assert await rig.call("GET", "/v1.41/distribution/nginx/json") == (404, {"message": "manifest unknown"})


async def test_headers_pass(rig: Rig) -> None:
    _, seen = await rig.call("POST", "/images/create?fromImage=x", headers={"X-Registry-Auth": "abc"})
    assert seen == {"X": ["X-Registry-Auth: abc"]}


async def test_one_client_mixes_ours_and_the_engines(rig: Rig) -> None:
    for _ in range(3):
        assert (await rig.call("GET", "/containers/json"))[0] == 200
        assert (await rig.call("GET", "/nodes"))[0] == 200


async def test_networks_of_the_engine_are_made_by_the_engine(rig: Rig) -> None:
    body = {"Name": "n", "Driver": "bridge"}
    assert await rig.call("POST", "/v1.41/networks/create", body) == (201, {"Id": "n1"})
    assert json.loads(rig.engine.bodies[-1]) == body
    assert rig.engine.heads[-1].startswith("POST /v1.41/networks/create ")


async def test_upgrade_is_a_duplex_tunnel_with_half_close(rig: Rig) -> None:
    reader, writer = await connect(rig)
    writer.write(
        b"POST /v1.41/containers/c1/attach?stream=1 HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\n"
        b"Upgrade: tcp\r\nContent-Length: 0\r\n\r\n"
    )
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 UPGRADED")
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"HELLO"
    writer.write_eof()
    assert await reader.read() == b"the end"
    writer.close()


async def test_much_data_flows_both_ways_at_the_readers_pace(rig: Rig) -> None:
    reader, writer = await connect(rig)
    writer.write(
        b"POST /containers/c1/attach HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
    )
    await reader.readuntil(b"\r\n\r\n")
    size = 8 * 2**20

    async def send() -> None:
        for _ in range(size // 65536):
            writer.write(b"x" * 65536)
            await writer.drain()
        writer.write_eof()

    sender = asyncio.create_task(send())
    assert len(await reader.read(-1)) == size + len(b"the end")
    await sender
    writer.close()


async def test_upload_is_streamed(rig: Rig) -> None:
    reader, writer = await connect(rig)
    writer.write(b"POST /images/load HTTP/1.1\r\nHost: d\r\nContent-Length: 3000000\r\n\r\n")
    for _ in range(30):
        writer.write(b"y" * 100_000)
        await writer.drain()
    assert (await reader.read()).endswith(b'{"size": 3000000}')
    writer.close()


async def test_stream_is_flushed_at_once(rig: Rig) -> None:
    reader, writer = await connect(rig)
    writer.write(b"POST /containers/c1/wait HTTP/1.1\r\nHost: d\r\n\r\n")
    assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
    await rig.engine.events.put(b"")
    assert await reader.readuntil(b"one\n\r\n")
    await rig.engine.events.put(b"")
    assert (await reader.read()).endswith(b"two\n\r\n0\r\n\r\n")
    writer.close()


async def test_absent_engine_is_a_sentence(rig: Rig) -> None:
    await rig.engine.stop()
    status, body = await rig.call("GET", "/containers/json")
    assert status == 503
    assert body["message"].startswith("the Docker Engine of this node does not answer")
    status, body = await rig.call("GET", "/info")
    assert status == 200
    assert body["Swarm"]["LocalNodeState"] == "active"
    assert "does not answer" in body["Warnings"][0]
    async with rig.session.head("http://docker/_ping") as reply:
        assert (reply.status, reply.headers["Api-Version"]) == (200, "1.41")


async def test_nonsense_and_endless_heads_are_refused(rig: Rig) -> None:
    for data, status in (
        (b"what is this\r\n\r\n", b"400"),
        (b"GET /x HTTP/1.1\r\n" + b"A: b\r\n" * 20_000, b"431"),
    ):
        reader, writer = await connect(rig)
        writer.write(data)
        assert (await reader.readline()).split()[1] == status
        writer.close()


async def test_socket_mode_stale_socket_and_second_server(rig: Rig) -> None:
    assert stat.S_IMODE(os.stat(rig.socket).st_mode) == 0o660
    other = ApiServer(FakeLocal(None), "unix:///nowhere", clock=FakeClock(), entropy=FakeEntropy())
    with pytest.raises(AddressInUseError, match="another server answers"):
        await other.start(rig.socket)
    stale = rig.socket.with_name("stale.sock")
    import socket

    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(stale))
    await other.start(stale)
    await other.stop()
    assert not stale.exists()


def test_engine_addresses() -> None:
    assert engine_path("unix:///run/docker.sock") == "/run/docker.sock"
    with pytest.raises(ValueError, match="unix:///PATH"):
        engine_path("tcp://x:1")


@pytest.mark.parametrize(
    ("method", "path", "ours"),
    [
        ("GET", "/v1.41/services", True), ("GET", "/services?x=/containers", True), ("HEAD", "/_ping", True),
        ("GET", "/v1.41/containers/json", False), ("POST", "/containers/services/start", False),
        ("GET", "/v1.41/containers/services/json", True), ("POST", "/containers/create", True), ("GET", "/version", False),
        ("POST", "/v1.41/networks/create", True), ("GET", "/networks", True), ("GET", "/v1.41/events", True),
        ("GET", "/v1.41/networks/x", True), ("DELETE", "/networks/x", True), ("POST", "/networks/prune", True),
        ("POST", "/networks/x/connect", True), ("POST", "/networks/x/disconnect", True),
        ("GET", "/servicesx", False), ("GET", "/", False), ("GET", "/swarmpy/v1/status", True),
    ],
)  # fmt: skip
def test_who_answers(method: str, path: str, ours: bool) -> None:
    assert is_ours(method, path) is ours


def test_heads_ask_to_close() -> None:
    assert closing(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n") == (
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    assert closing(b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n") == (
        b"GET / HTTP/1.1\r\nConnection: Upgrade, close\r\nUpgrade: tcp\r\n\r\n"
    )


@given(st.binary(max_size=200))
def test_any_path_is_decided(data: bytes) -> None:
    assert is_ours("GET", data.decode("latin-1")) in {True, False}


@asynccontextmanager
async def door_to(engine: Path, front: Path) -> AsyncIterator[FrontDoor]:
    """A front door with nothing but an Engine behind it."""
    door = FrontDoor(str(engine), asyncio.Protocol)
    server = await asyncio.get_running_loop().create_unix_server(door, str(front))
    try:
        yield door
    finally:
        server.close()
        await door.close()


async def ask(front: Path) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(front))
    try:
        writer.write(b"POST /v1.41/containers/c1/wait HTTP/1.1\r\nHost: d\r\n\r\n")
        return await reader.read()
    finally:
        writer.close()


async def test_an_engine_that_hangs_is_told_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passthrough, "QUIET_SECONDS", 0.1)
    monkeypatch.setattr(passthrough, "PING_SECONDS", 0.1)
    monkeypatch.setattr(passthrough, "LINGER_SECONDS", 0.1)
    with socket.socket(socket.AF_UNIX) as hanging:
        hanging.bind(str(tmp_path / "e"))
        hanging.listen()
        async with door_to(tmp_path / "e", tmp_path / "f") as door:
            answer = await asyncio.wait_for(ask(tmp_path / "f"), 10)
            assert answer.startswith(b"HTTP/1.1 504 ")
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["message"].startswith(
                "the Docker Engine of this node takes requests but does not answer them"
            )
            await asyncio.sleep(0)
            assert not door.connecting


async def test_an_engine_that_takes_its_time_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passthrough, "QUIET_SECONDS", 0.05)
    pings: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"/_ping" in head:
            pings.append(head)
        else:
            while len(pings) < 3:
                await asyncio.sleep(0.01)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nOK")
        await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(serve, str(tmp_path / "e"))
    async with server, door_to(tmp_path / "e", tmp_path / "f"):
        answer = await asyncio.wait_for(ask(tmp_path / "f"), 10)
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert answer.endswith(b"OK")
