"""Planted bugs of the membership, of slots and of restarts (see bugs.py for what a planted bug is).

What belongs here: mistakes that show when nodes come and go, and where a slot's history is misread. What does
not: their discovery.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from swarmpy.agent.hands import Hands
from swarmpy.agent.worker import Worker
from swarmpy.manager.dispatcher import Dispatcher
from swarmpy.manager.manager import Manager
from swarmpy.model.lifecycle import NodeState
from swarmpy.node import member
from swarmpy.node.member import Member
from swarmpy.plan import node as n
from swarmpy.plan import policy, promotion, reap, restart, rollout
from swarmpy.plan.slots import retire
from swarmpy.sim.bugs import Patch, bug
from swarmpy.state.changes import Put

ROLES = ("promote", "demote", "demote-leader", "crash-promoted", "crash-demoted")


@bug("seat-reused", "a manager that was demoted and promoted takes its old seat id again", world="cluster",
     faults=("promote", "demote"))  # fmt: skip
def _seat_reused() -> list[Patch]:
    return [(member, "seat_id", lambda node_id, number: node_id)]


@bug("revocation-skipped", "removed nodes are neither revoked nor told, their sessions go on",
     world="cluster", faults=("remove-node",))  # fmt: skip
def _revocation_skipped() -> list[Patch]:
    send = Dispatcher._send_cluster

    async def kind(self: Any, session: Any) -> bool:
        return session.node_id not in self._world().nodes or await send(self, session)

    return [(Member, "_on_world", lambda self, before, after: None), (Dispatcher, "_send_cluster", kind)]


@bug("demoted-unfenced", "a demoted manager's certificate still opens the managers' calls", world="cluster",
     faults=ROLES)  # fmt: skip
def _demoted_unfenced() -> list[Patch]:
    return [(Manager, "_for_managers", lambda self, handler: self._leading(handler))]


@bug("drained-keeps", "tasks stay on a node that is drained", world="cluster")
def _drained_keeps() -> list[Patch]:
    return [(restart, "usable", lambda node: node is not None and node.status.state is not NodeState.DOWN)]


@bug("amnesia-starts-twice", "an agent does not see containers that it does not remember", world="cluster",
     faults=("amnesia",))  # fmt: skip
def _amnesia_starts_twice() -> list[Patch]:
    observe, act = Worker._observe, Hands.act

    async def forgetful(self: Any) -> None:
        await observe(self)
        if self._containers is not None:
            mine = {local.status.container_id for local in self.tasks.values()}
            started: set[str] = getattr(self._hands, "made", set())
            self._containers = tuple(one for one in self._containers if one.id in mine | started)

    async def make(self: Any, action: Any) -> None:
        if not isinstance(action, n.Create):
            await act(self, action)
            return
        other = f"{action.name}.{asyncio.get_running_loop().time()}"
        key = await self._engine.create(other, action.config)
        self.made = {*getattr(self, "made", set()), key}

    return [(Worker, "_observe", forgetful), (Hands, "act", make)]


@bug("history-unbounded", "ended tasks are kept for ever", world="cluster",
     faults=("container-dies", "container-removed"))  # fmt: skip
def _history_unbounded() -> list[Patch]:
    return [(reap, "_surplus", lambda slot, limit: [])]


@bug("delay-forgotten", "a new leader does not know when a restarted task may start", world="cluster",
     faults=("kill-leader", "container-dies"))  # fmt: skip
def _delay_forgotten() -> list[Patch]:
    replacement = restart._replacement

    def hasty(*args: Any) -> Any:
        put = replacement(*args)
        return msgspec.structs.replace(put, item=msgspec.structs.replace(put.item, not_before=0))

    return [(restart, "_replacement", hasty)]


@bug("attempts-uncounted", "a task is restarted however often it failed", world="cluster", faults=())
def _attempts_uncounted() -> list[Patch]:
    return [(one, "may_restart", lambda slot, task: True) for one in (policy, restart)]


@bug("promotes-early", "a replacement starts while the task before it still stops", world="cluster")
def _promotes_early() -> list[Patch]:
    return [(promotion, "still_stopping", lambda world, slot, task: [])]


@bug("updates-at-once", "an update ignores its parallelism", world="cluster")
def _updates_at_once() -> list[Patch]:
    config_of = rollout.config_of
    return [
        (rollout, "config_of", lambda service: msgspec.structs.replace(config_of(service), parallelism=0))
    ]


@bug("start-first-stops", "a start-first update stops the old task at once", world="cluster")
def _start_first_stops() -> list[Patch]:
    renew = rollout._renew

    def eager(now: int, world: Any, service: Any, slot: Any, order: str) -> Any:
        changes = renew(now, world, service, slot, order)
        ended = [Put(retire(one, now), "too early") for one in slot.live] if changes else []
        return [*ended, *changes]

    return [(rollout, "_renew", eager)]
