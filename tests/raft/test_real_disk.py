"""The log on real files: killed processes, a full file system, a sync that fails."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from swarmpy.adapters.disk import FileDisk
from swarmpy.ports import AmbiguousError, LogError
from tests.raft.one_member import leading, make

ROOT = Path(__file__).parents[2]


def run(*command: str) -> dict[str, Any]:
    """A program of this folder, which ends with a JSON object or an assertion."""
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    result = run(sys.executable, "-m", "tests.raft.killing", str(tmp_path), "7", "20")
    assert result["acked"] > 500
    assert result["opened"] >= 10
    assert 1 <= result["snapshots"] <= 3, "snapshots were taken, and old and half written ones removed"


def test_a_full_file_system_stops_the_log_before_it_acknowledges(tmp_path: Path) -> None:
    own = ["unshare", "--mount", "--propagation", "private"]
    if os.geteuid() != 0:
        own.append("--map-root-user")
    result = run(*own, sys.executable, "-m", "tests.raft.filling", str(tmp_path))
    assert result["acked"] > 20
    assert "its disk is full (No space left on device" in result["failure"]
    assert "make room" in result["failure"]
    assert len(result["refusals"]) == 3
    assert all("its disk is full" in sentence for sentence in result["refusals"])
    assert result["kept_free"] >= 0, "attempts to start take no space away"
    assert result["leftovers"] == []
    assert os.listdir(tmp_path) == [], "the mount went away with its process"


def test_a_snapshot_that_finds_no_room_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its temporary file must not keep the space that the journal needs."""
    disk = FileDisk(tmp_path)
    disk.mkdir("raft/snapshot")
    write, written = os.write, 0

    def small(file: int, data: bytes | memoryview) -> int:
        nonlocal written
        if written >= 8192:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        count = write(file, data[:4096])
        written += count
        return count

    monkeypatch.setattr(os, "write", small)
    with pytest.raises(OSError, match="No space left"):
        disk.replace("raft/snapshot/1", bytes(1 << 20))
    assert disk.list("raft/snapshot") == []


def test_a_real_sync_that_fails_is_never_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After EIO the kernel forgets the pages: the next fdatasync of the file would succeed and mean nothing."""
    synced: list[str] = []
    real = os.fdatasync
    broken = False

    def path_of(file: int) -> str:
        return os.path.basename(os.readlink(f"/proc/self/fd/{file}"))

    def fdatasync(file: int) -> None:
        synced.append(path_of(file))
        if broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(file)

    monkeypatch.setattr(os, "fdatasync", fdatasync)

    async def main() -> None:
        nonlocal broken
        log, machine = make(tmp_path, snapshot_entries=1000)
        await log.start()
        await leading(log)
        await log.propose(b"before")
        broken = True
        with pytest.raises(AmbiguousError):
            await log.propose(b"lost")
        await log.failed.wait()
        broken = False
        count = len(synced)
        failed_file = synced[-1]
        with pytest.raises(LogError):
            await log.propose(b"refused")
        assert log.failure is not None
        assert "its disk failed (Input/output error" in log.failure
        await log.stop()
        assert len(synced) == count
        await log.start()
        await leading(log)
        await log.propose(b"after")
        assert failed_file not in synced[count:], "the file whose sync failed is left behind"
        assert not (tmp_path / "raft/journal" / failed_file).exists()
        assert machine.values()[0] == b"before"
        assert machine.values()[-1] == b"after"
        await log.stop()

    asyncio.run(main())
