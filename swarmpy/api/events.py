"""GET /events: the Engine's events and, on managers, the cluster's, in one stream.

Cluster events are differences between two worlds that this manager applied. The Engine's pass as they came,
but for those of its counterparts of the cluster's networks, which nobody made. What does not belong here:
what the Engine's own events mean.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import aclosing, suppress
from typing import Any

import msgspec
from aiohttp import web

from swarmpy.api import filters
from swarmpy.api.engine import EngineAbsentError
from swarmpy.api.errors import HttpError, log
from swarmpy.api.info import ENGINE_AWAY
from swarmpy.api.site import Route, Site
from swarmpy.model.errors import Refusal
from swarmpy.model.objects import Network, Node, Object, Service
from swarmpy.model.specs import SECOND
from swarmpy.ports import Control
from swarmpy.state.snapshot import Snapshot
from swarmpy.state.table import Table, differing

Event = dict[str, Any]

KEPT = 256
"""Past cluster events kept for `since`; the Engine keeps as many of its own."""
BUFFER = 1024
"""Events that a slow client may lag behind before its stream is ended."""
RETRY_SECONDS = 1.0

_DRIVER = b"swarmpy"
"""What the Engine calls the driver of its counterparts of the cluster's networks."""
_NAMED = ("daemon", "container", "plugin", "volume", "network", "node", "service", "secret", "config")
_KNOWN = frozenset({*_NAMED, "event", "type", "scope", "label", "image"})


class SwarmEvents:
    """Follows a control plane, remembers its latest events, and hands new ones to subscribers."""

    def __init__(self) -> None:
        self.past: deque[Event] = deque(maxlen=KEPT)
        self._subscribers: set[asyncio.Queue[Event | None]] = set()
        self._control: Control | None = None
        self._task: asyncio.Task[None] | None = None

    def watch(self, control: Control) -> None:
        """Follow this control plane from now on; cheap where it is followed already."""
        if control is self._control and self._task is not None and not self._task.done():
            return
        if self._task is not None:
            self._task.cancel()
        self._control = control
        self._task = asyncio.get_running_loop().create_task(self._follow(control))

    def subscribe(self) -> asyncio.Queue[Event | None]:
        """A queue of events from now on; None means that the reader was too slow, or the end."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue(BUFFER)
        self._subscribers.add(queue)
        return queue

    def unsubscribe(self, queue: asyncio.Queue[Event | None]) -> None:
        """Forget the queue."""
        self._subscribers.discard(queue)

    async def close(self) -> None:
        """Stop following; every subscriber's stream ends."""
        for queue in list(self._subscribers):
            self._end(queue)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _follow(self, control: Control) -> None:
        old = await control.changed(-1)
        while True:
            try:
                new = await control.changed(old.version)
            except Refusal as refusal:
                log.info("cluster events pause: %s", refusal.message)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            for event in differences(old, new):
                self._publish(event)
            old = new

    def _publish(self, event: Event) -> None:
        self.past.append(event)
        for queue in list(self._subscribers):
            try:
                queue.put_nowait(event)
            except asyncio.QueueFull:
                self._end(queue)

    def _end(self, queue: asyncio.Queue[Event | None]) -> None:
        self._subscribers.discard(queue)
        if queue.full():
            queue.get_nowait()
        queue.put_nowait(None)


def differences(old: Snapshot, new: Snapshot) -> Iterator[Event]:
    """The events that lead from one world to a later one, nodes first, by id."""
    yield from _table("node", old.nodes, new.nodes, new.at)
    yield from _table("service", old.services, new.services, new.at)
    yield from _table("network", old.networks, new.networks, new.at)


def _table(kind: str, old: Table[Any], new: Table[Any], at: int) -> Iterator[Event]:
    touched = sorted(differing(old, new))
    for key in touched:
        before, item = old.get(key), new.get(key)
        if item is None:
            continue
        if before is None:
            yield _event(kind, "create", item, item.created_at, {})
        elif before is not item and kind != "network":  # what changes of those is only what is given away
            yield _event(kind, "update", item, item.updated_at, _changes(before, item))
    for key in touched:
        if key not in new and (gone := old.get(key)) is not None:
            yield _event(kind, "remove", gone, at, {})


def _event(kind: str, action: str, item: Object, at: int, more: Mapping[str, str]) -> Event:
    name = item.name if isinstance(item, Service | Network) else ""
    if isinstance(item, Node):
        name = item.view.name or item.description.hostname
    return {
        "Type": kind,
        "Action": action,
        "Actor": {"ID": item.id, "Attributes": {**more, "name": name}},
        "scope": "swarm",
        "time": at // SECOND,
        "timeNano": at,
    }


def _changes(old: Object, new: Object) -> dict[str, str]:
    """`x.old` and `x.new` for what Docker reports of an update."""
    if isinstance(old, Node) and isinstance(new, Node):
        pairs = {
            "availability": (old.view.availability, new.view.availability),
            "role": (old.role.word, new.role.word),
            "state": (old.status.state.word, new.status.state.word),
        }
    elif isinstance(old, Service) and isinstance(new, Service):
        before, after = old.view, new.view
        pairs = {"image": (before.task_template.container.image, after.task_template.container.image)}
        if not after.is_global:
            pairs["replicas"] = (str(before.replicas), str(after.replicas))
        if new.update is not None:
            pairs["updatestate"] = (old.update.state if old.update else "", new.update.state)
    else:
        return {}
    found: dict[str, str] = {}
    for key, (was, now) in pairs.items():
        if was != now:
            found |= {f"{key}.old": was, f"{key}.new": now} if was else {f"{key}.new": now}
    return found


def matches(asked: filters.Filters, event: Event) -> bool:
    """Whether a cluster event passes the filters, as the Engine judges its own."""
    attributes = event["Actor"]["Attributes"]
    return (
        asked.exact("event", event["Action"])
        and asked.exact("type", event["Type"])
        and asked.exact("scope", event["scope"])
        and "image" not in asked
        and all(asked.prefix(key, event["Actor"]["ID"], attributes.get("name", "")) for key in _NAMED)
        and asked.labels("label", attributes)
    )


def moment(text: str, what: str) -> int | None:
    """`seconds[.fraction]` since the epoch as ns; None for "". 400 where it is not that."""
    if not text:
        return None
    seconds, _, fraction = text.partition(".")
    digits = seconds.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 12) or not (
        fraction == "" or (fraction.isascii() and fraction.isdigit())
    ):
        raise HttpError(400, f"invalid value for {what}: {json.dumps(text)} is not seconds since 1970")
    return int(seconds) * SECOND + int(fraction[:9].ljust(9, "0"))


def _seconds(nanoseconds: int) -> str:
    return f"{nanoseconds // SECOND}.{nanoseconds % SECOND:09d}"


class Events:
    """Handler of /events."""

    def __init__(self, site: Site, hub: SwarmEvents) -> None:
        self._site = site
        self._hub = hub

    def routes(self) -> list[Route]:
        """Method, path and handler of each endpoint."""
        return [("GET", "/events", self.events)]

    async def events(self, request: web.Request) -> web.StreamResponse:
        """GET /events, with past ones where `since` says so, and an end where `until` does."""
        text = request.query.get("filters", "")
        asked = filters.parse(text).only(_KNOWN)
        since = moment(request.query.get("since", ""), "since")
        until = moment(request.query.get("until", ""), "until")
        if since is not None and until is not None and until < since:
            raise HttpError(400, f"`since` time ({since}) cannot be after `until` time ({until})")
        query = {"filters": text} if text else {}
        if self._site.local.control is not None:
            self._site.control()  # this also makes sure that its events are followed
        elif not await self._engine_answers():
            raise HttpError(503, ENGINE_AWAY.format(reason="no events here either"))
        queue = self._hub.subscribe()
        try:
            response = web.StreamResponse(headers={"Content-Type": "application/json"})
            await response.prepare(request)
            now = self._site.clock.now()
            if since is not None or (until is not None and until <= now):
                end = now if until is None else min(now, until)
                for line in await self._history(query, asked, since or 0, end):
                    await response.write(line)
            if until is None or until > now:
                wait = None if until is None else (until - now) / SECOND
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._live({**query, "since": _seconds(now + 1)}, asked, queue, response)
            await response.write_eof()
            return response
        finally:
            self._hub.unsubscribe(queue)

    async def _engine_answers(self) -> bool:
        try:
            await self._site.engine.ping()
        except EngineAbsentError:
            return False
        return True

    async def _history(
        self, query: Mapping[str, str], asked: filters.Filters, since: int, end: int
    ) -> list[bytes]:
        """Past events of both sources, in order of time."""
        past = [
            (event["timeNano"], _line(event))
            for event in self._hub.past
            if since <= event["timeNano"] <= end and matches(asked, event)
        ]
        with suppress(EngineAbsentError):
            bounds = {**query, "since": _seconds(since), "until": _seconds(end)}
            async with aclosing(self._site.engine.events(bounds)) as lines:
                past.extend([(_time_of(line), line) async for line in lines if not _of_counterpart(line)])
        return [line for _, line in sorted(past, key=lambda pair: pair[0])]

    async def _live(
        self,
        query: Mapping[str, str],
        asked: filters.Filters,
        queue: asyncio.Queue[Event | None],
        response: web.StreamResponse,
    ) -> None:
        """Both sources as they come, until the Engine's stream breaks or the reader is too slow.

        Where the Engine is away from the start, cluster events flow alone.
        """

        async def from_engine() -> None:
            async with aclosing(self._site.engine.events(query)) as lines:
                async for line in lines:
                    if not _of_counterpart(line):
                        await response.write(line)

        engine = asyncio.create_task(_quiet(from_engine()))
        cluster = asyncio.create_task(self._from_cluster(asked, queue, response))
        try:
            await asyncio.wait({engine, cluster}, return_when=asyncio.FIRST_COMPLETED)
            if engine.done() and not engine.result():
                await cluster
        finally:
            for task in (engine, cluster):
                task.cancel()
            await asyncio.gather(engine, cluster, return_exceptions=True)

    async def _from_cluster(
        self, asked: filters.Filters, queue: asyncio.Queue[Event | None], response: web.StreamResponse
    ) -> None:
        while (event := await queue.get()) is not None:
            if matches(asked, event):
                await response.write(_line(event))


async def _quiet(stream: Coroutine[Any, Any, None]) -> bool:
    """Run the Engine's half; whether it ever reached the Engine."""
    try:
        await stream
    except EngineAbsentError:
        return False
    return True


def _line(event: Event) -> bytes:
    return msgspec.json.encode(event) + b"\n"


def _of_counterpart(line: bytes) -> bool:
    """Whether the Engine tells of a network that our driver serves."""
    if b'"network"' not in line or _DRIVER not in line:
        return False
    try:
        event = json.loads(line)
        attributes = event["Actor"]["Attributes"]
    except (ValueError, KeyError, TypeError):
        return False
    return bool(event.get("Type") == "network" and attributes.get("type") == _DRIVER.decode())


def _time_of(line: bytes) -> int:
    try:
        event = json.loads(line)
        return int(event.get("timeNano") or 0)
    except (ValueError, AttributeError, TypeError):
        return 0
