"""A node inside a cluster: its wire, its agent, its manager if it is one, and its certificate.

What belongs here: starting and stopping these together, following the role that the cluster gives, renewal.
What does not: how a node enters or leaves a cluster (node.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from msgspec.structs import replace

from swarmpy.agent.agent import Agent
from swarmpy.agent.guests import GuestKeeper
from swarmpy.manager.manager import Manager
from swarmpy.manager.store import Store
from swarmpy.model import messages as m
from swarmpy.model.errors import Unavailable
from swarmpy.model.ids import seat_id
from swarmpy.node import addresses, record
from swarmpy.node.record import Record
from swarmpy.node.renewal import Renewal
from swarmpy.node.toolbox import Toolbox
from swarmpy.pki.identity import Identity, NodeIdentity
from swarmpy.pki.rpc import Revoked
from swarmpy.pki.seal import Sealing
from swarmpy.ports import Body, Control, LogError, LogRole, RefusedError, Wire, WireError
from swarmpy.state.snapshot import Snapshot

logger = logging.getLogger(__name__)

LOG_FOLDERS = ("raft/journal", "raft/snapshot")
LOG_GONE = (
    "the journal of this manager is missing from its state directory, and with it what it promised and "
    "whom it voted for: it must not take part again under this seat; demote this node and promote it again "
    "('swarmpy node demote', 'swarmpy node promote' on another manager), or, where it was the only manager, "
    "put the directory back from a backup or leave with --force"
)
RETRY = 1.0
"""Seconds between attempts to take a seat among the managers, or to start a log that stopped."""


class Member:
    """See the file's charter. `removed` is called when the cluster no longer knows this node."""

    def __init__(
        self,
        tools: Toolbox,
        kept: Record,
        identity: NodeIdentity,
        sealer: Sealing,
        removed: Callable[[], Awaitable[None]],
    ) -> None:
        self._tools, self.record, self._sealer, self._removed = tools, kept, sealer, removed
        self._identity = Identity(identity)
        self._revoked = Revoked()
        self._wire: Wire = tools.wire(self._identity, self._revoked)
        self._agent = Agent(
            node_id=kept.node_id,
            cluster_id=kept.cluster_id,
            engine=tools.engine,
            sockets=tools.sockets,
            wire=self._wire,
            disk=tools.disk,
            clock=tools.clock,
            entropy=tools.entropy,
            managers=list(kept.managers),
            address=addresses.split(kept.advertise, addresses.PORT)[0],
            fabric=tools.fabric,
            call_leader=self._call_leader,
            on_cluster=self._on_cluster,
            on_removed=self._on_removed,
        )
        self._renewal = Renewal(tools, self._identity, sealer, self._wire, self._known)
        self._manager: Manager | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._role_changed = asyncio.Event()
        self._role_taken = asyncio.Event()
        self._role = self._identity.certificate.role
        self._ready = asyncio.Event()
        self._managers_changed = asyncio.Event()
        self._listening = False
        self._problems: dict[str, str] = {}
        """By what has them."""

    # ------------------------------------------------------------ what others see

    @property
    def is_manager(self) -> bool:
        """Whether this node is a manager, also one that is not at its post yet, or cannot be."""
        return self._manager is not None or self._identity.certificate.role == "manager"

    @property
    def problem(self) -> str:
        """What keeps this node from doing its part; "" when nothing does."""
        failure = self._manager.log.failure if self._manager else None
        return failure or next(iter(self._problems.values()), "")

    @property
    def control(self) -> Control | None:
        """The control plane of this node's manager."""
        return self._manager.control if self._manager else None

    @property
    def guests(self) -> GuestKeeper | None:
        """The containers of this node's users in networks of the cluster."""
        return self._agent.guests

    @property
    def managers(self) -> tuple[tuple[str, str], ...]:
        """(node id, address) of the managers known."""
        return tuple(self._known())

    async def _call_leader(self, method: str, body: Body) -> Body:
        return await self._renewal.call_leader(method, body)

    def _known(self) -> list[tuple[str, str]]:
        return list(self._agent.managers) or list(self.record.managers)

    # ------------------------------------------------------------ life

    async def start(self, engine: Mapping[str, Any], *, bootstrap: bool) -> None:
        """Take part for the first time. `engine`: what the Engine said of itself just now. Raises OSError,
        ValueError or WireError with a sentence."""
        try:
            if self._identity.certificate.role == "manager":
                await self._start_manager(bootstrap=bootstrap)
            await self._agent.start(engine)
        except BaseException:
            await self.stop()
            raise
        self._spawn(self._follow_role(), "role")
        self._spawn(self._renewal.run(), "renewal")
        self._spawn(self._keep_managers(), "managers")

    async def resume(self) -> None:
        """Take part again after a restart. What keeps the manager from its part is tried again until it
        works (`problem` says what it is), and meanwhile the agent does its own."""
        self._role_changed.set()
        following = self._spawn(self._follow_role(), "role")
        taken = asyncio.ensure_future(self._role_taken.wait())
        await asyncio.wait({following, taken}, return_when=asyncio.FIRST_COMPLETED)
        taken.cancel()
        if following.done():
            following.result()  # a bug: it never ends by itself
        if not await self._start_agent():
            self._spawn(self._start_agent_later(), "agent")
        self._spawn(self._renewal.run(), "renewal")
        self._spawn(self._keep_managers(), "managers")

    async def _start_agent(self) -> bool:
        """Whether the agent runs; `problem` says why it does not."""
        try:
            await self._agent.start()
        except OSError as error:
            if self._problems.get("agent") != str(error):
                logger.error("the agent of this node does not start yet: %s", error)
            self._problems["agent"] = str(error)
            return False
        self._problems.pop("agent", None)
        return True

    async def _start_agent_later(self) -> None:
        """A kernel that is short of memory for a moment costs no node its place."""
        while True:
            await asyncio.sleep(RETRY)
            if await self._start_agent():
                return

    async def stop(self) -> None:
        """Stop; containers stay as they are."""
        current = asyncio.current_task()
        tasks = [task for task in self._tasks if task is not current]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._agent.stop()
        await self._tools.disk.work(_nothing)  # what was being written is on the disk now, not after a wipe
        if self._manager is not None:
            await self._manager.stop()
        await self._wire.stop()

    async def wipe(self) -> None:
        """Stop, and stop and remove all containers of the cluster on this node."""
        await self._agent.wipe()
        await self.stop()

    async def goodbye(self) -> None:
        """Tell the leader that this node leaves; best effort."""
        with suppress(WireError, RefusedError, TimeoutError):
            async with asyncio.timeout(5):
                await self._renewal.call_leader("node.leave", {"node_id": self.record.node_id})

    async def settled(self) -> None:
        """Return once this node is registered; a manager also has its seat."""
        if self._identity.certificate.role == "manager":
            await self._ready.wait()

    async def recover_alone(self) -> None:
        """Begin anew as the only manager, keeping the committed state (--force-new-cluster)."""
        if self._manager is None:
            raise Unavailable("this node is not a manager")
        await self._manager.recover_alone()

    # ------------------------------------------------------------ manager

    async def _start_manager(self, *, bootstrap: bool, patient: bool = False) -> None:
        if self.record.logged and not self._log_on_disk():
            raise ValueError(LOG_GONE)
        store = Store()
        store.watch(self._on_world)
        seat = seat_id(self.record.node_id, self.record.seat)
        log = self._tools.log(
            seat, self.record.advertise, self._wire, store, self._sealer, bootstrap=bootstrap
        )
        manager = Manager(
            seat,
            self.record.advertise,
            log,
            store,
            self._wire,
            self._tools.clock,
            self._tools.entropy,
        )
        manager.register()
        if not self._listening:
            self._agent.listens(addresses.split(self.record.listen, addresses.PORT)[1])
            await self._wire.start(self.record.listen)
            self._listening = True
        await manager.start(patient=patient)
        try:
            await self._remember_log(manager)
        except OSError:
            await manager.stop()
            raise
        self._manager = manager
        if not bootstrap:
            self._spawn(self._take_seat(manager), "seat")

    def _log_on_disk(self) -> bool:
        return any(name.endswith(".log") for name in self._tools.disk.list(LOG_FOLDERS[0]))

    async def _remember_log(self, manager: Manager) -> None:
        """From now on this seat has a log, and is never taken up without it."""
        if self.record.logged or manager.log.failure is not None:
            return
        disk, kept = self._tools.disk, replace(self.record, logged=True)
        await disk.work(lambda: record.save(disk, kept))
        self.record = kept

    def _on_world(self, before: Snapshot, after: Snapshot) -> None:
        if after.cluster is not None and before.cluster is not after.cluster:
            self._revoked.replace((entry.node_id for entry in after.cluster.revoked), ())

    async def _take_seat(self, manager: Manager) -> None:
        """Ask the leader for a seat until it is taken; a manager that has one needs no asking."""
        unseated = (LogRole.LEARNER, LogRole.STOPPED)
        while self._manager is manager and (role := manager.log.status().role) in unseated:
            if role is LogRole.STOPPED:
                await asyncio.sleep(RETRY)
                continue
            try:
                await self._renewal.call_leader("control.join_raft", self._seat(), timeout=30.0)
            except (WireError, RefusedError, LogError) as error:
                logger.info("no seat among the managers yet: %s", error)
                await asyncio.sleep(RETRY)
        self._ready.set()

    def _seat(self) -> Body:
        seat = seat_id(self.record.node_id, self.record.seat)
        return {"node_id": self.record.node_id, "seat": seat, "address": self.record.advertise}

    # ------------------------------------------------------------ what the cluster says

    def _on_cluster(self, message: m.Welcome | m.Cluster) -> None:
        self._role = message.node_role
        self._role_changed.set()
        managers = tuple((one.node_id, one.address) for one in message.managers)
        if managers and managers != self.record.managers:
            self.record = replace(self.record, managers=managers)
            self._managers_changed.set()

    async def _keep_managers(self) -> None:
        """Write down who the managers are whenever that changes: after a restart they are the way back, and
        those that were known at the join may all be gone by then."""
        disk = self._tools.disk
        while True:
            await self._managers_changed.wait()
            self._managers_changed.clear()
            try:
                await disk.work(lambda: record.save(disk, self.record))
            except OSError as error:
                logger.warning("the managers' addresses cannot be written down yet: %s", error)
                self._managers_changed.set()
                await asyncio.sleep(RETRY)

    async def _on_removed(self) -> None:
        self._spawn(self._leave_involuntarily(), "removed")

    async def _leave_involuntarily(self) -> None:
        await self._removed()

    async def _follow_role(self) -> None:
        """Whenever the role may have changed, make of this node what it says; again until that works."""
        while True:
            await self._role_changed.wait()
            self._role_changed.clear()
            try:
                await self._take_role()
            except (OSError, ValueError, WireError) as error:
                if self._problems.get("role") != str(error):
                    logger.error("this node cannot take up its role: %s", error)
                self._problems["role"] = str(error)
                self._role_taken.set()
                await asyncio.sleep(RETRY)
                self._role_changed.set()
            else:
                self._problems.pop("role", None)
                self._role_taken.set()

    async def _take_role(self) -> None:
        """Renew the certificate when the role changed, then start or stop the manager."""
        if self._role != self._identity.certificate.role:
            await self._renewal.renew_until_role(self._role)
        role = self._identity.certificate.role
        if role == "manager" and self._manager is None:
            logger.info("this node is a manager")
            await self._start_manager(bootstrap=False, patient=True)
        elif role == "worker" and (self._manager is not None or self.record.logged):
            logger.info("this node is a worker now")
            if self._manager is not None:
                await self._manager.stop()
            await self._give_up_seat()
            self._manager = None

    async def _give_up_seat(self) -> None:
        """Forget the log, and remember that its seat is spent."""
        disk = self._tools.disk
        kept = replace(self.record, seat=self.record.seat + 1, logged=False)

        def forget() -> None:
            record.save(disk, kept)
            for folder in LOG_FOLDERS:
                disk.mkdir(folder)  # where it was lost, too
                for name in disk.list(folder):
                    disk.unlink(f"{folder}/{name}")
                disk.sync_dir(folder)

        await disk.work(forget)
        self.record = kept

    def _spawn(self, work: Awaitable[None], name: str) -> asyncio.Task[None]:
        async def run() -> None:
            try:
                await work
            except (OSError, ValueError, WireError) as error:
                logger.error("%s failed: %s", name, error)
                self._problems[name] = str(error)

        task = asyncio.create_task(run(), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _nothing() -> None:
    """A job that only waits for the jobs before it."""
