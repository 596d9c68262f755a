"""The operator of a simulated cluster: lets machines in, promotes, demotes, removes, wipes and puts back.

What belongs here: what a careful person would do, and the care itself: a disk is never given up for good
where the managers left could not go on without it. What does not: when it is done (memberfaults.py), what
must hold afterwards (memberwatch.py).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from swarmpy.adapters.raft.errors import MembershipError
from swarmpy.model.commands import AnyCommand, RemoveNode, UpdateNode
from swarmpy.model.errors import Refusal
from swarmpy.model.lifecycle import NodeState
from swarmpy.model.objects import Node
from swarmpy.node import record
from swarmpy.ports import LogError
from swarmpy.sim.disk import SimDisk
from swarmpy.sim.stage import Box
from swarmpy.sim.wire import STRANGER
from swarmpy.state.snapshot import Snapshot

if TYPE_CHECKING:
    from swarmpy.sim.cluster import Cluster

PATIENCE = 15.0
"""Virtual seconds after which the operator gives up on an answer."""
ROUND = 1.0
"""Virtual seconds between two looks at what is left to put right."""
NEWCOMERS = 3
"""Machines that may be added to the cluster in one run."""

Make = Callable[[Snapshot], AnyCommand | None]


class Keeper:
    """See the file's charter."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.stage = cluster.stage
        self.chance = cluster.stage.chance("keeper")
        self.newcomers = 0
        self._leaving: set[str] = set()
        self._under_way: list[asyncio.Task[Any]] = []

    # ------------------------------------------------------------ looking

    def node_of(self, box: Box) -> str:
        """The id of the node that the machine's disk says it is; "" for none."""
        if box.rotted or box.broken:
            return ""
        try:
            found = record.load(SimDisk(box.platter))
        except ValueError:
            return ""
        return found.node_id if found is not None else ""

    def held(self) -> dict[str, Box]:
        """The machines by the id of the node that they are."""
        found = {self.node_of(box): box for box in self.stage.boxes.values()}
        found.pop("", None)
        return found

    def door(self, box: Box) -> str:
        """The address of a manager at which the machine may ask to be let in."""
        doors = [other.address for other in self.stage.up
                 if other is not box and self.cluster.control(other) is not None]  # fmt: skip
        return self.chance.choice(doors) if doors else self.stage.boxes["m1"].address

    def managers(self) -> list[Box]:
        """Machines that run a manager now."""
        return [box for box in self.stage.up if self.cluster.control(box) is not None]

    def can_spare(self, box: Box | None, *, demoted: int = 0) -> bool:
        """Whether the managers can go on for good without this machine's disk, and with so many living
        managers fewer, whatever change of seats is under way."""
        keepers = {other.me.node_id for other in self.stage.boxes.values()
                   if other is not box and other.me is not STRANGER and other.name not in self._leaving
                   and not other.rotted and not other.broken}  # fmt: skip
        world = self.cluster.newest_world()
        leaving = demoted + sum(
            bool(node.manager_address) and node.view.role == "worker" for node in world.nodes
        )
        for membership in self.cluster.watch.memberships():
            everybody = {member.id for member in membership.members}
            for seats in (set(membership.voters()), everybody):
                alive = len(seats & keepers) - leaving
                if alive * 2 <= len(seats) - leaving:
                    return False
        return True

    # ------------------------------------------------------------ asking

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Have something done beside everything else."""
        self._under_way.append(asyncio.get_running_loop().create_task(work))

    async def finish(self) -> None:
        """Wait for all that was begun."""
        while self._under_way:
            await self._under_way.pop()

    async def submit(self, make: Make, what: str) -> bool:
        """Ask any manager for a change, made from the world as it sees it; whether it was granted."""
        managers = self.managers()
        if not managers:
            return False
        box = self.chance.choice(managers)
        return await self.inside(box, self._ask(box, make), f"{what} on {box.name}")

    async def inside(self, box: Box, work: Coroutine[Any, Any, str], what: str) -> bool:
        """Have a machine's program do something, which may end with it; whether nothing was refused."""
        task = self.stage.loop.spawn(box.process, work)
        await asyncio.wait({task}, timeout=PATIENCE)
        said = "no answer"
        if task.done():
            error = task.exception()
            if error is not None:
                self.stage.unexpected(box.name, error)
            else:
                said = task.result()
        self.stage.trace.emit("operator", f"{what}: {said or 'done'}")
        return not said

    async def _ask(self, box: Box, make: Make) -> str:
        control = self.cluster.control(box)
        if control is None:
            return "no manager any more"
        try:
            command = make(await control.world())
            if command is None:
                return "nothing to do"
            await control.submit(command)
        except Refusal as refusal:
            return str(refusal)
        return ""

    # ------------------------------------------------------------ changes of the cluster

    async def set_role(self, node_id: str, role: str) -> bool:
        """Promote or demote a node."""

        def make(world: Snapshot) -> AnyCommand | None:
            node = world.nodes.get(node_id)
            if node is None or node.view.role == role:
                return None
            spec = {**json.loads(node.spec), "Role": role}
            return UpdateNode(node=node.id, version=node.version, spec=json.dumps(spec))

        granted = await self.submit(make, f"make {node_id[:6]} a {role}")
        box = self.held().get(node_id)
        if granted and box is not None:
            box.kind = role
        return granted

    async def demote(self, node_id: str) -> None:
        """Demote a node, whatever comes of it."""
        await self.set_role(node_id, "worker")

    async def remove(self, node_id: str, *, force: bool) -> bool:
        """`node rm`."""
        return await self.submit(lambda world: RemoveNode(node=node_id, force=force), f"remove {node_id[:6]}")

    async def transfer(self, box: Box) -> None:
        """Have the leader hand over."""
        log = self.cluster.log_of(box)
        if log is None:
            return

        async def work() -> str:
            try:
                await log.transfer(None, timeout=3.0)
            except (LogError, MembershipError) as error:
                return str(error)
            return ""

        await self.inside(box, work(), f"transfer from {box.name}")

    async def leave(self, box: Box) -> None:
        """The node leaves, whatever it is."""
        node, state = box.program_state["node"], box.program_state

        async def work() -> str:
            state["leaving"] = True
            try:
                await node.leave(force=True)
            except Refusal as refusal:
                return str(refusal)
            finally:
                state["leaving"] = False
            return ""

        self._leaving.add(box.name)
        await self.inside(box, work(), f"{box.name} leaves")
        self._leaving.discard(box.name)

    # ------------------------------------------------------------ machines

    def add(self, kind: str) -> Box | None:
        """A new machine that will join with the token of its kind; None when there were enough."""
        if self.newcomers >= NEWCOMERS:
            return None
        self.newcomers += 1
        number = 50 + self.newcomers
        box = self.stage.add(f"n{self.newcomers}", f"192.168.2.{number}", self.cluster.program, kind)
        self.cluster.furnish(box)
        return box

    def wipe(self, box: Box) -> None:
        """The machine's disk is replaced by an empty one while it is down; its containers may be gone too."""
        self.stage.trace.emit(box.name, "its disk is wiped")
        box.platter.wipe()
        box.me, box.rotted, box.broken = STRANGER, False, ""
        if self.chance.random() < 0.5:
            for container in box.dockerd.listed:
                if container.state == "running":
                    box.dockerd.finish(container, 137, quiet=True)
            box.dockerd.containers.clear()

    # ------------------------------------------------------------ putting right

    async def tidy(self) -> None:
        """For ever: put damaged machines back empty, remove nodes whose machines are lost, and see that
        somebody takes tasks."""
        while True:
            await asyncio.sleep(ROUND)
            for box in self.stage.boxes.values():
                if box.broken:
                    self.wipe(box)
                    box.start()
            held = self.held()
            world = self.cluster.newest_world()
            for node in world.nodes:
                if node.id not in held and node.status.state is NodeState.DOWN:
                    await self._forget(node)
            if not any(node.view.availability == "active" for node in world.nodes):
                await self._activate(next(iter(world.nodes), None))

    async def _forget(self, node: Node) -> None:
        if node.view.role == "manager":
            await self.set_role(node.id, "worker")
        elif not node.manager_address:
            await self.remove(node.id, force=self.chance.random() < 0.5)

    async def _activate(self, node: Node | None) -> None:
        if node is None:
            return

        def make(world: Snapshot) -> AnyCommand | None:
            known = world.nodes.get(node.id)
            if known is None:
                return None
            spec = {**json.loads(known.spec), "Availability": "active"}
            return UpdateNode(node=known.id, version=known.version, spec=json.dumps(spec))

        await self.submit(make, f"activate {node.hostname}")
