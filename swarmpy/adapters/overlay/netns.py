"""Network namespaces: made, named, entered, removed; and the thread that does so.

What belongs here: setns and its dangers. A thread's namespace is its own, so whoever enters one must be sure
to come back; the event loop's thread never enters any. What does not belong here: what is done inside.

Names are files in a folder on which namespaces are mounted, as `ip netns` does it.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

FOLDER = "/run/netns"
OWN = "/proc/self/ns/net"
"""The process's own namespace: that of its main thread."""
_HERE = "/proc/thread-self/ns/net"
_NEWNET = 0x40000000
_BIND, _REC, _SHARED = 0x1000, 0x4000, 1 << 20
_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *args: int | bytes | None) -> None:
    if getattr(_libc, name)(*args) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _mount(source: str, target: str, kind: str, flags: int) -> None:
    _call("mount", source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), None)  # type: ignore[arg-type]  # ctypes takes its own integers too


class Spaces:
    """The namespaces in one folder, seen from a home. For use in a Worker's thread only."""

    def __init__(self, folder: str, home: str, step: Callable[[str], None]) -> None:
        self.folder = Path(folder)
        self.home = os.open(home, os.O_RDONLY | os.O_CLOEXEC)
        self._step = step

    def close(self) -> None:
        """Let the home go."""
        os.close(self.home)

    def path(self, name: str) -> str:
        """Where the namespace is mounted."""
        return str(self.folder / name)

    def names(self, prefix: str) -> list[str]:
        """All names with the prefix, also of files on which nothing is mounted."""
        with suppress(FileNotFoundError):
            return sorted(name for name in os.listdir(self.folder) if name.startswith(prefix))
        return []

    def exists(self, name: str) -> bool:
        """Whether a namespace has this name."""
        with suppress(FileNotFoundError):
            return os.stat(self.path(name)).st_dev == os.stat(OWN).st_dev
        return False

    @contextmanager
    def opened(self, name: str) -> Generator[int, None, None]:
        """A descriptor of the namespace."""
        descriptor = os.open(self.path(name), os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def inside(self, descriptor: int) -> Generator[None, None, None]:
        """The calling thread is inside, and afterwards at home again."""
        _call("setns", descriptor, _NEWNET)
        try:
            yield
        finally:
            self.go_home()

    @contextmanager
    def fresh(self) -> Generator[None, None, None]:
        """The calling thread is inside a new namespace that has no name and ends when it leaves."""
        _call("unshare", _NEWNET)
        try:
            yield
        finally:
            self.go_home()

    def go_home(self) -> None:
        """Enter the home; free where the thread is there already."""
        here, home = os.stat(_HERE), os.fstat(self.home)
        if (here.st_ino, here.st_dev) != (home.st_ino, home.st_dev):
            _call("setns", self.home, _NEWNET)

    def create(self, name: str, furnish: Callable[[], None]) -> None:
        """Make a namespace. It gets its name once `furnish` (run inside) is through, so that what has a name
        always has its identity too."""
        self._share()
        path = self.path(name)
        with self.fresh():
            furnish()
            self._step("name")
            os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o444))
            try:
                self._step("mount")
                _mount(_HERE, path, "none", _BIND)
            except BaseException:
                os.unlink(path)
                raise

    def _share(self) -> None:
        """Mounts in the folder are to be seen, and to end, in all mount namespaces: as `ip netns` does it."""
        folder = str(self.folder)
        self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        try:
            _mount("", folder, "none", _SHARED | _REC)
        except OSError:
            _mount(folder, folder, "none", _BIND | _REC)
            _mount("", folder, "none", _SHARED | _REC)

    def delete(self, name: str) -> None:
        """Take the name away; the namespace ends with its last user. Missing is fine."""
        path = self.path(name)
        while self.exists(name):
            _call("umount2", path.encode(), _DETACH)
        self._step("unlink")
        with suppress(FileNotFoundError):
            os.unlink(path)


class Worker:
    """One thread for everything that enters namespaces, one job after the other. A thread that could not come
    home is replaced before anything else is done."""

    def __init__(self, spaces: Spaces) -> None:
        self._spaces = spaces
        self._pool = _pool()

    async def run(self, job: Callable[[], T]) -> T:
        """The job's result. A cancelled caller leaves the job to end by itself."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._guarded, job)

    def _guarded(self, job: Callable[[], T]) -> T:
        try:
            self._spaces.go_home()
            return job()
        finally:
            try:
                self._spaces.go_home()
            except OSError:
                self._pool.shutdown(wait=False)
                self._pool = _pool()
                raise

    def close(self) -> None:
        """Wait for what is under way and end the thread."""
        self._pool.shutdown()


def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="netns")


def aside(home: int, job: Callable[[], T]) -> T:
    """Do something quick in the namespace of that descriptor, in a thread of its own that ends with it."""
    results: list[T] = []
    errors: list[Exception] = []

    def work() -> None:
        try:
            _call("setns", home, _NEWNET)
            results.append(job())
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=work, name="netns-aside", daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
