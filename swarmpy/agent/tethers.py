"""Whether running containers still have their links: asked after each look at the kernel's.

What belongs here: remembering what was missed until it was looked for again. What does not: the judgement
(plan/tethers), the container's end (worker.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from swarmpy.agent.joining import Sandbox
from swarmpy.model.fabric import Table
from swarmpy.model.links import LinkSeen
from swarmpy.plan import tethers as p
from swarmpy.plan.node import LocalTask

logger = logging.getLogger(__name__)


class TetherKeeper:
    """`sandboxes` and `tasks` are the worker's, `tables` the networks'. `look` has the Engine looked at
    again; `lost` is called when a container lost a link for good."""

    def __init__(
        self,
        sandboxes: Callable[[], Mapping[str, Sandbox] | None],
        tasks: Callable[[], Mapping[str, LocalTask]],
        tables: Callable[[], Mapping[str, Table]],
        look: Callable[[], None],
        lost: Callable[[], None],
    ) -> None:
        self._sandboxes, self._tasks, self._tables = sandboxes, tasks, tables
        self._look, self._lost = look, lost
        self._engine_at = -1.0
        self._missing: Mapping[p.Place, float] = {}
        self._severed: dict[str, str] = {}

    def engine_seen(self, began: float) -> None:
        """The worker has looked at the Engine, from this time of the loop on."""
        self._engine_at = began

    def links_seen(self, links: Mapping[str, LinkSeen], began: float) -> None:
        """The kernel's links were looked at, from this time of the loop on."""
        loop = asyncio.get_running_loop()
        running = {key: one.endpoints for key, one in (self._sandboxes() or {}).items()}
        world = p.Tethers(self._tasks(), running, self._engine_at, links, began, self._missing)
        verdict = p.judge(loop.time(), world)
        if not verdict.missing.keys() <= self._missing.keys():
            loop.call_later(p.HOLD, self._look)
        self._missing = verdict.missing
        severed = {key: p.sentence(tuple(map(self._name, found))) for key, found in verdict.lost.items()}
        for key in sorted(severed.keys() - self._severed.keys()):
            logger.warning("task %s: %s", key, severed[key])
        self._severed = severed
        if severed:
            self._lost()

    def _name(self, network_id: str) -> str:
        table = self._tables().get(network_id)
        return table.name if table is not None else network_id

    def severed(self, task_id: str) -> str:
        """Why the task's container cannot run on, "" where it can."""
        return self._severed.get(task_id, "")
