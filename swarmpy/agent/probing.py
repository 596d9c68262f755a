"""The agent's questions to the other nodes of its networks, and what it makes of the answers.

It runs plan/probing on the node's Prober: peers that are lost go to the network's worker, paths that are too
narrow are said. What does not belong here: rules (plan/probing), sockets (adapters/prober).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from math import inf

from swarmpy.model.examination import Path
from swarmpy.model.fabric import Table
from swarmpy.plan import probing as p
from swarmpy.ports import Entropy, FabricError, Prober

logger = logging.getLogger(__name__)

FORGET = 2.0
"""Seconds after which an answer says nothing any more."""
TRY = 0.25
"""Seconds between two tries of a path."""
PATIENCE = 2.0
"""Seconds for the trial of a path."""
AGAIN = 60.0
"""Seconds until a path that is too narrow, or does not answer, is tried again."""
RETRY = 5.0
"""Seconds until a port that could not be had is asked for again."""
AT_ONCE = 32
"""Paths tried at the same time."""
IDLE = 3600.0
_NUMBERS = 2**64


class Probing:
    """`local` is this node's underlay address, `tables` its networks, `changed` hears who is lost."""

    def __init__(
        self,
        prober: Prober,
        entropy: Entropy,
        local: Callable[[], str],
        tables: Callable[[], Mapping[str, Table]],
        changed: Callable[[frozenset[str]], None],
    ) -> None:
        self._prober, self._local, self._tables, self._changed = prober, local, tables, changed
        self._watch = p.Watch()
        self._number = int.from_bytes(entropy.token(8))
        self._awaited: dict[int, tuple[str, float]] = {}
        self._answers: list[tuple[str, float]] = []
        self._trials: dict[int, asyncio.Future[None]] = {}
        self._checked: dict[str, tuple[int, float]] = {}
        self._key = b""
        self._served: tuple[str, bytes] | None = None
        self._tried_at = -inf
        self._wake = asyncio.Event()
        self.problems: dict[str, str] = {}
        prober.begin(self._heard)

    @property
    def lost(self) -> tuple[str, ...]:
        """Addresses of nodes that are not heard any more."""
        return tuple(sorted(self._watch.lost))

    @property
    def serving(self) -> bool:
        """Whether it asks and answers."""
        return self._served is not None

    def know(self, key: bytes) -> None:
        """The cluster's key."""
        self._key = key
        self.look()

    def look(self) -> None:
        """Something changed: look again, soon."""
        self._wake.set()

    async def run(self) -> None:
        """Work until cancelled."""
        checking = asyncio.ensure_future(self._check_for_ever())
        try:
            while not checking.done():
                self._wake.clear()
                await self._serve()
                wake_at = self._turn()
                try:
                    async with asyncio.timeout_at(wake_at):
                        await self._wake.wait()
                except TimeoutError:
                    continue
            checking.result()
        finally:
            checking.cancel()
            await asyncio.gather(checking, return_exceptions=True)

    # ------------------------------------------------------------ questions

    async def _serve(self) -> None:
        now, wanted = asyncio.get_running_loop().time(), (self._local(), self._key)
        if not all(wanted) or wanted == self._served or now < self._tried_at + RETRY:
            return
        self._tried_at, self._served = now, None
        try:
            await self._prober.serve(wanted[0], p.PORT, wanted[1])
        except FabricError as error:
            self._complain("probes", str(error))
        else:
            self._served, self._tried_at = wanted, -inf
            self.problems.pop("probes", None)

    def _turn(self) -> float:
        now = asyncio.get_running_loop().time()
        peers = p.chosen(self._local(), p.stations(self._tables())) if self._served else ()
        answers, self._answers = self._answers, []
        before = self._watch.lost
        found = p.turn(self._watch, now, peers, answers)
        self._watch = found.watch
        for number in [key for key, (_, at) in self._awaited.items() if at < now - FORGET]:
            del self._awaited[number]
        for peer in found.ask:
            self._awaited[self._ask(peer, 0)] = (peer, now)
        lost = found.watch.lost
        if lost != before:
            for peer in sorted(lost - before):
                logger.warning(
                    "node at %s does not answer any more: its tasks get no traffic from here", peer
                )
            for peer in sorted(before - lost):
                logger.info("node at %s answers again", peer)
            self._changed(lost)
        return found.wake_at or now + (IDLE if self._served or not self._key else RETRY)

    def _ask(self, peer: str, size: int) -> int:
        self._number = (self._number + 1) % _NUMBERS
        self._prober.ask(peer, self._number, size)
        return self._number

    def _heard(self, peer: str, number: int, _size: int) -> None:
        asked = self._awaited.pop(number, None)
        if asked is not None and asked[0] == peer:
            self._answers.append((peer, asyncio.get_running_loop().time()))
        trial = self._trials.pop(number, None)
        if trial is not None and not trial.done():
            trial.set_result(None)

    # ------------------------------------------------------------ paths

    async def try_paths(self, sizes: Mapping[str, int], patience: float = PATIENCE) -> list[Path]:
        """Try the ways to these peers with small and with full packets."""
        names = sorted(sizes)
        found: list[Path] = []
        for start in range(0, len(names), AT_ONCE):
            some = names[start : start + AT_ONCE]
            found += await asyncio.gather(*(self._try(peer, sizes[peer], patience) for peer in some))
        return found

    async def _try(self, peer: str, size: int, patience: float) -> Path:
        small, full = await asyncio.gather(
            self._passes(peer, 0, patience), self._passes(peer, size, patience)
        )
        return Path(peer, size, small or full, full)

    async def _passes(self, peer: str, size: int, patience: float) -> bool:
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        numbers: list[int] = []
        try:
            async with asyncio.timeout(patience):
                while not answered.done():
                    number = self._ask(peer, size)
                    self._trials[number] = answered
                    numbers.append(number)
                    await asyncio.wait({answered}, timeout=TRY)
        except TimeoutError:
            return answered.done()
        finally:
            for number in numbers:
                self._trials.pop(number, None)
        return True

    async def _check_for_ever(self) -> None:
        """Try each path once it is there, and those that failed now and then."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(1.0)
            wanted = p.widths(self._tables()) if self._served else {}
            wanted.pop(self._local(), None)
            self._checked = {key: one for key, one in self._checked.items() if wanted.get(key) == one[0]}
            for gone in [key for key in self.problems if key not in {"probes", *map(_path, wanted)}]:
                del self.problems[gone]
            due = {key: size for key, size in wanted.items()
                   if key not in self._checked or self._checked[key][1] <= loop.time()}  # fmt: skip
            for path in await self.try_paths(due) if due else ():
                self._checked[path.peer] = (path.size, inf if path.full else loop.time() + AGAIN)
                if path.small and not path.full:
                    self._complain(_path(path.peer), p.narrow(path.peer, path.size))
                elif path.full:
                    self.problems.pop(_path(path.peer), None)

    def _complain(self, key: str, text: str) -> None:
        if self.problems.get(key) != text:
            self.problems[key] = text
            logger.warning("%s", text)


def _path(peer: str) -> str:
    return f"path {peer}"
