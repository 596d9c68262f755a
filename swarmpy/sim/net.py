"""The simulated network between machines: who can reach whom, how late, how badly.

What belongs here: hosts, link conditions, walls (partitions) and the flight of packets. What does not: calls
and channels (wire.py), deciding when the network misbehaves (faults.py).

Links carry TCP: a lost packet is a late one (it is sent again), a blocked link holds what was sent until it
heals or the connection is given up.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from swarmpy.sim.loop import NEUTRAL, SimLoop
from swarmpy.sim.trace import Trace

if TYPE_CHECKING:
    from swarmpy.ports import Peer
    from swarmpy.sim.channel import SimChannel
    from swarmpy.sim.wire import SimWire

RESEND = 0.2
"""Seconds after which TCP first sends a lost packet again."""


@dataclass(slots=True)
class Conditions:
    """Of one direction of a link. Seconds and probabilities per message."""

    latency: tuple[float, float] = (0.0005, 0.003)
    loss: float = 0.0
    duplicate: float = 0.0
    """A call whose answer is late is sent again, as an impatient client library would."""
    reset: float = 0.0
    """The connection breaks under the message, which may or may not have arrived."""


class SimNet:
    """All hosts and the links between them. A host is an IP address."""

    def __init__(self, loop: SimLoop, seed: str, trace: Trace) -> None:
        self.loop = loop
        self.chance = random.Random(seed)  # noqa: S311  a simulation must be repeatable
        self.trace = trace
        self.usual = Conditions()
        self.links: dict[tuple[str, str], Conditions] = {}
        self.listening: dict[str, SimWire] = {}
        self.channels: dict[int, SimChannel] = {}
        """Every end of every channel that has not ended, by number."""
        self.dark: set[str] = set()
        """Hosts without power: they answer nothing, not even with a reset."""
        self.last_error: BaseException | None = None
        self.problems: list[str] = []
        """Handlers that failed in a way that they should not."""
        self.delivered = 0
        self.tap: Callable[[str, str, Any], None] | None = None
        """Sees every body as it is sent on a channel: (from host, to host, body)."""
        self.serving: Callable[[SimWire, Peer, str], Callable[[], None]] | None = None
        """Told of every request and every message of a served channel; what it returns is called when it was
        served: (the server's wire, who asks, method)."""
        self._walls: dict[tuple[str, str], int] = {}
        self._numbers = 0
        self._ports = 40_000

    # ------------------------------------------------------------ what the network does

    def number(self) -> int:
        """A fresh number for a call or an end of a channel."""
        self._numbers += 1
        return self._numbers

    def source(self, host: str) -> str:
        """An ephemeral address of a host."""
        self._ports = self._ports + 1 if self._ports < 60_000 else 40_000
        return f"{host}:{self._ports}"

    def blocked(self, source: str, target: str) -> bool:
        """Whether packets from one host to the other vanish."""
        return (source, target) in self._walls or target in self.dark or source in self.dark

    def link(self, source: str, target: str) -> Conditions:
        """The conditions of that direction."""
        return self.links.get((source, target), self.usual)

    def delay(self, source: str, target: str) -> float:
        """How long the next message takes, resends included."""
        link = self.link(source, target)
        chance = self.chance
        low, high = link.latency
        delay = low + (high - low) * chance.random()
        if link.loss:
            resend = RESEND
            while chance.random() < link.loss and resend < 4:
                delay += resend
                resend *= 2
        return delay

    def later(self, delay: float, action: Callable[..., None], *args: Any) -> None:
        """Do something in the network, outside every process."""
        self.loop.call_at(self.loop.instant + delay, action, *args, context=NEUTRAL)

    # ------------------------------------------------------------ walls

    def wall(
        self, sources: Iterable[str], targets: Iterable[str], *, both: bool = True
    ) -> Callable[[], None]:
        """Block packets from each source to each target (`both`: and back). Returns what takes the wall
        down; walls add up."""
        pairs = [pair for pair in product(sorted(sources), sorted(targets)) if pair[0] != pair[1]]
        if both:
            pairs += [(target, source) for source, target in pairs]
        for pair in pairs:
            self._walls[pair] = self._walls.get(pair, 0) + 1

        def heal() -> None:
            for pair in pairs:
                left = self._walls.get(pair, 0) - 1
                if left > 0:
                    self._walls[pair] = left
                else:
                    self._walls.pop(pair, None)
            pairs.clear()
            self._thaw()

        return heal

    def heal_all(self) -> None:
        """Take every wall down and make every link good."""
        self._walls.clear()
        self.links.clear()
        self.usual = Conditions()
        self._thaw()

    def _thaw(self) -> None:
        for number in sorted(self.channels):
            end = self.channels.get(number)
            if end is not None:
                end.thaw()

    def reset(self, one: str, other: str) -> int:
        """Break every channel between two hosts; how many ends broke."""
        ends = [end for _, end in sorted(self.channels.items()) if end.between(one, other)]
        for end in ends:
            end.cut("the connection was reset")
        return len(ends)
