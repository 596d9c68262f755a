"""The garbage collector's pauses, where thousands of sessions are held.

Each session is a hundred objects that live as long as it does, and the collector walks through all of them
whenever a few new ones have come to stay: with 5,000 sessions the leader stood still for a fifth of a second,
again and again. What is here to stay is set aside. What does not belong here: freeing anything.
"""

from __future__ import annotations

import gc

MANY = 500
"""Sessions from which on it is worth while."""


class Heap:
    """Sets aside what lives, each time there are a quarter more sessions than when it last did."""

    def __init__(self) -> None:
        self._settled = 0

    def settle(self, sessions: int) -> bool:
        """Called now and then with the number of sessions. Whether anything was set aside."""
        if sessions < MANY or sessions < self._settled * 1.25:
            return False
        self._settled = sessions
        # What was set aside and is garbage by now is found first.
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        return True

    def release(self) -> None:
        """The sessions are over."""
        if self._settled:
            self._settled = 0
            gc.unfreeze()
