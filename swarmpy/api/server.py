"""The API server on the node's unix socket: wiring of the front door, the endpoints and their context.

What does not belong here: any endpoint, any decision about requests (passthrough.py).
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from swarmpy.api.body import MAX_BODY
from swarmpy.api.containers import Containers
from swarmpy.api.engine import EngineClient
from swarmpy.api.errors import ClientsFaults, refusals
from swarmpy.api.events import Events, SwarmEvents
from swarmpy.api.info import Info
from swarmpy.api.later import Later
from swarmpy.api.logs import Logs
from swarmpy.api.networks import Networks
from swarmpy.api.nodes import Nodes
from swarmpy.api.own import Own
from swarmpy.api.passthrough import LINGER_SECONDS, MAX_HEAD, FrontDoor
from swarmpy.api.services import Services
from swarmpy.api.site import Route, Site
from swarmpy.api.swarm import Swarm
from swarmpy.api.system import System, versioned
from swarmpy.api.tasks import Tasks
from swarmpy.ports import Clock, Entropy, LocalNode

log = logging.getLogger("swarmpy.api")

SOCKET_MODE = 0o660
_VERSION = "/v{version:[0-9.]+}"
STOP_SECONDS = 2.0
PROBE_SECONDS = 0.5


class AddressInUseError(OSError):
    """Another server answers on the socket."""


def engine_path(url: str) -> str:
    """The path in unix:///path. Raises ValueError for other addresses."""
    path = url.removeprefix("unix://")
    if not path.startswith("/"):
        raise ValueError(f"the Engine's address must be unix:///PATH, not {url!r}")
    return path


class WallClock:
    """The machine's clock: what `since` and `until` of clients mean. Never simulated."""

    def now(self) -> int:
        """Nanoseconds since the epoch."""
        return time.time_ns()

    def monotonic(self) -> float:
        """Seconds since an arbitrary start."""
        return time.monotonic()


class ApiServer:
    """The node's API. `engine_url` is unix:///PATH of the Engine's socket."""

    def __init__(
        self, local: LocalNode, engine_url: str, *, entropy: Entropy, clock: Clock | None = None
    ) -> None:
        self._engine = EngineClient(engine_path(engine_url))
        self._events = SwarmEvents()
        self._site = Site(local, self._engine, clock or WallClock(), entropy, self._events.watch)
        self._runner: web.AppRunner | None = None
        self._door: FrontDoor | None = None
        self._server: asyncio.AbstractServer | None = None
        self._path: Path | None = None

    async def start(self, socket_path: str | Path) -> None:
        """Listen on the socket (mode 0660), replacing one that nobody serves.

        Raises AddressInUseError where another server answers there, OSError where it cannot listen.
        """
        path = Path(socket_path)
        _clear(path)
        runner = web.AppRunner(
            self._application(),
            handler_cancellation=True,
            access_log=None,
            shutdown_timeout=STOP_SECONDS,
            logger=ClientsFaults(log),
            auto_decompress=False,  # as Docker: a compressed body is no JSON
            max_line_size=MAX_HEAD,  # the front door bounds the head as a whole
            max_field_size=MAX_HEAD,
            lingering_time=LINGER_SECONDS,
        )
        await runner.setup()
        server = runner.server
        assert server is not None
        door = FrontDoor(self._engine.path, server)
        self._server = await asyncio.get_running_loop().create_unix_server(door, sock=_listen(path))
        self._runner, self._door, self._path = runner, door, path
        if self._site.local.control is not None:
            self._events.watch(self._site.local.control)

    async def stop(self) -> None:
        """Stop listening, end all streams and tunnels, and remove the socket. Idempotent."""
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            self._path = None
        await self._events.close()
        if self._door is not None:
            await self._door.close()
            self._door = None
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        await self._engine.close()

    def _application(self) -> web.Application:
        application = web.Application(middlewares=[refusals], client_max_size=MAX_BODY)
        makers: list[
            Callable[
                [Site],
                Swarm | Nodes | Services | Networks | Containers | Tasks | Info | System | Later | Logs | Own,
            ]
        ]
        makers = [Swarm, Nodes, Services, Networks, Containers, Tasks, Info, System, Later, Logs, Own]
        routes: list[Route] = [route for make in makers for route in make(self._site).routes()]
        routes += Events(self._site, self._events).routes()
        for method, path, handler in routes:
            guarded = versioned(self._site, handler)
            application.router.add_route(method, path, guarded)
            application.router.add_route(method, _VERSION + path, guarded)
        return application


def _clear(path: Path) -> None:
    """Make way for our socket: remove one that nobody serves, refuse where somebody does."""
    if not path.exists():
        return
    if not path.is_socket():
        raise AddressInUseError(f"{path} exists and is not a socket: remove it, or choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PROBE_SECONDS)
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink(missing_ok=True)
            return
    raise AddressInUseError(f"another server answers on {path}: stop it, or choose another path")


def _listen(path: Path) -> socket.socket:
    """A listening socket of which nobody outside owner and group ever had a chance to take hold."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o777 & ~SOCKET_MODE)
    try:
        listener.bind(str(path))
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(before)
    listener.listen(512)
    listener.setblocking(False)
    return listener
