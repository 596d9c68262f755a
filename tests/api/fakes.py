"""A cluster in memory for the API's tests: real admission, real planning, no log and no nodes.

Tasks run as soon as they are assigned. What does not belong here: anything that a test asserts.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from msgspec.structs import replace

from swarmpy.api.networks import LABEL
from swarmpy.model.commands import AnyCommand, AttachContainer, DetachContainer, Result
from swarmpy.model.errors import NotFound, Refusal, Unavailable
from swarmpy.model.examination import Held
from swarmpy.model.lifecycle import NodeState, Role, TaskState
from swarmpy.model.objects import Cluster, Description, Guest, Node, NodeStatus, Task, TaskStatus
from swarmpy.pki import ca, tokens
from swarmpy.plan import manager
from swarmpy.plan.admission import network
from swarmpy.plan.admission.admit import admit
from swarmpy.plan.container import Wire
from swarmpy.ports import (
    AttachRequest,
    Examination,
    InitRequest,
    JoinRequest,
    LogQuery,
    ManagersView,
    NodeView,
    TaskLogFrame,
)
from swarmpy.state.changes import Change, Put
from swarmpy.state.snapshot import Snapshot

START = 1_700_000_000_123_456_000
STEP = 1_000_000
GIB = 2**30


class FakeClock:
    def __init__(self) -> None:
        self.time = START

    def now(self) -> int:
        return self.time

    def monotonic(self) -> float:
        return self.time / 1e9


class FakeEntropy:
    def __init__(self) -> None:
        self.count = 0

    def token(self, size: int) -> bytes:
        self.count += 1
        return self.count.to_bytes(size, "big")[::-1]

    def uniform(self, low: float, high: float) -> float:
        return (low + high) / 2


def make_node(number: int, role: Role, certificate: str) -> Node:
    return Node(
        id=f"node{number}".ljust(25, "0"),
        spec=json.dumps({"Role": role.word, "Availability": "active", "Labels": {"rack": f"r{number}"}}),
        role=role,
        description=Description(
            hostname=f"host{number}", os="linux", architecture="x86_64", nano_cpus=4_000_000_000,
            memory_bytes=8 * GIB, engine_version="20.10.24", engine_labels={"disk": "ssd"},
            plugins=(("Network", "bridge"),),
        ),
        status=NodeStatus(state=NodeState.READY, address=f"10.0.0.{number}"),
        manager_address=f"10.0.0.{number}:2377" if role is Role.MANAGER else "",
        certificate=certificate,
    )  # fmt: skip


class FakeControl:
    """ports.Control without a log: commands are admitted and planned at once."""

    def __init__(self) -> None:
        authority = ca.Authority.create(START)
        digest = authority.digest()
        cluster = Cluster(
            id="cluster".ljust(25, "0"),
            root_cert=authority.cert_pem.decode(),
            worker_token=tokens.make_token(digest),
            manager_token=tokens.make_token(digest),
        )
        items = [
            cluster,
            network.first(cluster, START),
            *(make_node(n, Role.MANAGER if n == 1 else Role.WORKER, "pem") for n in (1, 2, 3)),
        ]
        # A moment earlier: giving the nodes their addresses in the mesh's network takes one step of time.
        self.current = Snapshot().evolve([Put(item) for item in items], 1, START - STEP)
        self.reachable = frozenset({"node1".ljust(25, "0")})
        self.broken: Refusal | None = None
        self.frames: list[TaskLogFrame] = []
        self.follow: asyncio.Queue[TaskLogFrame] = asyncio.Queue()
        self.commands: list[AnyCommand] = []
        self.queries: list[LogQuery] = []
        self.examined: list[tuple[str, ...]] = []
        self.examination = Examination((), (), (), 0, ())
        self.held: dict[str, Held] = {}
        self._reading = 0
        self._readers = asyncio.Condition()
        self._moved = asyncio.Event()
        self.settle()

    def evolve(self, changes: list[Change]) -> None:
        world = self.current
        self.current = world.evolve(changes, world.version + 1, world.at + STEP)
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    def settle(self) -> None:
        """Plan, run what is assigned, end what is unwanted, until nothing changes."""
        for _ in range(100):
            planned = list(manager.plan(self.current.at, self.current).changes)
            if planned:
                self.evolve(planned)
            ran = [Put(after) for task in self.current.tasks if (after := _agent(task)) is not None]
            if ran:
                self.evolve(ran)
            if not planned and not ran:
                return
        raise AssertionError("the cluster does not settle")

    async def world(self) -> Snapshot:
        if self.broken is not None:
            raise self.broken
        return self.current

    async def submit(self, command: AnyCommand) -> Result:
        if self.broken is not None:
            raise self.broken
        self.commands.append(command)
        changes, result = admit(self.current.at, self.current, command, self.reachable)
        self.evolve(changes)
        self.settle()
        return replace(result, index=self.current.version)

    async def managers(self) -> ManagersView:
        return ManagersView(leader="node1".ljust(25, "0"), reachable=self.reachable)

    async def world_and_managers(self) -> tuple[Snapshot, ManagersView]:
        return await self.world(), await self.managers()

    async def changed(self, since: int, *, timeout: float = 30.0) -> Snapshot:
        try:
            async with asyncio.timeout(timeout):
                while self.current.version <= since:
                    await self._moved.wait()
        except TimeoutError:
            pass
        return self.current

    async def logs(self, tasks: tuple[str, ...], query: LogQuery) -> AsyncIterator[TaskLogFrame]:
        self.queries.append(query)
        await self._count(1)
        try:
            for frame in self.frames:
                if not frame.task_id or frame.task_id in tasks:
                    yield frame
            while query.follow:
                yield await self.follow.get()
        finally:
            await self._count(-1)

    async def _count(self, step: int) -> None:
        async with self._readers:
            self._reading += step
            self._readers.notify_all()

    async def readers(self, number: int) -> None:
        """Wait until so many streams of logs are open."""
        async with self._readers:
            await self._readers.wait_for(lambda: self._reading == number)

    async def examine(self, networks: tuple[str, ...]) -> Examination:
        self.examined.append(networks)
        return self.examination

    async def told(self, network_id: str) -> Mapping[str, Held]:
        return self.held

    def explain(self, world: Snapshot, reference: str) -> Mapping[str, Any]:
        if world.service_named(reference) is None:
            raise NotFound(f"nothing is called {reference}")
        return {"reference": reference, "why": "because"}


def _agent(task: Task) -> Task | None:
    state = task.status.state
    if task.desired >= TaskState.SHUTDOWN and TaskState.ASSIGNED <= state <= TaskState.RUNNING:
        goal = TaskState.SHUTDOWN
    elif TaskState.ASSIGNED <= state < TaskState.RUNNING and task.desired == TaskState.RUNNING:
        goal = TaskState.RUNNING
    elif TaskState.ASSIGNED <= state < TaskState.READY and task.desired == TaskState.READY:
        goal = TaskState.READY
    else:
        return None
    status = TaskStatus(state=goal, at=START, message=goal.word, container_id="c" * 64, pid=42)
    return replace(task, status=status)


class FakeLocal:
    """ports.LocalNode: a manager, until told otherwise."""

    def __init__(self, control: FakeControl | None) -> None:
        self.control_plane = control
        self.shown = NodeView(
            state="active", node_id="node1".ljust(25, "0"), address="10.0.0.1", is_manager=True,
            managers=(("node1".ljust(25, "0"), "10.0.0.1:2377"),), cluster_id="cluster".ljust(25, "0"),
        )  # fmt: skip
        self.calls: list[object] = []
        self.expected: set[str] = set()
        self.engine_networks: dict[str, Any] | None = None
        """The Engine's, where what is attached is to be seen."""
        self.refusal: Refusal | None = None

    def become(self, state: str, *, manager: bool = False) -> None:
        self.shown = NodeView(state=state, is_manager=manager)
        self.control_plane = None

    def view(self) -> NodeView:
        return self.shown

    @property
    def control(self) -> FakeControl | None:
        return self.control_plane

    async def init(self, request: InitRequest) -> str:
        self._call(request)
        self.control_plane = FakeControl()
        self.shown = FakeLocal(None).shown
        return self.shown.node_id

    async def join(self, request: JoinRequest) -> None:
        self._call(request)
        self.shown = NodeView(state="active", node_id="node2".ljust(25, "0"))

    async def attach(self, request: AttachRequest) -> tuple[Guest, dict[str, Wire]]:
        control = self.control_plane
        assert control is not None
        places = []
        for one in request.networks:
            found = control.current.networks.get(one.network_id) or control.current.network_named(
                one.network_id
            )
            if found is None:
                raise NotFound(f"network {one.network_id} not found")
            places.append(replace(one, network_id=found.id))
        command = AttachContainer(
            id=request.guest_id, node=self.shown.node_id, name=request.name, hostname=request.hostname,
            container_id=request.container_id, networks=tuple(places),
        )  # fmt: skip
        await control.submit(command)
        self.expected.add(request.guest_id)
        world = control.current
        guest = world.guests[request.guest_id]
        found = [world.networks[place.network_id] for place in guest.networks]
        if self.engine_networks is not None:
            for one in found:
                self.engine_networks[one.name] = {
                    "Name": one.name,
                    "Id": "ab" * 32,
                    "Labels": {LABEL: one.id},
                }
        return guest, {one.id: Wire(one.name, servers=(one.subnets[0].gateway,)) for one in found}

    def arrived(self, guest_id: str) -> None:
        self.expected.remove(guest_id)

    async def detach(self, guest_id: str, networks: tuple[str, ...] = ()) -> None:
        assert self.control_plane is not None
        command = DetachContainer(id=guest_id, node=self.shown.node_id, networks=networks)
        await self.control_plane.submit(command)

    async def leave(self, *, force: bool = False) -> None:
        self._call(("leave", force))
        self.become("inactive")

    def _call(self, what: object) -> None:
        self.calls.append(what)
        if self.refusal is not None:
            raise self.refusal


NO_LEADER = Unavailable("The swarm does not have a leader.")
