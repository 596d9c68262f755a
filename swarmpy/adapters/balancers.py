"""One of several balancers: the first that works on this kernel.

What belongs here: choosing. What does not: balancing.
"""

from __future__ import annotations

import asyncio
import logging

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
