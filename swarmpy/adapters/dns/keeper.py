"""The daemon's stand-in, as the daemon has it: finding or starting it, and what it is told.

What belongs here: the daemon's side of the handover, and what becomes of a stand-in that fails. What does
not: its own side (standin.py). Nothing here is needed to answer names, so nothing that goes wrong here is an
error for who asks: it is logged, and tried again later; and nobody waits until a process has begun.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import signal
import socket
import struct
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from swarmpy.adapters.dns import handover
from swarmpy.adapters.dns.handover import Call, Held, Reply
from swarmpy.adapters.dns.sockets import Pair
from swarmpy.model import codec

T = TypeVar("T")
logger = logging.getLogger(__name__)

AGAIN = 10.0
"""Seconds until another one is started for one that was lost, or did not begin."""
Spawn = Callable[[socket.socket], None]
"""Starts a stand-in that has this connection; it outlives us. Raises OSError, SubprocessError."""


class Keeper:
    """The stand-in that is found at `path`; `spawn` starts one where there is none, or one of another
    `version`. Its callers take turns."""

    def __init__(self, path: str, version: str, spawn: Spawn) -> None:
        self._path, self._version, self._spawn = path, version, spawn
        self._connection: socket.socket | None = None
        self._told: dict[str, tuple[Held, Sequence[Pair]]] = {}
        self._turn = asyncio.Lock()
        self._renewing: asyncio.Task[None] | None = None

    async def take(self, held: Held) -> list[Pair] | None:
        """The sockets of a network, which are the caller's now, if they are held as they should be."""
        _, sockets = await self._ask(Call("take", held))
        if not sockets:
            return None
        try:
            pairs = handover.paired(held.addresses, sockets)
        except OSError as error:
            logger.warning("the stand-in gave %s", error)
            return None
        self._told[held.network_id] = (held, pairs)
        return pairs

    async def hold(self, held: Held, pairs: Sequence[Pair]) -> None:
        """Have these sockets held; they are dropped before they are closed."""
        self._told[held.network_id] = (held, pairs)
        try:
            await self._ask(Call("hold", held), pairs)
        except asyncio.CancelledError:
            del self._told[held.network_id]  # who gives up closes them
            raise
        if self._connection is None:
            self._renew(0)

    async def drop(self, network_id: str) -> None:
        """Have a network's sockets closed; unknown is fine."""
        self._told.pop(network_id, None)
        await self._ask(Call("drop", network_id=network_id))

    async def rest(self) -> None:
        """We answer no longer: it does."""
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)
            self._renewing = None  # one that was cancelled before it began has not said so
        async with self._turn:
            self._part()
            self._told = {}

    async def end(self) -> None:
        """Nobody is to answer any more."""
        await self._ask(Call("end"), last=True)
        await self.rest()

    # ------------------------------------------------------------ the connection

    async def _ask(
        self, call: Call, pairs: Sequence[Pair] = (), *, last: bool = False
    ) -> tuple[Reply, list[socket.socket]]:
        """Its reply; an empty one where there is none to ask. It may go after the `last` one."""

        def asked() -> tuple[Reply, list[socket.socket]]:
            if self._connection is None and (found := self._found()) is not None:
                self._connection = found
                self._tell_all()
            return _asked(self._connection, call, pairs) if self._connection else (Reply(), [])

        async with self._turn:
            answer = await self._work(asked) or (Reply(), [])
            if last:
                self._part()
            return answer

    async def _work(self, job: Callable[[], T]) -> T | None:
        """A job of the connection's, in a thread; None where it failed, and the connection is given up."""
        self._unwatch()
        work = asyncio.ensure_future(asyncio.to_thread(job))
        try:
            done = await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait([work])  # it has the connection: bounded by PATIENCE
            self._part()
            raise
        except (OSError, subprocess.SubprocessError, codec.CodecError) as error:
            logger.warning("nobody stands in for this daemon's name servers: %s", error)
            self._part()
            self._renew(AGAIN)
            return None
        self._watch()
        return done

    def _found(self) -> socket.socket | None:
        """The connection to one that is there, of our version."""
        made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        made.settimeout(handover.PATIENCE)
        try:
            made.connect(self._path)
        except OSError:
            made.close()
            return None
        try:
            reply, _ = _asked(made, Call("list"))
        except (OSError, codec.CodecError) as error:
            _end(made)
            logger.warning("the stand-in did not answer (%s) and was ended", error)
            return None
        return made if reply.version == self._version else self._replaced(made, reply)

    def _begun(self) -> socket.socket:
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(handover.PATIENCE)
        try:
            self._spawn(its)
        except BaseException:
            ours.close()
            raise
        finally:
            its.close()
        return ours

    def _replaced(self, old: socket.socket, has: Reply) -> socket.socket:
        """A stand-in of our version that has what the other had, which has gone."""
        logger.info("the stand-in is of version %s: replaced", has.version)
        new = self._begun()
        try:
            with old:
                for held in has.networks:
                    _, sockets = _asked(old, Call("take", held))
                    pairs = handover.paired(held.addresses, sockets)
                    _asked(new, Call("hold", held, serve=True), pairs)
                    for pair in pairs:
                        pair.close()
                _asked(old, Call("end"))
        except BaseException:
            new.close()
            raise
        return new

    # ------------------------------------------------------------ where it is lost

    def _watch(self) -> None:
        if self._connection is not None:
            asyncio.get_running_loop().add_reader(self._connection, self._lost)

    def _unwatch(self) -> None:
        if self._connection is not None:
            asyncio.get_running_loop().remove_reader(self._connection)

    def _lost(self) -> None:
        """It never speaks first, so it has gone."""
        logger.warning("the process that would stand in for this daemon's name servers has gone")
        self._part()
        self._renew(AGAIN)

    def _connected(self) -> bool:
        return self._connection is not None

    def _part(self) -> None:
        if self._connection is not None:
            self._unwatch()
            self._connection.close()
            self._connection = None

    def _renew(self, after: float) -> None:
        if self._renewing is None:
            self._renewing = asyncio.get_running_loop().create_task(self._again(after), name="stand-in")

    async def _again(self, after: float) -> None:
        """Start one and tell it all. That takes a while, in which names are begun and ended."""
        try:
            while not self._connected():
                await asyncio.sleep(after)
                after = AGAIN
                made = await self._started()
                if made is None:
                    continue
                try:
                    await self._turn.acquire()
                except asyncio.CancelledError:
                    made.close()
                    raise
                try:
                    if self._connected():
                        made.close()
                        return
                    self._connection = made
                    await self._work(self._tell_all)
                finally:
                    self._turn.release()
        finally:
            self._renewing = None

    async def _started(self) -> socket.socket | None:
        work = asyncio.ensure_future(asyncio.to_thread(self._begun))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait([work])
            if not work.exception():
                work.result().close()
            raise
        except (OSError, subprocess.SubprocessError) as error:
            logger.warning("nobody stands in for this daemon's name servers: %s", error)
            return None

    def _tell_all(self) -> None:
        assert self._connection is not None, "it was just made"
        for held, pairs in list(self._told.values()):
            _asked(self._connection, Call("hold", held), pairs)


def _end(connection: socket.socket) -> None:
    """End the process at the other side, which has sockets that we need, and wait for it."""
    with connection:
        pid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    if pid <= 1:
        return  # it is none of ours
    with suppress(OSError):
        process = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(process, signal.SIGKILL)
            select.select([process], [], [], handover.PATIENCE)
        finally:
            os.close(process)


def _asked(
    connection: socket.socket, call: Call, pairs: Sequence[Pair] = ()
) -> tuple[Reply, list[socket.socket]]:
    handover.send(connection, call, pairs)
    data, sockets = handover.receive(connection)
    if not data:
        raise ConnectionResetError("it has gone")
    return codec.decode(Reply, data), sockets
