"""The short way answers as the HTTP server does, takes plain requests only, and ends with who asked."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.api.conftest import Rig

PATHS = [
    "/services",
    "/services?status=true",
    "/services?status=maybe",
    "/services/web",
    "/services/web?insertDefaults=1",
    "/services/WEB?a=1&a=2&b",
    "/services/nothing",
    "/v1.41/services/web",
    "/v1.41.0/services/web",
    "/v9.99/services/web",
    "/v1.0/services/web",
    "/v./services/web",
    "/nodes",
    "/nodes/self",
    "/v1.40/nodes",
    "/tasks",
    "/tasks?filters=x",
    "/tasks/nothing",
    "/swarm",
]


async def said(rig: Rig, data: bytes) -> tuple[str, dict[str, str], bytes]:
    """Status line, headers and body of what the server answers."""
    reader, writer = await asyncio.open_unix_connection(str(rig.socket))
    try:
        writer.write(data)
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
        await writer.wait_closed()
    status, *lines = head.decode().split("\r\n")
    return status, dict(line.split(": ", 1) for line in lines), body


def is_short(rig: Rig, head: bytes) -> bool:
    assert rig.server._door is not None
    return rig.server._door.short(head) is not None


@pytest.mark.parametrize("path", PATHS)
async def test_both_ways_say_the_same(rig: Rig, path: str) -> None:
    await rig.create(Name="web")
    short = f"GET {path} HTTP/1.1\r\nHost: docker\r\nAccept: */*\r\n\r\n".encode()
    long = f"GET {path} HTTP/1.1\r\nHost: docker\r\nContent-Length: 0\r\n\r\n".encode()
    assert is_short(rig, short)
    assert not is_short(rig, long)
    one, other = await said(rig, short), await said(rig, long)
    assert one[0] == other[0]
    assert one[2] == other[2]
    assert one[1].keys() == other[1].keys()
    assert {**one[1], "Date": ""} == {**other[1], "Date": ""}


@pytest.mark.parametrize("fields", ["", "Content-Length: 0\r\n"])
async def test_both_ways_remove(rig: Rig, fields: str) -> None:
    await rig.create(Name="web")
    data = f"DELETE /services/web HTTP/1.1\r\nHost: docker\r\n{fields}\r\n".encode()
    assert is_short(rig, data) is not bool(fields)
    status, headers, body = await said(rig, data)
    assert (status, body) == ("HTTP/1.1 200 OK", b"")
    assert "Content-Type" not in headers
    assert headers["Content-Length"] == "0"
    assert not (await rig.control.world()).services.rows


@pytest.mark.parametrize(
    "head",
    [
        "GET /services/web HTTP/1.0\r\nHost: a\r\n\r\n",
        "GET /services/web HTTP/1.1\r\n\r\n",
        "HEAD /services/web HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /services/create HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /services/web/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET //services/web HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /services/../web HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /services/w%65b HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /services?filters=%7B%7D HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /services?a=+ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://docker/services HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /services/web/logs HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /events HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /services/web HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n",
        "GET /services/web HTTP/1.1\r\nHost: a\r\ncontent-length : 3\r\n\r\n",
        "GET /services/web HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        "GET /services/web HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
        "GET /services/web HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\n\r\n",
        "GET /services/web HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\n\r\n",
        "GET /services/web HTTP/1.1\r\nHost: a\r\nX: \x80\r\n\r\n",
        "GET /services/web HTTP/1.1\r\nHost: a\r\n X: folded\r\n\r\n",
        "GET /services/web HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n",
        "GET /services/web HTTP/1.1\r\nHost: a\nX: 1\r\n\r\n",
        "GET /services/web HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        f"GET /services/web HTTP/1.1\r\nHost: a\r\nX: {'y' * 9000}\r\n\r\n",
        f"GET /services/web HTTP/1.1\r\nHost: a\r\n{'X: y' * 100}\r\n\r\n".replace("yX", "y\r\nX"),
    ],
)
async def test_what_is_not_plain_takes_the_long_way(rig: Rig, head: str) -> None:
    assert is_short(rig, b"GET /services/web HTTP/1.1\r\nHost: a\r\n\r\n")
    assert not is_short(rig, head.encode("latin-1"))


async def test_a_failing_handler_is_an_error_and_not_a_silent_end(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken() -> Any:
        raise RuntimeError("by the test")

    monkeypatch.setattr(rig.control, "world", broken)
    status, _, body = await said(rig, b"GET /nodes HTTP/1.1\r\nHost: docker\r\n\r\n")
    assert status.startswith("HTTP/1.1 500 ")
    assert b"an internal error of swarmpy" in body


async def test_who_hangs_up_is_not_worked_for(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def slow() -> Any:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    monkeypatch.setattr(rig.control, "world", slow)
    _, writer = await asyncio.open_unix_connection(str(rig.socket))
    writer.write(b"GET /nodes HTTP/1.1\r\nHost: docker\r\n\r\n")
    await asyncio.wait_for(begun.wait(), 5)
    writer.close()
    await asyncio.wait_for(ended.wait(), 5)


async def test_what_is_being_answered_ends_before_the_server_does(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, going = asyncio.Event(), asyncio.Event()
    world = rig.control.world

    async def slow() -> Any:
        begun.set()
        await going.wait()
        return await world()

    monkeypatch.setattr(rig.control, "world", slow)
    answer = asyncio.ensure_future(said(rig, b"GET /nodes HTTP/1.1\r\nHost: docker\r\n\r\n"))
    await asyncio.wait_for(begun.wait(), 5)
    stopping = asyncio.ensure_future(rig.server.stop())
    await asyncio.sleep(0)
    going.set()
    assert (await asyncio.wait_for(answer, 5))[0] == "HTTP/1.1 200 OK"
    await stopping
