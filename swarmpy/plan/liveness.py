"""Liveness: when a node that fell silent counts as down, and what becomes of the tasks of lost nodes.

What belongs here: the two time-outs, a new leader's beginning, orphans. What does not: noticing silence (the
dispatcher reports it), replacing the tasks of a node that is down (restart.py).
"""

from __future__ import annotations

import msgspec

from swarmpy.model.lifecycle import NodeState, TaskState, is_held
from swarmpy.model.objects import Node, Task
from swarmpy.model.specs import SECOND
from swarmpy.plan.slots import with_state
from swarmpy.plan.types import NOTHING, Plan
from swarmpy.state.changes import Change, Put
from swarmpy.state.snapshot import Snapshot

MESSAGE_DOWN = "heartbeat failure"
MESSAGE_ORPHANED = "task orphaned"
MESSAGE_TERM = "the leader changed"
ORPHAN_AFTER = 24 * 3600 * SECOND
"""A node that was down for so long is taken to have lost its tasks (Swarm's default)."""


def silence_allowed(world: Snapshot, state: NodeState) -> int | None:
    """How long, in ns, a node may stay in the state before it is down; None: for ever.

    A suspect node gets 9/10 of the heartbeat period, so that with the default of 5 s it is down after
    4.5 s. After a change of leader all nodes are unknown and get one period to come back: agents
    look for the new leader within a second or two, and a node may have died together with the old one.
    A manager of whom the log heard nothing meanwhile becomes suspect, from the last word on: the dispatcher
    reports it, so that the machine of the old leader is down no later than another.
    """
    period = world.cluster.view.heartbeat_seconds if world.cluster else 5.0
    if state == NodeState.DISCONNECTED:
        return int(period * 0.9 * SECOND)
    if state == NodeState.UNKNOWN:
        return int(period * SECOND)
    return None


def begin_term(began: int, world: Snapshot) -> list[Change]:
    """A leader takes office, before it plans anything: it has heard nobody yet, and what it knows of nodes is
    hearsay. Whoever is not known to be down is unknown from this moment on, and has its time to come back:
    also who was so under a leader before, whose time may have run out while nobody led. Nodes that were told
    are left out, so that it may be done in parts. `began` in ns since the epoch, the same for all parts."""
    changes: list[Change] = []
    for node in world.nodes:
        unknown = msgspec.structs.replace(
            node.status, state=NodeState.UNKNOWN, message=MESSAGE_TERM, since=began
        )
        if node.status.state is not NodeState.DOWN and node.status != unknown:
            changes.append(Put(msgspec.structs.replace(node, status=unknown), MESSAGE_TERM))
    return changes


def of_node(now: int, world: Snapshot, node: Node) -> Plan:
    """One node: down when it was silent for too long; what it held is lost when it was down for too long."""
    allowed = silence_allowed(world, node.status.state)
    if allowed is not None:
        until = node.status.since + allowed
        if now < until:
            return Plan(wake_at=until)
        orphans = now + ORPHAN_AFTER if world.has_tasks_on(node.id) else None
        return Plan((_down(now, node, allowed),), orphans)
    if node.status.state != NodeState.DOWN or not world.has_tasks_on(node.id):
        return NOTHING
    lost = [task for task in world.tasks_on(node.id) if is_held(task.status.state)]
    until = node.status.since + ORPHAN_AFTER
    if not lost or now < until:
        return Plan(wake_at=until if lost else None)
    why = f"node {node.hostname} was down for 24 hours"
    return Plan(tuple(_orphaned(now, task, why) for task in lost))


def of_removed(now: int, world: Snapshot) -> Plan:
    """Tasks of removed nodes are orphaned."""
    changes: list[Change] = []
    for node_id in world.lost_nodes():
        changes += [
            _orphaned(now, task, "its node was removed from the cluster")
            for task in world.tasks_on(node_id)
            if task.status.state <= TaskState.RUNNING
        ]
    return Plan(tuple(changes))


def _down(now: int, node: Node, allowed: int) -> Put:
    status = msgspec.structs.replace(node.status, state=NodeState.DOWN, message=MESSAGE_DOWN, since=now)
    was = "suspect" if node.status.state == NodeState.DISCONNECTED else "unknown"
    return Put(
        msgspec.structs.replace(node, status=status),
        f"node {node.hostname} was {was} for {allowed / SECOND:g} s: it is down",
    )


def _orphaned(now: int, task: Task, why: str) -> Put:
    state = TaskState.ORPHANED if task.status.state >= TaskState.ASSIGNED else TaskState.SHUTDOWN
    return Put(with_state(task, now, state, MESSAGE_ORPHANED), f"task {task.name} is lost: {why}")
