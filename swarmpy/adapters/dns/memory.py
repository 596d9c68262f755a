"""What a name server keeps: answers by packet, and what each client may still ask. Both bounded.

What belongs here: keeping and forgetting. What does not: what the answers are.
"""

from __future__ import annotations

from swarmpy.adapters.dns.answers import Ours

BYTES = 8 << 20
"""Kept per network; when it is full all is forgotten, which costs a moment of work."""
OVERHEAD = 400
LONGEST = 320
"""Packets that are longer are not kept: a name has at most 255 bytes."""
CLIENTS = 4096


class Memory:
    """Answers by (client, packet without its id)."""

    def __init__(self, size: int = BYTES) -> None:
        self.kept: dict[tuple[str, bytes], Ours] = {}
        self._size = size
        self._used = 0

    def keep(self, key: tuple[str, bytes], answer: Ours) -> None:
        """Keep it, if it is one that lasts."""
        if not answer.lasting or len(key[1]) > LONGEST:
            return
        weight = OVERHEAD + len(key[1]) + sum(map(len, answer.bodies))
        if self._used + weight > self._size:
            self.forget()
        self.kept[key] = answer
        self._used += weight

    def forget(self) -> None:
        """Nothing that was kept counts."""
        self.kept.clear()
        self._used = 0


class Allowance:
    """How much work each client may cause: a bucket that fills with `rate` units a second, up to `burst`."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._buckets: dict[str, list[float]] = {}

    def take(self, client: str, units: float, now: float) -> bool:
        """Whether the client may; if so, it is charged."""
        bucket = self._buckets.get(client)
        if bucket is None:
            if len(self._buckets) >= CLIENTS:
                self._buckets.clear()
            bucket = self._buckets[client] = [self._burst, now]
        left = min(self._burst, bucket[0] + (now - bucket[1]) * self._rate)
        bucket[1] = now
        allowed = left >= units
        bucket[0] = left - units if allowed else left
        return allowed
