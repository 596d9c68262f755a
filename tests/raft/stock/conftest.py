"""The two casts as fixtures: `stock` may unpickle and sees the world's clock, `ours` may not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pysyncobj.syncobj
import pytest

from tests.raft.stock.ours import OurCast
from tests.raft.stock.stock import StockCast, patches
from tests.raft.stock.world import World

Stage = Callable[..., World]
"""Makes a world: the founders' names, and knobs."""


@pytest.fixture
def stock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pickle_allowed: None) -> Stage:
    for name, value in patches().items():
        monkeypatch.setattr(pysyncobj.syncobj, name, value)
    return lambda founders, **knobs: World(StockCast(), tmp_path, founders, **knobs)


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[Stage]:
    loop = asyncio.new_event_loop()
    yield lambda founders, **knobs: World(OurCast(), tmp_path, founders, loop=loop, **knobs)
    loop.close()
