"""Placement: which node takes a task. Filters decide who may, counts decide who does.

Order (SwarmKit's): nodes on which this version of the service failed five times in five minutes go last, then
fewest active tasks of the service, then fewest tasks in all, then a fixed order that no user chose. With
spread preferences, branches of the label tree are evened out first. Reservations are checked, never weighed.
What does not belong here: what a node must have (filters.py), why it does not (explain.py).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable

import msgspec

from swarmpy.model.lifecycle import TaskState
from swarmpy.model.objects import Task, TaskStatus
from swarmpy.model.specs import SECOND
from swarmpy.plan import constraints
from swarmpy.plan.filters import Needs, Seat, first_failing, needs, room_for, why_not
from swarmpy.plan.roster import FAILURES
from swarmpy.plan.seats import Seats
from swarmpy.plan.types import NOTHING, Plan
from swarmpy.plan.waiting import Crowd, Group, Waiting
from swarmpy.state.changes import Change, Put
from swarmpy.state.snapshot import Snapshot

MESSAGE_PENDING = "pending task scheduling"
MESSAGE_ASSIGNED = "scheduler assigned task to node"
MESSAGE_CONFIRMED = "scheduler confirmed task can run on preassigned node"

MAX_FAILURES = 5
FAILURE_WINDOW = 300 * SECOND

Take = Callable[[int], bool]
"""Called with the rank of a node that fits: puts one task there and says whether more nodes are wanted."""
Order = tuple[int, int, int, int]
"""(failures if many, tasks of the service, tasks, rank): smaller is better."""


def plan(now: int, world: Snapshot, seats: Seats | None = None) -> Plan:
    """Every task that waits for a node gets one, or the reason why none fits. Tasks without their addresses
    are not looked at: they have their reason already (addresses.py). With `seats` only those who wait are
    looked at for whom something changed since the last plan; it must have been told of all tasks that
    changed."""
    if seats is None:
        seats = Seats()
        seats.waiting.revise(((None, task) for task in world.unplaced()), world.ingress_network())
    waiting, changed = seats.waiting, seats.settle(world)
    if not waiting:
        seats.forget()
        return NOTHING
    waiting.active |= waiting.of_kinds(seats.revise(changed))
    waiting.restless |= waiting.given_on(seats.all[rank].node.id for rank in changed)
    board = Board(now, world, seats)
    changes: list[Change] = []
    for task_id in sorted(waiting.restless):
        changes += board.confirm(waiting.given[task_id])
    # First come, first served: a task that waits for room is not overtaken by younger ones for ever.
    for group in _in_order(waiting, waiting.active):
        changes += board.place(group, waiting.crowds[group])
    # Reasons are given when all is placed: one task's node may be another task's reason.
    return Plan((*changes, *board.left_waiting()))


def _in_order(waiting: Waiting, groups: Iterable[Group]) -> list[Group]:
    return sorted(groups, key=lambda group: (waiting.crowds[group].oldest, group))


class Board:
    """All nodes with what they hold; filled up task by task within one plan.

    Counts only grow while it is used, so a node that has no room for a task will not have any later, and an
    entry of a heap can only be too small: it is put back with its present count when it comes up.
    """

    def __init__(self, now: int, world: Snapshot, seats: Seats) -> None:
        self.now, self.world = now, world
        self._kept, self.seats = seats, seats.all
        self._pools: dict[tuple[object, ...], list[tuple[int, int]]] = {}
        self._given: set[str] = set()
        self._left: dict[Group, list[Task]] = {}
        self._busy: set[Group] = set()
        """Groups of which something is to be changed: what becomes of that is to be seen."""

    # ---- tasks whose node is given

    def confirm(self, task: Task) -> list[Change]:
        """A task of a global service: its node takes it, or it waits there with the reason."""
        rank = self._kept.ranks.get(task.node_id)
        if rank is None:
            return []
        need = needs(task.template, task.endpoint)
        if first_failing(need, self.seats[rank], task.service_id) is not None:
            self._given.add(task.id)
            return []
        return [self._assigned(task, rank, need, MESSAGE_CONFIRMED)]

    # ---- tasks that need one

    def place(self, group: Group, crowd: Crowd) -> list[Change]:
        """Place as many of the group's tasks as fit."""
        if self._kept.fits(crowd.kind) is False:
            self._left[group] = list(crowd.tasks.values())
            return []
        service_id, spec_version, *_ = group
        need, failures = crowd.need, self._failures(service_id, spec_version)
        tasks = sorted(crowd.tasks.values(), key=lambda task: (task.slot, task.id))
        changes: list[Change] = []

        def take(rank: int) -> bool:
            changes.append(self._assigned(tasks[len(changes)], rank, need, MESSAGE_ASSIGNED))
            return len(changes) < len(tasks)

        if need.spread:
            _Tree(self, need, service_id, failures).fill(take)
        elif self._fill_fresh(need, service_id, failures, take):
            self._fill_heaped(need, service_id, failures, take)
        if changes:
            self._busy.add(group)
        if len(changes) < len(tasks):
            self._left[group] = tasks[len(changes) :]
        return changes

    def left_waiting(self) -> list[Change]:
        """The tasks that fit nowhere, with the reasons: also those that were not looked at, whose reason is
        another now that the others are placed."""
        waiting, drafted = self._kept.waiting, self._kept.drafted
        changes: list[Change] = []
        # Who gets a node in this plan may not be on it in the next world: that is looked at again.
        again = waiting.restless - self._given
        for task_id in sorted(
            self._given | waiting.given_on(self.seats[one].node.id for one in drafted) - again
        ):
            task = waiting.given[task_id]
            need, seat = needs(task.template, task.endpoint), self.seats[self._kept.ranks[task.node_id]]
            told = self._pending([task], why_not(need, seat, task.service_id))
            changes += told
            if told:
                again.add(task_id)
        waiting.restless = again
        for group in waiting.of_kinds(self._kept.revise(drafted)) - self._busy:
            self._left.setdefault(group, list(waiting.crowds[group].tasks.values()))
        for group in _in_order(waiting, self._left):
            changes += self._left_of(group, waiting.crowds[group])
        waiting.active = self._busy
        self._kept.forget()
        return changes

    def _left_of(self, group: Group, crowd: Crowd) -> list[Change]:
        why = self._kept.reason(crowd.kind)
        err = f"no suitable node ({why})" if why else "no suitable node"
        if err != crowd.err:
            crowd.err = err
            crowd.odd.update(crowd.tasks)
        odd = [task for task in self._left[group] if task.id in crowd.odd] if crowd.odd else []
        changes = self._pending(sorted(odd, key=lambda task: (task.slot, task.id)), err)
        if changes:
            self._busy.add(group)
        elif group not in self._busy:
            crowd.odd.clear()
        return changes

    def fitting(self, need: Needs) -> list[int]:
        """The ranks of nodes that may take such a task if they have room."""
        return self._kept.fitting(need)

    def _fill_fresh(self, need: Needs, service_id: str, failures: dict[str, int], take: Take) -> bool:
        """Offer nodes without a task of the service, by their number of tasks: the usual case. The heap is
        kept from group to group, so a small group does not pay for the size of the cluster. Returns whether
        more nodes are wanted."""
        fitting, seats = self.fitting(need), self.seats
        if len(self.world.bucket(service_id) or ()) > len(fitting):
            return True  # it may be on all of them, and they would be looked at in vain
        pool = self._pools.get(need.static)
        if pool is None:
            pool = self._pools[need.static] = [(seats[rank].total, rank) for rank in fitting]
            heapq.heapify(pool)
        aside: list[int] = []
        more = True
        while more and pool:
            total, rank = heapq.heappop(pool)
            seat = seats[rank]
            if seat.total != total:
                heapq.heappush(pool, (seat.total, rank))
                continue
            aside.append(rank)
            if seat.services.get(service_id) or seat.node.id in failures:
                continue
            if room_for(need, seat, service_id):
                more = take(rank)
        for rank in aside:
            heapq.heappush(pool, (seats[rank].total, rank))
        return more

    def _fill_heaped(self, need: Needs, service_id: str, failures: dict[str, int], take: Take) -> None:
        """Offer all nodes, best first, each as often as it has room."""
        seats = self.seats
        if failures:
            heap = [(order_of(seats[rank], service_id, failures), rank) for rank in self.fitting(need)]
        else:
            heap = [
                ((0, seat.services.get(service_id, 0), seat.total, seat.rank), seat.rank)
                for seat in map(seats.__getitem__, self.fitting(need))
            ]
        heapq.heapify(heap)
        more = True
        while more and heap:
            rank = heap[0][1]
            if room_for(need, seats[rank], service_id):
                more = take(rank)
                heapq.heapreplace(heap, (order_of(seats[rank], service_id, failures), rank))
            else:
                heapq.heappop(heap)

    def _failures(self, service_id: str, spec_version: int) -> dict[str, int]:
        """Recent failures of this version of the service, of the nodes with many of them."""
        counts: dict[str, int] = {}
        since = self.now - FAILURE_WINDOW
        for task in self._kept.failed(self.world, service_id):
            if (task.status.state in FAILURES and task.state_since > since
                    and task.spec_version == spec_version):  # fmt: skip
                counts[task.node_id] = counts.get(task.node_id, 0) + 1
        return {node_id: count for node_id, count in counts.items() if count >= MAX_FAILURES}

    # ---- the changes

    def _assigned(self, task: Task, rank: int, need: Needs, message: str) -> Put:
        seat = self.seats[rank]
        before, total = seat.services.get(task.service_id, 0), seat.total
        placed = msgspec.structs.replace(
            task, node_id=seat.node.id, state_since=self.now,
            status=TaskStatus(state=TaskState.ASSIGNED, at=self.now, message=message),
        )  # fmt: skip
        self._kept.draft(placed, need)
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
        fitting = set(board.fitting(need))
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
            rank = best[1][1]
            more = take(rank)
            seat = self.board.seats[rank]
            leaf = self._walk(seat, 1)[-1]
            heapq.heapreplace(leaf.heap, (order_of(seat, self.service_id, self.failures), rank))

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
