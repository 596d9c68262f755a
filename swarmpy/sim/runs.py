"""Running seeds: one, or many until something is wrong.

What belongs here: choosing the world of a run and silencing the log while it runs. What does not: printing
(main.py).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from swarmpy.sim.consensus import Consensus

if TYPE_CHECKING:
    from collections.abc import Generator

    from swarmpy.sim.consensus import Outcome

WORLDS = ("cluster", "consensus")


@contextmanager
def quiet_logs() -> Generator[None, None, None]:
    """Programs of a simulation log what befalls them thousands of times a second: nobody reads that."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def run_seed(
    world: str, seed: int, *, managers: int | None = None, workers: int | None = None,
    duration: float | None = None, faults: Sequence[str] | None = None,
    sink: Callable[[str], None] | None = None,
) -> Outcome:  # fmt: skip
    """Play one seed."""
    members = managers or (3, 3, 5, 3, 1, 5, 3)[seed % 7]
    with quiet_logs():
        if world == "cluster":
            from swarmpy.sim.cluster import Cluster

            others = (2, 1, 0, 3, 2)[seed % 5] if workers is None else workers
            return Cluster(seed, managers=min(members, managers or 3), workers=others,
                           duration=duration or 9.0, faults=faults, sink=sink).run()  # fmt: skip
        return Consensus(seed, members=members, duration=duration or 10.0, faults=faults, sink=sink).run()


def first_violation(
    world: str, seeds: Iterable[int], *, faults: Sequence[str] | None = None
) -> Outcome | None:
    """The outcome of the first seed that breaks an invariant, if any does."""
    for seed in seeds:
        outcome = run_seed(world, seed, faults=faults)
        if outcome.violation is not None:
            return outcome
    return None
