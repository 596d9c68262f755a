"""Which address a node listens on and tells others: Docker's rules for --listen-addr,
--advertise-addr and --data-path-addr."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from swarmpy.model.errors import InvalidArgument
from swarmpy.node.toolbox import Interface

PORT = 2377
"""The cluster's port."""


def split(text: str, default_port: int) -> tuple[str, int]:
    """HOST and port of HOST[:PORT] or [V6][:PORT]. Raises InvalidArgument."""
    host, port = text, str(default_port)
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":") or port
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise InvalidArgument(f"{text!r} is not an address: the port must be a number from 1 to 65535")
    return host, int(port)


def join(host: str, port: int) -> str:
    """HOST:PORT, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def listen(text: str, interfaces: Sequence[Interface]) -> tuple[str, int]:
    """The address to listen on: an IP, or the first address of an interface. Raises InvalidArgument."""
    host, port = split(text or "0.0.0.0", PORT)  # noqa: S104  Docker's default; only mutual TLS is spoken
    return (host if _is_ip(host) else _of_interface(host, interfaces), port)


def advertise(text: str, listening: tuple[str, int], interfaces: Sequence[Interface]) -> tuple[str, int]:
    """The address that others dial. Raises InvalidArgument where it is not given and cannot be guessed."""
    if text:
        host, port = split(text, listening[1])
        host = host if _is_ip(host) else _of_interface(host, interfaces)
        if ipaddress.ip_address(host).is_unspecified:
            raise InvalidArgument("advertise address must be a non-zero IP address or network interface")
        return host, port
    if not ipaddress.ip_address(listening[0]).is_unspecified:
        return listening
    candidates = [one for one in interfaces if ipaddress.ip_address(one.address).version == 4] or list(
        interfaces
    )
    if not candidates:
        raise InvalidArgument(
            "could not find an IP address of this machine to advertise: specify one with --advertise-addr"
        )
    if len(candidates) > 1:
        first, second = candidates[0], candidates[1]
        raise InvalidArgument(
            "could not choose an IP address to advertise since this system has multiple addresses on "
            f"different interfaces ({first.address} on {first.name} and {second.address} on {second.name}) "
            "- specify one with --advertise-addr"
        )
    return candidates[0].address, listening[1]


def data_path(text: str, interfaces: Sequence[Interface]) -> str:
    """The address of the VXLAN endpoint: an IP or the first address of an interface; "" where none is given.
    Raises InvalidArgument."""
    if not text:
        return ""
    if not _is_ip(text) and ":" in text:
        raise InvalidArgument(
            "data path address must be a non-zero IP address or network interface (without a port number)"
        )
    host = text if _is_ip(text) else _of_interface(text, interfaces)
    if ipaddress.ip_address(host).is_unspecified:
        raise InvalidArgument(
            "data path address must be a non-zero IP address or network interface (without a port number)"
        )
    return host


def _of_interface(name: str, interfaces: Sequence[Interface]) -> str:
    for one in interfaces:
        if one.name == name:
            return one.address
    raise InvalidArgument(
        f"{name!r} is neither an IP address nor an interface of this machine with an address"
    )
