"""What Swarm has and this version does not: secrets and configs.

Lists are empty and objects unknown, so that clients which only look work; creating is refused in a sentence.
What does not belong here: anything that is supported.
"""

from __future__ import annotations

from functools import partial

from aiohttp import web

from swarmpy.api import filters, render
from swarmpy.api.errors import HttpError
from swarmpy.api.site import Route, Site

_FILTERS = ("id", "label", "name", "names")


class Later:
    """Handlers of /secrets and /configs."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def routes(self) -> list[Route]:
        """Method, path and handler of each endpoint."""
        found: list[Route] = []
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
