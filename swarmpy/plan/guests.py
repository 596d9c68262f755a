"""Guests: containers that are no tasks and have places in attachable networks.

Their nodes tell when they come and go (admission/attachment.py). What belongs here: those whose node cannot
tell any more. What does not: addresses (addresses.py), what the node itself finds (visits.py).
"""

from __future__ import annotations

from swarmpy.model.lifecycle import NodeState
from swarmpy.plan.liveness import ORPHAN_AFTER
from swarmpy.plan.types import Plan, earliest
from swarmpy.state.changes import Change, Delete
from swarmpy.state.snapshot import Snapshot


def plan(now: int, world: Snapshot) -> Plan:
    """Guests of removed and of long lost nodes give up their places. A node that was lost and comes back asks
    for those of its containers that still are there."""
    changes: list[Change] = []
    wakes: list[int] = []
    for guest in world.guests:
        node = world.nodes.get(guest.node_id)
        if node is None:
            changes.append(Delete("guest", guest.id, "its node was removed from the cluster"))
        elif node.status.state is NodeState.DOWN:
            until = node.status.since + ORPHAN_AFTER
            if now >= until:
                changes.append(Delete("guest", guest.id, f"node {node.hostname} was down for 24 hours"))
            else:
                wakes.append(until)
    return Plan(tuple(changes), earliest(wakes))
