"""The network driver's socket and calls.

What belongs here: listening, bounding each call in time and size, remembering an endpoint between its
creation and its joining. What does not: links and addresses (the Plumber's).

libnetwork waits for an answer without end, so each call has a deadline here: a Plumber that hangs delays the
container it was asked for, then fails its start with a sentence. Errors are {"Err": TEXT} with status 200;
methods that we do not know get 404, which libnetwork takes for "not implemented".
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import os
import socket
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from swarmpy.adapters.driver import calls
from swarmpy.ports.fabric import FabricError, Plugged, Plumber

log = logging.getLogger(__name__)

SOCKET = "/run/docker/plugins/swarmpy.sock"
"""Where the Engine looks; the file's name is the driver's."""
DEADLINE = 20.0
"""Seconds for one call."""
BODY = 1 << 20
REMEMBERED = 4096
"""Endpoints whose options are kept; the oldest are forgotten. The Engine joins right after creating."""

T = TypeVar("T")
Body = dict[str, Any]


@dataclass(slots=True)
class _Turn:
    """Whose call for an endpoint is under way, and how many want to be."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class NetworkDriver:
    """Serves one local Engine. Implements the port Driver."""

    def __init__(self, path: str | Path = SOCKET, *, deadline: float = DEADLINE) -> None:
        self._path = Path(path)
        self._deadline = deadline
        self._plumber: Plumber | None = None
        self._options: OrderedDict[str, dict[str, str]] = OrderedDict()
        self._running: set[asyncio.Task[Any]] = set()
        self._turns: dict[str, _Turn] = {}
        self._runner: web.AppRunner | None = None
        self._inode = (0, 0)
        self._methods: dict[str, Callable[[bytes], Awaitable[Body]]] = {
            "/NetworkDriver.CreateEndpoint": self._create,
            "/NetworkDriver.Join": self._join,
            "/NetworkDriver.Leave": self._leave,
            "/NetworkDriver.DeleteEndpoint": self._delete,
        }

    # ------------------------------------------------------------------ the socket

    async def start(self, plumber: Plumber) -> None:
        """Serve; a socket that nobody serves any more is replaced. Raises OSError."""
        self._plumber = plumber
        listener = _listen(self._path)
        seen = self._path.stat()
        self._inode = (seen.st_dev, seen.st_ino)
        app = web.Application(client_max_size=BODY)
        app.router.add_route("*", "/{method:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.SockSite(self._runner, listener).start()

    async def stop(self) -> None:
        """Serve no longer: calls under way are given up, the socket is removed. Idempotent."""
        if self._runner is None:
            return
        runner, self._runner = self._runner, None
        # A driver that was started after us has replaced the socket: that one stays.
        with contextlib.suppress(FileNotFoundError):
            seen = self._path.stat()
            if (seen.st_dev, seen.st_ino) == self._inode:
                self._path.unlink()
        for task in self._running:
            task.cancel()
        await runner.cleanup()

    # ------------------------------------------------------------------ calls

    async def _handle(self, request: web.Request) -> web.Response:
        if request.method != "POST":
            return _reply({"Err": "only POST is understood here"}, status=405)
        fixed = calls.FIXED.get(request.path)
        method = self._methods.get(request.path)
        if fixed is None and method is None:
            return _reply({"Err": f"{request.path[1:100]} is not implemented"}, status=404)
        try:
            async with asyncio.timeout(self._deadline):
                body = await request.read()
        except TimeoutError:
            return _reply({"Err": "the call's body did not arrive in time"})
        except web.HTTPRequestEntityTooLarge:
            return _reply({"Err": f"the call's body is larger than {BODY} bytes"})
        if method is None:
            return _reply(fixed or {})
        return _reply(await self._answered(request.path, method, body))

    async def answer(self, path: str, body: bytes) -> Body:
        """The answer to one call, however it arrived."""
        method = self._methods.get(path)
        if method is None:
            return dict(calls.FIXED.get(path, {"Err": f"{path[1:100]} is not implemented"}))
        return await self._answered(path, method, body)

    async def _answered(self, path: str, method: Callable[[bytes], Awaitable[Body]], body: bytes) -> Body:
        """The answer, or the error in a sentence: nothing that goes wrong may look like a dead driver, which
        the Engine would ask again and again for half a minute."""
        try:
            return await method(body)
        except FabricError as error:
            log.warning("%s: %s", path[1:], error)
            return {"Err": str(error)}
        except (msgspec.DecodeError, ValueError) as error:
            return {"Err": f"{path[1:]}: the call is malformed: {error}"}
        except Exception as error:
            log.exception("%s failed", path[1:])
            return {"Err": f"swarmpy's network driver failed ({type(error).__name__}); its log tells more"}

    async def _create(self, body: bytes) -> Body:
        call = msgspec.json.decode(body, type=calls.CreateEndpoint)
        endpoint = Plugged(_known(call.id), calls.flat(call.options))
        self._options.pop(call.id, None)
        addresses, mac = await self._asked(
            call.id, lambda: self._plumbed.create(endpoint), "give it addresses"
        )
        answer = calls.interface_answer(call.interface or calls.Interface(), addresses, mac)
        self._options[call.id] = dict(endpoint.options)
        while len(self._options) > REMEMBERED:
            self._options.popitem(last=False)
        return answer

    async def _join(self, body: bytes) -> Body:
        call = msgspec.json.decode(body, type=calls.Join)
        options = self._options.get(_known(call.id))
        if options is None:
            raise FabricError(
                f"endpoint {call.id[:12]} is not known: swarmpy was restarted since the Engine created it; "
                "start the container again"
            )
        plugged = Plugged(call.id, options, call.sandbox)
        joined = await self._asked(call.id, lambda: self._plumbed.join(plugged), "plug it in", undo=True)
        return calls.join_answer(joined)

    async def _leave(self, body: bytes) -> Body:
        call = msgspec.json.decode(body, type=calls.Endpoint)
        key = _known(call.id)
        await self._asked(key, lambda: self._plumbed.leave(key), "unplug it")
        return {}

    async def _delete(self, body: bytes) -> Body:
        """Unplugs too: the Engine deletes without leaving where the joining failed."""
        answer = await self._leave(body)
        self._options.pop(msgspec.json.decode(body, type=calls.Endpoint).id, None)
        return answer

    @property
    def _plumbed(self) -> Plumber:
        assert self._plumber is not None
        return self._plumber

    # ------------------------------------------------------------------ bounds

    async def _asked(
        self, endpoint_id: str, work: Callable[[], Awaitable[T]], what: str, *, undo: bool = False
    ) -> T:
        """The Plumber's answer within the deadline. Calls for one endpoint run one after the other. Work that
        does not even heed its cancellation is left alone; with `undo`, it is undone should it ever succeed.
        """
        task = asyncio.ensure_future(self._in_turn(endpoint_id, work))
        self._running.add(task)
        task.add_done_callback(self._finished)
        done, _ = await asyncio.wait({task}, timeout=self._deadline)
        if done:
            if task.cancelled():
                raise FabricError("swarmpy is stopping: start the container again when it is back")
            return task.result()
        task.cancel()
        if undo:
            task.add_done_callback(lambda late: self._undo(endpoint_id, late))
        raise FabricError(
            f"swarmpy could not {what} within {self._deadline:g} s (endpoint {endpoint_id[:12]}); "
            "its log tells what it waits for"
        )

    async def _in_turn(self, endpoint_id: str, work: Callable[[], Awaitable[T]]) -> T:
        turn = self._turns.setdefault(endpoint_id, _Turn())
        turn.users += 1
        try:
            async with turn.lock:
                return await work()
        finally:
            turn.users -= 1
            if not turn.users:
                self._turns.pop(endpoint_id, None)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # asked for, so that one nobody waits for any more is not reported as lost

    def _undo(self, endpoint_id: str, late: asyncio.Task[Any]) -> None:
        if late.cancelled() or late.exception() is not None:
            return
        log.warning("endpoint %s was plugged in after its deadline: unplugged", endpoint_id[:12])
        task = asyncio.ensure_future(self._in_turn(endpoint_id, lambda: self._plumbed.leave(endpoint_id)))
        self._running.add(task)
        task.add_done_callback(self._finished)


def _known(endpoint_id: str) -> str:
    if not endpoint_id:
        raise ValueError("EndpointID is empty")
    return endpoint_id


def _reply(body: object, status: int = 200) -> web.Response:
    return web.Response(
        status=status,
        text=json.dumps(body),
        content_type="application/vnd.docker.plugins.v1.2+json",
    )


def _listen(path: Path) -> socket.socket:
    """A listening socket of which nobody but root ever had a chance to take hold. It is made aside and moved
    into place, so the Engine never finds none where there was one."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    if path.exists() and not path.is_socket():
        raise FileExistsError(errno.EEXIST, "it is not a socket: remove it", str(path))
    if path.is_socket() and _served(path):
        raise OSError(errno.EADDRINUSE, "another swarmpy serves it", str(path))
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        listener.bind(str(aside))
        aside.chmod(0o600)
        listener.listen(128)
        aside.replace(path)
    except OSError:
        listener.close()
        aside.unlink(missing_ok=True)
        raise
    return listener


def _served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True  # full or slow, but somebody's
        return True
