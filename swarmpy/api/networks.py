"""Networks: the cluster's own beside those of the node's Engine, one list and one space of names.

The Engine holds a local network for each of ours that its containers use (label io.swarmpy.network); these
are the cluster's networks seen from below, and are never shown as the Engine's. What does not belong here:
rules of networks (plan/admission/network), JSON shapes (netrender.py).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec
from aiohttp import web

from swarmpy.api import body, filters, netrender, refs, render
from swarmpy.api.engine import EngineAbsentError, Reply
from swarmpy.api.errors import HttpError, plain
from swarmpy.api.forward import handed_on, passed
from swarmpy.api.info import ENGINE_AWAY
from swarmpy.api.site import NO_SWARM, Route, Site
from swarmpy.model.commands import CreateNetwork, RemoveNetwork
from swarmpy.model.errors import FailedPrecondition, NotFound
from swarmpy.model.lifecycle import TERMINAL
from swarmpy.model.objects import Network
from swarmpy.model.specs import compact, network_view
from swarmpy.plan.admission.network import PREDEFINED, is_being_left
from swarmpy.plan.places import USABLE
from swarmpy.state.snapshot import Snapshot

LABEL = "io.swarmpy.network"
_FILTERS = ("driver", "id", "label", "name", "scope", "type", "dangling")
_NO = ("0", "false")
LEAVING_SECONDS = 20.0
"""How long the removal of a network waits for tasks that are stopping: whoever removes services and then
their network, as `docker stack rm` does at once, means to wait for them. Docker's bound for such a call."""


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
            ("POST", "/networks/prune", self.prune),
        ]

    # ------------------------------------------------------------ ours

    async def list(self, request: web.Request) -> web.Response:
        """GET /networks: the cluster's, then the Engine's own."""
        asked = filters.parse(request.query.get("filters", "")).only(_FILTERS)
        world = await self._world()
        ours = [
            netrender.network(item, {}, whole=False)
            for item in world.networks if _chosen(asked, world, item)
        ] if world is not None else []  # fmt: skip
        reply = await self._engine(request)
        theirs = [
            one if world is not None or LABEL not in (one.get("Labels") or {}) else _from_below(one)
            for one in msgspec.json.decode(reply.body, type=list[dict[str, Any]])
            if world is None or LABEL not in (one.get("Labels") or {})
        ] if reply.status == 200 else []  # fmt: skip
        if reply.status != 200 and (reply.status < 500 or not ours):
            return passed(reply)
        return render.respond([*ours, *theirs])

    async def inspect(self, request: web.Request) -> web.Response:
        """GET /networks/{id}."""
        verbose = body.strict_flag(request, "verbose")
        if request.query.get("scope") == "swarm" and request.match_info["id"] in USABLE:
            return await self._of_the_node(request.match_info["id"])
        world = await self._world()
        item = self._find(world, request)
        if item is None:
            reply = await self._engine(request)
            found = _labelled(reply)
            if found is None:
                return passed(reply)
            if request.query.get("scope", "swarm") != "swarm":
                raise HttpError(404, f"network {request.match_info['id']} not found")
            item = world.networks.get(found["Labels"][LABEL]) if world is not None else None
            if item is None:
                return render.respond(_from_below(found))
        if world is None:
            raise AssertionError("a network of the cluster was found without its world")
        shown = netrender.network(item, await self._containers(item))
        shown["Peers"] = netrender.peers(world, item)
        if verbose:
            shown["Services"] = netrender.services(world, item)
            shown["Nodes"] = netrender.followers(world, item, await self._site.control().told(item.id))
        return render.respond(shown)

    async def _of_the_node(self, name: str) -> web.Response:
        """The network that every node has by itself, as clients look for it before they attach a service to
        it: its id is its name, since on each node it is another one."""
        try:
            reply = await self._site.engine.request("GET", f"/networks/{quote(name)}")
        except EngineAbsentError as error:
            raise HttpError(503, ENGINE_AWAY.format(reason=error)) from None
        if reply.status != 200:
            return passed(reply)
        found = msgspec.json.decode(reply.body, type=dict[str, Any])
        return render.respond({**found, "Id": name, "Scope": "swarm"})

    async def create(self, request: web.Request) -> web.Response:
        """POST /networks/create: ours where the driver is overlay or the scope is the swarm."""
        data = await request.read()
        raw = body.parse_object(data) if data else {}
        name = raw.get("Name")
        if raw.get("Driver") != "overlay" and raw.get("Scope") != "swarm":
            world = await self._world()
            if world is not None and isinstance(name, str) and world.network_named(name) is not None:
                raise HttpError(409, f"network with name {name} already exists")
            return passed(await self._engine(request, data))
        with plain():
            name = network_view(compact(raw)).name
        if name in PREDEFINED:
            raise HttpError(403, f"operation is not permitted on predefined {name} network")
        if self._site.local.view().state == "inactive":
            raise HttpError(
                500,
                NO_SWARM,
            )
        if self._site.control() is not None and name and await self._engine_has(name):
            raise HttpError(409, f"network with name {name} already exists")
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
            # Not the Engine's counterpart of one of ours: containers of the cluster are to use it.
            found = _labelled(await self._look(request))
            if found is None:
                return passed(await self._engine(request))
            world = await self._site.control().world()
            item = refs.network(world, found["Labels"][LABEL])
        command = RemoveNetwork(request_id=self._site.request_id(request), network=item.id)
        clock = asyncio.get_running_loop().time
        until = clock() + LEAVING_SECONDS
        while True:
            try:
                await self._site.submit(command)
                return web.Response(status=204)
            except FailedPrecondition:
                control = self._site.control()
                world = await control.world()
                if clock() >= until or not is_being_left(world, item):
                    raise
                await control.changed(world.version, timeout=until - clock())

    async def prune(self, request: web.Request) -> web.Response:
        """POST /networks/prune: the Engine's unused networks, on a manager the cluster's too.

        The Engine's counterparts of ours stay: they come and go with tasks and guests. With a filter
        `until` the cluster's networks stay as well.
        """
        asked = filters.parse(request.query.get("filters", ""))
        kept = {key: list(values) for key, values in asked.values.items()}
        kept["label!"] = [*kept.get("label!", ()), LABEL]
        said = {key: dict.fromkeys(values, True) for key, values in kept.items()}
        path = f"{request.raw_path.partition('?')[0]}?filters={quote(json.dumps(said))}"
        reply = await self._engine(request, path=path)
        if reply.status != 200:
            return passed(reply)
        shown = msgspec.json.decode(reply.body, type=dict[str, Any])
        gone: list[str] = list(shown.get("NetworksDeleted") or [])
        world = await self._world()
        idle = [one for one in world.networks if _prunable(asked, world, one)] if world is not None else []
        for item in idle:
            try:
                await self._site.submit(RemoveNetwork(network=item.id))
            except (FailedPrecondition, NotFound):
                continue  # something began to use it, or it is gone already
            gone.append(item.name)
        return render.respond({**shown, "NetworksDeleted": gone or None})

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

    async def _engine_has(self, name: str) -> bool:
        """Whether this node's Engine has a network of that name which is no counterpart of ours."""
        try:
            reply = await self._site.engine.request("GET", f"/networks/{quote(name, safe='')}")
        except EngineAbsentError:
            return False
        if reply.status != 200 or _labelled(reply) is not None:
            return False
        return str(msgspec.json.decode(reply.body, type=dict[str, Any]).get("Name")) == name

    async def _look(self, request: web.Request) -> Reply:
        """What the Engine says of the network that is meant."""
        try:
            path = f"/networks/{quote(request.match_info['id'], safe='')}"
            return await self._site.engine.request("GET", path)
        except EngineAbsentError as error:
            raise HttpError(503, ENGINE_AWAY.format(reason=error)) from None

    async def _engine(self, request: web.Request, data: bytes = b"", path: str = "") -> Reply:
        return await handed_on(self._site, request, data, path)


def _labelled(reply: Reply) -> dict[str, Any] | None:
    """The Engine's counterpart of a network of ours; None where it is none."""
    if reply.status != 200:
        return None
    found = msgspec.json.decode(reply.body, type=dict[str, Any])
    return found if LABEL in (found.get("Labels") or {}) else None


def _used(world: Snapshot, item: Network) -> bool:
    """Whether anything would miss the network."""
    live = (task.status.state not in TERMINAL for task in (world.bucket_in(item.id) or {}).values())
    return (
        item.view.ingress
        or any(live)
        or bool(world.guests_in(item.id))
        or any(
            one.target == item.id for service in world.services for one in service.view.task_template.networks
        )
    )


def _prunable(asked: filters.Filters, world: Snapshot, item: Network) -> bool:
    labels = item.view.labels
    return (
        "until" not in asked
        and not _used(world, item)
        and asked.labels("label", labels)
        and not any(filters.Filters({"x": (one,)}).labels("x", labels) for one in asked.get("label!"))
    )


def _chosen(asked: filters.Filters, world: Snapshot, item: Network) -> bool:
    words, dangling = asked.get("type"), asked.get("dangling")
    return (
        asked.exact("driver", "overlay")
        and asked.exact("scope", "swarm")
        and asked.prefix("id", item.id)
        and (not asked.get("name") or any(part in item.name for part in asked.get("name")))
        and asked.labels("label", item.view.labels)
        and (not words or "custom" in words)
        and (not dangling or _used(world, item) is (dangling[0] in _NO))
    )


def _from_below(found: dict[str, Any]) -> dict[str, Any]:
    """A network of ours as a worker's Engine knows it, under its own name and id."""
    labels = {key: value for key, value in (found.get("Labels") or {}).items() if key != LABEL}
    known = {"Id": found["Labels"][LABEL], "Scope": "swarm", "Driver": "overlay", "Labels": labels or None}
    return {**found, **known}
