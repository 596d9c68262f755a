"""Seats: what the nodes have left, and why some kinds of tasks fit on none, kept up to date by what changed.

A plan fills drafts of seats; what came of it is read from the next world. What belongs here: that memory.
What does not: what a task needs and whether a node has it (filters.py), which node it gets (placement.py).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache

from swarmpy.model import ids
from swarmpy.model.lifecycle import TaskState, is_held
from swarmpy.model.objects import Node, Task
from swarmpy.plan.filters import FILTERS, Needs, Seat, first_failing, needs_of, seat_of, sentence, static_fit
from swarmpy.plan.waiting import Kind, Waiting
from swarmpy.state.snapshot import Snapshot
from swarmpy.state.table import Table, differing

KINDS = 500
"""Kinds of needs for which the nodes that may take them are kept."""

PORTION = 100
"""Seats that are made at once."""

Failed = Callable[[Snapshot, str], Iterable[Task]]
"""The tasks of a service that failed or were rejected."""


@lru_cache(maxsize=200_000)
def shuffle(node_id: str) -> str:
    """The order of equals is by a hash: neither age nor name of a node attracts tasks."""
    return ids.derive("rank", node_id)


def failed_of(world: Snapshot, service_id: str) -> Iterable[Task]:
    """The tasks that may have failed, where nobody remembers which did."""
    return (world.bucket(service_id) or {}).values()


class Reasons:
    """For one kind of tasks, the first filter that each node fails."""

    __slots__ = ("_counts", "_failing", "_need", "_service_id")

    def __init__(self, kind: Kind, seats: list[Seat]) -> None:
        self._need, self._service_id = kind
        self._failing = bytearray(self._judge(seat) for seat in seats)
        self._counts = [self._failing.count(number) for number in range(len(FILTERS) + 1)]

    def _judge(self, seat: Seat) -> int:
        failing = first_failing(self._need, seat, self._service_id)
        return len(FILTERS) if failing is None else FILTERS.index(failing)

    def revise(self, seats: list[Seat], ranks: Iterable[int]) -> bool:
        """Judge these seats anew. Whether anything is different now."""
        before = list(self._counts)
        for rank in ranks:
            self._counts[self._failing[rank]] -= 1
            self._failing[rank] = self._judge(seats[rank])
            self._counts[self._failing[rank]] += 1
        return before != self._counts

    @property
    def fits(self) -> bool:
        """Whether any node could take such a task."""
        return self._counts[-1] > 0

    def sentence(self) -> str:
        """Why none of the nodes fits ("" without nodes)."""
        return sentence(self._counts[:-1])


class Seats:
    """The seats of all nodes, by rank, and who waits for one."""

    def __init__(self, failed: Failed = failed_of) -> None:
        self.all: list[Seat] = []
        self.ranks: dict[str, int] = {}
        """By node id."""
        self.waiting = Waiting()
        self.failed = failed
        self._table: Table[Node] | None = None
        self._changed: list[tuple[Task | None, Task | None]] = []
        """What became of tasks since the seats were settled, as far as it matters to them."""
        self._drafts: dict[str, Task] = {}
        """Tasks that the last plan put on seats, by id."""
        self._fit: dict[tuple[object, ...], tuple[Needs, list[int]]] = {}
        self._reasons: dict[Kind, Reasons] = {}

    def prepare(self, world: Snapshot) -> Iterator[None]:
        """Make all seats, in portions: for a world whose tasks were all noted."""
        nodes = sorted(world.nodes.rows.values(), key=lambda node: shuffle(node.id))
        self._table, self._changed, self.all, self.ranks = world.nodes, [], [], {}
        for rank, node in enumerate(nodes):
            self.all.append(seat_of(node, rank, world.tasks_on(node.id)))
            self.ranks[node.id] = rank
            if rank % PORTION == 0:
                yield

    # ---- one plan

    def note(self, changed: Iterable[tuple[Task | None, Task | None]]) -> None:
        """Take in what became of tasks: each as it was and as it is."""
        self._changed += (pair for pair in changed if _weight(pair[0]) != _weight(pair[1]))

    def settle(self, world: Snapshot) -> set[int]:
        """Bring the seats from what the last plan made of them to the world. Returns the ranks of those that
        may be others than before that plan."""
        changed = {self.ranks[task.node_id] for task in self._drafts.values()}
        stale: set[str] = set()
        for before, after in self._changed:
            if before is not None:
                self._release(before, stale)
            draft = self._drafts.pop(after.id, None) if after is not None else None
            if draft is not None and _weight(draft) != _weight(after):
                self._release(draft, stale)
                draft = None
            if after is not None and draft is None:
                self._hold(after)
            changed.update(
                self.ranks[one.node_id] for one in (before, after) if one and one.node_id in self.ranks
            )
        for task in self._drafts.values():
            self._release(task, stale)
        self._changed, self._drafts = [], {}
        for node_id in stale:
            rank = self.ranks[node_id]
            self.all[rank] = seat_of(self.all[rank].node, rank, world.tasks_on(node_id))
        return changed if self._table is world.nodes else self._follow_nodes(world, changed)

    def _hold(self, task: Task) -> None:
        if task.node_id in self.ranks and is_held(task.status.state):
            self.all[self.ranks[task.node_id]].hold(task, needs_of(task))

    def _release(self, task: Task, stale: set[str]) -> None:
        """Undo `_hold`. Which ports others hold too is not kept: such seats are made anew."""
        if task.node_id in self.ranks and is_held(task.status.state):
            need = needs_of(task)
            self.all[self.ranks[task.node_id]].release(task, need)
            if need.ports:
                stale.add(task.node_id)

    def draft(self, task: Task, need: Needs) -> None:
        """Put a task on its seat, in this plan."""
        self._drafts[task.id] = task
        self.all[self.ranks[task.node_id]].hold(task, need)

    @property
    def drafted(self) -> set[int]:
        """The ranks of those that are being filled."""
        return {self.ranks[task.node_id] for task in self._drafts.values()}

    def fitting(self, need: Needs) -> list[int]:
        """The ranks of those that may take such a task if they have room."""
        found = self._fit.get(need.static)
        if found is None:
            if len(self._fit) >= KINDS:
                self._fit.clear()
            found = (need, [seat.rank for seat in self.all if static_fit(need, seat)])
            self._fit[need.static] = found
        return found[1]

    # ---- why tasks wait

    def fits(self, kind: Kind) -> bool | None:
        """Whether a node could take such a task; None where nobody has looked."""
        known = self._reasons.get(kind)
        return None if known is None else known.fits

    def revise(self, ranks: Iterable[int]) -> set[Kind]:
        """Judge these seats anew for all kinds that were asked for; returns those with other reasons now."""
        return {kind for kind, known in self._reasons.items() if known.revise(self.all, ranks)}

    def reason(self, kind: Kind) -> str:
        """Why no node fits, by the seats as they are. It is kept while such tasks wait."""
        known = self._reasons.get(kind)
        if known is None:
            known = self._reasons[kind] = Reasons(kind, self.all)
        return known.sentence()

    def forget(self) -> None:
        """Forget why tasks wait that do not wait any more."""
        self._reasons = {kind: known for kind, known in self._reasons.items() if kind in self.waiting.kinds}

    # ---- following the world

    def _follow_nodes(self, world: Snapshot, ranks: set[int]) -> set[int]:
        table, before = world.nodes, self._table
        self._table = table
        changed = differing(before, table) if before is not None else set(table.rows)
        if before is None or any((key in table) != (key in self.ranks) for key in changed):
            return self._rank(world, changed)
        for node_id in changed:
            rank = self.ranks[node_id]
            ranks.add(rank)
            seat = self.all[rank] = seat_of(table[node_id], rank, world.tasks_on(node_id))
            for need, found in self._fit.values():
                _refit(found, seat, fits=static_fit(need, seat))
        return ranks

    def _rank(self, world: Snapshot, changed: set[str]) -> set[int]:
        """Nodes came or went: the order is another."""
        known = {seat.node.id: seat for seat in self.all}
        self.all, self.ranks, self._fit, self._reasons = [], {}, {}, {}
        for rank, node in enumerate(sorted(world.nodes.rows.values(), key=lambda node: shuffle(node.id))):
            seat = known.get(node.id)
            if seat is None or node.id in changed:
                seat = seat_of(node, rank, world.tasks_on(node.id))
            seat.rank = rank
            self.all.append(seat)
            self.ranks[node.id] = rank
        self.waiting.active.update(self.waiting.crowds)
        self.waiting.restless.update(self.waiting.given)
        return set(range(len(self.all)))


def _weight(task: Task | None) -> object:
    """What of a task matters to seats: equal weights, no difference."""
    if task is None or not task.node_id or not is_held(task.status.state):
        return None
    return (task.node_id, task.desired <= TaskState.COMPLETE)


def _refit(found: list[int], seat: Seat, *, fits: bool) -> None:
    place = bisect_left(found, seat.rank)
    present = place < len(found) and found[place] == seat.rank
    if fits and not present:
        found.insert(place, seat.rank)
    elif present and not fits:
        del found[place]
