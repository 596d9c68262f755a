"""Changes of the membership as faults: they strike while all others do.

What belongs here: who is let in, promoted, demoted, lost and removed, and crashes in the middle of it. What
does not: how an operator does that (keeper.py), all other faults (faults.py).
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from swarmpy.model.lifecycle import NodeState
from swarmpy.sim.faults import Undo, down, fault, nothing
from swarmpy.sim.stage import Box, Stage

if TYPE_CHECKING:
    from swarmpy.sim.keeper import Keeper

LATE = 1.5
"""Virtual seconds within which a machine crashes after its part in a change began."""


def _one_of(keeper: Keeper, chance: random.Random, role: str) -> tuple[Box, str] | None:
    """A machine that runs and is to have the role, and its node."""
    world = keeper.cluster.newest_world()
    found = [(box, key) for key, box in keeper.held().items()
             if key in world.nodes and world.nodes[key].view.role == role and box.running]  # fmt: skip
    return chance.choice(found) if found else None


def _soon(stage: Stage, chance: random.Random, box: Box) -> Undo:
    """Kill the machine, or cut its power, in the middle of what it does now."""
    if chance.random() < 0.5:
        box.crash_after = chance.randint(1, 25)

        def spare() -> None:
            box.crash_after = None

        return spare
    over = False
    power = chance.random() < 0.5

    def strike() -> None:
        if not over and box.running:
            down(box, power=power)

    def undo() -> None:
        nonlocal over
        over = True
        box.start()

    stage.net.later(chance.uniform(0.0, LATE), strike)
    return undo


@fault("join-worker", "membership")
def _join_worker(stage: Stage, chance: random.Random) -> Undo | None:
    """A new machine joins with the worker token."""
    return _join(stage, "worker")


@fault("join-manager", "membership")
def _join_manager(stage: Stage, chance: random.Random) -> Undo | None:
    """A new machine joins with the manager token."""
    return _join(stage, "manager")


def _join(stage: Stage, kind: str) -> Undo | None:
    box = stage.keeper.add(kind) if stage.keeper is not None else None
    if box is None:
        return None
    box.start()
    return nothing


@fault("crash-joining", "membership")
def _crash_joining(stage: Stage, chance: random.Random) -> Undo | None:
    """A new machine crashes in the middle of joining."""
    box = stage.keeper.add(chance.choice(("worker", "manager"))) if stage.keeper is not None else None
    if box is None:
        return None
    box.start()
    return _soon(stage, chance, box)


@fault("promote", "membership")
def _promote(stage: Stage, chance: random.Random) -> Undo | None:
    """A worker is promoted."""
    return _turn(stage, chance, "worker", "manager", crash=False)


@fault("demote", "membership")
def _demote(stage: Stage, chance: random.Random) -> Undo | None:
    """A manager is demoted; where the quorum would be lost that has to be refused."""
    return _turn(stage, chance, "manager", "worker", crash=False)


@fault("crash-promoted", "membership")
def _crash_promoted(stage: Stage, chance: random.Random) -> Undo | None:
    """A worker crashes in the middle of its promotion."""
    return _turn(stage, chance, "worker", "manager", crash=True)


@fault("crash-demoted", "membership")
def _crash_demoted(stage: Stage, chance: random.Random) -> Undo | None:
    """A manager crashes in the middle of its demotion."""
    return _turn(stage, chance, "manager", "worker", crash=True)


def _turn(stage: Stage, chance: random.Random, old: str, new: str, *, crash: bool) -> Undo | None:
    keeper = stage.keeper
    found = _one_of(keeper, chance, old) if keeper is not None else None
    if keeper is None or found is None or (new == "worker" and not keeper.can_spare(None, demoted=1)):
        return None
    box, node_id = found
    keeper.begin(_as_asked(keeper, node_id, new))
    return _soon(stage, chance, box) if crash else nothing


async def _as_asked(keeper: Keeper, node_id: str, role: str) -> None:
    await keeper.set_role(node_id, role)


@fault("demote-leader", "membership")
def _demote_leader(stage: Stage, chance: random.Random) -> Undo | None:
    """The leader is demoted: it has to hand over first."""
    keeper = stage.keeper
    box = next((box for box in stage.up if box.leads()), None)
    node_id = keeper.node_of(box) if keeper is not None and box is not None else ""
    if keeper is None or not node_id or not keeper.can_spare(None, demoted=1):
        return None
    keeper.begin(_as_asked(keeper, node_id, "worker"))
    return nothing


@fault("transfer", "membership")
def _transfer(stage: Stage, chance: random.Random) -> Undo | None:
    """The leader hands over to another manager."""
    box = next((box for box in stage.up if box.leads()), None)
    if stage.keeper is None or box is None:
        return None
    stage.keeper.begin(stage.keeper.transfer(box))
    return nothing


@fault("leave", "membership")
def _leave(stage: Stage, chance: random.Random) -> Undo | None:
    """A node leaves by itself, and its machine joins again as another."""
    keeper = stage.keeper
    boxes = [box for box in keeper.held().values() if box.running] if keeper is not None else []
    if keeper is None or not boxes:
        return None
    box = chance.choice(boxes)
    if not keeper.can_spare(box) or "node" not in box.program_state:
        return None
    keeper.begin(keeper.leave(box))
    return nothing


@fault("remove-node", "membership")
def _remove_node(stage: Stage, chance: random.Random) -> Undo | None:
    """A worker that runs is removed by force; its machine joins again as another node."""
    keeper = stage.keeper
    found = _one_of(keeper, chance, "worker") if keeper is not None else None
    if keeper is None or found is None:
        return None
    keeper.begin(_removed(keeper, found[1], force=True))
    return nothing


async def _removed(keeper: Keeper, node_id: str, *, force: bool) -> None:
    await keeper.remove(node_id, force=force)


@fault("remove-lost", "membership")
def _remove_lost(stage: Stage, chance: random.Random) -> Undo | None:
    """A worker that is down is removed, though its machine may come back."""
    keeper = stage.keeper
    if keeper is None:
        return None
    lost = [node.id for node in keeper.cluster.newest_world().nodes
            if node.status.state is NodeState.DOWN and node.view.role == "worker"]  # fmt: skip
    if not lost:
        return None
    keeper.begin(_removed(keeper, chance.choice(lost), force=False))
    return nothing


@fault("wipe", "membership")
def _wipe(stage: Stage, chance: random.Random) -> Undo | None:
    """A machine's disk is lost; it comes back empty and joins as a new node."""
    keeper = stage.keeper
    boxes = [box for box in stage.up if not box.rotted]
    if keeper is None or not boxes:
        return None
    box = chance.choice(boxes)
    if not keeper.can_spare(box):
        return None
    down(box, power=True)
    keeper.wipe(box)
    return box.start


@fault("amnesia", "disk")
def _amnesia(stage: Stage, chance: random.Random) -> Undo | None:
    """An agent is killed and forgets what it ran; the managers and the Engine know."""
    boxes = [box for box in stage.up if "agent/tasks" in box.platter.live]
    if not boxes:
        return None
    box = chance.choice(boxes)
    undo = down(box, power=False)
    box.platter.erase("agent/tasks")
    return undo
