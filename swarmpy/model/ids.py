"""Identifiers: how they look, how they are made, how a user's reference finds one.

Docker's ids are 25 characters of base 36. Random ids come from bytes that a shell draws (`from_bytes`);
judgement, which may not draw, derives them from what makes the object unique (`derive`).
"""

from __future__ import annotations

import hashlib
import re

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_PAIRS = [high + low for high in _DIGITS for low in _DIGITS]
_DIGIT_OF = bytes(ord(_DIGITS[byte % 36]) for byte in range(256))
ID_LENGTH = 25
ENTROPY_BYTES = 17
SHORT = 12
"""Length to which ids are cut for display."""

_ID = re.compile(r"[0-9a-z]{25}\Z")


def base36(number: int) -> str:
    """The number in base 36, lower case."""
    digits: list[str] = []
    while number:
        number, rest = divmod(number, 36 * 36)
        digits.append(_PAIRS[rest])
    digits.reverse()
    return "".join(digits).lstrip("0") or "0"


def from_bytes(entropy: bytes) -> str:
    """An id from 17 random bytes, as SwarmKit shapes them: top bit set, base 36, first digit dropped."""
    if len(entropy) < ENTROPY_BYTES:
        raise ValueError(f"an id needs {ENTROPY_BYTES} bytes, got {len(entropy)}")
    number = int.from_bytes(entropy[:ENTROPY_BYTES], "big") | 1 << (ENTROPY_BYTES * 8 - 1)
    return base36(number)[1 : ID_LENGTH + 1]


def derive(*parts: str | int) -> str:
    """The id determined by the parts (SHA-256 of their joined text): same parts, same id."""
    text = "\x00".join(map(str, parts))
    # Each byte gives a digit; a leader makes thousands of them at once, so it must not take long.
    return hashlib.sha256(text.encode()).digest()[:ID_LENGTH].translate(_DIGIT_OF).decode()


def is_id(text: str) -> bool:
    """Whether the text has the shape of a full id."""
    return _ID.match(text) is not None


def seat_id(node_id: str, number: int) -> str:
    """The id under which a node takes its `number`-th seat in the replicated log (from 0).

    The log never takes an id again, so a node that was demoted and promoted comes back under another one.
    """
    return f"{node_id}.{number}" if number else node_id


def node_of(seat: str) -> str:
    """The node that holds a seat."""
    return seat.partition(".")[0]
