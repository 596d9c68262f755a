"""ports.Trials in the Linux kernel: packets of our own making out of a network's namespace.

A trial across a network is an echo request, put straight on the VXLAN device in the name of a container of
this node: it takes the very way of that container's packets, is answered by the other container's kernel, and
needs nobody's help. The answer is read as it comes out of the VXLAN device. Nothing is remembered by the
bridge, and a container that gets an echo reply which it has not asked for ignores it.
What does not belong here: who is asked (plan/doctor).
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from swarmpy.adapters.netns import inside
from swarmpy.adapters.overlay.identity import TUNNEL
from swarmpy.ports import FabricError, Station

_TRY = 0.3
"""Seconds between two attempts."""
_ETHERNET, _IPV4, _ICMP = 14, 0x0800, 1
_HEADS = 28
_EVERYTHING = 3
_ATTACH_FILTER = 26
_ONLY_ECHOES = (  # BPF: IPv4 that carries ICMP; a busy network must not drown who listens for four packets
    (0x28, 0, 0, 12), (0x15, 0, 3, _IPV4), (0x30, 0, 0, 23), (0x15, 0, 1, _ICMP), (0x06, 0, 0, 0xFFFF),
    (0x06, 0, 0, 0),
)  # fmt: skip


class KernelTrials:
    """ports.Trials."""

    async def across(
        self, namespace: str, here: Station, there: Sequence[Station], size: int, patience: float
    ) -> frozenset[Station]:
        """Who answers a packet of `size` bytes out of the namespace over its VXLAN device."""
        return await _aside(_across, namespace, here, tuple(there), size, patience)

    async def answers(
        self, namespace: str, addresses: Sequence[str], name: str, patience: float
    ) -> frozenset[str]:
        """Which of the name servers answer a question for the name."""
        return await _aside(_answers, namespace, tuple(addresses), name, patience)


async def _aside(work: Callable[..., frozenset], *arguments: object) -> frozenset:  # type: ignore[type-arg]  # whatever the work returns
    try:
        return await asyncio.to_thread(work, *arguments)
    except OSError as error:
        raise FabricError(f"the network cannot be tried out: {error.strerror or error}") from None


# ---------------------------------------------------------------- across


def _across(
    namespace: str, here: Station, there: tuple[Station, ...], size: int, patience: float
) -> frozenset[Station]:
    mark = int.from_bytes(os.urandom(2))
    frames = {one: echo(here, one, mark, size) for one in there}
    by_address = {socket.inet_aton(one.address): one for one in there}
    found: set[Station] = set()
    with inside(namespace, _tap) as tap:
        end = time.monotonic() + patience
        again = 0.0
        while len(found) < len(there) and (now := time.monotonic()) < end:
            if now >= again:
                again = now + _TRY
                for one, frame in frames.items():
                    if one not in found:
                        with suppress(OSError):  # a full queue, a link that is down: not answered
                            tap.send(frame)
            if select.select([tap], [], [], max(0.0, min(again, end) - time.monotonic()))[0]:
                source = _reply(tap.recv(65535), mark)
                if source in by_address:
                    found.add(by_address[source])
    return frozenset(found)


def _tap() -> socket.socket:
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    try:
        code = b"".join(struct.pack("HBBI", *one) for one in _ONLY_ECHOES)
        kept = ctypes.create_string_buffer(code)
        program = struct.pack("HL", len(_ONLY_ECHOES), ctypes.addressof(kept))
        made.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, program)
        made.bind((TUNNEL, _EVERYTHING))
    except BaseException:
        made.close()
        raise
    return made


def echo(here: Station, there: Station, mark: int, size: int) -> bytes:
    """The frame of an echo request whose IP packet has `size` bytes."""
    head = _mac(there.mac) + _mac(here.mac) + struct.pack("!H", _IPV4)
    addresses = socket.inet_aton(here.address) + socket.inet_aton(there.address)
    bare = struct.pack("!BBHHHBBH", 0x45, 0, size, 0, 0x4000, 64, _ICMP, 0) + addresses
    packet = bare[:10] + struct.pack("!H", _checksum(bare)) + bare[12:]
    asked = struct.pack("!BBHHH", 8, 0, 0, mark, 1) + bytes(max(0, size - _HEADS))
    return head + packet + asked[:2] + struct.pack("!H", _checksum(asked)) + asked[4:]


def _reply(frame: bytes, mark: int) -> bytes:
    """Who answered, b"" for a packet that is no answer to us."""
    head = _ETHERNET + (frame[_ETHERNET] & 0xF) * 4
    kind, _, _, found = struct.unpack_from("!BBHH", frame.ljust(head + 6, b"\0"), head)
    return frame[_ETHERNET + 12 : _ETHERNET + 16] if kind == 0 and found == mark else b""


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _checksum(data: bytes) -> int:
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


# ---------------------------------------------------------------- names


def _answers(namespace: str, addresses: tuple[str, ...], name: str, patience: float) -> frozenset[str]:
    mark = os.urandom(2)
    labels = b"".join(bytes([len(one)]) + one for one in name.encode().split(b".") if one)
    question = mark + struct.pack("!HHHHH", 0x0100, 1, 0, 0, 0) + labels + struct.pack("!BHH", 0, 1, 1)
    found: set[str] = set()
    for address in addresses:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with inside(namespace, socket.socket, family, socket.SOCK_DGRAM) as made:
            made.settimeout(_TRY)
            end = time.monotonic() + patience
            while address not in found and time.monotonic() < end:
                with suppress(OSError):
                    made.connect((address, 53))
                    made.send(question)
                    if made.recv(4096).startswith(mark):
                        found.add(address)
                        break
                    continue
                time.sleep(_TRY / 10)  # refused at once: not as fast as the processor can
    return frozenset(found)
