"""The guard and the encryption of the node's VXLAN ports: carried out, watched, and taken away.

What belongs here: what is surely in the kernel. What does not: what should be (plan/guarding), rules
(adapters).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable

from swarmpy.model.links import CipherTable, GuardTable
from swarmpy.plan import guarding
from swarmpy.ports import FabricError, FabricPorts

logger = logging.getLogger(__name__)


class Fence:
    """What this run of the agent programmed, each with its fingerprint."""

    def __init__(self, ports: FabricPorts) -> None:
        self._ports = ports
        self._guard: tuple[GuardTable, str] | None = None
        self._cipher: tuple[CipherTable, str] | None = None
        self._guard_left = self._cipher_left = True
        self._turn = asyncio.Lock()

    def seen(self) -> guarding.Fenced:
        """For the planner."""
        return guarding.Fenced(
            self._guard[0] if self._guard else None,
            self._cipher[0] if self._cipher else None,
            self._guard_left,
            self._cipher_left,
        )

    async def act(self, action: guarding.Action) -> None:
        """Carry out. Raises FabricError."""
        async with self._turn:
            await self._carry_out(action)

    async def _carry_out(self, action: guarding.Action) -> None:
        match action:
            case guarding.Guard(None):
                await self._ports.guard.clear()
                self._guard, self._guard_left = None, False
            case guarding.Guard(GuardTable() as table):
                self._guard = None
                self._guard = (table, await self._ports.guard.apply(table))
            case guarding.Cipher(None):
                await self._ports.cipher.clear()
                self._cipher, self._cipher_left = None, False
            case guarding.Cipher(CipherTable() as cipher):
                self._cipher = None
                self._cipher = (cipher, await self._ports.cipher.apply(cipher))

    async def verify_guard(self) -> None:
        """If it was changed behind our back it is to be programmed again."""
        async with self._turn:
            if self._guard is not None and await mark_of(self._ports.guard.observe()) != self._guard[1]:
                logger.warning("the guard of the VXLAN ports was changed by others: mending it")
                self._guard = None

    async def verify_cipher(self) -> None:
        """As `verify_guard`."""
        async with self._turn:
            if self._cipher is not None and await mark_of(self._ports.cipher.observe()) != self._cipher[1]:
                logger.warning("the encryption between nodes was changed by others: mending it")
                self._cipher = None


async def mark_of(looking: Awaitable[str]) -> str:
    """What the kernel holds; "" also where it cannot be seen."""
    try:
        return await looking
    except FabricError:
        return ""


async def cleared(ports: FabricPorts) -> None:
    """Remove everything of ours from the node's kernel; what cannot be removed is said in the log."""
    for job in (ports.mesh.clear, ports.overlay.clear, ports.guard.clear, ports.cipher.clear):
        try:
            await job()
        except FabricError as error:
            logger.warning("the node's network is not clean: %s", error)
