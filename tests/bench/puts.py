"""Writes to a key-value store from one connection, as many outstanding as asked: one load for two protocols.

What belongs here: the clients of both contenders (etcd's gRPC by hand, since a general library costs more than what
is measured; the door of our members) and the load that drives either. What does not: the stores themselves.

Both clients cost about the same for each write (`Load.client`, µs of processor time): one small frame out and a few
bytes in, many in one system call where many are outstanding.
"""

from __future__ import annotations

import asyncio
import os
import struct
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

KEYS = 1000
"""Different keys that are written."""


class CallError(Exception):
    """A write failed, or the connection ended."""


class Client(asyncio.Protocol):
    """One connection. `answered` is called with the write's number; what is said while data is read leaves in one
    piece, what is said otherwise leaves with `flush`."""

    def __init__(self) -> None:
        self.answered: Callable[[int], None] = lambda _: None
        self.broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport
        self._out: list[bytes] = []
        self._in = b""

    def connection_made(self, transport) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.fail(f"the connection ended: {exc}")

    def fail(self, why: str) -> None:
        if not self.broken.done():
            self.broken.set_exception(CallError(why))

    def data_received(self, data: bytes) -> None:
        data = self._in + data if self._in else data
        self._in = data[self.take(data):]  # fmt: skip
        self.flush()

    def flush(self) -> None:
        """Send what was said."""
        if self._out:
            self._transport.write(b"".join(self._out))
            self._out.clear()

    def close(self) -> None:
        self.broken.cancel()
        self._transport.close()

    def put(self, key: bytes, value: bytes) -> int:
        """Say a write; its number."""
        raise NotImplementedError

    def take(self, data: bytes) -> int:
        """Read whole answers; how many bytes they are."""
        raise NotImplementedError


class DoorClient(Client):
    """To the door of a member of ours (raft_members.py): length, number, key and value; answered by number and 0
    where it was committed and applied."""

    def __init__(self) -> None:
        super().__init__()
        self._number = 0

    def put(self, key: bytes, value: bytes) -> int:
        self._number += 1
        self._out += (struct.pack(">II", len(key) + 1 + len(value), self._number), key, b"\0", value)
        return self._number

    def take(self, data: bytes) -> int:
        whole = len(data) - len(data) % 5
        for number, status in struct.iter_unpack(">IB", data[:whole]):
            if status:
                self.fail("it does not lead, or stopped")
                break
            self.answered(number)
        return whole


_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _AWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
_ROOM = 1 << 30


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">IBI", len(payload) << 8 | kind, flags, stream) + payload


def _literal(name: bytes, value: bytes) -> bytes:
    """A header field that no table remembers (RFC 7541, 6.2.2): `name` is its encoded name."""
    return name + bytes([len(value)]) + value


class EtcdClient(Client):
    """etcd's KV.Put by gRPC: HTTP/2 in clear, one stream for each write."""

    def __init__(self) -> None:
        super().__init__()
        self._stream = -1
        self._window = 65535
        """Bytes of data that the server takes at the moment."""
        self._unsent: deque[bytes] = deque()
        self._said: set[int] = set()
        """Streams on which an answer came: only then is the end of one a success."""
        self._taken = 0
        self._head = b"".join(
            (b"\x83\x86", _literal(b"\x04", b"/etcdserverpb.KV/Put"), _literal(b"\x01", b"etcd"),
             _literal(b"\x0f\x10", b"application/grpc"), _literal(b"\x00\x02te", b"trailers"))
        )  # fmt: skip

    def connection_made(self, transport) -> None:
        super().connection_made(transport)
        settings = struct.pack(">HI", 4, _ROOM)  # how much of an answer may come at once
        room = struct.pack(">I", _ROOM)
        self._out += (_PREFACE, _frame(_SETTINGS, 0, 0, settings), _frame(_WINDOW, 0, 0, room))
        self.flush()

    def put(self, key: bytes, value: bytes) -> int:
        self._stream += 2
        size = bytes([len(value) & 127 | 128, len(value) >> 7]) if len(value) > 127 else bytes([len(value)])
        request = b"".join((b"\x0a", bytes([len(key)]), key, b"\x12", size, value))
        data = _frame(_DATA, _END_STREAM, self._stream, struct.pack(">BI", 0, len(request)) + request)
        self._out.append(_frame(_HEADERS, _END_HEADERS, self._stream, self._head))
        self._unsent.append(data)
        self._send()
        return self._stream

    def _send(self) -> None:
        while self._unsent and len(self._unsent[0]) - 9 <= self._window:
            self._window -= len(self._unsent[0]) - 9
            self._out.append(self._unsent.popleft())

    def take(self, data: bytes) -> int:
        at = 0
        while at + 9 <= len(data):
            word, flags, stream = struct.unpack_from(">IBI", data, at)
            size, kind = word >> 8, word & 255
            if at + 9 + size > len(data):
                break
            self._frame(kind, flags, stream, data[at + 9 : at + 9 + size])
            at += 9 + size
        return at

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _DATA:
            self._said.add(stream)
            self._taken += len(payload)
            if self._taken > _ROOM // 2:
                self._out.append(_frame(_WINDOW, 0, 0, struct.pack(">I", self._taken)))
                self._taken = 0
        elif kind == _WINDOW and stream == 0:
            self._window += struct.unpack(">I", payload)[0]
            self._send()
        elif kind in (_SETTINGS, _PING) and not flags & _ACK:
            self._out.append(_frame(kind, _ACK, 0, payload if kind == _PING else b""))
        elif kind in (_RESET, _AWAY):
            self.fail("etcd ended the call")
        if kind in (_DATA, _HEADERS) and flags & _END_STREAM:
            if stream not in self._said:
                self.fail("etcd refused a write")
                return
            self._said.discard(stream)
            self.answered(stream)


@dataclass
class Load:
    """What came of a load."""

    rate: float
    """Writes a second."""
    p50: float
    p99: float
    """Seconds from when a write was said until its answer was read."""
    client: float
    """Microseconds of the client's processor time for each."""


async def drive(kind: type[Client], port: int, size: int, outstanding: int, seconds: float) -> Load:
    """Keep so many writes of `size` bytes outstanding for so long, after a fifth of that to warm up.

    Raises CallError where one fails, OSError where nobody listens.
    """
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(kind, "127.0.0.1", port)
    values = [os.urandom(size) for _ in range(64)]
    begun: dict[int, float] = {}
    took: list[float] = []
    over = asyncio.Event()
    now, start = time.perf_counter, 0.0
    writes, end = 0, now() + 1.2 * seconds

    def say() -> None:
        nonlocal writes
        writes += 1
        begun[client.put(b"key%d" % (writes % KEYS), values[writes % 64])] = now()

    def answered(number: int) -> None:
        at = now()
        since = begun.pop(number)
        if start:
            took.append(at - since)
        if at < end:
            say()
        elif not begun:
            over.set()

    client.answered = answered
    for _ in range(outstanding):
        say()
    client.flush()
    try:
        await asyncio.wait([client.broken], timeout=0.2 * seconds)
        start, used = now(), time.process_time()
        await asyncio.wait([client.broken], timeout=seconds)
        stop, used = now(), time.process_time() - used
        counted = len(took)
        waiting = asyncio.ensure_future(over.wait())
        await asyncio.wait([client.broken, waiting], timeout=30, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if client.broken.done():
            client.broken.result()
        if begun:
            raise CallError(f"{len(begun)} writes were not answered within 30 s")
    finally:
        client.close()
    ordered = sorted(took)
    return Load(counted / (stop - start), ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100],
                used / counted * 1e6)  # fmt: skip
