"""The two casts as fixtures: `stock` may unpickle and sees the world's clock, `ours` may not."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pysyncobj.syncobj
import pytest

from tests.raft.stock.ours import OurCast
from tests.raft.stock.stock import StockCast, patches
from tests.raft.stock.world import World

Stage = Callable[..., World]
"""Makes a world: the founders' names, and knobs."""


@pytest.fixture
def stock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pickle_allowed: None) -> Iterator[Stage]:
    for name, value in patches().items():
        monkeypatch.setattr(pysyncobj.syncobj, name, value)
    made: list[World] = []

    def stage(founders: str, **knobs: Any) -> World:
        made.append(World(StockCast(), tmp_path, founders, **knobs))
        return made[-1]

    with warnings.catch_warnings():
        # It never closes the file of its term and vote.
        warnings.simplefilter("ignore", ResourceWarning)
        yield stage
        for world in made:
            world.close()


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[Stage]:
    loop = asyncio.new_event_loop()
    yield lambda founders, **knobs: World(OurCast(), tmp_path, founders, loop=loop, **knobs)
    loop.close()
