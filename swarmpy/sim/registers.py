"""A small machine for the consensus simulation: registers with write and compare-and-set.

What belongs here: the machine that the log drives and the record of what was applied where. What does not:
the log (adapters/raft), the clients (consensus.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import msgpack

from swarmpy.ports import Image

Seen = Callable[[int, bytes, bytes], None]
"""Told of each applied entry: (index, entry, digest of everything so far)."""


def entry(request: str, kind: str, key: str, value: Any, expected: Any = None) -> bytes:
    """A proposal."""
    packed: bytes = msgpack.packb([request, kind, key, value, expected])
    return packed


class Registers:
    """ports.Machine over keys and values; every request id takes effect once."""

    def __init__(self, applied: Seen, loaded: Callable[[int, bytes], None]) -> None:
        self.values: dict[str, Any] = {}
        self.answers: dict[str, list[Any]] = {}
        """Request id to [index at which it took effect, whether it matched]."""
        self.index = 0
        self.digest = b""
        self._applied = applied
        self._loaded = loaded

    def apply(self, index: int, data: bytes) -> list[Any]:
        """Apply one entry; answers [index at which the request took effect, whether it matched]."""
        request, kind, key, value, expected = msgpack.unpackb(data)
        self.index = index
        self.digest = hashlib.blake2b(self.digest + b"%d" % index + data, digest_size=12).digest()
        answer = self.answers.get(request)
        if answer is None:
            took = kind == "write" or self.values.get(key) == expected
            if took:
                self.values[key] = value
            answer = self.answers[request] = [index, took]
        self._applied(index, data, self.digest)
        return answer

    def save(self) -> Callable[[], bytes]:
        """Capture now, encode later."""
        state = [self.index, self.digest, dict(self.values), dict(self.answers)]

        def encode() -> bytes:
            packed: bytes = msgpack.packb(state)
            return packed

        return encode

    def load(self, image: Image) -> Callable[[], None]:
        """Decode now, replace the state later."""
        try:
            index, digest, values, answers = msgpack.unpackb(image)
        except (ValueError, TypeError) as error:
            raise ValueError("not an image of registers") from error

        def take() -> None:
            self.index, self.digest, self.values, self.answers = index, digest, values, answers
            self._loaded(index, digest)

        return take
