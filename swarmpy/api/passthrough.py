"""The front door: each connection carries one request, which is ours or the Engine's.

The head of the request decides. Ours goes to the aiohttp application; anything else becomes a plain tunnel of
bytes to the Engine's socket, so streams, uploads, upgrades (attach, exec, build sessions) and half-closed
connections behave as if the Engine itself had answered. Heads are changed in one way: `Connection: close` is
asked for, so that a kept-alive connection can never carry a later request past the decision.
What does not belong here: any knowledge of endpoints beyond their first words.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from typing import cast

MAX_HEAD = 64 * 1024
HEAD_SECONDS = 60.0
LINGER_SECONDS = 2.0
"""How long a refused client may go on sending before the connection is cut."""
QUIET_SECONDS = 10.0
"""How long the Engine may say nothing to a request before it is asked whether it lives."""
PING_SECONDS = 5.0
"""How long it may take to answer that; it is on this machine."""

OURS = frozenset(
    {"swarm", "nodes", "services", "tasks", "secrets", "configs", "events", "info", "_ping", "swarmpy"}
)
_TARGET = re.compile(rb"([A-Z]+) (?:https?://[^/ ]*)?(/[^ ]*) HTTP/1\.[01]\Z")
_VERSION = re.compile(r"/v[0-9]+(?:\.[0-9]+)*(?=/)")
_CONNECTION = re.compile(rb"(?mi)^connection:[ \t]*([^\r\n]*)\r\n")
_UPGRADE = re.compile(rb"(?mi)^upgrade:")


def is_ours(method: str, path: str) -> bool:
    """Whether the request is for the cluster (or needs a look first) rather than for the Engine."""
    bare = _VERSION.sub("", path.split("?", 1)[0], count=1)
    first = bare.lstrip("/").split("/", 1)[0]
    return first in OURS or _is_network(method, bare) or _is_container(method, bare)


def _is_network(method: str, bare: str) -> bool:
    """Whether it asks for networks, changes them, or connects to one."""
    words = bare.strip("/").split("/")
    if words[0] != "networks":
        return False
    if method == "POST":
        return words[1:] in (["create"], ["prune"]) or (
            len(words) == 3 and words[2] in {"connect", "disconnect"}
        )
    return len(words) <= 2 and method in {"GET", "HEAD", "DELETE"}


def _is_container(method: str, bare: str) -> bool:
    """Whether it may name networks of the cluster: a container is made, or shown."""
    words = bare.strip("/").split("/")
    if words[0] != "containers":
        return False
    if method == "POST":
        return words[1:] == ["create"]
    return method == "GET" and len(words) == 3 and words[2] == "json"


def closing(head: bytes) -> bytes:
    """The request's head (up to and including the empty line) asking to close after the answer."""
    found = _CONNECTION.search(head)
    if _UPGRADE.search(head):
        if found is None:
            return head
        return head[: found.end(1)] + b", close" + head[found.end(1) :]
    return _CONNECTION.sub(b"", head)[:-2] + b"Connection: close\r\n\r\n"


class FrontDoor:
    """Makes the protocol of each accepted connection, and knows which are open."""

    def __init__(self, engine_path: str, application: Callable[[], asyncio.Protocol]) -> None:
        self.engine_path = engine_path
        self.application = application
        self.open: set[asyncio.Transport] = set()
        self.connecting: set[asyncio.Task[None]] = set()

    def __call__(self) -> asyncio.Protocol:
        """A protocol for a new connection."""
        return _Head(self)

    async def engine_lives(self) -> bool:
        """Whether the Engine answers a ping; a slow answer to anything else is the Engine's right."""
        writer: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(PING_SECONDS):
                reader, writer = await asyncio.open_unix_connection(self.engine_path)
                writer.write(b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n")
                return bool(await reader.read(1))
        except (OSError, TimeoutError):
            return False
        finally:
            if writer is not None:
                writer.close()

    async def close(self) -> None:
        """Cut every tunnel."""
        for task in list(self.connecting):
            task.cancel()
        await asyncio.gather(*self.connecting, return_exceptions=True)
        for transport in list(self.open):
            transport.abort()


class _Head(asyncio.Protocol):
    """Reads a request's head and decides."""

    def __init__(self, door: FrontDoor) -> None:
        self._door = door
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._decided = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._door.open.add(self._transport)
        self._timer = asyncio.get_running_loop().call_later(HEAD_SECONDS, self._transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        if self._transport is not None:
            self._door.open.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        if self._decided:
            return  # a refused client that still sends
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n", 0, MAX_HEAD) + 4
        if end >= 4:
            self._decide(bytes(self._buffer[:end]), bytes(self._buffer[end:]))
        elif len(self._buffer) >= MAX_HEAD:
            self.refuse(431, f"the request's head is larger than {MAX_HEAD} bytes")

    def _decide(self, head: bytes, rest: bytes) -> None:
        self._decided = True
        self._stop_timer()
        head = head.lstrip(b"\r\n")
        found = _TARGET.match(head.split(b"\r\n", 1)[0])
        if found is None:
            self.refuse(400, "this is not a request of HTTP/1.0 or HTTP/1.1")
        elif is_ours(found[1].decode("ascii"), found[2].decode("latin-1")):
            self._to_application(closing(head) + rest)
        else:
            assert self._transport is not None
            self._transport.pause_reading()
            upgrade = _UPGRADE.search(head) is not None
            task = asyncio.get_running_loop().create_task(self._to_engine(closing(head) + rest, upgrade))
            self._door.connecting.add(task)
            task.add_done_callback(self._door.connecting.discard)

    def _to_application(self, data: bytes) -> None:
        transport = self._transport
        assert transport is not None
        self._door.open.discard(transport)  # from here on the application looks after it
        handler = self._door.application()
        transport.set_protocol(handler)
        handler.connection_made(transport)
        handler.data_received(data)

    async def _to_engine(self, data: bytes, upgrade: bool) -> None:
        client = self._transport
        assert client is not None
        loop = asyncio.get_running_loop()
        far = _Pipe(self._door, client, close_at_end=not upgrade)
        try:
            upstream, _ = await loop.create_unix_connection(lambda: far, self._door.engine_path)
        except OSError as error:
            client.resume_reading()
            self.refuse(503, f"the Docker Engine of this node does not answer ({error}): is it running?")
            return
        if client.is_closing():
            upstream.abort()
            return
        near = _Pipe(self._door, upstream, close_at_end=False)
        client.set_protocol(near)
        near.connection_made(client)
        upstream.write(data)
        client.resume_reading()
        await self._watch(far, upstream)

    async def _watch(self, far: _Pipe, upstream: asyncio.Transport) -> None:
        """An Engine that takes connections and answers nothing would keep its clients for ever."""
        while not far.heard and not upstream.is_closing():
            await asyncio.sleep(QUIET_SECONDS)
            if far.heard or upstream.is_closing() or await self._door.engine_lives():
                continue
            if not far.heard and not upstream.is_closing():
                self.refuse(504, "the Docker Engine of this node takes requests but does not answer them: "
                                 "it hangs; restart it if it stays so")  # fmt: skip
                upstream.abort()

    def refuse(self, status: int, message: str) -> None:
        """Answer without the application, then let the client finish sending for a moment."""
        transport = self._transport
        assert transport is not None
        self._decided = True
        self._stop_timer()
        body = json.dumps({"message": message}).encode() + b"\n"
        head = (
            f"HTTP/1.1 {status} Refused\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        transport.write(head.encode() + body)
        self._timer = asyncio.get_running_loop().call_later(LINGER_SECONDS, transport.close)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Pipe(asyncio.Protocol):
    """One end of a tunnel: what arrives here goes to the peer, at the pace at which the peer takes it."""

    def __init__(self, door: FrontDoor, peer: asyncio.Transport, *, close_at_end: bool) -> None:
        self._door = door
        self._peer = peer
        self._close_at_end = close_at_end
        self._transport: asyncio.Transport | None = None
        self.heard = False
        """Whether anything arrived here."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._door.open.add(self._transport)

    def data_received(self, data: bytes) -> None:
        self.heard = True
        if not self._peer.is_closing():
            self._peer.write(data)

    def eof_received(self) -> bool:
        if self._close_at_end:
            self._peer.close()  # flushes what is still to be written
            return False
        if not self._peer.is_closing() and self._peer.can_write_eof():
            self._peer.write_eof()
        return True  # the other direction goes on

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._door.open.discard(self._transport)
        self._peer.close()

    def pause_writing(self) -> None:
        if not self._peer.is_closing():
            self._peer.pause_reading()

    def resume_writing(self) -> None:
        if not self._peer.is_closing():
            self._peer.resume_reading()
