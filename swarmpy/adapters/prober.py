"""ports.Prober over UDP: sealed questions to other nodes, and answers to theirs.

One socket at the node's VXLAN address, and one thread that reads it: a node whose event loop is busy for a
moment still answers. Frames have one size unless a question is asked to be wider; nothing fragments them, and
no answer is larger than its question. What does not belong here: whom to ask, what silence means
(plan/probing).
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import selectors
import socket
import struct
import threading
from contextlib import suppress
from ipaddress import IPv6Address, ip_address

from swarmpy.adapters.netns import OWN, inside
from swarmpy.ports import FabricError, Heard

logger = logging.getLogger(__name__)

_HEAD = struct.Struct("!4sBxHQ16s16s")
_MAGIC = b"swp1"
_QUESTION, _ANSWER = 1, 2
_SEAL = 16
LEAST = _HEAD.size + _SEAL
"""Bytes of a frame that is not asked to be wider."""
_MOST = 65535
# linux/in.h, linux/in6.h: neither fragment nor believe a path MTU that somebody told.
_DISCOVER4, _DISCOVER6, _PROBE = 10, 23, 3


def _packed(address: str) -> bytes:
    found = ip_address(address)
    return found.packed if isinstance(found, IPv6Address) else bytes(10) + b"\xff\xff" + found.packed


def _seal(key: bytes, head: bytes) -> bytes:
    return hashlib.blake2b(head, key=key, digest_size=_SEAL).digest()


class UdpProber:
    """ports.Prober. `home` is the namespace of the node's underlay."""

    def __init__(self, home: str = OWN) -> None:
        self._home = home
        self._heard: Heard | None = None
        self._reader: _Reader | None = None

    def begin(self, heard: Heard) -> None:
        """Tell of answers from now on."""
        self._heard = heard

    async def serve(self, local: str, port: int, key: bytes) -> None:
        """Ask and answer at this address; whatever was served before ends."""
        if self._reader is not None and self._reader.serves == (local, port, key):
            return
        await self.stop()
        loop = asyncio.get_running_loop()

        def tell(peer: str, number: int, size: int) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(self._tell, peer, number, size)

        try:
            made = inside(self._home, _socket, local, port)
        except OSError as error:
            raise FabricError(
                f"questions of other nodes cannot be answered at {local}, UDP port {port}: {error.strerror}; "
                "nodes that die stay in traffic until the leader misses them; what else uses that port?"
            ) from None
        self._reader = _Reader(made, local, port, key, tell)

    def _tell(self, peer: str, number: int, size: int) -> None:
        if self._heard is not None:
            self._heard(peer, number, size)

    def ask(self, peer: str, number: int, size: int = 0) -> None:
        """Send one question, as a datagram of `size` bytes (0: a small one). What is lost is lost."""
        if self._reader is not None:
            self._reader.ask(peer, number, size)

    async def stop(self) -> None:
        """Neither ask nor answer any more."""
        reader, self._reader = self._reader, None
        if reader is not None:
            await asyncio.to_thread(reader.close)


def _socket(local: str, port: int) -> socket.socket:
    six = ":" in local
    made = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        if six:
            made.setsockopt(socket.IPPROTO_IPV6, _DISCOVER6, _PROBE)
        else:
            made.setsockopt(socket.IPPROTO_IP, _DISCOVER4, _PROBE)
        made.setblocking(False)
        made.bind((local, port))
    except BaseException:
        made.close()
        raise
    return made


class _Reader:
    """The socket and its thread. `tell` is called in the thread."""

    def __init__(self, made: socket.socket, local: str, port: int, key: bytes, tell: Heard) -> None:
        self.serves = (local, port, key)
        self._socket, self._own, self._port, self._key, self._tell = made, _packed(local), port, key, tell
        self._names: dict[bytes, str] = {}
        self._end, self._wake = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="prober", daemon=True)
        self._thread.start()

    def ask(self, peer: str, number: int, size: int) -> None:
        try:
            raw = _packed(peer)
        except ValueError:
            return
        self._names[raw] = peer
        size = min(max(size, LEAST), _MOST)
        head = _HEAD.pack(_MAGIC, _QUESTION, size, number, self._own, raw)
        self._send(head + _seal(self._key, head) + bytes(size - LEAST), (peer, self._port))

    def _send(self, frame: bytes, to: tuple[str, int]) -> None:
        # No way, too wide, a full buffer: the question is lost, and that is what is to be found out.
        with suppress(OSError):
            self._socket.sendto(frame, socket.MSG_DONTWAIT, to)

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            selector.register(self._end, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is self._end:
                        return
                    try:
                        frame, sender = self._socket.recvfrom(_MOST)
                    except OSError:
                        continue
                    self._take(frame, sender)

    def _take(self, frame: bytes, sender: tuple[str, int]) -> None:
        if len(frame) < LEAST or not frame.startswith(_MAGIC):
            return
        head, seal = frame[: _HEAD.size], frame[_HEAD.size : LEAST]
        if not hmac.compare_digest(_seal(self._key, head), seal):
            return
        _, kind, size, number, asker, answerer = _HEAD.unpack(head)
        if kind == _QUESTION and answerer == self._own and len(frame) == size:
            reply = _HEAD.pack(_MAGIC, _ANSWER, size, number, asker, answerer)
            self._send(reply + _seal(self._key, reply), sender)
        elif kind == _ANSWER and asker == self._own and answerer in self._names:
            self._tell(self._names[answerer], number, size)

    def close(self) -> None:
        """End the thread, let the port go."""
        self._wake.close()
        self._thread.join()
        self._end.close()
        self._socket.close()
