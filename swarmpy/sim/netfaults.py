"""What can go wrong with networks: kernels, what others do to them, and an agent that dies programming them.

What belongs here: the faults of links, balancers, tables under way, addresses of machines. What does not:
the simulated kernel (kernel.py, netstack.py, balancer.py), all other faults (faults.py).
"""

from __future__ import annotations

import random
from collections.abc import Callable

from msgspec.structs import replace

from swarmpy.node import record
from swarmpy.sim.disk import SimDisk
from swarmpy.sim.faults import Undo, down, fault, nothing
from swarmpy.sim.net import Conditions
from swarmpy.sim.netstack import DRIFTS
from swarmpy.sim.stage import Box, Stage


def _some(stage: Stage, chance: random.Random) -> Box:
    return chance.choice(list(stage.boxes.values()))


def _meddled(stage: Stage, box: Box, undo: Callable[[], None] = nothing) -> Undo:
    """Somebody was at the kernel now, and until it is undone."""
    box.kernel.disturbed = stage.loop.instant

    def end() -> None:
        undo()
        box.kernel.disturbed = stage.loop.instant

    return end


@fault("kernel-hangs", "fabric")
def _kernel_hangs(stage: Stage, chance: random.Random) -> Undo | None:
    """System calls about links and rules of a machine do not return for a while."""
    box = _some(stage, chance)
    if chance.random() < 0.7:
        box.kernel.stack.hang()
    if chance.random() < 0.7:
        box.kernel.filter.hang()
    return _meddled(stage, box, box.kernel.heal)


@fault("kernel-refuses", "fabric")
def _kernel_refuses(stage: Stage, chance: random.Random) -> Undo | None:
    """Some or all changes of links and rules are refused."""
    box = _some(stage, chance)
    box.kernel.stack.refuse = chance.choice((0.0, 0.2, 1.0))
    box.kernel.filter.refuse = chance.choice((0.0, 0.2, 1.0))
    return _meddled(stage, box, box.kernel.heal)


@fault("rules-unsealed", "fabric")
def _rules_unsealed(stage: Stage, chance: random.Random) -> Undo | None:
    """Changes of rules are done, but end with an error before they are sealed."""
    box = _some(stage, chance)
    box.kernel.filter.unsealed = chance.uniform(0.2, 1.0)
    return _meddled(stage, box, box.kernel.heal)


@fault("slow-rules", "fabric")
def _slow_rules(stage: Stage, chance: random.Random) -> Undo | None:
    """Each change of rules takes up to a second."""
    box = _some(stage, chance)
    box.kernel.filter.latency = (0.1, 1.0)
    return _meddled(stage, box, box.kernel.heal)


@fault("rules-flushed", "fabric")
def _rules_flushed(stage: Stage, chance: random.Random) -> Undo | None:
    """Somebody flushes nftables: in one container, in all of them, or on the host."""
    box = _some(stage, chance)
    rules = box.kernel.filter
    held = sorted(rules.sandboxes)
    if chance.random() < 0.5 or not held:
        rules.flush_mesh()
    for path in held if chance.random() < 0.5 else held[:1]:
        rules.flush(path)
    _meddled(stage, box)
    box.kernel.flushed = stage.loop.instant
    return nothing


@fault("drift", "fabric")
def _drift(stage: Stage, chance: random.Random) -> Undo | None:
    """Somebody changes links: a device goes down, gets another MTU, leaves its bridge, is removed."""
    places = [(box, room) for box in stage.boxes.values() for room in sorted(box.kernel.stack.rooms)]
    if not places:
        return None
    box, room = chance.choice(places)
    if not box.kernel.stack.drift(room, chance.choice(sorted(DRIFTS))):
        return None
    _meddled(stage, box)
    return nothing


@fault("link-removed", "fabric")
def _link_removed(stage: Stage, chance: random.Random) -> Undo | None:
    """Somebody deletes a container's link to a network: it cannot be given another."""
    plugged = [(box, name) for box in stage.boxes.values()
               for name, room in sorted(box.kernel.stack.rooms.items()) if room.ports]  # fmt: skip
    if not plugged:
        return None
    box, room = chance.choice(plugged)
    box.kernel.stack.drift(room, "port gone")
    _meddled(stage, box)
    return nothing


@fault("killed-programming", "fabric")
def _killed_programming(stage: Stage, chance: random.Random) -> Undo | None:
    """An agent dies between two steps of programming links."""
    running = stage.up
    if not running:
        return None
    box = chance.choice(running)
    box.kernel.die_after = chance.randint(1, 12)

    def undo() -> None:
        box.kernel.die_after = None

    return undo


@fault("sessions-cut", "fabric")
def _sessions_cut(stage: Stage, chance: random.Random) -> Undo | None:
    """One machine's connections break again and again, and what is under way to it comes late or never."""
    box = _some(stage, chance)
    others = [other for other in stage.boxes.values() if other is not box]
    late = Conditions(latency=(0.01, 0.6), reset=0.1)
    for other in others:
        stage.net.links[other.host, box.host] = late
        stage.net.reset(box.host, other.host)

    def undo() -> None:
        for other in others:
            if stage.net.links.get((other.host, box.host)) is late:
                del stage.net.links[other.host, box.host]

    return undo


@fault("driver-away", "fabric")
def _driver_away(stage: Stage, chance: random.Random) -> Undo | None:
    """An agent is killed while its Engine starts and stops containers: the driver's socket is dead."""
    box = _some(stage, chance)
    undo = down(box if box.running else None, power=False)
    running = [one for one in box.dockerd.listed if one.state == "running" and one.places]
    for container in running[:2]:
        box.dockerd.finish(container, 1)
    return undo


@fault("address-change", "fabric")
def _address_change(stage: Stage, chance: random.Random) -> Undo | None:
    """A worker comes up with another address, and its operator tells it so."""
    workers = [box for box in stage.of_kind("worker") if box.running and not box.rotted]
    if not workers:
        return None
    box = chance.choice(workers)
    known = record.load(SimDisk(box.platter))
    if known is None or known.logged:
        return None
    down(box, power=True)
    stage.moves += 1
    box.move(f"192.168.9.{stage.moves}")
    record.save(SimDisk(box.platter), replace(known, advertise=box.address, listen=box.address))
    return box.start
