"""What others changed in the node's kernel, and was mended: kept for a while, so that somebody can be told.

What belongs here: seeing that something is not as it was left, and remembering it. What does not: mending it
(fabric.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable

from swarmpy.model.examination import Mended
from swarmpy.ports import FabricError

logger = logging.getLogger(__name__)

MOST = 50
KEEP = 600.0
"""Seconds for which it is told."""


class Drift:
    """See the file's charter."""

    def __init__(self) -> None:
        self._known: deque[tuple[float, str, str]] = deque(maxlen=MOST)
        self._suspected: dict[str, str] = {}

    def note(self, network_id: str, what: str) -> None:
        """It was found, and is being mended."""
        logger.info("%s%s: mended", f"network {network_id}: " if network_id else "", what)
        self._known.append((asyncio.get_running_loop().time(), network_id, what))

    def suspect(self, place: str, what: str) -> None:
        """It was found at a place that may just be going away: told once it is mended there."""
        if len(self._suspected) >= MOST:
            self._suspected.pop(next(iter(self._suspected)))
        self._suspected[place] = what

    def mended(self, place: str) -> None:
        """All is well at the place."""
        if what := self._suspected.pop(place, ""):
            self.note("", what)

    def recent(self) -> tuple[Mended, ...]:
        """What was found lately, newest first."""
        now = asyncio.get_running_loop().time()
        return tuple(
            Mended(network, what, now - at) for at, network, what in reversed(self._known) if now - at <= KEEP
        )


async def holds(observe: Callable[[], Awaitable[str]], mark: str) -> bool:
    """Whether the kernel holds what it should. It is asked twice: a look may fall into somebody's change."""
    for _ in range(2):
        try:
            if await observe() == mark:
                return True
        except FabricError:
            continue
    return False
