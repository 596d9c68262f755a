"""A node's agent: the worker, the session, the log sender, and what the node says of itself.

What belongs here: putting them together, the node's description. What does not: their work.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from msgspec.structs import replace

from swarmpy.agent import journal
from swarmpy.agent.doctor import Examined
from swarmpy.agent.fabric import FabricWorker
from swarmpy.agent.guests import CallLeader, GuestKeeper
from swarmpy.agent.joining import Sandbox
from swarmpy.agent.logs import LogSender
from swarmpy.agent.plumber import AgentPlumber
from swarmpy.agent.probing import Probing
from swarmpy.agent.session import NodeRemovedError, Session
from swarmpy.agent.tethers import TetherKeeper
from swarmpy.agent.worker import Worker
from swarmpy.model import messages as m
from swarmpy.model.objects import Description, Resource
from swarmpy.plan.template import NodeFacts
from swarmpy.ports import Clock, Disk, Engine, EngineError, Entropy, FabricPorts, Sockets, Wire

logger = logging.getLogger(__name__)

REFRESH = 20.0
"""Seconds between looks at the Engine's description (Swarm's interval)."""
FIRST_LOOK = 0.5
"""Seconds between attempts to read it for the first time."""
ANEW = 1.0
"""Seconds before a part that failed begins anew."""
WIPE = 60.0
"""Seconds that a leaving node waits for its containers to be gone."""

OnCluster = Callable[[m.Welcome | m.Cluster], None]
OnRemoved = Callable[[], Awaitable[None]]


def description_of(info: Mapping[str, Any]) -> Description:
    """A node's description out of Docker's GET /info."""
    labels = dict(one.partition("=")[::2] for one in info.get("Labels") or ())
    plugins = [
        (kind, str(name))
        for kind, names in sorted((info.get("Plugins") or {}).items())
        for name in names or ()
    ]
    generic: dict[str, Resource] = {}
    for one in info.get("GenericResources") or ():
        generic = _with_resource(generic, one)
    return Description(
        hostname=str(info.get("Name", "")),
        os=str(info.get("OSType", "")),
        architecture=str(info.get("Architecture", "")),
        nano_cpus=int(info.get("NCPU", 0)) * 1_000_000_000,
        memory_bytes=int(info.get("MemTotal", 0)),
        generic=tuple(generic[kind] for kind in sorted(generic)),
        engine_version=str(info.get("ServerVersion", "")),
        engine_labels=labels,
        plugins=tuple(plugins),
    )


def _with_resource(known: dict[str, Resource], one: Mapping[str, Any]) -> dict[str, Resource]:
    discrete, named = one.get("DiscreteResourceSpec"), one.get("NamedResourceSpec")
    if discrete:
        kind = str(discrete["Kind"])
        return {**known, kind: Resource(kind, int(discrete.get("Value", 0)))}
    if named:
        kind = str(named["Kind"])
        names = known[kind].names if kind in known else ()
        return {**known, kind: Resource(kind, 0, (*names, str(named.get("Value", ""))))}
    return known


async def _for_ever(part: Callable[[], Awaitable[None]]) -> None:
    """Run a part of the agent until it returns. A defect in it is told, and it begins anew: a node whose
    worker or session ended quietly would look alive and do nothing."""
    while True:
        try:
            return await part()
        except Exception as error:
            asyncio.get_running_loop().call_exception_handler(
                {"message": "a part of the agent failed and begins anew", "exception": error}
            )
        await asyncio.sleep(ANEW)


class Agent:
    """`managers` are (node id, HOST:PORT) to begin with; `address` is the node's own, "" if others see it
    best. `on_cluster` hears of managers and of the node's role; `on_removed` that the cluster forgot it."""

    def __init__(  # noqa: PLR0913  the node's ports, each by its name
        self,
        *,
        node_id: str,
        cluster_id: str,
        engine: Engine,
        sockets: Sockets,
        wire: Wire,
        disk: Disk,
        clock: Clock,
        entropy: Entropy,
        managers: list[tuple[str, str]],
        address: str = "",
        fabric: FabricPorts | None = None,
        call_leader: CallLeader | None = None,
        on_cluster: OnCluster,
        on_removed: OnRemoved,
    ) -> None:
        self._node_id, self._engine, self._disk = node_id, engine, disk
        self._on_cluster, self._on_removed = on_cluster, on_removed
        self.description = Description()
        self._worker = Worker(cluster_id, engine, sockets, disk, clock, self._facts, self._reported)
        self._session = Session(
            node_id,
            wire,
            entropy,
            managers,
            address,
            lambda: self.description,
            self._heard,
            self._worker.statuses,
        )
        self._fabric: FabricWorker | None = None
        self.guests: GuestKeeper | None = None
        """The containers of this node's users in networks of the cluster."""
        self._probing: Probing | None = None
        self._doctor: Examined | None = None
        if fabric is not None:
            self._fabric = self._weave(fabric, disk, address)
            self._probing = self._ask_about(self._fabric, entropy)
            self._doctor = Examined(node_id, wire, engine, self._fabric, self._probing)
            if call_leader is not None:
                self._receive(self._fabric, call_leader)
        self._features: frozenset[str] = frozenset()
        self._address = address
        self._worker.managers = lambda: tuple(m.Manager(*one) for one in self._session.managers)
        self._logs = LogSender(wire, engine, self._worker.container_of)
        self._tasks: list[asyncio.Task[None]] = []
        self._described = asyncio.Event()
        self._worker.on_engine = self._engine_is

    @property
    def managers(self) -> list[tuple[str, str]]:
        """The managers known at present."""
        return self._session.managers

    def listens(self, port: int) -> None:
        """The node's own manager is at this TCP port from now on: no published port is taken in its place."""
        if self._fabric is not None:
            self._fabric.listening |= {port}
            self._fabric.changed()

    @property
    def connected(self) -> bool:
        """Whether the session with the leader stands."""
        return self._session.connected

    def _weave(self, ports: FabricPorts, disk: Disk, address: str) -> FabricWorker:
        """The node's network, beside the worker."""
        worker = self._worker
        fabric = FabricWorker(
            self._node_id,
            address,
            ports,
            disk,
            sandboxes=self._sandboxes,
            tasks=lambda: worker.tasks,
            wired=worker.wake,
            applied=self._session.applied,
        )
        tethers = TetherKeeper(
            lambda: worker.sandboxes, lambda: worker.tasks, lambda: fabric.tables,
            look=worker.look, lost=worker.wake,
        )  # fmt: skip
        worker.wires, worker.is_wired, worker.severed = fabric.wires, fabric.is_wired, tethers.severed
        fabric.on_links, fabric.told = tethers.links_seen, lambda: worker.complete

        def looked(began: float) -> None:
            tethers.engine_seen(began)
            fabric.look()
            if self.guests is not None:
                self.guests.look()

        worker.on_containers = looked
        return fabric

    def _ask_about(self, fabric: FabricWorker, entropy: Entropy) -> Probing:
        """The questions to other nodes, beside the network."""
        probing = Probing(fabric.ports.prober, entropy, fabric.local, lambda: fabric.tables, fabric.without)
        self._session.lost = lambda: probing.lost
        return probing

    def _receive(self, fabric: FabricWorker, call_leader: CallLeader) -> None:
        """Guests, beside the node's network."""
        guests = self.guests = GuestKeeper(
            self._node_id, self._engine, self._worker.networks, fabric, call_leader
        )
        fabric.guests_upstreams = lambda: guests.upstreams

    def _sandboxes(self) -> Mapping[str, Sandbox] | None:
        """Namespaces of tasks and guests; None while not all of them are known."""
        tasks, guests = self._worker.sandboxes, self.guests
        if guests is None or tasks is None:
            return tasks
        return None if guests.sandboxes is None else {**tasks, **guests.sandboxes}

    async def start(self, engine: Mapping[str, Any] | None = None) -> None:
        """Adopt what runs, and take part. `engine`: what the Engine said of itself just now, so that nobody
        waits until it is asked again. Raises OSError."""
        # All that may fail comes before anything that runs, so that who is refused may try again.
        memory = await self._disk.work(lambda: journal.load(self._disk))
        if self._fabric is not None:
            self._fabric.remember(await self._disk.work(lambda: journal.load_networks(self._disk)))
            self._features = await self._probe(self._fabric.ports)
        if engine is not None:
            self.description = self._with_network(description_of(engine))
            self._described.set()
        if self._fabric is not None:
            # Before all else: the Engine may ask for it as soon as it restarts a container.
            await self._fabric.ports.driver.start(AgentPlumber(self._fabric))
        self._worker.remember(memory)
        if memory.managers:
            known = [(one.node_id, one.address) for one in memory.managers]
            self._session.managers = known
        self._tasks = [
            asyncio.create_task(_for_ever(self._describe), name="describe"),
            asyncio.create_task(_for_ever(self._worker.run), name="worker"),
            asyncio.create_task(_for_ever(self._worker.listeners.run), name="listeners"),
            asyncio.create_task(_for_ever(self._converse), name="session"),
        ]
        if self._fabric is not None:
            self._tasks.append(asyncio.create_task(_for_ever(self._fabric.run), name="fabric"))
        if self._probing is not None and self._fabric is not None:
            self._probing.know(self._fabric.probe_key)
            self._tasks.append(asyncio.create_task(_for_ever(self._probing.run), name="probing"))
        if self.guests is not None:
            self._tasks.append(asyncio.create_task(_for_ever(self.guests.run), name="guests"))

    @staticmethod
    async def _probe(ports: FabricPorts) -> frozenset[str]:
        found = set(await ports.overlay.probe())
        if await ports.balancer.probe():
            found.add(ports.balancer.name)
        if await ports.cipher.probe():
            found.add("encryption")
        return frozenset(found)

    async def stop(self) -> None:
        """Stop taking part; containers stay as they are."""
        current = asyncio.current_task()
        tasks, self._tasks = [task for task in self._tasks if task is not current], []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._logs.stop()
        if self._fabric is not None:
            await self._fabric.ports.driver.stop()
            await self._fabric.ports.names.stop()
            await self._fabric.ports.prober.stop()
        if self._doctor is not None:
            await self._doctor.stop()

    async def wipe(self) -> None:
        """Stop and remove every container of the cluster on this node; the session ends first."""
        for task in self._tasks:
            if task.get_name() == "session" and task is not asyncio.current_task():
                task.cancel()
        self._worker.abandon()
        try:
            async with asyncio.timeout(WIPE):
                await self._worker.emptied()
        except TimeoutError:
            logger.warning("not all containers of the cluster could be removed")
        if self.guests is not None:
            await self.guests.wipe()
        if self._fabric is not None:
            await self._fabric.wipe()
            await self._remove_networks()

    async def _remove_networks(self) -> None:
        """The Engine's networks of ours go with the cluster."""
        try:
            for name in await self._engine.networks():
                await self._engine.remove_network(name)
        except EngineError as error:
            logger.warning("a network of the Engine could not be removed: %s", error)

    # ------------------------------------------------------------ parts

    def _facts(self) -> NodeFacts:
        known = self.description
        return NodeFacts(self._node_id, known.hostname, known.os or "linux", known.architecture)

    def _reported(self, task_id: str, status: Any) -> None:
        self._session.report(task_id, status)

    def _heard(self, message: m.Down) -> None:
        match message:
            case m.Assignments():
                self._worker.assign(message)
            case m.Networks():
                if self._fabric is not None:
                    self._fabric.take(message)
                    self._worker.networks.stale |= message.full or bool(message.removed)
                    self._worker.wake()
                    if self._probing is not None:
                        self._probing.look()
                    if self.guests is not None:
                        self.guests.tables_changed()
                else:
                    self._session.applied(message.seq)
            case m.Welcome() | m.Cluster():
                if isinstance(message, m.Welcome):
                    self._welcomed(message)
                self._worker.save_soon()
                self._on_cluster(message)
            case m.LogsWanted():
                self._logs.begin(message)
            case m.LogsDone():
                self._logs.end(message.subscription)
            case m.Examine():
                if self._doctor is not None:
                    self._doctor.begin(message)

    def _welcomed(self, message: m.Welcome) -> None:
        if self._fabric is not None:
            self._fabric.begin_session(message.probe_key)
        if self._probing is not None:
            self._probing.know(message.probe_key)

    async def _describe(self) -> None:
        if self._described.is_set():
            await asyncio.sleep(REFRESH)
        while True:
            try:
                fresh = self._with_network(description_of(await self._engine.info()))
            except EngineError as error:
                logger.warning("the Engine does not say what it is: %s", error)
            else:
                fresh = replace(fresh, trouble=self.description.trouble)  # which the worker knows better
                if fresh != self.description:
                    self.description = fresh
                    self._session.describe_again()
                self._described.set()
            await asyncio.sleep(REFRESH if self._described.is_set() else FIRST_LOOK)

    def _engine_is(self, trouble: str) -> None:
        """The Engine went, or is back: until then the node is to get nothing new."""
        if self._described.is_set() and self.description.trouble != trouble:
            self.description = replace(self.description, trouble=trouble)
            self._session.describe_again()

    def _with_network(self, about: Description) -> Description:
        """What the kernel offers to networks, and how wide its link to the other nodes is."""
        if self._fabric is None:
            return about
        mtu = self._fabric.ports.overlay.underlay_mtu(self._address) if self._address else 0
        return replace(about, mtu=mtu, features=tuple(sorted(self._features)))

    async def _converse(self) -> None:
        await self._described.wait()
        try:
            await self._session.run()
        except NodeRemovedError as error:
            logger.warning("this node is no longer a member of the cluster: %s", error)
            await self._on_removed()
