"""Tasks: list and inspect. What does not belong here: their logs (logs.py)."""

from __future__ import annotations

from collections.abc import Iterable

from aiohttp import web

from swarmpy.api import filters, netrender, refs, render
from swarmpy.api.site import Route, Site
from swarmpy.model.lifecycle import STATE_BY_WORD
from swarmpy.model.objects import Task
from swarmpy.plan.slots import is_dirty
from swarmpy.state.snapshot import Snapshot

_FILTERS = ("desired-state", "id", "label", "name", "node", "service", "runtime", "_up-to-date")


class Tasks:
    """Handlers of /tasks."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def routes(self) -> list[Route]:
        """Method, path and handler of each endpoint."""
        return [("GET", "/tasks", self.list), ("GET", "/tasks/{id}", self.inspect)]

    async def list(self, request: web.Request) -> web.Response:
        """GET /tasks. Services and nodes may be named; unknown ones are 404, as in Docker."""
        asked = filters.parse(request.query.get("filters", "")).only(_FILTERS)
        states = {STATE_BY_WORD[word] for word in asked.words("desired-state", STATE_BY_WORD)}
        world = await self._site.control().world()
        services = {refs.service(world, one).id for one in asked.get("service")}
        nodes = {refs.node(world, one).id for one in asked.get("node")}
        chosen = [
            item
            for item in _candidates(world, services, nodes)
            if (not nodes or item.node_id in nodes)
            and (not states or item.desired in states)
            and asked.prefix("id", item.id)
            and asked.prefix("name", item.name)
            and asked.exact("runtime", "container", "")
            and ("label" not in asked or asked.labels("label", _labels(world, item)))
            and ("_up-to-date" not in asked or _up_to_date(world, item))
        ]
        return render.respond([_shown(world, item) for item in chosen])

    async def inspect(self, request: web.Request) -> web.Response:
        """GET /tasks/{id}."""
        world = await self._site.control().world()
        return render.respond(_shown(world, refs.task(world, request.match_info["id"])))


def _shown(world: Snapshot, item: Task) -> render.Json:
    shown = render.task(item)
    attached = netrender.attachments(world, item.networks)
    return {**shown, "NetworksAttachments": attached} if attached else shown


def _candidates(world: Snapshot, services: set[str], nodes: set[str]) -> Iterable[Task]:
    """Tasks of the services, or of the nodes, or all: by index, so that polling a service costs little."""
    if services:
        return (item for key in sorted(services) for item in world.tasks_of(key))
    if nodes:
        return (item for key in sorted(nodes) for item in world.tasks_on(key))
    return world.tasks


def _labels(world: Snapshot, item: Task) -> dict[str, str]:
    """A task is found by its service's labels; its own are a copy from when it was made."""
    service = world.services.get(item.service_id)
    return {**(service.view.labels if service is not None else {}), **item.labels}


def _up_to_date(world: Snapshot, item: Task) -> bool:
    service = world.services.get(item.service_id)
    return service is not None and not is_dirty(service, item, world.nodes.get(item.node_id))
