"""Explain: why the tasks of a service run where they run, or what they wait for and what would help.

Plain data that any encoder takes; the sentences are for users. What belongs here: finding the reasons.
What does not: rendering them (cli, api), the verdicts of nodes (verdicts.py), deciding anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from swarmpy.model.errors import InvalidArgument, NotFound
from swarmpy.model.lifecycle import NodeState, TaskState, is_held
from swarmpy.model.objects import Node, Service, Task
from swarmpy.model.specs import SECOND
from swarmpy.plan import global_, listening, liveness, published, rollout
from swarmpy.plan.filters import seat_of
from swarmpy.plan.policy import may_restart, occupants
from swarmpy.plan.progress import progress
from swarmpy.plan.promotion import PATIENCE, still_stopping, waiting
from swarmpy.plan.restart import why_broken
from swarmpy.plan.slots import Slot, new_task, slots_of
from swarmpy.plan.survey import surveyed
from swarmpy.plan.verdicts import Verdict, cpus, size, smallest_change, verdicts
from swarmpy.state.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class TaskReport:
    """A task and what holds it up. `until`: when that ends by itself (cluster time, ns; 0: not by itself)."""

    id: str
    name: str
    state: str
    desired: str
    node: str
    waits: tuple[str, ...] = ()
    until: int = 0
    err: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """The answer. `nodes` are the verdicts on the waiting task, or on one more task where none waits."""

    kind: str
    id: str
    name: str
    summary: str
    at: int
    """The cluster time of the world that was read, ns."""
    tasks: tuple[TaskReport, ...] = ()
    nodes: tuple[Verdict, ...] = ()
    smallest_change: str = ""
    """What would let a task run that fits nowhere ("" where none waits for a node)."""
    notes: tuple[str, ...] = ()
    """About the service as a whole: its update, slots that stay empty, nodes without a task."""


def explain(world: Snapshot, reference: str) -> Explanation:
    """Explain a service, a task or a node, given by full id, name or a unique prefix of an id.

    Raises NotFound or InvalidArgument (ambiguous).
    """
    service = world.services.get(reference) or world.service_named(reference)
    if service is not None:
        return of_service(world, service)
    task = world.tasks.get(reference) or _named_task(world, reference)
    if task is not None:
        return of_task(world, task)
    node = world.nodes.get(reference) or _named_node(world, reference)
    if node is not None:
        return of_node(world, node)
    found: list[Service | Task | Node] = [
        item for table in (world.services, world.tasks, world.nodes) for item in table
        if reference and item.id.startswith(reference)
    ]  # fmt: skip
    if len(found) > 1:
        raise InvalidArgument(f"{reference} is ambiguous ({len(found)} matches found)")
    if not found:
        raise NotFound(f"no service, task or node {reference} found")
    return explain(world, found[0].id)


def _named_task(world: Snapshot, reference: str) -> Task | None:
    """SERVICE.SLOT means the slot's newest task; SERVICE.SLOT.ID the task itself."""
    matches = [task for task in world.tasks if reference in (task.name, task.name.rsplit(".", 1)[0])]
    return max(matches, key=lambda task: (task.desired <= TaskState.RUNNING, task.created_at, task.id),
               default=None)  # fmt: skip


def _named_node(world: Snapshot, reference: str) -> Node | None:
    matches = [node for node in world.nodes if node.hostname == reference]
    if len(matches) > 1:
        raise InvalidArgument(f"node {reference} is ambiguous ({len(matches)} matches found)")
    return matches[0] if matches else None


# ---- services


def of_service(world: Snapshot, service: Service) -> Explanation:
    """A service: what each of its wanted tasks waits for, and what holds the service as a whole."""
    slots = slots_of(world, service)
    reports = tuple(report(world, slot, task) for slot in slots for task in _shown(world, slot))
    open_task = next(
        (task for slot in slots for task in slot.live if task.status.state < TaskState.ASSIGNED), None
    )
    if open_task is not None or not service.view.is_global:
        sample = open_task or new_task(world.at, world, service, len(slots) + 1, why="explain")
        nodes = verdicts(world, sample)
    else:
        nodes = []
    help_text = smallest_change(nodes) if open_task is not None else ""
    seen = progress(world, service)
    summary = f"{seen.running} of {seen.desired} tasks run"
    if help_text:
        summary += f"; to place the rest: {help_text}"
    elif seen.converged:
        summary += ": all is as it should be"
    return Explanation(
        "service", service.id, service.name, summary, world.at, reports, tuple(nodes), help_text,
        (*_of_update(world, service, slots), *_of_slots(world, service, slots), *_of_ports(world, service)),
    )  # fmt: skip


def _shown(world: Snapshot, slot: Slot) -> list[Task]:
    stopping = [
        task for task in slot.tasks
        if task.desired > TaskState.RUNNING and is_held(task.status.state)
    ]  # fmt: skip
    return slot.live + stopping


def _of_update(world: Snapshot, service: Service, slots: list[Slot]) -> list[str]:
    status = service.update
    if status is None or status.state in (rollout.COMPLETED, rollout.ROLLBACK_COMPLETED):
        return []
    if status.state in rollout.PAUSED:
        return [f"{status.message or 'the update is paused'}: it goes on with the next service update"]
    config = rollout.config_of(service)
    seen = surveyed(world, service, slots).at(world.at, config.delay)
    pace = f"{config.parallelism} at a time" if config.parallelism else "all at once"
    return [
        f"{status.message}: {len(seen.dirty)} slots to go, {seen.flying} being renewed, "
        f"{len(seen.resting)} in the delay of {config.delay / SECOND:g} s ({pace}, {config.order})"
    ]


def _of_slots(world: Snapshot, service: Service, slots: list[Slot]) -> list[str]:
    notes: list[str] = []
    for slot in slots:
        if occupants(slot) and not slot.live and not may_restart(slot, slot.newest):
            policy = slot.newest.view.restart_policy
            limit = f" {policy.max_attempts} times" if policy.max_attempts else ""
            notes.append(f"{slot.newest.name} is {slot.newest.status.state.word} and is not replaced: "
                         f"its restart policy is {policy.condition}{limit}")  # fmt: skip
    if service.view.is_global:
        for node in world.nodes:
            unfit = global_.why_not(service, node)
            if unfit:
                notes.append(f"no task on node {node.hostname}: it {unfit}")
    return notes


def _of_ports(world: Snapshot, service: Service) -> list[str]:
    return [
        f"port {port.published_port}/{port.protocol} is published on no node where {user} of this cluster "
        "use it: publish another one"
        for one, port, user in published.hidden(world) if one.id == service.id
    ]  # fmt: skip


# ---- tasks


def of_task(world: Snapshot, task: Task) -> Explanation:
    """One task."""
    service = world.services.get(task.service_id)
    slots = slots_of(world, service) if service is not None else []
    slot = next((one for one in slots if task in one.tasks), Slot(task.slot, (task,)))
    seen = report(world, slot, task)
    waits_for_node = task.status.state < TaskState.ASSIGNED and task.desired <= TaskState.RUNNING
    nodes = verdicts(world, task) if waits_for_node else []
    help_text = smallest_change(nodes) if waits_for_node else ""
    summary = "; ".join(seen.waits) or f"it is {seen.state} on node {seen.node}, as it should be"
    if service is None:
        summary = f"its service was removed; {summary}"
    if help_text:
        summary += f"; to place it: {help_text}"
    return Explanation("task", task.id, task.name, summary, world.at, (seen,), tuple(nodes), help_text)


def report(world: Snapshot, slot: Slot, task: Task) -> TaskReport:
    """A task and what holds it up."""
    node = world.nodes.get(task.node_id)
    waits, until = _ending(world, task) if task.desired > TaskState.RUNNING else _beginning(world, slot, task)
    if node is not None and node.status.state in (NodeState.DISCONNECTED, NodeState.UNKNOWN):
        allowed = liveness.silence_allowed(world, node.status.state) or 0
        waits.append(f"node {node.hostname} does not answer: if that lasts, it is down and the task moves")
        until = until or node.status.since + allowed
    return TaskReport(
        task.id, task.name, task.status.state.word, task.desired.word,
        node.hostname if node else task.node_id, tuple(waits), until, task.status.err,
    )  # fmt: skip


def _ending(world: Snapshot, task: Task) -> tuple[list[str], int]:
    state, node = task.status.state, world.nodes.get(task.node_id)
    if not is_held(state):
        err = f" ({task.status.err})" if task.status.err else ""
        return [f"it is over: {state.word}{err}"], 0
    if node is None or node.status.state == NodeState.DOWN:
        name = node.hostname if node else task.node_id
        return [f"it was last seen {state.word} on node {name}, which is {'down' if node else 'gone'}"], 0
    grace = task.view.container.grace_seconds
    return [f"it is stopping on node {node.hostname}; it has {grace:g} s before it is killed"], 0


def _beginning(world: Snapshot, slot: Slot, task: Task) -> tuple[list[str], int]:
    state, node = task.status.state, world.nodes.get(task.node_id)
    waits: list[str] = []
    until = 0
    broken = why_broken(world, task)
    if broken and state >= TaskState.ASSIGNED:
        return [f"it will be replaced: {broken}"], 0
    if state < TaskState.ASSIGNED:
        waits.append(f"it waits for a node: {task.status.err or 'it was not yet judged'}")
    if task.desired == TaskState.READY:
        until, _ = waiting(world, slot, task)
        old = still_stopping(world, slot, task)
        if task.not_before > world.at:
            waits.append("it waits for the restart delay")
        if old:
            names = ", ".join(one.name for one in old)
            waits.append(f"it waits for {names} to stop (at most {PATIENCE // SECOND} s)")
    where = node.hostname if node else task.node_id
    service = world.services.get(task.service_id)
    waits += _on_node(task, where, service.view.labels if service else {})
    return waits, until


def _on_node(task: Task, where: str, labels: Mapping[str, str]) -> list[str]:
    state = task.status.state
    container = task.view.container
    if state == TaskState.ASSIGNED:
        return [f"node {where} has not taken it yet"]
    if state in (TaskState.ACCEPTED, TaskState.PREPARING):
        return [f"node {where} prepares it (pulls image {container.image} where it is missing)"]
    if state == TaskState.READY and task.desired >= TaskState.RUNNING:
        return [f"node {where} is about to start it"]
    if state == TaskState.STARTING:
        test = container.healthcheck.test if container.healthcheck else ()
        if test and test[0] != "NONE":
            return [f"it was started on node {where} and is not healthy yet"]
        ports, bound = listening.awaited(task.endpoint), listening.bound_of(labels)
        if ports and bound:
            listens = f"it has to listen on {listening.named(ports)}, or {bound:g} s to pass"
            return [f"node {where} starts it: {listens} (an image with a health check must become healthy)"]
        return [f"node {where} starts it (an image with a health check must become healthy)"]
    return []


# ---- nodes


def of_node(world: Snapshot, node: Node) -> Explanation:
    """A node: whether it takes tasks, and what is left of it."""
    seat = seat_of(node, 0, world.tasks_on(node.id))
    about = node.description
    state = node.status.message or node.status.state.word
    summary = (
        f"it {'takes new tasks' if seat.ready else 'takes no new tasks'}: {state}, {node.view.availability}; "
        f"free {cpus(max(seat.cpus, 0))} of {cpus(about.nano_cpus)} CPU and "
        f"{size(max(seat.memory, 0))} of {size(about.memory_bytes)} memory; {seat.total} tasks"
    )
    tasks = tuple(
        TaskReport(task.id, task.name, task.status.state.word, task.desired.word, node.hostname,
                   err=task.status.err)
        for task in world.tasks_on(node.id)
        if is_held(task.status.state)
    )  # fmt: skip
    return Explanation("node", node.id, node.hostname, summary, world.at, tasks)
