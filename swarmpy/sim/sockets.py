"""ports.Sockets over simulated containers.

What belongs here: what a program on the machine can see of their sockets. What does not: when they listen
(containers.py).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping

from swarmpy.sim.dockerd import Dockerd

LOOK = (0.0001, 0.002)
"""Seconds that a look takes."""


class SimSockets:
    """ports.Sockets: the containers of a Dockerd, which may be away meanwhile."""

    def __init__(self, daemon: Dockerd) -> None:
        self.daemon = daemon
        self.looks = 0
        self._dice = random.Random(f"{daemon.name} looks")  # noqa: S311  a simulation must be repeatable

    async def listening(self, asked: Mapping[int, frozenset[int]]) -> Mapping[int, frozenset[int]]:
        """Which of the ports have a listener, by process id."""
        daemon = self.daemon
        self.looks += 1
        await asyncio.sleep(self._dice.uniform(*LOOK))
        return {
            one.pid: frozenset(port for port in asked[one.pid] if one.listens(port, daemon.loop.instant))
            for one in daemon.listed
            if one.state == "running" and one.pid in asked
        }
