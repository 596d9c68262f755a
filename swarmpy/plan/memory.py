"""Memory: which services and nodes were found at rest, and need not be looked at again yet.

A service is at rest when no planner changed anything of it; it stays so until its object, one of its tasks,
a node that matters to it, or the cluster changes, or until the instant that a planner named. The world's
tables and buckets are shared while nothing in them changes, so *the same object* means *nothing happened*.
What does not belong here: any decision; forgetting everything must never change a plan, only its cost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from swarmpy.model.objects import Cluster, Node, Service, Task
from swarmpy.plan.filters import Seats
from swarmpy.plan.types import Plan, earliest
from swarmpy.state.changes import Change
from swarmpy.state.snapshot import Snapshot
from swarmpy.state.table import Table


@dataclass(slots=True)
class _Service:
    service: Service
    tasks: Mapping[str, Task] | None
    wake_at: int | None = None
    changed: bool = False


@dataclass(slots=True)
class _Node:
    node: Node
    tasks: Mapping[str, Task] | None
    changed: bool = False


@dataclass(slots=True)
class Memory:
    """What was at rest after the last plan, and (`services`, `nodes`) what to look at in this one, by id."""

    services: list[str] = field(default_factory=list)
    nodes: list[str] = field(default_factory=list)
    seats: Seats = field(default_factory=Seats)
    _services: dict[str, _Service] = field(default_factory=dict)
    _nodes: dict[str, _Node] = field(default_factory=dict)
    _table: Table[Node] = field(default_factory=Table)
    _cluster: Cluster | None = None
    _networks: frozenset[str] = frozenset()

    def begin(self, now: int, world: Snapshot, working: Snapshot) -> None:
        """Find out what to look at. `working` is the world with its nodes as this plan sees them."""
        if world.cluster is not self._cluster:
            self._services.clear()
            self._cluster = world.cluster
        if world.networks.rows.keys() != self._networks:
            self._services.clear()
            self._networks = frozenset(world.networks.rows)
        if working.nodes is not self._table:
            self._forget_neighbours(working)
            self._table = working.nodes
        self.services, self.nodes = [], []
        for key, service in world.services.rows.items():
            known, tasks = self._services.get(key), working.bucket(key)
            if (known is None or known.service is not service or known.tasks is not tasks
                    or (known.wake_at is not None and now >= known.wake_at)):  # fmt: skip
                self._services[key] = _Service(service, tasks)
                self.services.append(key)
        for key, node in working.nodes.rows.items():
            seen, held = self._nodes.get(key), working.bucket_on(key)
            if seen is None or seen.node is not node or seen.tasks is not held:
                self._nodes[key] = _Node(node, held)
                self.nodes.append(key)
        self.services.sort()
        self.nodes.sort()
        for gone in self._services.keys() - world.services.rows.keys():
            del self._services[gone]
        for lost in self._nodes.keys() - working.nodes.rows.keys():
            del self._nodes[lost]

    def note_service(self, key: str, decided: Plan) -> None:
        """What a planner decided on a service."""
        known = self._services[key]
        known.changed = known.changed or bool(decided.changes)
        known.wake_at = earliest((known.wake_at, decided.wake_at))

    def note_services(self, changes: Iterable[Change], restless: Iterable[str]) -> None:
        """What a planner of several services decided."""
        for key in (*restless, *(key for kind, key in (one.key for one in changes) if kind == "service")):
            self._services[key].changed = True

    def note_node(self, key: str, decided: Plan) -> None:
        """What a planner decided on a node."""
        known = self._nodes[key]
        known.changed = known.changed or bool(decided.changes)

    def put_off(self, services: Iterable[str] = (), nodes: Iterable[str] = ()) -> None:
        """A planner did not come to these: they are looked at again."""
        for key in services:
            self._services[key].changed = True
        for key in nodes:
            self._nodes[key].changed = True

    def end(self) -> int | None:
        """Keep what was at rest; returns the earliest instant at which a service asks to be looked at."""
        wake_at = earliest(known.wake_at for known in self._services.values())
        for key in self.services:
            if self._services[key].changed:
                del self._services[key]
        for key in self.nodes:
            if self._nodes[key].changed:
                del self._nodes[key]
        return wake_at

    def _forget_neighbours(self, working: Snapshot) -> None:
        """Forget the services to which a change of nodes matters: those with tasks there, and global ones."""
        old, new = self._table.rows, working.nodes.rows
        changed = {key for key in old.keys() | new.keys() if old.get(key) is not new.get(key)}
        affected = {task.service_id for key in changed for task in (working.bucket_on(key) or {}).values()}
        for key in [key for key, known in self._services.items()
                    if key in affected or known.service.view.is_global]:  # fmt: skip
            del self._services[key]
