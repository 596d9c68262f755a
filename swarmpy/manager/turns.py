"""Turns: many that want to do something at the same moment do it a few at a time.

A change may concern thousands of sessions, and what is done for each takes a moment in which the event loop
does nothing else: all of them in one turn of the loop would keep it from hearing the other managers.
What does not belong here: what they do (dispatcher.py).
"""

from __future__ import annotations

import asyncio
from collections import deque


class Turns:
    """Lets `most` go on in each turn of the event loop, first come, first served."""

    def __init__(self, most: int) -> None:
        self._most, self._gone = most, 0
        self._queue: deque[asyncio.Future[None]] = deque()

    async def wait(self) -> None:
        """Go on at once, or in one of the next turns of the loop."""
        loop = asyncio.get_running_loop()
        if self._gone < self._most and not self._queue:
            if not self._gone:
                loop.call_soon(self._next)
            self._gone += 1
            return
        waiting = loop.create_future()
        self._queue.append(waiting)
        await waiting

    def _next(self) -> None:
        self._gone = 0
        while self._queue and self._gone < self._most:
            waiting = self._queue.popleft()
            if not waiting.done():  # whoever waited may have been cancelled
                waiting.set_result(None)
                self._gone += 1
        if self._gone:
            asyncio.get_running_loop().call_soon(self._next)
