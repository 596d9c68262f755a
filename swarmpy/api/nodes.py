"""Nodes: list, inspect, update, remove.

What does not belong here: what a promotion or removal entails (plan/admission, manager/).
"""

from __future__ import annotations

from aiohttp import web

from swarmpy.api import body, filters, refs, render
from swarmpy.api.errors import HttpError, plain
from swarmpy.api.site import Route, Site
from swarmpy.model.commands import RemoveNode, UpdateNode
from swarmpy.model.lifecycle import Availability, Role
from swarmpy.model.specs import compact, node_view

_FILTERS = ("name", "id", "label", "node.label", "role", "membership")
_ROLES = tuple(role.word for role in Role)


class Nodes:
    """Handlers of /nodes."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def routes(self) -> list[Route]:
        """Method, path and handler of each endpoint."""
        return [
            ("GET", "/nodes", self.list),
            ("GET", "/nodes/{id}", self.inspect),
            ("POST", "/nodes/{id}/update", self.update),
            ("DELETE", "/nodes/{id}", self.remove),
        ]

    async def list(self, request: web.Request) -> web.Response:
        """GET /nodes."""
        asked = filters.parse(request.query.get("filters", "")).only(_FILTERS)
        roles = asked.words("role", _ROLES)
        membership = asked.words("membership", ("accepted", "pending"))
        world, managers = await self._site.control().world_and_managers()
        chosen = [
            item
            for item in world.nodes
            if not asked.values
            or (
                asked.prefix("name", item.description.hostname, item.view.name)
                and asked.prefix("id", item.id)
                and asked.labels("label", item.description.engine_labels)
                and asked.labels("node.label", item.view.labels)
                and (not roles or item.role.word in roles)
                and (not membership or "accepted" in membership)
            )
        ]
        return render.respond([render.node(item, world.cluster, managers) for item in chosen])

    async def inspect(self, request: web.Request) -> web.Response:
        """GET /nodes/{id}."""
        world, managers = await self._site.control().world_and_managers()
        found = refs.node(world, request.match_info["id"])
        return render.respond(render.node(found, world.cluster, managers))

    async def update(self, request: web.Request) -> web.Response:
        """POST /nodes/{id}/update: the whole spec is replaced."""
        raw = await body.read_object(request)
        version = body.version_index(request, "node")
        text = compact(raw)
        with plain():
            node_view(text)
        role, availability = raw.get("Role") or "", raw.get("Availability") or ""
        if role.lower() not in _ROLES:
            raise HttpError(400, f'invalid Role: "{role}"')
        if availability.lower() not in {one.word for one in Availability}:
            raise HttpError(400, f'invalid Availability: "{availability}"')
        world = await self._site.control().world()
        command = UpdateNode(
            request_id=self._site.request_id(request),
            node=refs.node(world, request.match_info["id"]).id,
            version=version,
            spec=compact({**raw, "Role": role.lower(), "Availability": availability.lower()}),
        )
        await self._site.submit(command)
        return web.Response()

    async def remove(self, request: web.Request) -> web.Response:
        """DELETE /nodes/{id}."""
        force = body.loose_flag(request, "force")
        world = await self._site.control().world()
        found = refs.node(world, request.match_info["id"])
        request_id = self._site.request_id(request)
        await self._site.submit(RemoveNode(request_id=request_id, node=found.id, force=force))
        return web.Response()
