"""The one shape of every decision: a Plan. What does not belong here: any decision."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from swarmpy.state.changes import Change


@dataclass(frozen=True, slots=True)
class Plan:
    """What a planner decided: changes to make now, and the instant (cluster time, ns) at which to ask
    again even if nothing else happens (None: never). Timers are data."""

    changes: tuple[Change, ...] = ()
    wake_at: int | None = None


def earliest(instants: Iterable[int | None]) -> int | None:
    """The earliest of the instants that are set."""
    return min((instant for instant in instants if instant is not None), default=None)
