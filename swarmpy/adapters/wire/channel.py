"""A channel: ordered bodies both ways over one websocket, with credit.

What belongs here: framing, flow control and the end of one channel. What does not: TLS, HTTP, and who may
open channels.

Flow control is by credit and not by TCP alone: the reading task always reads, so that pings are answered and
a slow reader is never taken for a dead node, while unread bodies stay bounded by the window and one message.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import aiohttp

from swarmpy.adapters.wire import codec
from swarmpy.adapters.wire.settings import WireSettings
from swarmpy.pki.rpc import Rule
from swarmpy.ports import Body, Peer, RefusedError, WireError

if TYPE_CHECKING:
    from aiohttp import web

    Socket = aiohttp.ClientWebSocketResponse[bool] | web.WebSocketResponse


def abort(transport: asyncio.Transport) -> None:
    """End a connection at once. Where it was closed twice, and so ends already, an older Python's abort
    fails (that of 3.11.2, which Debian 12 has)."""
    with contextlib.suppress(AttributeError):
        transport.abort()


class ChannelRefusedError(WireError, RefusedError):
    """The channel ended with a refusal: a WireError for who only knows ports, with code and message."""

    def __init__(self, refusal: RefusedError) -> None:
        RefusedError.__init__(self, refusal.code, refusal.message, refusal.data)


class WireChannel:
    """One end of a channel; see ports.Channel. Made by the wire, which calls `begin` once it is open."""

    def __init__(
        self,
        socket: Socket,
        transport: asyncio.Transport | None,
        peer: Peer,
        rule: Rule,
        settings: WireSettings,
        not_after: int,
    ) -> None:
        self.peer = peer
        self.not_after = not_after
        """When the certificate that opened the channel expires, ns since the epoch."""
        self._socket = socket
        self._transport = transport
        self._settings = settings
        self._limit = max(rule.max_body, rule.max_reply)
        self._inbox: deque[tuple[Body, int]] = deque()
        self._waiting_bytes = 0
        self._consumed = 0
        self._credit = 0
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._sending = asyncio.Lock()
        self._end: WireError | None = None
        self._reader: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._on_end: Callable[[WireChannel], None] | None = None
        self._accepted = True

    def begin(self, credit: int, on_end: Callable[[WireChannel], None], *, accepted: bool = True) -> None:
        """Start reading, allowed to send `credit` bytes.

        With `accepted` false (the serving side), the first send or recv accepts the channel. `on_end` is
        called once nothing of the channel runs any more: it must let go of the connection.
        """
        self._accepted = accepted
        self._credit += credit
        self._on_end = on_end
        self._reader = asyncio.create_task(self._read(), name=f"channel {self.peer.node_id}")
        self._reader.add_done_callback(self._release)

    @property
    def ended(self) -> bool:
        """Whether nothing more can be sent."""
        return self._end is not None

    async def send(self, body: Body) -> None:
        """Send one body, waiting while the other side is slow.

        Raises WireError when the channel has ended, ValueError for a body above the method's limit.
        """
        data = codec.pack([codec.DATA, codec.plain_body(body)])
        if len(data) > self._limit + codec.SLACK:
            raise ValueError(f"a message of {len(data)} bytes is above the limit of {self._limit}")
        await self.accept()
        async with self._sending:
            while self._credit <= 0 and self._end is None:
                self._room.clear()
                await self._room.wait()
            if self._end is not None:
                raise self._again()
            self._credit -= len(data)
            await self._write(data)

    async def recv(self) -> Body:
        """The next body; what arrived before the end is still given. Raises WireError after it."""
        await self.accept()
        while True:
            # Credit is granted when more is asked for, not when something was taken: by then the taker has
            # shown that it goes on, and nothing needs to be awaited between taking a body and returning it.
            if self._consumed * 2 >= self._settings.window and self._end is None:
                granted, self._consumed = self._consumed, 0
                # A failed write ends the channel, which the next turn sees: what arrived is still given.
                with contextlib.suppress(WireError):
                    await self._write(codec.pack([codec.CREDIT, granted]))
            elif self._inbox:
                break
            elif self._end is not None:
                raise self._again()
            else:
                self._arrived.clear()
                await self._arrived.wait()
        # No await between here and the return: a cancelled recv loses nothing.
        body, size = self._inbox.popleft()
        self._waiting_bytes -= size
        self._consumed += size
        return body

    async def close(self) -> None:
        """Say goodbye, within the close time, and release everything; idempotent."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
            self._closing.add_done_callback(self._release)
        await asyncio.shield(self._closing)

    def cut(self, reason: str | RefusedError) -> None:
        """End at once, without goodbye."""
        self._finish(reason)
        if self._transport is not None:
            abort(self._transport)

    async def refuse(self, refusal: RefusedError) -> None:
        """Tell the other side why, then close."""
        if self._end is None:
            try:
                await self._write(codec.pack([codec.REFUSE, codec.unpack(codec.pack_refusal(refusal))]))
            except WireError:
                return
        await self.close()

    async def accept(self) -> None:
        """Tell the dialling side, once, that its channel is open and how much it may send."""
        if not self._accepted:
            self._accepted = True
            await self._write(codec.pack([codec.ACCEPT, self._settings.window]))

    def _again(self) -> WireError:
        """A fresh exception each time: one object raised twice would gather both tracebacks."""
        end = self._end
        assert end is not None
        if isinstance(end, ChannelRefusedError):
            return ChannelRefusedError(end)
        return WireError(str(end))

    async def _write(self, data: bytes) -> None:
        try:
            await self._socket.send_bytes(data)
        except (aiohttp.ClientError, OSError, RuntimeError) as error:
            self.cut(f"the channel to {self._who()} broke: {error}")
            raise self._again() from error

    async def _close(self) -> None:
        self._finish("the channel was closed on this side")
        try:
            async with asyncio.timeout(self._settings.close_seconds):
                await self._socket.close()
        except (TimeoutError, aiohttp.ClientError, OSError, RuntimeError):
            if self._transport is not None:
                abort(self._transport)
        if self._reader is not None and self._reader is not asyncio.current_task():
            self._reader.cancel()
            await asyncio.wait([self._reader])

    async def _read(self) -> None:
        try:
            while True:
                message = await self._socket.receive()
                if message.type is not aiohttp.WSMsgType.BINARY:
                    break
                self._take(message.data)
        except codec.FrameError as error:
            self.cut(f"{self._who()} broke the rules of the wire: {error}")
        finally:
            if self._end is None:
                self._explain_end()

    def _explain_end(self) -> None:
        broken = self._socket.exception()
        if broken is None:
            self._finish(f"{self._who()} closed the channel")
        else:
            # Abort: an orderly TLS goodbye would wait for a peer that is not there.
            self.cut(f"{self._who()} does not answer any more: {broken}")

    def _release(self, _: asyncio.Task[None]) -> None:
        busy = [task for task in (self._reader, self._closing) if task and not task.done()]
        if self._on_end is not None and not busy:
            self._on_end(self)

    def _take(self, data: bytes) -> None:
        kind, rest = codec.unpack_frame(data)
        if kind == codec.DATA and len(rest) == 1:
            body = codec.as_body(rest[0])
            if self._waiting_bytes > self._settings.window:
                raise codec.FrameError("more was sent than allowed")
            self._waiting_bytes += len(data)
            self._inbox.append((body, len(data)))
            self._arrived.set()
        elif kind == codec.CREDIT and len(rest) == 1:
            self._credit += amount(rest[0])
            self._room.set()
        elif kind == codec.REFUSE and len(rest) == 1:
            self._finish(codec.refusal_from(codec.as_body(rest[0])))
        else:
            raise codec.FrameError("a frame that has no place here")

    def _finish(self, reason: str | RefusedError) -> None:
        if self._end is not None:
            return
        self._end = WireError(reason) if isinstance(reason, str) else ChannelRefusedError(reason)
        self._arrived.set()
        self._room.set()

    def _who(self) -> str:
        return f"node {self.peer.node_id} at {self.peer.address}"


def amount(value: Any) -> int:
    """A window or credit. Raises FrameError for what is none."""
    if type(value) is not int or not 0 < value <= 1 << 30:
        raise codec.FrameError("a credit out of range")
    return value
