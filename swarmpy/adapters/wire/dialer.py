"""The dialling half of the wire: calls over pooled connections, and opening channels.

What belongs here: requests, their limits and their outcome. What does not: who the server must be (that is in
the TLS context, checked inside the handshake) and what to do about a failure.
"""

from __future__ import annotations

import asyncio
import io
import ssl
from typing import Any

import aiohttp
from yarl import URL

from swarmpy.adapters.wire import codec
from swarmpy.adapters.wire.channel import amount
from swarmpy.adapters.wire.faults import explain, parse_address
from swarmpy.adapters.wire.settings import WireSettings
from swarmpy.pki import rpc
from swarmpy.ports import Body, WireError

_BROKEN = (aiohttp.ClientError, OSError, ssl.SSLError, TimeoutError, asyncio.IncompleteReadError)

_LARGE = 1 << 20
"""From here on aiohttp wants bodies as streams, which it sends in pieces."""


def new_session(settings: WireSettings) -> aiohttp.ClientSession:
    """A client session that pools connections per address and TLS context, and keeps no state of HTTP's."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=settings.idle_seconds)
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
    )


def url_of(address: str, kind: str, method: str) -> URL:
    """The request's address. Raises WireError for a malformed one."""
    host, port = parse_address(address)
    if not host or port == 0:
        raise WireError(f"{address!r} is not an address to dial: write HOST:PORT, as in 10.0.0.1:2377")
    try:
        return URL.build(scheme="https", host=host, port=port, path=f"/{kind}/{method}")
    except ValueError as error:
        raise WireError(f"{address!r} is not an address to dial: {error}") from error


def rule_of(method: str, kind: rpc.Kind) -> rpc.Rule:
    """The method's row. Raises ValueError: dialling an unlisted method is a defect, not a refusal."""
    rule = rpc.find_rule(method, kind)
    if rule is None:
        raise ValueError(f"{method} is not a {kind} of pki.rpc's table")
    return rule


async def post(
    session: aiohttp.ClientSession,
    context: ssl.SSLContext,
    address: str,
    method: str,
    body: Body,
    timeout: float,
) -> dict[str, Any]:
    """One call. Raises WireError, RefusedError, ValueError (unlisted method)."""
    rule = rule_of(method, "call")
    url = url_of(address, "rpc", method)
    data = codec.pack(codec.plain_body(body))
    if len(data) > rule.max_body:
        raise codec.refuse(
            rpc.TOO_LARGE,
            f"the body of {method} has {len(data)} bytes, at most {rule.max_body} are allowed",
        )
    try:
        async with asyncio.timeout(timeout):
            async with session.post(
                url,
                data=data if len(data) < _LARGE else io.BytesIO(data),
                ssl=context,
                allow_redirects=False,
                headers={"Content-Type": codec.CONTENT_TYPE, "User-Agent": "swarmpy"},
                timeout=aiohttp.ClientTimeout(total=None),
            ) as response:
                reply = await _read(response, rule.max_reply + codec.SLACK)
    except _BROKEN as error:
        raise explain(address, error, timeout) from error
    try:
        value = codec.unpack_body(reply)
    except codec.FrameError as error:
        raise WireError(f"{address} does not speak swarmpy's wire: {error}") from error
    if response.status != 200:
        raise codec.refusal_from(value)
    return value


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while part := await response.content.readany():
        size += len(part)
        if size > limit:
            raise aiohttp.ClientPayloadError("the answer is larger than allowed")
        parts.append(part)
    return b"".join(parts)


async def connect(
    session: aiohttp.ClientSession,
    context: ssl.SSLContext,
    address: str,
    method: str,
    settings: WireSettings,
) -> aiohttp.ClientWebSocketResponse[bool]:
    """A websocket to a channel method, before its hello. Raises the errors of aiohttp and of sockets."""
    rule = rule_of(method, "channel")
    return await session.ws_connect(
        url_of(address, "channel", method),
        ssl=context,
        heartbeat=settings.heartbeat,
        max_msg_size=max(rule.max_body, rule.max_reply) + codec.SLACK,
        compress=0,
        headers={"User-Agent": "swarmpy"},
        timeout=aiohttp.ClientWSTimeout(ws_close=settings.close_seconds),
    )


async def greet(socket: aiohttp.ClientWebSocketResponse[bool], hello: Body, window: int) -> int:
    """Say hello and wait to be accepted; returns how much we may send.

    Raises RefusedError, FrameError, or ServerDisconnectedError.
    """
    await socket.send_bytes(codec.pack([codec.HELLO, codec.plain_body(hello), window]))
    message = await socket.receive()
    if message.type is not aiohttp.WSMsgType.BINARY:
        raise socket.exception() or aiohttp.ServerDisconnectedError
    kind, rest = codec.unpack_frame(message.data)
    if kind == codec.ACCEPT and len(rest) == 1:
        return amount(rest[0])
    if kind == codec.REFUSE and len(rest) == 1:
        raise codec.refusal_from(codec.as_body(rest[0]))
    raise codec.FrameError("neither accepted nor refused")
