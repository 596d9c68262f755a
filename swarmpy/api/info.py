"""GET /info: the Engine's answer with its `Swarm` part replaced by ours.

What does not belong here: anything else about the Engine; its other fields pass as they are.
"""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from swarmpy.api import render
from swarmpy.api.engine import EngineAbsentError
from swarmpy.api.errors import HttpError, error_response
from swarmpy.api.site import Route, Site
from swarmpy.model.errors import Refusal

ENGINE_AWAY = "the Docker Engine of this node does not answer ({reason}): is it running?"
TWO_MANAGERS = (
    "WARNING: Running Swarm in a two-manager configuration. This configuration provides\n"
    "         no fault tolerance, and poses a high risk to lose control over the cluster.\n"
    "         Refer to https://docs.docker.com/engine/swarm/admin_guide/ to configure the\n"
    "         Swarm for fault-tolerance."
)
INFO_SECONDS = 30.0


class Info:
    """Handler of /info."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def routes(self) -> list[Route]:
        """Method, path and handler of each endpoint."""
        return [("GET", "/info", self.info)]

    async def info(self, request: web.Request) -> web.Response:
        """GET /info. While the Engine is away the cluster's part is still answered, with a warning."""
        try:
            reply = await self._site.engine.request("GET", request.raw_path, timeout=INFO_SECONDS)
            if reply.status != 200:
                return web.Response(status=reply.status, body=reply.body, content_type="application/json")
            shown = msgspec.json.decode(reply.body, type=dict[str, Any])
        except EngineAbsentError as error:
            shown = {"Name": "", "ServerVersion": "", "ServerErrors": [ENGINE_AWAY.format(reason=error)]}
            shown["Warnings"] = list(shown["ServerErrors"])
        except msgspec.DecodeError as error:
            return error_response(500, f"the Docker Engine's answer to GET /info is not JSON: {error}")
        shown["Swarm"] = await self.swarm()
        if shown["Swarm"].get("Managers") == 2:
            shown["Warnings"] = [*(shown.get("Warnings") or []), TWO_MANAGERS]
        return render.respond(shown)

    async def swarm(self) -> render.Json:
        """The `Swarm` part: this node's state, and on managers the cluster without its tokens."""
        view = self._site.local.view()
        remote = [{"NodeID": key, "Addr": address} for key, address in view.managers]
        shown: render.Json = {
            "NodeID": view.node_id,
            "NodeAddr": view.address,
            "LocalNodeState": view.state,
            "ControlAvailable": view.is_manager and self._site.local.control is not None,
            "Error": view.error,
            "RemoteManagers": remote or None,
        }
        if not shown["ControlAvailable"] or view.error:
            return shown
        try:
            world = await self._site.control().world()
        except Refusal as refusal:
            return {**shown, "Error": refusal.message}
        except HttpError as error:  # it stopped being a manager just now
            return {**shown, "Error": error.message, "ControlAvailable": False}
        shown["Nodes"] = len(world.nodes)
        shown["Managers"] = sum(bool(node.manager_address) for node in world.nodes)
        if world.cluster is not None:
            shown["Cluster"] = render.cluster(world.cluster)
        return shown
