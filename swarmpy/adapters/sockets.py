"""ports.Sockets by /proc: what listens in the network namespace of a process.

/proc/PID/net/tcp and tcp6 show the sockets of the process's namespace: a container's own, or the host's for a
container on the host network. What listens comes first there (Documentation/networking/proc_net_tcp.rst), so
reading ends before the connections, of which there may be very many.
What does not belong here: when and how often is looked (agent/listening).
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address

TABLES = ("tcp", "tcp6")
_LISTEN = b"0A"


class ProcSockets:
    """ports.Sockets."""

    async def listening(self, asked: Mapping[int, frozenset[int]]) -> Mapping[int, frozenset[int]]:
        """Which of the ports have a listener, by process id."""
        return await asyncio.to_thread(_look, dict(asked))


def _look(asked: Mapping[int, frozenset[int]]) -> dict[int, frozenset[int]]:
    found: dict[int, frozenset[int]] = {}
    for pid, ports in asked.items():
        try:
            found[pid] = frozenset(_open(pid)) & ports
        except OSError:
            continue  # it ended, or we may not look
    return found


def _open(pid: int) -> Iterator[int]:
    """Every TCP port with a listener that others can reach. Raises OSError."""
    for table in TABLES:
        try:
            with open(f"/proc/{pid}/net/{table}", "rb") as lines:
                next(lines, b"")  # the headings
                yield from _listeners(lines)
        except FileNotFoundError:
            if table == TABLES[0]:
                raise  # no process; else a kernel without IPv6


def _listeners(lines: Iterator[bytes]) -> Iterator[int]:
    for line in lines:
        _, local, _, state, *_ = line.split(None, 4)
        if state != _LISTEN:
            return
        address, _, port = local.partition(b":")
        if not _loopback(address):
            yield int(port, 16)


def _loopback(text: bytes) -> bool:
    """Whether an address of the table, 32-bit words in the machine's own byte order, is the loopback's."""
    words = (int(text[at : at + 8], 16) for at in range(0, len(text), 8))
    address: IPv4Address | IPv6Address | None = ip_address(b"".join(struct.pack("=I", one) for one in words))
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address is not None and address.is_loopback
