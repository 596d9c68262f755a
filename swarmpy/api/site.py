"""What every handler has at hand, and the one way to this node's control plane.

What belongs here: the shared context, and the texts for nodes that are not managers. What does not belong
here: endpoints.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from swarmpy.api.engine import EngineClient
from swarmpy.api.errors import HttpError
from swarmpy.model.commands import AnyCommand, Result
from swarmpy.model.ids import ENTROPY_BYTES, from_bytes
from swarmpy.ports import Clock, Control, Entropy, LocalNode

REQUEST_ID = "X-Swarmpy-Request-Id"
MAX_REQUEST_ID = 128
_ENDLESS = 10**9

NO_SWARM = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" '
    "to connect this node to swarm and try again."
)
NOT_READY = (
    "This node is not a swarm manager. Manager is being prepared or has trouble connecting to the cluster."
)
WORKER = (
    "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. "
    "Please run this command on a manager node or promote the current node to a manager."
)
LOCKED = (
    "Swarm is encrypted and needs to be unlocked before it can be used. "
    'Please use "docker swarm unlock" to unlock it.'
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Route = tuple[str, str, Handler]


@dataclass(slots=True)
class Site:
    """What handlers share."""

    local: LocalNode
    engine: EngineClient
    clock: Clock
    entropy: Entropy
    watch: Callable[[Control], None]
    """Told of each control plane that is used, so that its events are followed."""

    def control(self) -> Control:
        """The control plane, or 503 saying why there is none here."""
        control = self.local.control
        if control is not None:
            self.watch(control)
            return control
        view = self.local.view()
        if view.state == "locked":
            raise HttpError(503, LOCKED)
        if view.state == "inactive":
            raise HttpError(503, NO_SWARM)
        raise HttpError(503, NOT_READY if view.is_manager else WORKER)

    async def submit(self, command: AnyCommand) -> Result:
        """Submit a command. A client that hangs up does not stop what it asked for."""
        return await asyncio.shield(asyncio.ensure_future(self.control().submit(command)))

    def fresh_id(self) -> str:
        """A new object id."""
        return from_bytes(self.entropy.token(ENTROPY_BYTES))

    def request_id(self, request: web.Request) -> str:
        """The client's id for this request, so that its retry applies once; a fresh one otherwise."""
        given = request.headers.get(REQUEST_ID, "")
        if len(given) > MAX_REQUEST_ID or not given.isprintable():
            raise HttpError(
                400, f"invalid {REQUEST_ID} header: at most {MAX_REQUEST_ID} printable characters"
            )
        return given or self.fresh_id()


def api_version(request: web.Request) -> tuple[int, ...] | None:
    """The version in the path, such as (1, 41); None for paths without one."""
    text = request.match_info.get("version")
    return parse_version(text) if text else None


def parse_version(text: str) -> tuple[int, ...]:
    """The numbers of an API version such as 1.41, as Docker compares them: 1.41.0 is 1.41, 1 is 1.0, and a
    number too large to be one is larger than any."""
    parts = [int(part or 0) if len(part) < 10 else _ENDLESS for part in text.split(".")]
    while parts and not parts[-1]:
        parts.pop()
    return tuple(parts)
