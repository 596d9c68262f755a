"""A node's whole agent on a simulated Engine, disk and wire, and managers that say what a test wants.

What belongs here: putting the pieces together, and waiting in virtual time. What does not: any expectation.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import msgspec

from swarmpy.agent.agent import Agent
from swarmpy.model import messages as m
from swarmpy.model.fabric import Table, difference
from swarmpy.model.lifecycle import TaskState
from swarmpy.model.objects import TaskStatus
from swarmpy.plan.container import CLUSTER_LABEL, TASK_LABEL
from swarmpy.ports import Body, Channel, Peer, RefusedError, WireError
from swarmpy.sim.clock import SimClock, SimEntropy
from swarmpy.sim.containers import Container
from swarmpy.sim.disk import Platter, SimDisk
from swarmpy.sim.dockerd import Dockerd
from swarmpy.sim.engine import SimEngine
from swarmpy.sim.kernel import Kernel
from swarmpy.sim.libnetwork import Libnetwork
from swarmpy.sim.loop import Process, SimLoop
from swarmpy.sim.net import SimNet
from swarmpy.sim.sockets import SimSockets
from swarmpy.sim.trace import Trace
from swarmpy.sim.wire import SimWire

CLUSTER = "cluster1"
HOSTS = ("10.0.0.1", "10.0.0.2")


def task(
    key: str, desired: TaskState = TaskState.RUNNING, *, image: str = "web:1", **more: Any
) -> m.Assigned:
    template = json.dumps({"ContainerSpec": {"Image": image, "StopGracePeriod": 2_000_000_000}})
    return m.Assigned(
        id=key, service_id="s1", service_name="web", slot=1, node_id="n1", template=template,
        endpoint="{}", desired=desired, **more,
    )  # fmt: skip


class WatchedEngine(SimEngine):
    """Calls `before(method)` as the agent asks for something, and counts what is under way."""

    def __init__(self, rig: Rig, process: Process) -> None:
        super().__init__(rig.dockerd, process)
        self._rig = rig

    async def _watched(self, name: str, work: Coroutine[Any, Any, Any]) -> Any:
        rig = self._rig
        rig.asked.append(name)
        now = rig.under_way[name] = rig.under_way.get(name, 0) + 1
        rig.most[name] = max(now, rig.most.get(name, 0))
        try:
            error = rig.before(name)
            if error is not None:
                work.close()
                raise error
            return await work
        finally:
            rig.under_way[name] -= 1

    async def containers(self, labels: Any) -> Any:
        if self._rig.stuck is not None:
            await self._rig.stuck.wait()
        return await self._watched("containers", super().containers(labels))

    async def pull(self, image: str, auth: str = "") -> None:
        self._rig.pulls.append((image, auth))
        await self._watched("pull", super().pull(image, auth))

    async def create(self, name: str, config: Mapping[str, Any]) -> str:
        key: str = await self._watched("create", super().create(name, config))
        return key

    async def start(self, container_id: str) -> None:
        await self._watched("start", super().start(container_id))

    async def stop(self, container_id: str, grace_seconds: float) -> None:
        await self._watched("stop", super().stop(container_id, grace_seconds))

    async def remove(self, container_id: str) -> None:
        await self._watched("remove", super().remove(container_id))


class Leader:
    """A manager. `want` is what the node should run; `statuses` what it reported; switches say how it errs."""

    def __init__(self, rig: Rig, host: str, node_id: str) -> None:
        self.rig, self.node_id = rig, node_id
        self.process = Process(node_id)
        self.wire = SimWire(rig.net, host, self.process, Peer(node_id, "manager", CLUSTER, node_id))
        self.address = f"{host}:2377"
        self.want: dict[str, m.Assigned] = {}
        self.statuses: dict[str, TaskStatus] = {}
        self.history: dict[str, list[str]] = {}
        self.batches: list[m.Statuses] = []
        self.hellos: list[m.Hello] = []
        self.beats = 0
        self.channel: Channel | None = None
        self.seq = 0
        self.refusal: RefusedError | None = None
        self.mute = False
        """Takes sessions and says nothing."""
        self.acknowledging = True
        self.managers: tuple[m.Manager, ...] = ()
        self.tables: tuple[Table, ...] = ()
        """Networks that a node is told of as it comes."""
        self.logs: list[Body] = []
        self.wire.on_channel("session", self._serve)
        self.wire.on_channel("logs.publish", self._logs)

    async def _serve(self, channel: Channel, hello: Body) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.hellos.append(m.hello_from(hello))
        if self.mute:
            while True:
                await channel.recv()
        self.channel, self.seq = channel, 0
        await self.send(m.Welcome(beat_seconds=1.0, node_role="worker", managers=self.managers))
        if self.tables:
            deltas = tuple(difference(None, one) for one in self.tables)
            await self.send(m.Networks(seq=1, full=True, deltas=deltas, removed=()))
            self.seq = 1
        await self._tell(full=True, tasks=tuple(self._known(one) for one in self.want.values()))
        try:
            while True:
                await self._hear(m.up_from(await channel.recv()))
        finally:
            if self.channel is channel:
                self.channel = None

    def _known(self, one: m.Assigned) -> m.Assigned:
        state = self.statuses[one.id].state if one.id in self.statuses else one.state
        return msgspec.structs.replace(one, state=state)

    async def _hear(self, message: m.Up) -> None:
        if self.mute:
            return
        match message:
            case m.Beat():
                self.beats += 1
                await self.send(m.Acknowledged(number=0))
            case m.Statuses():
                self.batches.append(message)
                if not self.acknowledging:
                    return
                for key, status in message.items:
                    self.statuses[key] = status
                    self.history.setdefault(key, []).append(status.state.word)
                await self.send(m.Acknowledged(number=message.number))

    async def _logs(self, channel: Channel, hello: Body) -> None:
        self.logs.append(hello)
        while True:
            self.logs.append(await channel.recv())

    async def send(self, message: m.Down) -> None:
        assert self.channel is not None
        await self.channel.send(m.to_body(message))

    async def _tell(
        self, *, full: bool = False, tasks: tuple[m.Assigned, ...] = (), removed: tuple[str, ...] = ()
    ) -> None:
        self.seq += 1
        await self.send(m.Assignments(seq=self.seq, full=full, tasks=tasks, removed=removed))

    async def assign(self, *tasks: m.Assigned) -> None:
        """Tell of new or changed tasks, now or when the node comes."""
        self.want.update({one.id: one for one in tasks})
        await self._if_there(tasks=tasks)

    async def drop(self, *keys: str) -> None:
        """The tasks are none of the node's any more."""
        for key in keys:
            del self.want[key]
        await self._if_there(removed=keys)

    async def _if_there(self, **what: Any) -> None:
        if self.channel is not None:
            try:
                await self._tell(**what)
            except WireError:
                self.channel = None

    def state(self, key: str) -> str:
        """The task's state as it was reported, "" where it was not."""
        return self.statuses[key].state.word if key in self.statuses else ""


class Rig:
    """See the file's charter. Lives of the agent come and go; everything else stays. `woven`: the node has
    networks."""

    def __init__(self, seed: str = "rig", *, woven: bool = False) -> None:
        self.loop = SimLoop()
        trace = Trace(self.loop.time)
        self.net = SimNet(self.loop, seed, trace)
        self.clock = SimClock(self.loop.time)
        self.dockerd = Dockerd(self.loop, "w1", seed, self.clock, trace)
        self.sockets = SimSockets(self.dockerd)
        self.kernel = Kernel(
            self.loop, "w1", seed, trace, "10.0.0.9", lambda _, error: self.net.problems.append(str(error))
        )
        self.woven = woven
        if woven:
            Libnetwork(self.dockerd, self.kernel)
        self.platter = Platter(seed)
        self.asked: list[str] = []
        self.pulls: list[tuple[str, str]] = []
        self.under_way: dict[str, int] = {}
        self.most: dict[str, int] = {}
        self.before: Callable[[str], Exception | None] = lambda name: None
        self.stuck: asyncio.Event | None = None
        """Until it is set, the Engine does not say what it runs; it does all else."""
        self.leader, self.second = Leader(self, HOSTS[0], "m1"), Leader(self, HOSTS[1], "m2")
        self.known = [("m1", self.leader.address)]
        self.lives = 0
        self.removed: list[int] = []
        self.agent: Agent
        self.process: Process

    def run(self, scenario: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        async def main() -> Any:
            for leader in (self.leader, self.second):
                await leader.wire.start(leader.address)
            async with asyncio.timeout(10_000):
                return await scenario()

        result = self.loop.run(main())
        assert self.loop.problems == []
        assert self.net.problems == []
        return result

    async def boot(self, engine: dict[str, Any] | None = None) -> None:
        """A new life of the agent; `engine`: what the Engine said of itself just before."""
        self.lives += 1
        self.process = Process("agent", self.lives)
        self.wire = SimWire(self.net, "10.0.0.9", self.process, Peer("n1", "worker", CLUSTER, "n1"))
        life = self.lives

        async def on_removed() -> None:
            self.removed.append(life)

        self.agent = Agent(
            node_id="n1", cluster_id=CLUSTER, engine=WatchedEngine(self, self.process),
            sockets=self.sockets, wire=self.wire,
            disk=SimDisk(self.platter, self.process), clock=self.clock, entropy=SimEntropy(f"life {life}"),
            managers=list(self.known), on_cluster=lambda message: None, on_removed=on_removed,
            address="10.0.0.9", fabric=self.kernel.ports(self.process) if self.woven else None,
        )  # fmt: skip
        await self.loop.spawn(self.process, self.agent.start(engine))

    def crash(self) -> None:
        """kill -9 of the agent."""
        self.loop.kill(self.process)
        self.kernel.process_gone()
        self.wire.gone("killed")

    async def until(self, condition: Callable[[], Any], seconds: float = 60.0) -> None:
        deadline = self.loop.time() + seconds
        while not condition():
            assert self.loop.time() < deadline, (
                f"what was waited for did not come: {self.leader.history}, "
                f"{[(one.name, one.state) for one in self.dockerd.listed]}"
            )
            await asyncio.sleep(0.01)

    async def reaches(self, key: str, state: str, seconds: float = 60.0) -> TaskStatus:
        await self.until(lambda: self.leader.state(key) == state, seconds)
        return self.leader.statuses[key]

    def of(self, key: str) -> list[Container]:
        """The containers of a task."""
        return [one for one in self.dockerd.listed if one.labels.get(TASK_LABEL) == key]

    def running(self) -> set[str]:
        """Tasks with a running container."""
        return {one.labels[TASK_LABEL] for one in self.dockerd.listed if one.state == "running"}

    def plant(
        self, key: str, *, name: str = "", cluster: str = CLUSTER, start: bool = True, **labels: str
    ) -> str:
        """A container that somebody made."""
        self.dockerd.images.add("web:1")
        own = {CLUSTER_LABEL: cluster, TASK_LABEL: key} if cluster else {}
        made = self.dockerd.create(name or task(key).name, {"Image": "web:1", "Labels": {**own, **labels}})
        if start:
            self.dockerd.begin(made)
        return made
