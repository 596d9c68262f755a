"""Addresses, routes and settings of the thread's namespace.

What belongs here: reading and setting them. What does not: which ones are wanted (ways.py, pair.py, mesh.py).
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from swarmpy.adapters.nftables import netlink
from swarmpy.adapters.nftables.netlink import CREATE, REPLACE, Message, Netlink, attribute, attributes
from swarmpy.ports import FabricError

NEW_ROUTE, DELETE_ROUTE, _GET_ROUTE = 24, 25, 26
_GET_ADDRESS = 22
_CLONED = 0x200
_LOCAL = 2
"""The kind of routes to this host itself."""
MAIN = 254


class Address(NamedTuple):
    """An address of a link."""

    link: int
    address: str
    prefix: int


class Route(NamedTuple):
    """A route: destination as CIDR ("" for the default one), link, gateway, table, metric, own address."""

    destination: str
    link: int
    gateway: str
    table: int
    metric: int
    source: str


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


def families() -> tuple[int, ...]:
    """IPv4, and IPv6 where the kernel has it."""
    return (socket.AF_INET, socket.AF_INET6) if Path("/proc/sys/net/ipv6").exists() else (socket.AF_INET,)


def routes(family: int = socket.AF_INET) -> list[Route]:
    """All unicast routes of an IP version."""
    with Netlink(netlink.ROUTE) as kernel:
        found = []
        for answer in kernel.ask(_GET_ROUTE, struct.pack("=B11x", family)):
            of, length, _, _, table, _, _, kind, flags = struct.unpack_from("=8BI", answer.body)
            if kind != 1 or of != family or flags & _CLONED:
                continue
            parts = attributes(answer.body[12:])
            target = parts.get(1, bytes(4 if family == socket.AF_INET else 16))
            number = _number(parts.get(15)) or table
            found.append(Route(f"{_address(target)}/{length}" if length else "", _number(parts.get(4)),
                               _address(parts.get(5)), number, _number(parts.get(6)),
                               _address(parts.get(7))))  # fmt: skip
        return found


def keeps_all(table: int, family: int) -> bool:
    """Whether a table sends whatever is not known to this host itself."""
    with Netlink(netlink.ROUTE) as kernel:
        for answer in kernel.ask(_GET_ROUTE, struct.pack("=B11x", family)):
            of, length, _, _, short, _, _, kind, _ = struct.unpack_from("=8BI", answer.body)
            number = _number(attributes(answer.body[12:]).get(15)) or short
            if (of, length, kind, number) == (family, 0, _LOCAL, table):
                return True
    return False


def route_body(table: int, gateway: str, link: int, source: str = "") -> bytes:
    """A default route, as the body of a message. `source` is the address to speak from, "" for any."""
    hop = ipaddress.ip_address(gateway)
    family = socket.AF_INET if hop.version == 4 else socket.AF_INET6
    # protocol 4 is static, scope 0 the universe, type 1 unicast
    head = struct.pack("=8BI", family, 0, 0, 0, table if table < 256 else 0, 4, 0, 1, 0)
    body = head + _attribute(15, table) + _attribute(4, link) + attribute(5, hop.packed)
    return body + (attribute(7, ipaddress.ip_address(source).packed) if source else b"")


def set_default(gateway: str, link: str) -> None:
    """Make this the default route. Raises FabricError."""
    with Netlink(netlink.ROUTE) as kernel:
        body = route_body(MAIN, gateway, socket.if_nametoindex(link))
        kernel.tell([Message(NEW_ROUTE, CREATE | REPLACE, body)], "the default route")


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
