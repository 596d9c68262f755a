"""Bytes that run code when they are unpickled, at each place where stock pysyncobj reads bytes, and at ours."""

from __future__ import annotations

import gzip
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pysyncobj.tcp_connection import TcpConnection

from swarmpy.adapters.raft.blob import Snapshot
from swarmpy.adapters.raft.config import Membership
from swarmpy.adapters.raft.frames import CorruptError, crc32c
from swarmpy.adapters.raft.messages import check
from swarmpy.adapters.wire.codec import FrameError, unpack, unpack_body, unpack_frame
from tests.conftest import PickleGuard
from tests.raft.fakes import MemDisk
from tests.raft.stock.conftest import Stage
from tests.raft.stock.world import World

EXPLODED: list[str] = []


def explode(where: str) -> None:
    EXPLODED.append(where)


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return explode, ("here",)


BOMB = pickle.dumps(Bomb(), 2)


@pytest.fixture(autouse=True)
def defused() -> None:
    EXPLODED.clear()


def entry(world: World, command: bytes) -> dict[str, Any]:
    """An append_entries of b, which leads term 9, with one entry that is committed."""
    return {
        "type": "append_entries", "term": 9, "commit_index": 2, "prevLogIdx": 1, "prevLogTerm": 0,
        "entries": [(command, 2, 9)],
    }  # fmt: skip


# ---------------------------------------------------------------- stock


def test_stock_unpickles_every_frame_of_anybody(stock: Stage) -> None:
    connection = TcpConnection(poller=None)
    data = zlib.compress(BOMB)
    connection._TcpConnection__readBuffer = struct.pack("i", len(data)) + data
    connection._TcpConnection__processParseMessage()
    assert EXPLODED


def test_stock_unpickles_the_file_of_term_and_vote(stock: Stage, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "journal.meta").write_bytes(BOMB)
    world = stock("abc", files=True)
    with pytest.raises(AttributeError):
        world.start("a")
    assert EXPLODED


def test_stock_unpickles_the_snapshots_file(stock: Stage, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "dump").write_bytes(gzip.compress(BOMB, mtime=0))
    world = stock("abc", files=True)
    world.start("a").tick()
    assert EXPLODED


def test_stock_unpickles_a_snapshot_that_is_sent(stock: Stage) -> None:
    world = stock("abc").boot()
    data = gzip.compress(BOMB, mtime=0)
    for piece in ((data, True, False), (b"", False, True)):
        world["a"].receive("b", {"type": "append_entries", "term": 9, "commit_index": 1, "serialized": piece})
    assert EXPLODED


@pytest.mark.parametrize("kind", [b"\x00", b"\x02", b"\x03"], ids=["regular", "membership", "version"])
def test_stock_unpickles_commands(stock: Stage, kind: bytes) -> None:
    world = stock("abc").boot()
    world["a"].receive("b", entry(world, kind + BOMB))
    world["a"].tick()
    assert EXPLODED


def test_stock_unpickles_a_large_entry(stock: Stage) -> None:
    world = stock("abc").boot()
    message = entry(world, b"")
    del message["entries"]
    for transmission, data in (("start", b""), ("finish", BOMB)):
        world["a"].receive("b", {**message, "transmission": transmission, "data": data})
    assert EXPLODED


# ---------------------------------------------------------------- ours; the suite's guard makes unpickling raise


@pytest.fixture
def unexploded(pickle_guard: PickleGuard) -> Callable[[], bool]:
    return lambda: not EXPLODED and not pickle_guard.seen


@pytest.mark.parametrize("decode", [unpack, unpack_body, unpack_frame])
@pytest.mark.parametrize(
    "data", [BOMB, zlib.compress(BOMB), gzip.compress(BOMB, mtime=0)], ids=["plain", "zlib", "gzip"]
)
def test_ours_refuses_frames(
    decode: Callable[[bytes], Any], data: bytes, unexploded: Callable[[], bool]
) -> None:
    with pytest.raises(FrameError):
        decode(data)
    assert unexploded()


def test_ours_refuses_the_fields_that_carried_pickles() -> None:
    base = {"type": "append_entries", "term": 9, "commit_index": 1}
    assert check({**base, "serialized": [BOMB, True, True]}) is None
    assert check({**base, "prevLogIdx": 1, "prevLogTerm": 0, "transmission": "finish", "data": BOMB}) is None
    assert check({"type": "apply_command", "command": BOMB}) is None


@pytest.mark.parametrize("suffix", [".log", ".img"])
def test_ours_refuses_files(ours: Stage, suffix: str, unexploded: Callable[[], bool]) -> None:
    world = ours("a").boot()
    world.leader()
    world.commit("a", b"x")
    world["a"].compact()
    world.crash("a")
    disk: MemDisk = world.knobs["disks"]["a"]
    disk.replace(max(name for name in disk.names if name.endswith(suffix)), BOMB.ljust(1024, b"."))
    with pytest.raises(CorruptError):
        world.start("a")
    assert unexploded()


def test_ours_refuses_a_snapshot_that_is_sent(ours: Stage, unexploded: Callable[[], bool]) -> None:
    world = ours("abc").boot()
    for blob in (BOMB, gzip.compress(BOMB, mtime=0), bytes(Snapshot(7, 3, Membership(), BOMB).to_blob())):
        world.connect("a", "b")
        world["a"].receive("b", {
            "type": "install", "term": 9, "index": 7, "total": len(blob), "crc": crc32c(blob), "offset": 0,
            "data": blob, "seq": 1,
        })  # fmt: skip
        world["a"].tick()  # what was found out beside the turns
        assert world["a"].applied_index == 1
        assert frozenset("ab") not in world.connected
    assert unexploded()


@pytest.mark.parametrize("kind", [b"\x00", b"\x01", b"\x02"], ids=["regular", "no-op", "membership"])
def test_ours_never_unpickles_commands(ours: Stage, kind: bytes, unexploded: Callable[[], bool]) -> None:
    world = ours("abc").boot()
    world["a"].receive("b", {
        "type": "append_entries", "term": 9, "commit_index": 3, "prevLogIdx": 2, "prevLogTerm": 1,
        "entries": [[kind + BOMB, 9]], "seq": 1,
    })  # fmt: skip
    world["a"].tick()
    if kind == b"\x02":
        # It is no membership: the member stops before it stores or answers anything.
        assert isinstance(world["a"].failure, ValueError)
    else:
        assert world["a"].applied_index == 3
    assert check({"type": "append_entries", "term": 9, "commit_index": 3, "prevLogIdx": 2, "prevLogTerm": 1,
                  "entries": [[b"\x03" + BOMB, 9]], "seq": 1}) is None  # fmt: skip
    assert unexploded()
