"""Histories of clients, and whether they are linearizable.

What belongs here: the record of what clients saw, and two checkers: `check_indexed`, nearly linear, for
systems whose answers carry the log index at which they took effect; and `linearizable`, which searches
(Wing and Gong 1993, with the memo of Lowe 2017) and needs no index. The tests hold one against the other.
What does not: who writes the histories.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

INFINITY = float("inf")


@dataclass(slots=True)
class Op:
    """One operation of a client on a register. Times in virtual seconds.

    `kind` is read, write or cas; `value` what was read or is to be written; `expected` the cas's guess.
    `ok` None: the outcome is unknown; False: definitely refused. `took`: whether a cas matched. `index`: the
    log index at which it took effect.
    """

    client: int
    kind: str
    key: str
    began: float
    ended: float = INFINITY
    value: Any = None
    expected: Any = None
    ok: bool | None = None
    took: bool = True
    index: int = 0

    def __str__(self) -> str:
        what = f"cas {self.expected}->{self.value}" if self.kind == "cas" else f"{self.kind} {self.value}"
        outcome = "?" if self.ok is None else ("ok" if self.ok and self.took else "no")
        return f"client {self.client} {what} on {self.key} [{self.began:.4f}, {self.ended:.4f}] {outcome}" \
               f" @{self.index}"  # fmt: skip


def check_indexed(ops: Sequence[Op], states: Mapping[int, Mapping[str, Any]]) -> str | None:
    """Why the history is not linearizable, given what the log says, or None.

    `states` are the keys' values after each index that an operation refers to. Answers must respect real
    time: an operation that began after another ended must not have taken effect before it.
    """
    done = [op for op in ops if op.ok]
    for op in done:
        seen = states.get(op.index)
        if seen is None:
            return f"{op} took effect at an index that no manager applied"
        if op.kind == "read" and seen.get(op.key) != op.value:
            return f"{op} should have read {seen.get(op.key)!r}"
    events = sorted([(op.began, 1, op) for op in done] + [(op.ended, 0, op) for op in done],
                    key=lambda event: event[:2])  # fmt: skip
    latest: Op | None = None
    for _, begins, op in events:
        if begins:
            if latest is not None and op.index < latest.index:
                return f"{op} began after this had ended, but took effect before it: {latest}"
            if latest is not None and op.kind != "read" and op.index == latest.index:
                return f"{op} began after this had ended, yet was already seen by it: {latest}"
        elif latest is None or op.index > latest.index:
            latest = op
    return None


def linearizable(ops: Sequence[Op], initial: Any = None) -> bool:
    """Whether one register's history is linearizable. For small histories: the cost may be exponential.

    Operations of unknown outcome may have taken effect at any time after they began, or never.
    """
    history = [op for op in ops if op.ok is not False and not (op.ok is None and op.kind == "read")]
    ends = [INFINITY if op.ok is None else op.ended for op in history]
    must = sum(1 << place for place, op in enumerate(history) if op.ok)
    seen: set[tuple[int, Any]] = set()
    stack: list[tuple[int, Any]] = [(0, initial)]
    while stack:
        done, value = stack.pop()
        if done & must == must:
            return True
        if (done, value) in seen:
            continue
        seen.add((done, value))
        horizon = min(end for place, end in enumerate(ends) if not done >> place & 1)
        for place, op in enumerate(history):
            if done >> place & 1 or op.began > horizon:
                continue
            legal, after = _step(op, value)
            if legal:
                stack.append((done | 1 << place, after))
    return False


def _step(op: Op, value: Any) -> tuple[bool, Any]:
    """Whether the operation may take effect on this value, and the value after it."""
    if op.kind == "read":
        return op.value == value, value
    if op.kind == "write":
        return True, op.value
    matches = op.expected == value
    if op.ok is None:
        return True, op.value if matches else value
    return op.took == matches, op.value if matches else value
