"""TlsWire: ports.Wire over mutual TLS.

What belongs here: the life of the wire (start, stop, cut) and joining its halves. What does not: each half's
work (server, dialer, channel).
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from typing import Protocol

import aiohttp
from aiohttp import web

from swarmpy.adapters.wire import codec, dialer
from swarmpy.adapters.wire.channel import WireChannel, abort
from swarmpy.adapters.wire.faults import PeersFaults, explain
from swarmpy.adapters.wire.gate import Gate, shown
from swarmpy.adapters.wire.listener import Listener
from swarmpy.adapters.wire.server import WireServer
from swarmpy.adapters.wire.settings import WireSettings
from swarmpy.pki import rpc
from swarmpy.pki.certs import NodeCertificate
from swarmpy.pki.errors import CertificateError
from swarmpy.ports import (
    Body,
    CallHandler,
    Channel,
    ChannelHandler,
    Clock,
    RefusedError,
    WireError,
)

log = logging.getLogger(__name__)


class WireIdentity(Protocol):
    """What the wire wants of the node's identity (pki.identity.Identity)."""

    @property
    def cluster_id(self) -> str:
        """The cluster whose certificates are accepted."""

    @property
    def certificate(self) -> NodeCertificate:
        """What the node's present certificate says."""

    def server_context(self) -> ssl.SSLContext:
        """For the next accepted connection; the same object until the certificate is renewed."""

    def client_context(self) -> ssl.SSLContext:
        """For the next dialled connection; the same object until the certificate is renewed."""


class TlsWire:
    """ports.Wire with aiohttp over TLS 1.3. Usable for dialling before `start` and without it."""

    def __init__(
        self,
        identity: WireIdentity,
        clock: Clock,
        revoked: rpc.Revoked | None = None,
        settings: WireSettings | None = None,
    ) -> None:
        self._identity = identity
        self._clock = clock
        self._revoked = revoked if revoked is not None else rpc.Revoked()
        self._settings = settings or WireSettings()
        self._channels: set[WireChannel] = set()
        self._gate = Gate(identity.cluster_id, clock, self._revoked, self._settings)
        self._serving = WireServer(self._gate, self._settings, self._channels)
        self._strangers: dict[asyncio.Transport, None] = {}  # in the order of their coming
        self._http: web.Server | None = None
        self._listener: Listener | None = None
        self._session: aiohttp.ClientSession | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._stopped = False
        self._deafen = self._revoked.listen(self._cut_revoked)

    def on_call(self, method: str, handler: CallHandler) -> None:
        """Serve a call of pki.rpc's table. Raises ValueError for an unlisted one."""
        self._serving.calls[dialer.rule_of(method, "call").method] = handler

    def on_channel(self, method: str, handler: ChannelHandler) -> None:
        """Serve a channel of pki.rpc's table. Raises ValueError for an unlisted one."""
        self._serving.openings[dialer.rule_of(method, "channel").method] = handler

    @property
    def port(self) -> int:
        """The port listened on. Raises WireError before `start`."""
        if self._listener is None:
            raise WireError("this node does not listen")
        return self._listener.port

    async def start(self, listen: str) -> None:
        """Listen on HOST:PORT. Raises WireError with a sentence (port in use, no such address)."""
        if self._listener is not None:
            raise WireError("this node listens already")
        http = web.Server(
            self._serving.handle,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=4 * self._settings.idle_seconds,
            lingering_time=2.0,
            logger=PeersFaults(log),
        )
        listener = Listener(self._identity.server_context, http, self._admit, self._settings)
        await listener.start(listen)
        self._http, self._listener = http, listener
        self._sweeper = asyncio.create_task(self._sweep())

    async def stop(self) -> None:
        """Stop listening, break all channels and connections; idempotent."""
        if self._stopped:
            return
        self._stopped = True
        self._deafen()
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.wait([self._sweeper])
        if self._listener is not None:
            await self._listener.stop()
        await self._serving.stop()
        ending = [channel.close() for channel in tuple(self._channels)]
        await asyncio.gather(*ending)
        if self._http is not None:
            # Idle connections first, or the shutdown would wait for their next request.
            self._http.pre_shutdown()
            await self._http.shutdown(self._settings.close_seconds)
        if self._session is not None:
            await self._session.close()

    async def call(self, address: str, method: str, body: Body, *, timeout: float = 5.0) -> Body:
        """Call a method of the manager at HOST:PORT. Raises WireError or RefusedError."""
        context = self._identity.client_context()
        return await dialer.post(self._dial(), context, address, method, body, timeout)

    async def open(self, address: str, method: str, hello: Body, *, timeout: float = 5.0) -> Channel:
        """Open a channel to the manager at HOST:PORT. Raises WireError or RefusedError."""
        session, rule = self._dial(), dialer.rule_of(method, "channel")
        context = self._identity.client_context()
        socket = None
        try:
            async with asyncio.timeout(timeout):
                socket = await dialer.connect(session, context, address, method, self._settings)
                transport = _transport(socket)
                peer, not_after = self._gate.look(transport)
                credit = await dialer.greet(socket, hello, self._settings.window)
        except BaseException as error:
            if socket is not None:
                _drop(socket)
            if isinstance(error, RefusedError | WireError):
                raise
            if isinstance(error, codec.FrameError):
                raise WireError(f"{address} does not speak swarmpy's wire: {error}") from error
            if isinstance(error, aiohttp.ClientError | OSError | TimeoutError | RuntimeError):
                raise explain(address, error, timeout) from error
            raise
        channel = WireChannel(socket, transport, peer, rule, self._settings, not_after)
        self._channels.add(channel)

        def end(ended: WireChannel) -> None:
            self._channels.discard(ended)
            _release(socket)

        channel.begin(credit, end)
        return channel

    def cut(self, node_id: str) -> None:
        """Break every live channel and connection with a node, at once; it may come back."""
        for channel in tuple(self._channels):
            if channel.peer.node_id == node_id:
                channel.cut(f"node {node_id} was cut off")
        for transport in self._accepted():
            if self._gate.node_id(transport) == node_id:
                abort(transport)

    def _dial(self) -> aiohttp.ClientSession:
        if self._stopped:
            raise WireError("this node's wire is stopped")
        try:
            # The other side only resets the connection, so the reason must come from here.
            self._identity.certificate.check_time(self._clock.now())
        except CertificateError as error:
            raise WireError(f"this node cannot call others: {error}") from error
        if self._session is None:
            self._session = dialer.new_session(self._settings)
        return self._session

    def _cut_revoked(self) -> None:
        """After a change of the revoked set: end what its nodes have open, both ways."""
        for channel in tuple(self._channels):
            refusal = self._gate.distrusts(channel.peer)
            if refusal is not None:
                channel.cut(refusal)
        for transport in self._accepted():
            if not self._gate.trusted(transport):
                abort(transport)

    def _accepted(self) -> list[asyncio.Transport]:
        """Live connections that others dialled."""
        handlers = self._http.connections if self._http is not None else []
        return [one.transport for one in handlers if one.transport is not None]

    async def _sweep(self) -> None:
        """End channels whose certificate has expired since they were opened."""
        while True:
            await asyncio.sleep(self._settings.expiry_sweep)
            for channel in tuple(self._channels):
                if self._gate.outdated(channel.not_after):
                    channel.cut(f"the certificate of node {channel.peer.node_id} has expired")

    def _admit(self, transport: asyncio.Transport) -> None:
        """Bound connections, and those without a certificate more tightly and in time."""
        if len(self._accepted()) > self._settings.connections:
            log.warning("more than %d connections: one is refused", self._settings.connections)
            abort(transport)
            return
        try:
            if shown(transport):
                return
        except RefusedError:
            abort(transport)
            return
        self._strangers = {one: None for one in self._strangers if not one.is_closing()}
        if len(self._strangers) >= self._settings.strangers and not self._make_room():
            abort(transport)
            return
        self._strangers[transport] = None
        loop = asyncio.get_running_loop()
        loop.call_later(self._settings.stranger_seconds, abort, transport)

    def _make_room(self) -> bool:
        """End the oldest stranger's connection that asks nothing: idle ones must not keep out a join."""
        for one in self._strangers:
            if one not in self._serving.asking:
                abort(one)
                del self._strangers[one]
                return True
        return False


def _transport(socket: aiohttp.ClientWebSocketResponse[bool]) -> asyncio.Transport | None:
    # aiohttp shows no public way to the transport of a websocket, and only the transport can be aborted:
    # an orderly close of TLS waits for a peer that may be dead.
    connection = socket._conn
    transport = connection.transport if connection is not None else None
    return transport if isinstance(transport, asyncio.Transport) else None


def _drop(socket: aiohttp.ClientWebSocketResponse[bool]) -> None:
    transport = _transport(socket)
    if transport is not None:
        abort(transport)
    _release(socket)


def _release(socket: aiohttp.ClientWebSocketResponse[bool]) -> None:
    # After an abort aiohttp keeps the dead connection leased from its pool until this.
    socket._response.close()
