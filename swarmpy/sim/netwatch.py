"""The watch over networks: what kernels hold, held against what the leader decided, while the cluster runs.

What belongs here: who is well enough to be judged, dead backends, acknowledged drains, addresses of running
containers. What does not: requests (netoracle.py), what must hold at rest (netrest.py), the store alone
(netinvariants.py).

A machine is judged once it and its way to the leader were well for a while: a partitioned node cannot know.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from swarmpy.model import addressing
from swarmpy.model.lifecycle import TERMINAL, NodeState, TaskState
from swarmpy.model.objects import Task
from swarmpy.plan import listening
from swarmpy.plan.container import OPTION, TASK_LABEL
from swarmpy.plan.leaving import PATIENCE, drain_of
from swarmpy.sim.containers import Container
from swarmpy.sim.disk import Platter
from swarmpy.sim.invariants import Broken
from swarmpy.sim.net import Conditions
from swarmpy.sim.stage import Box
from swarmpy.state.snapshot import Snapshot

if TYPE_CHECKING:
    from swarmpy.sim.cluster import Cluster

NODE_LABEL = "com.docker.swarm.node.id"
EVERY = 0.25
"""Virtual seconds between two looks."""
DEAD = 1.0
"""Seconds after which no balancer may hold a backend that the leader knows to be out of traffic."""
CALM = 3.0
"""Seconds for which a machine has to be well before it is judged."""
MENDED = 8.0
"""The same after somebody meddled with its kernel: the agent looks at links every few seconds."""
SHARE = 0.85
"""Share of the drain delay that has to pass at least: the leader's clock may run too fast."""


def of_container(container: Container) -> str:
    """The task of a container."""
    return container.labels.get(TASK_LABEL, "")


def addresses_of(container: Container) -> Iterator[tuple[str, str]]:
    """(network id, address) of a container on networks of ours."""
    for options in container.places.values():
        for address in options.get(OPTION + "addresses", "").split(","):
            if address:
                yield options.get(OPTION + "network", ""), addressing.bare(address)


def in_traffic(tasks: Iterable[Task], world: Snapshot) -> Iterator[Task]:
    """The tasks that are to get traffic: said once more, so that planning has somebody to differ from."""
    heard: set[str] = set()
    doubtful: list[Task] = []
    for task in tasks:
        if task.status.state is not TaskState.RUNNING or task.desired is not TaskState.RUNNING:
            continue
        node = world.nodes.get(task.node_id)
        if node is None or node.status.state is NodeState.DOWN:
            continue
        if node.status.state is NodeState.DISCONNECTED:
            doubtful.append(task)
        else:
            heard.add(task.service_id)
            yield task
    for task in doubtful:
        if task.service_id not in heard:
            yield task


class NetWatch:
    """See the file's charter."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.stage = cluster.stage
        self.world = Snapshot()
        """The newest world."""
        self.began: dict[str, float] = {}
        """Since when an address gets traffic."""
        self.ended: dict[str, float] = {}
        """Since when an address gets none any more."""
        self.published: dict[str, float] = {}
        """Since when a service has its present addresses and ports."""
        self.looks = 0
        self.late = 0
        """Tasks that got traffic and had not listened from their start."""
        self._serving: dict[str, frozenset[str]] = {}
        self._calm: dict[str, float] = {}
        self._leader = ""

    # ------------------------------------------------------------ what the leader decides

    def step(self, old: Snapshot, new: Snapshot) -> None:
        """The store moved."""
        self.world = new
        now = self.stage.loop.instant
        for network in new.networks:
            key = network.id
            if old.bucket_in(key) is new.bucket_in(key) and old.nodes is new.nodes and key in self._serving:
                continue
            tasks = list(in_traffic((new.bucket_in(key) or {}).values(), new))
            fresh = frozenset(address for task in tasks for address in _addresses(task, key))
            before = self._serving.get(key, frozenset())
            self._serving[key] = fresh
            for address in sorted(before - fresh):
                self.ended[address] = now
                self.began.pop(address, None)
            for address in sorted(fresh - before):
                self.ended.pop(address, None)
                self.began[address] = now
            for task in tasks:
                known = old.tasks.rows.get(task.id)
                if known is None or known.status.state is not TaskState.RUNNING:
                    self._enters(task)
        if old.services is not new.services:
            for service in new.services:
                past = old.services.rows.get(service.id)
                if past is None or (past.vips, past.ports) != (service.vips, service.ports):
                    self.published[service.id] = now
        for key in sorted(set(self._serving) - {network.id for network in new.networks}):
            for address in self._serving.pop(key):
                self.ended[address] = now
                self.began.pop(address, None)

    def _enters(self, task: Task) -> None:
        """A task gets traffic for the first time: it is well, and its namespace is ready."""
        box = self.box_of(task.node_id)
        container = self.container_of(task.id, box)
        if box is None or container is None or container.state != "running":
            return
        if container.health not in ("", "healthy"):
            self.stage.violate("healthy-first", f"task {task.name} gets traffic but is {container.health}")
        meddled = box.kernel.flushed > 0 and self.stage.loop.instant - box.kernel.flushed < MENDED
        if container.places and not meddled and container.sandbox not in box.kernel.filter.sandboxes:
            self.stage.violate("wired-first", f"task {task.name} gets traffic before it is connected")
        self.late += container.opens > container.began and bool(listening.awaited(task.endpoint))
        for port in self.refusing(task, container):
            self.stage.violate("listens-first", f"task {task.name} gets traffic before it listens on {port}")

    def refusing(self, task: Task, container: Container) -> list[int]:
        """The ports of a running task on which a connection is refused though its bound has not passed; none
        with a health check: then that is what counts."""
        now, service = self.stage.loop.instant, self.world.services.get(task.service_id)
        bound = listening.bound_of(service.view.labels if service else {})
        if container.state != "running" or container.health or now - container.began >= bound:
            return []
        return [port for port in sorted(listening.awaited(task.endpoint)) if not container.listens(port, now)]

    def box_of(self, node_id: str) -> Box | None:
        """The machine of a node."""
        node = self.world.nodes.get(node_id)
        box = self.stage.boxes.get(node.hostname) if node is not None else None
        agent = agent_of(box) if box is not None else None
        return box if agent is None or agent._node_id == node_id else None

    @staticmethod
    def container_of(task_id: str, box: Box | None) -> Container | None:
        """The task's container."""
        found = box.dockerd.listed if box is not None else []
        return next((one for one in found if of_container(one) == task_id), None)

    # ------------------------------------------------------------ what containers do

    def runs(self, box: Box, container: Container) -> None:
        """No two running containers have the same address in a network."""
        mine = set(addresses_of(container))
        if not mine or self._forgotten(container):
            return
        for other_box in self.stage.boxes.values():
            for other in other_box.dockerd.listed:
                if other is container or other.state != "running" or self._forgotten(other):
                    continue
                for _, address in sorted(mine & set(addresses_of(other))):
                    both = f"{container.name} on {box.name} and of {other.name} on {other_box.name}"
                    self.stage.violate("address-really-once", f"{address} is of {both}")

    def _forgotten(self, container: Container) -> bool:
        """Whether the cluster does not know the container's node any more: nobody can stop it."""
        return container.labels.get(NODE_LABEL, "") not in self.world.nodes

    def signal(self, box: Box, container: Container) -> None:
        """A container is asked to stop: where it was in traffic, it is out of every balancer for a while."""
        task = self.world.tasks.get(of_container(container))
        if task is None or task.desired <= TaskState.RUNNING or task.status.state is not TaskState.RUNNING:
            return
        node = self.world.nodes.get(task.node_id)
        if node is None or node.status.state is not NodeState.READY:
            return  # it left, or is not heard: nobody waits for it
        if container.sandbox in box.kernel.stack.severed:
            return  # its agent may stop it whatever the leader says: it lost its link
        if box.program_state.get("leaving"):
            return  # its goodbye is best effort: the leader need not have heard it
        now = self.stage.loop.instant
        service = self.world.services.get(task.service_id)
        drain = drain_of(service.view.labels if service else {})
        for _, address in addresses_of(container):
            left = self.ended.get(address)
            if left is None:
                continue
            if now - left < SHARE * drain:
                early = f"{now - left:.2f} s after it left traffic; its drain delay is {drain:g} s"
                self.stage.violate("drain-delay", f"{container.name} is asked to stop {early}")
            if now - left > PATIENCE + SHARE * drain:
                continue  # who did not answer in time is not waited for
            for other in self.stage.up:
                if self._calm.get(_life(other), now) <= left - CALM and address in held(other):
                    self.stage.violate("acknowledged-drain", f"{container.name} is asked to stop while a "
                                       f"balancer of {other.name} holds {address}")  # fmt: skip

    # ------------------------------------------------------------ who is well

    def calm(self, box: Box, seconds: float = CALM) -> bool:
        """Whether the machine and its way to the leader were well for so long."""
        now = self.stage.loop.instant
        if now - box.kernel.disturbed < MENDED or not _is_member(box):
            return False
        return now - self._calm.get(_life(box), now) >= seconds

    def _judge(self) -> None:
        now = self.stage.loop.instant
        leader = next((box for box in self.stage.up if box.leads()), None)
        if leader is None or _life(leader) != self._leader or not self._well(leader):
            self._leader = _life(leader) if leader is not None else ""
            self._calm = {}
            return
        for box in self.stage.boxes.values():
            if self._well(box) and self._near(box, leader):
                self._calm.setdefault(_life(box), now)
            else:
                self._calm.pop(_life(box), None)

    def _well(self, box: Box) -> bool:
        disk = box.platter
        whole = disk.latency == Platter.QUICK and disk.capacity is None and not disk.failing_sync
        engine = box.dockerd.up and not box.dockerd.hanging
        alive = box.process is not None and box.process.alive and not box.process.paused
        return alive and _is_member(box) and whole and engine and box.crash_after is None and box.kernel.well

    def _near(self, box: Box, leader: Box) -> bool:
        agent, node = agent_of(box), leader.program_state["node"]
        if agent is None or not agent.connected:
            return False
        # The leader, too: after its power was cut, agents do not know for a while that it was another life.
        session = node._member._manager._dispatcher.sessions.get(agent._node_id)
        if session is None or session.suspect:
            return False
        if box is leader:
            return True
        net, usual = self.stage.net, Conditions()
        return all(not net.blocked(one.host, other.host) and net.link(one.host, other.host) == usual
                   for one, other in ((box, leader), (leader, box)))  # fmt: skip

    # ------------------------------------------------------------ looks

    def begin(self) -> None:
        """Look every now and then, from now on."""
        self.stage.net.later(EVERY, self._look)

    def _look(self) -> None:
        self.looks += 1
        self._judge()
        for rule, sentence in self._dead_backends():
            self.stage.violate(rule, sentence)
        self.stage.net.later(EVERY, self._look)

    def _dead_backends(self) -> Iterator[Broken]:
        now = self.stage.loop.instant
        for box in self.stage.up:
            if not self.calm(box):
                continue
            for address in sorted(held(box)):
                if address in self.began:
                    continue
                left = self.ended.get(address)
                if left is None or now - left > DEAD:
                    since = f"for {now - left:.2f} s" if left is not None else "and never did"
                    yield (
                        "dead-backend",
                        f"a balancer of {box.name} holds {address}, which gets no traffic {since}",
                    )


def _addresses(task: Task, network_id: str) -> Iterator[str]:
    if task.status.state in TERMINAL:
        return
    for place in task.networks:
        if place.network_id == network_id:
            yield from (addressing.bare(one) for one in place.addresses)


def _life(box: Box) -> str:
    """The machine's present program, by name."""
    return f"{box.name}/{box.lives}"


def held(box: Box) -> frozenset[str]:
    """All backends of the balancers of a machine that somebody may use: where no container runs any more,
    its namespace may stay for as long as the Engine asks a driver that is away to give it back."""
    found: set[str] = set()
    rules, used = box.kernel.filter, {container.sandbox for container in box.dockerd.listed}
    for one in (held for sandbox, held in rules.sandboxes.items() if sandbox in used):
        for service in one.table.services:
            found.update(service.backends)
    if rules.mesh is not None:
        for port in rules.mesh.table.ports:
            found.update(port.backends)
    return frozenset(found)


def _is_member(box: Box) -> bool:
    """Whether its node is in the cluster, and not about to leave it."""
    return bool(box.program_state.get("joined")) and not box.program_state.get("leaving")


def agent_of(box: Box) -> Any:
    """The machine's agent, if one lives."""
    member: Any = getattr(box.program_state.get("node"), "_member", None) if box.running else None
    return member._agent if member is not None else None
