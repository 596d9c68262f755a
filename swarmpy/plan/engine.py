"""What one node does next for its tasks: assignments + observed containers -> actions for the Engine.

What belongs here: the agent's part of a task's life (accepted … running … ended) as a pure, level-triggered
function. It compares what is with what should be; it never asks how things came to be, so it repairs drift,
adopts containers after a restart of the daemon, and does nothing when there is nothing to do.
What does not belong here: executing actions, limits on how many run at once, retries (agent/worker).

    accepted -> preparing -> ready -(desired >= running)-> starting -(serves)-> running -> complete | failed
    an error before starting: rejected; desired >= shutdown: stopped, then shutdown
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from swarmpy.model.lifecycle import TERMINAL, TaskState
from swarmpy.model.messages import Assigned
from swarmpy.model.objects import PortStatus, TaskStatus
from swarmpy.model.specs import template_view
from swarmpy.plan import listening
from swarmpy.plan.container import create_body, grace_of
from swarmpy.plan.node import (
    Action,
    Cancel,
    Container,
    Create,
    Forget,
    LocalTask,
    NodeWorld,
    Pull,
    Remove,
    Report,
    Start,
    Stop,
)

_MESSAGES = {
    TaskState.ACCEPTED: "accepted",
    TaskState.PREPARING: "preparing",
    TaskState.READY: "prepared",
    TaskState.STARTING: "starting",
    TaskState.RUNNING: "started",
    TaskState.COMPLETE: "finished",
    TaskState.SHUTDOWN: "shutdown",
}
"""Docker's message for each step; an end by error keeps the message of the last good step."""
UNHEALTHY = "unhealthy container"
"""Docker's words for a container whose health check failed."""


def adopt(assigned: Assigned, known: LocalTask | None) -> LocalTask:
    """The local task for a new or changed assignment. States never go back, whoever lost their memory."""
    if known is None:
        message = _MESSAGES.get(assigned.state, "")
        return LocalTask(assigned=assigned, status=TaskStatus(state=assigned.state, message=message))
    status = known.status
    if assigned.state > status.state:
        status = msgspec.structs.replace(status, state=assigned.state)
    if known.assigned.desired > assigned.desired:  # a new leader may not know what an old one said last
        assigned = msgspec.structs.replace(assigned, desired=known.assigned.desired)
    return msgspec.structs.replace(known, assigned=assigned, status=status, leaving=False)


def plan(now: int, world: NodeWorld) -> tuple[Action, ...]:
    """What to do now, at most one Engine action per task; () when all is as it should be.

    `now` (ns since the epoch) only stamps the statuses. What waits for time to pass says so (Await).
    """
    found: dict[str, list[Container]] = {}
    for container in world.containers:
        found.setdefault(container.task_id, []).append(container)
    actions: list[Action] = []
    for key in sorted(world.tasks):
        local = world.tasks[key]
        containers = sorted(found.pop(key, ()), key=_preference)
        if key in world.busy:
            actions.extend(_interrupt(local, key in world.pulling))
            continue
        actions.extend(_decide(now, world, local, containers[0] if containers else None))
        actions.extend(_surplus(containers[1:], world))
    if world.complete:
        orphans = sorted((one for group in found.values() for one in group), key=lambda one: one.id)
        actions.extend(_surplus(orphans, world))
    return tuple(actions)


def _preference(container: Container) -> tuple[bool, str]:
    """Of several containers of one task (names make that impossible, hands do not) the living one counts."""
    return (not container.alive, container.id)


def _surplus(containers: Iterable[Container], world: NodeWorld) -> Iterable[Action]:
    for container in containers:
        if container.id in world.busy or container.state == "removing":
            continue
        if container.alive:
            yield Stop(container.id, container.id, grace_of(container.labels))
        else:
            yield Remove(container.id, container.id)


def _interrupt(local: LocalTask, pulling: bool) -> Iterable[Action]:
    unwanted = local.leaving or local.assigned.desired >= TaskState.SHUTDOWN
    return (Cancel(local.id),) if pulling and unwanted else ()


def _decide(now: int, world: NodeWorld, local: LocalTask, container: Container | None) -> tuple[Action, ...]:
    if container is not None and container.state == "removing":
        return ()
    if local.leaving:
        return (_take_away(local, container) if container else Forget(local.id),)
    if local.status.state in TERMINAL:
        return _after_the_end(local, container)
    if local.assigned.desired >= TaskState.SHUTDOWN:
        return _shut_down(now, local, container)
    if local.problem:
        return (_end_by_error(now, local, local.problem),)
    if container is None:
        return _without_container(now, world, local)
    if container.alive:
        return _alive(now, local, container)
    if container.state == "created":
        return _created(now, world, local, container)
    return (_ended(now, local, container),)


def _take_away(local: LocalTask, container: Container) -> Action:
    grace = _grace(local)
    return Stop(local.id, container.id, grace) if container.alive else Remove(local.id, container.id)


def _grace(local: LocalTask) -> float:
    return template_view(local.assigned.template).container.grace_seconds


def _after_the_end(local: LocalTask, container: Container | None) -> tuple[Action, ...]:
    """The manager may have ended it over our head (rejected, orphaned): then it must not go on running.
    Historic containers stay for `docker logs` until the task is removed."""
    if container is None:
        return ()
    if container.alive or local.assigned.desired == TaskState.REMOVE:
        return (_take_away(local, container),)
    return ()


def _shut_down(now: int, local: LocalTask, container: Container | None) -> tuple[Action, ...]:
    if container is not None and container.alive:
        return (Stop(local.id, container.id, _grace(local)),)
    if container is not None and container.state == "created" and local.status.state >= TaskState.STARTING:
        # The Engine may still be about to start it, for a daemon that died meanwhile.
        return (Remove(local.id, container.id),)
    status = _status(now, local, TaskState.SHUTDOWN, "shutdown", container)
    return (Report(local.id, status),)


def _status(
    now: int, local: LocalTask, state: TaskState, message: str, container: Container | None, err: str = ""
) -> TaskStatus:
    """The next status, with what the container tells, or what was known of it before."""
    old = local.status
    if container is None:
        return msgspec.structs.replace(old, state=state, at=now, message=message, err=err, pid=0, ports=())
    ended = not container.alive and container.state != "created"
    return TaskStatus(
        state=state,
        at=now,
        message=message,
        err=err,
        container_id=container.id,
        pid=container.pid if container.alive else 0,
        exit_code=container.exit_code if ended else 0,
        ports=_ports(container),
    )


def _ports(container: Container) -> tuple[PortStatus, ...]:
    if not container.alive:
        return ()
    return tuple(
        PortStatus(protocol, target, host) for protocol, target, host in sorted(set(container.ports))
    )


def _end_by_error(now: int, local: LocalTask, err: str, container: Container | None = None) -> Report:
    """Docker's rule: an error before starting rejects the task, one at or after it fails it. The message
    stays that of the last good step."""
    state = TaskState.FAILED if local.status.state >= TaskState.STARTING else TaskState.REJECTED
    return Report(local.id, _status(now, local, state, local.status.message, container, err))


def _without_container(now: int, world: NodeWorld, local: LocalTask) -> tuple[Action, ...]:
    state = local.status.state
    if state >= TaskState.STARTING:
        lost = local.status.container_id or "of task " + local.id
        return (_end_by_error(now, local, f"No such container: {lost}"),)
    reports: list[Action] = []
    for step, message in ((TaskState.ACCEPTED, "accepted"), (TaskState.PREPARING, "preparing")):
        if state < step:
            reports.append(Report(local.id, _status(now, local, step, message, None)))
    if any(place.network_id not in world.networks for place in local.assigned.networks):
        return tuple(reports)  # their tables are on the way
    try:
        body, places = create_body(local.assigned, world.node, world.cluster_id, world.networks)
    except ValueError as error:
        rejected = _status(now, local, TaskState.REJECTED, "preparing", None, str(error))
        return (*reports, Report(local.id, rejected))
    if not local.prepared:
        return (*reports, Pull(local.id, str(body["Image"]), local.assigned.auth))
    return (*reports, Create(local.id, local.assigned.name, body, places))


def _connected(local: LocalTask, world: NodeWorld, container: Container) -> bool:
    names = {world.networks[one.network_id].name for one in local.assigned.networks
             if one.network_id in world.networks}  # fmt: skip
    return names <= set(container.networks)


def _created(now: int, world: NodeWorld, local: LocalTask, container: Container) -> tuple[Action, ...]:
    state = local.status.state
    if state >= TaskState.RUNNING:
        return (_end_by_error(now, local, f"the container {container.id} was replaced", container),)
    if not _connected(local, world, container):
        return (Remove(local.id, container.id),)  # the daemon died between creating and connecting it
    actions: list[Action] = []
    if state < TaskState.READY:
        actions.append(Report(local.id, _status(now, local, TaskState.READY, "prepared", container)))
    if local.assigned.desired < TaskState.RUNNING:
        return tuple(actions)
    if state < TaskState.STARTING:
        actions.append(Report(local.id, _status(now, local, TaskState.STARTING, "starting", container)))
    return (*actions, Start(local.id, container.id))


def _alive(now: int, local: LocalTask, container: Container) -> tuple[Action, ...]:
    actions: list[Action] = []
    state = local.status.state
    reason = UNHEALTHY if container.health == "unhealthy" else container.severed
    if local.doomed or reason:
        if not local.doomed:
            doomed = msgspec.structs.replace(local.status, container_id=container.id)
            if state < TaskState.STARTING:
                doomed = _status(now, local, TaskState.STARTING, "starting", container)
            actions.append(Report(local.id, doomed, reason))
        return (*actions, Stop(local.id, container.id, _grace(local)))
    verdict = listening.judge(local.assigned, container)
    if state < TaskState.RUNNING and isinstance(verdict, listening.Await):
        actions.append(verdict)
    healthy = container.health in ("", "healthy") and container.wired and not actions
    target = TaskState.RUNNING if healthy else TaskState.STARTING
    if state < target:
        remark = verdict if healthy and isinstance(verdict, str) else ""
        message = _MESSAGES[target] + (f": {remark}" if remark else "")
        return (*actions, Report(local.id, _status(now, local, target, message, container), remark=remark))
    fresh = _status(local.status.at or now, local, state, local.status.message, container, local.status.err)
    changed = fresh != local.status and not actions  # by hand, or the Engine published its ports late
    return (Report(local.id, fresh),) if changed else tuple(actions)


def _ended(now: int, local: LocalTask, container: Container) -> Report:
    code = container.exit_code
    cause = local.doomed or ("out of memory" if container.oom_killed else container.error)
    if code == 0 and not local.doomed:
        return Report(local.id, _status(now, local, TaskState.COMPLETE, "finished", container))
    err = f"task: non-zero exit ({code})" + (f": {cause}" if cause else "")
    if code == 0:
        err = cause
    message = "started" if local.status.state >= TaskState.RUNNING else "starting"
    return Report(local.id, _status(now, local, TaskState.FAILED, message, container, err))
