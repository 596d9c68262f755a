"""How packets to a virtual address get the mark by which IPVS knows them.

What belongs here: what both ways have in common. What does not: their rules (nftmarks.py, iptmarks.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from swarmpy.adapters.nftables.seal import Seal
from swarmpy.ports import SandboxTable


@dataclass(frozen=True, slots=True)
class Held:
    """What the thread's namespace has: numbers of virtual addresses (flagged), `label` of what was written
    ("" where it is not as it was left); `seal` and `shown` are the ways' own."""

    numbers: Mapping[str, int] = field(default_factory=dict)
    label: str = ""
    seal: Seal | None = None
    shown: Mapping[str, Sequence[str]] = field(default_factory=dict)


class Marks(Protocol):
    """Rules that mark packets, in the thread's namespace. All calls raise FabricError."""

    def probe(self) -> None:
        """Raises FabricError where it cannot be done; in a namespace made for that."""

    def read(self, sandbox: str) -> Held:
        """What there is."""

    def label(self, table: SandboxTable) -> str:
        """What `read` says of a sandbox that was written with this table."""

    def write(self, sandbox: str, table: SandboxTable, numbers: Mapping[str, int], held: Held) -> None:
        """Make the rules as the table says; nothing is done where they are."""

    def clear(self, sandbox: str) -> None:
        """Remove them."""
