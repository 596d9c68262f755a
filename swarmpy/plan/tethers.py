"""Running containers that lost their link to a network: tasks + containers + links -> who lost what.

A link that was swept, or removed by somebody, cannot be given back to a container that runs: the Engine plugs
only at a start. So its task is to fail, and another one takes its place.
What belongs here: the comparison, pure and level-triggered. What does not: looking and remembering
(agent/tethers.py), stopping the container (engine.py), mending what can be mended (fabric.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from swarmpy.model.lifecycle import TERMINAL, TaskState
from swarmpy.model.links import LinkSeen
from swarmpy.plan.node import LocalTask

HOLD = 1.0
"""Seconds after which a link that was missed is looked for again: containers and links are not looked at in
one instant, and a look may have begun before the link came."""

Place = tuple[str, str, tuple[str, ...]]
"""A task's id, a network's, and the Engine's endpoints of the container, others after each start."""


@dataclass(frozen=True, slots=True)
class Tethers:
    """All that is known. `containers`: the Engine's endpoints of running containers by task id, as it was at
    `engine_at`; `links` are the kernel's, of a look that began at `links_at`; `missing`: since when places
    have had no link. Times in seconds of any one clock."""

    tasks: Mapping[str, LocalTask]
    containers: Mapping[str, tuple[str, ...]]
    engine_at: float
    links: Mapping[str, LinkSeen]
    links_at: float
    missing: Mapping[Place, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """`missing` is to be remembered; `lost`: task ids with the networks whose links are surely gone."""

    missing: Mapping[Place, float]
    lost: Mapping[str, tuple[str, ...]]


def judge(now: float, world: Tethers) -> Verdict:
    """Compare. A link counts as lost when the Engine was asked again well after it was first missed, and the
    links were looked at after that, and it still is not there."""
    missing = {place: world.missing.get(place, now) for place in _loose(world)}
    lost: dict[str, tuple[str, ...]] = {}
    for place, since in missing.items():
        if since + HOLD <= world.engine_at <= world.links_at:
            lost[place[0]] = (*lost.get(place[0], ()), place[1])
    return Verdict(missing, lost)


def _loose(world: Tethers) -> list[Place]:
    """Places without a link. Networks whose links are damaged are mended first: their ports may only be out
    of the bridge."""
    found: list[Place] = []
    for task_id, endpoints in sorted(world.containers.items()):
        local = world.tasks.get(task_id)
        if local is None or not wanted(local):
            continue
        for one in local.assigned.networks:
            seen = world.links.get(one.network_id)
            if seen is not None and seen.link is not None and seen.plugs.keys().isdisjoint(endpoints):
                found.append((task_id, one.network_id, endpoints))
    return found


def wanted(local: LocalTask) -> bool:
    """Whether the task's container is to run on."""
    ends = local.leaving or local.doomed or local.assigned.desired >= TaskState.SHUTDOWN
    return not ends and local.status.state not in TERMINAL


def sentence(names: tuple[str, ...]) -> str:
    """Why the task ends, for whoever reads its status."""
    what = (
        f"link to network {names[0]} is" if len(names) == 1 else f"links to networks {', '.join(names)} are"
    )
    return f"the container's {what} gone from this node, and only a new container can be given one"
