"""What guards a node's VXLAN ports, and when: tables + what is programmed -> actions.

What belongs here: who may speak to the node, what is encrypted, and the order: who comes is let in, and
encrypted, before anything is sent to him; who goes is shut out after. What does not: links and all that lies
on them (fabric.py), rules (adapters).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from swarmpy.model.fabric import Table, sealed_port
from swarmpy.model.links import CipherTable, GuardTable, Secret


@dataclass(frozen=True, slots=True)
class Fenced:
    """What surely is in the kernel. `guard_left`, `cipher_left`: what an earlier run left may be there."""

    guard: GuardTable | None = None
    cipher: CipherTable | None = None
    guard_left: bool = False
    cipher_left: bool = False


@dataclass(frozen=True, slots=True)
class Guard:
    """Make the firewall of the VXLAN ports as the table says; None: take it away."""

    table: GuardTable | None


@dataclass(frozen=True, slots=True)
class Cipher:
    """Encrypt as the table says; None: no more."""

    table: CipherTable | None


Action = Guard | Cipher


def guard_of(tables: Mapping[str, Table], local: str) -> GuardTable | None:
    """The firewall that the tables ask for; None without networks."""
    if not tables:
        return None
    port = max(table.port for table in tables.values())
    sealed = any(table.encrypted for table in tables.values())
    peers = {peer for table in tables.values() for peer in table.peers}
    return GuardTable(local, port, sealed_port(port) if sealed else 0, tuple(sorted(peers - {local})))


def cipher_of(tables: Mapping[str, Table], local: str) -> CipherTable | None:
    """The encryption that the tables ask for; None without encrypted networks."""
    encrypted = [table for table in tables.values() if table.encrypted]
    if not encrypted:
        return None
    newest = max(encrypted, key=lambda table: table.sending)
    return CipherTable(
        local, sealed_port(newest.port),
        peers=tuple(sorted({peer for table in encrypted for peer in table.peers} - {local})),
        sending=newest.sending,
        secrets=tuple(Secret(key.number, bytes.fromhex(key.secret)) for key in newest.keys),
    )  # fmt: skip


def before(tables: Mapping[str, Table], local: str, have: Fenced) -> Iterable[Action]:
    """What has to be done before anything new is sent or awaited."""
    guard, cipher = guard_of(tables, local), cipher_of(tables, local)
    if guard is not None and not _covers(have.guard, guard):
        yield Guard(_widened(have.guard, guard))
    if cipher is not None and cipher != have.cipher:
        yield Cipher(cipher)


def after(tables: Mapping[str, Table], local: str, have: Fenced, *, complete: bool) -> Iterable[Action]:
    """What may be done only when nothing is sent any more."""
    guard, cipher = guard_of(tables, local), cipher_of(tables, local)
    if guard is None:
        if complete and (have.guard is not None or have.guard_left):
            yield Guard(None)
    elif guard != have.guard and _covers(have.guard, guard):
        yield Guard(guard)
    if cipher is None and complete and (have.cipher is not None or have.cipher_left):
        yield Cipher(None)


def _covers(have: GuardTable | None, wanted: GuardTable) -> bool:
    """Whether the firewall lets in everybody who is wanted, and guards all that is wanted."""
    return (
        have is not None
        and (have.local, have.port) == (wanted.local, wanted.port)
        and (not wanted.sealed or have.sealed == wanted.sealed)
        and set(wanted.peers) <= set(have.peers)
    )


def _widened(have: GuardTable | None, wanted: GuardTable) -> GuardTable:
    if have is None or (have.local, have.port) != (wanted.local, wanted.port):
        return wanted
    peers = tuple(sorted({*have.peers, *wanted.peers}))
    return replace(wanted, peers=peers, sealed=wanted.sealed or have.sealed)
