"""The restart supervisor: a task that ended, or whose node is lost or drained, is replaced in its slot.

What belongs here: ending the old task and making the new one. What does not: whether the policy allows it
(policy.py), when the new one may start (promotion.py), updates (rollout.py).
"""

from __future__ import annotations

from swarmpy.model.lifecycle import TERMINAL, NodeState, TaskState
from swarmpy.model.objects import Node, Service, Task
from swarmpy.plan.enforcer import MESSAGE_ENFORCED
from swarmpy.plan.global_ import wants
from swarmpy.plan.policy import may_restart
from swarmpy.plan.slots import Slot, is_active, new_task, retire, usable
from swarmpy.plan.types import NOTHING, Plan
from swarmpy.state.changes import Change, Put
from swarmpy.state.snapshot import Snapshot


def of_slot(now: int, world: Snapshot, service: Service, slot: Slot) -> Plan:
    """One slot: broken tasks are shut down, and replaced where nothing else lives."""
    live = slot.live
    broken = [task for task in live if is_broken(world, task)]
    early = [task.not_before for task in broken if _ended_early(now, task)]
    if early:
        return Plan(wake_at=max(early))
    if not broken or (service.view.is_global and _frozen(world, service, str(slot.place))):
        return NOTHING
    changes: list[Change] = [
        Put(retire(task, now), f"task {task.name} is over: {why_broken(world, task)}") for task in broken
    ]
    # The slot's last task decides, as it does on whether the slot counts as filled (policy.occupants).
    if len(broken) == len(live) and may_restart(slot, slot.newest):
        changes.append(_replacement(now, world, service, slot, broken[-1]))
    return Plan(tuple(changes))


def is_broken(world: Snapshot, task: Task) -> bool:
    """Whether the task cannot go on where it is: it has ended, or its node is lost or drained."""
    if task.status.state in TERMINAL:
        return True
    return bool(task.node_id) and not usable(world.nodes.get(task.node_id))


def _ended_early(now: int, task: Task) -> bool:
    """A replacement that was rejected while it waited for its time (its image cannot be pulled, say) is
    itself replaced only when that time has come: the policy's delay bounds the loop."""
    return task.desired == TaskState.READY and task.not_before > now and task.status.state in TERMINAL


def why_broken(world: Snapshot, task: Task) -> str:
    """Why the task cannot go on where it is ("" if it can)."""
    if not is_broken(world, task):
        return ""
    if task.status.state in TERMINAL:
        detail = f" ({task.status.err})" if task.status.err else ""
        return f"it is {task.status.state.word}{detail}"
    node = world.nodes.get(task.node_id)
    if node is None:
        return "its node was removed"
    return f"node {node.hostname} is {'down' if node.status.state == NodeState.DOWN else 'drained'}"


def _frozen(world: Snapshot, service: Service, node_id: str) -> bool:
    """A paused node keeps what it has and gets nothing new, not even a replacement."""
    node = world.nodes.get(node_id)
    return not (wants(service, node) and is_active(node))


def _replacement(now: int, world: Snapshot, service: Service, slot: Slot, old: Task) -> Put:
    delay = restart_delay(world.nodes.get(old.node_id), old)
    task = new_task(
        now, world, service, slot, why="restart", desired=TaskState.READY, replaces=old.id,
        not_before=now + delay if delay else 0,
    )  # fmt: skip
    return Put(task, f"replaces task {old.name}: {why_broken(world, old)}")


def restart_delay(node: Node | None, old: Task) -> int:
    """How long, in ns, the replacement of the task waits before it may start.

    As in Swarm the policy's delay does not apply on a drained node. It does not apply either when the node
    is down or removed, where Swarm does apply it: the delay is there to slow a crash loop, and this task
    did not crash; waiting would only lengthen the outage. A task that the enforcer ended may still be
    stopping, unseen: its replacement waits for at least its grace period.
    """
    if node is None or not usable(node):
        return 0
    delay = old.view.restart_policy.delay
    if old.status.message == MESSAGE_ENFORCED:
        return max(delay, int(old.view.container.grace_seconds * 1_000_000_000))
    return delay
