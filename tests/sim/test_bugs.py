"""Every planted bug is caught within its number of seeds; without bugs the same seeds are clean."""

from __future__ import annotations

import pytest

from swarmpy.sim.bugs import planted
from swarmpy.sim.clusterbugs import ALL_BUGS as BUGS
from swarmpy.sim.runs import first_violation


@pytest.mark.parametrize("name", list(BUGS))
def test_planted_bugs_are_caught(name: str) -> None:
    bug = BUGS[name]
    with planted(name):
        found = first_violation(bug.world, range(bug.seeds), faults=bug.faults)
    assert found is not None, f"{bug.what}: not caught in {bug.seeds} seeds"


def test_there_are_enough_bugs() -> None:
    assert len(BUGS) >= 42
