"""Everything that can go wrong: a registry of fault kinds.

What belongs here: the faults of networks, processes, disks and clocks, each a function that does the damage
and returns what undoes it. What does not: those of Engines (enginefaults.py), when they strike (nemesis.py),
the machinery that suffers (net.py, disk.py, stage.py).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from swarmpy.sim.net import Conditions
from swarmpy.sim.stage import Box, Stage

Undo = Callable[[], None]


def nothing() -> None:
    """For faults that need no undoing."""


def _each(undos: list[Undo]) -> Undo:
    def undo_all() -> None:
        for undo in undos:
            undo()

    return undo_all


@dataclass(frozen=True, slots=True)
class Fault:
    """A kind of fault. `what` is for people; `group`: network, process, disk, clock, engine, membership,
    fabric."""

    name: str
    group: str
    what: str
    begin: Callable[[Stage, random.Random], Undo | None]


REGISTRY: dict[str, Fault] = {}


def fault(name: str, group: str) -> Callable[[Callable[[Stage, random.Random], Undo | None]], Fault]:
    """Register the decorated fault; its docstring is what people read."""

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


@fault("partition", "network")
def _partition(stage: Stage, chance: random.Random) -> Undo | None:
    """The machines fall into two groups that cannot reach each other."""
    hosts = [box.host for box in stage.boxes.values()]
    chance.shuffle(hosts)
    cut = chance.randint(1, max(1, len(hosts) - 1))
    return stage.net.wall(hosts[:cut], hosts[cut:])


@fault("one-way", "network")
def _one_way(stage: Stage, chance: random.Random) -> Undo | None:
    """One machine can send but not receive, or receive but not send."""
    box = chance.choice(list(stage.boxes.values()))
    others = [other.host for other in stage.boxes.values() if other is not box]
    if chance.random() < 0.5:
        return stage.net.wall([box.host], others, both=False)
    return stage.net.wall(others, [box.host], both=False)


@fault("bridge", "network")
def _bridge(stage: Stage, chance: random.Random) -> Undo | None:
    """Two halves cannot reach each other, but one manager reaches both."""
    hosts = [box.host for box in stage.of_kind("manager")]
    chance.shuffle(hosts)
    rest = hosts[1:]
    return stage.net.wall(rest[: len(rest) // 2], rest[len(rest) // 2 :])


@fault("cut-pair", "network")
def _cut_pair(stage: Stage, chance: random.Random) -> Undo | None:
    """Two machines cannot reach each other; everybody else can reach both."""
    if len(stage.boxes) < 2:
        return None
    one, other = chance.sample(list(stage.boxes.values()), 2)
    return stage.net.wall([one.host], [other.host])


@fault("isolate-leader", "network")
def _isolate_leader(stage: Stage, chance: random.Random) -> Undo | None:
    """The leader is cut off from everybody."""
    box = _leader(stage)
    if box is None:
        return None
    return stage.net.wall([box.host], [other.host for other in stage.boxes.values()])


@fault("swizzle", "network")
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


@fault("slow-net", "network")
def _slow_net(stage: Stage, chance: random.Random) -> Undo | None:
    """Messages take up to half a second."""
    return _usual(stage, Conditions(latency=(0.001, chance.uniform(0.05, 0.5))))


@fault("slow-link", "network")
def _slow_link(stage: Stage, chance: random.Random) -> Undo | None:
    """Messages between two machines take up to a second, in one direction."""
    if len(stage.boxes) < 2:
        return None
    one, other = chance.sample(list(stage.boxes.values()), 2)
    stage.net.links[one.host, other.host] = Conditions(latency=(0.05, chance.uniform(0.1, 1.0)))

    def undo() -> None:
        stage.net.links.pop((one.host, other.host), None)

    return undo


@fault("loss", "network")
def _loss(stage: Stage, chance: random.Random) -> Undo | None:
    """Packets are lost and have to be sent again."""
    return _usual(stage, Conditions(loss=chance.uniform(0.01, 0.3)))


@fault("resets", "network")
def _resets(stage: Stage, chance: random.Random) -> Undo | None:
    """Connections break under messages."""
    return _usual(stage, Conditions(reset=chance.uniform(0.005, 0.05)))


@fault("reset-all", "network")
def _reset_all(stage: Stage, chance: random.Random) -> Undo | None:
    """All connections of a machine break at once."""
    box = chance.choice(list(stage.boxes.values()))
    for other in stage.boxes.values():
        stage.net.reset(box.host, other.host)
    return nothing


@fault("duplicates", "network")
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


@fault("kill", "process")
def _kill(stage: Stage, chance: random.Random) -> Undo | None:
    """A program is killed without a goodbye."""
    return down(_any(stage, chance), power=False)


@fault("kill-leader", "process")
def _kill_leader(stage: Stage, chance: random.Random) -> Undo | None:
    """The leader is killed."""
    return down(_leader(stage), power=False)


@fault("power-cut", "process")
def _power_cut(stage: Stage, chance: random.Random) -> Undo | None:
    """A machine loses power and with it all that was not synced."""
    return down(_any(stage, chance), power=True)


@fault("blackout", "process")
def _blackout(stage: Stage, chance: random.Random) -> Undo | None:
    """Every manager loses power at once."""
    undos = [down(box, power=True) for box in stage.of_kind("manager") if box.running]
    return _each([undo for undo in undos if undo is not None])


def down(box: Box | None, *, power: bool) -> Undo | None:
    """Kill the machine's program, or cut its power; it stays down until that is undone."""
    if box is None:
        return None
    box.wanted = False
    box.kill(power=power)
    return box.start


@fault("pause", "process")
def _pause(stage: Stage, chance: random.Random) -> Undo | None:
    """A program stands still for a while, its connections open."""
    box = _any(stage, chance)
    if box is None or box.process is None or box.process.paused:
        return None
    process = box.process
    stage.loop.pause(process)
    return lambda: stage.loop.resume(process)


@fault("pause-leader", "process")
def _pause_leader(stage: Stage, chance: random.Random) -> Undo | None:
    """The leader stands still for a while, and then goes on as if nothing had happened."""
    box = _leader(stage)
    if box is None or box.process is None or box.process.paused:
        return None
    process = box.process
    stage.loop.pause(process)
    return lambda: stage.loop.resume(process)


# ---------------------------------------------------------------- disks


@fault("crash-point", "disk")
def _crash_point(stage: Stage, chance: random.Random) -> Undo | None:
    """Power is cut before or after one of the next disk operations."""
    box = _any(stage, chance)
    if box is None:
        return None
    box.crash_after = chance.randint(1, 40)

    def undo() -> None:
        box.crash_after = None

    return undo


@fault("slow-disk", "disk")
def _slow_disk(stage: Stage, chance: random.Random) -> Undo | None:
    """Writes of one machine take up to a second."""
    box = chance.choice(list(stage.boxes.values()))
    box.platter.latency = (0.01, chance.uniform(0.05, 1.0))

    def undo() -> None:
        box.platter.latency = box.platter.QUICK

    return undo


@fault("full-disk", "disk")
def _full_disk(stage: Stage, chance: random.Random) -> Undo | None:
    """A disk fills up."""
    box = chance.choice(list(stage.boxes.values()))
    box.platter.capacity = box.platter.used + chance.randint(0, 4000)

    def undo() -> None:
        box.platter.capacity = None

    return undo


@fault("sync-error", "disk")
def _sync_error(stage: Stage, chance: random.Random) -> Undo | None:
    """A sync fails; what it should have kept is lost at the next power cut."""
    box = chance.choice(list(stage.boxes.values()))
    box.platter.failing_sync = chance.randint(1, 2)

    def undo() -> None:
        box.platter.failing_sync = 0

    return undo


@fault("bit-rot", "disk")
def _bit_rot(stage: Stage, chance: random.Random) -> Undo | None:
    """A stopped manager's disk changes a bit by itself (never on as many as a majority needs)."""
    box = _any(stage, chance, kind="manager")
    if box is None or box.rotted or not _can_spare(stage, box):
        return None
    down(box, power=False)
    files = [path for path in sorted(box.platter.live) if box.platter.live[path].data]
    if files:
        path = chance.choice(files)
        offset = chance.randrange(len(box.platter.live[path].data))
        box.platter.rot(path, offset, 1 << chance.randrange(8))
        box.rotted = True  # until it is seen to start all the same
        stage.trace.emit(box.name, f"a bit rots in {path} at {offset}")
    return box.start


def _can_spare(stage: Stage, box: Box) -> bool:
    if stage.keeper is not None:
        return stage.keeper.can_spare(box)
    # Not how many machines there are counts, but who votes: some have joined and do not yet, others are gone.
    leader = next((one for one in stage.up if one.leads()), None)
    if leader is None:
        return False
    voters = {member.id for member in leader.program_state["log"].status().members if member.voter}
    hurt = {one.name for one in stage.of_kind("manager") if one.rotted or one.broken} | {box.name}
    return len(hurt & voters) * 2 < len(voters)


# ---------------------------------------------------------------- clocks


@fault("clock-jump", "clock")
def _clock_jump(stage: Stage, chance: random.Random) -> Undo | None:
    """A wall clock is set forward or back by up to an hour."""
    box = chance.choice(list(stage.boxes.values()))
    by = chance.randint(-3600, 3600) * 10**9
    box.clock.jump(by)
    return lambda: box.clock.jump(-by)


@fault("clock-drift", "clock")
def _clock_drift(stage: Stage, chance: random.Random) -> Undo | None:
    """A machine's clocks run up to a tenth too fast or too slow."""
    box = chance.choice(list(stage.boxes.values()))
    box.clock.set_drift(chance.uniform(-0.1, 0.1))
    return lambda: box.clock.set_drift(0.0)
