"""How replies of a container find the node by which they must leave: rules and routes of its namespace.

What belongs here: which ones a table asks for, comparing, setting them by netlink. What does not: how replies
are told from other packets (render.py). Rules and tables of ours are told by their numbers, which begin at
render.MARK.

A packet is sent by the route of its mark, but before it has one it needs any route at all. By IPv4 a
container always has a way out; by IPv6 most have none. So behind all other rules there is a way by some node
of the mesh (table MARK itself) for what speaks from the address in the ingress network, as answers to
connections do, and for UDP, whose answers do not speak from anywhere yet. render.py refuses what would really
leave by it.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

from swarmpy.adapters.nftables import netlink, routes
from swarmpy.adapters.nftables.netlink import CREATE, REPLACE, Message, Netlink, attribute, attributes
from swarmpy.adapters.nftables.render import MARK, MARKS, Way
from swarmpy.ports import FabricError, Return, SandboxTable

_NEW_RULE, _DELETE_RULE, _GET_RULE = 32, 33, 34
_PRIORITY, _LAST = 20_000, 32_800
"""Of our rules: before and behind the kernel's own for the main table."""
_GONE = (errno.ENOENT, errno.ESRCH)
_UDP = 17


class _Rule(NamedTuple):
    """What has the mark (0: any), comes from the source ("": any) and is of the protocol (0: any) is sent by
    the table."""

    priority: int
    mark: int
    source: str
    protocol: int
    table: int


class _Hop(NamedTuple):
    """The default route of a table."""

    table: int
    gateway: str
    link: int
    source: str


def way_of(table: SandboxTable) -> Way | None:
    """The links that returns need, None where there are no returns. Raises FabricError where the link to the
    ingress network is not there (yet). A container in which IPv6 was switched off does without."""
    if not table.returns or not table.ingress_address:
        return None
    link = routes.link_with(table.ingress_address)
    if not link:
        raise FabricError(f"no link has the ingress address {table.ingress_address} (yet)")
    index = socket.if_nametoindex(link)
    address6 = table.ingress_address6 if table.ingress_address6 in _addresses6(index) else ""
    return Way(
        link, table.ingress_address, _outward(index, socket.AF_INET),
        address6, _outward(index, socket.AF_INET6) if address6 else "",
        next((one.address6 for one in table.returns if one.address6), "") if address6 else "",
    )  # fmt: skip


def _addresses6(index: int) -> list[str]:
    return sorted(
        one.address
        for one in routes.addresses()
        if one.link == index and ":" in one.address and not ipaddress.ip_address(one.address).is_link_local
    )


def _outward(ingress: int, family: int) -> str:
    """The address of the link by which the default route leaves."""
    defaults = sorted(
        (one for one in routes.routes(family)
         if one.table == routes.MAIN and not one.destination and one.link != ingress),
        key=lambda one: one.metric,
    )  # fmt: skip
    for default in defaults[:1]:
        if family == socket.AF_INET6:
            return next(iter(_addresses6(default.link)), "")
        for one in routes.addresses():
            if one.link == default.link and ":" not in one.address:
                return one.address
    return ""


def set_returns(table: SandboxTable, way: Way | None) -> None:
    """Make rules and routes of returns as the table says. Raises FabricError."""
    for family in routes.families():
        rules, hops = _ours(family)
        wanted_rules, wanted_hops = _wanted(table, way, family)
        with Netlink(netlink.ROUTE) as kernel:
            kernel.tell(
                _hop_messages(routes.NEW_ROUTE, CREATE | REPLACE, wanted_hops - hops), "routes of replies"
            )
            kernel.tell(_rule_messages(_NEW_RULE, CREATE, family, wanted_rules - rules), "rules of replies",
                        fine=(errno.EEXIST,))  # fmt: skip
            kernel.tell(_rule_messages(_DELETE_RULE, 0, family, rules - wanted_rules), "removing rules",
                        fine=_GONE)  # fmt: skip
            replaced = {one.table for one in wanted_hops}
            stale = {one for one in hops - wanted_hops if one.table not in replaced}
            kernel.tell(_hop_messages(routes.DELETE_ROUTE, 0, stale), "removing routes", fine=_GONE)
    if way:
        for name in ("all", way.link):
            routes.set_switch(f"ipv4/conf/{name}/rp_filter", "0")


def _wanted(table: SandboxTable, way: Way | None, family: int) -> tuple[set[_Rule], set[_Hop]]:
    if way is None or (family == socket.AF_INET6 and not way.address6):
        return set(), set()
    link = socket.if_nametoindex(way.link)
    gateways = {MARK + one.number: one.address if family == socket.AF_INET else one.address6
                for one in table.returns}  # fmt: skip
    hops = {_Hop(number, gateway, link, "") for number, gateway in gateways.items() if gateway}
    rules = {_Rule(_PRIORITY, one.table, "", 0, one.table) for one in hops}
    if family == socket.AF_INET6 and way.any6:
        hops.add(_Hop(MARK, way.any6, link, way.address6))
        rules |= {_Rule(_LAST, 0, way.address6, 0, MARK), _Rule(_LAST, 0, "", _UDP, MARK)}
    return rules, hops


def about() -> tuple[object, ...]:
    """What is true of the returns now: told again when it changed."""
    ours = [_ours(family) for family in routes.families()]
    if not any(rules or hops for rules, hops in ours):
        return ()
    links = sorted({hop.link for _, hops in ours for hop in hops})
    seen = []
    for link in links:
        name = ""
        with suppress(OSError):
            name = socket.if_indextoname(link)
        seen.append((name, _outward(link, socket.AF_INET), _addresses6(link), _outward(link, socket.AF_INET6),
                     routes.switch(f"ipv4/conf/{name}/rp_filter") if name else ""))  # fmt: skip
    return ([(sorted(rules), sorted(hops)) for rules, hops in ours], seen,
            routes.switch("ipv4/conf/all/rp_filter"))  # fmt: skip


def _ours(family: int) -> tuple[set[_Rule], set[_Hop]]:
    rules = set()
    with Netlink(netlink.ROUTE) as kernel:
        for answer in kernel.ask(_GET_RULE, struct.pack("=B11x", family)):
            parts = attributes(answer.body[12:])
            rule = _Rule(_number(parts.get(6)), _number(parts.get(10)), _text(parts.get(2)),
                         (parts.get(22) or b"\0")[0], _number(parts.get(15)))  # fmt: skip
            if (
                answer.body[0] == family
                and rule.priority in (_PRIORITY, _LAST)
                and rule.table & MARKS == MARK
            ):
                rules.add(rule)
    hops = {_Hop(one.table, one.gateway, one.link, one.source)
            for one in routes.routes(family) if one.table & MARKS == MARK}  # fmt: skip
    return rules, hops


def _rule_messages(kind: int, flags: int, family: int, rules: Iterable[_Rule]) -> list[Message]:
    found = []
    for one in sorted(rules):
        source = ipaddress.ip_address(one.source).packed if one.source else b""
        body = struct.pack("=8BI", family, 0, 8 * len(source), 0, 0, 0, 0, 1, 0) + _word(6, one.priority)
        body += attribute(2, source) if source else b""
        body += _word(10, one.mark) + _word(16, 0xFFFFFFFF) if one.mark else b""
        body += attribute(22, bytes([one.protocol])) if one.protocol else b""
        found.append(Message(kind, flags, body + _word(15, one.table)))
    return found


def _hop_messages(kind: int, flags: int, hops: Iterable[_Hop]) -> list[Message]:
    return [Message(kind, flags, routes.route_body(*one)) for one in sorted(hops)]


def _word(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


def _number(payload: bytes | None) -> int:
    return int(struct.unpack("=I", payload[:4])[0]) if payload and len(payload) >= 4 else 0


def _text(payload: bytes | None) -> str:
    return str(ipaddress.ip_address(payload)) if payload else ""


def check(returns: Iterable[Return], highest: int) -> None:
    """Raises FabricError for a number that is none of a zone."""
    for one in returns:
        if not 0 < one.number <= highest:
            raise FabricError(f"the number {one.number} of an ingress node is not between 1 and {highest}")
