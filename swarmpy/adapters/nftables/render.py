"""The rule set of a container's namespace, as text of nft commands. Pure.

What belongs here: what is written for which table. What does not: running it (library.py), the routing mesh's
rule sets (meshrender.py).

A service's chain keeps its name as long as the service exists: its rules are changed inside, so that whoever
connects meets either the old ones or the new. Its name is made of the virtual address, so that what is in the
kernel tells what there is to remove.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from swarmpy.model import codec
from swarmpy.ports import FabricError, SandboxTable, VirtualService

TABLE = "inet swarmpy"
MAPS = ("vip4", "vip6")
MARKING = "marking"
"""The chain that tells a rule set for IPVS from one of ours: another table's rules in the same place."""
MARK = 0x53000000
"""Marks and routing tables of ours are this plus the number of a node."""
MARKS = 0xFF000000
MAX_NUMBER = 0xFFFF
"""A connection tracking zone has 16 bits."""
ADDRESS = re.compile(r"[0-9.]+|[0-9a-f:]+(?:[0-9.]+)?")
MAC = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}")
LINK = re.compile(r"[A-Za-z0-9_.@-]{1,15}")
KEEP_TRACKING = "ct state invalid accept"
_BACK = {
    "back_zone": "type filter hook prerouting priority -300;",
    "back_mark": "type filter hook prerouting priority -150;",
    "back_udp": "type nat hook prerouting priority -100;",
    "back_route": "type route hook output priority -150;",
    "back_only": "type filter hook output priority 0;",
}


@dataclass(frozen=True, slots=True)
class Way:
    """Links of a sandbox on the ingress network: the one to it, and the address of the one by which its
    default route leaves ("" for none). The same by IPv6; `any6` is a node by which all is sent that has no
    other way (see ways.py)."""

    link: str
    address: str
    outward: str = ""
    address6: str = ""
    outward6: str = ""
    any6: str = ""


def digest(table: object) -> str:
    """A short fingerprint of a table: what the kernel's copy is labelled with."""
    return hashlib.blake2b(codec.encode(table), digest_size=8).hexdigest()


def checked(value: str, shape: re.Pattern[str] = ADDRESS) -> str:
    """The text, if it is what it should be: nothing else gets into a rule set. Raises FabricError."""
    if not shape.fullmatch(value):
        raise FabricError(f"{value!r} cannot stand in a rule set: an address, a MAC or a link's name must")
    return value


def chain_of(vip: str) -> str:
    """Name of a service's chain."""
    return ("v6." if ":" in vip else "v4.") + vip.replace(":", "_")


def vip_of(chain: str) -> str:
    """The virtual address whose chain it is, "" for another chain."""
    return chain[3:].replace("_", ":") if chain[:3] in ("v4.", "v6.") else ""


def turned(backends: Sequence[str], place: str) -> tuple[str, ...]:
    """The backends, begun at another one in each place: else the first one would get the first connection of
    every client in the cluster."""
    if not backends:
        return ()
    start = int.from_bytes(hashlib.blake2b(place.encode(), digest_size=4).digest()) % len(backends)
    return tuple(backends[start:]) + tuple(backends[:start])


def whole(table: SandboxTable, way: Way | None, place: str) -> str:
    """Everything, instead of what is there."""
    lines = [f"table {TABLE}", f"delete table {TABLE}", *frame()]
    if way:
        lines += returns(table, way)
    for service in table.services:
        lines += _service(service, place)
    lines += _elements("add", (service.vip for service in table.services))
    return "\n".join(lines) + "\n"


def frame() -> list[str]:
    """What every sandbox has. The kernel tracks connections only as long as a rule asks for it: without
    KEEP_TRACKING, open connections would break when the last service goes."""
    return [
        f"table {TABLE} {{",
        " map vip4 { type ipv4_addr : verdict; }",
        " map vip6 { type ipv6_addr : verdict; }",
        " chain out { type nat hook output priority -100; ip daddr vmap @vip4; ip6 daddr vmap @vip6; }",
        f" chain in {{ type nat hook input priority 100; {KEEP_TRACKING}; }}",
        "}",
    ]


def change(
    table: SandboxTable,
    way: Way | None,
    place: str,
    known: Mapping[str, tuple[str, ...] | None],
    *,
    back: bool,
) -> str:
    """From what is known to be there (backends by virtual address; None: unknown) to the table. `back`: the
    returns are to be written anew too."""
    wanted = {service.vip: service for service in table.services}
    gone = [vip for vip in known if vip not in wanted]
    lines = _elements("delete", gone)
    for vip in gone:
        lines += [f"flush chain {TABLE} {chain_of(vip)}", f"delete chain {TABLE} {chain_of(vip)}"]
    for vip, service in wanted.items():
        if vip not in known or known[vip] != service.backends:
            lines += _service(service, place, anew=vip in known)
    lines += _elements("add", (vip for vip in wanted if vip not in known))
    if back:
        lines += returns(table, way) if way else no_returns()
    return "\n".join(lines) + "\n"


def _service(service: VirtualService, place: str, *, anew: bool = False) -> list[str]:
    chain = chain_of(checked(service.vip))
    backends = turned([checked(one) for one in service.backends], f"{place} {service.vip}")
    first = f"flush chain {TABLE} {chain}" if anew else f"add chain {TABLE} {chain}"
    family = "ip6" if ":" in service.vip else "ip"
    return [first, *(f"add rule {TABLE} {chain} {rule}" for rule in _balance(family, backends))]


def _balance(family: str, backends: Sequence[str]) -> list[str]:
    if not backends:
        return ["meta l4proto tcp reject with tcp reset", "reject"]
    return in_turn(family, backends)


def in_turn(family: str, backends: Sequence[str]) -> list[str]:
    """Rules that send new connections to one target after the other. The last rule is for a connection that
    meets the map in the instant in which it is replaced, when its entries may be void already."""
    rules = [f"dnat {family} to {backends[0]}"]
    if len(backends) > 1:
        slots = ", ".join(f"{slot} : {backend}" for slot, backend in enumerate(backends))
        rules.insert(0, f"dnat {family} to numgen inc mod {len(backends)} map {{ {slots} }}")
    return rules


def _elements(verb: str, vips: Iterable[str]) -> list[str]:
    found: dict[str, list[str]] = {"vip4": [], "vip6": []}
    for vip in vips:
        found["vip6" if ":" in vip else "vip4"].append(f"{vip} : goto {chain_of(vip)}")
    return [f"{verb} element {TABLE} {name} {{ {', '.join(entries)} }}"
            for name, entries in found.items() if entries]  # fmt: skip


def returns(table: SandboxTable, way: Way) -> list[str]:
    """Replies leave by the node by which the connection came in. It is known by the source MAC of its bridge.

    Two clients' connections through two nodes may have equal addresses and ports: zones keep them apart, and
    with the `in` chain the kernel gives one of them another source port. A UDP server answers from the
    address of the default route's link, which tracking would not know: requests are sent to that address.
    The way by some node is there to have one, for replies: who would begin something by it is refused.
    """
    link = f'iifname "{checked(way.link, LINK)}"'
    zones = ", ".join(f"{checked(one.mac, MAC)} : {one.number}" for one in table.returns)
    marks = ", ".join(f"{one.mac} : {MARK + one.number:#x}" for one in table.returns)
    rules = [
        ("back_zone", f"{link} ct original zone set ether saddr map {{ {zones} }}"),
        ("back_mark", f"{link} ct state new ct mark set ether saddr map {{ {marks} }}"),
        ("back_route", f"ct mark and {MARKS:#x} == {MARK:#x} meta mark set ct mark"),
    ]
    if way.outward:
        rules.append(("back_udp", f"{link} ip daddr {way.address} meta l4proto udp dnat ip to {way.outward}"))
    if way.outward6:
        to = f"ip6 daddr {checked(way.address6)} meta l4proto udp dnat ip6 to {way.outward6}"
        rules.append(("back_udp", f"{link} {to}"))
    if way.any6:
        begun = (
            f'oifname "{way.link}" ct state new ip6 daddr != {checked(way.any6)} rt ip6 nexthop {way.any6}'
        )
        rules.append(("back_only", f"{begun} reject with icmpv6 no-route"))
    return [
        *(f"add chain {TABLE} {chain} {{ {hook} }}" for chain, hook in _BACK.items()),
        *(f"flush chain {TABLE} {chain}" for chain in _BACK),
        *(f"add rule {TABLE} {chain} {rule}" for chain, rule in rules),
    ]


def no_returns() -> list[str]:
    """The rules of returns go."""
    lines = []
    for chain, hook in _BACK.items():
        lines += [f"add chain {TABLE} {chain} {{ {hook} }}", f"flush chain {TABLE} {chain}",
                  f"delete chain {TABLE} {chain}"]  # fmt: skip
    return lines
