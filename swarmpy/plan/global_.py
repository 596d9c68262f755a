"""Global services: one task on every node that fits, none anywhere else.

What belongs here: which nodes a global service is for. What does not: whether its task has room there
(placement.py), replacing ended tasks (restart.py, rollout.py).
"""

from __future__ import annotations

from swarmpy.model.lifecycle import Availability, TaskState
from swarmpy.model.objects import Node, Service
from swarmpy.plan import constraints
from swarmpy.plan.policy import occupants
from swarmpy.plan.slots import Slot, availability, is_job, new_task, retire, slots_of, stopped, usable
from swarmpy.plan.types import Plan, merged
from swarmpy.state.changes import Change, Put
from swarmpy.state.snapshot import Snapshot


def plan(now: int, world: Snapshot) -> Plan:
    """All global services."""
    return merged(of_service(now, world, service) for service in world.services)


def of_service(now: int, world: Snapshot, service: Service) -> Plan:
    """One global service: tasks for nodes that lack one, an end to those on nodes that do not fit."""
    if not service.view.is_global or is_job(service):
        return Plan()
    slots = {slot.place: slot for slot in slots_of(world, service)}
    changes: list[Change] = []
    for node in world.nodes:
        slot = slots.pop(node.id, None)
        unfit = why_not(service, node)
        if unfit:
            changes += _ended(now, slot, f"node {node.hostname} {unfit}")
        elif availability(node) == Availability.ACTIVE and (slot is None or not occupants(slot)):
            # Where the node's last task is still stopping, the new one waits for it.
            waits = slot is not None and any(not stopped(world, task) for task in slot.tasks)
            task = new_task(
                now, world, service, slot or node.id, why="global",
                replaces=slot.newest.id if slot and waits else "",
                desired=TaskState.READY if waits else TaskState.RUNNING,
            )  # fmt: skip
            changes.append(Put(task, f"global service {service.name} had no task on node {node.hostname}"))
    for slot in slots.values():
        changes += _ended(now, slot, f"node {slot.place} was removed from the cluster")
    return Plan(tuple(changes))


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


def _ended(now: int, slot: Slot | None, why: str) -> list[Change]:
    return [Put(retire(task, now), why) for task in slot.live] if slot else []
