"""The Engine's networks: the names under which it connects containers to networks of the cluster.

What belongs here: making one for a container, and removing those of networks that the node carries no more
(a name that stayed would be in the way of the next network that is called so). What does not: links
(fabric.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping

from swarmpy.plan.container import Place, Wire
from swarmpy.ports import Engine, EngineError, EngineGoneError

logger = logging.getLogger(__name__)


class EngineNetworks:
    """`wires` tells of the networks that the node carries, by id."""

    def __init__(self, engine: Engine, wires: Callable[[], Mapping[str, Wire]]) -> None:
        self._engine, self._wires = engine, wires
        self._removing = asyncio.Lock()
        self.stale = False
        """Whether some may be left over."""

    async def ensure(self, place: Place) -> None:
        """Have the network of a container that is about to be made. Raises EngineError."""
        async with self._removing:
            try:
                await self._engine.ensure_network(place.network, place.network_id)
            except EngineError as error:
                if error.conflict and await self._is_leaving(place.network):
                    raise EngineGoneError(str(error)) from None  # the container waits: its turn will come
                raise

    async def _is_leaving(self, name: str) -> bool:
        """Whether the name is still that of a network which is gone, while its last containers end."""
        known = (await self._engine.networks()).get(name)
        return known is not None and known not in self._wires()

    async def tidy(self, needed: Collection[str]) -> None:
        """Remove those of networks that the node does not carry. `needed`: ids of networks for which a
        container is just being made."""
        async with self._removing:
            self.stale = False
            try:
                for name, network_id in sorted((await self._engine.networks()).items()):
                    if network_id not in self._wires() and network_id not in needed:
                        await self._engine.remove_network(name)
            except EngineError as error:
                logger.info("a network of the Engine is not removed yet: %s", error)
                self.stale = True
