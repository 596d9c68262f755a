"""Who is on the way out of traffic, and which nodes have not answered yet. The leader's, for its term.

A new leader begins again: every task that still runs and is not wanted waits for answers anew, for a bounded
time. What does not belong here: the decision (plan/leaving), sessions (dispatcher.py).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from math import inf

from swarmpy.manager.tables import Told
from swarmpy.model.lifecycle import NodeState, TaskState
from swarmpy.model.objects import Task
from swarmpy.plan import leaving
from swarmpy.ports import Clock
from swarmpy.state.snapshot import Snapshot

logger = logging.getLogger(__name__)

Others = Callable[[], Iterable[tuple[str, Told]]]
"""(node id, what it was told) of the sessions that are alive and not suspect."""
Lost = Callable[[], Iterable[str]]
"""Nodes that are not heard of now."""


class Leaving:
    """See the file's charter."""

    def __init__(self, clock: Clock, others: Others, lost: Lost) -> None:
        self._clock, self._others, self._lost = clock, others, lost
        self._leavers: dict[str, leaving.Leaver] = {}
        self._down: dict[str, float] = {}
        """When nodes went down that were up in this term."""

    def wait(self, world: Snapshot, task: Task, told: TaskState | None) -> float:
        """Seconds until the task's node may be told to stop it; 0: now."""
        if not leaving.leaves(task, told):
            self._leavers.pop(task.id, None)
            return 0.0
        now = self._clock.monotonic()
        leaver = self._leavers.get(task.id)
        if leaver is None:
            service = world.services.get(task.service_id)
            drain = leaving.drain_of(service.view.labels if service else {})
            leaver = leaving.Leaver(task.id, task.version, now, drain)
        silent = () if leaver.answered is not None else self._silent(now, world, leaver, task)
        if leaver.answered is None and (not silent or now >= leaver.since + leaving.PATIENCE):
            if silent:
                logger.warning("task %s stops although %s did not answer", task.name, ", ".join(silent))
            leaver = replace(leaver, answered=now)
        self._leavers[task.id] = leaver
        seconds = leaving.wait(now, leaver, silent)
        if seconds <= 0:
            del self._leavers[task.id]
        return seconds

    def _silent(self, now: float, world: Snapshot, leaver: leaving.Leaver, task: Task) -> list[str]:
        """Nodes that may still send it requests. One whose daemon is away balances as it last heard."""
        mine = {place.network_id for place in task.networks}
        silent = {key for key, told in self._others() if told.may_hold(now, mine, leaver.version)}
        if lost := {one for one in self._lost() if self._may_balance(now, world, one)} - {task.node_id}:
            ingress = world.ingress_network()
            everywhere = ingress is not None and ingress.id in mine
            there = {one.node_id for key in mine for one in (world.bucket_in(key) or {}).values()}
            silent |= lost if everywhere else lost & there
        return sorted(silent)

    def _may_balance(self, now: float, world: Snapshot, node_id: str) -> bool:
        down = world.nodes[node_id].status.state is NodeState.DOWN
        return not down or now - self._down.get(node_id, -inf) < leaving.BACK

    def follow(self, before: Snapshot, after: Snapshot) -> None:
        """The world changed: drop tasks that are gone, and note who is down since now."""
        for task_id in [key for key in self._leavers if key not in after.tasks]:
            del self._leavers[task_id]
        if before.nodes is not after.nodes:
            known, down = _down(before), _down(after)
            self._down |= dict.fromkeys(down - known, self._clock.monotonic())
            self._down = {key: since for key, since in self._down.items() if key in down}

    def __bool__(self) -> bool:
        return bool(self._leavers)


def _down(world: Snapshot) -> set[str]:
    return {one.id for one in world.nodes if one.status.state is NodeState.DOWN}
