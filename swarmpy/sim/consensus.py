"""The consensus simulation: members of one replicated log, clients, faults, and what must hold.

What belongs here: RaftLog over simulated disks and wires with a trivial machine. What does not: managers and
agents (cluster.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgpack

from swarmpy.adapters.raft import CorruptError, RaftLog, RaftSettings
from swarmpy.adapters.raft.errors import MembershipError
from swarmpy.pki.seal import PlainSealer
from swarmpy.ports import AmbiguousError, LogError, Member, NoQuorumError, NotLeaderError, Peer
from swarmpy.sim.history import Op, check_indexed
from swarmpy.sim.nemesis import BASIC, REGISTRY, Nemesis, subset
from swarmpy.sim.raftwatch import RaftWatch
from swarmpy.sim.registers import Registers, entry
from swarmpy.sim.stage import Box, Stage, Violation

CLUSTER = "sim"
CONVERGE = 20.0
"""Virtual seconds after the last fault within which all members agree and writes succeed."""


class LogDied(OSError):
    """The log stopped by itself; the program ends and is started again."""


@dataclass(slots=True)
class Outcome:
    """What a run was: `violation` None when nothing was wrong."""

    seed: int | str
    violation: Violation | None
    hash: str
    steps: int
    time: float
    lines: list[str]
    faults: dict[str, int] = field(default_factory=dict)
    acked: int = 0
    events: int = 0


class Consensus:
    """One simulated log."""

    def __init__(
        self, seed: int | str, *, members: int = 3, clients: int = 4, duration: float = 10.0,
        faults: Sequence[str] | None = None, sink: Callable[[str], None] | None = None,
    ) -> None:  # fmt: skip
        self.stage = stage = Stage(seed, sink=sink)
        stage.honest = (OSError,)
        stage.is_fatal = lambda error: isinstance(error, CorruptError)
        chance = stage.chance("shape")
        self.duration = duration
        self.clients = clients
        self.settings = RaftSettings(
            snapshot_entries=chance.choice((20, 50, 200, 10_000)), keep_entries=chance.choice((0, 5, 50)),
            chunk=chance.choice((64, 4096)), apply_entries=chance.choice((1, 3, 1000)),
        )  # fmt: skip
        self.watch = RaftWatch(stage)
        self.history: list[Op] = []
        self.states: dict[int, dict[str, Any]] = {0: {}}
        self.effects: dict[str, int] = {}
        """Request id to the index at which it took effect."""
        self.proposed: dict[str, bool | None] = {}
        """Request id to whether it may have been appended (False: definitely not)."""
        self.keys = [f"k{number}" for number in range(3)]
        bootstrap = [self._member(number) for number in range(1, members + 1)]
        self.bootstrap = tuple(bootstrap)
        for member in bootstrap:
            self._add(member.id)
        names = list(faults) if faults is not None else [
            name for name, fault in sorted(REGISTRY.items()) if fault.group in BASIC]  # fmt: skip
        enabled = subset(chance, names) if faults is None else names
        self.nemesis = Nemesis(stage, enabled)
        self.changes = chance.random() < 0.3
        self._spares = members
        stage.loop.watch = self.watch.look
        stage.net.tap = self.watch.tap

    @staticmethod
    def _member(number: int) -> Member:
        return Member(f"n{number}", f"192.168.0.{number}:2377")

    def _add(self, name: str) -> Box:
        box = self.stage.add(name, f"192.168.0.{name[1:]}", self.program)
        box.me = Peer(name, "manager", CLUSTER, name)
        return box

    # ------------------------------------------------------------ the members

    async def program(self, box: Box) -> None:
        """A member's life."""
        name = box.name
        machine = Registers(lambda *seen: self._applied(name, *seen),
                            lambda *seen: self.watch.saw_loaded(name, *seen))  # fmt: skip
        wire = box.make_wire()
        await wire.start(box.address)
        log = RaftLog(
            name, box.address, box.make_disk(), wire, box.clock, box.make_entropy(), machine, PlainSealer(),
            bootstrap_members=self._bootstrap_of(name), settings=self.settings, bulk=box.make_disk(),
        )  # fmt: skip
        try:
            await log.start()
        except CorruptError as error:
            if not box.rotted:
                self.stage.violate("honest-disk", f"{name} refuses a disk that only lost power: {error}")
            raise
        self.watch.attach(box, log)
        box.program_state |= {"log": log, "machine": machine,
                              "leads": lambda: log.status().role.value == "leader"}  # fmt: skip
        await log.failed.wait()
        self._judge_failure(box, str(log.failure))
        raise LogDied(str(log.failure))

    def _bootstrap_of(self, name: str) -> tuple[Member, ...] | None:
        return self.bootstrap if any(member.id == name for member in self.bootstrap) else None

    def _judge_failure(self, box: Box, why: str) -> None:
        honest = ("Input/output", "No space", "is dead")
        if not box.rotted and not any(word in why for word in honest):
            self.stage.violate("no-crash", f"the log of {box.name} stopped: {why}")

    def _applied(self, name: str, index: int, data: bytes, digest: bytes) -> None:
        fresh = index not in self.watch.applied
        self.watch.saw_applied(name, index, data, digest)
        if fresh:
            machine = self.stage.boxes[name].program_state.get("machine")
            if machine is not None:
                self.states[index] = dict(machine.values)
                self._check_once(msgpack.unpackb(data)[0], machine)

    def _check_once(self, request: str, machine: Registers) -> None:
        at = machine.answers[request][0]
        known = self.effects.setdefault(request, at)
        if known != at:
            self.stage.violate("applies-once", f"request {request} took effect at {known} and again at {at}")

    # ------------------------------------------------------------ the clients

    async def client(self, number: int, until: float) -> None:
        """One client: one operation after the other, on any member."""
        stage, chance = self.stage, self.stage.chance(f"client {number}")
        count = 0
        while stage.loop.instant < until:
            await asyncio.sleep(chance.uniform(0.005, 0.15))
            count += 1
            await self._operate(number, f"c{number}-{count}", chance)

    async def _operate(self, number: int, request: str, chance: Any) -> None:
        up = [box for box in self.stage.up if _serves(box)]
        if not up:
            return
        leading = [box for box in up if box.leads()]  # a deposed one may not know it yet
        box = chance.choice(leading if leading and chance.random() < 0.8 else up)
        kind = chance.choice(("read", "write", "write", "cas"))
        key = chance.choice(self.keys)
        op = Op(number, kind, key, self.stage.loop.instant, value=request)
        if kind == "cas":
            op.expected = self.stage.boxes[box.name].program_state["machine"].values.get(key)
        tries = 2 if chance.random() < 0.15 else 1
        for _ in range(tries):
            work = self._read(box, op) if kind == "read" else self._write(box, op, request)
            await self._inside(box, work, op)
            if op.ok is not None or not _serves(box):
                break
        self.history.append(op)
        if op.ok and kind != "read" and _serves(box) and chance.random() < 0.1:
            again = Op(number, kind, key, op.began, value=request, expected=op.expected)
            await self._inside(box, self._write(box, again, request), again)

    async def _inside(self, box: Box, work: Coroutine[Any, Any, None], op: Op) -> None:
        """Run a client's request inside the member's process; the process may die over it."""
        task = self.stage.loop.spawn(box.process, work)
        await asyncio.wait({task}, timeout=4.0)
        op.ended = self.stage.loop.instant
        if task.done() and task.exception() is not None:
            self.stage.unexpected(box.name, task.exception() or RuntimeError())

    async def _write(self, box: Box, op: Op, request: str) -> None:
        log: RaftLog = box.program_state["log"]
        data = entry(request, op.kind, op.key, op.value, op.expected)
        first = request not in self.proposed
        self.proposed[request] = None
        try:
            index, (at, took) = await log.propose(data, timeout=3.0)
        except NotLeaderError:
            if first:
                self.proposed[request] = op.ok = False
            return
        except AmbiguousError:
            return
        self.proposed[request] = True
        op.ok, op.took, op.index = True, took, at
        self._check_acked(box.name, index, data)

    def _check_acked(self, name: str, index: int, data: bytes) -> None:
        known = self.watch.applied.get(index)
        if known is None or known[0] != data:
            self.stage.violate("acked-stays", f"{name} confirmed an entry at {index} that is not there")

    async def _read(self, box: Box, op: Op) -> None:
        log: RaftLog = box.program_state["log"]
        try:
            await log.read_index(timeout=2.0)
        except (NotLeaderError, NoQuorumError):
            op.ok = False
            return
        machine: Registers = box.program_state["machine"]
        op.value, op.index, op.ok = machine.values.get(op.key), machine.index, True

    # ------------------------------------------------------------ the run

    async def reshape(self, until: float) -> None:
        """Now and then the leader adds a member, removes one, or hands over."""
        stage, chance = self.stage, self.stage.chance("reshape")
        while stage.loop.instant < until:
            await asyncio.sleep(chance.uniform(0.5, 3.0))
            leader = next((box for box in stage.up if box.leads()), None)
            if leader is None:
                continue
            log: RaftLog = leader.program_state["log"]
            voters = [member.id for member in log.status().members if member.id != leader.name]
            what = chance.choice(("add", "remove", "transfer"))
            if what == "add" and len(voters) < 5:
                self._spares += 1
                fresh = self._member(self._spares)
                self._add(fresh.id).start()
                work = log.add_member(fresh, timeout=5.0)
            elif what == "remove" and len(voters) > 2:
                work = log.remove_member(chance.choice(voters), timeout=5.0)
            else:
                work = log.transfer(None, timeout=3.0)
            stage.trace.emit("operator", f"{what} on {leader.name}")
            task = stage.loop.spawn(leader.process, _quietly(work))
            await asyncio.wait({task}, timeout=8.0)

    async def main(self) -> None:
        """Faults and clients for the duration; then peace, convergence, and the last checks."""
        stage = self.stage
        for box in stage.boxes.values():
            box.start()
        until = stage.loop.instant + self.duration
        tasks = [asyncio.create_task(self.client(number, until)) for number in range(self.clients)]
        if self.changes:
            tasks.append(asyncio.create_task(self.reshape(until)))
        await self.nemesis.play(self.duration)
        await asyncio.wait(tasks)
        stage.heal()
        await self.converge()
        self.check_history()

    async def converge(self) -> None:
        """A write succeeds and every member in force applies it, in time."""
        stage = self.stage
        deadline = stage.loop.instant + CONVERGE
        chance = stage.chance("last")
        number = 0
        why = "no member leads"
        while stage.loop.instant < deadline:
            await asyncio.sleep(0.1)
            leader = next((box for box in stage.up if box.leads()), None)
            if leader is None:
                continue
            number += 1
            op = Op(99, "write", "k0", stage.loop.instant, value=number)
            await self._inside(leader, self._write(leader, op, f"last-{number}"), op)
            self.history.append(op)
            if op.ok:
                log: RaftLog = leader.program_state["log"]
                members = [m.id for m in log.status().members if m.voter]
                await asyncio.sleep(chance.uniform(0.5, 1.0))
                late = [name for name in members if not self._has(name, op.index)]
                if not late:
                    return
                why = f"{', '.join(late)} did not apply entry {op.index}"
        stage.violate("converges", f"{CONVERGE:g} s after the last fault: {why}")

    def _has(self, name: str, index: int) -> bool:
        box = self.stage.boxes[name]
        if box.broken:
            return True
        machine = box.program_state.get("machine")
        return machine is not None and machine.index >= index

    def check_history(self) -> None:
        """What clients saw is linearizable; what was definitely refused never took effect."""
        why = check_indexed(self.history, self.states)
        if why is not None:
            self.stage.violate("linearizable", why)
        refused = {request for request, fate in self.proposed.items() if fate is False}
        for index, (data, _) in self.watch.applied.items():
            if msgpack.unpackb(data)[0] in refused:
                self.stage.violate("refused-stays-out", f"entry {index} was refused, yet it was applied")

    def run(self) -> Outcome:
        """The whole run."""
        stage = self.stage
        try:
            stage.loop.run(self.main())
        except Violation as violation:
            stage.violation = stage.violation or violation
        return Outcome(stage.seed, stage.violation, stage.trace.hash, stage.loop.steps, stage.loop.instant,
                       list(stage.trace.lines), self.nemesis.played,
                       sum(1 for op in self.history if op.ok), stage.trace.count)  # fmt: skip


async def _quietly(work: Coroutine[Any, Any, Any]) -> None:
    """An operator's wish may be refused."""
    try:
        await work
    except (LogError, MembershipError):
        return


def _serves(box: Box) -> bool:
    """Whether its program runs, and is past its start: one that a client asks again may have begun anew."""
    return box.running and "log" in box.program_state
