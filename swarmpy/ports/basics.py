"""Time, chance and disk: what every shell may use. See the package's charter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

Instant = int
"""Nanoseconds since 1970-01-01T00:00:00Z."""

T = TypeVar("T")


class Clock(Protocol):
    """The node's clocks. `now` may jump; `monotonic` never goes back."""

    def now(self) -> Instant:
        """Wall clock, nanoseconds since the epoch."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary start; never decreases."""


class Entropy(Protocol):
    """The only source of randomness for shells."""

    def token(self, size: int) -> bytes:
        """`size` unpredictable bytes."""

    def uniform(self, low: float, high: float) -> float:
        """A float drawn uniformly from [low, high)."""


class Disk(Protocol):
    """A small file system rooted at the node's state directory; paths are relative, '/'-separated.

    The blocking calls raise OSError. `work` runs one of them (or a function made of them) away from the
    event loop. Nothing is durable before `sync`; a new name is not durable before `sync_dir`.
    """

    def list(self, folder: str) -> list[str]:
        """Names in `folder`, sorted; empty when the folder does not exist."""

    def exists(self, path: str) -> bool:
        """Whether the file exists."""

    def read(self, path: str) -> bytes:
        """The whole file. Raises FileNotFoundError."""

    def append(self, path: str, data: bytes) -> None:
        """Add bytes to the end of the file, creating it (mode 0600) where missing."""

    def write(self, path: str, data: bytes) -> None:
        """Replace the file's content in place (not atomic); see `replace`."""

    def replace(self, path: str, data: bytes | bytearray) -> None:
        """Atomically and durably replace: temporary file, sync, rename, sync of the folder."""

    def truncate(self, path: str, size: int) -> None:
        """Cut the file to `size` bytes."""

    def sync(self, path: str) -> None:
        """fdatasync the file."""

    def sync_dir(self, folder: str) -> None:
        """Make creations, renames and removals in `folder` durable."""

    def rename(self, old: str, new: str) -> None:
        """Rename, replacing `new`."""

    def unlink(self, path: str) -> None:
        """Remove a file; missing is fine."""

    def mkdir(self, folder: str) -> None:
        """Create the folder and its parents (mode 0700); existing is fine."""

    async def work(self, job: Callable[[], T]) -> T:
        """Run blocking work off the event loop, in order of submission, and return its result."""
