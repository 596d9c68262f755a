"""The pair of links between the host and the ingress namespace.

What belongs here: making, finding and removing it, and what Docker's own rules must let pass. What does not:
our rules (meshrender.py). The host's end carries the network's id as its alias: by that it is found again.
"""

from __future__ import annotations

import errno
import hashlib
import ipaddress
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from swarmpy.adapters.netns import inside
from swarmpy.adapters.nftables import netlink, routes
from swarmpy.adapters.nftables import six as host6
from swarmpy.adapters.nftables.meshrender import INNER, OUTER, Pair
from swarmpy.adapters.nftables.netlink import (
    CREATE,
    EXCL,
    Message,
    Netlink,
    attribute,
    attributes,
    nested,
    text,
)
from swarmpy.ports import FabricError

_NEW_LINK, _DELETE_LINK, _GET_LINK = 16, 17, 18
_NEW_ADDRESS = 20
_UP, _NODAD = 1, 2
_ALIAS = "swarmpy mesh "
_PLACES = ("172.30.0.0/30", "172.31.255.252/30", "10.255.255.252/30", "192.168.255.252/30",
           "100.127.255.252/30", "198.19.255.252/30")  # fmt: skip
_CHAIN = "DOCKER-USER"


class Link(NamedTuple):
    """A link of the thread's namespace."""

    number: int
    up: bool
    alias: str
    mac: str


def link(name: str) -> Link | None:
    """The link of this name, None where there is none."""
    with Netlink(netlink.ROUTE) as kernel:
        for answer in kernel.ask(_GET_LINK, bytes(16)):
            parts = attributes(answer.body[16:])
            if netlink.name(parts.get(3, b"")) == name:
                index, flags = struct.unpack_from("=4xiI", answer.body)
                alias, mac = netlink.name(parts.get(20, b"")), parts.get(1, b"").hex()
                return Link(index, bool(flags & _UP), alias, mac)
    return None


def found() -> str:
    """The network to which the host's end leads, "" for no pair of ours. In the host's namespace."""
    outer = link(OUTER)
    return outer.alias.removeprefix(_ALIAS) if outer and outer.alias.startswith(_ALIAS) else ""


def ensure(network_id: str, space: str, six: bool) -> Pair:
    """Make the pair, or mend it; with IPv6 where `six`. In the host's namespace; `space` is the ingress
    namespace. Raises FabricError."""
    made = _ensure(network_id, space)
    if not six:
        return made
    outer6, inner6 = _hosts6(network_id)
    inside(space, _bring_up, INNER, inner6, "")
    _bring_up(OUTER, outer6, _ALIAS + network_id)
    return replace(made, outer6=outer6, inner6=inner6)


def _hosts6(network_id: str) -> tuple[str, str]:
    """Two addresses of a unique local prefix of the pair's own (RFC 4193), the same on all nodes."""
    digest = hashlib.sha1(f"pair {network_id}".encode(), usedforsecurity=False).digest()
    base = (0xFD << 120) | (int.from_bytes(digest[-5:]) << 80)
    return str(ipaddress.IPv6Address(base + 1)), str(ipaddress.IPv6Address(base + 2))


def speak(name: str) -> None:
    """Give a link its link-local address (RFC 4291, of its MAC): who forwards over IPv6 asks by that one for
    his neighbours, and links of networks have none of themselves. Raises FabricError."""
    found = link(name)
    if found is None:
        return
    mac = bytes.fromhex(found.mac)
    raw = b"\xfe\x80" + bytes(6) + bytes([mac[0] ^ 2]) + mac[1:3] + b"\xff\xfe" + mac[3:]
    address = str(ipaddress.IPv6Address(raw))
    if not any(one.link == found.number and one.address == address for one in routes.addresses()):
        _bring_up(name, address, "")


def _ensure(network_id: str, space: str) -> Pair:
    there = link(OUTER)
    if there and not there.alias.startswith(_ALIAS):
        raise FabricError(f"a link named {OUTER} is there already, and is not ours; rename or remove it")
    pair = _addressed(there.number) if there and found() == network_id else None
    if pair and inside(space, _has, pair.inner):
        inside(space, _bring_up, INNER, pair.inner, "")
        _bring_up(OUTER, pair.outer, _ALIAS + network_id)
        return pair
    remove()
    place = _place(inside(space, _nets))
    outer, inner = (str(host) for host in place.hosts())
    handle = os.open(space, os.O_RDONLY | os.O_CLOEXEC)
    try:
        peer = (
            struct.pack("=BxHiII", 0, 0, 0, 0, 0) + text(3, INNER) + attribute(28, struct.pack("=I", handle))
        )
        info = nested(18, text(1, "veth"), nested(2, nested(1, peer)))
        body = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + text(3, OUTER) + info
        with Netlink(netlink.ROUTE) as kernel:
            kernel.tell([Message(_NEW_LINK, CREATE | EXCL, body)], "the links to the ingress network")
    finally:
        os.close(handle)
    inside(space, _bring_up, INNER, inner, "")
    _bring_up(OUTER, outer, _ALIAS + network_id)
    return Pair(outer, inner)


def _addressed(index: int) -> Pair | None:
    for one in routes.addresses():
        if one.link == index and one.prefix == 30:
            place = ipaddress.IPv4Network((one.address, 30), strict=False)
            outer, inner = (str(host) for host in place.hosts())
            return Pair(outer, inner) if one.address == outer else None
    return None


def _has(address: str) -> bool:
    return routes.link_with(address) == INNER


def _nets() -> list[ipaddress.IPv4Network]:
    """What addresses and routes of the namespace cover already."""
    covered = [ipaddress.IPv4Network((one.address, one.prefix), strict=False)
               for one in routes.addresses() if ":" not in one.address]  # fmt: skip
    return covered + [ipaddress.IPv4Network(one.destination, strict=False)
                      for one in routes.routes() if one.destination]  # fmt: skip


def _place(inner: Iterable[ipaddress.IPv4Network]) -> ipaddress.IPv4Network:
    taken = [*inner, *_nets()]
    for text_of in _PLACES:
        place = ipaddress.IPv4Network(text_of)
        if not any(place.overlaps(other) for other in taken):
            return place
    raise FabricError(
        "this machine uses all of the small networks that could lead to the ingress network: "
        f"{', '.join(_PLACES)}; free one of them"
    )


def _bring_up(link: str, address: str, alias: str) -> None:
    index = socket.if_nametoindex(link)
    family, length, flags = (socket.AF_INET6, 64, _NODAD) if ":" in address else (socket.AF_INET, 30, 0)
    if flags:
        routes.set_switch(f"ipv6/conf/{link}/disable_ipv6", "0")
    place = struct.pack("=BBBBI", family, length, flags, 0, index)
    packed = ipaddress.ip_address(address).packed
    up = struct.pack("=BxHiII", 0, 0, index, _UP, _UP) + (attribute(20, alias.encode()) if alias else b"")
    with Netlink(netlink.ROUTE) as kernel:
        kernel.tell(
            [Message(_NEW_ADDRESS, CREATE, place + attribute(2, packed) + attribute(1, packed)),
             Message(_NEW_LINK, 0, up)],
            f"the address {address} of {link}", fine=(errno.EEXIST,),
        )  # fmt: skip


def remove() -> None:
    """Remove the pair, if it is ours. In the host's namespace."""
    outer = link(OUTER)
    if outer is None or not outer.alias.startswith(_ALIAS):
        return
    body = struct.pack("=BxHiII", 0, 0, outer.number, 0, 0)
    with Netlink(netlink.ROUTE) as kernel:
        kernel.tell([Message(_DELETE_LINK, 0, body)], "removing links", fine=(errno.ENODEV,))


# ---------------------------------------------------------------- Docker's filter


def docker_lacks() -> list[list[str]]:
    """Rules of ours that Docker's chains for users lack, as commands that add them; [] where there is no such
    chain. Docker drops what is forwarded between links that are not its own, and no rule set of others can
    undo a drop; these chains are its place for exceptions."""
    lacking: list[list[str]] = []
    for program in _programs():
        shown = subprocess.run([program, "-w", "-S", _CHAIN], capture_output=True, text=True, check=False)
        if not shown.returncode:
            there = set(shown.stdout.splitlines())
            lacking += [[program, "-w", "-I", *rule.split()[1:]] for rule in _accepts() if rule not in there]
    return lacking


def docker_accept() -> None:
    """Add what Docker's chains lack. Raises FabricError."""
    for command in docker_lacks():
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise FabricError(f"iptables refused the rule for the routing mesh: {done.stderr.strip()}")


def docker_forget() -> None:
    """Take our rules out of Docker's chains; missing is fine."""
    for program in _programs():
        for rule in _accepts():
            subprocess.run([program, "-w", "-D", *rule.split()[1:]], capture_output=True, check=False)


def _programs() -> list[str]:
    """The one for IPv6 only where the mesh has that: it takes a while to ask."""
    names = ("iptables", "ip6tables") if host6.on() else ("iptables",)
    found = (shutil.which(name, path=os.defpath + ":/usr/sbin:/sbin") for name in names)
    return [one for one in found if one is not None]


def _accepts() -> list[str]:
    return [f"-A {_CHAIN} -{side} {OUTER} -j ACCEPT" for side in ("i", "o")]
