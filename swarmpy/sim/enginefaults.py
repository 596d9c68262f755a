"""What can go wrong with container Engines.

What belongs here: the faults of the Engine and of containers. What does not: the Engine (engine.py), all
other faults (faults.py).
"""

from __future__ import annotations

import random

from swarmpy.sim.faults import Undo, fault, nothing
from swarmpy.sim.stage import Stage


@fault("engine-dies", "engine")
def _engine_dies(stage: Stage, chance: random.Random) -> Undo | None:
    """An Engine is killed and started again; live-restore keeps its containers."""
    daemon = chance.choice(list(stage.boxes.values())).dockerd
    if not daemon.up:
        return None
    daemon.die()
    return daemon.revive


@fault("engine-hangs", "engine")
def _engine_hangs(stage: Stage, chance: random.Random) -> Undo | None:
    """An Engine accepts requests and answers none for a while."""
    daemon = chance.choice(list(stage.boxes.values())).dockerd
    daemon.hang()
    return daemon.unhang


@fault("events-lost", "engine")
def _events_lost(stage: Stage, chance: random.Random) -> Undo | None:
    """An Engine's events are lost."""
    daemon = chance.choice(list(stage.boxes.values())).dockerd
    daemon.deaf = chance.uniform(0.2, 1.0)

    def undo() -> None:
        daemon.deaf = 0.0

    return undo


@fault("slow-pull", "engine")
def _slow_pull(stage: Stage, chance: random.Random) -> Undo | None:
    """Pulls take long."""
    daemon = chance.choice(list(stage.boxes.values())).dockerd
    daemon.pull_time = (1.0, 10.0)

    def undo() -> None:
        daemon.pull_time = (0.1, 1.0)

    return undo


@fault("start-refused", "engine")
def _start_refused(stage: Stage, chance: random.Random) -> Undo | None:
    """An Engine refuses to start some containers."""
    daemon = chance.choice(list(stage.boxes.values())).dockerd
    daemon.refuse_start = chance.uniform(0.2, 1.0)

    def undo() -> None:
        daemon.refuse_start = 0.0

    return undo


@fault("container-dies", "engine")
def _container_dies(stage: Stage, chance: random.Random) -> Undo | None:
    """A container's process crashes, or is killed for its memory."""
    running = [(box.dockerd, container) for box in stage.boxes.values()
               for container in box.dockerd.listed if container.state == "running"]  # fmt: skip
    if not running:
        return None
    daemon, container = chance.choice(running)
    daemon.finish(container, chance.choice((0, 1, 137)), oom=chance.random() < 0.3)
    return nothing


@fault("container-removed", "engine")
def _container_removed(stage: Stage, chance: random.Random) -> Undo | None:
    """Somebody removes a container behind our back."""
    present = [(box.dockerd, container) for box in stage.boxes.values()
               for container in box.dockerd.listed]  # fmt: skip
    if not present:
        return None
    daemon, container = chance.choice(present)
    daemon.delete(container.id)
    return nothing
