"""What the daemon and its stand-in say to each other: calls and replies, with open sockets beside them.

What belongs here: the messages, and carrying them over a local socket that keeps them apart. What does not:
what either does (keeper.py is the daemon's side, standin.py the other).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import Literal

import msgspec

from swarmpy.adapters.dns.sockets import Pair
from swarmpy.model import codec

LONGEST = 1 << 17
"""Bytes of a message: the list of some thousand networks."""
MOST = 64
"""Sockets beside one message: two for each address of a network."""
PATIENCE = 3.0
"""Seconds until an answer is there; each takes a millisecond."""


class Held(msgspec.Struct, frozen=True):
    """A network's name server: the identity of its namespace, and where it is bound there."""

    network_id: str
    space: tuple[int, int]
    addresses: tuple[str, ...]


class Call(msgspec.Struct, frozen=True):
    """What the daemon asks. `hold`: keep these sockets (`serve`: and answer there). `take`: give them to me,
    and answer there no longer. `drop`: close them. `list`: which there are. `end`: close all, and end."""

    what: Literal["hold", "take", "drop", "list", "end"]
    held: Held | None = None
    network_id: str = ""
    serve: bool = False


class Reply(msgspec.Struct, frozen=True):
    """`version` is that of the program that answers; `networks` those that it holds."""

    version: str = ""
    networks: tuple[Held, ...] = ()


def listener(path: str) -> socket.socket:
    """A socket at the path, in place of what is there."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    aside = f"{path}.{os.getpid()}"
    try:
        made.bind(aside)
        made.listen(8)
        os.rename(aside, path)
    except BaseException:
        made.close()
        raise
    return made


def send(connection: socket.socket, message: Call | Reply, pairs: Sequence[Pair] = ()) -> None:
    """Raises OSError."""
    descriptors = [one.fileno() for pair in pairs for one in (pair.udp, pair.tcp)]
    socket.send_fds(connection, [codec.encode(message)], descriptors)


def receive(connection: socket.socket) -> tuple[bytes, list[socket.socket]]:
    """A message and the sockets beside it; b"" where the other side has gone. Raises OSError."""
    data, descriptors, _, _ = socket.recv_fds(connection, LONGEST, MOST, socket.MSG_CMSG_CLOEXEC)
    return data, [socket.socket(fileno=one) for one in descriptors]


def paired(addresses: Sequence[str], sockets: Sequence[socket.socket]) -> list[Pair]:
    """The pairs again. Raises OSError, with all closed, where they are not complete."""
    if len(sockets) != 2 * len(addresses):
        for one in sockets:
            one.close()
        raise OSError(f"{len(sockets)} sockets for {len(addresses)} addresses")
    for one in sockets:
        one.setblocking(False)
    return [Pair(address, *sockets[2 * at : 2 * at + 2]) for at, address in enumerate(addresses)]
