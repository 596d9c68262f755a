"""ports.Wire over the simulated network.

What belongs here: calls and channels with the behaviour of the real wire: refusals by the role table, order
within a channel, flow control, what breaks when a side dies. What does not: when links fail (net.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgpack

from swarmpy.model.errors import Refusal
from swarmpy.pki import rpc
from swarmpy.ports import (
    AmbiguousError,
    Body,
    CallHandler,
    ChannelHandler,
    NoQuorumError,
    NotLeaderError,
    Peer,
    RefusedError,
    WireError,
)
from swarmpy.sim.channel import ACCEPT, REFUSE, SimChannel, pack, raise_in, unpack
from swarmpy.sim.loop import Process
from swarmpy.sim.net import SimNet

STRANGER = Peer("", rpc.NONE, "", "")


def refusal_of(error: BaseException) -> RefusedError | None:
    """What a handler's exception says to the other side, as the real wire says it; None for a defect."""
    if isinstance(error, RefusedError):
        return error
    if isinstance(error, Refusal):
        return RefusedError(type(error).__name__, error.message)
    if isinstance(error, NotLeaderError):
        return RefusedError("Unavailable", str(error), {"reason": "not_leader", "leader": error.leader})
    if isinstance(error, AmbiguousError):
        return RefusedError("Ambiguous", str(error), {"reason": "ambiguous"})
    if isinstance(error, NoQuorumError):
        return RefusedError("Unavailable", str(error), {"reason": "no_quorum"})
    return None


class SimWire:
    """One process's wire. `me` is what its certificate says; replace it when the certificate changes."""

    def __init__(self, net: SimNet, host: str, process: Process, me: Peer = STRANGER, *,
                 revoked: rpc.Revoked | None = None) -> None:  # fmt: skip
        self.net = net
        self.host = host
        self.process = process
        self.me = me
        self.revoked = revoked or rpc.Revoked()
        self.address = ""
        self._calls: dict[str, CallHandler] = {}
        self._channels: dict[str, ChannelHandler] = {}
        self._serving: dict[int, tuple[str, asyncio.Future[Any]]] = {}
        self.revoked.listen(self._cut_revoked)

    # ------------------------------------------------------------ the port

    def on_call(self, method: str, handler: CallHandler) -> None:
        """Serve a method."""
        self._calls[method] = handler

    def on_channel(self, method: str, handler: ChannelHandler) -> None:
        """Serve a channel method."""
        self._channels[method] = handler

    async def start(self, listen: str) -> None:
        """Listen on HOST:PORT (any HOST: there is one address a machine)."""
        address = f"{self.host}:{listen.rpartition(':')[2]}"
        if address in self.net.listening:
            raise OSError(98, f"address {address} is in use")
        self.address = address
        self.net.listening[address] = self

    async def stop(self) -> None:
        """Stop listening and break all channels."""
        self.gone("the other side stopped")

    async def call(self, address: str, method: str, body: Body, *, timeout: float = 5.0) -> Body:
        """Call a method. Raises WireError or RefusedError."""
        data = pack(body)
        answer: asyncio.Future[Any] = self.net.loop.create_future()
        self._depart(address, method, data, answer, self._arrive_call)
        timer = self.net.loop.call_later(timeout, _fail, answer, f"no answer from {address} in {timeout} s")
        try:
            outcome = await answer
        finally:
            timer.cancel()
        return unpack(outcome)

    async def open(self, address: str, method: str, hello: Body, *, timeout: float = 5.0) -> SimChannel:
        """Open a channel. Raises WireError or RefusedError."""
        data = pack(hello)
        answer: asyncio.Future[Any] = self.net.loop.create_future()
        ours = SimChannel(self.net, self, STRANGER, answer)
        self._depart(address, method, data, answer,
                     lambda *args: self._arrive_open(ours, *args))  # fmt: skip
        timer = self.net.loop.call_later(timeout, _fail, answer, f"no answer from {address} in {timeout} s")
        try:
            await answer
        except BaseException:
            ours.cut("given up by the side that dialled")
            raise
        finally:
            timer.cancel()
        return ours

    # ------------------------------------------------------------ departure and arrival

    def _depart(self, address: str, method: str, data: bytes, answer: asyncio.Future[Any],
                arrive: Callable[..., None]) -> None:  # fmt: skip
        net, target = self.net, address.rpartition(":")[0]
        if not self.process.alive:
            return
        link = net.link(self.host, target)
        delay = net.delay(self.host, target)
        if link.reset and net.chance.random() < link.reset:
            net.later(delay, _fail, answer, f"the connection to {address} broke")
            if net.chance.random() < 0.5:
                return
        net.later(delay, arrive, address, method, data, answer)
        if link.duplicate and arrive == self._arrive_call and net.chance.random() < link.duplicate:
            net.later(delay + net.delay(self.host, target), arrive, address, method, data, answer)

    def _listener(self, address: str, answer: asyncio.Future[Any]) -> SimWire | None:
        net, target = self.net, address.rpartition(":")[0]
        if net.blocked(self.host, target):
            return None
        server = net.listening.get(address)
        if server is None:
            if not net.blocked(target, self.host):
                net.later(net.delay(target, self.host), _fail, answer, f"{address} refuses connections")
            return None
        return server

    def _arrive_call(self, address: str, method: str, data: bytes, answer: asyncio.Future[Any]) -> None:
        server = self._listener(address, answer)
        if server is None:
            return
        net = self.net
        net.delivered += 1
        net.trace.mark(f"call {self.host} {address} {method} {len(data)}".encode())
        number = net.number()
        server._serving[number] = (self.host, answer)
        caller = self._as_peer()

        def reply(outcome: bytes | RefusedError) -> None:
            server._serving.pop(number, None)
            link = net.link(server.host, self.host)
            delay = net.delay(server.host, self.host)
            if link.reset and net.chance.random() < link.reset:
                net.later(delay, _fail, answer, f"the connection to {address} broke")
            else:
                net.later(delay, self._arrive_reply, server.host, answer, outcome)

        net.loop.spawn(server.process, server._serve_call(caller, method, data, reply))

    def _arrive_reply(self, source: str, answer: asyncio.Future[Any], outcome: bytes | RefusedError) -> None:
        if answer.done() or self.net.blocked(source, self.host):
            return
        self.net.trace.mark(f"reply {source} {self.host}".encode())
        if isinstance(outcome, RefusedError):
            raise_in(answer, outcome)
        else:
            answer.set_result(outcome)

    def _arrive_open(self, ours: SimChannel, address: str, method: str, data: bytes,
                     answer: asyncio.Future[Any]) -> None:  # fmt: skip
        server = self._listener(address, answer)
        if server is None or answer.done():
            return
        self.net.trace.mark(f"open {self.host} {address} {method}".encode())
        theirs = SimChannel(self.net, server, self._as_peer(), None)
        ours.peer = Peer(server.me.node_id, server.me.role, server.me.cluster_id, server.me.serial, address)
        ours.join(theirs)
        self.net.loop.spawn(server.process, server._serve_channel(theirs, method, unpack(data)))

    def _as_peer(self) -> Peer:
        me = self.me
        return Peer(me.node_id, me.role, me.cluster_id, me.serial, self.net.source(self.host))

    # ------------------------------------------------------------ serving

    def _admit(self, kind: rpc.Kind, method: str, peer: Peer, body: Body, size: int) -> None:
        refusal = self.revoked.refuse(peer.node_id, peer.serial) or rpc.authorize(method, kind, peer.role)
        if refusal is None and peer.role != rpc.NONE and peer.cluster_id != self.me.cluster_id:
            refusal = rpc.Refusal(rpc.FORBIDDEN, f"node {peer.node_id} belongs to another cluster")
        if refusal is None:
            refusal = rpc.authorize_body(method, peer.node_id, body)
        rule = rpc.find_rule(method, kind)
        if refusal is None and rule is not None and size > rule.max_body:
            refusal = rpc.Refusal(rpc.TOO_LARGE, f"{method} takes at most {rule.max_body} bytes")
        if refusal is None and method not in (self._calls if kind == "call" else self._channels):
            refusal = rpc.Refusal(rpc.NOT_SERVED, f"this node does not serve {method} at the moment")
        if refusal is not None:
            raise RefusedError(refusal.code, refusal.message, {"reason": refusal.reason})

    async def _serve_call(self, peer: Peer, method: str, data: bytes,
                          reply: Callable[[bytes | RefusedError], None]) -> None:  # fmt: skip
        body = unpack(data)
        try:
            self._admit("call", method, peer, body, len(data))
            served = self.net.serving(self, peer, method) if self.net.serving is not None else None
            outcome: bytes | RefusedError = pack(await self._calls[method](peer, body))
            if served is not None:
                served()
        except Exception as error:
            outcome = self._refusal(method, error)
        reply(outcome)

    async def _serve_channel(self, channel: SimChannel, method: str, hello: Body) -> None:
        try:
            self._admit("channel", method, channel.peer, hello, 0)
            channel.method = method
            channel.before_use = lambda: channel.post(ACCEPT, b"")
            await self._channels[method](channel, hello)
        except WireError as error:
            channel.cut(str(error))
        except Exception as error:
            refusal = self._refusal(method, error)
            channel.post(REFUSE, msgpack.packb([refusal.code, refusal.message, refusal.data]))
        await channel.close()

    def _refusal(self, method: str, error: Exception) -> RefusedError:
        refusal = refusal_of(error)
        if refusal is not None:
            return refusal
        self.net.problems.append(f"{self.process.name}: the handler of {method} failed: {error!r}")
        self.net.last_error = error
        return RefusedError("Internal", f"{method} failed on the other node", {"reason": rpc.INTERNAL})

    # ------------------------------------------------------------ ends

    def gone(self, reason: str) -> None:
        """The process ended: its port is closed, its connections break."""
        net = self.net
        if net.listening.get(self.address) is self:
            del net.listening[self.address]
        serving, self._serving = self._serving, {}
        for _, (host, answer) in sorted(serving.items()):
            if not net.blocked(self.host, host):
                net.later(net.delay(self.host, host), _fail, answer, f"the connection broke: {reason}")
        for number in sorted(net.channels):
            end = net.channels.get(number)
            if end is not None and end.wire is self:
                end.cut(reason)

    def _cut_revoked(self) -> None:
        for number in sorted(self.net.channels):
            end = self.net.channels.get(number)
            if end is not None and end.wire is self:
                refusal = self.revoked.refuse(end.peer.node_id, end.peer.serial)
                if refusal is not None:
                    end.cut(refusal.message)


def _fail(answer: asyncio.Future[Any], reason: str) -> None:
    raise_in(answer, WireError(reason))
