"""The sockets of programs in containers. See the package's charter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Sockets(Protocol):
    """What the programs of running containers listen on."""

    async def listening(self, asked: Mapping[int, frozenset[int]]) -> Mapping[int, frozenset[int]]:
        """By process id: those of the TCP ports asked for on which anything listens in the process's network
        namespace, on an address that is not the loopback's. A process that is gone, or whose namespace
        cannot be looked into, is not in the answer; that is no error."""
