"""The manager's judgement: all planners in their order, as one plan.

Each step sees the world as the steps before it left it, so that one pass takes a new service to ASSIGNED
tasks and a lost node's tasks to their new nodes. What does not belong here: any decision of its own.
"""

from __future__ import annotations

from collections.abc import Iterable

from swarmpy.plan import (
    enforcer,
    global_,
    liveness,
    placement,
    promotion,
    reap,
    replicas,
    restart,
    rollout,
)
from swarmpy.plan.types import Plan, earliest
from swarmpy.state.changes import Change, Delete, Put
from swarmpy.state.snapshot import Snapshot

STEPS = (
    liveness.plan,
    enforcer.plan,
    replicas.plan,
    global_.plan,
    restart.plan,
    rollout.plan,
    promotion.plan,
    placement.plan,
    reap.plan,
)
"""Facts about nodes first, then what should exist, then where it goes, then what may be forgotten."""


def plan(now: int, world: Snapshot) -> Plan:
    """Everything that should change now, one change per object, and when to look again."""
    working = world
    changes: list[Change] = []
    wakes: list[int | None] = []
    for step in STEPS:
        decided = step(now, working)
        wakes.append(decided.wake_at)
        if decided.changes:
            changes += decided.changes
            working = working.evolve(decided.changes, at=now)
    return Plan(coalesce(world, changes), earliest(wakes))


def coalesce(base: Snapshot, changes: Iterable[Change]) -> tuple[Change, ...]:
    """The last change of each object, in the order of their first ones, with all their causes. What was made
    and deleted within the plan never was."""
    last: dict[tuple[str, str], Change] = {}
    for change in changes:
        key = change.key
        before = last.get(key)
        if before is not None and before.cause and before.cause != change.cause:
            cause = f"{before.cause}; {change.cause}"
            change = Put(change.item, cause) if isinstance(change, Put) else Delete(*key, cause)  # noqa: PLW2901  the joined cause replaces it
        last[key] = change
    return tuple(
        change for key, change in last.items() if isinstance(change, Put) or base.object(*key) is not None
    )
