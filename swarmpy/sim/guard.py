"""The simulated kernel's firewall of the VXLAN ports and its IPsec, and the ports to them.

What belongs here: what passes, by the tables that the kernel holds. What does not: how the kernel misbehaves
(balancer.py, whose Netfilter keeps the tables), deciding when (faults).
"""

from __future__ import annotations

from dataclasses import replace

from swarmpy.ports import CipherTable, GuardTable
from swarmpy.sim.balancer import Held, Netfilter


def arrives(kernel: Netfilter, source: str, port: int, *, number: int = 0) -> bool:
    """Whether a packet from the address reaches the UDP port; `number` is that of the secret it was
    encrypted with, 0 where it was not."""
    if kernel.cipher is not None and port == kernel.cipher.table.port:
        table: CipherTable = kernel.cipher.table
        if source not in table.peers or number not in {one.number for one in table.secrets}:
            return False
    elif number:
        return False
    if kernel.guard is None:
        return True
    guard: GuardTable = kernel.guard.table
    if port not in (guard.port, guard.sealed):
        return True
    return source in guard.peers and (port != guard.sealed or number > 0)


def leaves(kernel: Netfilter, target: str, port: int, *, process: bool = False) -> int | None:
    """The number of the secret that a packet to the UDP port leaves with, 0 for in the clear, None where it
    does not leave. `process`: a process sends it, not the VXLAN device."""
    guard: GuardTable | None = kernel.guard.table if kernel.guard else None
    if guard and process and port in (guard.port, guard.sealed) and target in (*guard.peers, guard.local):
        return None
    table: CipherTable | None = kernel.cipher.table if kernel.cipher else None
    if table is None or port != table.port:
        return 0
    return (table.sending or None) if target in table.peers else None


class SimGuard:
    """ports.Guard: one agent's."""

    def __init__(self, kernel: Netfilter) -> None:
        self.kernel = kernel

    async def observe(self) -> str:
        """Fingerprint of what the kernel has."""
        return await self.kernel.ask(lambda: self.kernel.guard.label if self.kernel.guard else "")

    async def apply(self, table: GuardTable) -> str:
        """Make the firewall as the table says."""

        def hold(held: Held) -> None:
            self.kernel.guard = held

        return await self.kernel.ask(lambda: self.kernel.change(hold, table))

    async def clear(self) -> None:
        """Remove everything of ours."""

        def forget() -> None:
            self.kernel.guard = None

        await self.kernel.ask(forget)


class SimCipher:
    """ports.Cipher: one agent's."""

    def __init__(self, kernel: Netfilter) -> None:
        self.kernel = kernel
        self.able = True

    async def probe(self) -> bool:
        """Whether the kernel can do it."""
        return self.able

    async def observe(self) -> str:
        """Fingerprint of what the kernel has."""
        return await self.kernel.ask(lambda: self.kernel.cipher.label if self.kernel.cipher else "")

    async def apply(self, table: CipherTable) -> str:
        """Make it as the table says. What the kernel could pass already stays where no secrets are given."""

        def hold(held: Held) -> None:
            old: CipherTable | None = self.kernel.cipher.table if self.kernel.cipher else None
            if old is not None and not table.secrets:
                held.table = replace(old, port=table.port)
            self.kernel.cipher = held

        return await self.kernel.ask(lambda: self.kernel.change(hold, table))

    async def clear(self) -> None:
        """Remove everything of ours."""

        def forget() -> None:
            self.kernel.cipher = None

        await self.kernel.ask(forget)
