"""The world on this manager: the state machine that the log drives, and those who watch it.

What belongs here: applying committed entries, saving and loading the world, waking those who wait for a
change. What does not: deciding anything, talking to the log (writer.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from swarmpy.model import codec
from swarmpy.ports import Image
from swarmpy.state.changes import Batch
from swarmpy.state.image import load, save
from swarmpy.state.snapshot import Snapshot, apply

logger = logging.getLogger(__name__)

Watcher = Callable[[Snapshot, Snapshot], None]
"""Called with (old, new) after each accepted batch, in order, within the event loop's turn."""


class Store:
    """ports.Machine over the immutable Snapshot."""

    def __init__(self) -> None:
        self.world = Snapshot()
        self._watchers: list[Watcher] = []
        self._moved: asyncio.Event = asyncio.Event()

    def apply(self, index: int, entry: bytes) -> bool:
        """Apply a committed entry; whether it was accepted. A refused one changes nothing, on any replica."""
        try:
            batch = codec.decode(Batch, entry)
        except codec.CodecError:
            logger.exception("log entry %d is not a batch: refused", index)
            return False
        before = self.world
        self.world, accepted = apply(before, batch, index)
        if accepted:
            self._wake(before)
        return accepted

    def save(self) -> Callable[[], Image]:
        """Capture the world now; the returned function encodes it (it shares nothing that changes)."""
        world = self.world
        return lambda: save(world)

    def load(self, image: Image) -> Callable[[], None]:
        """Decode a saved world; the returned function takes it over. Raises ValueError when it is not one."""
        world = load(image)

        def take() -> None:
            before, self.world = self.world, world
            self._wake(before)

        return take

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """Call `watcher` after each change; returns what ends that."""
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher)

    async def changed(self, since: int, *, timeout: float) -> Snapshot:
        """The world as soon as its version is above `since`, or as it is after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                while self.world.version <= since:
                    await self._moved.wait()
        except TimeoutError:
            return self.world
        return self.world

    def _wake(self, before: Snapshot) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()
        for watcher in tuple(self._watchers):
            watcher(before, self.world)
