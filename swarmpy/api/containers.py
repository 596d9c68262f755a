"""Containers of this node's users in networks of the cluster: `docker run --network`, `network connect`.

A request that names a network of ours gets its places from the leader first, and reaches the Engine with
them; any other reaches it untouched. What belongs here: these requests. What does not: their JSON
(endpoints.py), who may attach (plan/admission/attachment.py), what becomes of a container that is gone
(agent/guests.py).
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import msgspec
from aiohttp import web

from swarmpy.api import body, endpoints, refs, render
from swarmpy.api.engine import EngineAbsentError, Reply
from swarmpy.api.errors import HttpError, text_of
from swarmpy.api.forward import SECONDS, handed_on, passed
from swarmpy.api.info import ENGINE_AWAY
from swarmpy.api.networks import LABEL
from swarmpy.api.site import Route, Site
from swarmpy.model.errors import NotFound, Refusal, Unavailable
from swarmpy.model.objects import Attachment, Guest
from swarmpy.plan.container import TASK_LABEL, Wire
from swarmpy.ports import AttachRequest

log = logging.getLogger("swarmpy.api")

Json = dict[str, Any]


class Containers:
    """Handlers of the requests that may concern both the Engine and the cluster's networks."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def routes(self) -> list[Route]:
        """Method, path and handler of each endpoint."""
        return [
            ("POST", "/containers/create", self.create),
            ("GET", "/containers/{id}/json", self.inspect),
            ("POST", "/networks/{id}/connect", self.connect),
            ("POST", "/networks/{id}/disconnect", self.disconnect),
        ]

    # ------------------------------------------------------------ handlers

    async def create(self, request: web.Request) -> web.Response:
        """POST /containers/create."""
        data = await request.read()
        raw = _object(data)
        asked = endpoints.wanted(raw) if self._active else {}
        ours = {one: called for one in asked if (called := await self._ours(one))}
        if not ours:
            return passed(await self._engine(request, data))
        # What is begun is brought to an end, whether the client still listens or not.
        return await asyncio.shield(asyncio.ensure_future(self._create(request, raw, asked, ours)))

    async def _create(
        self, request: web.Request, raw: Json, asked: dict[str, Json], ours: dict[str, str]
    ) -> web.Response:
        places = [_called(endpoints.place(one, asked[one]), called) for one, called in ours.items()]
        if raw.get("MacAddress"):
            endpoints.place(next(iter(ours)), {"MacAddress": raw["MacAddress"]})
        hostname = raw.get("Hostname")
        asking = AttachRequest(
            guest_id=self._site.fresh_id(),
            networks=tuple(places),
            name=request.query.get("name", "").lstrip("/"),
            hostname=hostname if isinstance(hostname, str) else "",
        )
        try:
            guest, wires = await self._attach(asking, next(iter(ours)))
        except NotFound:
            # Nobody's: the Engine says so in its own words.
            return passed(await self._engine(request, await request.read()))
        made = False
        try:
            sent = msgspec.json.encode(endpoints.rewritten(raw, guest, wires, ours))
            reply = await self._engine(request, sent)
            made = reply.status < 300
        finally:
            self._site.local.arrived(guest.id)
            if not made:
                await self._forget(guest.id)
        return passed(reply)

    async def inspect(self, request: web.Request) -> web.Response:
        """GET /containers/{id}/json: networks of ours under the cluster's ids."""
        reply = await self._engine(request)
        if reply.status == 200:
            found = _object(reply.body)
            if endpoints.shown(found):
                return render.respond(found)
        return passed(reply)

    async def connect(self, request: web.Request) -> web.Response:
        """POST /networks/{id}/connect."""
        data = await request.read()
        reference, raw = request.match_info["id"], _object(data)
        called = await self._ours(reference) if self._active else ""
        if not called:
            return passed(await self._engine(request, data))
        container = await self._container(raw)
        if container is None:
            return passed(await self._engine(request, data))
        return await asyncio.shield(asyncio.ensure_future(self._connect(request, raw, called, container)))

    async def _connect(self, request: web.Request, raw: Json, called: str, container: Json) -> web.Response:
        reference = request.match_info["id"]
        config = raw.get("EndpointConfig")
        config = config if isinstance(config, dict) else {}
        name = str(container.get("Name", "")).lstrip("/")
        asking = AttachRequest(
            guest_id=endpoints.owner(container) or self._site.fresh_id(),
            networks=(_called(endpoints.place(reference, config), called),),
            name=name,
            container_id=str(container["Id"]),
            hostname=str((container.get("Config") or {}).get("Hostname") or ""),
        )
        try:
            guest, wires = await self._attach(asking, reference)
        except NotFound:
            return passed(await self._engine(request, await request.read()))
        made = False
        found: Attachment | None = None
        try:
            found = endpoints.find(guest, wires, called)
            if found is None:
                raise HttpError(500, f"network {reference} was removed meanwhile")
            wire = wires[found.network_id]
            if wire.name in ((container.get("NetworkSettings") or {}).get("Networks") or {}):
                made = True
                raise HttpError(403, f"endpoint with name {name} already exists in network {wire.name}")
            settings = endpoints.config_of(config, guest, found, wire, isolated=wire.internal)
            sent = {**raw, "EndpointConfig": settings}
            reply = await self._engine(request, msgspec.json.encode(sent), self._path(request, wire.name))
            made = reply.status < 300
        finally:
            self._site.local.arrived(guest.id)
            if not made and found is not None:
                await self._forget(guest.id, found.network_id)
        return passed(reply)

    async def disconnect(self, request: web.Request) -> web.Response:
        """POST /networks/{id}/disconnect."""
        data = await request.read()
        counterpart = await self._counterpart(request.match_info["id"])
        if counterpart is None:
            return passed(await self._engine(request, data))
        container = await self._container(_object(data))
        reply = await self._engine(request, data, self._path(request, str(counterpart["Name"])))
        if reply.status < 300 and container is not None:
            guest_id = endpoints.owner(container)
            if guest_id:
                await self._forget(guest_id, str(counterpart["Labels"][LABEL]))
        return passed(reply)

    # ------------------------------------------------------------ the cluster's part

    @property
    def _active(self) -> bool:
        return self._site.local.view().state not in ("inactive", "locked")

    async def _attach(self, asking: AttachRequest, reference: str) -> tuple[Guest, dict[str, Wire]]:
        """Raises NotFound where there is no such network, and HttpError with Docker's words."""
        try:
            guest, wires = await self._site.local.attach(asking)
        except NotFound:
            raise
        except Unavailable:
            raise
        except Refusal as refusal:
            raise HttpError(500, f"Could not attach to network {reference}: {text_of(refusal)}") from None
        return guest, dict(wires)

    async def _forget(self, guest_id: str, *networks: str) -> None:
        """Give places up. What the leader cannot be told now, the agent finds and tells later."""
        try:
            await self._site.local.detach(guest_id, networks)
        except Refusal as refusal:
            log.info("a container's place in a network is given up later: %s", refusal)

    async def _ours(self, reference: str) -> str:
        """What the cluster is asked for (an id or a name); "" where the network is the Engine's, or surely
        nobody's."""
        reply = await self._get(f"/networks/{quote(reference, safe='')}")
        if reply.status == 200:
            found = _object(reply.body)
            return str(found["Name"]) if LABEL in (found.get("Labels") or {}) else ""
        if self._site.local.control is None:
            return reference  # only a manager knows
        world = await self._site.control().world()
        with suppress(HttpError):
            return refs.network(world, reference).id
        return ""

    async def _counterpart(self, reference: str) -> Json | None:
        """The Engine's network for one of ours, called as users or the Engine call it; None without one."""
        reply = await self._get(f"/networks/{quote(reference, safe='')}")
        if reply.status == 200:
            found = _object(reply.body)
            return found if LABEL in (found.get("Labels") or {}) else None
        label = quote(msgspec.json.encode({"label": [f"{LABEL}={reference}"]}).decode(), safe="")
        listed = await self._get(f"/networks?filters={label}")
        if listed.status != 200:
            return None
        known = msgspec.json.decode(listed.body, type=list[Json])
        return next((one for one in known if (one.get("Labels") or {}).get(LABEL) == reference), None)

    async def _container(self, raw: Json) -> Json | None:
        """The container that is meant; None where the Engine knows none. Raises HttpError for tasks."""
        reference = raw.get("Container")
        if not isinstance(reference, str) or not reference:
            return None
        reply = await self._get(f"/containers/{quote(reference, safe='')}/json")
        if reply.status != 200:
            return None
        found = _object(reply.body)
        if TASK_LABEL in ((found.get("Config") or {}).get("Labels") or {}):
            raise HttpError(
                403,
                f"container {reference} is a task of the cluster: change its service's networks instead, "
                "with 'service update --network-add' or '--network-rm'",
            )
        return found

    # ------------------------------------------------------------ the Engine's part

    @staticmethod
    def _path(request: web.Request, network: str) -> str:
        """The same request for the Engine's counterpart of the network."""
        version = request.match_info.get("version")
        verb = request.path.rsplit("/", 1)[1]
        return f"{f'/v{version}' if version else ''}/networks/{quote(network, safe='')}/{verb}"

    async def _get(self, path: str) -> Reply:
        try:
            return await self._site.engine.request("GET", path, timeout=SECONDS)
        except EngineAbsentError as error:
            raise HttpError(503, ENGINE_AWAY.format(reason=error)) from None

    async def _engine(self, request: web.Request, data: bytes = b"", path: str = "") -> Reply:
        return await handed_on(self._site, request, data, path)


def _called(place: Attachment, called: str) -> Attachment:
    return msgspec.structs.replace(place, network_id=called)


def _object(data: bytes) -> Json:
    """The JSON object; an empty one where it is none: the Engine has its own words for that."""
    try:
        return body.parse_object(data)
    except HttpError:
        return {}
