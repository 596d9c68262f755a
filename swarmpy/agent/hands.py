"""One action on the Engine: what it takes, and how many may be under way.

What belongs here: Docker's rules of pulling, a container with several networks, the bounds. What does not:
what is done when (plan/engine), what becomes of a task whose action fails (worker.py).
"""

from __future__ import annotations

import asyncio
import logging

from swarmpy.agent.naming import EngineNetworks
from swarmpy.plan.node import Create, EngineAction, Pull, Remove, Start, Stop
from swarmpy.ports import Engine, EngineError, EngineGoneError

logger = logging.getLogger(__name__)

STARTS = 2
"""Starts in flight: about the cores of a small host; more only make every start slower."""
PULLS = 3
"""Pulls in flight."""


class Hands:
    """`networks` makes the Engine know those that a container is connected to."""

    def __init__(self, engine: Engine, networks: EngineNetworks) -> None:
        self._engine, self._networks = engine, networks
        self._starts, self._pulls = asyncio.Semaphore(STARTS), asyncio.Semaphore(PULLS)

    async def act(self, action: EngineAction) -> None:
        """Carry it out. Raises EngineError."""
        match action:
            case Pull():
                async with self._pulls:
                    await self._pull(action)
            case Create():
                await self._create(action)
            case Start():
                async with self._starts:
                    await self._engine.start(action.container_id)
            case Stop():
                await self._engine.stop(action.container_id, action.grace)
            case Remove():
                await self._engine.remove(action.container_id)

    async def _create(self, action: Create) -> None:
        """Create it, and connect it to its further networks: the Engine takes one with the request. Where
        that fails half-way the container goes, so that the next one begins anew."""
        for place in action.places:
            await self._networks.ensure(place)
        container_id = await self._engine.create(action.name, action.config)
        try:
            for place in action.places[1:]:
                await self._engine.connect(container_id, place.network, place.options)
        except EngineError:
            await self._engine.remove(container_id)
            raise

    async def _pull(self, action: Pull) -> None:
        """Docker's rule: always try, but a pinned image that is here needs no pull, and one that cannot be
        pulled but is here will do."""
        if not ("@sha256:" in action.image and await self._engine.has_image(action.image)):
            try:
                await self._engine.pull(action.image, action.auth)
            except EngineGoneError:
                raise
            except EngineError as error:
                if not await self._engine.has_image(action.image):
                    raise
                logger.info("%s cannot be pulled, the local image is used: %s", action.image, error)
