"""Sockets inside network namespaces. A socket stays in the namespace it was made in, whoever uses it.

What belongs here: binding. What does not: entering a namespace (adapters/netns), serving. The sockets keep
the namespace alive until they are closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from swarmpy.adapters import netns
from swarmpy.ports.fabric import FabricError

IP_FREEBIND, IPV6_FREEBIND = 15, 78
BUFFER = 1 << 20
"""Of received packets: what a burst of clients needs until we get the processor."""
UNREAD = 1 << 17
"""Of replies by TCP: the most that a client who does not read has us keep."""


@dataclass(frozen=True, slots=True)
class Pair:
    """The sockets of one address."""

    address: str
    udp: socket.socket
    tcp: socket.socket

    def close(self) -> None:
        """Close both."""
        self.udp.close()
        self.tcp.close()


def identity(namespace: str) -> tuple[int, int]:
    """What tells the namespace from others. Raises FabricError if there is none."""
    try:
        seen = os.stat(namespace)
    except OSError as error:
        raise FabricError(f"no name server in {namespace}: {error.strerror}") from error
    return seen.st_dev, seen.st_ino


async def bound(namespace: str, addresses: Sequence[str], port: int) -> list[Pair]:
    """Sockets at the addresses in the namespace, TCP listening. Raises FabricError."""
    work = asyncio.ensure_future(asyncio.to_thread(_there, namespace, addresses, port))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        work.add_done_callback(_close_all)
        raise


def _close_all(done: asyncio.Future[list[Pair]]) -> None:
    if not done.cancelled() and done.exception() is None:
        for pair in done.result():
            pair.close()


def _there(namespace: str, addresses: Sequence[str], port: int) -> list[Pair]:
    if identity(namespace) == identity(netns.OWN):  # entering it again would need root
        return _bind_all(namespace, addresses, port)
    return netns.inside(namespace, _bind_all, namespace, addresses, port)


def _bind_all(namespace: str, addresses: Sequence[str], port: int) -> list[Pair]:
    pairs: list[Pair] = []
    try:
        for address in addresses:
            pairs.append(_bind(address, port))
    except (OSError, ValueError) as error:
        for pair in pairs:
            pair.close()
        why = str(error)
        if isinstance(error, OSError):
            why = error.strerror or why
            if error.errno == errno.EADDRINUSE:
                why = "another server listens there"
        raise FabricError(f"no name server at {address} port {port} in {namespace}: {why}") from error
    return pairs


def _bind(address: str, port: int) -> Pair:
    version = ipaddress.ip_address(address).version
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with contextlib.ExitStack() as undo:
        udp = undo.enter_context(socket.socket(family, socket.SOCK_DGRAM))
        tcp = undo.enter_context(socket.socket(family, socket.SOCK_STREAM))
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNREAD)
        for one in (udp, tcp):
            one.setblocking(False)
            # An IPv6 address is not bindable before the kernel found that nobody else has it.
            if version == 4:
                one.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
            else:
                one.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind((address, port))
        tcp.listen(128)
        undo.pop_all()
        return Pair(address, udp, tcp)
