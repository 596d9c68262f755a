"""ports.Balancer with nftables. See render.py for the rules, seal.py for how changes by others are noticed.

What belongs here: which part of a table is written, in which order. What does not: the text.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from weakref import WeakValueDictionary

from swarmpy.adapters.netns import apart, inside
from swarmpy.adapters.nftables import conntrack, library, meshrender, render, seal, ways
from swarmpy.ports import FabricError, MeshPort, MeshTable, Return, SandboxTable, VirtualService

_TABLE = render.TABLE.split()[1]
_REMEMBERED = 4096
_SAMPLE = SandboxTable(
    services=(
        VirtualService("192.0.2.1", ("192.0.2.2", "192.0.2.3")),
        VirtualService("192.0.2.4", ()),
        VirtualService("2001:db8::1", ("2001:db8::2", "2001:db8::3")),
    ),
    ingress_address="192.0.2.5",
    returns=(Return(1, "02:00:00:00:00:01", "192.0.2.6", "2001:db8::6"),),
    ingress_address6="2001:db8::5",
)

_MESH = MeshTable(
    network_id="",
    addresses=("192.0.2.8", "2001:db8::8"),
    ports=tuple(
        MeshPort(protocol, 80, 80, ("192.0.2.5", "2001:db8::5"), snat=True)
        for protocol in meshrender.PROTOCOLS
    ),
    hosts=(("tcp", 80, ""), ("udp", 80, "192.0.2.11"), ("udp", 80, "2001:db8::b")),
)
logger = logging.getLogger(__name__)


class NftBalancer:
    """Virtual addresses by nftables, in the namespaces of those who use them. `run` carries out a transaction
    of nft commands in the thread's namespace."""

    name = "nftables"

    def __init__(self, run: Callable[[str], object] = library.run) -> None:
        self._run = run
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._left: dict[str, seal.Seal] = {}
        """Saves reading what nobody changed; the kernel is asked whether it still holds."""

    async def probe(self) -> bool:
        """Whether the kernel can do it: every kind of rule is loaded, those of the routing mesh too, in a
        namespace made for that. What is missing is said in the log."""
        try:
            await asyncio.to_thread(apart, self._try)
        except FabricError as error:
            logger.warning("connections to services cannot be balanced with nftables here: %s", error)
            return False
        return True

    def _try(self) -> None:
        pair = meshrender.Pair("192.0.2.9", "192.0.2.10", "2001:db8::9", "2001:db8::a")
        way = render.Way("ingress", _SAMPLE.ingress_address, "192.0.2.7", _SAMPLE.ingress_address6,
                         "2001:db8::7", "2001:db8::6")  # fmt: skip
        self._run(render.whole(_SAMPLE, way, ""))
        self._run(meshrender.whole(_MESH, pair, "br0"))
        self._run(meshrender.host_whole(_MESH.hosts, pair, shut=True))

    async def observe(self, sandbox: str) -> str:
        """Fingerprint of what the kernel has."""
        async with self._turns.setdefault(sandbox, asyncio.Lock()):
            return await asyncio.to_thread(inside, sandbox, self._seen, sandbox)

    async def apply(self, sandbox: str, table: SandboxTable, before: SandboxTable | None) -> str:
        """Make the sandbox as the table says."""
        async with self._turns.setdefault(sandbox, asyncio.Lock()):
            return await asyncio.to_thread(inside, sandbox, self._apply, sandbox, table, before)

    async def clear(self, sandbox: str) -> None:
        """Remove everything of ours from the sandbox."""
        async with self._turns.setdefault(sandbox, asyncio.Lock()):
            if await asyncio.to_thread(os.path.exists, sandbox):
                await asyncio.to_thread(inside, sandbox, self._clear)
            self._left.pop(sandbox, None)

    def _apply(self, sandbox: str, table: SandboxTable, before: SandboxTable | None) -> str:
        ways.check(table.returns, render.MAX_NUMBER)
        label, found = render.digest(table), self._read(sandbox)
        if found.label == label and found.about == seal.digest(ways.about()):
            return label
        known, back = _known(found, before), _back(found, table, before)
        way = ways.way_of(table)
        ways.set_returns(table, way)
        if known is None:
            self._run(render.whole(table, way, sandbox))
        else:
            text = render.change(table, way, sandbox, known, back=back)
            self._run(found.lifted(render.TABLE) + text)
        _cut(table, known)
        about = seal.digest(ways.about())
        if len(self._left) >= _REMEMBERED:
            self._left.clear()  # of sandboxes that ended without being cleared, mostly
        self._left[sandbox] = seal.write(_TABLE, render.MAPS, label, about)
        return label

    def _read(self, sandbox: str) -> seal.Seal:
        return seal.read(_TABLE, render.MAPS, self._left.get(sandbox))

    def _seen(self, sandbox: str) -> str:
        found = self._read(sandbox)
        if found.label and found.about == seal.digest(ways.about()):
            return found.label
        return ""

    def _clear(self) -> None:
        ways.set_returns(SandboxTable(), None)
        if seal.read(_TABLE, render.MAPS).chains:
            self._run(f"delete table {render.TABLE}\n")


def _known(found: seal.Seal, before: SandboxTable | None) -> Mapping[str, tuple[str, ...] | None] | None:
    """Backends by virtual address as the kernel has them. None where its rule set was changed by others."""
    if not found.label or render.MARKING in found.chains:
        return None
    if before is not None and render.digest(before) == found.label:
        return {one.vip: one.backends for one in before.services}
    return {vip: None for vip in map(render.vip_of, found.chains) if vip}


def _back(found: seal.Seal, table: SandboxTable, before: SandboxTable | None) -> bool:
    """Whether the rules of returns are to be written anew (or away)."""
    if not table.returns and "back_zone" not in found.chains:
        return False
    if before is None or render.digest(before) != found.label:
        return True
    if replace(before, services=()) != replace(table, services=()):
        return True
    return found.about != seal.digest(ways.about())


def _cut(table: SandboxTable, known: Mapping[str, tuple[str, ...] | None] | None) -> None:
    """End flows that are not where the table says, of services that are new or have lost backends."""
    wanted: dict[str, tuple[str, ...]] = {one.vip: one.backends for one in table.services}
    changed = {vip: backends for vip, backends in wanted.items()
               if not set((known or {}).get(vip) or ("",)) <= set(backends)}  # fmt: skip
    changed.update({vip: () for vip in known or () if vip not in wanted})
    if changed:
        plain = {_plain(vip): {_plain(one) for one in backends} for vip, backends in changed.items()}
        conntrack.cut(lambda flow: flow.target in plain and flow.backend not in plain[flow.target])


def _plain(address: str) -> str:
    """An address as flows have it: IPv6 has many ways to write one."""
    return str(ipaddress.ip_address(address))
