"""A node's clocks and its chance, both from the simulation.

What belongs here: SimClock and SimEntropy. What does not: the passing of time itself (loop.py).
"""

from __future__ import annotations

import random
from collections.abc import Callable

EPOCH = 1_700_000_000 * 1_000_000_000
"""The wall clock at virtual time zero, ns since 1970."""


class SimClock:
    """Clocks of one node: the wall clock may be wrong and may jump, the monotonic one may only drift.

    `skew` is in ns; `drift` is relative (1e-4 gains 0.1 ms a second).
    """

    def __init__(self, time: Callable[[], float], *, skew: int = 0, drift: float = 0.0) -> None:
        self._time = time
        self._skew = skew
        self._drift = drift
        self._base = 0.0
        self._since = 0.0

    def now(self) -> int:
        """Wall clock, ns since the epoch."""
        return EPOCH + self._skew + int(self.monotonic() * 1_000_000_000)

    def monotonic(self) -> float:
        """Seconds since the node was built; never decreases."""
        return self._base + (self._time() - self._since) * (1.0 + self._drift)

    def jump(self, by: int) -> None:
        """Set the wall clock forward or back by `by` ns."""
        self._skew += by

    def set_drift(self, drift: float) -> None:
        """Change the rate from now on."""
        self._base, self._since = self.monotonic(), self._time()
        self._drift = drift


class SimEntropy:
    """A node's random numbers, from its seed."""

    def __init__(self, seed: str) -> None:
        self.random = random.Random(seed)  # noqa: S311  a simulation must be repeatable

    def token(self, size: int) -> bytes:
        """`size` bytes."""
        return self.random.randbytes(size)

    def uniform(self, low: float, high: float) -> float:
        """A float from [low, high)."""
        return self.random.uniform(low, high)
