"""A manager: the log, the world, and, while it leads, the services of the leader.

What belongs here: putting the manager's shells together, serving their calls on the wire, following the
leadership. What does not: any of their work; joining and leaving clusters (node.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from swarmpy.manager.certificates import CertificateService
from swarmpy.manager.control import ManagerControl
from swarmpy.manager.dispatcher import Dispatcher, managers_of
from swarmpy.manager.doctor import NetDoctor
from swarmpy.manager.guests import GuestService
from swarmpy.manager.logs import LogBroker
from swarmpy.manager.roles import RoleService
from swarmpy.manager.store import Store
from swarmpy.manager.writer import Writer
from swarmpy.model import messages as m
from swarmpy.model.commands import Leave
from swarmpy.model.errors import Refusal
from swarmpy.model.ids import node_of
from swarmpy.model.lifecycle import Role
from swarmpy.ports import (
    Body,
    CallHandler,
    Channel,
    ChannelHandler,
    Clock,
    Entropy,
    Log,
    LogError,
    LogRole,
    LogStatus,
    Peer,
    RefusedError,
    Wire,
)
from swarmpy.state.snapshot import Snapshot

logger = logging.getLogger(__name__)

AGAIN = 0.2
"""Seconds before the leader's services are taken up again after one of them failed."""
RESTART = 2.0
"""Seconds between attempts to start a log that stopped by itself."""
RESTART_DAMAGED = 30.0
"""The same for a log that is damaged: it reads all of it each time, and only people can mend it."""


class Manager:
    """`seat` is this manager's id in the log, `address` (HOST:PORT) how others dial it; `store` is the
    machine that `log` drives."""

    def __init__(
        self,
        seat: str,
        address: str,
        log: Log,
        store: Store,
        wire: Wire,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        self._seat, self._log, self._store, self._wire = seat, log, store, wire
        self._writer = Writer(log, store, clock)
        submit = self._writer.submit
        self._dispatcher = Dispatcher(submit, self._world, clock, log.status)
        self._roles = RoleService(seat, log, store, submit)
        self._certificates = CertificateService(submit, self._world, clock, entropy)
        self._guests = GuestService(submit, self._world)
        self._broker = LogBroker(store, entropy, address, self._call_leader)
        self._broker.sessions = lambda: self._dispatcher.sessions
        self._doctor = NetDoctor(
            entropy,
            address,
            self._call_leader,
            lambda wanted: self._broker.tell_all(wanted, self._dispatcher.sessions),
        )
        self._doctor.sessions = lambda: self._dispatcher.sessions
        self.control = ManagerControl(log, store, self._writer, wire, entropy, self._broker, self._doctor)
        self._task: asyncio.Task[None] | None = None
        self._unwatch: Callable[[], None] | None = None

    @property
    def log(self) -> Log:
        """The replicated log."""
        return self._log

    @property
    def store(self) -> Store:
        """The world on this manager."""
        return self._store

    def register(self) -> None:
        """Serve the manager's methods; must be called before the wire starts listening."""
        on_call, on_channel = self._wire.on_call, self._wire.on_channel
        on_call("ca.bundle", self._bundle)
        on_call("join", self._leading(self._certificates.join))
        on_call("ca.renew", self._leading(self._certificates.renew))
        on_call("control.submit", self._for_managers(self.control.serve_submit))
        on_call("control.read_index", self._for_managers(self.control.serve_read_index))
        on_call("control.status", self._for_managers(self.control.serve_status))
        on_call("control.join_raft", self._for_managers(self._roles.join_raft))
        on_call("logs.subscribe", self._for_managers(self._broker.serve_subscribe))
        on_call("net.examine", self._leading(self._doctor.serve_examine))
        on_call("net.told", self._leading(self._doctor.serve_told))
        on_call("net.report", self._doctor.serve_report)
        on_call("cluster.managers", self._managers)
        on_call("node.attach", self._leading(self._guests.attach))
        on_call("node.detach", self._leading(self._guests.detach))
        on_call("node.leave", self._leading(self._leave))
        on_call("node.probe", _probe)
        on_channel("session", self._leading_channel(self._dispatcher.serve))
        on_channel("logs.publish", self._broker.serve_publish)

    async def start(self, *, patient: bool = False) -> None:
        """Recover the log and take part. Raises what the log's start raises; `patient` tries again in the
        background instead, and the log's `failure` says why it does not run yet."""
        self._unwatch = self._store.watch(self._dispatcher.moved)
        try:
            await self._log.start()
        except (OSError, ValueError):
            if not patient:
                raise
        self._task = asyncio.create_task(self._follow_leadership(), name="leadership")

    async def recover_alone(self) -> None:
        """Begin anew with this manager as the only one. Raises LogError where there is nothing to keep."""
        await self.stop()
        try:
            await self._log.recover_alone()
        finally:
            await self.start(patient=True)

    async def stop(self) -> None:
        """Stop leading and stop the log."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._unwatch is not None:
            self._unwatch()
            self._unwatch = None
        await self._log.stop()

    # ------------------------------------------------------------ leadership

    async def _follow_leadership(self) -> None:
        """Run the leader's services whenever this manager leads, and the log whenever it can run."""
        while True:
            try:
                await self._follow_log()
            except LogError as error:
                logger.warning("this manager does not take part: %s", error)
                await self._restart_log(str(error))

    async def _follow_log(self) -> None:
        """Follow the leadership until the log stops. Raises LogError then."""
        while True:
            status = self._log.status()
            while status.role is not LogRole.LEADER:
                status = await self._log.wait_status(status)
            logger.info("leading in term %d", status.term)
            reign = asyncio.create_task(self._reign(), name=f"reign-{status.term}")
            try:
                await self._while_leading(status, reign)
                if reign.done():  # it failed while this manager leads: not again in the same instant
                    await asyncio.sleep(AGAIN)
            finally:
                reign.cancel()
                await asyncio.gather(reign, return_exceptions=True)
                logger.info("no longer leading in term %d", status.term)

    async def _while_leading(self, status: LogStatus, reign: asyncio.Task[None]) -> None:
        term = status.term
        while status.role is LogRole.LEADER and status.term == term and not reign.done():
            changed = asyncio.ensure_future(self._log.wait_status(status))
            await asyncio.wait({changed, reign}, return_when=asyncio.FIRST_COMPLETED)
            if changed.done():
                status = changed.result()
            else:
                changed.cancel()
                await asyncio.gather(changed, return_exceptions=True)

    async def _restart_log(self, told: str) -> None:
        """Start the log again as soon as that works: a full disk has space again, for instance."""
        pause = RESTART
        while True:
            await asyncio.sleep(pause)
            try:
                await self._log.stop()
                await self._log.start()
            except (OSError, ValueError, LogError) as error:
                pause = RESTART_DAMAGED if isinstance(error, ValueError) else RESTART
                if str(error) != told:
                    told = str(error)
                    logger.warning("the log of this manager cannot be started yet: %s", told)
            else:
                logger.info("the log of this manager runs again")
                return

    async def _reign(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._writer.lead(), name="writer")
                await self._writer.opened.wait()
                group.create_task(self._dispatcher.run(), name="dispatcher")
                group.create_task(self._roles.run(), name="roles")
        except* LogError as lost:
            logger.info("leadership ended: %s", lost.exceptions[0])
        except* Exception:
            logger.exception("a service of the leader failed; leadership is taken up anew")

    # ------------------------------------------------------------ small handlers

    def _world(self) -> Snapshot:
        return self._store.world

    def _leader_address(self, status: LogStatus) -> str:
        return next((one.address for one in status.members if one.id == status.leader), "")

    def _not_leading(self) -> RefusedError | None:
        if self._writer.opened.is_set():
            return None
        address = self._leader_address(self._log.status())
        return RefusedError("NotLeader", "this manager is not the leader", {"leader": address})

    def _leading(self, handler: CallHandler) -> CallHandler:
        """The handler, for leaders only: others point to the leader."""

        async def serve(peer: Peer, body: Body) -> Body:
            refusal = self._not_leading()
            if refusal is not None:
                raise refusal
            return await handler(peer, body)

        return serve

    def _for_managers(self, handler: CallHandler) -> CallHandler:
        """The handler, on the leader, for nodes that are managers now.

        A certificate says what its node was when it was issued: that of a demoted manager is in time for
        months. The leader has applied everything that is committed, so it knows better. The log itself is not
        guarded like this but by its seats: a manager that lags behind must hear the leader to catch up.
        """

        async def serve(peer: Peer, body: Body) -> Body:
            node = self._store.world.nodes.get(peer.node_id)
            if node is None or node.role is not Role.MANAGER:
                raise RefusedError(
                    "PermissionDenied",
                    f"node {peer.node_id} is no manager of this cluster (any more): promote it first",
                )
            return await handler(peer, body)

        return self._leading(serve)

    def _leading_channel(self, handler: ChannelHandler) -> ChannelHandler:
        async def serve(channel: Channel, hello: Body) -> None:
            refusal = self._not_leading()
            if refusal is not None:
                raise refusal
            await handler(channel, hello)

        return serve

    async def _call_leader(self, method: str, body: Body) -> Body:
        """Call the leader, which may be this manager."""
        status = self._log.status()
        if status.leader == self._seat:
            local: dict[str, Callable[[Peer, Body], Awaitable[Body]]] = {
                "logs.subscribe": self._broker.serve_subscribe,
                "net.examine": self._doctor.serve_examine,
                "net.told": self._doctor.serve_told,
            }
            return await local[method](Peer(node_of(self._seat), "manager", "", ""), body)
        address = self._leader_address(status)
        if not address:
            raise RefusedError("Unavailable", "there is no leader at the moment")
        return await self._wire.call(address, method, body)

    async def _bundle(self, _peer: Peer, _body: Body) -> Body:
        cluster = self._store.world.cluster
        if cluster is None:
            raise RefusedError("Unavailable", "the cluster is still being initialised; try again")
        return {"bundle": cluster.root_cert.encode()}

    async def _managers(self, _peer: Peer, _body: Body) -> Body:
        leader = node_of(self._log.status().leader or "")
        return {"leader": leader, "managers": [m.to_body(one) for one in managers_of(self._store.world)]}

    async def _leave(self, peer: Peer, _body: Body) -> Body:
        try:
            await self._writer.submit(Leave(node=peer.node_id))
        except Refusal as refusal:
            raise RefusedError(type(refusal).__name__, refusal.message) from None
        return {}


async def _probe(_peer: Peer, _body: Body) -> Body:
    return {}
