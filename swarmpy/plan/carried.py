"""What the agent knows of its network after it carried something out. See fabric.py, whose part this is."""

from __future__ import annotations

from dataclasses import replace

from swarmpy.model.links import LinkSeen
from swarmpy.plan.fabric import Forward, World
from swarmpy.plan.share import Sandboxes


def forwarded(seen: LinkSeen, action: Forward) -> LinkSeen:
    """The links after the action."""
    gone = {one.mac for one in action.remove}
    known = {mac: one for mac, one in seen.neighbours.items() if mac not in gone}
    known |= {one.mac: one for one in action.add}
    return replace(seen, neighbours=known)


def finished(world: World) -> frozenset[str]:
    """The sandboxes that hold all that their containers need."""
    wanted = Sandboxes(world.tables)
    return frozenset(
        path
        for task_id, path in world.sandboxes.items()
        if (table := wanted.table(task_id)) is not None and world.programmed.get(path) == table
    )
