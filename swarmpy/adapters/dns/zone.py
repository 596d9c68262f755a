"""One network's name server: its sockets, and what its clients may cost.

What belongs here: reading, writing, limits. What does not: what is said (answers).

A packet that came before is answered from memory with a look-up or two. Others are decoded, resolved and
rendered, which costs many times as much, so clients are charged accordingly: one that asks without end, or
makes up names, is ignored beyond its allowance while the others are served.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from swarmpy.adapters.dns import answers, wire
from swarmpy.adapters.dns.memory import Allowance, Memory
from swarmpy.adapters.dns.sockets import Pair
from swarmpy.ports.fabric import Resolve

log = logging.getLogger(__name__)

BATCH = 128
"""Packets read before others of the process get their turn…"""
BATCH_SLOW = 8
"""…and how many of them may be ones that are not remembered."""
PAUSE = 1.0
"""Seconds without accepting after that failed."""
SLOW = 20
"""What a packet costs that is not remembered; one that is costs 1."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Per network, but for `pending` (of the node). `rate` and `burst` are a client's remembered answers per
    second; others cost 20 times as much. `idle` in seconds."""

    rate: float = 20_000
    burst: float = 10_000
    pending: int = 400
    pending_client: int = 100
    connections: int = 64
    connections_client: int = 16
    idle: float = 10.0


Forward = Callable[[answers.Ask, bytes, str], Awaitable[bytes | None]]
"""(what, packet, client) to the reply, id included."""


class Zone:
    """Serves a network at its pairs of sockets."""

    def __init__(self, network_id: str, resolve: Resolve, forward: Forward, limits: Limits) -> None:
        self.network_id = network_id
        self.memory = Memory()
        self._resolve, self._forward, self._limits = resolve, forward, limits
        self._allowance = Allowance(limits.rate, limits.burst)
        self._pairs: list[Pair] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections: dict[asyncio.Task[None], str] = {}
        self._resting: list[asyncio.TimerHandle] = []

    def open(self, pairs: Sequence[Pair]) -> None:
        """Begin to serve; the sockets are ours from now on."""
        loop = asyncio.get_running_loop()
        self._pairs = list(pairs)
        for pair in pairs:
            loop.add_reader(pair.tcp, self._acceptable, pair)
            loop.add_reader(pair.udp, self._readable, pair)

    async def leave(self) -> None:
        """Read nothing more, answer what was read, and close."""
        self.quiet()
        try:
            if under_way := [*self._tasks, *self._connections]:
                await asyncio.wait(under_way, timeout=self._limits.idle)
        finally:
            await self.close()

    def quiet(self) -> None:
        """Read and accept nothing more. Who has these sockets as well finds there what we left."""
        loop = asyncio.get_running_loop()
        for pair in self._pairs:
            loop.remove_reader(pair.udp)
            loop.remove_reader(pair.tcp)
        for timer in self._resting:
            timer.cancel()
        self._resting.clear()

    async def close(self) -> None:
        """Serve no longer."""
        self.quiet()
        tasks = [*self._tasks, *self._connections]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for pair in self._pairs:
            pair.close()
        self._pairs = []

    # ------------------------------------------------------------------ UDP

    def _readable(self, pair: Pair) -> None:
        """The fast path: everything that every packet costs is in here."""
        receive, send = pair.udp.recvfrom, pair.udp.sendto
        kept, take = self.memory.kept, self._allowance.take
        now, slow = time.monotonic(), 0
        for _ in range(BATCH):
            try:
                packet, peer = receive(wire.LARGEST_QUERY + 1)
            except OSError:  # none left; or a network that is going away
                return
            client = peer[0]
            remembered = kept.get((client, packet[2:]))
            if not take(client, 1 if remembered else SLOW, now):
                continue
            if remembered is None:
                slow += 1
                self._unremembered(pair, packet, peer)
                if slow >= BATCH_SLOW:
                    return
                continue
            # A full buffer, or a client that is gone: it will ask again.
            with contextlib.suppress(OSError):
                send(packet[:2] + remembered.next(), peer)

    def _unremembered(self, pair: Pair, packet: bytes, peer: Any) -> None:
        client = peer[0]
        said = answers.decide(packet, self.network_id, client, self._resolve, tcp=False)
        if isinstance(said, answers.Ask):
            task = asyncio.create_task(self._forwarded(pair, said, packet, peer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif said is not None:
            self.memory.keep((client, packet[2:]), said)
            with contextlib.suppress(OSError):
                pair.udp.sendto(packet[:2] + said.next(), peer)

    async def _forwarded(self, pair: Pair, what: answers.Ask, packet: bytes, peer: Any) -> None:
        reply = await self._forward(what, packet, peer[0])
        if reply is not None:
            with contextlib.suppress(OSError):
                pair.udp.sendto(reply, peer)

    # ------------------------------------------------------------------ TCP

    # Not by asyncio.start_server: what a closed server had accepted, and not yet given to us, is lost.

    def _acceptable(self, pair: Pair) -> None:
        """Each that is accepted is ours in the same moment, and so awaited by who leaves."""
        for _ in range(BATCH_SLOW):
            try:
                connection, peer = pair.tcp.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # no more files: those who wait in the kernel's queue are taken later
                log.warning("no connection is accepted at %s for %g s: %s", pair.address, PAUSE, error)
                self._rest(pair)
                return
            client = str(peer[0])
            if not self._room(client):
                connection.close()
                continue
            connection.setblocking(False)
            task = asyncio.create_task(self._connected(connection, client))
            self._connections[task] = client
            task.add_done_callback(partial(self._ended, connection))

    def _rest(self, pair: Pair) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(pair.tcp)
        self._resting = [one for one in self._resting if one.when() > loop.time()]
        self._resting.append(loop.call_later(PAUSE, loop.add_reader, pair.tcp, self._acceptable, pair))

    def _ended(self, connection: socket.socket, task: asyncio.Task[None]) -> None:
        self._connections.pop(task, None)
        if task.cancelled():  # before it began: nobody else closes it
            connection.close()

    async def _connected(self, connection: socket.socket, client: str) -> None:
        reader, writer = await asyncio.open_connection(sock=connection)
        try:
            while await self._one(reader, writer, client):
                pass
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # went away, or said nothing for too long
        except asyncio.CancelledError:
            pass  # made way for another client, or the zone closes; nobody awaits this task but us
        finally:
            if writer.transport.get_write_buffer_size():
                writer.transport.abort()  # closing would wait for a client that does not read
            else:
                writer.close()

    def _room(self, client: str) -> bool:
        """Whether one more connection may be. When all are taken, the client with the most gives up its
        oldest, if it has more than the one who comes."""
        counts: dict[str, int] = {}
        for owner in self._connections.values():
            counts[owner] = counts.get(owner, 0) + 1
        mine = counts.get(client, 0)
        if mine >= self._limits.connections_client:
            return False
        if len(self._connections) < self._limits.connections:
            return True
        greedy = max(counts, key=lambda owner: counts[owner])
        if counts[greedy] <= mine + 1:
            return False
        oldest = next(task for task, owner in self._connections.items() if owner == greedy)
        self._connections.pop(oldest)
        oldest.cancel()
        return True

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, client: str) -> bool:
        """One question and its answer; whether more may come."""
        async with asyncio.timeout(self._limits.idle):
            packet = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
        if not self._allowance.take(client, SLOW, time.monotonic()):
            return False
        said = answers.decide(packet, self.network_id, client, self._resolve, tcp=True)
        if said is None:
            return False
        if isinstance(said, answers.Ask):
            reply = await self._forward(said, packet, client)
            if reply is None:
                return False
        else:
            reply = packet[:2] + said.next()
        writer.write(min(len(reply), wire.LARGEST_TCP).to_bytes(2) + reply)
        async with asyncio.timeout(self._limits.idle):
            await writer.drain()
        return True
