"""The constraint enforcer: a task leaves a node that no longer fits it (labels, role or size changed).

What belongs here: judging tasks that run against their node as it is now. What does not: draining and lost
nodes (restart.py), services whose constraints changed (rollout.py moves their tasks at its own pace),
global services (global_.py).
"""

from __future__ import annotations

from swarmpy.model.lifecycle import Availability, TaskState, is_held
from swarmpy.model.objects import Node, Service, Task
from swarmpy.model.specs import template_view
from swarmpy.plan import constraints
from swarmpy.plan.slots import Slot, availability, reachable, with_state
from swarmpy.plan.types import NOTHING, Plan
from swarmpy.state.changes import Change, Put
from swarmpy.state.snapshot import Snapshot

MESSAGE_ENFORCED = "task rejected by constraint enforcer"
ERR_ENFORCED = "assigned node no longer meets constraints"
_UNKNOWN = 1 << 62


def of_slot(now: int, world: Snapshot, service: Service, slot: Slot) -> Plan:
    """Tasks of one slot whose node no longer satisfies the service's constraints are rejected."""
    texts = service.view.task_template.placement.constraints
    changes: list[Change] = []
    for task in slot.live if texts else ():
        node = world.nodes.get(task.node_id)
        if node is None or not _held(task) or not _enforced(node):
            continue
        # A task with other constraints is of an older spec: the rolling update takes care of it.
        if task.view.placement.constraints == texts and not constraints.satisfied(texts, node):
            changes.append(_rejected(now, task, f"node {node.hostname} no longer meets its constraints"))
    return Plan(tuple(changes)) if changes else NOTHING


def of_node(now: int, world: Snapshot, node: Node) -> Plan:
    """The youngest tasks of one node whose reservations exceed what the node has (it shrank)."""
    if not _enforced(node):
        return Plan()
    if not any(map(reserves, {task.template for task in (world.bucket_on(node.id) or {}).values()})):
        return Plan()  # the usual case, at little cost: many tasks have few templates
    # A node that says nothing of its size is not judged by it.
    cpus, memory = node.description.nano_cpus or _UNKNOWN, node.description.memory_bytes or _UNKNOWN
    changes: list[Change] = []
    reserving = [
        task for task in world.tasks_on(node.id) if reserves(task.template) and is_held(task.status.state)
    ]
    for task in sorted(reserving, key=lambda one: (one.created_at, one.id)):
        asked = task.view.resources.reservations
        if asked.nano_cpus <= cpus and asked.memory_bytes <= memory:
            cpus, memory = cpus - asked.nano_cpus, memory - asked.memory_bytes
        elif _held(task):
            changes.append(_rejected(now, task, f"node {node.hostname} no longer has what it reserves"))
    return Plan(tuple(changes))


def reserves(template: str) -> bool:
    """Whether tasks of the template reserve anything of their node."""
    asked = template_view(template).resources.reservations
    return bool(asked.nano_cpus or asked.memory_bytes)


def _enforced(node: Node) -> bool:
    return reachable(node) and availability(node) == Availability.ACTIVE


def _held(task: Task) -> bool:
    return task.desired <= TaskState.RUNNING and is_held(task.status.state)


def _rejected(now: int, task: Task, why: str) -> Put:
    return Put(with_state(task, now, TaskState.REJECTED, MESSAGE_ENFORCED, ERR_ENFORCED),
               f"task {task.name} must move: {why}")  # fmt: skip
