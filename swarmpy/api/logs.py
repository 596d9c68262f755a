"""GET /services/{id}/logs and /tasks/{id}/logs: the output of tasks, framed as Docker's clients read it.

Each line is a frame of eight bytes of head (stream, length) and the line; tasks with a terminal are sent
without frames. With `details` each line says where it comes from, as the CLI builds its prefix from it.
What does not belong here: bringing the output from the nodes (manager/logs).
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Coroutine, Iterator
from typing import Any

from aiohttp import web

from swarmpy.api import body, refs
from swarmpy.api.errors import HttpError
from swarmpy.api.events import moment
from swarmpy.api.site import Route, Site, api_version
from swarmpy.model.errors import Refusal
from swarmpy.model.objects import Task
from swarmpy.ports import Control, LogQuery, TaskLogFrame
from swarmpy.state.snapshot import Snapshot

STDOUT, STDERR, SYSTEM = 1, 2, 3
BUFFER = 64
INCOMPLETE = (
    "Error grabbing logs: warning: incomplete log stream. "
    "some logs could not be retrieved for the following reasons: {reasons}\n"
)


class Logs:
    """Handlers of the two log endpoints."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def routes(self) -> list[Route]:
        """Method, path and handler of each endpoint."""
        return [
            ("GET", "/services/{id}/logs", self.of_service),
            ("GET", "/tasks/{id}/logs", self.of_task),
        ]

    async def of_service(self, request: web.Request) -> web.StreamResponse:
        """GET /services/{id}/logs. Following, it takes up tasks that are made later."""
        query = _query(request)
        control = self._site.control()
        world = await control.world()
        service = refs.service(world, request.match_info["id"])
        tasks = tuple(task.id for task in world.tasks_of(service.id) if task.node_id)
        tty = service.view.task_template.container.tty
        reader = _Reader(control, query, world, service.id if query.follow else "")
        return await _stream(request, reader, tasks, tty=tty)

    async def of_task(self, request: web.Request) -> web.StreamResponse:
        """GET /tasks/{id}/logs."""
        query = _query(request)
        control = self._site.control()
        world = await control.world()
        task: Task = refs.task(world, request.match_info["id"])
        reader = _Reader(control, query, world, "")
        return await _stream(request, reader, (task.id,), tty=task.view.container.tty)


def _query(request: web.Request) -> LogQuery:
    stdout, stderr = body.loose_flag(request, "stdout"), body.loose_flag(request, "stderr")
    if not stdout and not stderr:
        raise HttpError(400, "Bad parameters: you must choose at least one stream")
    tail = request.query.get("tail", "") or "all"
    # Docker takes anything that is not a number for "all".
    lines = int(tail) if tail.isascii() and tail.isdigit() and len(tail) < 10 else -1
    return LogQuery(
        stdout=stdout,
        stderr=stderr,
        follow=body.loose_flag(request, "follow"),
        tail=lines,
        since=moment(request.query.get("since", ""), "since") or 0,
        timestamps=body.loose_flag(request, "timestamps"),
    )


class _Reader:
    """Frames of some tasks and, where `service` is given, of that service's later ones."""

    def __init__(self, control: Control, query: LogQuery, world: Snapshot, service: str) -> None:
        self._control, self._query, self._world, self._service = control, query, world, service
        self._frames: asyncio.Queue[TaskLogFrame | None] = asyncio.Queue(BUFFER)
        self._jobs: set[asyncio.Task[None]] = set()
        self._known: set[str] = set()

    async def __aenter__(self) -> _Reader:
        return self

    async def __aexit__(self, *_error: object) -> None:
        for job in list(self._jobs):
            job.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)

    def begin(self, tasks: tuple[str, ...]) -> None:
        """Start reading."""
        self._known.update(tasks)
        self._start(self._pump(tasks, self._query, last=not self._service))
        if self._service:
            self._start(self._later())

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        job = asyncio.get_running_loop().create_task(work)
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)

    async def next(self) -> TaskLogFrame | None:
        """The next frame; None at the end."""
        return await self._frames.get()

    async def _pump(self, tasks: tuple[str, ...], query: LogQuery, *, last: bool) -> None:
        try:
            async for frame in self._control.logs(tasks, query):
                await self._frames.put(frame)
        except Refusal as refusal:
            await self._frames.put(TaskLogFrame("", "", "", "stderr", b"", problem=refusal.message))
        if last:
            await self._frames.put(None)

    async def _later(self) -> None:
        """Read tasks of the service as they come to a node, until the service is gone."""
        world = self._world
        everything = LogQuery(
            stdout=self._query.stdout,
            stderr=self._query.stderr,
            follow=True,
            timestamps=self._query.timestamps,
        )
        while self._service in world.services:
            world = await self._control.changed(world.version)
            fresh = tuple(
                task.id
                for task in world.tasks_of(self._service)
                if task.node_id and task.id not in self._known
            )
            if fresh:
                self._known.update(fresh)
                self._start(self._pump(fresh, everything, last=False))
        await self._frames.put(None)


async def _stream(
    request: web.Request, reader: _Reader, tasks: tuple[str, ...], *, tty: bool
) -> web.StreamResponse:
    response = web.StreamResponse()
    version = api_version(request)
    if version is not None and version >= (1, 42):
        kind = "raw" if tty else "multiplexed"
        response.headers["Content-Type"] = f"application/vnd.docker.{kind}-stream"
    details = body.loose_flag(request, "details")
    follow = body.loose_flag(request, "follow")
    await response.prepare(request)
    problems: list[str] = []
    async with reader:
        reader.begin(tasks)
        while (frame := await reader.next()) is not None:
            if frame.problem:
                if frame.problem not in problems:
                    problems.append(frame.problem)
                if not follow:
                    continue
            for stream, line in lines_of(frame, details=details):
                await response.write(line if tty else framed(stream, line))
    if problems and not follow:
        line = INCOMPLETE.format(reasons="; ".join(problems)).encode()
        await response.write(line if tty else framed(SYSTEM, line))
    await response.write_eof()
    return response


def lines_of(frame: TaskLogFrame, *, details: bool) -> Iterator[tuple[int, bytes]]:
    """(stream, text) of each line of a frame, with time and details before it as asked.

    A problem becomes a line on stderr, so that whoever follows sees it at once.
    """
    data = f"{frame.problem}\n".encode() if frame.problem else frame.data
    stream = STDERR if frame.problem or frame.stream == "stderr" else STDOUT
    head = f"{frame.time} ".encode() if frame.time else b""
    if details:
        head += (
            f"com.docker.swarm.node.id={frame.node_id},com.docker.swarm.service.id={frame.service_id},"
            f"com.docker.swarm.task.id={frame.task_id} "
        ).encode()
    for line in _lines(data):
        yield stream, head + line


def framed(stream: int, line: bytes) -> bytes:
    """The line behind Docker's eight bytes: stream, three zeros, length."""
    return struct.pack(">BxxxL", stream, len(line)) + line


def _lines(data: bytes) -> Iterator[bytes]:
    """Cut behind each newline only: a carriage return is part of a line."""
    pieces = data.split(b"\n")
    for piece in pieces[:-1]:
        yield piece + b"\n"
    if pieces[-1]:
        yield pieces[-1]
