"""The one shape of every decision: a Plan. What does not belong here: any decision."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from swarmpy.state.changes import Change


@dataclass(frozen=True, slots=True)
class Plan:
    """What a planner decided: changes to make now, and the instant (cluster time, ns) at which to ask
    again even if nothing else happens (None: never; `now` where only the first part of the changes is here).
    Timers are data."""

    changes: tuple[Change, ...] = ()
    wake_at: int | None = None


NOTHING = Plan()


def merged(plans: Iterable[Plan]) -> Plan:
    """Several plans as one: all changes in order, the earliest instant."""
    every = list(plans)
    return Plan(
        tuple(change for one in every for change in one.changes), earliest(one.wake_at for one in every)
    )


def earliest(instants: Iterable[int | None]) -> int | None:
    """The earliest of the instants that are set."""
    return min((instant for instant in instants if instant is not None), default=None)
