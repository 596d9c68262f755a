"""The machine's addresses, by netlink. What does not belong here: choosing among them (node/addresses)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from pyroute2 import IPRoute

ENGINE_PREFIXES = ("docker", "br-", "veth", "lo")
"""Interfaces of the Engine and loopback: no other machine reaches this one through them."""
SCOPE_GLOBAL = 0


def usable_interfaces() -> list[tuple[str, str]]:
    """(interface, address) of each global unicast address that other machines might reach.

    Netlink sockets of pyroute2 bring an event loop of their own, which cannot run inside a running one.
    """
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(_ask).result()


def _ask() -> list[tuple[str, str]]:
    with IPRoute() as netlink:
        names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in netlink.get_links()}
        found: list[tuple[str, str]] = []
        for entry in netlink.get_addr(scope=SCOPE_GLOBAL):
            name = str(names.get(entry["index"], ""))
            address = entry.get_attr("IFA_LOCAL") or entry.get_attr("IFA_ADDRESS")
            if name and not name.startswith(ENGINE_PREFIXES):
                found.append((name, str(address)))
    return found
