"""The port Names: a zone for each network, and asking others for all of them.

What belongs here: beginning and ending to serve, the bound on questions under way. What does not: packets.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from swarmpy.adapters.dns import answers, wire
from swarmpy.adapters.dns.sockets import bound, identity
from swarmpy.adapters.dns.upstream import ResolvConf, Upstream
from swarmpy.adapters.dns.zone import Limits, Zone
from swarmpy.model.links import Answer, Question
from swarmpy.ports.fabric import FabricError, Resolve


@dataclass(frozen=True, slots=True)
class _Served:
    zone: Zone
    where: tuple[tuple[int, int], tuple[str, ...]]
    """Identity of the namespace, and addresses."""


class NameServers:
    """Serves networks with what `resolve` knows, which must return at once; it may be given later, by
    `begin`. Implements the port Names."""

    def __init__(
        self,
        resolve: Resolve | None = None,
        *,
        resolv_conf: str | Path = "/etc/resolv.conf",
        port: int = 53,
        upstream: Upstream | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._resolve, self._port = resolve, port
        self._own = ResolvConf(resolv_conf)
        self._upstream = upstream or Upstream()
        self._limits = limits or Limits()
        self._served: dict[str, _Served] = {}
        self._pending: Counter[tuple[str, str]] = Counter()
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
            await self._close(network_id)
            pairs = await bound(namespace, where[1], self._port)
            zone = Zone(network_id, self._known, self._forward, self._limits)
            self._served[network_id] = _Served(zone, where)
            await zone.open(pairs)

    async def withdraw(self, network_id: str) -> None:
        """Serve that network no longer. Its namespace cannot vanish before."""
        async with self._turn:
            await self._close(network_id)

    def changed(self) -> None:
        """Nothing that was remembered counts."""
        for served in self._served.values():
            served.zone.memory.forget()

    async def stop(self) -> None:
        """Serve nothing any more."""
        async with self._turn:
            for network_id in list(self._served):
                await self._close(network_id)

    def _known(self, question: Question) -> Answer:
        assert self._resolve is not None, "begin comes before serve"
        return self._resolve(question)

    async def _close(self, network_id: str) -> None:
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
