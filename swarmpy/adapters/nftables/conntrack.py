"""Tracked flows that must not go on as they do.

What belongs here: finding and deleting flows of the thread's namespace. What does not: which ones, and when
(balancer.py, mesh.py).

A flow is bound to a backend by its first packet. TCP ends by itself when its backend does; a UDP flow has no
end as long as somebody sends, so it would be sent for ever to a backend that has gone, or to nowhere when it
was begun before there was one. The same holds for a TCP connection that nobody answered yet.
"""

from __future__ import annotations

import errno
import ipaddress
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from swarmpy.adapters.nftables import netlink, routes
from swarmpy.adapters.nftables.netlink import ACK, REQUEST, Message, Netlink, attributes, nested

_GET, _DELETE = (1 << 8) | 1, (1 << 8) | 2
_ORIGINAL, _REPLY, _STATUS, _ID, _ZONE = 1, 2, 3, 12, 18
_SEEN_REPLY = 0x2
_STREAMS = (6, 132)


@dataclass(frozen=True, slots=True)
class Flow:
    """A tracked flow: where it was sent, and who answers it."""

    protocol: int
    source: str
    target: str
    port: int
    """Of the target; 0 where the protocol has none."""
    backend: str
    backend_port: int
    answered: bool
    key: bytes = field(repr=False)

    @property
    def lasting(self) -> bool:
        """A connection that has its own end: it goes on as it is."""
        return self.answered and self.protocol in _STREAMS


def cut(condition: Callable[[Flow], bool]) -> int:
    """Delete the flows for which the condition holds, but not lasting ones; how many. Raises FabricError."""
    if routes.switch("netfilter/nf_conntrack_count") == "0":
        return 0  # else the kernel looks through the flows of all namespaces to find none
    with Netlink(netlink.NETFILTER) as kernel:
        doomed: list[Message] = []
        for answer in kernel.ask(
            _GET, bytes(4)
        ):  # of both families: the kernel walks all its flows each time
            flow = _flow(answer.body)
            if flow is not None and not flow.lasting and condition(flow):
                doomed.append(Message(_DELETE, REQUEST | ACK, flow.key))
        kernel.tell(doomed, "deleting flows to a backend that went", fine=(errno.ENOENT,))
        return len(doomed)


def _flow(body: bytes) -> Flow | None:
    parts = attributes(body[4:])
    if _ORIGINAL not in parts or _REPLY not in parts:
        return None
    protocol, source, target, port, _ = _tuple(parts[_ORIGINAL])
    _, backend, _, _, backend_port = _tuple(parts[_REPLY])
    key = struct.pack("=BBH", body[0], 0, 0) + nested(_ORIGINAL, parts[_ORIGINAL])
    for kind in (_ID, _ZONE):
        if kind in parts:
            key += netlink.attribute(kind, parts[kind])
    status = int.from_bytes(parts.get(_STATUS, b""))
    return Flow(protocol, source, target, port, backend, backend_port, bool(status & _SEEN_REPLY), key)


def _tuple(data: bytes) -> tuple[int, str, str, int, int]:
    """(protocol, source, target, target's port, source's port)."""
    parts = attributes(data)
    where, what = attributes(parts.get(1, b"")), attributes(parts.get(2, b""))
    source = where.get(1) or where.get(3) or b""
    target = where.get(2) or where.get(4) or b""
    return (
        int.from_bytes(what.get(1, b"")), _text(source), _text(target),
        int.from_bytes(what.get(3, b"")), int.from_bytes(what.get(2, b"")),
    )  # fmt: skip


def _text(address: bytes) -> str:
    return str(ipaddress.ip_address(address)) if address else ""
