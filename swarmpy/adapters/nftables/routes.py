"""Addresses, rules and routes of the thread's namespace: how replies find the node they must leave by.

What belongs here: reading and setting them by netlink. What does not: which returns there are.
Rules and tables of ours are told by their numbers, which begin at render.MARK.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from swarmpy.adapters.nftables import netlink
from swarmpy.adapters.nftables.netlink import CREATE, REPLACE, Message, Netlink, attribute, attributes
from swarmpy.adapters.nftables.render import MARK, MARKS, Way
from swarmpy.ports import FabricError, Return, SandboxTable

_NEW_ROUTE, _DELETE_ROUTE, _GET_ROUTE = 24, 25, 26
_NEW_RULE, _DELETE_RULE, _GET_RULE = 32, 33, 34
_GET_ADDRESS = 22
_MAIN = 254
_PRIORITY = 20_000
_GONE = (errno.ENOENT, errno.ESRCH)


class Address(NamedTuple):
    """An address of a link."""

    link: int
    address: str
    prefix: int


class Route(NamedTuple):
    """A route: destination as CIDR ("" for the default one), link, gateway, table, metric."""

    destination: str
    link: int
    gateway: str
    table: int
    metric: int


def addresses() -> list[Address]:
    """All IPv4 and IPv6 addresses."""
    with Netlink(netlink.ROUTE) as kernel:
        found = []
        for answer in kernel.ask(_GET_ADDRESS, bytes(8)):
            _, prefix, _, _, link = struct.unpack_from("=BBBBI", answer.body)
            parts = attributes(answer.body[8:])
            address = parts.get(2) or parts.get(1)
            if address:
                found.append(Address(link, str(ipaddress.ip_address(address)), prefix))
        return found


def link_with(address: str) -> str:
    """Name of the link that has this address, "" for none."""
    for one in addresses():
        if one.address == address:
            with suppress(OSError):
                return socket.if_indextoname(one.link)
    return ""


def routes() -> list[Route]:
    """All IPv4 unicast routes."""
    with Netlink(netlink.ROUTE) as kernel:
        found = []
        for answer in kernel.ask(_GET_ROUTE, struct.pack("=B11x", socket.AF_INET)):
            _, length, _, _, table, _, _, kind = struct.unpack_from("=8B", answer.body)
            if kind != 1:
                continue
            parts = attributes(answer.body[12:])
            target = f"{_address(parts.get(1, bytes(4)))}/{length}" if length else ""
            number = _number(parts.get(15)) or table
            found.append(Route(target, _number(parts.get(4)), _address(parts.get(5)), number,
                               _number(parts.get(6))))  # fmt: skip
        return found


def way_of(table: SandboxTable) -> Way | None:
    """The links that returns need, None where there are no returns. Raises FabricError where the link to the
    ingress network is not there (yet)."""
    if not table.returns or not table.ingress_address:
        return None
    link = link_with(table.ingress_address)
    if not link:
        raise FabricError(f"no link has the ingress address {table.ingress_address} (yet)")
    return Way(link, table.ingress_address, _outward(socket.if_nametoindex(link)))


def _outward(ingress: int) -> str:
    defaults = sorted(
        (one for one in routes() if one.table == _MAIN and not one.destination and one.link != ingress),
        key=lambda one: one.metric,
    )
    for default in defaults[:1]:
        for one in addresses():
            if one.link == default.link and ":" not in one.address:
                return one.address
    return ""


def set_returns(table: SandboxTable, way: Way | None) -> None:
    """Make rules and routes of returns as the table says. Raises FabricError."""
    rules, ways = _ours()
    wanted_rules: set[int] = set()
    wanted_ways: set[tuple[int, str, int]] = set()
    if way:
        link = socket.if_nametoindex(way.link)
        wanted_rules = {MARK + one.number for one in table.returns}
        wanted_ways = {(MARK + one.number, one.address, link) for one in table.returns}
    with Netlink(netlink.ROUTE) as kernel:
        kernel.tell(_route_messages(_NEW_ROUTE, CREATE | REPLACE, wanted_ways - ways), "routes of replies")
        kernel.tell(_rule_messages(_NEW_RULE, CREATE, wanted_rules - rules), "rules of replies",
                    fine=(errno.EEXIST,))  # fmt: skip
        kernel.tell(_rule_messages(_DELETE_RULE, 0, rules - wanted_rules), "removing rules", fine=_GONE)
        replaced = {one[0] for one in wanted_ways}
        stale = {one for one in ways - wanted_ways if one[0] not in replaced}
        kernel.tell(_route_messages(_DELETE_ROUTE, 0, stale), "removing routes", fine=_GONE)
    if way:
        for name in ("all", way.link):
            set_switch(f"ipv4/conf/{name}/rp_filter", "0")


def about() -> tuple[object, ...]:
    """What is true of the returns now: told again when it changed."""
    rules, ways = _ours()
    if not rules and not ways:
        return ()
    links = sorted({link for *_, link in ways})
    seen = []
    for link in links:
        name = ""
        with suppress(OSError):
            name = socket.if_indextoname(link)
        seen.append((name, _outward(link), switch(f"ipv4/conf/{name}/rp_filter") if name else ""))
    return (sorted(rules), sorted(ways), seen, switch("ipv4/conf/all/rp_filter"))


def _ours() -> tuple[set[int], set[tuple[int, str, int]]]:
    """Marks of our rules; (table, gateway, link) of our routes."""
    rules = set()
    with Netlink(netlink.ROUTE) as kernel:
        for answer in kernel.ask(_GET_RULE, struct.pack("=B11x", socket.AF_INET)):
            parts = attributes(answer.body[12:])
            mark = _number(parts.get(10))
            if _number(parts.get(6)) == _PRIORITY and mark & MARKS == MARK and _number(parts.get(15)) == mark:
                rules.add(mark)
    return rules, {(one.table, one.gateway, one.link) for one in routes() if one.table & MARKS == MARK}


def _rule_messages(kind: int, flags: int, marks: Iterable[int]) -> list[Message]:
    head = struct.pack("=8BI", socket.AF_INET, 0, 0, 0, 0, 0, 0, 1, 0)
    return [
        Message(kind, flags, head + _attribute(6, _PRIORITY) + _attribute(10, mark)
                + _attribute(16, 0xFFFFFFFF) + _attribute(15, mark))
        for mark in sorted(marks)
    ]  # fmt: skip


def _route_messages(kind: int, flags: int, ways: Iterable[tuple[int, str, int]]) -> list[Message]:
    return [Message(kind, flags, _route_body(table, gateway, link)) for table, gateway, link in sorted(ways)]


def _route_body(table: int, gateway: str, link: int) -> bytes:
    # protocol 4 is static, scope 0 the universe, type 1 unicast
    head = struct.pack("=8BI", socket.AF_INET, 0, 0, 0, table if table < 256 else 0, 4, 0, 1, 0)
    body = head + _attribute(15, table) + _attribute(4, link)
    return body + attribute(5, ipaddress.ip_address(gateway).packed)


def set_default(gateway: str, link: str) -> None:
    """Make this the default route. Raises FabricError."""
    with Netlink(netlink.ROUTE) as kernel:
        body = _route_body(_MAIN, gateway, socket.if_nametoindex(link))
        kernel.tell([Message(_NEW_ROUTE, CREATE | REPLACE, body)], "the default route")


def switch(path: str) -> str:
    """A setting below /proc/sys/net, "" where there is none."""
    try:
        return (Path("/proc/sys/net") / path).read_text().strip()
    except OSError:
        return ""


def set_switch(path: str, value: str) -> None:
    """Change a setting below /proc/sys/net. Raises FabricError."""
    if switch(path) == value:
        return
    try:
        (Path("/proc/sys/net") / path).write_text(value)
    except OSError as error:
        raise FabricError(f"the setting net/{path} cannot be set to {value}: {error.strerror}") from None


def _attribute(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


def _number(payload: bytes | None) -> int:
    return int(struct.unpack("=I", payload[:4])[0]) if payload and len(payload) >= 4 else 0


def _address(payload: bytes | None) -> str:
    return str(ipaddress.ip_address(payload)) if payload else ""


def check(returns: Iterable[Return], highest: int) -> None:
    """Raises FabricError for a number that is none of a zone."""
    for one in returns:
        if not 0 < one.number <= highest:
            raise FabricError(f"the number {one.number} of an ingress node is not between 1 and {highest}")
