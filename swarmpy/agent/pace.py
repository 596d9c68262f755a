"""How often a node looks at all of its containers.

What belongs here: when the next look may begin. What does not: why one is wanted (worker.py).
"""

from __future__ import annotations

REST = 2.0
"""Rest after a look, as a multiple of what it took. A look costs the more the more containers there are, and
each start of one wants some: without a rest, a node that starts many does little else than look."""
LONGEST = 0.25
"""Seconds of rest at most: an Engine that answers slowly is not to be asked seldom, too."""


class Pace:
    """Times are seconds of the loop's clock."""

    def __init__(self) -> None:
        self._due = float("-inf")

    def looked(self, began: float, ended: float) -> None:
        """A look took from `began` to `ended`, what was concluded from it included."""
        self._due = ended + min(REST * (ended - began), LONGEST)

    def wait(self, now: float) -> float:
        """How long until the next look may begin; 0 where it may."""
        return max(0.0, self._due - now)
