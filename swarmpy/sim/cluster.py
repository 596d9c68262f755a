"""The whole cluster in one process: real nodes, managers and agents on simulated machines.

What belongs here: building the cluster, its programs, the watch over its store, the end of a run. What does
not: what clients do (workload.py), what goes wrong (faults.py), what must hold (invariants.py, raftwatch.py).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn

from swarmpy.adapters.raft import CorruptError, RaftLog, RaftSettings
from swarmpy.manager.store import Store
from swarmpy.model import codec
from swarmpy.model.errors import Refusal
from swarmpy.model.lifecycle import NodeState
from swarmpy.node.node import Node
from swarmpy.plan.container import TASK_LABEL
from swarmpy.ports import Control, Image, InitRequest, JoinRequest, Log, LogRole, Machine, Peer
from swarmpy.sim.consensus import Outcome
from swarmpy.sim.containers import Container
from swarmpy.sim.history import check_indexed
from swarmpy.sim.invariants import check_containers, check_rest, check_step
from swarmpy.sim.keeper import Keeper
from swarmpy.sim.memberwatch import MemberWatch
from swarmpy.sim.nemesis import REGISTRY, Nemesis, subset
from swarmpy.sim.netinvariants import check_network_step, waiting
from swarmpy.sim.netoracle import Oracle
from swarmpy.sim.netrest import check_networks_rest
from swarmpy.sim.netwatch import NetWatch
from swarmpy.sim.raftwatch import RaftWatch
from swarmpy.sim.slotwatch import SlotWatch
from swarmpy.sim.stage import Box, Stage, Violation
from swarmpy.sim.tools import SimTools, repeatable_pki
from swarmpy.sim.workload import Workload
from swarmpy.state.changes import Batch
from swarmpy.state.image import load as load_world
from swarmpy.state.image import save
from swarmpy.state.snapshot import Snapshot

FORM = 60.0
"""Virtual seconds within which the cluster forms."""
CONVERGE = 90.0
"""Virtual seconds after the last fault within which everything is as it should be."""


class Cluster:
    """One simulated cluster: m1 begins it, the others join."""

    def __init__(
        self, seed: int | str, *, managers: int = 3, workers: int = 2, clients: int = 2,
        duration: float = 15.0, faults: Sequence[str] | None = None, networks: bool = True,
        sink: Callable[[str], None] | None = None,
    ) -> None:  # fmt: skip
        self.stage = stage = Stage(seed, sink=sink)
        stage.is_fatal = lambda error: isinstance(error, CorruptError)
        chance = stage.chance("shape")
        self.duration = duration
        self.settings = RaftSettings(snapshot_entries=chance.choice((30, 100, 10_000)), keep_entries=20)
        self.history_limit = chance.choice((1, 2, 5))
        self.watch = RaftWatch(stage)
        self.newest = Snapshot()
        """The world after the newest entry that any manager applied."""
        self.states: dict[int, dict[str, Any]] = {0: {}}
        self.formed = False
        self.tokens: dict[str, str] = {}
        stage.keeper = self.keeper = Keeper(self)
        self.members = MemberWatch(self)
        self.slots = SlotWatch(stage)
        for number in range(1, managers + 1):
            stage.add(f"m{number}", f"192.168.0.{number}", self.program)
        for number in range(1, workers + 1):
            stage.add(f"w{number}", f"192.168.1.{number}", self.program, "worker")
        self.nets = NetWatch(self)
        self.oracle = Oracle(self.nets)
        for box in stage.boxes.values():
            self.furnish(box)
        self.workload = Workload(self, clients, networks=networks)
        names = list(faults) if faults is not None else subset(chance, sorted(REGISTRY))
        self.nemesis = Nemesis(stage, names, pace=(0.3, 2.5))
        stage.loop.watch = self.watch.look
        stage.net.tap = self.watch.tap

    # ------------------------------------------------------------ programs

    async def program(self, box: Box) -> None:
        """A node's daemon."""
        node = Node(SimTools(box, self.settings, self._made_log))
        box.program_state |= {"node": node, "leads": lambda: self._leads(node)}
        await node.start()
        view = node.view()
        if view.state == "error" and box.rotted:
            self._refused(box, view.error)
        if view.state == "active" and box.rotted:
            self.stage.trace.emit(box.name, "what rotted was of no use any more, or can be done without")
            box.rotted = False
        while True:
            changed = asyncio.Event()
            node.on_change = changed.set
            if node.view().state == "inactive":
                await self._enter(box, node)
            box.program_state["joined"] = True
            await changed.wait()
            await self._outside(box, node)

    def _refused(self, box: Box, why: str) -> NoReturn:
        """A damaged node does not take part, and its sentence says what would help."""
        if "join" not in why:
            self.stage.violate("damage-is-explained", f"{box.name} refuses its disk without a way out: {why}")
        raise CorruptError(why)

    async def _outside(self, box: Box, node: Node) -> None:
        """The node left or was removed: after a while its machine is used again."""
        while node._member is None and node.view().state in ("inactive", "error"):
            box.program_state["joined"] = False
            await asyncio.sleep(self.keeper.chance.uniform(0.2, 3.0))
            if node.view().state == "inactive":
                return
            with suppress(Refusal):
                await node.leave(force=True)

    async def _enter(self, box: Box, node: Node) -> None:
        if box.name == "m1" and not self.formed:
            spec = json.dumps({"Orchestration": {"TaskHistoryRetentionLimit": self.history_limit}})
            await node.init(InitRequest(listen_address=box.address, advertise_address=box.address, spec=spec))
            return
        while node.view().state != "active":
            request = JoinRequest((self.keeper.door(box),), self.tokens[box.kind], listen_address=box.address,
                                  advertise_address=box.address)  # fmt: skip
            try:
                await node.join(request)
            except Refusal as refusal:
                self.stage.trace.emit(box.name, f"cannot join yet: {refusal}")
                await asyncio.sleep(0.5)

    @staticmethod
    def _leads(node: Node) -> bool:
        member = node._member
        manager = member._manager if member is not None else None
        return manager is not None and manager.log.status().role is LogRole.LEADER

    def _made_log(self, box: Box, seat: str, log: RaftLog, machine: Machine) -> None:
        if box.me.node_id != seat:
            self.watch.forget(box)
            box.me = Peer(seat, "manager", "", "")
        assert isinstance(machine, Store)
        apply, start, load = machine.apply, log.start, machine.load

        def applied(index: int, entry: bytes) -> bool:
            before = machine.world
            try:
                accepted = apply(index, entry)
                self._applied(box.name, index, entry, before, machine.world)
            except Exception as error:
                self.stage.unexpected(box.name, error)
                raise
            return accepted

        def loaded(image: Image) -> Callable[[], None]:
            take = load(image)

            def taken() -> None:
                take()
                if machine.world.version:
                    digest = hashlib.blake2b(save(load_world(image)), digest_size=12).digest()
                    self.watch.saw_loaded(box.name, machine.world.version, digest)

            return taken

        async def started() -> None:
            await start()
            self.watch.attach(box, log)

        machine.apply = applied  # type: ignore[method-assign]  # only this instance is watched
        machine.load = loaded  # type: ignore[method-assign]  # the same
        log.start = started  # type: ignore[method-assign]  # the simulator listens in

    # ------------------------------------------------------------ what must hold at each step

    def _applied(self, name: str, index: int, entry: bytes, before: Snapshot, after: Snapshot) -> None:
        fresh = index not in self.watch.applied
        digest = hashlib.blake2b(save(after), digest_size=12).digest()
        self.watch.saw_applied(name, index, entry, digest)
        if not fresh:
            return
        self.stage.trace.mark(digest)
        self.states[index] = {service.id: service.spec for service in after.services}
        if after is before:
            return
        based_on = codec.decode(Batch, entry).based_on
        if based_on != before.version:
            self.stage.violate("deposed-writes-nothing", f"entry {index} was decided on world {based_on} "
                               f"but changes world {before.version}")  # fmt: skip
        self.newest = after
        self.members.step(name, before, after)
        for rule, sentence in (*check_step(before, after), *self.slots.step(before, after),
                               *check_network_step(before, after)):  # fmt: skip
            self.stage.violate(rule, sentence)
        self.nets.step(before, after)

    # ------------------------------------------------------------ looking at it

    def control(self, box: Box) -> Control | None:
        """The control plane of that machine, if it has one now."""
        node: Node | None = box.program_state.get("node") if box.running else None
        return node.control if node is not None else None

    def furnish(self, box: Box) -> None:
        """Watch the machine's Engine."""
        box.dockerd.on_start = partial(self._container_starts, box)
        box.dockerd.on_signal = partial(self.nets.signal, box)

    def _container_starts(self, box: Box, container: Container) -> None:
        running = [(one, other.name) for other in self.stage.boxes.values() for one in other.dockerd.listed
                   if one.state == "running" and one is not container]  # fmt: skip
        for rule, sentence in self.slots.starts(container, box.name, running):
            self.stage.violate(rule, sentence)
        self.nets.runs(box, container)

    def newest_world(self) -> Snapshot:
        """The world after the newest entry that any manager applied."""
        return self.newest

    def world_of(self, box: Box) -> Snapshot | None:
        """The world as that machine's manager has it."""
        member: Any = getattr(box.program_state.get("node"), "_member", None)
        return member._manager.store.world if member is not None and member._manager is not None else None

    def log_of(self, box: Box) -> Log | None:
        """The log of that machine's manager."""
        member: Any = getattr(box.program_state.get("node"), "_member", None)
        return member._manager.log if member is not None and member._manager is not None else None

    def leader_world(self) -> Snapshot | None:
        """The world as the leader has it."""
        box = next((box for box in self.stage.up if box.leads()), None)
        if box is None:
            return None
        return self.world_of(box)

    # ------------------------------------------------------------ the run

    async def main(self) -> None:
        """Form, suffer, heal, settle."""
        stage = self.stage
        await self.form()
        until = stage.loop.instant + self.duration
        clients = [asyncio.create_task(client) for client in self.workload.clients(until)]
        await self.nemesis.play(self.duration)
        await asyncio.wait(clients)
        stage.heal()
        stage.trace.emit("operator", "all faults are over")
        tidying = asyncio.create_task(self.keeper.tidy())
        await self.settle()
        tidying.cancel()
        await self.keeper.finish()
        self.last_checks()

    async def form(self) -> None:
        """m1 begins the cluster, all others join it."""
        stage = self.stage
        first = stage.boxes["m1"]
        first.start()
        await self._until(lambda: bool(first.program_state.get("joined")), "m1 begins the cluster")
        world = self.leader_world()
        await self._until(lambda: self.leader_world() is not None, "m1 leads")
        world = self.leader_world()
        assert world is not None
        assert world.cluster is not None
        self.tokens = {"manager": world.cluster.manager_token, "worker": world.cluster.worker_token}
        for box in stage.boxes.values():
            if box is not first:
                box.start()
        await self._until(self._all_ready, "every node is ready")
        self.formed = True
        self.nets.begin()
        self.oracle.begin()
        stage.trace.emit("operator", f"{len(stage.boxes)} nodes are ready")

    def _all_ready(self) -> bool:
        world = self.leader_world()
        joined = all(box.program_state.get("joined") for box in self.stage.boxes.values())
        if world is None:
            return False
        ready = sum(node.status.state is NodeState.READY for node in world.nodes)
        return joined and ready == len(self.stage.boxes)

    async def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = self.stage.loop.instant + FORM
        while not condition():
            if self.stage.loop.instant > deadline:
                self.stage.violate("forms", f"within {FORM:g} s it does not happen that {what}")
            await asyncio.sleep(0.1)

    async def settle(self) -> None:
        """Without faults everything becomes as it should be, in time."""
        stage = self.stage
        deadline = stage.loop.instant + CONVERGE
        broken = ("converges", "no manager leads")
        while stage.loop.instant < deadline:
            await asyncio.sleep(0.5)
            world = self.leader_world()
            if world is None:
                continue
            found = next(self._at_rest(world), None)
            if found is None:
                stage.trace.emit("operator", "everything is as it should be")
                return
            broken = found
        stage.violate(broken[0], f"{CONVERGE:g} s after the last fault: {broken[1]}")

    def _at_rest(self, world: Snapshot) -> Any:
        excused, broken = waiting(world)
        yield from broken
        yield from self.members.rest(world)
        yield from check_rest(world, excused)
        running = [(container.labels[TASK_LABEL], box.name) for box in self.stage.boxes.values()
                   for container in box.dockerd.listed
                   if container.state == "running" and TASK_LABEL in container.labels]  # fmt: skip
        yield from check_containers(world, running)
        yield from check_networks_rest(world, self.stage.boxes)

    def last_checks(self) -> None:
        """Histories are linearizable; no container was ever started twice; no handler failed."""
        stage = self.stage
        why = check_indexed(self.workload.history, self.states)
        if why is not None:
            stage.violate("linearizable", why)
        for box in stage.boxes.values():
            for container in box.dockerd.listed:
                if container.life > 1:
                    stage.violate("no-restart", f"{container.name} was started {container.life} times")
        if stage.net.problems:
            stage.violate("no-crash", stage.net.problems[0])
        if stage.loop.problems:
            stage.violate("no-crash", stage.loop.problems[0])

    def run(self) -> Outcome:
        """The whole run."""
        stage = self.stage
        try:
            with repeatable_pki(str(stage.seed)):
                stage.loop.run(self.main())
        except Violation as violation:
            stage.violation = stage.violation or violation
        return Outcome(stage.seed, stage.violation, stage.trace.hash, stage.loop.steps, stage.loop.instant,
                       list(stage.trace.lines), self.nemesis.played,
                       sum(1 for op in self.workload.history if op.ok), stage.trace.count)  # fmt: skip
