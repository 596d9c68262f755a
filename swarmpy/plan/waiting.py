"""Waiting: the tasks that no node has yet, in groups that are alike, kept up to date by those that changed.

What belongs here: who waits, and who of them is to be looked at. What does not: where they go (placement.py),
what nodes have left (seats.py).
"""

from __future__ import annotations

from collections.abc import Iterable

from swarmpy.model.lifecycle import TaskState
from swarmpy.model.objects import Network, Task
from swarmpy.plan import places
from swarmpy.plan.filters import Needs, needs

Group = tuple[str, int, str, str]
"""(service id, spec version, template, endpoint): tasks that are alike for placement."""
Kind = tuple[Needs, str]
"""What tasks need, and their service where that matters to whether they fit ("" if not)."""


def group_of(task: Task) -> Group:
    """The group of a task."""
    return (task.service_id, task.spec_version, task.template, task.endpoint)


class Crowd:
    """The waiting tasks of a group."""

    __slots__ = ("_oldest", "err", "kind", "need", "odd", "tasks")

    def __init__(self, group: Group) -> None:
        self.need = needs(group[2], group[3])
        self.kind: Kind = (self.need, group[0] if self.need.max_replicas else "")
        self.tasks: dict[str, Task] = {}
        self.err = ""
        """The reason that they wait, as it was found last..."""
        self.odd: set[str] = set()
        """...and the ids of those that may not have been told."""
        self._oldest: int | None = None

    def put(self, task: Task) -> None:
        """A task that waits."""
        self.tasks[task.id] = task
        self.odd.add(task.id)
        self._oldest = None

    def pop(self, task_id: str) -> None:
        """It does not wait any more, or not as it was."""
        self.tasks.pop(task_id, None)
        self.odd.discard(task_id)
        self._oldest = None

    @property
    def oldest(self) -> int:
        """When the oldest of them was made."""
        if self._oldest is None:
            self._oldest = min(task.created_at for task in self.tasks.values())
        return self._oldest


class Waiting:
    """All tasks that wait."""

    def __init__(self) -> None:
        self.crowds: dict[Group, Crowd] = {}
        """Tasks that need a node, by their groups..."""
        self.active: set[Group] = set()
        """...and the groups to look at."""
        self.given: dict[str, Task] = {}
        """Tasks whose node is given, by id..."""
        self.restless: set[str] = set()
        """...and those to look at."""
        self.lacking: dict[str, Task] = {}
        """Tasks without their addresses, by id."""
        self.kinds: dict[Kind, set[Group]] = {}
        """The groups of each kind."""
        self._given_on: dict[str, set[str]] = {}

    def __bool__(self) -> bool:
        return bool(self.crowds or self.given)

    def revise(self, changed: Iterable[tuple[Task | None, Task | None]], ingress: Network | None) -> None:
        """Take in what became of tasks: each as it was and as it is."""
        for before, after in changed:
            if before is not None and before.status.state < TaskState.ASSIGNED:
                self._pop(before)
            if (after is not None and after.status.state < TaskState.ASSIGNED
                    and after.desired <= TaskState.COMPLETE):  # fmt: skip
                self._put(after, ingress)

    def begin(self, tasks: Iterable[Task], ingress: Network | None) -> None:
        """Begin anew, with all tasks that no node has."""
        for held in (
            self.crowds,
            self.active,
            self.given,
            self.restless,
            self.lacking,
            self.kinds,
            self._given_on,
        ):
            held.clear()
        self.revise(((None, task) for task in tasks), ingress)

    def of_kinds(self, kinds: Iterable[Kind]) -> set[Group]:
        """The groups of these kinds."""
        return {group for kind in kinds for group in self.kinds.get(kind, ())}

    def given_on(self, nodes: Iterable[str]) -> set[str]:
        """Ids of the waiting tasks for which one of these nodes is given."""
        return {task_id for node_id in nodes for task_id in self._given_on.get(node_id, ())}

    def _put(self, task: Task, ingress: Network | None) -> None:
        if not places.settled(task, ingress):
            self.lacking[task.id] = task
        elif task.node_id:
            self.given[task.id] = task
            self.restless.add(task.id)
            self._given_on.setdefault(task.node_id, set()).add(task.id)
        else:
            group = group_of(task)
            crowd = self.crowds.get(group)
            if crowd is None:
                crowd = self.crowds[group] = Crowd(group)
                self.kinds.setdefault(crowd.kind, set()).add(group)
            crowd.put(task)
            self.active.add(group)

    def _pop(self, task: Task) -> None:
        if self.lacking.pop(task.id, None) is not None:
            return
        if task.node_id:
            if self.given.pop(task.id, None) is not None:
                self.restless.discard(task.id)
                self._given_on[task.node_id].discard(task.id)
                if not self._given_on[task.node_id]:
                    del self._given_on[task.node_id]
            return
        group = group_of(task)
        crowd = self.crowds.get(group)
        if crowd is None:
            return
        crowd.pop(task.id)
        if not crowd.tasks:
            del self.crowds[group]
            self.active.discard(group)
            self.kinds[crowd.kind].discard(group)
            if not self.kinds[crowd.kind]:
                del self.kinds[crowd.kind]
