"""Address arithmetic: the next free subnet of a pool, the next free address of a subnet.

Pure functions of texts and numbers. What does not belong here: who asks, and what is in use (addresses.py,
admission/network.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator
from ipaddress import ip_address

from msgspec.structs import replace

from swarmpy.model import ids
from swarmpy.model.addressing import AnyNetwork, bare, overlaps, parse
from swarmpy.model.objects import Subnet

FIRST_VNI, LAST_VNI = 4096, 2**24 - 1
MOST_OFFSETS = 1 << 16
"""Addresses of a subnet that are given away at most: an IPv6 subnet has more than anyone counts."""


_NOBODYS = (
    ("0.0.0.0/8", "addresses of this network"),
    ("127.0.0.0/8", "loopback addresses"),
    ("169.254.0.0/16", "link-local addresses"),
    ("224.0.0.0/4", "multicast addresses"),
    ("240.0.0.0/4", "reserved addresses"),
    ("::/8", "reserved addresses"),
    ("fe80::/10", "link-local addresses"),
    ("ff00::/8", "multicast addresses"),
)


def unusable(subnet: str) -> str:
    """What of the subnet no task can have as its address, "" where all is fine."""
    for text, why in _NOBODYS:
        if overlaps(subnet, text):
            return f"{why} ({text})"
    return ""


def next_subnet(pools: Iterable[str], size: int, taken: Collection[str]) -> str | None:
    """The first subnet of that prefix length that overlaps none of those taken; None without one."""
    ranges = [_span(parse(one)) for one in taken if parse(one).version == 4]
    for pool in pools:
        net = parse(pool)
        if net.version != 4 or size < net.prefixlen:
            continue
        step = 1 << (net.max_prefixlen - size)
        start, end = _span(net)
        while start <= end:
            clash = [high for low, high in ranges if low <= start + step - 1 and high >= start]
            if not clash:
                return f"{ip_address(start)}/{size}"
            # Behind the last one in the way, aligned.
            start = (max(clash) // step + 1) * step
    return None


def _span(net: AnyNetwork) -> tuple[int, int]:
    return int(net.network_address), int(net.broadcast_address)


def unique_local(network_id: str) -> str:
    """An IPv6 subnet of our own (RFC 4193) determined by the network's id."""
    number = int(ids.derive("subnet", network_id), 36) & ((1 << 56) - 1)
    return f"{ip_address((0xFD << 120) | (number << 64))}/64"


def of_cluster(cluster_id: str) -> str:
    """The IPv6 subnet of the cluster's routing mesh: the first of a unique local prefix of its own, whose
    global id is made as RFC 4193 (3.2.2) says, of the cluster's random id instead of a time and an EUI-64."""
    digest = hashlib.sha1(cluster_id.encode(), usedforsecurity=False).digest()
    number = (0xFD << 120) | (int.from_bytes(digest[-5:]) << 80)
    return f"{ip_address(number)}/64"


def next_vni(taken: Collection[int]) -> int | None:
    """The first free VXLAN id; None where all are taken."""
    number = FIRST_VNI
    while number in taken:
        number += 1
    return number if number <= LAST_VNI else None


def first_address(subnet: str) -> str:
    """The usual gateway."""
    net = parse(subnet)
    return str(net.network_address + 1)


def capacity(subnet: Subnet) -> int:
    """How many addresses can be given away."""
    first, last = _offsets(subnet)
    excluded = {bare(one) for one in (subnet.gateway, *subnet.reserved)}
    base = int(parse(subnet.subnet).network_address)
    inside = sum(first <= int(ip_address(one)) - base <= last for one in excluded if one)
    return last - first + 1 - inside


def take(subnet: Subnet, used: Collection[str]) -> tuple[str, Subnet] | None:
    """The next free address as CIDR, after the one given away last, and the subnet that remembers it; None
    where all are used. `used`: addresses without prefix length."""
    net = parse(subnet.subnet)
    excluded = {bare(one) for one in (subnet.gateway, *subnet.reserved)}
    base = int(net.network_address)
    for offset in _round(*_offsets(subnet), subnet.cursor):
        address = str(ip_address(base + offset))
        if address not in used and address not in excluded:
            return f"{address}/{net.prefixlen}", replace(subnet, cursor=offset)
    return None


def givable(subnet: Subnet, address: str) -> bool:
    """Whether an address of the subnet may be somebody's: not the network's own ones nor a reserved one."""
    low, high = _span(parse(subnet.subnet))
    excluded = {bare(one) for one in (subnet.gateway, *subnet.reserved)}
    number = int(ip_address(address))
    last = high - 1 if parse(subnet.subnet).version == 4 else high
    return low < number <= last and address not in excluded


def canonical(address: str) -> str:
    """The address in its usual spelling, "" where it is none."""
    try:
        return str(ip_address(address))
    except ValueError:
        return ""


def version(cidr: str) -> int:
    """4 or 6."""
    return 6 if ":" in cidr else 4


def _round(first: int, last: int, cursor: int) -> Iterator[int]:
    """All offsets once, beginning behind the cursor."""
    start = cursor + 1 if first <= cursor < last else first
    yield from range(start, last + 1)
    yield from range(first, start)


def _offsets(subnet: Subnet) -> tuple[int, int]:
    """First and last offset that may be given away: neither the network's nor the broadcast address."""
    net = parse(subnet.subnet)
    low, high = _span(net)
    first, last = 1, min(high - low - (1 if net.version == 4 else 0), MOST_OFFSETS)
    if subnet.ip_range:
        start, end = _span(parse(subnet.ip_range))
        first, last = max(first, start - low), min(last, end - low, max(first, start - low) + MOST_OFFSETS)
    return first, last
