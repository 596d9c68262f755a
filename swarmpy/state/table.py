"""A table: the objects of one kind by id, and which of them the last changes touched.

What belongs here: reading a table, and what may differ between two of them. What does not: how changes are
applied (snapshot.py), how rows are shared (rows.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from swarmpy.model.objects import Object

O = TypeVar("O", bound=Object)  # noqa: E741  the customary letter for an object

TRAIL = 1000
KEYS = 50_000
"""Changes that a table remembers at most, and ids that they touched: a leader makes a draft for each command
of a batch and for each step of a plan, and the next world shares but what was before them."""


class Trace:
    """One change of a table: the ids that it touched. No two are the same, so a table's last trace says
    which table it is, and its earlier ones which tables it was made of."""

    __slots__ = ("keys", "total")

    def __init__(self, keys: Iterable[str] = (), before: int = 0) -> None:
        self.keys = frozenset(keys)
        self.total = before + len(self.keys)
        """Ids touched by it and all before it."""


@dataclass(frozen=True, slots=True)
class Table(Generic[O]):
    """Objects of one kind by id."""

    rows: Mapping[str, O] = field(default_factory=dict)
    trail: tuple[Trace, ...] = field(default_factory=lambda: (Trace(),), compare=False, repr=False)
    """The last changes that made it, oldest first. Nothing but a shorter way for `differing`."""

    def get(self, key: str) -> O | None:
        """The object with that full id."""
        return self.rows.get(key)

    def __getitem__(self, key: str) -> O:
        return self.rows[key]

    def __contains__(self, key: str) -> bool:
        return key in self.rows

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[O]:
        """Objects by id."""
        rows = self.rows
        return (rows[key] for key in sorted(rows))

    def changed(self, rows: Mapping[str, O], keys: Iterable[str]) -> Table[O]:
        """The table with other rows, of which only those of the keys may differ."""
        trail = self.trail
        if len(trail) >= TRAIL or trail[-1].total - trail[0].total > KEYS:
            trail = trail[len(trail) // 2 :]
        return Table(rows, (*trail, Trace(keys, trail[-1].total)))


def differing(old: Table[O], new: Table[O]) -> set[str]:
    """Ids of all objects that are not the same in both tables, and maybe of some that are. Costs what was
    changed since the table that both were made of, if that is not long ago, else what they hold."""
    if old is new:
        return set()
    ahead: set[str] = set()
    known = {trace: place for place, trace in enumerate(old.trail)}
    for trace in reversed(new.trail):
        common = known.get(trace)
        if common is not None:
            return ahead.union(*(one.keys for one in old.trail[common + 1 :]))
        ahead |= trace.keys
    before, after = old.rows, new.rows
    changed = {key for key, item in after.items() if before.get(key) is not item}
    return changed | (before.keys() - after.keys())
