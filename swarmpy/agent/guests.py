"""The agent's guests: containers that users of this node put into networks of the cluster.

They are found at the Engine by their endpoints' options, whoever made them. What belongs here: looking,
telling the leader, waiting until this node carries a network. What does not: what is told (plan/visits.py),
the API.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping

import msgspec

from swarmpy.agent.fabric import FabricWorker
from swarmpy.agent.joining import Sandbox
from swarmpy.agent.naming import EngineNetworks
from swarmpy.model.commands import AttachContainer, DetachContainer
from swarmpy.model.errors import FailedPrecondition, Refusal, Unavailable, refusal_from
from swarmpy.model.objects import Guest
from swarmpy.plan import visits as p
from swarmpy.plan.container import OPTION, TASK_LABEL, Place, Wire
from swarmpy.ports import AttachRequest, Body, ContainerSeen, Engine, EngineError, RefusedError, WireError

logger = logging.getLogger(__name__)

LOOK_ROUND = 10.0
"""Seconds between looks at the Engine when no event came: events may be lost."""
RETRY = 1.0
"""Seconds before the leader is asked again."""
PATIENCE = 10.0
"""Seconds until this node knows a network that a container was attached to."""

CallLeader = Callable[[str, Body], Awaitable[Body]]


class GuestKeeper:
    """`call` calls the leader, wherever it is; it raises RefusedError or WireError."""

    def __init__(
        self, node_id: str, engine: Engine, networks: EngineNetworks, fabric: FabricWorker, call: CallLeader
    ) -> None:
        self._node_id, self._engine, self._networks = node_id, engine, networks
        self._fabric, self._call = fabric, call
        self.sandboxes: dict[str, Sandbox] | None = None
        """Namespaces of running guests by id; None while the Engine was not asked."""
        self.upstreams: dict[str, tuple[str, ...]] = {}
        """Name servers that guests asked for, by id."""
        self._missing: Mapping[p.Pair, float] = {}
        self._expected: Counter[str] = Counter()
        self._wake = asyncio.Event()
        self._waiting: set[asyncio.Event] = set()

    def tables_changed(self) -> None:
        """The leader told of networks."""
        for event in self._waiting:
            event.set()
        self.look()

    def look(self) -> None:
        """Look at the Engine again, soon."""
        self._wake.set()

    # ------------------------------------------------------------ for the API

    async def attach(self, request: AttachRequest) -> tuple[Guest, Mapping[str, Wire]]:
        """See ports.LocalNode. Raises Refusal."""
        self._expected[request.guest_id] += 1
        try:
            return await self._attach(request)
        except BaseException:
            self.arrived(request.guest_id)
            raise

    def arrived(self, guest_id: str) -> None:
        """See ports.LocalNode."""
        self._expected[guest_id] -= 1
        self._expected += Counter()  # without those that are at zero
        self.look()

    async def _attach(self, request: AttachRequest) -> tuple[Guest, Mapping[str, Wire]]:
        guest = await self._ask(
            AttachContainer(
                id=request.guest_id, node=self._node_id, name=request.name, hostname=request.hostname,
                container_id=request.container_id, networks=request.networks,
            )
        )  # fmt: skip
        wanted = {place.network_id for place in guest.networks}
        try:
            async with asyncio.timeout(PATIENCE):
                await self._carried(guest.id, wanted)
        except TimeoutError:
            raise Unavailable(
                "this node was not told of the network in time: its session with the managers is broken or "
                "slow; try again"
            ) from None
        wires = {key: wire for key, wire in self._fabric.wires().items() if key in wanted}
        try:
            for network_id, wire in sorted(wires.items()):
                await self._networks.ensure(Place(wire.name, network_id, {}))
        except EngineError as error:
            raise FailedPrecondition(str(error)) from None
        return guest, wires

    async def detach(self, guest_id: str, networks: tuple[str, ...] = ()) -> None:
        """See ports.LocalNode. Raises Refusal."""
        command = DetachContainer(id=guest_id, node=self._node_id, networks=networks)
        await self._told("node.detach", msgspec.to_builtins(command))

    async def _carried(self, guest_id: str, networks: Collection[str]) -> None:
        """Return once the tables of all these networks are here and have the guest."""

        def here(network_id: str) -> bool:
            table = self._fabric.tables.get(network_id)
            return table is not None and any(one.id == guest_id for one in table.endpoints)

        event = asyncio.Event()
        self._waiting.add(event)
        try:
            while not all(here(key) for key in networks):
                event.clear()
                await event.wait()
        finally:
            self._waiting.discard(event)

    async def _ask(self, command: AttachContainer) -> Guest:
        reply = await self._told("node.attach", msgspec.to_builtins(command))
        try:
            return msgspec.convert(reply["guest"], Guest)
        except (KeyError, msgspec.ValidationError) as error:
            raise Unavailable(f"the leader's answer cannot be understood: {error}") from None

    async def _told(self, method: str, command: Body) -> Body:
        try:
            return await self._call(method, {"node_id": self._node_id, "command": command})
        except RefusedError as refused:
            name = "Unavailable" if refused.code == "NotLeader" else refused.code
            raise refusal_from(name, refused.message) from None
        except WireError as error:
            raise Unavailable(f"no manager answers: {error}") from None

    # ------------------------------------------------------------ the loop

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            self._wake.clear()
            pause = await self._turn()
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _turn(self) -> float:
        """One look; returns after how many seconds to look again."""
        try:
            found = await self._engine.connected(without=TASK_LABEL)
        except EngineError as error:
            logger.debug("guests cannot be seen: %s", error)
            return RETRY
        seen = [(one, visitor) for one in found if (visitor := _visitor(one)) is not None]
        self._note(seen)
        if not self._fabric.complete:
            return RETRY
        verdict = p.judge(
            asyncio.get_running_loop().time(),
            p.Visits(
                self._node_id,
                self._fabric.tables,
                tuple(one for _, one in seen),
                self._missing,
                frozenset(self._expected),
            ),
        )
        self._missing = verdict.missing
        good = True
        for told in verdict.tell:
            good &= await self._tell(told.visitor)
        for freed in verdict.free:
            good &= await self._free(freed)
        return min(LOOK_ROUND if good else RETRY, verdict.wait or LOOK_ROUND)

    def _note(self, seen: list[tuple[ContainerSeen, p.Visitor]]) -> None:
        sandboxes: dict[str, Sandbox] = {}
        upstreams: dict[str, tuple[str, ...]] = {}
        for one, visitor in seen:
            ends = tuple(end for name, end in one.networks if end and name in visitor.places)
            if one.sandbox and one.pid and ends:
                sandboxes[visitor.guest_id] = Sandbox(one.sandbox, ends)
            servers = next((opts[p.SERVERS] for opts in one.options.values() if opts.get(p.SERVERS)), "")
            if servers:
                upstreams[visitor.guest_id] = tuple(servers.split(","))
        changed = (sandboxes, upstreams) != (self.sandboxes, self.upstreams)
        self.sandboxes, self.upstreams = sandboxes, upstreams
        if changed:
            self._fabric.changed()

    async def _tell(self, visitor: p.Visitor) -> bool:
        """Have the leader know it as it is; one that may not keep its place is disconnected: another
        container may have its address by now."""
        command = AttachContainer(
            id=visitor.guest_id, node=self._node_id, name=visitor.name, hostname=visitor.hostname,
            container_id=visitor.container_id, networks=tuple(visitor.places.values()),
        )  # fmt: skip
        try:
            await self._ask(command)
        except Unavailable as refusal:
            logger.info("container %s is not told of yet: %s", visitor.name, refusal)
            return False
        except Refusal as refusal:
            logger.warning("container %s loses its networks: %s", visitor.name, refusal)
            return await self._expel(visitor)
        return True

    async def _expel(self, visitor: p.Visitor) -> bool:
        try:
            for network in sorted(visitor.places):
                await self._engine.disconnect(visitor.container_id, network)
        except EngineError as error:
            logger.warning("container %s cannot be disconnected: %s", visitor.name, error)
            return False
        return True

    async def _free(self, freed: p.Free) -> bool:
        try:
            await self.detach(freed.guest_id, freed.networks)
        except Refusal as refusal:
            logger.info("a place of a container that is gone is not free yet: %s", refusal)
            return False
        return True

    async def wipe(self) -> None:
        """The node leaves: no container stays in a network of the cluster."""
        try:
            found = await self._engine.connected(without=TASK_LABEL)
        except EngineError as error:
            logger.warning("containers in the cluster's networks cannot be seen: %s", error)
            return
        for one in found:
            visitor = _visitor(one)
            if visitor is not None:
                await self._expel(visitor)


def _visitor(one: ContainerSeen) -> p.Visitor | None:
    ours = {name: opts for name, opts in one.options.items() if OPTION + "task" in opts}
    return p.visitor_of(one.id, one.name, one.hostname, ours)
