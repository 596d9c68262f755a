"""The rolling update: slots whose task is not what the service asks for are renewed, a few at a time.

Everything is read from the tasks (survey.py). What belongs here: the pace of an update and its status. What
does not: waiting for the old task to stop (promotion.py), scaling (replicas.py), judging whether the new
version fails: who does that sets the service's update status to paused or rollback_started, and this planner
obeys.
"""

from __future__ import annotations

import msgspec

from swarmpy.model.lifecycle import TERMINAL, TaskState
from swarmpy.model.objects import Service, UpdateStatus
from swarmpy.model.specs import SECOND, UpdateConfig
from swarmpy.plan.policy import occupants
from swarmpy.plan.roster import Roster
from swarmpy.plan.slots import Slot, is_job, new_task, retire
from swarmpy.plan.survey import Progress, Survey
from swarmpy.plan.types import Plan, earliest
from swarmpy.state.changes import Change, Put
from swarmpy.state.snapshot import Snapshot

UPDATING, COMPLETED = "updating", "completed"
PAUSED = frozenset({"paused", "rollback_paused"})
ROLLBACK_STARTED, ROLLBACK_COMPLETED = "rollback_started", "rollback_completed"
MESSAGE_UPDATING = "update in progress"
MESSAGE_COMPLETED = {UPDATING: "update completed", ROLLBACK_STARTED: "rollback completed"}


def of_service(now: int, world: Snapshot, service: Service, roster: Roster, survey: Survey) -> Plan:
    """One service: finish what runs, start as many slots as the parallelism allows, keep the status. The
    survey may be an earlier one of the same spec."""
    status = service.update
    if is_job(service):
        return Plan()
    active = status is not None and status.state in MESSAGE_COMPLETED
    if not active and roster.versions.keys() <= {service.spec_version}:
        roster.unsurveyed = None
        return Plan()
    if roster.unsurveyed is None:
        survey.clear()
        roster.unsurveyed = set(roster.slots)
    survey.revise(world, service, ((place, roster.slots.get(place)) for place in roster.unsurveyed))
    roster.unsurveyed.clear()
    config = config_of(service)
    progress = survey.at(now, config.delay)
    changes: list[Change] = []
    for place in sorted(survey.replaced):
        old, runs = survey.replaced[place]
        changes += [Put(retire(task, now), f"task {runs.name} runs in its place") for task in old]
    if status is not None and status.state in PAUSED:
        return Plan(tuple(changes))
    busy = progress.flying + len(progress.resting) + len(progress.failed)
    room = len(progress.dirty) if config.parallelism == 0 else max(0, config.parallelism - busy)
    for place in progress.dirty[:room]:
        changes += _renew(now, world, service, roster.slots[place], config.order)
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
