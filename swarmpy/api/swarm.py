"""The cluster as a whole: init, join, leave, inspect, update, unlock.

What does not belong here: how a cluster begins or a node joins (the daemon, behind ports.LocalNode).
"""

from __future__ import annotations

import msgspec
from aiohttp import web

from swarmpy.api import body, render
from swarmpy.api.errors import HttpError, plain
from swarmpy.api.site import LOCKED, NO_SWARM, Route, Site
from swarmpy.model.commands import UpdateCluster
from swarmpy.model.objects import Cluster
from swarmpy.model.specs import compact, swarm_view
from swarmpy.pki import ca, tokens
from swarmpy.ports import InitRequest, JoinRequest
from swarmpy.state.snapshot import Snapshot

NOT_MEMBER = "This node is not part of a swarm"
MEMBER = (
    'This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join another one.'
)
NOT_LOCKED = "swarm is not locked"
LEAVE_LOCKED = (
    "Swarm is encrypted and locked. Please unlock it first or use `--force` to ignore this message."
)
LAST_MANAGER = (
    "You are attempting to leave the swarm on a node that is participating as a manager. "
    "Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message. "
)
ONE_MANAGER = (
    "You are attempting to leave the swarm on a node that is participating as a manager. {danger}"
    "The only way to restore a swarm that has lost consensus is to reinitialize it with "
    "`--force-new-cluster`. Use `--force` to suppress this message."
)


class _Init(msgspec.Struct, frozen=True, rename="pascal"):
    listen_addr: str = ""
    advertise_addr: str = ""
    data_path_addr: str = ""
    data_path_port: int = 0
    default_addr_pool: tuple[str, ...] = ()
    subnet_size: int = 0
    force_new_cluster: bool = False
    auto_lock_managers: bool = False
    availability: str = ""
    spec: dict[str, object] = {}


class _Join(msgspec.Struct, frozen=True, rename="pascal"):
    listen_addr: str = ""
    advertise_addr: str = ""
    data_path_addr: str = ""
    remote_addrs: tuple[str, ...] = ()
    join_token: str = ""
    availability: str = ""


class Swarm:
    """Handlers of /swarm."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def routes(self) -> list[Route]:
        """Method, path and handler of each endpoint."""
        return [
            ("GET", "/swarm", self.inspect),
            ("POST", "/swarm/init", self.init),
            ("POST", "/swarm/join", self.join),
            ("POST", "/swarm/leave", self.leave),
            ("POST", "/swarm/update", self.update),
            ("GET", "/swarm/unlockkey", self.unlock_key),
            ("POST", "/swarm/unlock", self.unlock),
        ]

    async def inspect(self, _request: web.Request) -> web.Response:
        """GET /swarm."""
        return render.respond(render.cluster_with_tokens(_cluster(await self._site.control().world())))

    async def init(self, request: web.Request) -> web.Response:
        """POST /swarm/init: answers the node's id as a JSON string."""
        raw = await body.read_object(request)
        asked = body.convert(_Init, raw)
        _address("ListenAddr", asked.listen_addr)
        text = compact(asked.spec)
        with plain():
            view = swarm_view(text)
        if view.name not in {"", "default"}:
            raise HttpError(400, 'swarm spec must be named "default"')
        if self._site.local.view().state != "inactive" and not asked.force_new_cluster:
            raise HttpError(503, MEMBER)
        wish = InitRequest(
            listen_address=asked.listen_addr,
            advertise_address=asked.advertise_addr,
            data_path_address=asked.data_path_addr,
            data_path_port=asked.data_path_port,
            address_pools=asked.default_addr_pool,
            subnet_size=asked.subnet_size,
            force_new_cluster=asked.force_new_cluster,
            auto_lock=asked.auto_lock_managers or view.encryption_config.auto_lock_managers,
            availability=_availability(asked.availability),
            spec=text,
        )
        with plain():
            return render.respond(await self._site.local.init(wish))

    async def join(self, request: web.Request) -> web.Response:
        """POST /swarm/join."""
        asked = body.convert(_Join, await body.read_object(request))
        _address("ListenAddr", asked.listen_addr)
        if not asked.remote_addrs:
            raise HttpError(400, "at least 1 RemoteAddr is required to join")
        for address in asked.remote_addrs:
            _address("remoteAddr", address)
        if self._site.local.view().state != "inactive":
            raise HttpError(503, MEMBER)
        wish = JoinRequest(
            remote_addresses=asked.remote_addrs,
            token=asked.join_token,
            listen_address=asked.listen_addr,
            advertise_address=asked.advertise_addr,
            data_path_address=asked.data_path_addr,
            availability=_availability(asked.availability),
        )
        with plain():
            await self._site.local.join(wish)
        return web.Response()

    async def leave(self, request: web.Request) -> web.Response:
        """POST /swarm/leave."""
        force = body.loose_flag(request, "force")
        view = self._site.local.view()
        if view.state == "inactive":
            raise HttpError(503, NOT_MEMBER)
        if view.state == "locked" and not force:
            raise HttpError(503, LEAVE_LOCKED)
        if view.is_manager and not force:
            raise HttpError(503, await self._manager_warning())
        with plain(FailedPrecondition=503):
            await self._site.local.leave(force=force)
        return web.Response()

    async def _manager_warning(self) -> str:
        """What leaving would do to the cluster, for a manager who did not say `--force`."""
        control = self._site.local.control
        reachable, seats = 0, 0
        if control is not None:
            with plain():
                world = await control.world()
                heard = await control.managers()
            held = [node.id for node in world.nodes if node.manager_address]
            seats = len(held)
            reachable = sum(key in heard.reachable or key == heard.leader for key in held)
        if seats == 1:
            return LAST_MANAGER
        if seats and reachable - 1 <= seats // 2:
            return ONE_MANAGER.format(
                danger=f"Removing this node leaves {reachable - 1} managers out of {seats}. "
                "Without a Raft quorum your swarm will be inaccessible. "
            )
        return ONE_MANAGER.format(danger="Doing so may lose the consensus of your cluster. ")

    async def update(self, request: web.Request) -> web.Response:
        """POST /swarm/update: the whole spec is replaced; tokens rotate where asked."""
        raw = await body.read_object(request)
        version = body.version_index(request, "swarm")
        worker = body.strict_flag(request, "rotateWorkerToken")
        manager = body.strict_flag(request, "rotateManagerToken")
        key = body.strict_flag(request, "rotateManagerUnlockKey")
        text = compact(raw)
        with plain():
            view = swarm_view(text)
        if view.name not in {"", "default"}:
            raise HttpError(400, 'swarm spec must be named "default"')
        cluster = _cluster(await self._site.control().world())
        draw = self._site.entropy.token
        digest = ca.digest(cluster.root_cert.encode())
        locks = view.encryption_config.auto_lock_managers and not cluster.unlock_key
        command = UpdateCluster(
            request_id=self._site.request_id(request),
            version=version,
            spec=text,
            new_worker_token=tokens.make_token(digest, draw) if worker else "",
            new_manager_token=tokens.make_token(digest, draw) if manager else "",
            new_unlock_key=tokens.make_unlock_key(draw) if key or locks else "",
        )
        await self._site.submit(command)
        return web.Response()

    async def unlock_key(self, _request: web.Request) -> web.Response:
        """GET /swarm/unlockkey: "" where autolock is off."""
        cluster = _cluster(await self._site.control().world())
        return render.respond({"UnlockKey": cluster.unlock_key})

    async def unlock(self, request: web.Request) -> web.Response:
        """POST /swarm/unlock."""
        await body.read_object(request)
        state = self._site.local.view().state
        if state == "inactive":
            raise HttpError(503, NO_SWARM)
        if state != "locked":
            raise HttpError(409, NOT_LOCKED)
        raise HttpError(
            501, f"{LOCKED} This version of swarmpy cannot unlock it while it runs: leave with --force"
        )


def _cluster(world: Snapshot) -> Cluster:
    if world.cluster is None:
        raise HttpError(503, "the cluster is still being initialised; try again")
    return world.cluster


def _address(what: str, text: str) -> None:
    if not text.strip():
        raise HttpError(400, f'invalid {what} "{text}": invalid empty address')


def _availability(text: str) -> str:
    word = text.lower() or "active"
    if word not in {"active", "pause", "drain"}:
        raise HttpError(400, f'invalid Availability: "{text}"')
    return word
