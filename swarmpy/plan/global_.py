"""Global services: one task on every node that fits, none anywhere else.

What belongs here: which nodes a global service is for. What does not: whether its task has room there
(placement.py), replacing ended tasks (restart.py, rollout.py).
"""

from __future__ import annotations

from swarmpy.model.lifecycle import Availability, TaskState
from swarmpy.model.objects import Node, Service
from swarmpy.plan import constraints
from swarmpy.plan.policy import occupants
from swarmpy.plan.slots import Slot, availability, new_task, retire, stopped, usable
from swarmpy.plan.types import NOTHING, Plan
from swarmpy.state.changes import Put
from swarmpy.state.snapshot import Snapshot


def of_place(now: int, world: Snapshot, service: Service, node_id: str, slot: Slot | None) -> Plan:
    """One node: a task where it lacks one, an end to that of a node that does not fit. `slot`: the tasks that
    it had, if any."""
    node = world.nodes.get(node_id)
    if node is None:
        return _ended(now, slot, f"node {node_id} was removed from the cluster")
    unfit = why_not(service, node)
    if unfit:
        return _ended(now, slot, f"node {node.hostname} {unfit}")
    if availability(node) != Availability.ACTIVE or (slot is not None and occupants(slot)):
        return NOTHING
    # Where the node's last task is still stopping, the new one waits for it.
    waits = slot is not None and any(not stopped(world, task) for task in slot.tasks)
    task = new_task(
        now, world, service, slot or node.id, why="global", replaces=slot.newest.id if slot and waits else "",
        desired=TaskState.READY if waits else TaskState.RUNNING,
    )  # fmt: skip
    return Plan((Put(task, f"global service {service.name} had no task on node {node.hostname}"),))


def why_not(service: Service, node: Node) -> str:
    """Why no task of a global service may stay on the node ("" if it may): down, drained or constraints."""
    if not usable(node):
        return "is drained" if availability(node) == Availability.DRAIN else "is down"
    if not constraints.satisfied(service.view.task_template.placement.constraints, node):
        return f"does not satisfy the constraints of service {service.name}"
    return ""


def wants(service: Service, node: Node | None) -> bool:
    """Whether the service should have a task on the node."""
    return node is not None and not why_not(service, node)


def _ended(now: int, slot: Slot | None, why: str) -> Plan:
    return Plan(tuple(Put(retire(task, now), why) for task in slot.live)) if slot else NOTHING
