"""Everything that can go wrong: a registry of fault kinds.

What belongs here: the faults, each a function that does the damage and returns what undoes it, and the
nemesis that plays a random subset of them from the seed. What does not: the machinery that suffers
(net.py, disk.py, engine.py, stage.py).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from swarmpy.sim.net import Conditions
from swarmpy.sim.stage import Box, Stage

Undo = Callable[[], None]


def _nothing() -> None:
    """For faults that need no undoing."""


def _each(undos: list[Undo]) -> Undo:
    def undo_all() -> None:
        for undo in undos:
            undo()

    return undo_all


@dataclass(frozen=True, slots=True)
class Fault:
    """A kind of fault. `what` is for people; `group`: network, process, disk, clock, engine."""

    name: str
    group: str
    what: str
    begin: Callable[[Stage, random.Random], Undo | None]


REGISTRY: dict[str, Fault] = {}


def _fault(name: str, group: str) -> Callable[[Callable[[Stage, random.Random], Undo | None]], Fault]:
    def register(begin: Callable[[Stage, random.Random], Undo | None]) -> Fault:
        REGISTRY[name] = Fault(name, group, (begin.__doc__ or name).strip().rstrip("."), begin)
        return REGISTRY[name]

    return register


def _any(stage: Stage, chance: random.Random, *, kind: str = "") -> Box | None:
    """A running box."""
    boxes = [box for box in stage.up if box.kind == (kind or box.kind)]
    return chance.choice(boxes) if boxes else None


def _leader(stage: Stage) -> Box | None:
    return next((box for box in stage.up if box.leads()), None)


# ---------------------------------------------------------------- network


@_fault("partition", "network")
def _partition(stage: Stage, chance: random.Random) -> Undo | None:
    """The machines fall into two groups that cannot reach each other."""
    hosts = [box.host for box in stage.boxes.values()]
    chance.shuffle(hosts)
    cut = chance.randint(1, max(1, len(hosts) - 1))
    return stage.net.wall(hosts[:cut], hosts[cut:])


@_fault("one-way", "network")
def _one_way(stage: Stage, chance: random.Random) -> Undo | None:
    """One machine can send but not receive, or receive but not send."""
    box = chance.choice(list(stage.boxes.values()))
    others = [other.host for other in stage.boxes.values() if other is not box]
    if chance.random() < 0.5:
        return stage.net.wall([box.host], others, both=False)
    return stage.net.wall(others, [box.host], both=False)


@_fault("bridge", "network")
def _bridge(stage: Stage, chance: random.Random) -> Undo | None:
    """Two halves cannot reach each other, but one manager reaches both."""
    hosts = [box.host for box in stage.of_kind("manager")]
    chance.shuffle(hosts)
    rest = hosts[1:]
    return stage.net.wall(rest[: len(rest) // 2], rest[len(rest) // 2 :])


@_fault("cut-pair", "network")
def _cut_pair(stage: Stage, chance: random.Random) -> Undo | None:
    """Two machines cannot reach each other; everybody else can reach both."""
    if len(stage.boxes) < 2:
        return None
    one, other = chance.sample(list(stage.boxes.values()), 2)
    return stage.net.wall([one.host], [other.host])


@_fault("isolate-leader", "network")
def _isolate_leader(stage: Stage, chance: random.Random) -> Undo | None:
    """The leader is cut off from everybody."""
    box = _leader(stage)
    if box is None:
        return None
    return stage.net.wall([box.host], [other.host for other in stage.boxes.values()])


@_fault("swizzle", "network")
def _swizzle(stage: Stage, chance: random.Random) -> Undo | None:
    """Machines are cut off one after the other and come back in another order."""
    boxes = list(stage.boxes.values())
    chance.shuffle(boxes)
    undos: list[Undo] = []
    order = list(range(len(boxes)))
    chance.shuffle(order)
    everybody = [box.host for box in boxes]

    def cut(place: int) -> None:
        undo = stage.net.wall([boxes[place].host], everybody)
        undos.append(undo)
        stage.net.later(0.2 + 0.3 * order[place], undo)

    for place in range(len(boxes)):
        stage.net.later(0.15 * place, cut, place)
    return _each(undos)


@_fault("slow-net", "network")
def _slow_net(stage: Stage, chance: random.Random) -> Undo | None:
    """Messages take up to half a second."""
    return _usual(stage, Conditions(latency=(0.001, chance.uniform(0.05, 0.5))))


@_fault("slow-link", "network")
def _slow_link(stage: Stage, chance: random.Random) -> Undo | None:
    """Messages between two machines take up to a second, in one direction."""
    if len(stage.boxes) < 2:
        return None
    one, other = chance.sample(list(stage.boxes.values()), 2)
    stage.net.links[one.host, other.host] = Conditions(latency=(0.05, chance.uniform(0.1, 1.0)))

    def undo() -> None:
        stage.net.links.pop((one.host, other.host), None)

    return undo


@_fault("loss", "network")
def _loss(stage: Stage, chance: random.Random) -> Undo | None:
    """Packets are lost and have to be sent again."""
    return _usual(stage, Conditions(loss=chance.uniform(0.01, 0.3)))


@_fault("resets", "network")
def _resets(stage: Stage, chance: random.Random) -> Undo | None:
    """Connections break under messages."""
    return _usual(stage, Conditions(reset=chance.uniform(0.005, 0.05)))


@_fault("reset-all", "network")
def _reset_all(stage: Stage, chance: random.Random) -> Undo | None:
    """All connections of a machine break at once."""
    box = chance.choice(list(stage.boxes.values()))
    for other in stage.boxes.values():
        stage.net.reset(box.host, other.host)
    return _nothing


@_fault("duplicates", "network")
def _duplicates(stage: Stage, chance: random.Random) -> Undo | None:
    """Requests arrive twice."""
    return _usual(stage, Conditions(duplicate=chance.uniform(0.1, 0.5)))


def _usual(stage: Stage, conditions: Conditions) -> Undo:
    stage.net.usual = conditions

    def undo() -> None:
        if stage.net.usual is conditions:
            stage.net.usual = Conditions()

    return undo


# ---------------------------------------------------------------- processes


@_fault("kill", "process")
def _kill(stage: Stage, chance: random.Random) -> Undo | None:
    """A program is killed without a goodbye."""
    return _down(_any(stage, chance), power=False)


@_fault("kill-leader", "process")
def _kill_leader(stage: Stage, chance: random.Random) -> Undo | None:
    """The leader is killed."""
    return _down(_leader(stage), power=False)


@_fault("power-cut", "process")
def _power_cut(stage: Stage, chance: random.Random) -> Undo | None:
    """A machine loses power and with it all that was not synced."""
    return _down(_any(stage, chance), power=True)


@_fault("blackout", "process")
def _blackout(stage: Stage, chance: random.Random) -> Undo | None:
    """Every manager loses power at once."""
    undos = [_down(box, power=True) for box in stage.of_kind("manager") if box.running]
    return _each([undo for undo in undos if undo is not None])


def _down(box: Box | None, *, power: bool) -> Undo | None:
    if box is None:
        return None
    box.wanted = False
    box.kill(power=power)
    return box.start


@_fault("pause", "process")
def _pause(stage: Stage, chance: random.Random) -> Undo | None:
    """A program stands still for a while, its connections open."""
    box = _any(stage, chance)
    if box is None or box.process is None or box.process.paused:
        return None
    process = box.process
    stage.loop.pause(process)
    return lambda: stage.loop.resume(process)


@_fault("pause-leader", "process")
def _pause_leader(stage: Stage, chance: random.Random) -> Undo | None:
    """The leader stands still for a while, and then goes on as if nothing had happened."""
    box = _leader(stage)
    if box is None or box.process is None or box.process.paused:
        return None
    process = box.process
    stage.loop.pause(process)
    return lambda: stage.loop.resume(process)


# ---------------------------------------------------------------- disks


@_fault("crash-point", "disk")
def _crash_point(stage: Stage, chance: random.Random) -> Undo | None:
    """Power is cut before or after one of the next disk operations."""
    box = _any(stage, chance)
    if box is None:
        return None
    box.crash_after = chance.randint(1, 40)

    def undo() -> None:
        box.crash_after = None

    return undo


@_fault("slow-disk", "disk")
def _slow_disk(stage: Stage, chance: random.Random) -> Undo | None:
    """Writes of one machine take up to a second."""
    box = chance.choice(list(stage.boxes.values()))
    box.platter.latency = (0.01, chance.uniform(0.05, 1.0))

    def undo() -> None:
        box.platter.latency = box.platter.QUICK

    return undo


@_fault("full-disk", "disk")
def _full_disk(stage: Stage, chance: random.Random) -> Undo | None:
    """A disk fills up."""
    box = chance.choice(list(stage.boxes.values()))
    box.platter.capacity = box.platter.used + chance.randint(0, 4000)

    def undo() -> None:
        box.platter.capacity = None

    return undo


@_fault("sync-error", "disk")
def _sync_error(stage: Stage, chance: random.Random) -> Undo | None:
    """A sync fails; what it should have kept is lost at the next power cut."""
    box = chance.choice(list(stage.boxes.values()))
    box.platter.failing_sync = chance.randint(1, 2)

    def undo() -> None:
        box.platter.failing_sync = 0

    return undo


@_fault("bit-rot", "disk")
def _bit_rot(stage: Stage, chance: random.Random) -> Undo | None:
    """A stopped manager's disk changes a byte by itself (never on as many as a majority needs)."""
    managers = stage.of_kind("manager")
    hurt = sum(1 for box in managers if box.rotted or box.broken)
    box = _any(stage, chance, kind="manager")
    if box is None or (hurt + 1) * 2 >= len(managers):
        return None
    _down(box, power=False)
    files = [path for path in sorted(box.platter.live) if box.platter.live[path].data and "raft" in path]
    if files:
        path = chance.choice(files)
        offset = chance.randrange(len(box.platter.live[path].data))
        box.platter.rot(path, offset, 1 << chance.randrange(8))
        box.rotted = True
        stage.trace.emit(box.name, f"a bit rots in {path} at {offset}")
    return box.start


# ---------------------------------------------------------------- clocks


@_fault("clock-jump", "clock")
def _clock_jump(stage: Stage, chance: random.Random) -> Undo | None:
    """A wall clock is set forward or back by up to an hour."""
    box = chance.choice(list(stage.boxes.values()))
    by = chance.randint(-3600, 3600) * 10**9
    box.clock.jump(by)
    return lambda: box.clock.jump(-by)


@_fault("clock-drift", "clock")
def _clock_drift(stage: Stage, chance: random.Random) -> Undo | None:
    """A machine's clocks run up to a tenth too fast or too slow."""
    box = chance.choice(list(stage.boxes.values()))
    box.clock.set_drift(chance.uniform(-0.1, 0.1))
    return lambda: box.clock.set_drift(0.0)


# ---------------------------------------------------------------- engines


@_fault("engine-dies", "engine")
def _engine_dies(stage: Stage, chance: random.Random) -> Undo | None:
    """An Engine is killed and started again; live-restore keeps its containers."""
    daemon = chance.choice(list(stage.boxes.values())).dockerd
    if not daemon.up:
        return None
    daemon.die()
    return daemon.revive


@_fault("engine-hangs", "engine")
def _engine_hangs(stage: Stage, chance: random.Random) -> Undo | None:
    """An Engine accepts requests and answers none for a while."""
    daemon = chance.choice(list(stage.boxes.values())).dockerd
    daemon.hang()
    return daemon.unhang


@_fault("events-lost", "engine")
def _events_lost(stage: Stage, chance: random.Random) -> Undo | None:
    """An Engine's events are lost."""
    daemon = chance.choice(list(stage.boxes.values())).dockerd
    daemon.deaf = chance.uniform(0.2, 1.0)

    def undo() -> None:
        daemon.deaf = 0.0

    return undo


@_fault("slow-pull", "engine")
def _slow_pull(stage: Stage, chance: random.Random) -> Undo | None:
    """Pulls take long."""
    daemon = chance.choice(list(stage.boxes.values())).dockerd
    daemon.pull_time = (1.0, 10.0)

    def undo() -> None:
        daemon.pull_time = (0.1, 1.0)

    return undo


@_fault("start-refused", "engine")
def _start_refused(stage: Stage, chance: random.Random) -> Undo | None:
    """An Engine refuses to start some containers."""
    daemon = chance.choice(list(stage.boxes.values())).dockerd
    daemon.refuse_start = chance.uniform(0.2, 1.0)

    def undo() -> None:
        daemon.refuse_start = 0.0

    return undo


@_fault("container-dies", "engine")
def _container_dies(stage: Stage, chance: random.Random) -> Undo | None:
    """A container's process crashes, or is killed for its memory."""
    running = [(box.dockerd, container) for box in stage.boxes.values()
               for container in box.dockerd.listed if container.state == "running"]  # fmt: skip
    if not running:
        return None
    daemon, container = chance.choice(running)
    daemon.finish(container, chance.choice((0, 1, 137)), oom=chance.random() < 0.3)
    return _nothing


@_fault("container-removed", "engine")
def _container_removed(stage: Stage, chance: random.Random) -> Undo | None:
    """Somebody removes a container behind our back."""
    present = [(box.dockerd, container) for box in stage.boxes.values()
               for container in box.dockerd.listed]  # fmt: skip
    if not present:
        return None
    daemon, container = chance.choice(present)
    daemon.delete(container.id)
    return _nothing


# ---------------------------------------------------------------- the nemesis

BASIC = ("network", "process", "disk", "clock")


def subset(chance: random.Random, names: Sequence[str]) -> list[str]:
    """The kinds that one seed enables: few or many of them."""
    count = min(len(names), chance.choice((1, 2, 3, 3, 5, 8, len(names))))
    return sorted(chance.sample(list(names), count))


class Nemesis:
    """Plays faults for a while, each undone after a time of its own."""

    def __init__(self, stage: Stage, names: Sequence[str], *, pace: tuple[float, float] = (0.1, 1.5),
                 spell: tuple[float, float] = (0.1, 4.0)) -> None:  # fmt: skip
        self.stage = stage
        self.faults = [REGISTRY[name] for name in names]
        self.pace = pace
        self.spell = spell
        self.played: dict[str, int] = {}
        self._undos: dict[int, Undo] = {}
        self._number = 0

    async def play(self, duration: float) -> None:
        """Do damage for so many virtual seconds, then undo all that is left."""
        stage, chance = self.stage, self.stage.faults
        end = stage.loop.instant + duration
        while self.faults and stage.loop.instant < end:
            await asyncio.sleep(chance.uniform(*self.pace))
            self._strike(chance.choice(self.faults), chance)
        await asyncio.sleep(max(0.0, end - stage.loop.instant))
        for number in sorted(self._undos):
            self._undo(number)

    def _strike(self, fault: Fault, chance: random.Random) -> None:
        self.stage.trace.emit("nemesis", fault.name)
        undo = fault.begin(self.stage, chance)
        if undo is None:
            return
        self.played[fault.name] = self.played.get(fault.name, 0) + 1
        self._number += 1
        self._undos[self._number] = undo
        self.stage.net.later(chance.uniform(*self.spell), self._undo, self._number)

    def _undo(self, number: int) -> None:
        undo = self._undos.pop(number, None)
        if undo is not None:
            undo()
