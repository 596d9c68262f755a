"""Raw rtnetlink: messages, acknowledgements, dumps; forwarding and neighbour entries in bulk.

What belongs here: bytes to and from the kernel. A socket belongs to the namespace in which it was opened,
wherever its thread goes later. What does not belong here: which messages are wanted.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
REPLACE, EXCL, CREATE = 0x100, 0x200, 0x400
BATCH = 200
"""Messages a send: their acknowledgements fit the receive buffer even where it cannot be made larger."""
PATIENCE = 10.0
"""Seconds: answers wait in the socket when `send` returns, so only a defect lets this pass."""
DUMPS = 10
"""Dumps that changed under our eyes before we give up."""

_ERROR, _DONE = 2, 3
_INTERRUPTED, _TLVS = 0x10, 0x200
_NETLINK, _CAP_ACK, _EXT_ACK = 270, 10, 11
_RCVBUFFORCE = 33
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_NESTED = 0x8000

NEWNEIGH, DELNEIGH, GETNEIGH = 28, 29, 30
_NDMSG = struct.Struct("=BBHiHBB")
_BRIDGE = 7
_PERMANENT = 0x80
_SELF = 2
_DST, _LLADDR = 1, 2


class NetlinkError(OSError):
    """The kernel refused a message; `strerror` has its own words where it gave some."""


class Message(NamedTuple):
    """What to send; the socket adds REQUEST and ACK to the flags."""

    kind: int
    flags: int
    body: bytes


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded."""
    return _ATTRIBUTE.pack(len(payload) + 4, kind) + payload + bytes(-len(payload) % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute made of attributes."""
    return attribute(kind | _NESTED, b"".join(attributes))


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """The attributes from the offset on."""
    found: dict[int, bytes] = {}
    while offset + 4 <= len(data):
        size, kind = _ATTRIBUTE.unpack_from(data, offset)
        if size < 4:
            break
        found[kind & 0x3FFF] = data[offset + 4 : offset + size]
        offset += (size + 3) & ~3
    return found


class Netlink:
    """A socket in the namespace of the thread that opens it."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._number = 0
        self._buffer = memoryview(bytearray(1 << 16))  # the kernel fills 32 KiB at most
        with suppress(OSError):  # a refused size is no harm: see BATCH
            self._socket.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, 4 << 20)
        self._socket.setsockopt(_NETLINK, _CAP_ACK, 1)
        self._socket.setsockopt(_NETLINK, _EXT_ACK, 1)
        self._socket.settimeout(PATIENCE)
        self._socket.bind((0, 0))

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()

    def do(self, *messages: Message) -> None:
        """Send the messages at once; the kernel takes them one after the other. Raises the first refusal."""
        for refusal in self.bulk(messages):
            if refusal is not None:
                raise refusal

    def bulk(self, messages: Sequence[Message]) -> list[NetlinkError | None]:
        """What the kernel said to each."""
        answers: list[NetlinkError | None] = []
        for start in range(0, len(messages), BATCH):
            answers += self._send(messages[start : start + BATCH])
        return answers

    def _send(self, messages: Sequence[Message]) -> list[NetlinkError | None]:
        """The kernel answers a message that it refuses in any case, so only the last one asks for its answer:
        when that is there, all before it are known. An answer that found no room raises ENOBUFS here."""
        first, last = self._number + 1, self._number + len(messages)
        parts: list[bytes] = []
        for number, (kind, flags, body) in enumerate(messages, first):
            marks = flags | REQUEST | (ACK if number == last else 0)
            parts += (_HEADER.pack(len(body) + 16, kind, marks, number, 0), body)
        self._number = last
        self._socket.send(b"".join(parts))
        answers: dict[int, NetlinkError | None] = {}
        while last not in answers:
            for kind, flags, number, body in self._receive():
                if kind == _ERROR and first <= number <= last:
                    answers[number] = _refusal(flags, body)
        return [answers.get(number) for number in range(first, last + 1)]

    def ask(self, kind: int, body: bytes) -> bytes:
        """The one answer to a question. Raises NetlinkError."""
        self._number += 1
        self._socket.send(_HEADER.pack(len(body) + 16, kind, REQUEST, self._number, 0) + body)
        while True:
            for answer, flags, number, found in self._receive():
                if number != self._number:
                    continue
                if answer == _ERROR and (refusal := _refusal(flags, found)) is not None:
                    raise refusal
                return found

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """All answers to a question; asked again where the kernel's tables changed meanwhile."""
        for _ in range(DUMPS):
            found, steady = self._dump(kind, body)
            if steady:
                break
        return found

    def _dump(self, kind: int, body: bytes) -> tuple[list[bytes], bool]:
        self._number += 1
        self._socket.send(_HEADER.pack(len(body) + 16, kind, REQUEST | DUMP, self._number, 0) + body)
        found: list[bytes] = []
        steady = True
        while True:
            for answer, flags, number, part in self._receive():
                if number != self._number:
                    continue
                steady = steady and not flags & _INTERRUPTED
                if answer == _ERROR and (refusal := _refusal(flags, part)) is not None:
                    raise refusal
                if answer == _DONE:
                    return found, steady
                found.append(part)

    def _receive(self) -> Iterator[tuple[int, int, int, bytes]]:
        end = self._socket.recv_into(self._buffer)
        data = bytes(self._buffer[:end])
        offset = 0
        while offset + 16 <= end:
            size, kind, flags, number, _ = _HEADER.unpack_from(data, offset)
            if size < 16:
                break
            yield kind, flags, number, data[offset + 16 : offset + size]
            offset += (size + 3) & ~3


def _refusal(flags: int, body: bytes) -> NetlinkError | None:
    code = -int.from_bytes(body[:4], sys.byteorder, signed=True)
    if code == 0:
        return None
    text = os.strerror(code)
    if flags & _TLVS and (words := attributes(body, 20).get(1)):
        text = f"{text} ({words.rstrip(bytes(1)).decode(errors='replace')})"
    return NetlinkError(code, text)


# ---------------------------------------------------------------- forwarding and neighbours


def packed(address: str) -> tuple[int, bytes]:
    """Family and bytes of an IP address."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return family, socket.inet_pton(family, address)


def unpacked(raw: bytes) -> str:
    """The text of an IP address."""
    return socket.inet_ntop(socket.AF_INET6 if len(raw) == 16 else socket.AF_INET, raw)


def plain(text: str) -> str:
    """The address, with or without a prefix length, as the kernel's would be written."""
    address, slash, length = text.partition("/")
    return unpacked(packed(address)[1]) + slash + length


def order(text: str) -> tuple[int, bytes, int]:
    """Sorts addresses, with or without a prefix length: IPv4 first, then by value."""
    address, _, length = text.partition("/")
    family, raw = packed(address)
    return family, raw, int(length or 0)


def mac_bytes(mac: str) -> bytes:
    """The six bytes."""
    return bytes.fromhex(mac.replace(":", ""))


def mac_text(raw: bytes) -> str:
    """The usual text."""
    return raw.hex(":")


def _pair(body: bytes) -> tuple[bytes, bytes]:
    """Destination and MAC of an entry, empty where it has none. Entries come by the thousand."""
    destination = mac = b""
    offset, end = _NDMSG.size, len(body)
    while offset + 4 <= end:
        size, kind = _ATTRIBUTE.unpack_from(body, offset)
        if kind == _DST:
            destination = body[offset + 4 : offset + size]
        elif kind == _LLADDR:
            mac = body[offset + 4 : offset + size]
        if size < 4 or (destination and mac):
            break
        offset += (size + 3) & ~3
    return destination, mac


def set_forward(index: int, mac: str, vtep: str) -> Message:
    """Frames for `mac` go to `vtep` alone."""
    head = _NDMSG.pack(_BRIDGE, 0, 0, index, _PERMANENT, _SELF, 0)
    body = head + attribute(_LLADDR, mac_bytes(mac)) + attribute(_DST, packed(vtep)[1])
    return Message(NEWNEIGH, CREATE | REPLACE, body)


def drop_forward(index: int, mac: str) -> Message:
    """Frames for `mac` go nowhere: naming no VTEP removes them all."""
    head = _NDMSG.pack(_BRIDGE, 0, 0, index, _PERMANENT, _SELF, 0)
    return Message(DELNEIGH, 0, head + attribute(_LLADDR, mac_bytes(mac)))


def set_neighbour(index: int, address: str, mac: str) -> Message:
    """The device answers for `address` with `mac`."""
    family, raw = packed(address)
    head = _NDMSG.pack(family, 0, 0, index, _PERMANENT, 0, 0)
    return Message(
        NEWNEIGH, CREATE | REPLACE, head + attribute(_DST, raw) + attribute(_LLADDR, mac_bytes(mac))
    )


def drop_neighbour(index: int, address: str) -> Message:
    """The device does not answer for `address`."""
    family, raw = packed(address)
    return Message(DELNEIGH, 0, _NDMSG.pack(family, 0, 0, index, 0, 0, 0) + attribute(_DST, raw))


def forwards(netlink: Netlink, index: int) -> Iterator[tuple[str, str]]:
    """(MAC, VTEP) of every forwarding entry of the device."""
    for body in netlink.dump(GETNEIGH, _NDMSG.pack(_BRIDGE, 0, 0, 0, 0, 0, 0)):
        _, _, _, device, _, flags, _ = _NDMSG.unpack_from(body)
        if device == index and flags & _SELF:
            destination, mac = _pair(body)
            if destination and mac:
                yield mac_text(mac), unpacked(destination)


def neighbours(netlink: Netlink, index: int) -> Iterator[tuple[str, str]]:
    """(address, MAC) of every permanent neighbour entry of the device."""
    for body in netlink.dump(GETNEIGH, _NDMSG.pack(0, 0, 0, 0, 0, 0, 0)):
        _, _, _, device, state, _, _ = _NDMSG.unpack_from(body)
        if device == index and state & _PERMANENT:
            destination, mac = _pair(body)
            if destination and mac:
                yield unpacked(destination), mac_text(mac)
