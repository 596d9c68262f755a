"""What nodes say of themselves, before it is believed: it ends up in every node's kernel.

What belongs here: checks of single values. What does not: who may say them (pki/rpc.py).
"""

from __future__ import annotations

import ipaddress


def usable_address(text: str) -> str:
    """The IP address, in its usual form, if it is one that other nodes could send to, else ""."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return ""
    useless = (
        address.is_unspecified or address.is_multicast or address == ipaddress.ip_address("255.255.255.255")
    )
    return "" if useless else str(address)
