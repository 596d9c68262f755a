"""What a host needs beside rules to publish ports over IPv6: forwarding, and a way back to ::1.

What belongs here: settings and routes of the host's namespace. What does not: rules (meshrender.py), the pair
of links (pair.py). Both are undone by whom the mesh is taken away from: forwarding by `close`, the rest goes
with the links.

- *Forwarding* has one switch for all links. A host on which it is on ignores router advertisements, and loses
  what it learned from them: links that listened before, and may have something from there, go on listening.
- *::1*: the kernel takes a packet for ::1 only from the link that ::1 is on, so answers from the ingress
  namespace need it on their link too. (Its check of what comes by the wire is earlier, and stays.)
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from contextlib import suppress

from swarmpy.adapters.nftables import netlink, routes
from swarmpy.adapters.nftables.meshrender import OUTER
from swarmpy.adapters.nftables.netlink import CREATE, Message, Netlink, attribute, attributes

_FORWARDING = "ipv6/conf/all/forwarding"
_LOCAL_TABLE, _LOCAL_ROUTE, _ADVERTISED = 255, 2, 9
_LOOPBACK = ipaddress.IPv6Address("::1").packed
_METRIC = 2048
"""Worse than that of the kernel's own route, which everything else takes."""
_GET_ROUTE = 26


def reachable() -> bool:
    """Whether clients may come to this host over IPv6: it has an address that others can use."""
    return bool(_places() - {_outer()})


def on() -> bool:
    """Whether the pair of links carries IPv6."""
    return _outer() in _places()


def forwards() -> bool:
    """Whether the host forwards over IPv6."""
    return routes.switch(_FORWARDING) == "1"


def begin() -> None:
    """Make the host ready. Raises FabricError."""
    for name in _names((_places() | _advertised()) - {_outer()}):
        if [routes.switch(f"ipv6/conf/{name}/{one}") for one in ("accept_ra", "forwarding")] == ["1", "0"]:
            routes.set_switch(f"ipv6/conf/{name}/accept_ra", "2")
    routes.set_switch(f"ipv6/conf/{OUTER}/accept_ra", "0")
    routes.set_switch(_FORWARDING, "1")
    outer = _outer()
    if outer not in _loopbacks():
        body = struct.pack("=8BI", socket.AF_INET6, 128, 0, 0, _LOCAL_TABLE, 4, 0, _LOCAL_ROUTE, 0)
        body += attribute(1, _LOOPBACK) + _word(4, outer) + _word(6, _METRIC)
        with Netlink(netlink.ROUTE) as kernel:
            kernel.tell([Message(routes.NEW_ROUTE, CREATE, body)], "the route back to ::1",
                        fine=(errno.EEXIST,))  # fmt: skip


def close() -> None:
    """Forward no more over IPv6. Raises FabricError."""
    routes.set_switch(_FORWARDING, "0")


def about() -> tuple[object, ...]:
    """What is true of all that now."""
    outer = _outer()
    return (reachable(), on() and (routes.switch(_FORWARDING), outer in _loopbacks()))


def _places() -> set[int]:
    """The links with IPv6 addresses that others can use."""
    found = ((one.link, ipaddress.ip_address(one.address)) for one in routes.addresses())
    return {link for link, one in found
            if one.version == 6 and not one.is_link_local and not one.is_loopback}  # fmt: skip


def _names(links: set[int]) -> list[str]:
    found = []
    for one in links:
        with suppress(OSError):
            found.append(socket.if_indextoname(one))
    return sorted(found)


def _outer() -> int:
    with suppress(OSError):
        return socket.if_nametoindex(OUTER)
    return 0


def _advertised() -> set[int]:
    """The links by which the kernel learned default routes from advertisements."""
    found = set()
    with Netlink(netlink.ROUTE) as kernel:
        for answer in kernel.ask(_GET_ROUTE, struct.pack("=B11x", socket.AF_INET6)):
            family, length, protocol = answer.body[0], answer.body[1], answer.body[5]
            link = attributes(answer.body[12:]).get(4, b"")
            if (family, length, protocol) == (socket.AF_INET6, 0, _ADVERTISED) and len(link) == 4:
                found.add(struct.unpack("=I", link)[0])
    return found


def _loopbacks() -> set[int]:
    """The links that ::1 is on."""
    found = set()
    with Netlink(netlink.ROUTE) as kernel:
        for answer in kernel.ask(_GET_ROUTE, struct.pack("=B11x", socket.AF_INET6)):
            family, length, kind = answer.body[0], answer.body[1], answer.body[7]
            parts = attributes(answer.body[12:])
            if (family, length, kind) == (socket.AF_INET6, 128, _LOCAL_ROUTE) and parts.get(1) == _LOOPBACK:
                found.add(struct.unpack("=I", parts.get(4, bytes(4)))[0])
    return found


def _word(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))
