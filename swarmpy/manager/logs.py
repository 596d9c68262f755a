"""The log broker: brings the output of tasks from their nodes to the manager that was asked.

The manager that was asked opens a subscription and has the leader pass it to the nodes' agents over their
sessions; each agent then dials the asking manager and streams the frames (`logs.publish`). A slow reader
slows the agents down; nothing is buffered without bound. Nodes that cannot be reached are named.
What does not belong here: reading a container's output (agent/), framing for HTTP clients (api/).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

from swarmpy.manager.dispatcher import Session
from swarmpy.manager.store import Store
from swarmpy.model import messages as m
from swarmpy.model.ids import ENTROPY_BYTES, from_bytes
from swarmpy.ports import (
    Body,
    Channel,
    Entropy,
    LogQuery,
    Peer,
    RefusedError,
    TaskLogFrame,
    WireError,
)

logger = logging.getLogger(__name__)

BUFFER = 256
"""Frames held per subscription before agents are slowed down."""
ANSWER = 10.0
"""Seconds within which an agent that was asked must dial back."""

CallLeader = Callable[[str, Body], Awaitable[Body]]


@dataclass(slots=True)
class _Subscription:
    """One reader. `waiting` are nodes that have not finished; the queue ends with None."""

    nodes: dict[str, tuple[str, ...]]
    frames: asyncio.Queue[TaskLogFrame | None]
    waiting: set[str] = field(default_factory=set)
    dialled: set[str] = field(default_factory=set)
    channels: set[Channel] = field(default_factory=set)


class LogBroker:
    """Both halves: the reader's (any manager) and the leader's (passing subscriptions to sessions)."""

    def __init__(self, store: Store, entropy: Entropy, address: str, call_leader: CallLeader) -> None:
        self._store, self._entropy, self._address = store, entropy, address
        self._call_leader = call_leader
        self._open: dict[str, _Subscription] = {}
        self.sessions: Callable[[], dict[str, Session]] = dict

    # ------------------------------------------------------------ the reader's half

    async def read(self, tasks: tuple[str, ...], query: LogQuery) -> AsyncIterator[TaskLogFrame]:
        """Frames of all tasks as they come; ends when every node has answered (or never, following)."""
        world = self._store.world
        nodes: dict[str, list[str]] = {}
        for task_id in tasks:
            task = world.tasks.get(task_id)
            if task is not None and task.node_id:
                nodes.setdefault(task.node_id, []).append(task_id)
        if not nodes:
            return
        key = from_bytes(self._entropy.token(ENTROPY_BYTES))
        subscription = _Subscription(
            {node: tuple(ids) for node, ids in nodes.items()}, asyncio.Queue(BUFFER), set(nodes)
        )
        self._open[key] = subscription
        watchdog = asyncio.create_task(self._ask(key, subscription, query))
        try:
            while (frame := await subscription.frames.get()) is not None:
                yield frame
        finally:
            watchdog.cancel()
            del self._open[key]
            for channel in list(subscription.channels):
                await channel.close()
            with suppress(WireError, RefusedError):
                await self._call_leader("logs.subscribe", {"done": key, "nodes": sorted(nodes)})

    async def _ask(self, key: str, subscription: _Subscription, query: LogQuery) -> None:
        """Have the agents asked, and name those that do not answer."""
        body = {
            "subscription": key,
            "address": self._address,
            "nodes": {node: list(ids) for node, ids in subscription.nodes.items()},
            "query": {
                "stdout": query.stdout,
                "stderr": query.stderr,
                "follow": query.follow,
                "tail": query.tail,
                "since": query.since,
                "timestamps": query.timestamps,
            },
        }
        try:
            reply = await self._call_leader("logs.subscribe", body)
            missing = set(reply.get("missing", ()))
        except (WireError, RefusedError) as error:
            logger.info("log subscription failed: %s", error)
            missing = set(subscription.nodes)
        for node in sorted(missing):
            await self._give_up(subscription, node)
        await asyncio.sleep(ANSWER)
        for node in sorted(subscription.waiting - subscription.dialled):
            await self._give_up(subscription, node)

    async def _give_up(self, subscription: _Subscription, node: str) -> None:
        problem = f"node {node} is not available"
        for task_id in subscription.nodes.get(node, ()):
            await subscription.frames.put(TaskLogFrame(task_id, node, "", "stderr", b"", problem=problem))
        await self._finished(subscription, node)

    async def _finished(self, subscription: _Subscription, node: str) -> None:
        if node in subscription.waiting:
            subscription.waiting.discard(node)
            if not subscription.waiting:
                await subscription.frames.put(None)

    async def serve_publish(self, channel: Channel, hello: Body) -> None:
        """`logs.publish`: an agent delivers."""
        subscription = self._open.get(str(hello.get("subscription", "")))
        node = channel.peer.node_id
        if subscription is None or node not in subscription.nodes:
            raise RefusedError("NotFound", "nobody reads that subscription")
        subscription.channels.add(channel)
        subscription.dialled.add(node)
        allowed = set(subscription.nodes[node])
        try:
            while True:
                frame = self._frame(node, await channel.recv(), allowed)
                if frame is not None:
                    await subscription.frames.put(frame)
        except WireError:
            logger.debug("node %s has sent its logs", node)
        finally:
            subscription.channels.discard(channel)
            await self._finished(subscription, node)

    def _frame(self, node: str, body: Body, allowed: set[str]) -> TaskLogFrame | None:
        """A frame of a task that was asked for; None for anything else (such as the marks of an end)."""
        task_id = body.get("task")
        data = body.get("data")
        if task_id not in allowed or not isinstance(data, bytes):
            return None
        task = self._store.world.tasks.get(str(task_id))
        return TaskLogFrame(
            task_id=str(task_id),
            node_id=node,
            service_id=task.service_id if task else "",
            stream="stderr" if body.get("stream") == "stderr" else "stdout",
            data=data,
            time=str(body.get("time", "")),
        )

    # ------------------------------------------------------------ the leader's half

    async def serve_subscribe(self, _peer: Peer, body: Body) -> Body:
        """`logs.subscribe`: pass a subscription, or its end, to the agents; answers who is missing."""
        sessions = self.sessions()
        if "done" in body:
            for node in body.get("nodes", ()):
                await self._tell(sessions.get(str(node)), m.LogsDone(subscription=str(body["done"])))
            return {}
        missing: list[str] = []
        for node, tasks in body["nodes"].items():
            wanted = m.LogsWanted(
                subscription=str(body["subscription"]),
                address=str(body["address"]),
                tasks=tuple(str(task) for task in tasks),
                **body["query"],
            )
            if not await self._tell(sessions.get(node), wanted):
                missing.append(node)
        return {"missing": missing}

    async def _tell(self, session: Session | None, message: m.Down) -> bool:
        if session is None:
            return False
        try:
            await session.send(message)
        except WireError:
            return False
        return True
