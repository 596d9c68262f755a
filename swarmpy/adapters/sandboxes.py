"""Waiting for a container's network namespace: ports.Sandboxes.

The Engine tells a container's namespace by a path at which it is mounted only later, by a hook between the
making of the container and its process. The kernel says at once when any mount changes: whoever polls
/proc/self/mountinfo is woken. What does not belong here: what is done in the namespace then.
"""

from __future__ import annotations

import asyncio
import os
import select
import threading
from contextlib import suppress

OWN = "/proc/self/ns/net"
MOUNTS = "/proc/self/mountinfo"


def mounted(path: str) -> bool:
    """Whether a network namespace can be entered at the path."""
    try:
        return os.stat(path).st_dev == os.stat(OWN).st_dev
    except OSError:
        return False


class MountWatch:
    """One thread that waits for mounts while anybody waits for a namespace."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]]] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._wake = -1

    async def appeared(self, path: str, *, patience: float) -> bool:
        """Return True once the namespace can be entered, False after `patience` seconds."""
        if mounted(path):
            return True
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._add(path, asyncio.get_running_loop(), future)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await future
        finally:
            self._drop(path, future)
        return mounted(path)

    def _add(self, path: str, loop: asyncio.AbstractEventLoop, future: asyncio.Future[None]) -> None:
        with self._lock:
            self._waiting.setdefault(path, []).append((loop, future))
            if self._thread is None:
                self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
                self._thread = threading.Thread(target=self._watch, name="mounts", daemon=True)
                self._thread.start()
            else:
                os.eventfd_write(self._wake, 1)  # it may have looked before we were there

    def _drop(self, path: str, future: asyncio.Future[None]) -> None:
        with self._lock:
            kept = [one for one in self._waiting.get(path, []) if one[1] is not future]
            if kept:
                self._waiting[path] = kept
            else:
                self._waiting.pop(path, None)
            if self._thread is not None and not self._waiting:
                os.eventfd_write(self._wake, 1)  # nobody waits: the thread ends

    def _watch(self) -> None:
        with open(MOUNTS, "rb") as mounts:
            poll = select.poll()
            poll.register(mounts, select.POLLPRI | select.POLLERR)
            poll.register(self._wake, select.POLLIN)
            while True:
                with self._lock:
                    if not self._waiting:
                        os.close(self._wake)
                        self._thread = None
                        return
                    found = {path: list(ends) for path, ends in self._waiting.items() if mounted(path)}
                for ends in found.values():
                    for loop, future in ends:
                        with suppress(RuntimeError):  # the loop ended: nobody waits there
                            loop.call_soon_threadsafe(_settle, future)
                with self._lock:
                    for path in found:
                        self._waiting.pop(path, None)
                    if not self._waiting:
                        continue
                poll.poll()
                with suppress(BlockingIOError):
                    os.eventfd_read(self._wake)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
