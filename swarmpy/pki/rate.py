"""How many calls without a certificate are served: token buckets per source and in total.

What belongs here: the judgement, pure in the time it is told. What does not: clocks, whom it applies to and
the refusal (adapters/wire). A join costs a signature and a committed entry: without a bound anybody who can
reach the port could keep the leader busy with it.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    """`burst` calls at once, and `per_second` in the long run."""

    burst: float
    per_second: float


@dataclass(slots=True)
class _Bucket:
    """`level` tokens were left at `at`."""

    level: float
    at: float

    def refill(self, rate: Rate, now: float) -> None:
        """Add what has flowed in since; time that seems to go back adds nothing."""
        self.level = min(rate.burst, self.level + max(0.0, now - self.at) * rate.per_second)
        self.at = now

    def wait(self, rate: Rate) -> float:
        """Seconds until a call can be paid for."""
        # The smallest shortfall is rounding: without the slack a caller who waits as told would wait twice.
        return 0.0 if self.level > 1 - 1e-9 else (1 - self.level) / rate.per_second


class RateLimit:
    """Bounds calls per source and in total. A refused call costs nothing, so who waits as told gets through.

    A source that is over its own bound takes nothing from the total, so it cannot keep the others out. At
    most `sources` are remembered; when there are more, those that have been quiet longest are forgotten.
    """

    def __init__(self, each: Rate, total: Rate, sources: int = 4096) -> None:
        self._each, self._total, self._limit = each, total, sources
        self._all = _Bucket(total.burst, 0.0)
        self._known: dict[str, _Bucket] = {}

    def __len__(self) -> int:
        """Sources remembered."""
        return len(self._known)

    def admit(self, source: str, now: float) -> float:
        """0.0 and the call is paid for, or how many seconds from `now` it is worth trying again."""
        bucket = self._known.pop(source, None) or _Bucket(self._each.burst, now)
        self._known[source] = bucket  # at the end: the order of the dict is that of the last call
        if len(self._known) > self._limit:
            del self._known[next(iter(self._known))]
        bucket.refill(self._each, now)
        self._all.refill(self._total, now)
        wait = bucket.wait(self._each) or self._all.wait(self._total)
        if not wait:
            bucket.level -= 1
            self._all.level -= 1
        return wait


def source_of(host: str) -> str:
    """What counts as one source: an IPv4 address, or an IPv6 address's /64, which one machine may own."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
