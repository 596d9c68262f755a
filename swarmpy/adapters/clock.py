"""The system's clock and chance.

What belongs here: ports.Clock and ports.Entropy over the operating system. What does not: timers (asyncio).
"""

from __future__ import annotations

import os
import secrets
import time

from swarmpy.ports import Instant


class SystemClock:
    """The machine's clocks."""

    def now(self) -> Instant:
        """Wall clock, nanoseconds since the epoch."""
        return time.time_ns()

    def monotonic(self) -> float:
        """Seconds since boot or so; never decreases."""
        return time.monotonic()


class SystemEntropy:
    """The kernel's randomness."""

    def __init__(self) -> None:
        self._random = secrets.SystemRandom()

    def token(self, size: int) -> bytes:
        """`size` unpredictable bytes."""
        return os.urandom(size)

    def uniform(self, low: float, high: float) -> float:
        """A float drawn uniformly from [low, high)."""
        return self._random.uniform(low, high)
