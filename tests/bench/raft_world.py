"""A member whose machine is the manager's own store, for the cases with a large state: see raft_state.py.

    python -m tests.bench.raft_world FOLDER NAME

What belongs here: what such a member is asked. What does not: being a member (raft_members.py).
"""

from __future__ import annotations

import asyncio
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from swarmpy.adapters.raft.engine import Engine
from swarmpy.manager.store import Store
from swarmpy.model import codec
from swarmpy.model.objects import Task
from swarmpy.state.changes import Batch, Put
from tests.bench.raft_members import Child

PULSE = 0.005
"""Seconds between two looks at whether the loop turns."""
SOON = 0.05
"""Seconds between two writes of the small ones."""
LARGE = 1000
"""Tasks that a large write changes, as a manager's largest does."""


def entries(path: Path) -> Iterator[bytes]:
    """What raft_state.py wrote down for `do_fill`."""
    data, at = path.read_bytes(), 0
    while at < len(data):
        (size,) = struct.unpack_from(">I", data, at)
        yield data[at + 4 : at + 4 + size]
        at += 4 + size


class Stalls:
    """How long the loop did not turn, at most, and how long this process had a processor while it did not: on a
    machine that others use as well, only that is ours."""

    def __init__(self) -> None:
        self.longest = self.busiest = 0.0

    async def watch(self) -> None:
        while True:
            before, used = time.monotonic(), time.process_time()
            await asyncio.sleep(PULSE)
            stall = time.monotonic() - before - PULSE
            self.longest = max(self.longest, stall)
            self.busiest = max(self.busiest, min(stall, time.process_time() - used))

    def take(self) -> dict[str, float]:
        """The longest since the last call, seconds."""
        found = {"stall": self.longest, "busy": self.busiest}
        self.longest = self.busiest = 0.0
        return found


class WorldChild(Child):
    """One member; methods named do_X answer X. Times are seconds."""

    def __init__(self, folder: Path, name: str) -> None:
        self.store = Store()
        super().__init__(folder, name, self.store)
        self._writing: asyncio.Task[list[float]] | None = None
        self._enough = asyncio.Event()
        self._turn = 0
        self._one = asyncio.Lock()
        self.stalls = Stalls()

    async def run(self) -> None:
        watching = asyncio.create_task(self.stalls.watch())
        await super().run()
        watching.cancel()

    @property
    def engine(self) -> Engine:
        assert self.log._engine is not None
        return self.log._engine

    async def _change(self, count: int) -> float:
        """Commit a batch that changes so many tasks; how long that took. One at a time, as the manager does."""
        async with self._one:
            return await self._changed(count)

    async def _changed(self, count: int) -> float:
        world = self.store.world
        keys = list(world.tasks.rows)
        self._turn += count
        chosen: list[Task] = [world.tasks[keys[(self._turn + at) % len(keys)]] for at in range(count)]
        puts = [Put(replace(one, status=replace(one.status, message=f"turn {self._turn}"))) for one in chosen]
        batch = codec.encode(Batch(based_on=world.version, at=world.at, changes=tuple(puts)))
        start = time.monotonic()
        _, accepted = await self.log.propose(batch)
        assert accepted
        return time.monotonic() - start

    async def do_fill(self, path: str) -> dict[str, Any]:
        """Commit the world that was written down."""
        start, size = time.monotonic(), 0
        for entry in entries(Path(path)):
            size += len(entry)
            batch = replace(codec.decode(Batch, entry), based_on=self.store.world.version)
            _, accepted = await self.log.propose(codec.encode(batch))
            assert accepted
        return {"seconds": time.monotonic() - start, "bytes": size, "tasks": len(self.store.world.tasks)}

    async def do_stall(self) -> dict[str, float]:
        """The longest stall of the loop since this was asked the last time."""
        return self.stalls.take()

    async def do_begin_writing(self) -> None:
        """Commit a small change every now and then."""
        self._enough.clear()
        self._writing = asyncio.create_task(self._write())

    async def _write(self) -> list[float]:
        took = []
        while not self._enough.is_set():
            took.append(await self._change(1))
            await asyncio.sleep(SOON)
        return took

    async def do_end_writing(self) -> list[float]:
        """How long each of them took."""
        self._enough.set()
        assert self._writing is not None
        return await self._writing

    async def do_snapshot(self) -> dict[str, float]:
        """Commit large changes until a snapshot is due, then see it taken and stored."""
        log, before = self.engine.core.log, self.engine.core.log.snapshot_index
        while not self.engine._snapshotting and log.snapshot_index == before:
            await self._change(LARGE)
        start = time.monotonic()
        self.stalls.take()
        while log.snapshot_index == before:
            await asyncio.sleep(PULSE)
        took = time.monotonic() - start
        return {"seconds": took, **self.stalls.take()}

    async def do_caught_up(self, index: int) -> dict[str, float]:
        """When this member had applied that, counted from its start."""
        await self.log.wait_applied(index, timeout=120)
        return {"seconds": time.monotonic() - self.begun, **self.stalls.take(),
                "tasks": len(self.store.world.tasks), "snapshot": self.engine.core.log.snapshot_index}  # fmt: skip


def main() -> None:
    folder, name = sys.argv[1:]
    asyncio.run(WorldChild(Path(folder), name).run())


if __name__ == "__main__":
    main()
