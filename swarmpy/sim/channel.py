"""One end of a simulated channel: ordered bodies, credit, and the several ways to end.

What belongs here: the behaviour of a single connection. What does not: dialling and serving (wire.py).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgpack

from swarmpy.ports import Body, Peer, RefusedError, WireError
from swarmpy.sim.net import SimNet

if TYPE_CHECKING:
    from swarmpy.sim.wire import SimWire

ACCEPT, REFUSE, DATA, CLOSE = 1, 2, 3, 5
WINDOW = 256 * 1024
"""Bytes that may be under way and unread in one direction."""
GIVE_UP = (3.0, 10.0)
"""Seconds after which an end of a silent connection gives it up."""


def pack(body: Body) -> bytes:
    """The bytes of a body; what cannot travel for real cannot travel here. Raises TypeError."""
    data: bytes = msgpack.packb(dict(body), use_bin_type=True)
    return data


def unpack(data: bytes) -> dict[str, Any]:
    """The body of the bytes: fresh objects, as if they came from another machine."""
    body: dict[str, Any] = msgpack.unpackb(data, raw=False, strict_map_key=True)
    return body


def raise_in(answer: asyncio.Future[Any], error: Exception) -> None:
    """Fail what somebody waits for; nobody may be waiting any more, and that is fine."""
    if not answer.done():
        answer.set_exception(error)
        answer.exception()  # seen: asyncio must not report it as forgotten


class ChannelRefusedError(WireError, RefusedError):
    """The channel ended with a refusal."""

    def __init__(self, refusal: RefusedError) -> None:
        RefusedError.__init__(self, refusal.code, refusal.message, refusal.data)


class SimChannel:
    """See ports.Channel. `opened` is the dialling side's future, None on the serving side."""

    def __init__(self, net: SimNet, wire: SimWire, peer: Peer, opened: asyncio.Future[Any] | None) -> None:
        self.peer = peer
        self.wire = wire
        self.before_use: Callable[[], None] | None = None
        self.method = ""
        """What it is for, on the side that serves it."""
        self._net = net
        self._opened = opened
        self._number = net.number()
        self._other: SimChannel | None = None
        self._inbox: deque[bytes] = deque()
        self._stalled: deque[tuple[int, bytes]] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._credit = WINDOW
        self._last_arrival = 0.0
        self._giving_up = False
        self._end: WireError | None = None

    def join(self, other: SimChannel) -> None:
        """Connect the two ends."""
        self._other, other._other = other, self
        self._net.channels[self._number] = self
        self._net.channels[other._number] = other

    def between(self, one: str, other: str) -> bool:
        """Whether this is an end of a channel between the two hosts."""
        return self._other is not None and {self.wire.host, self._other.wire.host} == {one, other}

    # ------------------------------------------------------------ the port

    async def send(self, body: Body) -> None:
        """Send one body, waiting while the other side is slow. Raises WireError."""
        data = pack(body)
        self._use()
        while self._credit <= 0 and self._end is None:
            if self._room is None:
                self._room = self._net.loop.create_future()
            await asyncio.shield(self._room)
        if self._end is not None:
            raise self._again()
        self._credit -= len(data)
        if self._net.tap is not None and self._other is not None:
            self._net.tap(self.wire.host, self._other.wire.host, body)
        self.post(DATA, data)

    async def recv(self) -> Body:
        """The next body. Raises WireError."""
        self._use()
        while not self._inbox:
            if self._end is not None:
                raise self._again()
            self._reader = self._net.loop.create_future()
            await self._reader
        data = self._inbox.popleft()
        if self._other is not None:
            self._net.later(0.0, self._other.grant, len(data))
        return unpack(data)

    async def close(self) -> None:
        """Say goodbye after what was sent; idempotent."""
        if self._end is None:
            self.post(CLOSE, b"")
            self._finish(WireError("the channel was closed on this side"))

    # ------------------------------------------------------------ the connection

    def post(self, kind: int, data: bytes) -> None:
        """Put a frame on the way, behind everything before it."""
        other, net = self._other, self._net
        if other is None or self._end is not None or not self.wire.process.alive:
            return
        source, target = self.wire.host, other.wire.host
        link = net.link(source, target)
        if link.reset and net.chance.random() < link.reset:
            self.cut("the connection was reset")
            return
        arrival = max(self._last_arrival, net.loop.instant + net.delay(source, target))
        self._last_arrival = arrival
        net.later(arrival - net.loop.instant, other._arrive, kind, data)

    def _arrive(self, kind: int, data: bytes) -> None:
        other, net = self._other, self._net
        assert other is not None
        if self._end is not None:
            return
        if self._stalled or net.blocked(other.wire.host, self.wire.host):
            self._stalled.append((kind, data))
            self._doubt()
            other._doubt()
            return
        if net.blocked(self.wire.host, other.wire.host):
            other._doubt()  # its packets arrive, our acknowledgements do not
        self._take(kind, data)

    def _take(self, kind: int, data: bytes) -> None:
        net = self._net
        net.delivered += 1
        net.trace.mark(b"frame %d %d %d" % (self._number, kind, len(data)))
        if kind == DATA:
            if self.method and net.serving is not None:
                net.serving(self.wire, self.peer, self.method)()
            self._inbox.append(data)
            self._wake()
        elif kind == ACCEPT:
            if self._opened is not None and not self._opened.done():
                self._opened.set_result(None)
        elif kind == REFUSE:
            code, message, extra = msgpack.unpackb(data)
            self._finish(ChannelRefusedError(RefusedError(code, message, extra)))
        else:
            self._finish(WireError(f"node {self.peer.node_id} closed the channel"))

    def thaw(self) -> None:
        """A wall went down: what was held arrives now, unless a side had lost patience."""
        other, net = self._other, self._net
        if not self._stalled or other is None or net.blocked(other.wire.host, self.wire.host):
            return
        if net.chance.random() < 0.3:
            self.cut("the connection was reset")
            return
        held, self._stalled = self._stalled, deque()
        for kind, data in held:
            if self._end is None:
                self._take(kind, data)

    def grant(self, size: int) -> None:
        """The other side read that many bytes."""
        self._credit += size
        if self._credit > 0 and self._room is not None:
            room, self._room = self._room, None
            if not room.done():
                room.set_result(None)

    def cut(self, reason: str) -> None:
        """End at once. The other side learns it when a reset can reach it, or by its own patience."""
        if self._end is not None:
            return
        other, net = self._other, self._net
        self._finish(WireError(reason))
        if other is None or other._end is not None:
            return
        if net.blocked(self.wire.host, other.wire.host):
            other._doubt()
        else:
            net.later(net.delay(self.wire.host, other.wire.host), other._broken)

    def _broken(self) -> None:
        other = self._other
        if other is not None and self._net.blocked(other.wire.host, self.wire.host):
            self._doubt()
            return
        self._finish(WireError(f"the channel to node {self.peer.node_id} broke"))

    def _doubt(self) -> None:
        """Nothing is heard: give up after a while unless it thaws."""
        if self._giving_up or self._end is not None:
            return
        self._giving_up = True
        self._net.later(self._net.chance.uniform(*GIVE_UP), self._patience_ends)

    def _patience_ends(self) -> None:
        self._giving_up = False
        other, net = self._other, self._net
        if other is None or self._end is not None:
            return
        here, there = self.wire.host, other.wire.host
        if other._end is not None or net.blocked(here, there) or net.blocked(there, here):
            self.cut("the other side does not answer any more")

    # ------------------------------------------------------------ inside

    def _use(self) -> None:
        if self.before_use is not None:
            before, self.before_use = self.before_use, None
            before()

    def _again(self) -> WireError:
        end = self._end
        assert end is not None
        return ChannelRefusedError(end) if isinstance(end, ChannelRefusedError) else WireError(str(end))

    def _wake(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None and not reader.done():
            reader.set_result(None)

    def _finish(self, reason: WireError) -> None:
        if self._end is not None:
            return
        self._end = reason
        self._net.channels.pop(self._number, None)
        if self._opened is not None and not self._opened.done():
            failure: Exception = reason
            if isinstance(reason, ChannelRefusedError):
                failure = RefusedError(reason.code, reason.message, reason.data)
            raise_in(self._opened, failure)
        self._wake()
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)
