"""Looking at what containers listen on, for as long as a task waits for it.

What belongs here: how often is looked, what was seen of which process and since when, and when planning is
due again. What does not: for what is waited and how long (plan/listening), reading sockets (ports.Sockets).

Level-triggered: each planning says anew what is awaited, and what it does not name is looked at no longer.
Nothing is kept over a restart: a container that listens is seen to at the first look, and one that does not
gets its whole bound again.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Iterable

from swarmpy.plan.listening import Await, Looked
from swarmpy.plan.node import Container
from swarmpy.ports import Sockets

logger = logging.getLogger(__name__)

EVERY = 0.05
"""Seconds between two looks, while anything is awaited."""
REST = 4.0
"""How many times as long as a look took is rested after it at least: a node that starts a hundred containers
must not spend itself on looking."""
UNSEEN = 1.0
"""Seconds for which a namespace that cannot be looked into is believed to be that of a container that just
ended, which the Engine will say. After that it is believed to be hidden from us."""

Life = tuple[str, int]
"""A container and its process: one that is started again is looked at anew."""


class Listeners:
    """See the file's charter. `wake`: plan again; `look`: ask the Engine again first."""

    def __init__(self, sockets: Sockets, wake: Callable[[], None], look: Callable[[], None]) -> None:
        self._sockets, self._wake, self._look = sockets, wake, look
        self._since: dict[Life, float] = {}
        """When each running process was first seen."""
        self._open: dict[Life, frozenset[int]] = {}
        self._unseen: dict[Life, float] = {}
        """Since when the namespace cannot be looked into."""
        self._awaited: dict[Life, Await] = {}
        self._deadlines: dict[Life, float] = {}
        self._any = asyncio.Event()

    def observed(self, containers: Iterable[Container]) -> None:
        """The Engine told of its containers: what is known of others is forgotten."""
        now = asyncio.get_running_loop().time()
        alive = {_life(one) for one in containers if one.alive}
        self._since = {life: self._since.get(life, now) for life in alive}
        self._open = {life: ports for life, ports in self._open.items() if life in alive}
        self._unseen = {life: since for life, since in self._unseen.items() if life in alive}
        self._awaited = {life: one for life, one in self._awaited.items() if life in alive}

    def known(self, container: Container) -> Container:
        """The container with what is known of its sockets by now."""
        life, now = _life(container), asyncio.get_running_loop().time()
        since = self._since.get(life)
        if since is None:
            return container
        hidden = now - self._unseen.get(life, now) >= UNSEEN
        looked = Looked(self._open.get(life, frozenset()), now - since, hidden)
        return dataclasses.replace(container, sockets=looked)

    def awaits(self, wanted: Iterable[Await]) -> None:
        """This, and nothing else, is awaited from now on."""
        now = asyncio.get_running_loop().time()
        self._awaited = {(one.container_id, one.pid): one for one in wanted}
        self._deadlines = {life: now + one.seconds for life, one in self._awaited.items()}
        if self._awaited:
            self._any.set()

    async def run(self) -> None:
        """Look until cancelled, whenever anything is awaited."""
        loop = asyncio.get_running_loop()
        while True:
            await self._any.wait()
            if not self._awaited:
                self._any.clear()
                continue
            began, asked = loop.time(), dict(self._awaited)
            found = await self._sockets.listening({pid: one.ports for (_, pid), one in asked.items()})
            now = loop.time()
            for life in sorted(asked.keys() & self._awaited.keys()):
                self._judge(life, found.get(life[1]), now)
            if self._awaited:
                await asyncio.sleep(max(EVERY, REST * (now - began)))

    def _judge(self, life: Life, found: frozenset[int] | None, now: float) -> None:
        if found is not None:
            self._unseen.pop(life, None)
            self._open[life] = found
            done = self._awaited[life].ports <= found
        else:
            if life not in self._unseen:
                self._unseen[life] = now
                self._look()
            done = now - self._unseen[life] >= UNSEEN
            if done:
                logger.warning(
                    "the sockets of container %s cannot be looked at: it is taken to listen", life[0]
                )
        if done or now >= self._deadlines[life]:
            del self._awaited[life]
            self._wake()


def _life(container: Container) -> Life:
    return container.id, container.pid
