"""The serving half of the wire: from an HTTP request to a handler, past every check.

What belongs here: who calls, whether they may, bounded bodies, replies and refusals. What does not: the role
table itself (pki.rpc), sockets (listener), channel frames (channel).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

import aiohttp
from aiohttp import web

from swarmpy.adapters.wire import codec
from swarmpy.adapters.wire.channel import WireChannel, amount
from swarmpy.adapters.wire.gate import Gate
from swarmpy.adapters.wire.settings import WireSettings
from swarmpy.pki import rpc
from swarmpy.ports import CallHandler, ChannelHandler, Peer, RefusedError, WireError

log = logging.getLogger(__name__)

_INTERNAL = "this manager met an internal error; its log has the details"
_STATUS = {
    "PermissionDenied": 403,
    "Unimplemented": 404,
    "Unavailable": 503,
    "Internal": 500,
}


class WireServer:
    """Serves calls and channels; `channels` is shared with the dialling half, so both are cut alike."""

    def __init__(
        self,
        gate: Gate,
        settings: WireSettings,
        channels: set[WireChannel],
    ) -> None:
        self.calls: dict[str, CallHandler] = {}
        self.openings: dict[str, ChannelHandler] = {}
        self._gate = gate
        self._settings = settings
        self._channels = channels
        self._handlers: set[asyncio.Task[None]] = set()
        self.asking: set[asyncio.BaseTransport] = set()
        """Connections on which a call is being served."""

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """One request; never raises but for cancellation."""
        _, _, rest = request.path.partition("/")
        kind, _, method = rest.partition("/")
        if request.method == "GET" and kind == "channel":
            return await self._open(request, method)
        try:
            if request.method != "POST" or kind != "rpc":
                raise codec.refuse(rpc.UNKNOWN_METHOD, "this port speaks swarmpy's wire only")
            return _reply(200, await self._served(request, method))
        except RefusedError as refusal:
            return _reply(_STATUS.get(refusal.code, 400), codec.pack_refusal(refusal))

    async def stop(self) -> None:
        """Cancel what serves channels."""
        tasks = list(self._handlers)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _served(self, request: web.BaseRequest, method: str) -> bytes:
        transport = request.transport
        if transport is None:
            raise codec.refuse(rpc.BAD_REQUEST, "the connection is gone")
        self.asking.add(transport)
        try:
            return await self._call(request, method)
        finally:
            self.asking.discard(transport)

    async def _call(self, request: web.BaseRequest, method: str) -> bytes:
        peer, _ = self._gate.look(request.transport)
        self._gate.charge(peer)
        rule = self._rule(method, "call", peer)
        handler = self.calls.get(method)
        if handler is None:
            raise _not_served(method)
        data = await self._read(request, rule)
        try:
            body = codec.unpack_body(data)
        except codec.FrameError as error:
            raise codec.refuse(rpc.BAD_REQUEST, str(error)) from error
        self._own_node(method, peer, body)
        try:
            reply = codec.pack(codec.plain_body(await handler(peer, body)))
        except Exception as error:
            raise _said(error, method, peer) from error
        if len(reply) > rule.max_reply:
            log.error("the reply to %s has %d bytes, the limit is %d", method, len(reply), rule.max_reply)
            raise codec.refuse(rpc.INTERNAL, f"the answer to {method} is too large to send")
        return reply

    def _rule(self, method: str, kind: rpc.Kind, peer: Peer) -> rpc.Rule:
        refusal = rpc.authorize(method, kind, peer.role)
        if refusal is not None:
            raise codec.refused(refusal)
        return rpc.TABLE[method]

    def _own_node(self, method: str, peer: Peer, body: dict[str, object]) -> None:
        refusal = rpc.authorize_body(method, peer.node_id, body)
        if refusal is not None:
            raise codec.refused(refusal)

    async def _read(self, request: web.BaseRequest, rule: rpc.Rule) -> bytes:
        too_large = codec.refuse(
            rpc.TOO_LARGE, f"the body of {rule.method} may have at most {rule.max_body} bytes"
        )
        if (request.content_length or 0) > rule.max_body:
            raise too_large
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._settings.body_seconds):
                while part := await request.content.readany():
                    size += len(part)
                    if size > rule.max_body:
                        raise too_large
                    parts.append(part)
        except (TimeoutError, aiohttp.ClientError, web.RequestPayloadError, OSError) as error:
            raise codec.refuse(rpc.BAD_REQUEST, "the body did not arrive in full") from error
        return b"".join(parts)

    async def _open(self, request: web.BaseRequest, method: str) -> web.StreamResponse:
        rule = rpc.find_rule(method, "channel")
        limit = (max(rule.max_body, rule.max_reply) if rule else 0) + codec.SLACK
        socket = web.WebSocketResponse(
            heartbeat=self._settings.heartbeat,
            max_msg_size=limit,
            compress=False,
            timeout=self._settings.close_seconds,
        )
        if not socket.can_prepare(request):
            refusal = codec.refuse(rpc.BAD_REQUEST, "channels are opened by websocket")
            return _reply(400, codec.pack_refusal(refusal))
        await socket.prepare(request)
        try:
            peer, not_after = self._gate.look(request.transport)
            self._gate.charge(peer)
            handler = self._opening(method, peer)
            hello, credit = await self._hello(socket, method, peer)
        except RefusedError as refusal:
            await self._turn_away(socket, refusal)
            return socket
        assert rule is not None
        channel = WireChannel(socket, request.transport, peer, rule, self._settings, not_after)
        await self._serve(channel, method, handler, hello, credit)
        return socket

    def _opening(self, method: str, peer: Peer) -> ChannelHandler:
        self._rule(method, "channel", peer)
        handler = self.openings.get(method)
        if handler is None:
            raise _not_served(method)
        return handler

    async def _hello(
        self, socket: web.WebSocketResponse, method: str, peer: Peer
    ) -> tuple[dict[str, object], int]:
        try:
            async with asyncio.timeout(self._settings.body_seconds):
                message = await socket.receive()
            if message.type is not aiohttp.WSMsgType.BINARY:
                raise codec.FrameError("a channel begins with a hello")
            kind, rest = codec.unpack_frame(message.data)
            if kind != codec.HELLO or len(rest) != 2:
                raise codec.FrameError("a channel begins with a hello")
            hello, credit = codec.as_body(rest[0]), amount(rest[1])
        except (codec.FrameError, TimeoutError) as error:
            raise codec.refuse(rpc.BAD_REQUEST, f"no hello: {error}") from error
        self._own_node(method, peer, hello)
        return hello, credit

    async def _turn_away(self, socket: web.WebSocketResponse, refusal: RefusedError) -> None:
        with contextlib.suppress(aiohttp.ClientError, OSError, RuntimeError, TimeoutError):
            async with asyncio.timeout(self._settings.close_seconds):
                frame = [codec.REFUSE, codec.unpack(codec.pack_refusal(refusal))]
                await socket.send_bytes(codec.pack(frame))
                await socket.close()

    async def _serve(
        self,
        channel: WireChannel,
        method: str,
        handler: ChannelHandler,
        hello: dict[str, object],
        credit: int,
    ) -> None:
        """Run the handler; the channel counts as accepted once it is used or the accept time is over."""
        self._channels.add(channel)
        channel.begin(credit, self._channels.discard, accepted=False)
        work = asyncio.create_task(self._run(channel, method, handler, hello))
        self._handlers.add(work)
        work.add_done_callback(self._handlers.discard)
        try:
            await asyncio.wait([work], timeout=self._settings.accept_seconds)
            if not work.done():
                with contextlib.suppress(WireError):
                    await channel.accept()
            await asyncio.wait([work])
        finally:
            work.cancel()

    async def _run(
        self,
        channel: WireChannel,
        method: str,
        handler: ChannelHandler,
        hello: dict[str, object],
    ) -> None:
        try:
            await handler(channel, hello)
            await channel.accept()
        except asyncio.CancelledError:
            channel.cut("this node stops")
            raise
        except WireError as error:
            # The way in which handlers notice that their channel has ended.
            log.debug("%s of %s ended: %s", method, channel.peer.node_id, error)
        except Exception as error:
            await channel.refuse(_said(error, method, channel.peer))
        finally:
            await channel.close()


def _said(error: Exception, method: str, peer: Peer) -> RefusedError:
    refusal = codec.refusal_of(error)
    if refusal is not None:
        return refusal
    log.error("the handler of %s failed for node %s", method, peer.node_id, exc_info=error)
    return codec.refuse(rpc.INTERNAL, _INTERNAL)


def _not_served(method: str) -> RefusedError:
    return codec.refuse(
        rpc.NOT_SERVED, f"this node does not serve {method} at the moment: try another manager"
    )


def _reply(status: int, data: bytes) -> web.Response:
    return web.Response(
        status=status, body=data, content_type=codec.CONTENT_TYPE, headers={"Server": "swarmpy"}
    )
