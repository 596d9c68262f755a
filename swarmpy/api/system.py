"""GET and HEAD /_ping, and the API versions that requests may ask for.

Clients negotiate on the answer to /_ping; it must name the Engine's version, because most requests pass on to
the Engine. What does not belong here: /version, which passes through.
"""

from __future__ import annotations

from aiohttp import web

from swarmpy.api.engine import EngineAbsentError
from swarmpy.api.errors import HttpError
from swarmpy.api.site import Handler, Route, Site, api_version, parse_version


class System:
    """Handlers of /_ping."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def routes(self) -> list[Route]:
        """Method, path and handler of each endpoint."""
        return [("GET", "/_ping", self.ping), ("HEAD", "/_ping", self.ping)]

    async def ping(self, request: web.Request) -> web.Response:
        """Liveness and version. It answers while the Engine is away: the cluster can still be asked."""
        try:
            headers = await self._site.engine.ping()
        except EngineAbsentError:
            api, _ = await self._site.engine.versions()
            headers = {"Api-Version": api, "Ostype": "linux", "Docker-Experimental": "false"}
        headers["Cache-Control"] = "no-cache, no-store, must-revalidate"
        headers["Pragma"] = "no-cache"
        headers["Swarm"] = self._swarm()
        body = b"" if request.method == "HEAD" else b"OK"
        return web.Response(body=body, headers=headers, content_type="text/plain", charset="utf-8")

    def _swarm(self) -> str:
        view = self._site.local.view()
        if view.state != "active":
            return view.state
        return "active/manager" if view.is_manager else "active/worker"


async def check_version(site: Site, request: web.Request) -> None:
    """Refuse versions in the path that the Engine would refuse, in its words."""
    asked = api_version(request)
    if asked is None:
        return
    newest, oldest = await site.engine.versions()
    text = request.match_info["version"]
    if asked > parse_version(newest):
        raise HttpError(400, f"client version {text} is too new. Maximum supported API version is {newest}")
    if asked < parse_version(oldest):
        raise HttpError(
            400,
            f"client version {text} is too old. Minimum supported API version is {oldest}, "
            "please upgrade your client to a newer version",
        )


def versioned(site: Site, handler: Handler) -> Handler:
    """The handler behind the version check, with the headers that every answer of Docker has."""

    async def checked(request: web.Request) -> web.StreamResponse:
        await check_version(site, request)
        response = await handler(request)
        if not response.prepared:
            newest, _ = await site.engine.versions()
            response.headers.setdefault("Api-Version", newest)
            response.headers.setdefault("Ostype", "linux")
        return response

    return checked
