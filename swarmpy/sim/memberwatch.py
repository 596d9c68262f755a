"""Invariants of the membership: certificates, roles and seats, at every step and at rest.

What belongs here: who may still be served, who may sit in the log, what certificates say. What does not: the
log itself (raftwatch.py), tasks (invariants.py, slotwatch.py), doing any of it (keeper.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from swarmpy.model.ids import node_of
from swarmpy.model.lifecycle import Role
from swarmpy.ports import Peer
from swarmpy.sim.invariants import Broken
from swarmpy.sim.wire import SimWire
from swarmpy.state.snapshot import Snapshot

if TYPE_CHECKING:
    from swarmpy.sim.cluster import Cluster

MANAGERS_ONLY = ("control.submit", "control.read_index", "control.status", "control.join_raft",
                 "logs.subscribe")  # fmt: skip
"""What only a manager may ask. Not `raft`: a seat is what counts there, and the log refuses spent ones."""


class MemberWatch:
    """See the file's charter."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._stage = cluster.stage
        self.removed: dict[str, int] = {}
        """Nodes that were removed, and the version of the world since when."""
        self.demoted: dict[str, int] = {}
        """Nodes that are workers after they were managers, and since when."""
        cluster.stage.net.serving = self.serving

    # ------------------------------------------------------------ at every step

    def step(self, box_name: str, old: Snapshot, new: Snapshot) -> None:
        """A batch changed the world, first on that machine."""
        if old.nodes is new.nodes:
            return
        for key, before in old.nodes.rows.items():
            after = new.nodes.get(key)
            if after is None:
                self.removed[key] = new.version
                self._no_seat(box_name, key, "was removed")
            elif before.role is Role.MANAGER and after.role is Role.WORKER:
                self.demoted[key] = new.version
                self._no_seat(box_name, key, "was demoted")
            elif after.role is Role.MANAGER:
                self.demoted.pop(key, None)
        for key in new.nodes.rows:
            if key in self.removed:
                self._stage.violate("removed-stays-out", f"node {key} is a member again after it was removed")

    def _no_seat(self, box_name: str, node_id: str, why: str) -> None:
        """A demoted manager has lost its seat before its role changes (37)."""
        membership = self._cluster.watch.membership_of(box_name)
        left = [one.id for one in membership.members if node_of(one.id) == node_id] if membership else []
        if left:
            self._stage.violate("seat-is-lost", f"node {node_id} {why} but still has the seat {left[0]}")

    def serving(self, wire: SimWire, peer: Peer, method: str) -> Callable[[], None]:
        """A request or a message of a channel is about to be served; the result is called when it was.

        A manager that knows of a removal serves the removed node nothing (34), and one that knows of a
        demotion serves the demoted node nothing that is for managers.
        """
        version = self._known(wire)
        why = ""
        if self.removed.get(peer.node_id, version + 1) <= version:
            why = "which it knows to be removed"
        elif method in MANAGERS_ONLY and self.demoted.get(peer.node_id, version + 1) <= version:
            why = "which it knows to be no manager any more"
        if not why:
            return _fine
        sentence = f"{wire.process.name} serves {method} to node {peer.node_id}, {why}"
        return lambda: self._stage.violate("revoked-is-refused", sentence)

    def _known(self, wire: SimWire) -> int:
        box = next(box for box in self._stage.boxes.values() if box.host == wire.host)
        world = self._cluster.world_of(box) if box.process is wire.process else None
        return world.version if world is not None else 0

    # ------------------------------------------------------------ at rest

    def rest(self, world: Snapshot) -> Iterator[Broken]:
        """What a cluster that had time to settle must look like."""
        held = self._cluster.keeper.held()
        for node in world.nodes:
            if node.id not in held:
                yield "lost-is-forgotten", f"node {node.hostname} ({node.id}) is on no machine"
                continue
            member: Any = getattr(held[node.id].program_state.get("node"), "_member", None)
            if member is None:
                yield "is-member", f"the machine of node {node.hostname} takes no part"
                continue
            said = member._identity.certificate.role
            if not said == node.role.word == node.view.role:  # (35)
                yield "role-follows", (f"node {node.hostname} is wanted a {node.view.role}, is a "
                                       f"{node.role.word}, and its certificate says {said}")  # fmt: skip
            if (member.control is not None) != (node.role is Role.MANAGER) or member.problem:
                yield "role-follows", f"node {node.hostname} does not act as its role: {member.problem}"
        strangers = [box.name for key, box in held.items() if key not in world.nodes]
        outside = [box.name for box in self._stage.boxes.values() if box not in held.values()]
        if strangers or outside:
            yield "is-member", f"{(strangers or outside)[0]} is no member of the cluster"
        yield from self._seats(world)

    def _seats(self, world: Snapshot) -> Iterator[Broken]:
        leader = next((box for box in self._stage.up if box.leads()), None)
        membership = self._cluster.watch.membership_of(leader.name) if leader is not None else None
        if membership is None:
            return
        seated = sorted(node_of(seat) for seat in membership.voters())
        managers = sorted(node.id for node in world.nodes if node.role is Role.MANAGER)
        if seated != managers or len(membership.members) != len(managers):
            yield "seats-match", f"managers are {managers}, seats are taken by {seated}"
        listed = sorted(node.id for node in world.nodes if node.manager_address)
        if listed != managers:
            yield "seats-match", f"managers are {managers}, but only {listed} are listed with an address"


def _fine() -> None:
    """Nothing is wrong with serving this."""
