"""The log broker: brings the output of tasks from their nodes to the manager that was asked.

The manager that was asked opens a subscription and has the leader pass it to the nodes' agents over their
sessions; each agent then dials the asking manager and streams the frames (`logs.publish`). A slow reader
slows the agents down; nothing is buffered without bound. Nodes that cannot be reached are named.
What does not belong here: reading a container's output (agent/), framing for HTTP clients (api/).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from swarmpy.manager.sessions import Session
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
"""Seconds within which the leader must pass a subscription on, and agents that were asked must dial back."""
AGAIN = 0.2
"""Seconds between attempts to have a leader pass a subscription on."""
TELL = 2.0
"""Seconds within which an agent's session must take a message; the leader then counts the node as missing."""

CallLeader = Callable[[str, Body], Awaitable[Body]]


@dataclass(slots=True)
class _Subscription:
    """One reader. `waiting` are nodes that have not finished; the queue ends with None."""

    nodes: dict[str, tuple[str, ...]]
    frames: asyncio.Queue[TaskLogFrame | None]
    waiting: set[str] = field(default_factory=set)
    dialled: set[str] = field(default_factory=set)
    over: bool = False
    """Whether nobody reads any more."""
    complete: set[str] = field(default_factory=set)
    """Nodes that said that they have sent everything."""
    channels: set[Channel] = field(default_factory=set)

    def end(self) -> None:
        """Nobody reads any more: what waits for room goes on, and finds its channel closed."""
        self.over = True
        while not self.frames.empty():
            self.frames.get_nowait()

    async def put(self, frame: TaskLogFrame | None) -> None:
        """Hand the reader a frame, waiting for room while there is a reader."""
        if not self.over:
            await self.frames.put(frame)


class LogBroker:
    """Both halves: the reader's (any manager) and the leader's (passing subscriptions to sessions)."""

    def __init__(self, store: Store, entropy: Entropy, address: str, call_leader: CallLeader) -> None:
        self._store, self._entropy, self._address = store, entropy, address
        self._call_leader = call_leader
        self._open: dict[str, _Subscription] = {}
        self._background: set[asyncio.Future[Any]] = set()
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
            subscription.end()
            channels = [channel.close() for channel in subscription.channels]
            await asyncio.gather(*channels, return_exceptions=True)
            # In the background: whoever reads must not wait for a leader's machine that is gone.
            self._later(self._unsubscribe({"done": key, "nodes": sorted(nodes)}))

    def _later(self, work: Awaitable[None]) -> asyncio.Future[None]:
        job = asyncio.ensure_future(work)
        self._background.add(job)
        job.add_done_callback(self._background.discard)
        return job

    async def _unsubscribe(self, body: Body) -> None:
        with suppress(WireError, RefusedError):
            await self._call_leader("logs.subscribe", body)

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
        missing = await self._pass_on(body)
        for node in sorted(set(subscription.nodes) if missing is None else missing):
            await self._give_up(subscription, node)
        await asyncio.sleep(ANSWER)
        for node in sorted(subscription.waiting - subscription.dialled):
            await self._give_up(subscription, node)

    async def _pass_on(self, body: Body) -> set[str] | None:
        """Have a leader ask the agents, waiting a while for one: who is missing; None without a leader."""
        try:
            async with asyncio.timeout(ANSWER):
                while True:
                    try:
                        reply = await self._call_leader("logs.subscribe", body)
                        return {str(node) for node in reply.get("missing", ())}
                    except (WireError, RefusedError) as error:
                        logger.info("log subscription not passed on yet: %s", error)
                    await asyncio.sleep(AGAIN)
        except TimeoutError:
            return None

    async def _give_up(self, subscription: _Subscription, node: str) -> None:
        problem = f"node {node} is not available"
        for task_id in subscription.nodes.get(node, ()):
            await subscription.put(TaskLogFrame(task_id, node, "", "stderr", b"", problem=problem))
        await self._finished(subscription, node)

    async def _finished(self, subscription: _Subscription, node: str) -> None:
        if node in subscription.waiting:
            subscription.waiting.discard(node)
            if not subscription.waiting:
                await subscription.put(None)

    async def serve_publish(self, channel: Channel, hello: Body) -> None:
        """`logs.publish`: an agent delivers."""
        subscription = self._open.get(str(hello.get("subscription", "")))
        node = channel.peer.node_id
        if subscription is None or node not in subscription.nodes:
            raise RefusedError("NotFound", "nobody reads that subscription")
        if node in subscription.dialled:
            raise RefusedError("AlreadyExists", "this node has delivered to that subscription")
        subscription.channels.add(channel)
        subscription.dialled.add(node)
        allowed = set(subscription.nodes[node])
        try:
            while True:
                body = await channel.recv()
                if body.get("end") is True:
                    subscription.complete.add(node)
                frame = self._frame(node, body, allowed)
                if frame is not None:
                    await subscription.put(frame)
        except WireError:
            logger.debug("node %s has sent its logs", node)
        finally:
            subscription.channels.discard(channel)
            if node in subscription.complete:
                await self._finished(subscription, node)
            else:  # it broke off in the middle: what is missing must not look like the end
                await self._give_up(subscription, node)

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
            done = m.LogsDone(subscription=str(body["done"]))
            await self.tell_all({str(node): done for node in body.get("nodes", ())}, sessions)
            return {}
        wanted: dict[str, m.Down] = {
            str(node): m.LogsWanted(
                subscription=str(body["subscription"]),
                address=str(body["address"]),
                tasks=tuple(str(task) for task in tasks),
                **body["query"],
            )
            for node, tasks in body["nodes"].items()
        }
        return {"missing": await self.tell_all(wanted, sessions)}

    async def tell_all(self, wanted: Mapping[str, m.Down], sessions: Mapping[str, Session]) -> list[str]:
        """Tell each node its message, all at once; who was not reached in time.

        A message that a slow session has not taken by then may still arrive: sending is never broken off in
        the middle, and ends with the session at the latest.
        """
        jobs = {
            asyncio.ensure_future(self._tell(sessions.get(node), message)): node
            for node, message in wanted.items()
        }
        if not jobs:
            return []
        self._background.update(jobs)
        for job in jobs:
            job.add_done_callback(self._background.discard)
        await asyncio.wait(jobs, timeout=TELL)
        return sorted(node for job, node in jobs.items() if not (job.done() and job.result()))

    async def _tell(self, session: Session | None, message: m.Down) -> bool:
        if session is None:
            return False
        try:
            await session.send(message)
        except WireError:
            return False
        return True
