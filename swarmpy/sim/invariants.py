"""Invariants of the world of tasks and nodes: over each step of the store, and at rest.

What belongs here: what must hold of any two successive worlds, of a cluster that had time to settle, and of
real containers. What does not: consensus (raftwatch.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator

from swarmpy.model.lifecycle import DESIRED, TERMINAL, Availability, NodeState, TaskState, may_follow
from swarmpy.model.objects import Node, Service, Task
from swarmpy.plan.constraints import satisfied
from swarmpy.plan.policy import may_restart
from swarmpy.plan.slots import slots_of
from swarmpy.state.snapshot import Snapshot

Broken = tuple[str, str]
"""(rule, sentence)."""


def check_step(old: Snapshot, new: Snapshot) -> Iterator[Broken]:
    """What one committed batch may not do."""
    if new.version <= old.version:
        yield "version-grows", f"version {old.version} is followed by {new.version}"
    for key, task in new.tasks.rows.items():
        before = old.tasks.rows.get(key)
        if before is task:
            continue
        if before is not None:
            yield from _changed_task(before, task)
        if before is None or before.status.state < TaskState.ASSIGNED <= task.status.state:
            yield from _assigned_task(new, task)
    names = Counter(service.name.lower() for service in new.services.rows.values())
    for name, count in names.items():
        if count > 1:
            yield "unique-name", f"{count} services are named {name}"


def _assigned_task(world: Snapshot, task: Task) -> Iterator[Broken]:
    node = world.nodes.get(task.node_id)
    if node is not None and task.status.state is TaskState.ASSIGNED:
        yield from _placed(task, node)


def _changed_task(before: Task, after: Task) -> Iterator[Broken]:
    label = f"task {after.name}"
    if not may_follow(before.status.state, after.status.state):
        yield "state-forward", f"{label} goes from {before.status.state.word} to {after.status.state.word}"
    if (before.service_id, before.slot) != (after.service_id, after.slot):
        yield "task-fixed", f"{label} changes its service or slot"
    if before.node_id and before.node_id != after.node_id:
        yield "task-fixed", f"{label} moves from node {before.node_id} to {after.node_id}"
    if before.desired in DESIRED and DESIRED.index(after.desired) < DESIRED.index(before.desired):
        yield "desired-forward", f"{label} is wanted {before.desired.word}, then {after.desired.word}"


def _placed(task: Task, node: Node) -> Iterator[Broken]:
    if task.desired > TaskState.RUNNING:
        return
    if node.view.availability != "active":
        yield "not-on-drained", f"task {task.name} is placed on node {node.hostname}, which takes no tasks"
    if not satisfied(task.view.placement.constraints, node):
        yield (
            "constraints-hold",
            f"task {task.name} is placed on node {node.hostname} against its constraints",
        )
    state = node.status.state
    if state in (NodeState.DOWN, NodeState.DISCONNECTED):
        yield "not-on-lost", f"task {task.name} is placed on node {node.hostname}, which is {state.word}"


def check_rest(world: Snapshot, excused: Collection[str] = ()) -> Iterator[Broken]:
    """What a cluster without faults or work left must look like. `excused`: ids of services that cannot
    have all that they want."""
    for node in world.nodes:
        if node.status.state is not NodeState.READY:
            yield "node-ready", f"node {node.hostname} is {node.status.state.word}: {node.status.message}"
        busy = [task.name for task in world.tasks_on(node.id)
                if task.status.state not in TERMINAL and task.status.state >= TaskState.ASSIGNED]  # fmt: skip
        if node.view.availability == Availability.DRAIN.word and busy:
            yield "drained-empty", f"node {node.hostname} is drained but has {busy[0]}"
    for service in world.services:
        if service.id in excused:
            continue
        yield from _service_rest(world, service)
    for key in world.orphan_services():
        left = [task.name for task in world.tasks_of(key) if task.status.state not in TERMINAL]
        if left:
            yield "removed-is-gone", f"task {left[0]} outlives its service"


def _service_rest(world: Snapshot, service: Service) -> Iterator[Broken]:
    if not any(_may_hold(service, node) for node in world.nodes):
        return
    tasks = [task for task in world.tasks_of(service.id) if task.desired <= TaskState.RUNNING]
    mode = service.view.mode
    running = [task for task in tasks if task.status.state is TaskState.RUNNING]
    if mode.global_ is not None:  # what already runs on a paused node stays there
        paused_nodes = {node.id for node in world.nodes if node.view.availability == "pause"}
        tasks = [task for task in tasks if task.node_id not in paused_nodes]
        running = [task for task in running if task.node_id not in paused_nodes]
        wanted = sum(node.view.availability == "active" for node in world.nodes)
    else:
        replicas = mode.replicated.replicas if mode.replicated is not None else None
        wanted = 1 if replicas is None else replicas
    wanted -= _given_up(world, service)
    if len(running) != wanted or len(tasks) != wanted:
        states = ", ".join(f"{task.name}: {task.status.state.word} {task.status.err}" for task in tasks)
        yield "converges", f"service {service.name} has {len(running)} of {wanted} running ({states})"
    old = [task.name for task in running if task.spec_version != service.spec_version]
    paused = service.update is not None and service.update.state == "paused"
    if old and not paused:
        yield "converges", f"task {old[0]} still runs an old version of its service"


def _may_hold(service: Service, node: Node) -> bool:
    asked = service.view.task_template.placement.constraints
    return node.view.availability == "active" and satisfied(asked, node)


def _given_up(world: Snapshot, service: Service) -> int:
    """Slots whose last task ended and may not be replaced any more."""
    return sum(
        not slot.live and not may_restart(slot, slot.newest)
        for slot in slots_of(world, service)
        if service.view.mode.global_ is None or _takes(world, str(slot.place))
    )


def _takes(world: Snapshot, node_id: str) -> bool:
    node = world.nodes.get(node_id)
    return node is not None and node.view.availability == "active"


def check_containers(world: Snapshot, running: Iterable[tuple[str, str]]) -> Iterator[Broken]:
    """At rest, the containers that really run, (task id, machine), are those of the running tasks."""
    wanted = {task.id: task for task in world.tasks if task.status.state is TaskState.RUNNING}
    seen: Counter[str] = Counter()
    for task_id, machine in running:
        seen[task_id] += 1
        if task_id not in wanted:
            yield "no-stray", f"a container of task {task_id} runs on {machine}, which nobody wants"
    for task_id, task in sorted(wanted.items()):
        if seen[task_id] != 1:
            yield "really-runs", f"task {task.name} is said to run, but {seen[task_id]} containers do"
