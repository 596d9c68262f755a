"""Other network namespaces, entered by their path.

What belongs here: entering and coming back. What does not: what is done there.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from swarmpy.ports import FabricError

T = TypeVar("T")
NEW_NET = 0x40000000
OWN = "/proc/self/ns/net"
"""The namespace of this process (of its first thread, which never leaves it)."""

_libc = ctypes.CDLL(None, use_errno=True)


def inside(path: str, work: Callable[..., T], *arguments: Any) -> T:
    """What `work` returns (or raises) in that namespace. Raises FabricError where there is no such namespace.

    The thread goes there and comes back; the first one, of whose namespace /proc/self speaks and which runs
    the loop, has another one go. No other work finds itself in a foreign namespace.
    """
    if threading.current_thread() is threading.main_thread():
        return _run(lambda: _enter(path), work, arguments)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _enter(path)
        try:
            return work(*arguments)
        finally:
            if _libc.setns(home, NEW_NET):
                os.abort()  # cannot be; but all that this thread did from now on would be done elsewhere
    finally:
        os.close(home)


def apart(work: Callable[..., T], *arguments: Any) -> T:
    """What `work` returns in a new, empty namespace, which ends with it."""
    return _run(_leave, work, arguments)


def ends_with_us(folder: str = "/run/netns") -> bool:
    """Whether names that this process gives to namespaces end with it: its mounts follow those of the
    machine, but are not those."""
    with suppress(OSError):  # a machine in a container may have such mounts itself, and may not say
        if os.path.samefile("/proc/self/ns/mnt", "/proc/1/ns/mnt"):
            return False
    best, fields = "", ""
    with open("/proc/self/mountinfo") as mounts:
        for line in mounts:
            left = line.partition(" - ")[0].split()
            point = left[4].rstrip("/") + "/"
            if (folder + "/").startswith(point) and len(point) >= len(best):
                best, fields = point, " ".join(left[6:])
    return "master:" in fields


def _run(move: Callable[[], None], work: Callable[..., T], arguments: tuple[Any, ...]) -> T:
    results: list[T] = []
    failures: list[BaseException] = []

    def body() -> None:
        try:
            move()
            results.append(work(*arguments))
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=body, name="namespace", daemon=True)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]


def _enter(path: str) -> None:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise FabricError(f"the network namespace {path} cannot be opened: {error.strerror}") from None
    try:
        if _libc.setns(handle, NEW_NET):
            why = os.strerror(ctypes.get_errno())
            raise FabricError(f"the network namespace {path} cannot be entered: {why}; this needs root")
    finally:
        os.close(handle)


def _leave() -> None:
    if _libc.unshare(NEW_NET):
        why = os.strerror(ctypes.get_errno())
        raise FabricError(f"a network namespace cannot be made: {why}; this needs root")
