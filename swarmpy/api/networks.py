"""Networks: the cluster's own beside those of the node's Engine, one list and one space of names.

The Engine holds a local network for each of ours that its containers use (label io.swarmpy.network); these
are the cluster's networks seen from below, and are never shown as the Engine's. What does not belong here:
rules of networks (plan/admission/network), JSON shapes (netrender.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec
from aiohttp import web

from swarmpy.api import body, filters, netrender, refs, render
from swarmpy.api.engine import EngineAbsentError, Reply
from swarmpy.api.errors import HttpError, plain
from swarmpy.api.info import ENGINE_AWAY
from swarmpy.api.site import Route, Site
from swarmpy.model.commands import CreateNetwork, RemoveNetwork
from swarmpy.model.objects import Network
from swarmpy.model.specs import compact, network_view
from swarmpy.state.snapshot import Snapshot

LABEL = "io.swarmpy.network"
_FORWARDED = ("Content-Type", "User-Agent")
_FILTERS = ("driver", "id", "label", "name", "scope", "type", "dangling")
_ENGINE_SECONDS = 60.0


class Networks:
    """Handlers of /networks."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def routes(self) -> list[Route]:
        """Method, path and handler of each endpoint."""
        return [
            ("GET", "/networks", self.list),
            ("POST", "/networks/create", self.create),
            ("GET", "/networks/{id}", self.inspect),
            ("DELETE", "/networks/{id}", self.remove),
        ]

    # ------------------------------------------------------------ ours

    async def list(self, request: web.Request) -> web.Response:
        """GET /networks: the cluster's, then the Engine's own."""
        asked = filters.parse(request.query.get("filters", "")).only(_FILTERS)
        world = await self._world()
        ours = [
            netrender.network(item, {}, whole=False) for item in world.networks if _chosen(asked, item)
        ] if world is not None else []  # fmt: skip
        reply = await self._engine(request)
        theirs = [
            one if world is not None or LABEL not in (one.get("Labels") or {}) else _from_below(one)
            for one in msgspec.json.decode(reply.body, type=list[dict[str, Any]])
            if world is None or LABEL not in (one.get("Labels") or {})
        ] if reply.status == 200 else []  # fmt: skip
        if reply.status >= 500 and not ours:
            return _passed(reply)
        return render.respond([*ours, *theirs])

    async def inspect(self, request: web.Request) -> web.Response:
        """GET /networks/{id}."""
        verbose = body.strict_flag(request, "verbose")
        world = await self._world()
        item = self._find(world, request)
        if world is None or item is None:
            reply = await self._engine(request)
            if reply.status == 200:
                found = msgspec.json.decode(reply.body, type=dict[str, Any])
                if LABEL in (found.get("Labels") or {}):
                    return render.respond(_from_below(found))
            return _passed(reply)
        shown = netrender.network(item, await self._containers(item))
        shown["Peers"] = netrender.peers(world, item)
        if verbose:
            shown["Services"] = netrender.services(world, item)
        return render.respond(shown)

    async def create(self, request: web.Request) -> web.Response:
        """POST /networks/create: ours where the driver is overlay or the scope is the swarm."""
        data = await request.read()
        raw = body.parse_object(data) if data else {}
        if raw.get("Driver") != "overlay" and raw.get("Scope") != "swarm":
            return _passed(await self._engine(request, data))
        with plain():
            network_view(compact(raw))
        if self._site.local.view().state == "inactive":
            raise HttpError(
                500,
                "This node is not a swarm manager. Overlay networks need a cluster: use 'swarmpy init' or "
                "'swarmpy join' to connect this node to one and try again.",
            )
        command = CreateNetwork(
            request_id=self._site.request_id(request), id=self._site.fresh_id(), spec=compact(raw)
        )
        result = await self._site.submit(command)
        return render.respond({"Id": result.id, "Warning": "; ".join(result.warnings)}, 201)

    async def remove(self, request: web.Request) -> web.Response:
        """DELETE /networks/{id}."""
        world = await self._world()
        item = self._find(world, request)
        if item is None:
            return _passed(await self._engine(request))
        await self._site.submit(RemoveNetwork(request_id=self._site.request_id(request), network=item.id))
        return web.Response(status=204)

    # ------------------------------------------------------------ finding

    async def _world(self) -> Snapshot | None:
        """The cluster's world; None on a node that is no manager, where only the Engine is asked."""
        if self._site.local.control is None:
            return None
        return await self._site.control().world()

    @staticmethod
    def _find(world: Snapshot | None, request: web.Request) -> Network | None:
        """The network of ours that is meant; None where it is the Engine's, if anybody's."""
        if world is None or request.query.get("scope", "swarm") != "swarm":
            return None
        try:
            return refs.network(world, request.match_info["id"])
        except HttpError as error:
            if error.status == 404 and not request.query.get("scope"):
                return None
            raise

    async def _containers(self, item: Network) -> Mapping[str, Any]:
        """Containers of this node on the network."""
        try:
            reply = await self._site.engine.request("GET", f"/networks/{quote(item.name)}")
        except EngineAbsentError:
            return {}
        if reply.status != 200:
            return {}
        found = msgspec.json.decode(reply.body, type=dict[str, Any])
        if (found.get("Labels") or {}).get(LABEL) != item.id:
            return {}
        containers: Mapping[str, Any] = found.get("Containers") or {}
        return containers

    # ------------------------------------------------------------ the Engine's

    async def _engine(self, request: web.Request, data: bytes = b"") -> Reply:
        kept = {name: request.headers[name] for name in _FORWARDED if name in request.headers}
        try:
            return await self._site.engine.request(
                request.method, request.raw_path, body=data, headers=kept, timeout=_ENGINE_SECONDS
            )
        except EngineAbsentError as error:
            raise HttpError(503, ENGINE_AWAY.format(reason=error)) from None


def _passed(reply: Reply) -> web.Response:
    return web.Response(status=reply.status, body=reply.body, content_type="application/json")


def _chosen(asked: filters.Filters, item: Network) -> bool:
    words = asked.get("type")
    return (
        asked.exact("driver", "overlay")
        and asked.exact("scope", "swarm")
        and asked.prefix("id", item.id)
        and (not asked.get("name") or any(part in item.name for part in asked.get("name")))
        and asked.labels("label", item.view.labels)
        and (not words or "custom" in words)
        and "dangling" not in asked
    )


def _from_below(found: dict[str, Any]) -> dict[str, Any]:
    """A network of ours as a worker's Engine knows it, under its own name and id."""
    labels = {key: value for key, value in (found.get("Labels") or {}).items() if key != LABEL}
    known = {"Id": found["Labels"][LABEL], "Scope": "swarm", "Driver": "overlay", "Labels": labels or None}
    return {**found, **known}
