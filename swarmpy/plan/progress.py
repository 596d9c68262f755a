"""Progress: how far a service is, counted from one world. The only definition of *converged*.

What belongs here: counting. What does not: why it is not further (explain.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from swarmpy.model.lifecycle import TaskState
from swarmpy.model.objects import Service
from swarmpy.plan import global_, rollout
from swarmpy.plan.slots import is_active, is_dirty, slots_of
from swarmpy.state.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Counts:
    """`running` tasks are wanted and were last seen running: one on a lost node, which is no longer wanted,
    is not counted (Swarm counts it). `desired`: replicas, or the wanted tasks of a global service.
    `current`: running and of the present spec. `completed` is for jobs."""

    running: int
    desired: int
    completed: int
    current: int
    converged: bool
    """Every slot has exactly its one task, of the present spec and running, and no update is under way."""


def progress(world: Snapshot, service: Service) -> Counts:
    """Count the tasks of a service."""
    tasks = world.tasks_of(service.id)
    wanted = [task for task in tasks if task.desired <= TaskState.RUNNING]
    running = [task for task in wanted if task.status.state == TaskState.RUNNING]
    current = [
        task for task in running
        if task.desired == TaskState.RUNNING and not is_dirty(service, task, world.nodes.get(task.node_id))
    ]  # fmt: skip
    if service.view.is_global:
        desired = len([task for task in wanted if task.desired == TaskState.RUNNING])
        expected = sum(is_active(node) and global_.wants(service, node) for node in world.nodes)
        # A paused node keeps the task that it has.
        paused = {node.id for node in world.nodes if not is_active(node)}
        complete = len({task.node_id for task in current} - paused) == expected
    else:
        desired = service.view.replicas
        complete = len({task.slot for task in current}) == desired
    updating = service.update is not None and service.update.state in rollout.MESSAGE_COMPLETED
    single = all(len(slot.live) <= 1 for slot in slots_of(world, service))
    return Counts(
        running=len(running), desired=desired, current=len(current),
        completed=sum(task.status.state == TaskState.COMPLETE for task in tasks),
        converged=complete and single and not updating,
    )  # fmt: skip
