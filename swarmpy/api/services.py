"""Services: list, inspect, create, update, remove.

What does not belong here: validation (plan/admission), logs (logs.py), shapes (render.py).
"""

from __future__ import annotations

from aiohttp import web

from swarmpy.api import body, filters, names, refs, render
from swarmpy.api.errors import HttpError, plain
from swarmpy.api.site import Route, Site
from swarmpy.model.commands import CreateService, RemoveService, UpdateService
from swarmpy.model.objects import Service
from swarmpy.model.specs import compact, service_view

_FILTERS = ("name", "id", "label", "mode", "runtime")


def mode_word(item: Service) -> str:
    """replicated, global, replicated-job or global-job."""
    mode = item.view.mode
    if mode.global_ is not None:
        return "global"
    if mode.replicated_job is not None:
        return "replicated-job"
    return "replicated" if mode.global_job is None else "global-job"


class Services:
    """Handlers of /services."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def routes(self) -> list[Route]:
        """Method, path and handler of each endpoint."""
        return [
            ("GET", "/services", self.list),
            ("POST", "/services/create", self.create),
            ("GET", "/services/{id}", self.inspect),
            ("POST", "/services/{id}/update", self.update),
            ("DELETE", "/services/{id}", self.remove),
        ]

    async def list(self, request: web.Request) -> web.Response:
        """GET /services."""
        asked = filters.parse(request.query.get("filters", "")).only(_FILTERS)
        status = body.strict_flag(request, "status")
        world = await self._site.control().world()
        chosen = [
            item
            for item in world.services
            if asked.prefix("name", item.name)
            and asked.prefix("id", item.id)
            and asked.labels("label", item.view.labels)
            and asked.exact("mode", mode_word(item))
            and asked.exact("runtime", "container")
        ]
        return render.respond(
            [
                render.service(item, status=render.service_status(world, item) if status else None)
                for item in chosen
            ]
        )

    async def inspect(self, request: web.Request) -> web.Response:
        """GET /services/{id}."""
        defaults = body.strict_flag(request, "insertDefaults")
        world = await self._site.control().world()
        found = refs.service(world, request.match_info["id"])
        return render.respond(render.service(found, defaults=defaults))

    async def create(self, request: web.Request) -> web.Response:
        """POST /services/create."""
        spec = await self._spec(request)
        command = CreateService(
            request_id=self._site.request_id(request),
            id=self._site.fresh_id(),
            spec=spec,
            auth=body.registry_auth(request),
            fallback_name=names.invent(self._site.entropy),
        )
        result = await self._site.submit(command)
        shown: render.Json = {"ID": result.id}
        if result.warnings:
            shown["Warnings"] = list(result.warnings)
        return render.respond(shown, 201)

    async def update(self, request: web.Request) -> web.Response:
        """POST /services/{id}/update."""
        spec = await self._spec(request)
        version = body.version_index(request, "service")
        auth_from = request.query.get("registryAuthFrom", "") or "spec"
        if auth_from not in {"spec", "previous-spec"}:
            raise HttpError(400, f"invalid registryAuthFrom '{auth_from}'")
        rollback = request.query.get("rollback", "")
        if rollback not in {"", "none", "previous"}:
            raise HttpError(400, f"unrecognized rollback option {rollback}")
        world = await self._site.control().world()
        command = UpdateService(
            request_id=self._site.request_id(request),
            service=refs.service(world, request.match_info["id"]).id,
            version=version,
            spec=spec,
            auth=body.registry_auth(request),
            auth_from=auth_from,
            rollback="previous" if rollback == "previous" else "",
        )
        result = await self._site.submit(command)
        return render.respond({"Warnings": list(result.warnings) or None})

    async def remove(self, request: web.Request) -> web.Response:
        """DELETE /services/{id}."""
        world = await self._site.control().world()
        found = refs.service(world, request.match_info["id"])
        await self._site.submit(RemoveService(request_id=self._site.request_id(request), service=found.id))
        return web.Response()

    async def _spec(self, request: web.Request) -> str:
        """The spec's text; its types are checked here so that no leader is troubled with nonsense."""
        text = compact(await body.read_object(request))
        with plain():
            service_view(text)
        return text
