"""What a cluster owes its clients, kept from outside of it: no acknowledged write is lost, no read is stale.

What belongs here: the two records, and what contradicts them. What does not: clients (recorder.py), clocks.

A register has one writer, which writes 1, 2, 3 and so on, each only when the one before was acknowledged. So the
order of its values is known, and a history is linearizable exactly when no read returns less than what was
acknowledged, or read by anybody, before it began, nor more than what was begun before it ended.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field


@dataclass(slots=True)
class Register:
    """One register, from its events in the order in which they happened. Safe for several threads."""

    name: str
    acked: int = 0
    begun: int = 0
    read: int = 0
    """The largest value that any read that has ended returned."""
    reads: int = 0
    problems: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def write_begins(self, value: int) -> None:
        """Somebody is about to send this value for the first time."""
        with self.lock:
            self.begun = max(self.begun, value)

    def write_acked(self, value: int) -> None:
        """The cluster said that it is written."""
        with self.lock:
            self.acked = max(self.acked, value)

    def read_begins(self) -> tuple[int, int]:
        """What the read that begins now must not go below: what was acknowledged, and what was read."""
        with self.lock:
            return self.acked, self.read

    def read_ends(self, floor: tuple[int, int], value: int, who: str) -> None:
        """Such a read returned this value."""
        acked, read = floor
        with self.lock:
            self.reads += 1
            if value < max(acked, read):
                what = f"{acked} was acknowledged" if value < acked else f"{read} was read"
                self.problems.append(f"{self.name}: {who} read {value} after {what}")
            if value > self.begun:
                self.problems.append(f"{self.name}: {who} read {value}, which nobody wrote")
            self.read = max(self.read, value)


@dataclass(slots=True)
class Book:
    """Objects that are made and removed: what must be there, and what must not. Safe for several threads."""

    made: set[str] = field(default_factory=set)
    """Acknowledged, and nobody has begun to remove them."""
    gone: set[str] = field(default_factory=set)
    """Their removal was acknowledged."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def create_acked(self, name: str) -> None:
        """The cluster said that it is made."""
        with self.lock:
            self.made.add(name)

    def removal_begins(self, name: str) -> None:
        """From now on it may be gone."""
        with self.lock:
            self.made.discard(name)

    def removal_acked(self, name: str) -> None:
        """The cluster said that it is gone."""
        with self.lock:
            self.gone.add(name)

    def look(self) -> tuple[frozenset[str], frozenset[str]]:
        """What a list that is asked for now must hold, unless it is being removed by then, and must not."""
        with self.lock:
            return frozenset(self.made), frozenset(self.gone)

    def contradictions(self, before: tuple[frozenset[str], frozenset[str]], listed: set[str]) -> list[str]:
        """What is wrong with a list that was asked for after `before` was looked up."""
        made, gone = before
        with self.lock:
            lost = (made & self.made) - listed
        back = gone & listed
        return [f"{name} was made, and is not there" for name in sorted(lost)] + [
            f"{name} was removed, and is there" for name in sorted(back)
        ]
