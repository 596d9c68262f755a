"""A node and its membership: ports.LocalNode over a Toolbox.

What belongs here: init, join, leave, recovery after a restart, becoming manager or worker when the cluster
says so. What does not: adapters (the toolbox brings them), HTTP (api/), any decision of the cluster.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from swarmpy.agent.guests import GuestKeeper
from swarmpy.model.commands import InitCluster
from swarmpy.model.errors import InvalidArgument, Unavailable, refusal_from
from swarmpy.model.objects import Guest
from swarmpy.node import addresses, begin, record
from swarmpy.node.member import Member
from swarmpy.node.record import Record
from swarmpy.node.toolbox import Toolbox
from swarmpy.pki.errors import PkiError
from swarmpy.pki.identity import NodeIdentity, make_key_and_csr
from swarmpy.plan.container import Wire
from swarmpy.ports import (
    AttachRequest,
    Body,
    Control,
    EngineError,
    InitRequest,
    JoinRequest,
    LogError,
    NodeView,
    RefusedError,
    WireError,
)

logger = logging.getLogger(__name__)

JOIN_PATIENCE = 20.0
"""Seconds that a join call waits before it says that it goes on in the background (Docker)."""
FIRST_PAUSE, LAST_PAUSE = 0.2, 2.0
"""Seconds between attempts to find the leader who lets this node in; doubling, with jitter."""

ALREADY = (
    'This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join another one.'
)
MANAGER_LEAVE = (
    "You are attempting to leave the swarm on a node that is participating as a manager. "
    "Removing this node leaves {left} managers out of {all}. Without a Raft quorum your swarm will be "
    "inaccessible. The only way to restore a swarm that has lost consensus is to reinitialize it with "
    "`--force-new-cluster`. Use `--force` to suppress this message."
)
LAST_MANAGER = (
    "You are attempting to leave the swarm on a node that is participating as a manager. "
    "Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message. "
)


class Node:
    """See the file's charter."""

    def __init__(self, tools: Toolbox) -> None:
        self._tools = tools
        self._member: Member | None = None
        self._busy = asyncio.Lock()
        self._joining: asyncio.Task[None] | None = None
        self._error = ""
        self.on_change: Callable[[], None] = lambda: None
        """Called after this node entered or left a cluster."""

    # ------------------------------------------------------------ ports.LocalNode

    def view(self) -> NodeView:
        """The present state."""
        member = self._member
        if member is None:
            if self._joining is not None and not self._joining.done():
                return NodeView(state="pending", error=self._error)
            return NodeView(state="error" if self._error else "inactive", error=self._error)
        problem = member.problem or self._error
        return NodeView(
            state="error" if problem else "active",
            node_id=member.record.node_id,
            address=addresses.split(member.record.advertise, addresses.PORT)[0],
            is_manager=member.is_manager,
            error=problem,
            managers=member.managers,
            cluster_id=member.record.cluster_id,
        )

    @property
    def control(self) -> Control | None:
        """The control plane; None where this node is no active manager."""
        return self._member.control if self._member else None

    async def start(self) -> None:
        """Take up the membership found on disk, if any. What is wrong with it shows in `view().error`."""
        try:
            found = record.load(self._tools.disk)
            if found is None:
                return
            sealer = self._tools.sealer(create=False)
            identity = NodeIdentity.load(self._tools.disk, sealer)
            self._member = Member(self._tools, found, identity, sealer, self._removed)
            await self._member.resume()
        except (OSError, ValueError, WireError) as error:
            logger.error("this node cannot take up its place in the cluster: %s", error)
            self._error = str(error)

    async def stop(self) -> None:
        """Stop taking part, leaving containers and state as they are."""
        if self._joining is not None:
            self._joining.cancel()
            await asyncio.gather(self._joining, return_exceptions=True)
        if self._member is not None:
            await self._member.stop()

    async def init(self, request: InitRequest) -> str:
        """Begin a cluster."""
        async with self._busy:
            if request.force_new_cluster:
                return await self._start_over()
            self._must_be_outside()
            listening = addresses.listen(request.listen_address, self._tools.interfaces())
            advertised = addresses.advertise(request.advertise_address, listening, self._tools.interfaces())
            data = addresses.data_path(request.data_path_address, self._tools.interfaces())
            engine = await self._engine_answers()
            made = begin.cluster(self._tools.clock, self._tools.entropy, request)
            kept = Record(
                node_id=made.node_id,
                cluster_id=made.cluster.id,
                listen=addresses.join(*listening),
                advertise=addresses.join(*advertised),
                managers=((made.node_id, addresses.join(*advertised)),),
            )
            try:
                await self._enter(kept, made.identity, engine, bootstrap=True)
                await self._found(begin.command(made, request, kept, advertised[0], data, _name(engine)))
            except BaseException:
                await self._withdraw()
                raise
            self._changed()
            return made.node_id

    async def join(self, request: JoinRequest) -> None:
        """Join a cluster."""
        async with self._busy:
            self._must_be_outside()
            if not request.remote_addresses:
                raise InvalidArgument("at least 1 RemoteAddr is required to join")
            if not request.token:
                raise InvalidArgument(
                    "a join token is required: ask a manager with 'docker swarm join-token worker'"
                )
            engine = await self._engine_answers()
            self._error = ""
            self._joining = asyncio.create_task(self._join(request, engine), name="join")
            done, _ = await asyncio.wait({self._joining}, timeout=JOIN_PATIENCE)
        if not done:
            self._joining.add_done_callback(_failed_later)
            raise Unavailable(
                "Timeout was reached before node joined. The attempt to join the swarm will continue in the "
                'background. Use the "docker info" command to see the current swarm status of your node.'
            )
        self._joining.result()

    async def attach(self, request: AttachRequest) -> tuple[Guest, Mapping[str, Wire]]:
        """Places in networks for a container of this node."""
        return await self._guests().attach(request)

    def arrived(self, guest_id: str) -> None:
        """The container is made, or will not be."""
        if self._member is not None and self._member.guests is not None:
            self._member.guests.arrived(guest_id)

    async def detach(self, guest_id: str, networks: tuple[str, ...] = ()) -> None:
        """The container gives up its places."""
        await self._guests().detach(guest_id, networks)

    def _guests(self) -> GuestKeeper:
        guests = self._member.guests if self._member is not None else None
        if guests is None:
            raise Unavailable("This node is not part of a swarm, or has no networks of one")
        return guests

    async def leave(self, *, force: bool = False) -> None:
        """Leave: say goodbye, stop and remove the cluster's containers, forget everything."""
        if self._joining is not None and not self._joining.done():
            self._joining.cancel()
            await asyncio.gather(self._joining, return_exceptions=True)
        async with self._busy:
            member = self._member
            if member is None:
                if not self._error:
                    raise Unavailable("This node is not part of a swarm")
                self._forget()
                return
            if member.is_manager and not force:
                raise Unavailable(_leave_refusal(member))
            await member.goodbye()
            await member.wipe()
            self._member = None
            self._forget()

    # ------------------------------------------------------------ steps

    def _must_be_outside(self) -> None:
        if self._member is not None or self._error:
            raise Unavailable(ALREADY)
        if self._joining is not None and not self._joining.done():
            raise Unavailable(
                'This node is joining a swarm at the moment; use "docker swarm leave" to give that up first.'
            )

    async def _engine_answers(self) -> Mapping[str, Any]:
        """What the Engine says of itself. Raises Unavailable where it does not answer."""
        try:
            info = await self._tools.engine.info()
        except EngineError as error:
            raise Unavailable(f"this node needs a running Docker Engine: {error}") from None
        if (info.get("Swarm") or {}).get("LocalNodeState", "inactive") != "inactive":
            raise Unavailable(
                "this node's Docker Engine is itself part of a Docker swarm: leave that one first "
                "(with the docker command line, on the Engine's own socket: 'swarm leave --force')"
            )
        return info

    async def _enter(
        self, kept: Record, identity: NodeIdentity, engine: Mapping[str, Any], *, bootstrap: bool
    ) -> None:
        """Write down the membership and take it up."""
        try:
            sealer = self._tools.sealer(create=True)
            identity.save(self._tools.disk, sealer)
            record.save(self._tools.disk, kept)
            self._member = Member(self._tools, kept, identity, sealer, self._removed)
            await self._member.start(engine, bootstrap=bootstrap)
        except (OSError, ValueError, WireError) as error:
            raise Unavailable(f"this node could not take up its place in the cluster: {error}") from error

    async def _found(self, command: InitCluster) -> None:
        if self._member is None or self._member.control is None:
            raise Unavailable("the first manager did not start; see the daemon's log")
        await self._member.control.submit(command)

    async def _start_over(self) -> str:
        if self._member is None or not self._member.is_manager:
            raise Unavailable("--force-new-cluster needs a node that is a manager of the lost cluster")
        try:
            await self._member.recover_alone()
        except (OSError, ValueError, LogError) as error:
            raise Unavailable(f"a new cluster cannot be made of what this manager keeps: {error}") from error
        return self._member.record.node_id

    async def _withdraw(self) -> None:
        """Undo a membership that could not be taken up."""
        if self._member is not None:
            await self._member.stop()
        self._member = None
        self._forget()

    def _forget(self) -> None:
        self._tools.wipe()
        self._error = ""
        self._changed()

    def _changed(self) -> None:
        self.on_change()

    async def _removed(self) -> None:
        """The cluster removed this node: its tasks end, and it says so."""
        member = self._member
        if member is None:
            return
        await member.wipe()
        self._member = None
        self._tools.wipe()
        self._error = "this node was removed from the swarm: leave with --force, then join again"
        self._changed()

    # ------------------------------------------------------------ joining

    async def _join(self, request: JoinRequest, engine: Mapping[str, Any]) -> None:
        try:
            await self._join_once(request, engine)
        except PkiError as error:
            raise InvalidArgument(str(error)) from None
        except RefusedError as refused:
            raise refusal_from(refused.code, refused.message) from None
        except WireError as error:
            raise Unavailable(f"could not join the swarm: {error}") from None
        self._changed()

    async def _join_once(self, request: JoinRequest, engine: Mapping[str, Any]) -> None:
        interfaces = self._tools.interfaces()
        host, port = addresses.split(request.remote_addresses[0], addresses.PORT)
        remote = addresses.join(host, port)
        listening = addresses.listen(request.listen_address, interfaces)
        bundle = await self._tools.fetch_bundle(remote, request.token)
        key, csr = make_key_and_csr()
        body = {
            "token": request.token,
            "csr": csr.decode(),
            "address": self._own_address(request, listening),
            "hostname": _name(engine),
            "availability": request.availability,
            "data_address": addresses.data_path(request.data_path_address, interfaces),
            "listen_port": listening[1],
        }
        reply = await self._ask_leader(remote, bundle, body)
        identity = NodeIdentity(str(reply["certificate"]).encode(), key, bundle)
        identity.check(self._tools.clock.now())
        advertised = (
            addresses.advertise(request.advertise_address, listening, interfaces)
            if request.advertise_address
            else (str(reply["address"]), listening[1])
        )
        kept = Record(
            node_id=str(reply["node_id"]),
            cluster_id=str(reply["cluster_id"]),
            listen=addresses.join(*listening),
            advertise=addresses.join(*advertised),
            managers=tuple((str(one["node_id"]), str(one["address"])) for one in reply["managers"]),
        )
        try:
            await self._enter(kept, identity, engine, bootstrap=False)
        except BaseException:
            await self._withdraw()
            raise
        if self._member is not None:
            await self._member.settled()

    def _own_address(self, request: JoinRequest, listening: tuple[str, int]) -> str:
        """What this node says of its address: "" lets the manager use what it sees."""
        if not request.advertise_address:
            return ""
        return addresses.advertise(request.advertise_address, listening, self._tools.interfaces())[0]

    async def _ask_leader(self, remote: str, bundle: bytes, body: Body) -> Body:
        """Ask for a certificate, following the way to the leader; waits while there is none."""
        address = remote
        deadline = self._tools.clock.monotonic() + JOIN_PATIENCE * 3
        pause = FIRST_PAUSE
        while True:
            told = 0.0
            try:
                return await self._tools.bootstrap_call(address, bundle, "join", body)
            except RefusedError as refused:
                if refused.code not in ("NotLeader", "Unavailable"):
                    raise
                address = str(refused.data.get("leader") or remote)
                told = _told(refused)
                problem: Exception = refused
            except WireError as error:
                if address == remote:
                    raise
                address, problem = remote, error
            if self._tools.clock.monotonic() > deadline:
                raise WireError(f"no leader answered: {problem}")
            # Not all at once where a whole rack waits for the same leader.
            await asyncio.sleep(told + pause * self._tools.entropy.uniform(0.5, 1.0))
            pause = min(2 * pause, LAST_PAUSE)


def _name(engine: Mapping[str, Any]) -> str:
    """The host name that the Engine reports."""
    return str(engine.get("Name", ""))


def _told(refused: RefusedError) -> float:
    """How many seconds the manager asked us to wait."""
    wait = refused.data.get("retry_after")
    return min(float(wait), JOIN_PATIENCE) if isinstance(wait, int | float) and wait > 0 else 0.0


def _leave_refusal(member: Member) -> str:
    count = len(member.managers)
    return LAST_MANAGER if count <= 1 else MANAGER_LEAVE.format(left=count - 1, all=count)


def _failed_later(joining: asyncio.Task[None]) -> None:
    """Joining went on after whoever asked for it had been told so: nobody else hears how it ended."""
    if not joining.cancelled() and (error := joining.exception()) is not None:
        logger.warning("this node did not join: %s", error)
