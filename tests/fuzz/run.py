"""One round of a target: hypothesis with a seed, a clock on every example and a bound on its memory."""

from __future__ import annotations

import time
from typing import Any

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import given as drawn

from tests.fuzz.targets import Target

SLOWEST = 2.0
"""Seconds for one input. Far above what any needs (milliseconds), far below a hang."""


def play(target: Target, examples: int, number: int | None = None) -> None:
    """Run the target; the same examples each time, unless a seed is given. Raises what the check raises."""

    def once(value: Any) -> None:
        began = time.monotonic()
        target.check(value)
        took = time.monotonic() - began
        assert took < SLOWEST, f"one input took {took:.1f} s"

    run = settings(
        max_examples=examples,
        derandomize=number is None,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )(drawn(target.strategy)(once))
    if number is not None:
        run = seed(number)(run)
    run()
