"""A world to play with: commands as admission would turn them into changes, agents that report, time."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec

from swarmpy.model.commands import CreateNetwork
from swarmpy.model.lifecycle import NodeState, Role, TaskState
from swarmpy.model.objects import Cluster, Description, KeyRing, Node, NodeStatus, Service, Task
from swarmpy.model.specs import service_view
from swarmpy.plan import manager, published
from swarmpy.plan.admission import network as networks
from swarmpy.plan.slots import spec_parts
from swarmpy.plan.types import Plan
from swarmpy.state.changes import Change, Delete, Put
from swarmpy.state.snapshot import Snapshot

SECOND = 1_000_000_000
GIB = 1 << 30
START = 1_700_000_000 * SECOND

Planner = Callable[[int, Snapshot], Plan]


def cluster(**orchestration: Any) -> Cluster:
    spec = json.dumps({"Name": "default", "Orchestration": orchestration})
    return Cluster(id="c" * 25, spec=spec, network_keys=KeyRing(seed="5a" * 32))


def node(
    name: str, *, cpus: float = 4, memory: int = 8 * GIB, labels: dict[str, str] | None = None,
    state: NodeState = NodeState.READY, availability: str = "active", since: int = START,
    role: Role = Role.WORKER, **about: Any,
) -> Node:  # fmt: skip
    description = Description(
        hostname=name, nano_cpus=int(cpus * 1e9), memory_bytes=memory,
        **{"os": "linux", "architecture": "x86_64", **about},
    )  # fmt: skip
    spec = json.dumps({"Labels": labels or {}, "Role": role.word, "Availability": availability})
    status = NodeStatus(state=state, address="192.0.2.1", since=since)
    return Node(id=f"node-{name}", spec=spec, role=role, description=description, status=status)


def spec(
    name: str, replicas: int | None = 1, *, image: str = "app:1", template: dict[str, Any] | None = None,
    **rest: Any,
) -> str:  # fmt: skip
    """JSON text of a service spec; `replicas` None makes it global."""
    mode = {"Global": {}} if replicas is None else {"Replicated": {"Replicas": replicas}}
    body = {"ContainerSpec": {"Image": image}} | (template or {})
    return json.dumps({"Name": name, "TaskTemplate": body, "Mode": mode} | rest)


class Stage:
    """A world, its time, and the moves that change it. `planner` is what the leader runs after each."""

    def __init__(self, *nodes: Node, planner: Planner = manager.plan, history: int = 5) -> None:
        self.now = START
        self.planner = planner
        self.world = Snapshot().evolve(
            [Put(cluster(TaskHistoryRetentionLimit=history)), *(Put(one) for one in nodes)], 1, START
        )
        self.causes: list[str] = []

    # ---- the machinery

    def put(self, *changes: Change) -> None:
        self.world = self.world.evolve(changes, self.world.version + 1, self.now)

    def plan(self) -> Plan:
        decided = self.planner(self.now, self.world)
        self.causes = [change.cause for change in decided.changes]
        if decided.changes:
            self.put(*decided.changes)
        return decided

    def pass_time(self, seconds: float) -> Plan:
        self.now += int(seconds * SECOND)
        return self.plan()

    # ---- users

    def network(self, name: str, **raw: Any) -> str:
        """A network of that name; its id is `network-NAME`. Raises Refusal."""
        sent = json.dumps({"Name": name, "Driver": "overlay"} | raw)
        command = CreateNetwork(id=f"network-{name}", spec=sent)
        changes, result = networks.create(self.now, self.world, command)
        self.put(*changes)
        self.plan()
        return result.id

    def ingress(self) -> str:
        """The network of the routing mesh, as a cluster begins with it."""
        assert self.world.cluster is not None
        made = networks.first(self.world.cluster, self.now)
        self.put(Put(made))
        self.plan()
        return made.id

    def create(self, text: str) -> str:
        name = json.loads(text)["Name"]
        key = f"service-{name}"
        made = Service(id=key, name=name, spec=text, spec_version=self.world.version + 1)
        ports = published.resolve(self.world, key, made.view.ports, ())
        self.put(Put(msgspec.structs.replace(made, ports=ports)))
        self.plan()
        return key

    def update(self, key: str, text: str) -> None:
        old = self.world.services[key]
        same = spec_parts(old.spec) == spec_parts(text)
        version = old.spec_version if same else self.world.version + 1
        ports = published.resolve(self.world, key, service_view(text).ports, old.ports)
        self.put(Put(msgspec.structs.replace(
            old, spec=text, spec_version=version, previous_spec=old.spec, update=None, ports=ports)))  # fmt: skip
        self.plan()

    def remove(self, key: str) -> None:
        self.put(Delete("service", key))
        self.plan()

    def set_node(self, name: str, **fields: Any) -> None:
        """Change the spec (availability, labels) or the state of a node."""
        old = self.world.nodes[f"node-{name}"]
        raw = json.loads(old.spec)
        if "availability" in fields:
            raw["Availability"] = fields["availability"]
        if "labels" in fields:
            raw["Labels"] = fields["labels"]
        status = old.status
        if "state" in fields and fields["state"] != status.state:
            status = msgspec.structs.replace(status, state=fields["state"], since=self.now)
        about = msgspec.structs.replace(old.description, **fields.get("about", {}))
        self.put(Put(msgspec.structs.replace(old, spec=json.dumps(raw), status=status, description=about)))
        self.plan()

    def remove_node(self, name: str) -> None:
        self.put(Delete("node", f"node-{name}"))
        self.plan()

    # ---- agents

    def report(self, task: Task, state: TaskState, err: str = "") -> None:
        present = self.world.tasks[task.id]
        status = msgspec.structs.replace(
            present.status, state=state, at=self.now, message=state.word, err=err
        )  # fmt: skip
        self.put(Put(msgspec.structs.replace(present, status=status, state_since=self.now)))
        self.plan()

    def agents(self, *, rounds: int = 20) -> None:
        """Every reachable agent does what is wanted of it, until nothing moves."""
        for _ in range(rounds):
            moves = [(task, state) for task in self.world.tasks if (state := self._next(task)) is not None]
            if not moves:
                return
            for task, state in moves:
                if task.id in self.world.tasks:
                    self.report(task, state)
        raise AssertionError("the agents never come to rest")

    def _next(self, task: Task) -> TaskState | None:
        where = self.world.nodes.get(task.node_id)
        if where is None or where.status.state != NodeState.READY:
            return None
        state = task.status.state
        if not TaskState.ASSIGNED <= state <= TaskState.RUNNING:
            return None
        if task.desired >= TaskState.SHUTDOWN:
            return TaskState.SHUTDOWN
        if task.desired == TaskState.READY:
            return TaskState.READY if state < TaskState.READY else None
        return TaskState.RUNNING if state < TaskState.RUNNING else None

    # ---- looking

    def tasks(self, key: str | None = None) -> list[Task]:
        return self.world.tasks_of(key) if key else list(self.world.tasks)

    def live(self, key: str) -> list[Task]:
        return [task for task in self.tasks(key) if task.desired <= TaskState.RUNNING]

    def running(self, key: str) -> list[Task]:
        return [task for task in self.live(key) if task.status.state == TaskState.RUNNING]

    def places(self, key: str) -> dict[str, int]:
        counts: dict[str, int] = {}
        for task in self.live(key):
            name = task.node_id.removeprefix("node-")
            counts[name] = counts.get(name, 0) + 1
        return counts
