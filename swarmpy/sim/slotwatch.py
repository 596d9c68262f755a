"""Invariants of slots over the whole run: real containers, the pace of updates, restarts.

What belongs here: what one batch alone cannot show: who may run beside whom, how often and how soon a slot is
filled again. What does not: single batches (invariants.py, state/invariants.py).

*At most one container runs per slot* (a node, for global services), checked whenever a container starts on
any Engine. The only exceptions, and what the code calls them:

- *overlapping*: a start-first update made the one task to run beside the other;
- *abandoned*: the leader no longer wanted the task while its node was down or no member, so it could not know
  whether the container still runs; such a task is excused for good, because it is never wanted again;
- *overdue*: the task took longer to stop than plan/promotion waits for one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from swarmpy.model.lifecycle import TERMINAL, NodeState, TaskState
from swarmpy.model.objects import Service, Task
from swarmpy.plan.container import TASK_LABEL
from swarmpy.sim.containers import Container
from swarmpy.sim.invariants import Broken
from swarmpy.sim.stage import Stage
from swarmpy.state.invariants import check, check_transition
from swarmpy.state.snapshot import Snapshot

OVERDUE = 60 * 10**9
"""Nanoseconds that a replacement waits at least for the task before it."""
Place = tuple[str, int | str]
"""Service and slot, or service and node."""


class SlotWatch:
    """See the file's charter. `step` is fed every new world, in order."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.tasks: dict[str, Task] = {}
        """Every task that ever was, as it was last."""
        self.renewing: set[str] = set()
        """Tasks with which an update began on their slot, and what replaced those."""
        self.forgotten: set[str] = set()
        """Tasks that ended and are kept no more."""
        self.abandoned: set[str] = set()
        self.overdue: set[str] = set()
        self.overlapping: dict[str, frozenset[str]] = {}
        """Task to the tasks beside which it may run."""
        self.restarts: dict[str, int] = {}
        """Task to how many restarts of the same version in its slot led to it."""
        self.earliest: dict[str, int] = {}
        """A restarted task to the cluster time before which it may not start."""

    # ------------------------------------------------------------ worlds

    def step(self, old: Snapshot, new: Snapshot) -> Iterator[Broken]:
        """A batch changed the world."""
        for violation in (*check(new), *check_transition(old, new)):
            yield violation.name, violation.why
        fresh: list[Task] = []
        for key, task in new.tasks.rows.items():
            before = old.tasks.get(key)
            if before is task:
                continue
            self.tasks[key] = task
            if before is None:
                fresh.append(task)
                yield from self._made(new, task)
            if task.desired == TaskState.RUNNING and (before is None or before.desired < TaskState.RUNNING):
                yield from self._may_start(new, task)
            if before is not None:
                yield from _taken_out_early(old, new, before, task)
        if old.tasks is not new.tasks:
            gone = [task for key, task in old.tasks.rows.items() if key not in new.tasks.rows]
            self.forgotten.update(task.id for task in gone)
            # In one batch with its node: where few tasks are kept it is never seen on one that is no member.
            self.abandoned.update(task.id for task in gone if task.node_id and task.node_id not in new.nodes)
        self._abandon(new)
        yield from _drained(new)
        yield from self._pace(old, new, fresh)

    def _abandon(self, world: Snapshot) -> None:
        for node in world.nodes.rows.values():
            if node.status.state is NodeState.DOWN:
                self.abandoned.update(
                    task.id for task in world.tasks_on(node.id) if task.desired > TaskState.RUNNING
                )
        for node_id in world.lost_nodes():
            self.abandoned.update(task.id for task in world.tasks_on(node_id))

    def _made(self, new: Snapshot, task: Task) -> Iterator[Broken]:
        """A new task: may it overlap, and which restart of its slot is it?"""
        service, before = new.services.get(task.service_id), self.tasks.get(task.replaces)
        if service is None or before is None:
            return
        if before.spec_version < task.spec_version or before.id in self.renewing:
            self.renewing.add(task.id)
        if task.desired == TaskState.RUNNING and service.view.update.order == "start-first":
            beside = (one for one in new.tasks_of(service.id) if place_of(one) == place_of(task))
            self.overlapping[task.id] = frozenset(one.id for one in beside)
        if before.spec_version != task.spec_version or before.desired == TaskState.REMOVE:
            return  # another version, or the slot was given up and is filled anew: no restart
        count = self.restarts[task.id] = self.restarts.get(before.id, 0) + 1
        policy = before.view.restart_policy
        if 0 < policy.max_attempts < count and not policy.window:
            yield "restart-attempts", (f"task {task.name} is restart {count} of its slot; "
                                       f"{policy.max_attempts} are allowed")  # fmt: skip
        node = new.nodes.get(before.node_id)
        usable = node is not None and node.status.state is not NodeState.DOWN
        if before.id in new.tasks:
            before = new.tasks[before.id]
        if usable and node is not None and node.view.availability != "drain" and before.status.state in (
            TaskState.FAILED, TaskState.COMPLETE, TaskState.REJECTED,
        ):  # fmt: skip
            self.earliest[task.id] = before.state_since + policy.delay

    def _may_start(self, world: Snapshot, task: Task) -> Iterator[Broken]:
        """A task may run from now on."""
        earliest = self.earliest.get(task.id, 0)
        if world.at < earliest:
            yield "restart-delay", f"task {task.name} starts {(earliest - world.at) / 1e9:.2f} s too early"
        if world.at >= max(task.not_before, task.created_at) + OVERDUE:
            self.overdue.update(one.id for one in world.tasks_of(task.service_id)
                                if place_of(one) == place_of(task) and one.id != task.id)  # fmt: skip

    # ------------------------------------------------------------ updates

    def _pace(self, old: Snapshot, new: Snapshot, fresh: Iterable[Task]) -> Iterator[Broken]:
        """A batch that takes more slots into an update leaves no more under way than the parallelism (21)."""
        taken = {task.service_id for task in fresh if _renews(old, new, task)}
        for key in sorted(taken):
            service = new.services[key]
            allowed, flying = service.view.update.parallelism, self._flying(new, service)
            if 0 < allowed < flying:
                yield "update-parallelism", (f"the update of {service.name} has {flying} slots under way, "
                                             f"{allowed} are allowed")  # fmt: skip

    def _flying(self, world: Snapshot, service: Service) -> int:
        """Slots with a task of the present version, made in place of another, where no task of this version
        has run or ended yet, be it forgotten since."""
        begun = {place_of(task) for task in world.tasks_of(service.id)
                 if task.spec_version == service.spec_version and task.id in self.renewing
and task.desired <= TaskState.RUNNING and not _held_back(world, task)}  # fmt: skip
        done = {place_of(task) for task in self.tasks.values()
                if task.service_id == service.id and task.spec_version == service.spec_version
                and (task.status.state >= TaskState.RUNNING or task.id in self.forgotten)}  # fmt: skip
        return len(begun - done)

    # ------------------------------------------------------------ containers

    def starts(self, container: Container, machine: str,
               running: Iterable[tuple[Container, str]]) -> Iterator[Broken]:  # fmt: skip
        """A container starts on a machine while those others run: none of them may be of its slot."""
        task = self.tasks.get(container.labels.get(TASK_LABEL, ""))
        if task is None:
            yield "no-stray", f"a container starts on {machine} that is of no task: {container.name}"
            return
        for other, where in running:
            beside = self.tasks.get(other.labels.get(TASK_LABEL, ""))
            if beside is None or place_of(beside) != place_of(task):
                continue
            if beside.id == task.id:
                yield "one-container", f"task {task.name} runs twice: on {where} and on {machine}"
            elif not self._excused(task, beside):
                yield "one-per-slot", (f"{task.name} starts on {machine} while {beside.name} of its slot "
                                       f"runs on {where}")  # fmt: skip

    def _excused(self, task: Task, other: Task) -> bool:
        return (task.id in self.abandoned or other.id in self.abandoned or other.id in self.overdue
                or other.id in self.overlapping.get(task.id, ())
                or task.id in self.overlapping.get(other.id, ()))  # fmt: skip


def place_of(task: Task) -> Place:
    """The slot that the task fills."""
    return task.service_id, task.slot or task.node_id


def _held_back(world: Snapshot, task: Task) -> bool:
    """Whether the task of a global service waits for its node, which takes nothing new at present."""
    node = world.nodes.get(task.node_id)
    waits = not task.slot and task.status.state < TaskState.ASSIGNED
    return waits and node is not None and node.view.availability != "active"


def _drained(world: Snapshot) -> Iterator[Broken]:
    """A drained node keeps nothing: its tasks are to end in the batch that drains it (19)."""
    for node in world.nodes.rows.values():
        if node.view.availability != "drain":
            continue
        for task in world.tasks_on(node.id):
            if task.desired <= TaskState.RUNNING and task.status.state not in TERMINAL:
                yield "drained-lets-go", f"task {task.name} stays wanted on drained node {node.hostname}"


def _renews(old: Snapshot, new: Snapshot, task: Task) -> bool:
    """Whether a new task was made by an update, in place of one that could have gone on."""
    before, now = old.tasks.get(task.replaces), new.tasks.get(task.replaces)
    if task.service_id not in new.services or before is None or now is None:
        return False  # only what ended goes from the history
    node = new.nodes.get(before.node_id)
    return (before.spec_version < task.spec_version and before.desired == TaskState.RUNNING
            and before.status.state not in TERMINAL
            and now.status.state not in TERMINAL - {TaskState.SHUTDOWN}
            and node is not None and node.status.state is not NodeState.DOWN
            and node.view.availability != "drain")  # fmt: skip


def _taken_out_early(old: Snapshot, new: Snapshot, before: Task, after: Task) -> Iterator[Broken]:
    """A start-first update stops a task only when another runs in its slot (21)."""
    service, node = new.services.get(after.service_id), new.nodes.get(after.node_id)
    if service is None or node is None or service.view.update.order != "start-first":
        return
    stopped = before.desired == TaskState.RUNNING and after.desired == TaskState.SHUTDOWN
    healthy = after.status.state is TaskState.RUNNING and node.status.state is not NodeState.DOWN
    if not stopped or not healthy or node.view.availability == "drain":
        return
    beside = [
        one for one in new.tasks_of(service.id) if place_of(one) == place_of(after) and one is not after
    ]
    if not any(one.status.state is TaskState.RUNNING for one in beside):
        yield "start-first", f"task {after.name} is stopped before another runs in its slot"
