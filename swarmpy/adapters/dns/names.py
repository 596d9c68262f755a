"""The port Names: a zone for each network, and asking others for all of them.

What belongs here: beginning and ending to serve, the bound on questions under way. What does not: packets.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from swarmpy.adapters.dns import answers, wire
from swarmpy.adapters.dns.handover import Held
from swarmpy.adapters.dns.keeper import Keeper
from swarmpy.adapters.dns.sockets import Pair, bound, identity
from swarmpy.adapters.dns.upstream import ResolvConf, Upstream
from swarmpy.adapters.dns.zone import Limits, Zone
from swarmpy.model.links import Answer, Question
from swarmpy.ports.fabric import FabricError, Resolve

LAST_WORDS = 1.0
"""Seconds in which questions are answered that were read before all ends."""
Where = tuple[tuple[int, int], tuple[str, ...]]
"""Identity of the namespace, and addresses."""


@dataclass(frozen=True, slots=True)
class _Served:
    zone: Zone
    where: Where


class NameServers:
    """Serves networks with what `resolve` knows, which must return at once; it may be given later, by
    `begin`. `keeper` has the process that answers where this one does not any more. Implements the port
    Names."""

    def __init__(
        self,
        resolve: Resolve | None = None,
        *,
        resolv_conf: str | Path = "/etc/resolv.conf",
        port: int = 53,
        upstream: Upstream | None = None,
        limits: Limits | None = None,
        keeper: Keeper | None = None,
    ) -> None:
        self._resolve, self._port, self._keeper = resolve, port, keeper
        self._own = ResolvConf(resolv_conf)
        self._upstream = upstream or Upstream()
        self._limits = limits or Limits()
        self._served: dict[str, _Served] = {}
        self._pending: Counter[tuple[str, str]] = Counter()
        self._leaving: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()

    def begin(self, resolve: Resolve) -> None:
        """Answer with this from now on."""
        self._resolve = resolve
        self.changed()

    async def serve(self, network_id: str, namespace: str, addresses: Sequence[str]) -> None:
        """Serve at these addresses of the namespace, instead of where the network was served before. Nothing
        happens where that is the same. Raises FabricError; the network is not served then."""
        async with self._turn:
            try:
                where = (identity(namespace), tuple(addresses))
            except FabricError:
                await self._close(network_id)
                raise
            before = self._served.get(network_id)
            if before is not None and before.where == where:
                return
            if before is not None:
                await self._close(network_id)
            self._open(network_id, where, await self._pairs(Held(network_id, *where), namespace))

    async def _pairs(self, held: Held, namespace: str) -> list[Pair]:
        """The sockets that were held for us, else new ones, which are held for who comes after us."""
        if self._keeper is not None and (taken := await self._keeper.take(held)):
            return taken
        pairs = await bound(namespace, held.addresses, self._port)
        if self._keeper is not None:
            try:
                await self._keeper.hold(held, pairs)
            except asyncio.CancelledError:
                for pair in pairs:
                    pair.close()
                raise
        return pairs

    async def adopt(self, network_id: str, where: Where, pairs: Sequence[Pair]) -> None:
        """Serve at sockets that are there already; they are ours from now on."""
        async with self._turn:
            self._open(network_id, where, pairs)

    async def release(self, network_id: str) -> None:
        """Somebody else answers at these sockets from now on. What was asked already is answered."""
        async with self._turn:
            served = self._served.pop(network_id, None)
            if served is not None:
                task = asyncio.create_task(served.zone.leave(), name="last answers")
                self._leaving.add(task)
                task.add_done_callback(self._leaving.discard)

    async def withdraw(self, network_id: str) -> None:
        """Serve that network no longer. Its namespace cannot vanish before."""
        async with self._turn:
            await self._close(network_id)

    def changed(self) -> None:
        """Nothing that was remembered counts."""
        for served in self._served.values():
            served.zone.memory.forget()

    async def stop(self) -> None:
        """Serve nothing any more; who stands in does."""
        async with self._turn:
            await self._close_all(self._keeper.rest if self._keeper else None)

    async def wipe(self) -> None:
        """Serve nothing any more, and have nobody stand in."""
        async with self._turn:
            await self._close_all(self._keeper.end if self._keeper else None)

    def _known(self, question: Question) -> Answer:
        assert self._resolve is not None, "begin comes before serve"
        return self._resolve(question)

    def _open(self, network_id: str, where: Where, pairs: Sequence[Pair]) -> None:
        zone = Zone(network_id, self._known, self._forward, self._limits)
        self._served[network_id] = _Served(zone, where)
        zone.open(pairs)

    async def _close_all(self, then: Callable[[], Awaitable[None]] | None) -> None:
        """Read nothing, have `then` done, and close when what was read is answered, or after a while."""
        zones = [served.zone for served in self._served.values()]
        self._served.clear()
        for zone in zones:
            zone.quiet()
        if then is not None:
            await then()
        leaving = [*self._leaving, *(asyncio.ensure_future(zone.leave()) for zone in zones)]
        if leaving:
            await asyncio.wait(leaving, timeout=LAST_WORDS)
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)

    async def _close(self, network_id: str) -> None:
        if self._keeper is not None:
            await self._keeper.drop(network_id)
        served = self._served.pop(network_id, None)
        if served is not None:
            await served.zone.close()

    async def _forward(self, what: answers.Ask, packet: bytes, client: str) -> bytes | None:
        """Another server's reply, or our own that there is none."""
        mine = ("client", client)
        everybody = ("node", "")
        failed = what.query.id + answers.failure(what.query, what.limit).next()
        if (
            self._pending[everybody] >= self._limits.pending
            or self._pending[mine] >= self._limits.pending_client
        ):
            return failed
        self._pending[everybody] += 1
        self._pending[mine] += 1
        try:
            servers = what.upstream or self._own.servers()
            reply = await self._upstream.ask(packet, what.query.question, servers)
        finally:
            self._pending[everybody] -= 1
            self._pending[mine] -= 1
            if not self._pending[mine]:
                del self._pending[mine]
        return failed if reply is None else wire.cut(reply, what.query, what.limit)
