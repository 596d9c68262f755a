"""`/swarmpy/v1`: what Docker's API does not have.

What belongs here: the node's own view, explanations, progress in one call, more address pools. What does not:
anything that a Docker client could ask.
"""

from __future__ import annotations

import msgspec
from aiohttp import web

from swarmpy import __version__
from swarmpy.api import body, netrender, refs, render
from swarmpy.api.engine import EngineAbsentError
from swarmpy.api.errors import HttpError
from swarmpy.api.site import Route, Site
from swarmpy.model.commands import AddPools
from swarmpy.model.errors import Refusal
from swarmpy.model.lifecycle import NodeState, TaskState


class _Pools(msgspec.Struct, frozen=True, rename="pascal"):
    add: tuple[str, ...] = ()


class Own:
    """Handlers of /swarmpy/v1."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def routes(self) -> list[Route]:
        """Method, path and handler of each endpoint."""
        return [
            ("GET", "/swarmpy/v1/status", self.status),
            ("GET", "/swarmpy/v1/explain", self.explain),
            ("GET", "/swarmpy/v1/services/{id}/progress", self.progress),
            ("POST", "/swarmpy/v1/address-pools", self.add_pools),
            ("GET", "/swarmpy/v1/net/doctor", self.doctor),
        ]

    async def status(self, _request: web.Request) -> web.Response:
        """This node, its Engine, and on managers the cluster's health. Answers whatever is broken."""
        view = self._site.local.view()
        shown: render.Json = {
            "version": __version__,
            "node": {
                "id": view.node_id,
                "state": view.state,
                "address": view.address,
                "manager": view.is_manager,
                "error": view.error,
                "cluster": view.cluster_id,
                "managers": [{"id": key, "address": address} for key, address in view.managers],
            },
        }
        try:
            said = await self._site.engine.ping()
            shown["engine"] = {"available": True, "api_version": said.get("Api-Version", ""), "error": ""}
        except EngineAbsentError as error:
            shown["engine"] = {"available": False, "api_version": "", "error": str(error)}
        control = self._site.local.control
        if control is None:
            return render.respond(shown)
        try:
            world = await control.world()
            managers = await control.managers()
        except Refusal as refusal:
            shown["cluster"] = {"available": False, "error": refusal.message}
            return render.respond(shown)
        shown["cluster"] = {
            "available": True,
            "error": "",
            "version": world.version,
            "leader": managers.leader,
            "reachable": sorted(managers.reachable),
            "nodes": len(world.nodes),
            "nodes_ready": sum(node.status.state == NodeState.READY for node in world.nodes),
            "services": len(world.services),
            "tasks": len(world.tasks),
            "tasks_running": sum(task.status.state == TaskState.RUNNING for task in world.tasks),
        }
        return render.respond(shown)

    async def explain(self, request: web.Request) -> web.Response:
        """Why the tasks of ?ref= run where they run, or do not."""
        reference = request.query.get("ref", "")
        if not reference:
            raise HttpError(400, "the parameter ref is missing: name a service, a task or a node")
        control = self._site.control()
        return render.respond(dict(control.explain(await control.world(), reference)))

    async def add_pools(self, request: web.Request) -> web.Response:
        """More address pools for networks: {"Add": ["CIDR", ...]}."""
        asked = body.convert(_Pools, await body.read_object(request))
        await self._site.submit(AddPools(request_id=self._site.request_id(request), pools=asked.add))
        return web.Response()

    async def doctor(self, request: web.Request) -> web.Response:
        """Examine the network ?network=, or all: the nodes look at them, mend and try them."""
        control = self._site.control()
        world = await control.world()
        name = request.query.get("network", "")
        asked = (refs.network(world, name).id,) if name else ()
        return render.respond(netrender.examination(world, await control.examine(asked)))

    async def progress(self, request: web.Request) -> web.Response:
        """How far a service's tasks are, counted in one consistent world."""
        world = await self._site.control().world()
        service = refs.service(world, request.match_info["id"])
        tasks = world.tasks_of(service.id)
        current = [task for task in tasks if task.spec_version == service.spec_version]
        wanted = [task for task in current if task.desired <= TaskState.COMPLETE]
        update = service.update
        return render.respond(
            {
                "id": service.id,
                "name": service.name,
                "version": service.version,
                "desired": render.service_status(world, service)["DesiredTasks"],
                "running": sum(task.status.state == TaskState.RUNNING for task in wanted),
                "leaving": sum(
                    task.desired > TaskState.COMPLETE and task.status.state <= TaskState.RUNNING
                    for task in tasks
                ),
                "update": None if update is None else {"state": update.state, "message": update.message},
                "errors": sorted({task.status.err for task in tasks if task.status.err}),
            }
        )
