"""ports.Guard with nftables: the firewall of the node's VXLAN ports.

What belongs here: the rules, and how they get into the kernel. What does not: who the members are (plan).

The table is our own, and its chains come before everyone else's: an `accept` elsewhere cannot let pass what
is dropped here, and nothing of Docker's or the administrator's is read or written. See seal.py for how
changes by others are noticed.

- *Arriving*: only members' addresses, and only by a link on which there is a way back to them: a container
  with a forged sender's address does not come by the underlay. Looked at where packets reach the machine
  itself, so that fragments are whole again and destinations are what other rules made of them.
- *Leaving*: what a process sends has an owner; what a VXLAN device sends has none, or one of another
  namespace, which does not count. So a process, privileged or not, cannot speak VXLAN to members in this
  node's name.
- *Crossing*: what comes from containers or other machines and would be sent on to members, masqueraded as
  this node perhaps.
- *Sealed*: to the port of encrypted networks comes only what IPsec decrypted, and goes only what it will
  encrypt: should anybody flush IPsec's policies, nothing leaves in the clear.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from swarmpy.adapters.netns import OWN, inside
from swarmpy.adapters.nftables import library, render, seal
from swarmpy.adapters.nftables.render import checked
from swarmpy.ports import FabricError, GuardTable

NAME = "swarmpy_guard"
TABLE = f"inet {NAME}"
SETS = ("peers4", "peers6", "members4", "members6")
_RAW = -300


class NftGuard:
    """The firewall of this node's VXLAN ports. `host` is the path of the namespace of the node's underlay,
    `run` carries out a transaction of nft commands in the thread's namespace."""

    def __init__(self, host: str = OWN, run: Callable[[str], object] = library.run) -> None:
        self._host = host
        self._run = run
        self._turn = asyncio.Lock()
        self._left: seal.Seal | None = None
        """Saves reading what nobody changed; the kernel is asked whether it still holds."""

    async def observe(self) -> str:
        """Fingerprint of what the kernel has."""
        async with self._turn:
            return await asyncio.to_thread(inside, self._host, self._observe)

    async def apply(self, table: GuardTable) -> str:
        """Make the firewall as the table says."""
        async with self._turn:
            return await asyncio.to_thread(inside, self._host, self._apply, table)

    async def clear(self) -> None:
        """Remove everything of ours."""
        async with self._turn:
            await asyncio.to_thread(inside, self._host, self._clear)

    def _observe(self) -> str:
        return seal.read(NAME, SETS, self._left).label

    def _apply(self, table: GuardTable) -> str:
        label = render.digest(table)
        if self._observe() == label:
            return label
        self._run(rules(table))
        self._left = seal.write(NAME, SETS, label, "0")
        return label

    def _clear(self) -> None:
        if seal.read(NAME, SETS).chains:
            self._run(f"delete table {TABLE}\n")
        self._left = None


def rules(table: GuardTable) -> str:
    """All rules, instead of what is there; packets meet the old ones or the new. Raises FabricError."""
    ports = sorted({_port(one) for one in (table.port, table.sealed) if one})
    ours = f"udp dport {{ {', '.join(map(str, ports))} }}"
    back = "fib saddr . iif oif exists"
    clear = f" udp dport {table.sealed} {{}} missing drop;" if table.sealed else ""
    members = sorted({*table.peers, table.local} - {""})
    return "\n".join([
        f"table {TABLE}", f"delete table {TABLE}", f"table {TABLE} {{",
        *(f" set {name} {{ type {kind}; {_elements(addresses)} }}" for name, kind, addresses in (
            ("peers4", "ipv4_addr", [one for one in table.peers if ":" not in one]),
            ("peers6", "ipv6_addr", [one for one in table.peers if ":" in one]),
            ("members4", "ipv4_addr", [one for one in members if ":" not in one]),
            ("members6", "ipv6_addr", [one for one in members if ":" in one]))),
        f" chain peers {{ ip saddr @peers4 {back} accept; ip6 saddr @peers6 {back} accept; drop; }}",
        f" chain arriving {{ type filter hook input priority {_RAW};{clear.format('meta secpath')}"
        f" {ours} goto peers; }}",
        f" chain leaving {{ type filter hook output priority {_RAW};{clear.format('rt ipsec')}"
        f" {ours} meta skuid >= 0 ip daddr @members4 drop;"
        f" {ours} meta skuid >= 0 ip6 daddr @members6 drop; }}",
        f" chain crossing {{ type filter hook forward priority {_RAW};"
        f" {ours} ip daddr @members4 goto peers; {ours} ip6 daddr @members6 goto peers; }}",
        "}", "",
    ])  # fmt: skip


def _elements(addresses: Iterable[str]) -> str:
    found = ", ".join(checked(one) for one in addresses)
    return f"elements = {{ {found} }}" if found else ""


def _port(port: int) -> int:
    if not 0 < port < 1 << 16:
        raise FabricError(f"{port} is not a port")
    return port
