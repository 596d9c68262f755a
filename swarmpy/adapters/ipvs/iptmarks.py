"""Marks by iptables, for kernels with IPVS and without nftables.

What belongs here: rules, and reading them back. What does not: numbers of virtual addresses (steps.py).
The returns of the routing mesh need nftables, as the mesh itself does: a container on the ingress network is
refused with a sentence.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from swarmpy.adapters.ipvs.marks import Held
from swarmpy.adapters.ipvs.steps import EMPTY, MARK, MASK, backends_of, is_empty, marks_of, number_in, plain
from swarmpy.adapters.nftables.seal import digest
from swarmpy.ports import FabricError, SandboxTable

_CHAIN = "SWARMPY"
_JUMP = f"-A OUTPUT -j {_CHAIN}"
_RULE = re.compile(
    rf"-A {_CHAIN} -d (\S+?)/(?:32|128) (?:! -p udp|-m conntrack --ctstate NEW) "
    r"-j MARK --set-xmark 0x([0-9a-f]+)/0xffffffff"
)
_PATH = os.defpath + ":/usr/sbin:/sbin"
_FAMILIES = {
    "4": ("iptables", "icmp", "icmp-port-unreachable"),
    "6": ("ip6tables", "ipv6-icmp", "icmp6-port-unreachable"),
}
_NAMES = {
    "4": Path("/proc/thread-self/net/ip_tables_names"),
    "6": Path("/proc/thread-self/net/ip6_tables_names"),
}
_TABLES = ("mangle", "nat", "filter")


class IptMarks:
    """Rules of iptables. A namespace has none for an IP version of which it has no virtual address."""

    def probe(self) -> None:
        """Load every kind of rule."""
        for family, vip in (("4", "192.0.2.1"), ("6", "2001:db8::1")):
            _write(family, {vip: 1 | EMPTY}, [])

    def read(self, sandbox: str) -> Held:
        """What there is, of both families."""
        numbers: dict[str, int] = {}
        intact = True
        shown = {family: _ours(family) for family in _FAMILIES}
        for family, lines in shown.items():
            found = _numbers(lines)
            numbers |= found
            intact = intact and lines == _rules(family, found)
        empty = {vip: is_empty(one) for vip, one in numbers.items()}
        return Held(numbers, _label(empty) if intact else "", shown=shown)

    def label(self, table: SandboxTable) -> str:
        """Digest of the virtual addresses, and which of them nobody serves."""
        return _label({vip: not backends for vip, backends in backends_of(table).items()})

    def write(self, sandbox: str, table: SandboxTable, numbers: Mapping[str, int], held: Held) -> None:
        """One transaction for each family and table."""
        if held.label != self.label(table) or held.numbers != numbers:
            for family in _FAMILIES:
                mine = {vip: one for vip, one in numbers.items() if (":" in vip) == (family == "6")}
                _write(family, mine, held.shown.get(family, ()))
        if table.returns:
            raise FabricError(
                "containers on the ingress network need nftables, which this kernel lacks: it has IPVS only; "
                "use a kernel with nf_tables, or keep services with published ports off this node"
            )

    def clear(self, sandbox: str) -> None:
        """Remove them."""
        for family in _FAMILIES:
            _write(family, {}, _ours(family))


def _numbers(shown: Iterable[str]) -> dict[str, int]:
    numbers: dict[str, int] = {}
    for vip, mark in _RULE.findall("\n".join(shown)):
        numbers[plain(vip)] = number_in(int(mark, 16)) | numbers.get(plain(vip), 0)
    return numbers


def _write(family: str, numbers: Mapping[str, int], shown: Sequence[str]) -> None:
    """Make the rules of the family so, from what is shown."""
    if list(shown) == _rules(family, numbers):
        return
    lines = []
    for table, rules in _by_table(family, numbers):
        held = _part(shown, table)
        jumps = [line for line in held if line.startswith("-A OUTPUT ")]
        lines += [f"*{table}", f":{_CHAIN} - [0:0]"]
        if numbers:
            lines += [*rules, *(() if jumps == [_JUMP] else [f"-D {line[3:]}" for line in jumps])]
            lines += [] if jumps == [_JUMP] else [f"-I {_JUMP[3:]}"]
        else:
            lines += [*(f"-D {line[3:]}" for line in jumps), f"-X {_CHAIN}"]
        lines.append("COMMIT")
    _call(family, "restore", ["--noflush", "-w", "5"], "\n".join(lines) + "\n")


def _part(shown: Sequence[str], table: str) -> Sequence[str]:
    if f"*{table}" not in shown:
        return ()
    start = shown.index(f"*{table}") + 1
    rest = shown[start:]
    return rest[: next((index for index, line in enumerate(rest) if line.startswith("*")), len(rest))]


def _rules(family: str, numbers: Mapping[str, int]) -> list[str]:
    """All our lines, as they are shown."""
    if not numbers:
        return []
    lines = []
    for table, rules in sorted(_by_table(family, numbers)):
        lines += [f"*{table}", f":{_CHAIN} - [0:0]", _JUMP, *rules]
    return lines


def _by_table(family: str, numbers: Mapping[str, int]) -> list[tuple[str, list[str]]]:
    ours, empty = f"-m mark --mark {MARK:#x}/{MASK:#x}", f"-m mark --mark {MARK | EMPTY:#x}/{MASK | EMPTY:#x}"
    # what IPVS sends elsewhere passes here once more, and is routed anew: by its new address alone
    marking = [f"-A {_CHAIN} {ours} -j MARK --set-xmark 0x0/0xffffffff"]
    for vip, one in sorted(numbers.items(), key=lambda item: item[1] & ~EMPTY):
        connections, datagrams = marks_of(vip, one & ~EMPTY)
        to = f"-A {_CHAIN} -d {vip}/{128 if ':' in vip else 32}"
        marking += [f"{to} -p udp -j MARK --set-xmark {datagrams:#x}/0xffffffff",
                    f"{to} ! -p udp -j MARK --set-xmark {connections:#x}/0xffffffff"]  # fmt: skip
        if is_empty(one):
            new = "-m conntrack --ctstate NEW"
            marking.append(f"{to} {new} -j MARK --set-xmark {connections | EMPTY:#x}/0xffffffff")
    echo, unreachable = _FAMILIES[family][1:]
    refused = [f"-A {_CHAIN} -p tcp {empty} -j REJECT --reject-with tcp-reset",
               f"-A {_CHAIN} {empty} -j REJECT --reject-with {unreachable}"]  # fmt: skip
    answered = [f"-A {_CHAIN} -p {echo} {ours} -j REDIRECT"]
    return [("mangle", marking), ("nat", answered), ("filter", refused)]


def _label(empty: Mapping[str, bool]) -> str:
    return digest(sorted(empty.items()))


def _ours(family: str) -> list[str]:
    """Our lines of the kernel's rules, by table, counters apart. Raises FabricError."""
    shown: dict[str, list[str]] = {}
    table = ""
    if _NAMES[family].exists() and not set(_NAMES[family].read_text().split()) & set(_TABLES):
        return []  # no table was ever used here: no program needs to be started
    for line in _call(family, "save", []).splitlines():
        if line.startswith("*"):
            table = line
        elif table[1:] in _TABLES and _CHAIN in line:
            shown.setdefault(table, [table]).append(re.sub(r"\[\d+:\d+\]", "[0:0]", line))
    return [line for _, lines in sorted(shown.items()) for line in lines]


def _call(family: str, what: str, options: list[str], text: str = "") -> str:
    base = _FAMILIES[family][0]
    names = (f"{base}-legacy-{what}", f"{base}-{what}")
    program = next((found for name in names if (found := shutil.which(name, path=_PATH))), None)
    if program is None:
        raise FabricError(f"{names[0]} was not found; install iptables: apt-get install iptables")
    done = subprocess.run([program, *options], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise FabricError(f"{base} refused: {done.stderr.strip()[:300]}")
    return done.stdout
