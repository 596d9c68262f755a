"""Replicas: as many slots as a replicated service asks for, and none for a service that was removed.

What belongs here: adding and removing slots. What does not: replacing the task of a slot (restart.py,
rollout.py), choosing nodes (placement.py), deleting tasks (reap.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Set
from itertools import islice

from swarmpy.model.lifecycle import TaskState
from swarmpy.model.objects import Service
from swarmpy.plan.roster import Homes, Roster
from swarmpy.plan.slots import Place, Slot, is_job, new_task, replicas_of, retire, stopped
from swarmpy.plan.types import NOTHING, Plan
from swarmpy.state.changes import Change, Put
from swarmpy.state.snapshot import Snapshot

ADDED = 1000
"""Slots that one plan adds to a service, or takes from one, at most; the next follow at once. One batch holds
no more, and a leader that works out tens of thousands each time only to commit the first of them is silent
for too long."""


def of_removed(now: int, slot: Slot) -> Plan:
    """The tasks of one place of a removed service are to be removed."""
    return Plan(tuple(
        Put(retire(task, now, TaskState.REMOVE), f"service {task.service_name} was removed")
        for task in slot.tasks
    ))  # fmt: skip


def of_service(now: int, world: Snapshot, service: Service, roster: Roster, most: int = ADDED) -> Plan:
    """One service: at most so many slots added from the lowest free number, or removed in Swarm's order."""
    if service.view.is_global or is_job(service):
        return NOTHING
    wanted = replicas_of(service)
    excess = len(roster.filled) - wanted
    changes: list[Change] = []
    if excess > 0:
        why = f"service {service.name} was scaled down to {wanted}"
        for place in victims(roster, min(excess, most)):
            changes += _removed(now, roster.slots[place], why)
    else:
        roster.forget_homes()
    if excess < 0:
        changes += _added(now, world, service, roster, min(-excess, most))
    for place in sorted(roster.vacant):
        if isinstance(place, int) and place > wanted:
            why = f"slot {place} of service {service.name} is no longer used"
            changes += _removed(now, roster.slots[place], why)
    return Plan(tuple(changes), now if abs(excess) > most else None)


def _added(now: int, world: Snapshot, service: Service, roster: Roster, count: int) -> list[Change]:
    why = f"service {service.name} wants {replicas_of(service)} replicas"
    changes: list[Change] = []
    for number in islice(roster.free(), count):
        slot = roster.slots.get(number)
        old = slot if slot is not None and slot.tasks else None
        # Where the slot's last task is still stopping, the new one waits for it; it may be one that an
        # earlier scaling down removed.
        waits_for = next(
            (task.id for task in reversed(slot.leaving) if not stopped(world, task)), ""
        ) if slot is not None else ""  # fmt: skip
        if old is not None and any(not stopped(world, task) for task in old.tasks):
            waits_for = old.newest.id
        task = new_task(
            now, world, service, old or number, why="replicas", replaces=waits_for,
            desired=TaskState.READY if waits_for else TaskState.RUNNING,
        )  # fmt: skip
        changes.append(Put(task, f"{why}: slot {number} was free"))
    return changes


def _removed(now: int, slot: Slot, why: str) -> list[Change]:
    return [Put(retire(task, now, TaskState.REMOVE), why) for task in slot.tasks]


def victims(roster: Roster, count: int) -> list[Place]:
    """The places to give up: first those that are on no node yet or in the middle of a change, then those on
    the nodes that have most copies, then those that do not run, then the highest. Best first."""
    homes = roster.homes()
    nowhere = roster.filled.difference(*homes.nodes.values())
    ranked: list[Place] = list(reversed(_by_health(nowhere, homes.idle)))[:count]  # the first to go first
    if len(ranked) < count:
        levels = _highest(homes, count - len(ranked))
        for copies in sorted(levels, reverse=True):
            ranked += reversed(_by_health(levels[copies], homes.idle))
    return ranked[:count][::-1]


def _highest(homes: Homes, count: int) -> dict[int, list[Place]]:
    """At least so many places (or all), those whose nodes have most copies: by how many healthier copies
    their nodes have."""
    sizes = Counter(map(len, homes.nodes.values()))
    least, more, found = max(sizes, default=0), 0, 0
    while least > 0 and found < count:
        more += sizes[least]  # nodes that have as many copies, or more
        found += more
        least -= 1
    levels: dict[int, list[Place]] = {}
    for places in homes.nodes.values():
        if len(places) > least:
            ordered = _by_health(places, homes.idle)
            for copies in range(least, len(places)):
                levels.setdefault(copies, []).append(ordered[copies])
    return levels


def _by_health(places: Collection[Place], idle: Set[Place]) -> list[Place]:
    """Those that run first, then by number."""
    if idle.isdisjoint(places):
        return sorted(places)
    return sorted(places, key=lambda place: (place in idle, place))
