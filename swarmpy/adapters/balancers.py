"""One of several balancers: the first that works on this kernel, and what becomes of the one that was before.

What belongs here: choosing, and taking over. What does not: balancing.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Collection
from typing import Protocol

from swarmpy.adapters.netns import inside
from swarmpy.ports import Balancer, FabricError, SandboxTable

logger = logging.getLogger(__name__)


class FirstThatWorks:
    """ports.Balancer: that of the first candidate whose probe succeeds. Once chosen it stays; as long as none
    works, each call tries again, since a module may be installed meanwhile."""

    def __init__(self, *candidates: Balancer) -> None:
        self._candidates = candidates
        self._chosen: Balancer | None = None
        self._turn = asyncio.Lock()
        self.name = candidates[0].name
        """That of the chosen one; of the first where none was chosen yet."""

    async def probe(self) -> bool:
        """Whether one of them works."""
        try:
            await self._choose()
        except FabricError as error:
            logger.warning("%s", error)
            return False
        return True

    async def _choose(self) -> Balancer:
        async with self._turn:
            if self._chosen is None:
                for one in self._candidates:
                    if await one.probe():
                        logger.info("connections to services are balanced by %s", one.name)
                        self._chosen, self.name = one, one.name
                        break
                else:
                    names = " nor ".join(one.name for one in self._candidates)
                    raise FabricError(
                        f"connections to services cannot be balanced here: neither {names} works; "
                        "why is in this node's log"
                    )
            return self._chosen

    async def observe(self, sandbox: str) -> str:
        """See ports.Balancer."""
        return await (await self._choose()).observe(sandbox)

    async def apply(self, sandbox: str, table: SandboxTable, before: SandboxTable | None) -> str:
        """See ports.Balancer."""
        return await (await self._choose()).apply(sandbox, table, before)

    async def clear(self, sandbox: str) -> None:
        """See ports.Balancer."""
        await (await self._choose()).clear(sandbox)


_REMEMBERED = 4096


class Sweep(Protocol):
    """Takes away what another balancer left in the thread's namespace; see ipvs/leftovers.py."""

    def __call__(self, vips: Collection[str] = (), *, patient: bool = True) -> bool:
        """Whether something is left. Raises FabricError."""


class Successor:
    """ports.Balancer: `inner`, on a node that may have balanced otherwise before. Once a sandbox has its
    rules, what the former balancer left there is swept; what drains is looked at with each observation."""

    def __init__(self, inner: Balancer, sweep: Sweep) -> None:
        self._inner, self._sweep = inner, sweep
        self.name = inner.name
        self._clean: set[str] = set()
        self._draining: set[str] = set()

    async def probe(self) -> bool:
        """See ports.Balancer."""
        return await self._inner.probe()

    async def observe(self, sandbox: str) -> str:
        """See ports.Balancer."""
        if sandbox in self._draining:
            await self._look(sandbox, ())
        return await self._inner.observe(sandbox)

    async def apply(self, sandbox: str, table: SandboxTable, before: SandboxTable | None) -> str:
        """See ports.Balancer."""
        made = await self._inner.apply(sandbox, table, before)
        if sandbox not in self._clean:
            await self._look(sandbox, [one.vip for one in table.services])
        return made

    async def clear(self, sandbox: str) -> None:
        """See ports.Balancer."""
        await self._inner.clear(sandbox)
        self._draining.discard(sandbox)
        if sandbox not in self._clean and await asyncio.to_thread(os.path.exists, sandbox):
            await asyncio.to_thread(inside, sandbox, lambda: self._sweep(patient=False))
        self._clean.discard(sandbox)

    async def _look(self, sandbox: str, vips: Collection[str]) -> None:
        """Sweep. The sandbox is served whatever comes of it, so an error is no reason to fail."""
        try:
            left = await asyncio.to_thread(inside, sandbox, self._sweep, vips)
        except FabricError as error:
            if sandbox not in self._draining:
                logger.warning("%s keeps what another balancer left there: %s", sandbox, error)
            left = True
        if len(self._clean) + len(self._draining) >= _REMEMBERED:  # of sandboxes that ended, mostly
            self._clean.clear()
            self._draining.clear()
        (self._draining if left else self._clean).add(sandbox)
        if not left:
            self._draining.discard(sandbox)
