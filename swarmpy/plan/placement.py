"""Placement: which node takes a task. Filters decide who may, counts decide who does.

Order (SwarmKit's): nodes on which this version of the service failed five times in five minutes go last, then
fewest active tasks of the service, then fewest tasks in all, then a fixed order that no user chose. With
spread preferences, branches of the label tree are evened out first. Reservations are checked, never weighed.
What does not belong here: what a node must have (filters.py), why it does not (explain.py).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from functools import lru_cache

import msgspec

from swarmpy.model import ids
from swarmpy.model.lifecycle import TaskState
from swarmpy.model.objects import Task, TaskStatus
from swarmpy.model.specs import SECOND
from swarmpy.plan import constraints, places
from swarmpy.plan.filters import Needs, Seat, Seats, first_failing, needs, reasons, room_for
from swarmpy.plan.types import Plan
from swarmpy.state.changes import Change, Put
from swarmpy.state.snapshot import Snapshot

MESSAGE_PENDING = "pending task scheduling"
MESSAGE_ASSIGNED = "scheduler assigned task to node"
MESSAGE_CONFIRMED = "scheduler confirmed task can run on preassigned node"

MAX_FAILURES = 5
FAILURE_WINDOW = 300 * SECOND

Group = tuple[str, int, str, str]
"""(service id, spec version, template, endpoint): tasks that are alike for placement."""
Take = Callable[[Seat], bool]
"""Called with a node that fits: puts one task there and says whether more nodes are wanted."""
Order = tuple[int, int, int, int]
"""(failures if many, tasks of the service, tasks, rank): smaller is better."""


def plan(now: int, world: Snapshot, seats: Seats | None = None) -> Plan:
    """Every task that waits for a node gets one, or the reason why none fits. Tasks without their addresses
    are not looked at: they have their reason already (addresses.py). `seats` spares working out
    again what did not change since the last plan."""
    ingress = world.ingress_network()
    open_tasks = [
        task for task in world.unplaced()
        if task.desired <= TaskState.COMPLETE and places.settled(world, task, ingress)
    ]  # fmt: skip
    if not open_tasks:
        return Plan()
    board = Board(now, world, seats)
    changes: list[Change] = []
    groups: dict[Group, list[Task]] = {}
    for task in open_tasks:
        if task.node_id:
            changes += board.confirm(task)
        else:
            groups.setdefault(_group(task), []).append(task)
    # First come, first served: a task that waits for room is not overtaken by younger ones for ever.
    ages = {group: min(task.created_at for task in tasks) for group, tasks in groups.items()}
    for group in sorted(groups, key=lambda group: (ages[group], group)):
        changes += board.place(group, sorted(groups[group], key=lambda task: (task.slot, task.id)))
    # Reasons are given when all is placed: one task's node may be another task's reason.
    return Plan((*changes, *board.left_waiting()))


def _group(task: Task) -> Group:
    return (task.service_id, task.spec_version, task.template, task.endpoint)


@lru_cache(maxsize=200_000)
def _shuffle(node_id: str) -> str:
    return ids.derive("rank", node_id)


class Board:
    """All nodes with what they hold; filled up task by task within one plan.

    Counts only grow while it is used, so a node that has no room for a task will not have any later, and an
    entry of a heap can only be too small: it is put back with its present count when it comes up.
    """

    def __init__(self, now: int, world: Snapshot, seats: Seats | None = None) -> None:
        self.now, self.world = now, world
        self._kept = seats or Seats()
        # The order of equals is by a hash: neither age nor name of a node attracts tasks.
        self.seats = self._kept.of(world, _shuffle)
        self.by_id = {seat.node.id: seat for seat in self.seats}
        self._candidates: dict[tuple[object, ...], list[Seat]] = {}
        self._pools: dict[tuple[object, ...], list[tuple[int, int]]] = {}
        self._left: list[tuple[list[Task], list[Seat], Needs]] = []

    # ---- tasks whose node is given

    def confirm(self, task: Task) -> list[Change]:
        """A task of a global service: its node takes it, or it waits there with the reason."""
        seat = self.by_id.get(task.node_id)
        if seat is None:
            return []
        need = needs(task.template, task.endpoint)
        failing = first_failing(need, seat, task.service_id)
        if failing is not None:
            self._left.append(([task], [seat], need))
            return []
        return [self._assigned(task, seat, need, MESSAGE_CONFIRMED)]

    # ---- tasks that need one

    def place(self, group: Group, tasks: list[Task]) -> list[Change]:
        """Place as many of the group's tasks as fit."""
        service_id, spec_version, template, endpoint = group
        need = needs(template, endpoint)
        failures = self._failures(service_id, spec_version)
        changes: list[Change] = []

        def take(seat: Seat) -> bool:
            changes.append(self._assigned(tasks[len(changes)], seat, need, MESSAGE_ASSIGNED))
            return len(changes) < len(tasks)

        if need.spread:
            _Tree(self, need, service_id, failures).fill(take)
        elif self._fill_fresh(need, service_id, failures, take):
            self._fill_heaped(need, service_id, failures, take)
        if len(changes) < len(tasks):
            self._left.append((tasks[len(changes) :], self.seats, need))
        return changes

    def left_waiting(self) -> list[Change]:
        """The tasks that fit nowhere, with the reasons."""
        changes: list[Change] = []
        for tasks, seats, need in self._left:
            err = reasons(need, seats, tasks[0].service_id)
            if not tasks[0].node_id:
                err = f"no suitable node ({err})" if err else "no suitable node"
            changes += self._pending(tasks, err)
        return changes

    def candidates(self, need: Needs) -> list[Seat]:
        """Nodes that may take such a task if they have room, by rank."""
        found = self._candidates.get(need.static)
        if found is None:
            found = self._candidates[need.static] = self._kept.fitting(need, self.seats)
        return found

    def _fill_fresh(self, need: Needs, service_id: str, failures: dict[str, int], take: Take) -> bool:
        """Offer nodes without a task of the service, by their number of tasks: the usual case. The heap is
        kept from group to group, so a small group does not pay for the size of the cluster. Returns whether
        more nodes are wanted."""
        pool = self._pools.get(need.static)
        if pool is None:
            pool = self._pools[need.static] = [(seat.total, seat.rank) for seat in self.candidates(need)]
            heapq.heapify(pool)
        aside: list[int] = []
        more = True
        while more and pool:
            total, rank = heapq.heappop(pool)
            seat = self.seats[rank]
            if seat.total != total:
                heapq.heappush(pool, (seat.total, rank))
                continue
            aside.append(rank)
            if seat.services.get(service_id) or seat.node.id in failures:
                continue
            if room_for(need, seat, service_id):
                more = take(seat)
        for rank in aside:
            heapq.heappush(pool, (self.seats[rank].total, rank))
        return more

    def _fill_heaped(self, need: Needs, service_id: str, failures: dict[str, int], take: Take) -> None:
        """Offer all nodes, best first, each as often as it has room."""
        heap = [(order_of(seat, service_id, failures), seat.rank) for seat in self.candidates(need)]
        heapq.heapify(heap)
        more = True
        while more and heap:
            seat = self.seats[heap[0][1]]
            if room_for(need, seat, service_id):
                more = take(seat)
                heapq.heapreplace(heap, (order_of(seat, service_id, failures), seat.rank))
            else:
                heapq.heappop(heap)

    def _failures(self, service_id: str, spec_version: int) -> dict[str, int]:
        """Recent failures of this version of the service, of the nodes with many of them."""
        counts: dict[str, int] = {}
        since = self.now - FAILURE_WINDOW
        for task in (self.world.bucket(service_id) or {}).values():
            if (task.status.state in (TaskState.FAILED, TaskState.REJECTED) and task.state_since > since
                    and task.spec_version == spec_version):  # fmt: skip
                counts[task.node_id] = counts.get(task.node_id, 0) + 1
        return {node_id: count for node_id, count in counts.items() if count >= MAX_FAILURES}

    # ---- the changes

    def _assigned(self, task: Task, seat: Seat, need: Needs, message: str) -> Put:
        before, total = seat.services.get(task.service_id, 0), seat.total
        seat.hold(task, need)
        placed = msgspec.structs.replace(
            task, node_id=seat.node.id, state_since=self.now,
            status=TaskStatus(state=TaskState.ASSIGNED, at=self.now, message=message),
        )  # fmt: skip
        where = f"placed on node {seat.node.hostname}"
        if message == MESSAGE_CONFIRMED:
            return Put(placed, where)
        return Put(placed, f"{where}, which had {before} tasks of the service and {total} in all")

    def _pending(self, tasks: list[Task], err: str) -> list[Change]:
        changes: list[Change] = []
        for task in tasks:
            status = task.status
            if (status.state, status.message, status.err) == (TaskState.PENDING, MESSAGE_PENDING, err):
                continue
            fresh = status.state != TaskState.PENDING
            waits = msgspec.structs.replace(
                task, state_since=self.now if fresh else task.state_since,
                status=TaskStatus(state=TaskState.PENDING, at=self.now, message=MESSAGE_PENDING, err=err),
            )  # fmt: skip
            changes.append(Put(waits, err))
        return changes


def order_of(seat: Seat, service_id: str, failures: dict[str, int]) -> Order:
    """How good the node is for one more task of the service: smaller is better."""
    return (failures.get(seat.node.id, 0), seat.services.get(service_id, 0), seat.total, seat.rank)


class _Branch:
    """Nodes with the same value of a label: sub-branches by the next label, or a heap of nodes."""

    __slots__ = ("branches", "count", "heap")

    def __init__(self) -> None:
        self.count = 0
        self.branches: dict[str, _Branch] = {}
        self.heap: list[tuple[Order, int]] = []


class _Tree:
    """The label tree of a group's spread preferences. Every branch counts all its tasks of the service, also
    those on nodes that can take no more."""

    def __init__(self, board: Board, need: Needs, service_id: str, failures: dict[str, int]) -> None:
        self.board, self.need, self.service_id, self.failures = board, need, service_id, failures
        self.root = _Branch()
        fitting = {seat.rank for seat in board.candidates(need)}
        for seat in board.seats:
            leaf = self._walk(seat, seat.services.get(service_id, 0))[-1]
            if seat.rank in fitting and room_for(need, seat, service_id):
                leaf.heap.append((order_of(seat, service_id, failures), seat.rank))
        self._heapify(self.root)

    def fill(self, take: Take) -> None:
        """Offer nodes, best first, while any fits."""
        more = True
        while more:
            best = self._best(self.root)
            if best is None:
                return
            seat = self.board.seats[best[1][1]]
            more = take(seat)
            leaf = self._walk(seat, 1)[-1]
            heapq.heapreplace(leaf.heap, (order_of(seat, self.service_id, self.failures), seat.rank))

    def _walk(self, seat: Seat, count: int) -> list[_Branch]:
        """The branches from the root to the node's leaf, each counting `count` more tasks."""
        path = [self.root]
        for descriptor in self.need.spread:
            value = constraints.lookup(descriptor, seat.node) or ""
            path.append(path[-1].branches.setdefault(value, _Branch()))
        for branch in path:
            branch.count += count
        return path

    def _heapify(self, branch: _Branch) -> None:
        heapq.heapify(branch.heap)
        for inner in branch.branches.values():
            self._heapify(inner)

    def _best(self, branch: _Branch) -> tuple[int, tuple[Order, int]] | None:
        """(tasks of the branch, its best node), or None where nothing fits. Among branches with equally
        many tasks the one with the better node wins."""
        if branch.branches:
            found = (self._best(inner) for inner in branch.branches.values())
            inner_best = min((one for one in found if one is not None), default=None)
            return None if inner_best is None else (branch.count, inner_best[1])
        while branch.heap:
            if room_for(self.need, self.board.seats[branch.heap[0][1]], self.service_id):
                return (branch.count, branch.heap[0])
            heapq.heappop(branch.heap)
        return None
