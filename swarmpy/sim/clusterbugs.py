"""Planted bugs of managers and agents (see bugs.py, which has those of the log).

What belongs here: mistakes that only a whole cluster shows. What does not: their discovery.
"""

from __future__ import annotations

from typing import Any

from swarmpy.agent.session import Session
from swarmpy.agent.worker import Worker
from swarmpy.manager.control import ManagerControl
from swarmpy.model import messages as m
from swarmpy.plan import filters
from swarmpy.sim import memberbugs, netbugs
from swarmpy.sim.bugs import BUGS, Patch, bug
from swarmpy.state.snapshot import Snapshot

TURMOIL = ("partition", "isolate-leader", "kill-leader", "pause-leader", "slow-net")


@bug("world-unread", "a manager answers reads from its own memory", world="cluster", faults=TURMOIL)
def _world_unread() -> list[Patch]:
    async def stale(self: ManagerControl) -> Snapshot:
        return self._store.world

    return [(ManagerControl, "world", stale)]


@bug("places-anywhere", "tasks are placed on nodes that are drained or lost", world="cluster")
def _places_anywhere() -> list[Patch]:
    return [(filters, "is_ready", lambda node: True)]


@bug("status-unacknowledged", "an agent forgets a status as soon as it is sent", world="cluster",
     faults=("resets", "reset-all", "kill-leader"))  # fmt: skip
def _status_unacknowledged() -> list[Patch]:
    async def careless(self: Any, channel: Any) -> None:
        items, self._pending = tuple(self._pending.items()), {}
        self._number += 1
        await channel.send(m.to_body(m.Statuses(number=self._number, items=items)))

    return [(Session, "_send_statuses", careless), (Worker, "statuses", lambda self: [])]


ALL_BUGS = BUGS
"""The bugs of both worlds."""
MORE_BUGS = (memberbugs.__name__, netbugs.__name__)
"""The modules that register the rest."""
