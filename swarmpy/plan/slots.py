"""Slots: the tasks of a service by the place they fill, and the ways in which a task is made and ended.

A slot is a number for replicated services and a node for global ones; its tasks are a history of which at
most one should run. What belongs here: reading that history, making and retiring a task.
What does not: when to do so (replicas, global_, restart, rollout), where it runs (placement).
"""

from __future__ import annotations

import json
from functools import lru_cache

import msgspec

from swarmpy.model import ids
from swarmpy.model.lifecycle import TERMINAL, Availability, NodeState, TaskState
from swarmpy.model.objects import Node, Service, Task, TaskStatus
from swarmpy.model.specs import compact, endpoint_view, service_view
from swarmpy.plan import constraints
from swarmpy.state.snapshot import Snapshot

MESSAGE_CREATED = "created"
MESSAGE_SHUTDOWN = "shutdown"

Place = int | str
"""A slot number, or a node id for global services."""


class Slot(msgspec.Struct, frozen=True, gc=False):
    """The tasks of one place, oldest first; those that are to be removed are kept apart, in `leaving`."""

    place: Place
    tasks: tuple[Task, ...]
    leaving: tuple[Task, ...] = ()

    @property
    def live(self) -> list[Task]:
        """Tasks that are still wanted."""
        return [task for task in self.tasks if task.desired <= TaskState.RUNNING]

    @property
    def newest(self) -> Task:
        """The task made last."""
        return self.tasks[-1]

    def run_of(self, task: Task) -> list[Task]:
        """The unbroken run of tasks of one spec version that the task belongs to, oldest first. A rollback
        takes up an old version again: its tasks of long ago are another run."""
        place = next(place for place, one in enumerate(self.tasks) if one.id == task.id)
        first = last = place
        while first > 0 and self.tasks[first - 1].spec_version == task.spec_version:
            first -= 1
        while last + 1 < len(self.tasks) and self.tasks[last + 1].spec_version == task.spec_version:
            last += 1
        return list(self.tasks[first : last + 1])


def is_job(service: Service) -> bool:
    """Whether the service's tasks run to completion; such services are no concern of these planners."""
    mode = service.view.mode
    return mode.replicated_job is not None or mode.global_job is not None


def slots_of(world: Snapshot, service: Service) -> list[Slot]:
    """The service's slots, by place."""
    is_global = service.view.is_global
    places: dict[Place, list[Task]] = {}
    for task in (world.bucket(service.id) or {}).values():
        places.setdefault(task.node_id if is_global else task.slot, []).append(task)
    # All places of a service are of one kind, so they compare.
    slots = (slot_of(place, places[place]) for place in sorted(places))
    return [slot for slot in slots if slot.tasks]


def slot_of(place: Place, tasks: list[Task]) -> Slot:
    """The slot that the tasks make."""
    if len(tasks) == 1:
        [task] = tasks
        return Slot(place, (task,)) if task.desired < TaskState.REMOVE else Slot(place, (), (task,))
    tasks = sorted(tasks, key=lambda task: (task.created_at, task.id))
    return Slot(
        place, tuple(task for task in tasks if task.desired < TaskState.REMOVE),
        tuple(task for task in tasks if task.desired >= TaskState.REMOVE),
    )  # fmt: skip


def stopped(world: Snapshot, task: Task) -> bool:
    """Whether nothing runs of the task any more, or its node cannot be asked."""
    state = task.status.state
    return state in TERMINAL or state < TaskState.ASSIGNED or not reachable(world.nodes.get(task.node_id))


def reachable(node: Node | None) -> bool:
    """Whether the node is a member that is not down."""
    return node is not None and node.status.state != NodeState.DOWN


def availability(node: Node) -> Availability:
    """What the operator asked of the node."""
    return Availability[node.view.availability.upper()]


def is_active(node: Node | None) -> bool:
    """Whether the operator lets the node take new tasks."""
    return node is not None and availability(node) == Availability.ACTIVE


def usable(node: Node | None) -> bool:
    """Whether tasks may stay on the node: a member, not down, not drained."""
    return node is not None and reachable(node) and availability(node) != Availability.DRAIN


@lru_cache(maxsize=20_000)
def spec_parts(spec: str) -> tuple[str, str]:
    """The texts of a service spec's TaskTemplate and EndpointSpec, unknown fields included."""
    raw = json.loads(spec or "{}")
    return compact(raw.get("TaskTemplate") or {}), compact(raw.get("EndpointSpec") or {})


def new_task(
    now: int, world: Snapshot, service: Service, where: Place | Slot, *, why: str,
    desired: TaskState = TaskState.RUNNING, replaces: str = "", not_before: int = 0,
) -> Task:  # fmt: skip
    """A fresh task of the service's present spec for a place, or for a slot that had tasks already.

    Its id follows from where and when it is made and by which planner (`why`), so no two tasks share one.
    It is younger than all tasks of its slot, also when all happens within one instant.
    """
    place, youngest = (where.place, where.newest.created_at) if isinstance(where, Slot) else (where, now - 1)
    template, endpoint = spec_parts(service.spec)
    task_id, count = "", 0
    while not task_id or task_id in world.tasks:
        task_id = ids.derive(service.id, place, world.version, now, why, count)
        count += 1
    return Task(
        id=task_id, service_id=service.id, service_name=service.name,
        slot=place if isinstance(place, int) else 0, node_id=place if isinstance(place, str) else "",
        template=template, endpoint=endpoint, spec_version=service.spec_version, auth=service.auth,
        desired=desired, status=TaskStatus(state=TaskState.NEW, at=now, message=MESSAGE_CREATED),
        state_since=now, not_before=not_before, replaces=replaces,
        created_at=max(now, youngest + 1),
    )  # fmt: skip


def with_state(task: Task, now: int, state: TaskState, message: str, err: str = "") -> Task:
    """The task in an observed state that a manager sets."""
    status = msgspec.structs.replace(task.status, state=state, at=now, message=message, err=err)
    return msgspec.structs.replace(task, status=status, state_since=now)


def retire(task: Task, now: int, desired: TaskState = TaskState.SHUTDOWN) -> Task:
    """The task, no longer wanted; one that no node was ever told of has thereby ended."""
    ended = msgspec.structs.replace(task, desired=max(task.desired, desired))
    if task.status.state < TaskState.ASSIGNED:
        ended = with_state(ended, now, TaskState.SHUTDOWN, MESSAGE_SHUTDOWN, task.status.err)
    return ended


def is_dirty(service: Service, task: Task, node: Node | None) -> bool:
    """Whether the task runs something else than the service's present spec asks for.

    Only the template and the endpoint count. A change of placement alone makes nothing dirty while the
    task's node still satisfies the constraints.
    """
    if task.spec_version == service.spec_version:
        return False
    dirty = dirtiness(service, task.template, task.endpoint)
    if dirty is None:
        return node is None or not constraints.satisfied(
            service.view.task_template.placement.constraints, node
        )
    return dirty


def dirtiness(service: Service, template: str, endpoint: str) -> bool | None:
    """`is_dirty` of a task of an older version with that template and endpoint; None: its node decides."""
    wanted, port = spec_parts(service.spec)
    same, same_but_placement = _compare(template, wanted)
    if endpoint_view(endpoint) != endpoint_view(port):
        return True
    if same:
        return False
    return None if same_but_placement else True


@lru_cache(maxsize=20_000)
def _compare(old: str, new: str) -> tuple[bool, bool]:
    """Whether two templates are equal, and whether they are but for their placement."""
    if old == new:
        return True, True
    before, after = _plain(json.loads(old or "{}")), _plain(json.loads(new or "{}"))
    if before == after:
        return True, True
    before.pop("Placement", None)
    after.pop("Placement", None)
    return False, before == after


def _plain(value: object) -> dict[str, object]:
    """The object without what Go's clients send for absent: nulls, also nested ones."""
    plain = _pruned(value)
    return plain if isinstance(plain, dict) else {}


def _pruned(value: object) -> object:
    if isinstance(value, dict):
        return {key: _pruned(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_pruned(item) for item in value]
    return value


def replicas_of(service: Service) -> int:
    """How many tasks a replicated service wants."""
    return service_view(service.spec).replicas
