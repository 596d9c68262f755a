"""Durations as Go writes them: read by the command line (flags) and by the managers (labels).

What belongs here: reading them. What does not: writing them for people (cli/human). Nothing of swarmpy is
imported here, so that the command line starts at once.
"""

from __future__ import annotations

import re

NANOSECONDS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_PART = re.compile(r"([0-9]*)(\.[0-9]*)?([^0-9.]*)")
_LONGEST = 1000
"""Characters: beyond that it is no slip of the hand, and slow to read."""
_INT64 = 2**63


def duration(text: str) -> int:
    """Go's durations (`1h2m3.5s`, `300ms`, `-1s`, `0`) as nanoseconds. Raises ValueError with Go's words."""
    rest = text[1:] if text[:1] in ("-", "+") else text
    if rest == "0":
        return 0
    if not rest or len(rest) > _LONGEST:
        raise ValueError(f'time: invalid duration "{text}"')
    total = 0
    while rest:
        match = _PART.match(rest)
        whole, fraction, unit = match.groups() if match else ("", "", "")
        if not whole and (fraction or "") in ("", "."):
            raise ValueError(f'time: invalid duration "{text}"')
        if not unit:
            raise ValueError(f'time: missing unit in duration "{text}"')
        if unit not in NANOSECONDS:
            raise ValueError(f'time: unknown unit "{unit}" in duration "{text}"')
        scale = NANOSECONDS[unit]
        digits = (fraction or ".")[1:]
        total += int(whole or "0") * scale + (int(digits) * scale // 10 ** len(digits) if digits else 0)
        rest = rest[match.end() :] if match else ""
    if total >= _INT64:
        raise ValueError(f'time: invalid duration "{text}"')
    return -total if text.startswith("-") else total
