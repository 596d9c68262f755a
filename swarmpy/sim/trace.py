"""The trace: what happened, as lines for people and as one hash for machines.

What belongs here: recording. What does not: deciding whether what happened is right (invariants.py).
Two runs of a seed are the same run if and only if their hashes are equal.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable


class Trace:
    """Lines with virtual time, the last `keep` of them kept, all of them hashed."""

    def __init__(self, time: Callable[[], float], *, keep: int = 400,
                 sink: Callable[[str], None] | None = None) -> None:  # fmt: skip
        self._time = time
        self._hash = hashlib.blake2b(digest_size=8)
        self._sink = sink
        self.lines: deque[str] = deque(maxlen=keep)
        self.count = 0

    def emit(self, who: str, what: str) -> None:
        """Record an event worth a person's eye."""
        line = f"{self._time():10.4f}  {who:<8} {what}"
        self._hash.update(line.encode())
        self.count += 1
        self.lines.append(line)
        if self._sink is not None:
            self._sink(line)

    def mark(self, data: bytes) -> None:
        """Record an event that only the hash remembers (a message, a write)."""
        self._hash.update(b"%.6f" % self._time())
        self._hash.update(data)

    @property
    def hash(self) -> str:
        """The hash of everything so far, 16 hexadecimal digits."""
        return self._hash.hexdigest()
