"""Marks by nftables, with the returns of the routing mesh.

What belongs here: rule sets and their seal. What does not: numbers of virtual addresses (steps.py). The name
of a chain holds the virtual address and its number, so that the kernel's own list of chains tells all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from swarmpy.adapters.ipvs.marks import Held
from swarmpy.adapters.ipvs.steps import EMPTY, MARK, MASK, backends_of, is_empty, marks_of
from swarmpy.adapters.nftables import library, render, seal, ways
from swarmpy.ports import SandboxTable

_TABLE = render.TABLE.split()[1]
_REMEMBERED = 4096
_ECHO = f"meta l4proto {{ icmp, ipv6-icmp }} meta mark and {MASK:#x} == {MARK:#x} redirect"
_EMPTY = f"meta mark and {MASK | EMPTY:#x} == {MARK | EMPTY:#x}"


class _Chain(NamedTuple):
    """The chain of a virtual address."""

    map: str
    vip: str
    name: str

    @classmethod
    def of(cls, vip: str, number: int) -> _Chain:
        kind = "6" if ":" in vip else "4"
        return cls(f"vip{kind}", vip, f"m{kind}.{number}.{vip.replace(':', '_')}")


class NftMarks:
    """Rules of nftables."""

    def __init__(self) -> None:
        self._left: dict[str, seal.Seal] = {}

    def probe(self) -> None:
        """Load every kind of rule."""
        library.run(_text(_whole(SandboxTable(), None, {"192.0.2.1": 1, "2001:db8::1": 2 | EMPTY})))

    def read(self, sandbox: str) -> Held:
        """What there is; a rule set of the other balancer counts as none of ours."""
        found = seal.read(_TABLE, render.MAPS, self._left.get(sandbox))
        numbers = {}
        for chain in found.chains:
            if chain.startswith(("m4.", "m6.")):
                _, number, vip = chain.split(".", 2)
                numbers[vip.replace("_", ":")] = int(number)
        whole = bool(found.label) and render.MARKING in found.chains
        whole = whole and found.about == seal.digest(ways.about())
        return Held(numbers, found.label if whole else "", found)

    def label(self, table: SandboxTable) -> str:
        """Digest of the virtual addresses, which of them nobody serves, and the returns."""
        vips = sorted((vip, not backends) for vip, backends in backends_of(table).items())
        return seal.digest((vips, table.ingress_address, table.returns, table.ingress_address6))

    def write(self, sandbox: str, table: SandboxTable, numbers: Mapping[str, int], held: Held) -> None:
        """One transaction, sealed."""
        ways.check(table.returns, render.MAX_NUMBER)
        label = self.label(table)
        if held.label == label and held.numbers == numbers:
            return
        way = ways.way_of(table)
        ways.set_returns(table, way)
        if held.label and held.seal:
            lines = _change(table, way, held.numbers, numbers)
            library.run(held.seal.lifted(render.TABLE) + _text(lines))
        else:
            library.run(_text(_whole(table, way, numbers)))
        if len(self._left) >= _REMEMBERED:
            self._left.clear()
        self._left[sandbox] = seal.write(_TABLE, render.MAPS, label, seal.digest(ways.about()))

    def clear(self, sandbox: str) -> None:
        """Remove rules and routes."""
        self._left.pop(sandbox, None)
        ways.set_returns(SandboxTable(), None)
        if seal.read(_TABLE, render.MAPS).chains:
            library.run(f"delete table {render.TABLE}\n")


def _whole(table: SandboxTable, way: render.Way | None, numbers: Mapping[str, int]) -> list[str]:
    return [
        f"table {render.TABLE}",
        f"delete table {render.TABLE}",
        f"table {render.TABLE} {{",
        " map vip4 { type ipv4_addr : verdict; }",
        " map vip6 { type ipv6_addr : verdict; }",
        f" chain {render.MARKING} {{ type route hook output priority -150;"
        # what IPVS sends elsewhere passes here once more, and is routed anew: by its new address alone
        f" meta mark and {MASK:#x} == {MARK:#x} meta mark set 0;"
        " ip daddr vmap @vip4; ip6 daddr vmap @vip6; }",
        f" chain out {{ type nat hook output priority -100; {_ECHO}; }}",
        " chain refuse { type filter hook output priority 0;"
        f" {_EMPTY} meta l4proto tcp reject with tcp reset; {_EMPTY} reject; }}",
        f" chain in {{ type nat hook input priority 100; {render.KEEP_TRACKING}; }}",
        "}",
        *(render.returns(table, way) if way else ()),
        *_added(_Chain.of(vip, number) for vip, number in numbers.items()),
    ]


def _change(
    table: SandboxTable, way: render.Way | None, before: Mapping[str, int], after: Mapping[str, int]
) -> list[str]:
    lines = []
    kept = {vip for vip in after if before.get(vip) == after[vip]}
    for vip in before.keys() - kept:
        chain = _Chain.of(vip, before[vip])
        lines += [f"delete element {render.TABLE} {chain.map} {{ {vip} }}",
                  f"flush chain {render.TABLE} {chain.name}",
                  f"delete chain {render.TABLE} {chain.name}"]  # fmt: skip
    lines += _added(_Chain.of(vip, after[vip]) for vip in after.keys() - kept)
    return lines + (render.returns(table, way) if way else render.no_returns())


def _added(chains: Iterable[_Chain]) -> list[str]:
    lines = []
    for chain in chains:
        number = int(chain.name.split(".")[1])
        connections, datagrams = marks_of(chain.vip, number & ~EMPTY)
        rules = [f"meta l4proto udp meta mark set {datagrams:#x}",
                 f"meta l4proto != udp meta mark set {connections:#x}"]  # fmt: skip
        if is_empty(number):
            rules.append(f"ct state new meta mark set {connections | EMPTY:#x}")
        lines += [
            f"add chain {render.TABLE} {chain.name}",
            *(f"add rule {render.TABLE} {chain.name} {rule}" for rule in rules),
            f"add element {render.TABLE} {chain.map} {{ {render.checked(chain.vip)} : goto {chain.name} }}",
        ]
    return lines


def _text(lines: Iterable[str]) -> str:
    return "\n".join(lines) + "\n"
