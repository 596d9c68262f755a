"""Seats: what the nodes have left, and why some kinds of tasks fit on none, kept up to date by what changed.

A plan fills drafts of seats; what came of it is read from the next world. What belongs here: that memory.
What does not: what a task needs and whether a node has it (filters.py), which node it gets (placement.py).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

from swarmpy.model import ids
from swarmpy.model.objects import Node, Task
from swarmpy.plan.filters import FILTERS, Needs, Seat, first_failing, revise, seat_of, sentence, static_fit
from swarmpy.plan.waiting import Kind, Waiting
from swarmpy.state.snapshot import Snapshot
from swarmpy.state.table import Table, differing

KINDS = 500
"""Kinds of needs for which the nodes that may take them are kept."""

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
        self.touched: set[str] = set()
        """Ids of nodes of which tasks changed."""
        self._table: Table[Node] | None = None
        self._buckets: dict[str, Mapping[str, Task] | None] = {}
        self._drafts: dict[int, Seat] = {}
        self._fit: dict[tuple[object, ...], tuple[Needs, list[int]]] = {}
        self._reasons: dict[Kind, Reasons] = {}

    # ---- one plan

    def settle(self, world: Snapshot) -> set[int]:
        """Drop the drafts of the last plan, and bring the seats up to the world. Returns the ranks of those
        that may have changed since that plan."""
        changed = set(self._drafts)
        for rank, seat in self._drafts.items():
            self.all[rank] = seat
        self._drafts = {}
        if self._table is not world.nodes:
            changed = self._follow_nodes(world, changed)
        for node_id in self.touched:
            if node_id in self.ranks:
                rank = self.ranks[node_id]
                self._follow_tasks(world, self.all[rank])
                changed.add(rank)
        self.touched = set()
        return changed

    def draft(self, rank: int) -> Seat:
        """The seat, to be filled in this plan."""
        if rank not in self._drafts:
            seat = self._drafts[rank] = self.all[rank]
            self.all[rank] = seat.copy(rank)
        return self.all[rank]

    @property
    def drafted(self) -> Iterable[int]:
        """The ranks of those that are being filled."""
        return self._drafts.keys()

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
            seat = self.all[rank] = self._seat(world, table[node_id], rank)
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
                seat = self._seat(world, node, rank)
            seat.rank = rank
            self.all.append(seat)
            self.ranks[node.id] = rank
        for node_id in self._buckets.keys() - self.ranks.keys():
            del self._buckets[node_id]
        self.waiting.active.update(self.waiting.crowds)
        self.waiting.restless.update(self.waiting.given)
        return set(range(len(self.all)))

    def _seat(self, world: Snapshot, node: Node, rank: int) -> Seat:
        self._buckets[node.id] = world.bucket_on(node.id)
        return seat_of(node, rank, world.tasks_on(node.id))

    def _follow_tasks(self, world: Snapshot, seat: Seat) -> None:
        before, after = self._buckets[seat.node.id] or {}, world.bucket_on(seat.node.id)
        if after is before:
            return
        if revise(seat, before, after or {}):
            self._buckets[seat.node.id] = after
        else:
            self.all[seat.rank] = self._seat(world, seat.node, seat.rank)


def _refit(found: list[int], seat: Seat, *, fits: bool) -> None:
    place = bisect_left(found, seat.rank)
    present = place < len(found) and found[place] == seat.rank
    if fits and not present:
        found.insert(place, seat.rank)
    elif present and not fits:
        del found[place]
