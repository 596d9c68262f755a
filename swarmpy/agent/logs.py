"""Sending the output of this node's tasks to the manager that asked for it (`logs.publish`)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from swarmpy.model.messages import LogsWanted
from swarmpy.ports import Channel, Engine, EngineError, LogQuery, RefusedError, Wire, WireError

logger = logging.getLogger(__name__)


class LogSender:
    """One subscription at a time per task of asyncio; `container_of` finds a task's container."""

    def __init__(self, wire: Wire, engine: Engine, container_of: Callable[[str], str]) -> None:
        self._wire, self._engine, self._container_of = wire, engine, container_of
        self._running: dict[str, asyncio.Task[None]] = {}

    def begin(self, wanted: LogsWanted) -> None:
        """Serve a subscription until it is done or ended."""
        if wanted.subscription not in self._running:
            task = asyncio.create_task(self._serve(wanted), name="logs")
            self._running[wanted.subscription] = task
            task.add_done_callback(lambda _: self._running.pop(wanted.subscription, None))

    def end(self, subscription: str) -> None:
        """Nobody reads it any more."""
        task = self._running.get(subscription)
        if task is not None:
            task.cancel()

    async def stop(self) -> None:
        """End all."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, wanted: LogsWanted) -> None:
        try:
            channel = await self._wire.open(
                wanted.address, "logs.publish", {"subscription": wanted.subscription}
            )
        except (WireError, RefusedError) as error:
            logger.info("logs cannot be sent to %s: %s", wanted.address, error)
            return
        try:
            await self._send_all(channel, wanted)
        except (WireError, RefusedError) as error:
            logger.info("the reader of logs at %s went away: %s", wanted.address, error)
        finally:
            await channel.close()

    async def _send_all(self, channel: Channel, wanted: LogsWanted) -> None:
        query = LogQuery(
            stdout=wanted.stdout,
            stderr=wanted.stderr,
            follow=wanted.follow,
            tail=wanted.tail,
            since=wanted.since,
            timestamps=wanted.timestamps,
        )
        sending = [asyncio.ensure_future(self._send(channel, task, query)) for task in wanted.tasks]
        try:
            await asyncio.gather(*sending)
            await channel.send({"end": True})
        finally:
            for one in sending:
                one.cancel()
            await asyncio.gather(*sending, return_exceptions=True)

    async def _send(self, channel: Channel, task: str, query: LogQuery) -> None:
        container = self._container_of(task)
        if not container:
            return
        try:
            async for frame in self._engine.logs(container, query):
                await channel.send(
                    {"task": task, "stream": frame.stream, "time": frame.time, "data": frame.data}
                )
        except EngineError as error:
            logger.info("the output of task %s cannot be read: %s", task, error)
