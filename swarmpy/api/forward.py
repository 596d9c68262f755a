"""Requests that were looked at and are the Engine's after all: handed on whole, and the answer back.

What does not belong here: the blind tunnel for everything that is never looked at (passthrough.py).
"""

from __future__ import annotations

from aiohttp import web

from swarmpy.api.engine import EngineAbsentError, Reply
from swarmpy.api.errors import HttpError
from swarmpy.api.info import ENGINE_AWAY
from swarmpy.api.site import Site

_FORWARDED = ("Content-Type", "User-Agent", "X-Registry-Auth")
SECONDS = 120.0
"""How long the Engine may take: creating a container waits for its storage."""


async def handed_on(site: Site, request: web.Request, data: bytes = b"", path: str = "") -> Reply:
    """The Engine's answer to the request, with this body, to this path ("" for its own). 503 where it gives
    none."""
    kept = {name: request.headers[name] for name in _FORWARDED if name in request.headers}
    try:
        return await site.engine.request(
            request.method, path or request.raw_path, body=data, headers=kept, timeout=SECONDS
        )
    except EngineAbsentError as error:
        raise HttpError(503, ENGINE_AWAY.format(reason=error)) from None


def passed(reply: Reply) -> web.Response:
    """The Engine's answer as ours."""
    kind = reply.headers.get("Content-Type", "application/json").partition(";")[0]
    return web.Response(status=reply.status, body=reply.body, content_type=kind)
