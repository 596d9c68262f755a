"""A simulated disk: what was not synced may be lost, torn or half renamed when the machine dies.

What belongs here: Platter (what survives a process) and SimDisk (ports.Disk for one life of a process).
What does not: deciding when things fail (faults.py).

The model is the weakest that POSIX allows and no weaker: bytes are safe after `sync` of their file, names
after `sync_dir` of their folder; everything else survives a power cut only by luck. A killed process, as
against a power cut, loses nothing that it wrote. Folders themselves are durable once made.
"""

from __future__ import annotations

import asyncio
import errno
import os
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from swarmpy.sim.loop import Process
from swarmpy.sim.trace import Trace

T = TypeVar("T")

SECTOR = 512
"""Bytes that a device writes wholly or not at all."""

Hook = Callable[[str, str], None]
"""Called around each operation with ("before" | "after" and the operation's name, the path)."""


@dataclass(slots=True)
class _File:
    """An inode. Durable are the first `safe` bytes, or `base` where the file was rewritten since its sync."""

    data: bytearray = field(default_factory=bytearray)
    safe: int = 0
    base: bytes | None = None
    lost_from: int | None = None
    """After a failed sync: bytes from here on will never be durable, whatever later syncs say."""

    def rewritten(self) -> None:
        if self.base is None:
            self.base = bytes(self.data[: self.safe])

    def sync(self) -> None:
        if self.lost_from is not None:
            if self.base is None:
                self.safe = min(len(self.data), self.lost_from)
            return
        self.base = None
        self.safe = len(self.data)

    def after_crash(self, chance: random.Random) -> bytes:
        durable = self.base if self.base is not None else bytes(self.data[: self.safe])
        present = bytes(self.data)
        if present == durable:
            return durable
        fate = chance.random()
        if fate < 0.4:
            return durable
        if self.base is None:
            return _torn_tail(present, self.safe, chance)
        if fate < 0.7:
            return present
        cut = chance.randint(0, len(present))
        return present[:cut] + durable[cut:]


def _torn_tail(data: bytes, safe: int, chance: random.Random) -> bytes:
    """A prefix of what was appended survives; some of its sectors may never have been written (zeros)."""
    cut = chance.randint(safe, len(data))
    kept = bytearray(data[:cut])
    if chance.random() < 0.5:
        return bytes(kept)
    start = safe
    while start < cut:
        end = min(cut, (start // SECTOR + 1) * SECTOR)
        if chance.random() < 0.4:
            kept[start:end] = bytes(end - start)
        start = end
    return bytes(kept)


@dataclass(frozen=True, slots=True)
class _NameOp:
    """A change of names that is not durable yet: `path` now is `file` (None: gone), in `folder`."""

    folder: str
    entries: tuple[tuple[str, _File | None], ...]


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


class Platter:
    """The magnetic truth of one node. Times in seconds, sizes in bytes."""

    QUICK = (0.0002, 0.001)
    """How long jobs take on a disk in good health, seconds."""

    def __init__(self, seed: str) -> None:
        self.chance = random.Random(seed)  # noqa: S311  a simulation must be repeatable
        self.live: dict[str, _File] = {}
        self.durable: dict[str, _File] = {}
        self.folders: set[str] = {""}
        self.pending: list[_NameOp] = []
        self.capacity: int | None = None
        """Bytes that fit; None is no limit."""
        self.latency = self.QUICK
        """How long a job in `work` takes."""
        self.failing_sync = 0
        """How many of the next syncs fail with EIO."""
        self.generation = 0
        """How often it was wiped."""

    @property
    def used(self) -> int:
        """Bytes in live files."""
        return sum(len(file.data) for file in self.live.values())

    def power_cut(self) -> None:
        """Lose what the device never promised to keep; what remains is durable."""
        kept = len(self.pending) if self.chance.random() < 0.3 else self.chance.randint(0, len(self.pending))
        names = dict(self.durable)
        for op in self.pending[:kept]:
            _enter(names, op)
        fresh: dict[int, _File] = {}
        for path in sorted(names):
            file = names[path]
            if id(file) not in fresh:
                data = bytearray(file.after_crash(self.chance))
                fresh[id(file)] = _File(data, safe=len(data))
            names[path] = fresh[id(file)]
        self.live = names
        self.durable = dict(names)
        self.pending = []

    def unlucky(self) -> Platter:
        """Another disk with what would be left after a power cut now, in the worst case."""
        other = Platter("unlucky")
        other.folders = set(self.folders)
        for path, file in self.durable.items():
            data = bytearray(file.base if file.base is not None else file.data[: file.safe])
            other.live[path] = other.durable[path] = _File(data, safe=len(data))
        return other

    def wipe(self) -> None:
        """An empty disk in the same machine."""
        self.live, self.durable, self.pending, self.folders = {}, {}, [], {""}
        self.generation += 1

    def erase(self, path: str) -> None:
        """Lose one file."""
        self.live.pop(path, None)
        self.durable.pop(path, None)
        self.pending = [op for op in self.pending if all(name != path for name, _ in op.entries)]

    def rot(self, path: str, offset: int, mask: int = 1) -> None:
        """Flip bits of a durable byte."""
        file = self.live[path]
        file.data[offset] ^= mask
        if file.base is not None:
            file.base = bytes(file.data)

    def rename_op(self, folder: str, *entries: tuple[str, _File | None]) -> None:
        """Change live names; durable only after the folder's sync."""
        op = _NameOp(folder, entries)
        _enter(self.live, op)
        self.pending.append(op)

    def settle(self, folder: str) -> None:
        """Make the folder's names durable."""
        rest = []
        for op in self.pending:
            if op.folder == folder:
                _enter(self.durable, op)
            else:
                rest.append(op)
        self.pending = rest


def _enter(names: dict[str, _File], op: _NameOp) -> None:
    for path, file in op.entries:
        if file is None:
            names.pop(path, None)
        else:
            names[path] = file


class SimDisk:
    """ports.Disk over a Platter, for one life of a process."""

    def __init__(self, platter: Platter, process: Process | None = None, *, trace: Trace | None = None,
                 hook: Hook | None = None) -> None:  # fmt: skip
        self._platter = platter
        self._process = process
        self._trace = trace
        self.hook = hook
        self._jobs: deque[tuple[Callable[[], Any], asyncio.Future[Any]]] = deque()

    # ------------------------------------------------------------ reading

    def list(self, folder: str) -> list[str]:
        """Names in the folder, sorted."""
        self._alive()
        prefix = folder.rstrip("/") + "/" if folder.strip("/") else ""
        names = {path[len(prefix) :].partition("/")[0]
                 for path in (*self._platter.live, *self._platter.folders)
                 if path.startswith(prefix) and len(path) > len(prefix)}  # fmt: skip
        return sorted(names)

    def exists(self, path: str) -> bool:
        """Whether the file exists."""
        self._alive()
        return path in self._platter.live or path in self._platter.folders

    def read(self, path: str) -> bytes:
        """The whole file. Raises FileNotFoundError."""
        self._alive()
        return bytes(self._file(path).data)

    # ------------------------------------------------------------ writing

    def append(self, path: str, data: bytes) -> None:
        """Add to the end. On a full disk a part may have been written."""
        self._before("append", path, data)
        file = self._platter.live.get(path) or self._create(path)
        room = self._room()
        file.data += data[:room]
        if room < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        self._after("append", path)

    def write(self, path: str, data: bytes) -> None:
        """Replace in place; not atomic."""
        self._before("write", path, data)
        file = self._platter.live.get(path) or self._create(path)
        file.rewritten()
        room = self._room() + len(file.data)
        file.data[:] = data[:room]
        if room < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        self._after("write", path)

    def replace(self, path: str, data: bytes | bytearray) -> None:
        """Temporary file, sync, rename, sync of the folder: may die between any two."""
        aside = path + ".tmp"
        if aside in self._platter.live:
            self.unlink(aside)
        try:
            self.append(aside, bytes(data))
            self.sync(aside)
        except OSError:
            self.unlink(aside)
            raise
        self.rename(aside, path)
        self.sync_dir(_folder(path))

    def truncate(self, path: str, size: int) -> None:
        """Cut the file to `size` bytes."""
        self._before("truncate", path)
        file = self._file(path)
        if size < len(file.data):
            file.rewritten()
            del file.data[size:]
        self._after("truncate", path)

    def sync(self, path: str) -> None:
        """Make the content durable. After one EIO the unsynced pages are lost for good."""
        self._before("sync", path)
        file = self._file(path)
        if self._platter.failing_sync > 0:
            self._platter.failing_sync -= 1
            file.lost_from = min(file.safe, len(file.data)) if file.lost_from is None else file.lost_from
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        file.sync()
        self._after("sync", path)

    def sync_dir(self, folder: str) -> None:
        """Make the folder's names durable."""
        self._before("sync_dir", folder)
        self._platter.settle(folder.strip("/"))
        self._after("sync_dir", folder)

    def rename(self, old: str, new: str) -> None:
        """Rename, replacing `new`."""
        self._before("rename", old)
        file = self._file(old)
        if _folder(old) == _folder(new):
            self._platter.rename_op(_folder(new), (old, None), (new, file))
        else:
            self._platter.rename_op(_folder(new), (new, file))
            self._platter.rename_op(_folder(old), (old, None))
        self._after("rename", new)

    def unlink(self, path: str) -> None:
        """Remove a file; missing is fine."""
        self._before("unlink", path)
        if path in self._platter.live:
            self._platter.rename_op(_folder(path), (path, None))
        self._after("unlink", path)

    def mkdir(self, folder: str) -> None:
        """Create the folder and its parents."""
        self._before("mkdir", folder)
        parts = folder.strip("/").split("/")
        self._platter.folders |= {"/".join(parts[: end + 1]) for end in range(len(parts))}

    async def work(self, job: Callable[[], T]) -> T:
        """Run the job after a while, in order of submission; its result comes a while later. A job that
        has begun goes on when its caller is cancelled, as it would in a thread."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._jobs.append((job, done))
        if len(self._jobs) == 1:
            self._later(self._next)
        return await done

    def _next(self) -> None:
        job, done = self._jobs[0]
        if done.cancelled():
            self._leave()
            return
        try:
            result = job()
        except Exception as error:
            self._later(self._settle, done, None, error)
        else:
            self._later(self._settle, done, result, None)

    def _settle(self, done: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
        if not done.done():
            if error is None:
                done.set_result(result)
            else:
                done.set_exception(error)
        self._leave()

    def _leave(self) -> None:
        self._jobs.popleft()
        if self._jobs:
            self._later(self._next)

    def _later(self, step: Callable[..., None], *args: Any) -> None:
        delay = self._platter.chance.uniform(*self._platter.latency) / 2
        asyncio.get_running_loop().call_later(delay, step, *args)

    # ------------------------------------------------------------ inside

    def _alive(self) -> None:
        if self._process is not None and not self._process.alive:
            raise OSError(errno.EIO, "the process that opened this disk is dead")

    def _before(self, name: str, path: str, data: bytes = b"") -> None:
        self._alive()
        if self._trace is not None:
            self._trace.mark(f"{name} {path} {len(data)}".encode())
        if self.hook is not None:
            self.hook(f"before {name}", path)

    def _after(self, name: str, path: str) -> None:
        if self.hook is not None:
            self.hook(f"after {name}", path)

    def _file(self, path: str) -> _File:
        file = self._platter.live.get(path)
        if file is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return file

    def _create(self, path: str) -> _File:
        folder = _folder(path)
        if folder not in self._platter.folders:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), folder)
        if self._room() <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        file = _File()
        self._platter.rename_op(folder, (path, file))
        return file

    def _room(self) -> int:
        capacity = self._platter.capacity
        return 1 << 60 if capacity is None else max(0, capacity - self._platter.used)
