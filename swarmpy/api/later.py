"""What Swarm has and this version does not: secrets, configs and overlay networks.

Lists are empty and objects unknown, so that clients which only look work; creating is refused in a sentence.
What does not belong here: anything that is supported.
"""

from __future__ import annotations

from functools import partial

from aiohttp import web

from swarmpy.api import body, filters, render
from swarmpy.api.engine import EngineAbsentError
from swarmpy.api.errors import HttpError
from swarmpy.api.info import ENGINE_AWAY
from swarmpy.api.site import Route, Site

_FILTERS = ("id", "label", "name", "names")
_FORWARDED = ("Content-Type", "User-Agent", "X-Registry-Auth", "X-Registry-Config")


class Later:
    """Handlers of /secrets, /configs and POST /networks/create."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def routes(self) -> list[Route]:
        """Method, path and handler of each endpoint."""
        found: list[Route] = [("POST", "/networks/create", self.create_network)]
        for kind in ("secret", "config"):
            found += [
                ("GET", f"/{kind}s", self.none),
                ("POST", f"/{kind}s/create", partial(self.refuse, kind)),
                ("GET", f"/{kind}s/{{id}}", partial(self.unknown, kind)),
                ("DELETE", f"/{kind}s/{{id}}", partial(self.unknown, kind)),
                ("POST", f"/{kind}s/{{id}}/update", partial(self.unknown, kind)),
            ]
        return found

    async def none(self, request: web.Request) -> web.Response:
        """A list of nothing."""
        filters.parse(request.query.get("filters", "")).only(_FILTERS)
        await self._site.control().world()
        return render.respond([])

    async def unknown(self, kind: str, request: web.Request) -> web.Response:
        """No such object."""
        self._site.control()
        raise HttpError(404, f"{kind} {request.match_info['id']} not found")

    async def refuse(self, kind: str, _request: web.Request) -> web.Response:
        """Cannot be created."""
        self._site.control()
        raise HttpError(
            501,
            f"{kind}s are not supported by this version of swarmpy: bring the data to the service by an "
            "image, an environment variable or a bind mount",
        )

    async def create_network(self, request: web.Request) -> web.Response:
        """Networks of the Engine are the Engine's business; overlays would be the cluster's."""
        data = await request.read()
        raw = body.parse_object(data) if data else {}
        if raw.get("Driver") == "overlay" or raw.get("Scope") == "swarm":
            self._site.control()
            raise HttpError(
                501,
                "overlay networks are not supported by this version of swarmpy: publish the ports that must "
                "be reachable with mode=host, or use a network of one node",
            )
        kept = {name: request.headers[name] for name in _FORWARDED if name in request.headers}
        try:
            reply = await self._site.engine.request(
                "POST", request.raw_path, body=data, headers=kept, timeout=60.0
            )
        except EngineAbsentError as error:
            raise HttpError(503, ENGINE_AWAY.format(reason=error)) from None
        return web.Response(status=reply.status, body=reply.body, content_type="application/json")
