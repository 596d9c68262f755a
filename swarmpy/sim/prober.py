"""ports.Prober over a simulated underlay: questions that are lost, late, or too wide.

What belongs here: the same promises as the real one's (adapters/prober), kept in virtual time. What does not:
what silence means (plan/probing).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from swarmpy.ports import FabricError, Heard, Station

SMALL = 64
HEADS = 28
"""Bytes of IP and UDP around a datagram."""


class Underlay:
    """The wire between simulated probers. `passes(source, target)` decides on each packet; `delay` is the
    time of one way in seconds, `mtu` the widest packet."""

    def __init__(self, passes: Callable[[str, str], bool] = lambda _source, _target: True) -> None:
        self.passes, self.delay, self.mtu = passes, 0.0005, 1500
        self.served: dict[tuple[str, int], SimProber] = {}
        self.sent = 0


class SimProber:
    """ports.Prober on an Underlay."""

    def __init__(self, underlay: Underlay) -> None:
        self._underlay = underlay
        self._heard: Heard | None = None
        self._serves: tuple[str, int, bytes] | None = None

    def begin(self, heard: Heard) -> None:
        """Tell of answers from now on."""
        self._heard = heard

    async def serve(self, local: str, port: int, key: bytes) -> None:
        """Ask and answer at this address; whatever was served before ends."""
        await self.stop()
        if self._underlay.served.setdefault((local, port), self) is not self:
            raise FabricError(f"questions of other nodes cannot be answered at {local}, UDP port {port}")
        self._serves = (local, port, key)

    def ask(self, peer: str, number: int, size: int = 0) -> None:
        """Send one question."""
        if self._serves is None:
            return
        local, port, key = self._serves
        wide = max(size, SMALL)
        self._carry(local, peer, wide, lambda: self._asked(peer, port, local, key, number, wide))

    def _carry(self, source: str, target: str, size: int, arrive: Callable[[], None]) -> None:
        wire = self._underlay
        wire.sent += 1
        if size + HEADS <= wire.mtu and wire.passes(source, target):
            asyncio.get_running_loop().call_later(wire.delay, arrive)

    def _asked(self, peer: str, port: int, asker: str, key: bytes, number: int, size: int) -> None:
        other = self._underlay.served.get((peer, port))
        if other is not None and other._serves == (peer, port, key):
            self._carry(peer, asker, SMALL, lambda: self._answered((asker, port, key), peer, number, size))

    def _answered(self, by: tuple[str, int, bytes], peer: str, number: int, size: int) -> None:
        if self._serves == by and self._heard is not None:
            self._heard(peer, number, size)

    async def stop(self) -> None:
        """Neither ask nor answer any more."""
        if self._serves is not None:
            self._underlay.served.pop(self._serves[:2], None)
            self._serves = None


class NoTrials:
    """ports.Trials where nothing can be tried: the whole-cluster simulator carries no packets of networks."""

    async def across(
        self, namespace: str, here: Station, there: Sequence[Station], size: int, patience: float
    ) -> frozenset[Station]:
        """Cannot be tried."""
        raise FabricError(f"nothing can be sent in {namespace}: its packets are not simulated")

    async def answers(
        self, namespace: str, addresses: Sequence[str], name: str, patience: float
    ) -> frozenset[str]:
        """Cannot be tried."""
        raise FabricError(f"nobody can be asked in {namespace}: its packets are not simulated")
