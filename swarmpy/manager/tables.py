"""The leader's memory of network tables: each worked out once per change, with the differences between them.

What does not belong here: what is in a table (plan/tables), when it is sent (dispatcher.py).
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field
from math import inf

from swarmpy.model.fabric import Delta, Table, difference
from swarmpy.model.messages import Networks
from swarmpy.plan import tables
from swarmpy.plan.leaving import PATIENCE
from swarmpy.state.snapshot import Snapshot


class Tables:
    """Tables of the present world. What they are made of is shared between worlds while it does not change,
    so the same parts mean the same table."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[tuple[object, ...], Table]] = {}

    def of(self, world: Snapshot, network_id: str) -> Table:
        """The network's table."""
        network = world.networks[network_id]
        ring = world.cluster.network_keys if world.cluster else None
        parts = (
            network.spec,
            network.vni,
            world.bucket_in(network_id),
            world.guests_in(network_id),
            world.nodes,
            world.services,
            ring,
        )
        known = self._known.get(network_id)
        if known is not None and all(a is b for a, b in zip(known[0], parts, strict=True)):
            return known[1]
        made = tables.table(world, network)
        if known is not None and known[1] == made:
            made = known[1]  # the same object: sessions see at once that nothing changed
        self._known[network_id] = (parts, made)
        return made

    def forget(self, world: Snapshot) -> None:
        """Drop the tables of networks that are gone."""
        for network_id in [key for key in self._known if key not in world.networks]:
            del self._known[network_id]


@dataclass(slots=True)
class Told:
    """What one agent was told of its networks, and how far its kernel has followed."""

    tables: dict[str, Table] = field(default_factory=dict)
    since: float = -inf
    """When its session began, in seconds of the leader's monotonic clock."""
    settled: int = 0
    """The world's version that its kernel is known to be up to."""
    _pending: list[tuple[int, int, frozenset[str]]] = field(default_factory=list)
    """(sequence number, the world's version, networks whose tables it takes away) of what was sent and not
    answered."""

    def news(self, known: Tables, world: Snapshot, node_id: str, seq: int, *, full: bool) -> Networks | None:
        """The message with number `seq` that brings the agent up to the world; None where it knows all."""
        wanted = {key: known.of(world, key) for key in sorted(tables.of_node(world, node_id))}
        deltas: list[Delta] = []
        for key, table in wanted.items():
            old = None if full else self.tables.get(key)
            if old is not table:
                deltas.append(difference(old, table))
        removed = tuple(sorted(key for key in self.tables if key not in wanted))
        self.tables = wanted
        if not (full or deltas or removed):
            self._unchanged(world.version)
            return None
        self._pending.append((seq, world.version, frozenset(removed)))
        return Networks(seq=seq, full=full, deltas=tuple(deltas), removed=removed)

    def _unchanged(self, version: int) -> None:
        if self._pending:
            seq, _, removed = self._pending[-1]
            self._pending[-1] = (seq, version, removed)
        else:
            self.settled = version

    def applied(self, seq: int) -> None:
        """The agent's kernel is as everything up to `seq` says."""
        while self._pending and self._pending[0][0] <= seq:
            self.settled = self._pending.pop(0)[1]

    def may_hold(self, now: float, networks: Set[str], version: int) -> bool:
        """Whether the agent's kernel may still hold of these networks what was so before the world's version:
        tables that it was told, those that it was told to drop and has not answered for, and at the beginning
        of a session, before the first answer, whatever an earlier one left there. Not for longer: one whose
        kernel refuses something never answers, and delays those only who share a network with it."""
        if self.settled >= version:
            return False
        if not self.settled and now < self.since + PATIENCE:
            return True
        return any(
            not networks.isdisjoint(held) for held in (self.tables, *(one[2] for one in self._pending))
        )
