"""The nemesis: which faults a seed enables, and when they strike.

What belongs here: choosing and timing. What does not: the faults (faults.py, enginefaults.py).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from swarmpy.sim import enginefaults, memberfaults, netfaults
from swarmpy.sim.faults import REGISTRY, Fault, Undo
from swarmpy.sim.stage import Stage

__all__ = ["BASIC", "REGISTRY", "Nemesis", "subset"]

BASIC = ("network", "process", "disk", "clock")
"""Groups that hurt a log; Engines are no part of it."""
MORE_FAULTS = (enginefaults.__name__, memberfaults.__name__, netfaults.__name__)
"""The modules that register the rest."""


def subset(chance: random.Random, names: Sequence[str]) -> list[str]:
    """The kinds that one seed enables: few or many of them."""
    count = min(len(names), chance.choice((1, 2, 3, 3, 5, 8, len(names))))
    return sorted(chance.sample(list(names), count))


class Nemesis:
    """Plays faults for a while, each undone after a time of its own."""

    def __init__(self, stage: Stage, names: Sequence[str], *, pace: tuple[float, float] = (0.1, 1.5),
                 spell: tuple[float, float] = (0.1, 4.0)) -> None:  # fmt: skip
        self.stage = stage
        self.faults = [REGISTRY[name] for name in names]
        self.pace = pace
        self.spell = spell
        self.played: dict[str, int] = {}
        self._undos: dict[int, Undo] = {}
        self._number = 0

    async def play(self, duration: float) -> None:
        """Do damage for so many virtual seconds, then undo all that is left."""
        stage, chance = self.stage, self.stage.faults
        end = stage.loop.instant + duration
        while self.faults and stage.loop.instant < end:
            await asyncio.sleep(chance.uniform(*self.pace))
            self._strike(chance.choice(self.faults), chance)
        await asyncio.sleep(max(0.0, end - stage.loop.instant))
        for number in sorted(self._undos):
            self._undo(number)

    def _strike(self, fault: Fault, chance: random.Random) -> None:
        self.stage.trace.emit("nemesis", fault.name)
        undo = fault.begin(self.stage, chance)
        if undo is None:
            return
        self.played[fault.name] = self.played.get(fault.name, 0) + 1
        self._number += 1
        self._undos[self._number] = undo
        self.stage.net.later(chance.uniform(*self.spell), self._undo, self._number)

    def _undo(self, number: int) -> None:
        undo = self._undos.pop(number, None)
        if undo is not None:
            undo()
