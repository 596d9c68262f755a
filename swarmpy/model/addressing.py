"""Addresses and subnets as texts: what they are, and which lie in which.

What belongs here: reading them, with a memory, since the same few are asked about all the time. What does
not: which are given away (plan/pools.py).
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_interface, ip_network

AnyNetwork = IPv4Network | IPv6Network


@lru_cache(maxsize=20_000)
def parse(subnet: str) -> AnyNetwork:
    """The subnet. Raises ValueError where it is none or has host bits set."""
    return ip_network(subnet)


def bare(cidr: str) -> str:
    """The address without its prefix length."""
    return cidr.partition("/")[0]


def overlaps(one: str, other: str) -> bool:
    """Whether two subnets share an address."""
    first, second = parse(one), parse(other)
    # Of different versions: nothing to compare.
    return first.version == second.version and first.overlaps(second)


@lru_cache(maxsize=20_000)
def inside(address: str, subnet: str) -> bool:
    """Whether the address (with or without prefix length) lies in the subnet."""
    one = ip_interface(address).ip
    net = parse(subnet)
    return one.version == net.version and one in net


def offset(address: str, subnet: str) -> int:
    """How far an address (without prefix length) is from the beginning of its subnet."""
    return int(ip_address(address)) - int(parse(subnet).network_address)
