"""Who answers while the daemon is away: a small process that outlives it.

It holds the daemon's sockets as open files, and reads from none of them while the daemon does. The moment the
daemon is gone, however it went, the connection between them ends and the stand-in answers, by the tables that
the daemon left on the disk; a daemon that comes back takes network after network over. So no packet meets a
closed port, and none is answered twice.

What belongs here: holding, beginning and ending to answer. What does not: what is answered (`load`), starting
the process (swarmpy/standin.py), the daemon's side (keeper.py).
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress

from swarmpy.adapters.dns import handover
from swarmpy.adapters.dns.handover import Call, Held, Reply
from swarmpy.adapters.dns.names import NameServers
from swarmpy.adapters.dns.sockets import Pair
from swarmpy.model import codec
from swarmpy.ports.fabric import Resolve

logger = logging.getLogger(__name__)

LOOK = 5.0
"""Seconds between looks whether the place at which we are found is still ours."""

Load = Callable[[], tuple[Resolve, Collection[str]]]
"""What answers, and the networks of which it knows."""
Heard = tuple[socket.socket, bytes | None, list[socket.socket]]
"""A message of a daemon's, b"" for its end, None for its coming."""


class StandIn:
    """Serves daemons, one after the other, at the local socket `path`; `first` is the connection to the one
    that started us. `names` makes name servers."""

    def __init__(
        self, path: str, version: str, load: Load, names: Callable[[], NameServers] = NameServers
    ) -> None:
        self._path, self._version, self._load = path, version, load
        self._held: dict[str, tuple[Held, list[Pair]]] = {}
        self._names = names()
        self._serving: set[str] = set()
        self._daemon: socket.socket | None = None
        self._heard: asyncio.Queue[Heard] = asyncio.Queue()
        self._ended = False

    async def run(self, first: socket.socket | None = None) -> None:
        """Until it is told to end, or nobody speaks to it and it holds nothing, or cannot be found."""
        loop = asyncio.get_running_loop()
        door = handover.listener(self._path)
        door.setblocking(False)
        mark = os.stat(self._path)
        try:
            if first is not None:
                self._meet(first)
            loop.add_reader(door, self._knock, door)
            while not self._ended:
                heard = None
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK):
                        heard = await self._heard.get()
                if heard is not None:
                    await self._turn(*heard)
                if self._daemon is None and not (self._held and self._found(mark)):
                    break
        finally:
            loop.remove_reader(door)
            door.close()
            self._forget()
            await self._names.stop()
            for network_id in list(self._held):
                self._close(network_id)

    def _found(self, mark: os.stat_result) -> bool:
        try:
            return os.path.samestat(os.stat(self._path), mark)
        except OSError:
            return False

    # ------------------------------------------------------------ who comes and goes

    def _knock(self, door: socket.socket) -> None:
        with suppress(OSError):
            self._meet(door.accept()[0])

    def _meet(self, daemon: socket.socket) -> None:
        """There is one daemon at a time: who comes last. It answers for what it has taken."""
        self._forget()
        daemon.setblocking(False)
        self._daemon = daemon
        self._heard.put_nowait((daemon, None, []))
        asyncio.get_running_loop().add_reader(daemon, self._readable, daemon)

    def _forget(self) -> None:
        if self._daemon is not None:
            asyncio.get_running_loop().remove_reader(self._daemon)
            self._daemon.close()
            self._daemon = None

    def _readable(self, daemon: socket.socket) -> None:
        try:
            data, sockets = handover.receive(daemon)
        except BlockingIOError:
            return
        except OSError:
            data, sockets = b"", []
        if not data:
            self._forget()
        self._heard.put_nowait((daemon, data, sockets))

    # ------------------------------------------------------------ what is done

    async def _turn(self, daemon: socket.socket, data: bytes | None, sockets: list[socket.socket]) -> None:
        if not data:
            if data is None or self._daemon is None:
                await self._serve(self._held.keys() - self._serving)
            return
        reply, pairs = Reply(self._version), list[Pair]()
        try:
            call = codec.decode(Call, data)
            pairs = await self._done(call, sockets)
            if call.what == "list":
                reply = Reply(self._version, tuple(held for held, _ in self._held.values()))
        except (codec.CodecError, OSError) as error:
            logger.warning("what the daemon says is not understood: %s", error)
            for one in sockets:
                one.close()
        with suppress(OSError):
            handover.send(daemon, reply, pairs)

    async def _done(self, call: Call, sockets: Sequence[socket.socket]) -> list[Pair]:
        """Do what is asked; the sockets that are given."""
        match call.what:
            case "hold" if call.held is not None:
                pairs = handover.paired(call.held.addresses, sockets)
                await self._drop(call.held.network_id)
                self._held[call.held.network_id] = (call.held, pairs)
                if call.serve:
                    await self._serve({call.held.network_id})
            case "take" if call.held is not None:
                known = self._held.get(call.held.network_id)
                if known is not None and known[0] == call.held:
                    self._serving.discard(call.held.network_id)
                    await self._names.release(call.held.network_id)
                    return known[1]
                await self._drop(call.held.network_id)
            case "drop":
                await self._drop(call.network_id)
            case "end":
                self._ended = True
            case _:
                pass
        return []

    async def _serve(self, networks: Collection[str]) -> None:
        """Answer for those of which is known what is there; questions for the others wait for the daemon."""
        if not networks:
            return
        try:
            resolve, known = self._load()
            self._names.begin(resolve)
            chosen = sorted(set(networks) & set(known))
            logger.info("the daemon does not answer for %d networks: this process does", len(chosen))
            for network_id in chosen:
                held, pairs = self._held[network_id]
                copies = [Pair(one.address, one.udp.dup(), one.tcp.dup()) for one in pairs]
                self._serving.add(network_id)
                await self._names.adopt(network_id, (held.space, held.addresses), copies)
        except Exception:
            logger.exception("names are not answered")  # to end would close the sockets, and lose them

    async def _drop(self, network_id: str) -> None:
        if network_id in self._serving:
            self._serving.discard(network_id)
            await self._names.withdraw(network_id)
        self._close(network_id)

    def _close(self, network_id: str) -> None:
        _, pairs = self._held.pop(network_id, (None, ()))
        for pair in pairs:
            pair.close()
