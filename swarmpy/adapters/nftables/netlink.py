"""Raw netlink: messages, attributes, a socket of the calling thread's namespace.

What belongs here: framing. What does not: what messages mean (seal.py, conntrack.py, routes.py, pair.py).
A thousand entries through objects take seconds, as raw bytes milliseconds; hence no library.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Collection, Iterator, Sequence
from types import TracebackType
from typing import NamedTuple

from swarmpy.ports import FabricError

ROUTE, NETFILTER = 0, 12
REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
REPLACE, EXCL, CREATE = 0x100, 0x200, 0x400
_ERROR, _DONE = 2, 3
_INTERRUPTED = 0x10
_SOL_NETLINK, _CAP_ACK, _RCVBUFFORCE = 270, 10, 33
_TRIES = 20
_BATCH = 200
_NESTED = 0x8000


class Message(NamedTuple):
    """A netlink message without its header."""

    kind: int
    flags: int
    body: bytes


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded."""
    size = 4 + len(payload)
    return struct.pack("=HH", size, kind) + payload + b"\0" * (-size % 4)


def nested(kind: int, *parts: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | _NESTED, b"".join(parts))


def text(kind: int, value: str) -> bytes:
    """An attribute that holds a name."""
    return attribute(kind, value.encode() + b"\0")


def attributes(data: bytes) -> dict[int, bytes]:
    """Attributes by kind (of equal kinds the last)."""
    return dict(each(data))


def each(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Attributes in order."""
    at = 0
    while at + 4 <= len(data):
        size, kind = struct.unpack_from("=HH", data, at)
        if size < 4:
            return
        yield kind & 0x3FFF, data[at + 4 : at + size]
        at += (size + 3) & ~3


def name(payload: bytes) -> str:
    """A name out of an attribute."""
    return payload.rstrip(b"\0").decode(errors="replace")


class Netlink:
    """A netlink socket, opened in the namespace in which the thread is then."""

    def __init__(self, family: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
        self._socket.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
        self._socket.settimeout(10)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, 4 << 20)
        except PermissionError:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._number = 0

    def __enter__(self) -> Netlink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def ask(self, kind: int, body: bytes, *, missing: Collection[int] = ()) -> list[Message]:
        """All that a dump answers; what changed under it is read again. Errors named `missing` mean nothing
        is there. Raises FabricError."""
        for _ in range(_TRIES):
            found: list[Message] = []
            if self._dump(kind, body, found, missing):
                return found
        raise FabricError("the kernel's network tables change faster than they can be read; try again")

    def get(self, kind: int, body: bytes, *, missing: Collection[int] = ()) -> bytes | None:
        """The one thing asked for, None where an error is among `missing`. Raises FabricError."""
        self._send([Message(kind, REQUEST, body)])
        while True:
            for header, _, number, payload in self._receive():
                if number != self._number:
                    continue
                if header != _ERROR:
                    return payload
                code = -struct.unpack_from("=i", payload)[0]
                if code in missing:
                    return None
                raise _refused(code, "reading the kernel's network tables")

    def _dump(self, kind: int, body: bytes, found: list[Message], missing: Collection[int]) -> bool:
        self._send([Message(kind, REQUEST | DUMP, body)])
        whole = True
        while True:
            for header, flags, number, payload in self._receive():
                if number != self._number:
                    continue
                whole = whole and not flags & _INTERRUPTED
                if header in (_DONE, _ERROR):
                    code = -struct.unpack_from("=i", payload)[0] if len(payload) >= 4 else 0
                    if code in (0, *missing):
                        return whole
                    if code == errno.EINTR:
                        return False
                    raise _refused(code, "reading the kernel's network tables")
                found.append(Message(header, flags, payload))

    def tell(self, messages: Sequence[Message], what: str, *, fine: Collection[int] = ()) -> None:
        """Carry out all messages; errors named `fine` are none. Raises FabricError for the first other."""
        worst = 0
        for start in range(0, len(messages), _BATCH):
            batch = messages[start : start + _BATCH]
            first = self._number + 1
            self._send(batch, ACK | REQUEST)
            left = len(batch)
            while left:
                for header, _, number, payload in self._receive():
                    if header == _ERROR and number >= first:
                        code = -struct.unpack_from("=i", payload)[0]
                        left -= 1
                        worst = worst or (0 if code in fine else code)
        if worst:
            raise _refused(worst, what)

    def _send(self, messages: Sequence[Message], flags: int = 0) -> None:
        packed = bytearray()
        for message in messages:
            self._number += 1
            packed += struct.pack(
                "=IHHII", 16 + len(message.body), message.kind, message.flags | flags, self._number, 0
            )
            packed += message.body + b"\0" * (-len(message.body) % 4)
        self._socket.send(packed)

    def _receive(self) -> Iterator[tuple[int, int, int, bytes]]:
        try:
            data = self._socket.recv(1 << 20)
        except TimeoutError:
            raise FabricError("the kernel does not answer about its network tables") from None
        except OSError as error:
            raise _refused(error.errno or 0, "reading the kernel's answer") from None
        at = 0
        while at + 16 <= len(data):
            size, kind, flags, number, _ = struct.unpack_from("=IHHII", data, at)
            yield kind, flags, number, data[at + 16 : at + size]
            at += (size + 3) & ~3


def _refused(code: int, what: str) -> FabricError:
    return FabricError(f"the kernel refused {what}: {os.strerror(code)}")
