"""The node's state directory as ports.Disk.

What belongs here: careful file operations below one root. What does not: what the files mean.

No path leads out: every folder on the way is opened with O_NOFOLLOW relative to the one above, so a link
planted in the state directory is refused, not followed. Files are 0600, folders 0700.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TypeVar

T = TypeVar("T")

_FILE_MODE = 0o600
_FOLDER_MODE = 0o700
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_TEMPORARY = ".tmp"


class FileDisk:
    """Files below `root`, with one worker thread. The blocking methods are for that thread (or for tests);
    `close` ends it.

    The descriptor of the file appended to last stays open until it is synced, so that a write error that
    the kernel reports late reaches our fdatasync.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self._root = os.fspath(root)
        self._pool: ThreadPoolExecutor | None = None
        self._appending: tuple[str, int] | None = None
        os.makedirs(root, mode=_FOLDER_MODE, exist_ok=True)

    # -------------------------------------------------- reading

    def list(self, folder: str) -> list[str]:
        """Names in `folder`, sorted; empty when the folder does not exist."""
        try:
            with self._folder(_parts(folder)) as fd:
                return sorted(os.listdir(fd))
        except FileNotFoundError:
            return []

    def exists(self, path: str) -> bool:
        """Whether the file exists."""
        try:
            with self._parent(path) as (fd, name):
                os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def read(self, path: str) -> bytes:
        """The whole file. Raises FileNotFoundError."""
        with self._parent(path) as (fd, name):
            file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            with os.fdopen(file, "rb") as stream:
                return stream.read()

    # -------------------------------------------------- writing

    def append(self, path: str, data: bytes) -> None:
        """Add bytes to the end of the file, creating it where missing."""
        if self._appending is None or self._appending[0] != path:
            self._forget()
            with self._parent(path) as (fd, name):
                file = _create(name, fd, os.O_APPEND)
            self._appending = (path, file)
        _write_all(self._appending[1], data)

    def write(self, path: str, data: bytes) -> None:
        """Replace the file's content in place."""
        self._forget()
        with self._parent(path) as (fd, name):
            file = _create(name, fd, os.O_TRUNC)
            try:
                _write_all(file, data)
            finally:
                os.close(file)

    def replace(self, path: str, data: bytes | bytearray) -> None:
        """Atomically and durably replace: temporary file, sync, rename, sync of the folder.

        Where that fails the temporary file goes: on a full disk it would keep what space is left.
        """
        self._forget()
        with self._parent(path) as (fd, name):
            aside = name + _TEMPORARY
            file = _create(aside, fd, os.O_TRUNC)
            try:
                try:
                    _write_all(file, data)
                    os.fsync(file)
                finally:
                    os.close(file)
                os.rename(aside, name, src_dir_fd=fd, dst_dir_fd=fd)
            except OSError:
                with suppress(OSError):
                    os.unlink(aside, dir_fd=fd)
                raise
            os.fsync(fd)

    def truncate(self, path: str, size: int) -> None:
        """Cut the file to `size` bytes."""
        self._forget()
        with self._opened(path, os.O_WRONLY) as file:
            os.ftruncate(file, size)

    def sync(self, path: str) -> None:
        """fdatasync the file."""
        if self._appending is not None and self._appending[0] == path:
            os.fdatasync(self._appending[1])
            return
        with self._opened(path, os.O_WRONLY) as file:
            os.fdatasync(file)

    def sync_dir(self, folder: str) -> None:
        """Make creations, renames and removals in `folder` durable."""
        with self._folder(_parts(folder)) as fd:
            os.fsync(fd)

    def rename(self, old: str, new: str) -> None:
        """Rename, replacing `new`."""
        self._forget()
        with self._parent(old) as (source, name), self._parent(new) as (target, new_name):
            os.rename(name, new_name, src_dir_fd=source, dst_dir_fd=target)

    def unlink(self, path: str) -> None:
        """Remove a file; missing is fine."""
        self._forget()
        try:
            with self._parent(path) as (fd, name):
                os.unlink(name, dir_fd=fd)
        except FileNotFoundError:
            return

    def mkdir(self, folder: str) -> None:
        """Create the folder and its parents; existing is fine. Their names are durable on return."""
        parts = _parts(folder)
        for depth, name in enumerate(parts):
            with self._folder(parts[:depth]) as fd:
                with suppress(FileExistsError):
                    os.mkdir(name, _FOLDER_MODE, dir_fd=fd)
                os.fsync(fd)  # also where it exists: who made it may have died before this

    # -------------------------------------------------- the worker

    async def work(self, job: Callable[[], T]) -> T:
        """Run blocking work in the worker thread, in order of submission."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="disk")
        return await asyncio.get_running_loop().run_in_executor(self._pool, job)

    def close(self) -> None:
        """Finish what was submitted, and end the worker."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True)
        self._forget()

    # -------------------------------------------------- paths

    def _forget(self) -> None:
        if self._appending is not None:
            _, file = self._appending
            self._appending = None
            os.close(file)

    @contextmanager
    def _folder(self, parts: tuple[str, ...]) -> Iterator[int]:
        """A descriptor of the folder, reached without following links below the root."""
        fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in parts:
                below = os.open(part, _FOLDER_FLAGS, dir_fd=fd)
                os.close(fd)
                fd = below
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def _parent(self, path: str) -> Iterator[tuple[int, str]]:
        parts = _parts(path)
        if not parts:
            raise ValueError("a file's path is needed")
        with self._folder(parts[:-1]) as fd:
            yield fd, parts[-1]

    @contextmanager
    def _opened(self, path: str, flags: int) -> Iterator[int]:
        with self._parent(path) as (fd, name):
            file = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
        try:
            yield file
        finally:
            os.close(file)


def _parts(path: str) -> tuple[str, ...]:
    parts = tuple(part for part in path.split("/") if part and part != ".")
    if path.startswith("/") or ".." in parts:
        raise ValueError(f"the path {path!r} leads out of the state directory")
    return parts


def _create(name: str, folder: int, flags: int) -> int:
    flags |= os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(name, flags, _FILE_MODE, dir_fd=folder)


def _write_all(file: int, data: bytes | bytearray) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
