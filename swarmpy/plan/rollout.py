"""The rolling update: slots whose task is not what the service asks for are renewed, a few at a time.

Everything is read from the tasks: a slot is *dirty* while its task runs an older template; *in flight* from
the birth of its first task of the new version until that one runs (and for the Delay after); then it is done.
What belongs here: the pace of an update and its status. What does not: waiting for the old task to stop
(promotion.py), scaling (replicas.py), judging whether the new version fails: who does that sets the service's
update status to paused or rollback_started, and this planner obeys.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from swarmpy.model.lifecycle import TERMINAL, TaskState
from swarmpy.model.objects import Service, Task, UpdateStatus
from swarmpy.model.specs import SECOND, UpdateConfig
from swarmpy.plan.global_ import wants
from swarmpy.plan.policy import may_restart, occupants
from swarmpy.plan.restart import restart_delay
from swarmpy.plan.slots import Slot, is_active, is_dirty, is_job, new_task, retire, slots_of
from swarmpy.plan.types import Plan, earliest, merged
from swarmpy.state.changes import Change, Put
from swarmpy.state.snapshot import Snapshot

UPDATING, COMPLETED = "updating", "completed"
PAUSED = frozenset({"paused", "rollback_paused"})
ROLLBACK_STARTED, ROLLBACK_COMPLETED = "rollback_started", "rollback_completed"
MESSAGE_UPDATING = "update in progress"
MESSAGE_COMPLETED = {UPDATING: "update completed", ROLLBACK_STARTED: "rollback completed"}


@dataclass(slots=True)
class Progress:
    """Where the slots of a service stand."""

    dirty: list[Slot] = field(default_factory=list)
    """Not begun."""
    replaced: list[tuple[list[Task], Task]] = field(default_factory=list)
    """Start-first: tasks that are still wanted, and the one that runs now instead of them."""
    flying: list[Slot] = field(default_factory=list)
    """The new task has not run yet."""
    resting: list[int] = field(default_factory=list)
    """Done, within the Delay: when each delay ends."""
    failed: list[int] = field(default_factory=list)
    """The new task failed beside the old one: when each may be tried again."""
    latest: int = 0
    """When the last slot of this update was done; 0: none was."""


def plan(now: int, world: Snapshot) -> Plan:
    """All services."""
    plans = [of_service(now, world, service) for service in world.services]
    return merged(plans)


def of_service(now: int, world: Snapshot, service: Service) -> Plan:
    """One service: finish what runs, start as many slots as the parallelism allows, keep the status."""
    status = service.update
    if is_job(service):
        return Plan()
    active = status is not None and status.state in MESSAGE_COMPLETED
    bucket = (world.bucket(service.id) or {}).values()
    if not active and all(task.spec_version == service.spec_version for task in bucket):
        return Plan()
    config = config_of(service)
    progress = survey(now, world, service, config.delay)
    changes: list[Change] = []
    for old, runs in progress.replaced:
        changes += [Put(retire(task, now), f"task {runs.name} runs in its place") for task in old]
    if status is not None and status.state in PAUSED:
        return Plan(tuple(changes))
    busy = len(progress.flying) + len(progress.resting) + len(progress.failed)
    room = len(progress.dirty) if config.parallelism == 0 else max(0, config.parallelism - busy)
    for slot in progress.dirty[:room]:
        changes += _renew(now, world, service, slot, config.order)
    watched_until = progress.latest + watch(config)
    changes += _status(now, service, progress, watched_until)
    ends = [watched_until] if active and watched_until > now else []
    return Plan(tuple(changes), earliest((*progress.resting, *progress.failed, *ends)))


def watch(config: UpdateConfig) -> int:
    """For how long, in ns, the last slot is watched before the update counts as complete. Whoever waits
    for the update sees all tasks run by then. Swarm's rule."""
    return config.monitor if config.delay < config.monitor else config.delay + SECOND


def config_of(service: Service) -> UpdateConfig:
    """The configuration that applies: a rollback has its own."""
    if service.update is not None and service.update.state.startswith("rollback"):
        return service.view.rollback_config or UpdateConfig(parallelism=1)
    return service.view.update


def survey(now: int, world: Snapshot, service: Service, delay: int) -> Progress:
    """Where each slot stands. Slots of global services on nodes that take nothing new are left alone."""
    progress = Progress()
    for slot in slots_of(world, service):
        node = world.nodes.get(slot.place) if isinstance(slot.place, str) else None
        if isinstance(slot.place, str) and not wants(service, node):
            continue
        held = occupants(slot)
        if not held:
            continue
        old = [task for task in held if is_dirty(service, task, world.nodes.get(task.node_id))]
        new = [task for task in held if task not in old]
        runs = _successor(old, new)
        others = [task for task in slot.live if runs is not None and task.id != runs.id]
        if runs and others:
            progress.replaced.append((others, runs))
        if old and not new:
            again = _again_at(world, slot, service)
            if again is None:
                progress.flying.append(slot)
            elif again > now:
                progress.failed.append(again)
            elif not isinstance(slot.place, str) or is_active(node):
                progress.dirty.append(slot)
            continue
        done_at = _done_at(slot, service)
        if isinstance(slot.place, str) and not is_active(node) and _is_held_back(new):
            continue  # its node was paused before it got the task: no reason to hold up all the others
        if done_at is None or (old and runs is None):
            progress.flying.append(slot)
            continue
        progress.latest = max(progress.latest, done_at)
        if done_at + delay > now:
            progress.resting.append(done_at + delay)
    return progress


def _again_at(world: Snapshot, slot: Slot, service: Service) -> int | None:
    """When a slot of old tasks may be renewed: now (0), unless that was tried and failed; then the restart
    policy says whether (None: not by itself) and after which delay."""
    last = slot.newest
    if last.spec_version != service.spec_version or last.status.state not in TERMINAL:
        return 0
    if not may_restart(slot, last):
        return None
    return last.state_since + restart_delay(world.nodes.get(last.node_id), last)


def _is_held_back(new: list[Task]) -> bool:
    """Whether none of the slot's new tasks was given to its node yet."""
    return all(task.status.state < TaskState.ASSIGNED for task in new)


def _successor(old: list[Task], new: list[Task]) -> Task | None:
    """The task that may stay alone in its slot: a new one that runs, else the last old one if it runs (the
    update that made it was itself overtaken by another)."""
    runs = [task for task in new if task.status.state == TaskState.RUNNING]
    if not runs and old and not new and old[-1].status.state == TaskState.RUNNING:
        runs = old[-1:]
    return runs[-1] if runs else None


def _done_at(slot: Slot, service: Service) -> int | None:
    """When the first task of the present version in the slot got to run or ended; None: not yet; long ago
    (0) for slots that this update did not touch."""
    if slot.newest.spec_version != service.spec_version:
        return 0
    tasks = slot.run_of(slot.newest)
    if not tasks[0].replaces:
        return 0
    return min((task.state_since for task in tasks if task.status.state >= TaskState.RUNNING), default=None)


def _renew(now: int, world: Snapshot, service: Service, slot: Slot, order: str) -> list[Change]:
    """Make the slot's new task. Stop-first: the old one is shut down, and the new one, prepared meanwhile,
    is promoted when it has stopped. Start-first: the old one stays until the new one runs."""
    why = f"service {service.name} was updated ({order})"
    old = occupants(slot)
    main = max(old, key=lambda task: (task.status.state not in TERMINAL, task.status.state, task.id))
    overlap = order == "start-first"
    task = new_task(
        now, world, service, slot, why="rollout", replaces=main.id,
        desired=TaskState.RUNNING if overlap else TaskState.READY,
    )  # fmt: skip
    # What does not run serves nobody: even start-first need not wait for it.
    changes: list[Change] = [
        Put(retire(one, now), why) for one in old
        if one.desired <= TaskState.RUNNING and not (overlap and one.status.state == TaskState.RUNNING)
    ]  # fmt: skip
    return [*changes, Put(task, why)]


def _status(now: int, service: Service, progress: Progress, watched_until: int) -> list[Change]:
    """The update's status: it appears when something is dirty, and completes when everything was renewed and
    watched."""
    status = service.update
    going = status is not None and status.state in MESSAGE_COMPLETED
    if not going and progress.dirty:
        fresh = UpdateStatus(state=UPDATING, started_at=now, message=MESSAGE_UPDATING)
        return [Put(msgspec.structs.replace(service, update=fresh), f"the update of {service.name} began")]
    if status is None or not going or watched_until > now:
        return []
    if progress.dirty or progress.flying or progress.failed:
        return []
    verb = ROLLBACK_COMPLETED if status.state == ROLLBACK_STARTED else COMPLETED
    done = msgspec.structs.replace(
        status, state=verb, completed_at=now, message=MESSAGE_COMPLETED[status.state]
    )
    return [Put(msgspec.structs.replace(service, update=done), f"the update of {service.name} is complete")]
