"""What clients ask of a simulated cluster, and what they were told.

What belongs here: random commands and their history. What does not: judging it (history.py).
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Coroutine, Iterator
from typing import TYPE_CHECKING, Any

from swarmpy.model.commands import AnyCommand, CreateService, RemoveService, UpdateNode, UpdateService
from swarmpy.model.errors import Ambiguous, Refusal
from swarmpy.model.ids import derive
from swarmpy.ports import Control
from swarmpy.sim.history import Op
from swarmpy.sim.networkload import change_networks, dress, take_time
from swarmpy.sim.stage import Box

if TYPE_CHECKING:
    from swarmpy.sim.cluster import Cluster
    from swarmpy.state.snapshot import Snapshot

PATIENCE = 15.0
"""Virtual seconds after which a client gives up on an answer."""
SECOND = 10**9


ATTEMPTS = 2
"""Restarts of a task of a service that only crashes."""


def service_spec(name: str, *, replicas: int | None, image: str, mark: str,
                 constraints: tuple[str, ...] = ()) -> str:  # fmt: skip
    """A small service; `replicas` None makes it global, `mark` makes the spec unique. What only crashes is
    given up after some attempts."""
    policy: dict[str, Any] = {"Condition": "any", "Delay": SECOND // 5}
    if image.startswith("crash"):
        policy["MaxAttempts"] = ATTEMPTS
    mode: dict[str, Any] = {"Global": {}} if replicas is None else {"Replicated": {"Replicas": replicas}}
    return json.dumps({
        "Name": name, "Labels": {"mark": mark}, "Mode": mode,
        "TaskTemplate": {
            "ContainerSpec": {"Image": image, "StopGracePeriod": SECOND},
            "RestartPolicy": policy,
            "Placement": {"Constraints": list(constraints)},
        },
        "UpdateConfig": {"Parallelism": 1, "Order": "stop-first", "Monitor": SECOND // 2},
    })  # fmt: skip


class Workload:
    """Several clients, each with one request at a time, against any manager."""

    def __init__(self, cluster: Cluster, count: int, *, networks: bool = False) -> None:
        self.networks = networks
        """Whether clients use overlay networks."""
        self.cluster = cluster
        self.count = count
        self.history: list[Op] = []
        self._services = 0

    def clients(self, until: float) -> Iterator[Coroutine[Any, Any, None]]:
        """The clients' lives."""
        for number in range(self.count):
            yield self._client(number, until)

    async def _client(self, number: int, until: float) -> None:
        stage = self.cluster.stage
        chance = stage.chance(f"client {number}")
        count = 0
        while stage.loop.instant < until:
            count += 1
            boxes = [box for box in stage.up if self.cluster.control(box) is not None]
            if boxes:
                await self._request(chance.choice(boxes), Op(number, "read", "", stage.loop.instant),
                                    f"{number}.{count}", chance)  # fmt: skip
            await asyncio.sleep(chance.uniform(0.05, 1.0))

    async def _request(self, box: Box, op: Op, mark: str, chance: random.Random) -> None:
        stage = self.cluster.stage
        control = self.cluster.control(box)
        assert control is not None
        task = stage.loop.spawn(box.process, self._ask(control, op, mark, chance))
        await asyncio.wait({task}, timeout=PATIENCE)
        if task.done() and task.exception() is not None:
            stage.unexpected(box.name, task.exception() or RuntimeError())
        op.ended = stage.loop.instant if op.ok else op.ended
        if op.key:
            self.history.append(op)
            stage.trace.emit(f"client{op.client}", f"{op.kind} {op.key[:6]} on {box.name}: "
                             f"{'?' if op.ok is None else 'ok' if op.ok else 'no'} @{op.index}")  # fmt: skip

    async def _ask(self, control: Control, op: Op, mark: str, chance: random.Random) -> None:
        try:
            world = await control.world()
            services = list(world.services)
            self._saw(op, world, services)
            command: AnyCommand | None = None
            kinds = ("read", "create", "update", "update", "scale", "remove", "node")
            what = chance.choice((*kinds, "create", "network", "rewire") if self.networks else kinds)
            if what == "create" and len(services) < 4:
                command = self._create(op, world, mark, chance)
            elif what in ("update", "scale", "remove", "rewire") and services:
                command = self._change(op, world, chance.choice(services), what, mark, chance)
            elif what == "network":
                command = change_networks(world, mark, chance)
            elif what == "node" and len(world.nodes):
                command = self._node(list(world.nodes), chance)
            else:
                if services:
                    service = chance.choice(services)
                    op.key, op.value, op.index, op.ok = service.id, service.spec, world.version, True
                return
            if command is None:
                return
            result = await control.submit(command)
        except Ambiguous:
            return
        except Refusal as refusal:
            if op.kind != "read":
                op.ok = False
            self.cluster.stage.trace.emit(f"client{op.client}", f"refused: {refusal}")
            return
        op.index, op.ok = result.index, True

    def _saw(self, op: Op, world: Any, services: list[Any]) -> None:
        """Every request begins with a read: that counts too."""
        now = self.cluster.stage.loop.instant
        for service in services[:1]:
            seen = Op(op.client, "read", service.id, op.began, now, value=service.spec, ok=True)
            seen.index = world.version
            self.history.append(seen)

    def _create(self, op: Op, world: Snapshot, mark: str, chance: random.Random) -> AnyCommand:
        self._services += 1
        replicas = None if chance.random() < 0.2 else chance.randint(0, 4)
        name = f"s{self._services}"
        op.kind, op.key = "write", derive("sim service", name)
        op.value = service_spec(name, replicas=replicas, mark=mark,
                                image=chance.choice(("web:1", "web:1", "stubborn:1", "probed:1", "crash:1")),
                                constraints=self._constraints(replicas, chance))  # fmt: skip
        op.value = self._dressed(self._timed(json.loads(op.value)), world, chance)
        return CreateService(id=op.key, spec=op.value)

    def _constraints(self, replicas: int | None, chance: random.Random) -> tuple[str, ...]:
        """Now and then a service may not run on a certain machine."""
        if replicas is None or chance.random() < 0.8:
            return ()
        return (f"node.hostname!={chance.choice(sorted(self.cluster.stage.boxes))}",)

    def _dressed(self, spec: dict[str, Any], world: Snapshot, chance: random.Random) -> str:
        if self.networks:
            dress(spec, world, chance)
        return json.dumps(spec)

    def _timed(self, spec: dict[str, Any]) -> dict[str, Any]:
        if self.networks:
            take_time(spec, self.cluster.stage.chance(f"listening {spec['Name']} {spec['Labels']['mark']}"))
        return spec

    def _change(
        self, op: Op, world: Snapshot, service: Any, what: str, mark: str, chance: random.Random
    ) -> AnyCommand:
        op.kind, op.key = "write", service.id
        if what == "remove":
            op.value = None
            return RemoveService(service=service.id)
        spec = json.loads(service.spec)
        spec["Labels"]["mark"] = mark
        if what == "scale" and "Replicated" in spec["Mode"]:
            spec["Mode"]["Replicated"]["Replicas"] = chance.randint(0, 5)
        else:
            spec["TaskTemplate"]["ContainerSpec"]["Image"] = f"web:{mark}"
            spec["TaskTemplate"]["RestartPolicy"].pop("MaxAttempts", None)
            spec["UpdateConfig"]["Order"] = chance.choice(("stop-first", "start-first"))
            spec = self._timed(spec)
        op.value = self._dressed(spec, world, chance) if what == "rewire" else json.dumps(spec)
        return UpdateService(service=service.id, version=service.version, spec=op.value)

    def _node(self, nodes: list[Any], chance: random.Random) -> AnyCommand | None:
        node = chance.choice(nodes)
        drained = [other for other in nodes if other.view.availability != "active"]
        spec = json.loads(node.spec)
        if node.view.availability == "active" and len(drained) * 2 < len(nodes) - 1:
            spec["Availability"] = chance.choice(("drain", "pause"))
        else:
            spec["Availability"] = "active"
        spec["Role"] = node.view.role
        return UpdateNode(node=node.id, version=node.version, spec=json.dumps(spec))
