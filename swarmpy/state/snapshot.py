"""The immutable, indexed world, and `apply`, the only way it moves.

A Snapshot is never modified: applying changes makes a new one that shares what did not change, so a reader
may keep one for as long as it likes. Iteration is by id, so no decision depends on insertion order.
What does not belong here: any decision (plan/), any I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, cast

import msgspec

from swarmpy.model.lifecycle import TaskState
from swarmpy.model.objects import AnyObject, Cluster, Guest, Network, Node, Object, Service, Task, kind_of
from swarmpy.state.changes import Batch, Change, Put, Request
from swarmpy.state.rows import Edit
from swarmpy.state.table import O, Table

REQUESTS_KEPT = 10_000
"""How many answered requests are remembered for their retries."""


Index = Mapping[str, Mapping[str, O]]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The world at a version (the log index of the last batch applied) and cluster time `at` (ns)."""

    version: int = 0
    at: int = 0
    cluster: Cluster | None = None
    nodes: Table[Node] = field(default_factory=Table)
    services: Table[Service] = field(default_factory=Table)
    tasks: Table[Task] = field(default_factory=Table)
    networks: Table[Network] = field(default_factory=Table)
    guests: Table[Guest] = field(default_factory=Table)
    requests: Mapping[str, Request] = field(default_factory=dict)
    _by_service: Index[Task] = field(default_factory=dict)
    _by_node: Index[Task] = field(default_factory=dict)
    _by_network: Index[Task] = field(default_factory=dict)
    _guests_in: Index[Guest] = field(default_factory=dict)
    _guests_on: Index[Guest] = field(default_factory=dict)
    _unplaced: Mapping[str, Task] = field(default_factory=dict)
    _names: Mapping[str, str] = field(default_factory=dict)

    def network_named(self, name: str) -> Network | None:
        """The network with that name; case does not matter."""
        lower = name.lower()
        return next((one for one in self.networks.rows.values() if one.name.lower() == lower), None)

    def ingress_network(self) -> Network | None:
        """The network of the routing mesh."""
        return next((one for one in self.networks.rows.values() if one.view.ingress), None)

    def bucket_in(self, network_id: str) -> Mapping[str, Task] | None:
        """The tasks with a place in a network as one shared mapping, like `bucket`."""
        return self._by_network.get(network_id)

    def guests_in(self, network_id: str) -> Mapping[str, Guest] | None:
        """The guests with a place in a network as one shared mapping, like `bucket`."""
        return self._guests_in.get(network_id)

    def guests_on(self, node_id: str) -> Mapping[str, Guest] | None:
        """The guests on a node as one shared mapping, like `bucket`."""
        return self._guests_on.get(node_id)

    def service_named(self, name: str) -> Service | None:
        """The service with that name; case does not matter."""
        key = self._names.get(name.lower())
        return self.services.get(key) if key is not None else None

    def tasks_of(self, service_id: str) -> list[Task]:
        """Tasks of a service, by slot, then id."""
        rows = self._by_service.get(service_id)
        return sorted(rows.values(), key=lambda task: (task.slot, task.id)) if rows else []

    def tasks_on(self, node_id: str) -> list[Task]:
        """Tasks of a node, by id."""
        rows = self._by_node.get(node_id)
        return [rows[key] for key in sorted(rows)] if rows else []

    def node_tasks(self, node_id: str) -> Mapping[str, Task] | None:
        """The node's tasks as stored: the same object as long as none of them changed."""
        return self._by_node.get(node_id)

    def has_tasks_on(self, node_id: str) -> bool:
        """Whether the node has any task, ended ones included."""
        return node_id in self._by_node

    def lost_nodes(self) -> list[str]:
        """Ids of nodes that are no longer members but still have tasks, sorted."""
        return sorted(self._by_node.keys() - self.nodes.rows.keys())

    def unplaced(self) -> list[Task]:
        """Tasks that are not yet assigned (observed state before ASSIGNED), by id."""
        rows = self._unplaced
        return [rows[key] for key in sorted(rows)]

    def bucket(self, service_id: str) -> Mapping[str, Task] | None:
        """The tasks of a service as one shared mapping: the same object for as long as none of them
        changed, so that a reader can tell cheaply that nothing happened."""
        return self._by_service.get(service_id)

    def bucket_on(self, node_id: str) -> Mapping[str, Task] | None:
        """The tasks of a node as one shared mapping, like `bucket`."""
        return self._by_node.get(node_id)

    def orphan_services(self) -> list[str]:
        """Ids of removed services that still have tasks, sorted."""
        return sorted(self._by_service.keys() - self.services.rows.keys())

    def object(self, kind: str, key: str) -> AnyObject | None:
        """The object of a kind by id."""
        if kind == "cluster":
            return self.cluster if self.cluster and self.cluster.id == key else None
        table: Table[Any] = getattr(self, kind + "s")
        found: AnyObject | None = table.get(key)
        return found

    def evolve(self, changes: Iterable[Change], index: int | None = None, at: int | None = None) -> Snapshot:
        """The world after the changes committed at log `index`.

        Without an index it is a draft: what would be, still of this world's version, with the objects
        written stamped as of the next one. Ids derived from a draft's version therefore never repeat: the
        version grows with each committed batch, and only one batch is decided on each version.
        """
        time = self.at if at is None else max(at, self.at)
        stamp = self.version + 1 if index is None else index
        after = _Editor(self, stamp, time).run(changes)
        return replace(after, version=self.version) if index is None else after


class _Buckets(Generic[O]):
    """An index being changed."""

    __slots__ = ("base", "own")

    def __init__(self, base: Index[O]) -> None:
        self.base = base
        self.own: dict[str, Edit[O]] = {}

    def __getitem__(self, key: str) -> Edit[O]:
        bucket = self.own.get(key)
        if bucket is None:
            bucket = self.own[key] = Edit(self.base.get(key, {}))
        return bucket

    def result(self) -> Index[O]:
        """The index with its changes; empty buckets go."""
        if not self.own:
            return self.base
        merged = Edit(self.base)
        for key, edit in self.own.items():
            bucket = edit.done()
            if bucket:
                merged[key] = bucket
            else:
                merged.pop(key)
        return merged.done()


class _Rows(Generic[O]):
    """A table being changed."""

    __slots__ = ("base", "keys", "rows")

    def __init__(self, base: Table[O]) -> None:
        self.base, self.rows = base, Edit(base.rows)
        self.keys: list[str] = []

    def put(self, item: O, *, fresh: bool) -> None:
        """Add the object, or replace it."""
        self.keys.append(item.id)
        self.rows.put(item.id, item, fresh=fresh)

    def pop(self, key: str) -> O | None:
        """Remove the object and return it; None where there is none."""
        self.keys.append(key)
        return self.rows.pop(key)

    def result(self) -> Table[O]:
        """The table with its changes."""
        return self.base.changed(self.rows.done(), self.keys)


class _Editor:
    """Copies what changes of each table and index, once, on its first change."""

    def __init__(self, base: Snapshot, index: int, at: int) -> None:
        self.base, self.index, self.at = base, index, at
        self.cluster = base.cluster
        self.tables: dict[str, _Rows[Any]] = {}
        self.by_service = _Buckets(base._by_service)
        self.by_node = _Buckets(base._by_node)
        self.by_network = _Buckets(base._by_network)
        self.guests_in = _Buckets(base._guests_in)
        self.guests_on = _Buckets(base._guests_on)
        self.unplaced: Edit[Task] | None = None
        self.names: Edit[str] | None = None

    def run(self, changes: Iterable[Change]) -> Snapshot:
        for change in changes:
            if isinstance(change, Put):
                item = change.item
                if type(item) is Task:  # as most are
                    self._put_task(item)
                else:
                    self._put(item)
            else:
                self._delete(change.kind, change.id)
        base = self.base
        return replace(
            base, version=self.index, at=self.at, cluster=self.cluster,
            nodes=self._table("node", base.nodes), services=self._table("service", base.services),
            tasks=self._table("task", base.tasks), networks=self._table("network", base.networks),
            guests=self._table("guest", base.guests),
            _by_service=self.by_service.result(), _by_node=self.by_node.result(),
            _by_network=self.by_network.result(),
            _guests_in=self.guests_in.result(), _guests_on=self.guests_on.result(),
            _unplaced=base._unplaced if self.unplaced is None else self.unplaced.done(),
            _names=base._names if self.names is None else self.names.done(),
        )  # fmt: skip

    def _table(self, kind: str, old: Table[O]) -> Table[O]:
        table = self.tables.get(kind)
        return old if table is None else cast("Table[O]", table.result())

    def _rows(self, kind: str) -> _Rows[Any]:
        table = self.tables.get(kind)
        if table is None:
            table = self.tables[kind] = _Rows(getattr(self.base, kind + "s"))
        return table

    def _put(self, item: AnyObject) -> None:
        kind = kind_of(item)
        if isinstance(item, Cluster):
            self.cluster = self._stamped(item, self.cluster)
            return
        table = self._rows(kind)
        old = table.rows.get(item.id)
        item = self._stamped(item, old)
        table.put(item, fresh=old is None)
        if isinstance(item, Guest):
            if old is not None:
                self._unlink_guest(cast("Guest", old))
            self.guests_on[item.node_id][item.id] = item
            for place in item.networks:
                self.guests_in[place.network_id][item.id] = item
        elif isinstance(item, Service):
            names = self._names()
            if old is not None:
                self._forget_name(cast("Service", old))
            names[item.name.lower()] = item.id

    def _stamped(self, item: O, old: Object | None) -> O:
        return msgspec.structs.replace(
            item, version=self.index, updated_at=self.at,
            created_at=old.created_at if old is not None else (item.created_at or self.at),
        )  # fmt: skip

    def _put_task(self, item: Task) -> None:
        table: _Rows[Task] = self.tables.get("task") or self._rows("task")
        key, node_id = item.id, item.node_id
        old = table.rows.get(key)
        item = self._stamped(item, old)
        fresh = moved = old is None
        if old is not None:
            if old.node_id != node_id:
                self._unlink_node(old)
                moved = True
            if old.networks != item.networks:
                self._unlink_networks(old)
        table.put(item, fresh=fresh)
        self.by_service[item.service_id].put(key, item, fresh=fresh)
        if node_id:
            self.by_node[node_id].put(key, item, fresh=moved)
        for place in item.networks:
            self.by_network[place.network_id][key] = item
        if item.status.state < TaskState.ASSIGNED:
            self._open()[key] = item
        elif old is not None and old.status.state < TaskState.ASSIGNED:
            self._open().pop(key)

    def _delete(self, kind: str, key: str) -> None:
        old = self._rows(kind).pop(key)
        if isinstance(old, Task):
            self._unlink_node(old)
            self._unlink_networks(old)
            if old.status.state < TaskState.ASSIGNED:
                self._open().pop(old.id)
            self.by_service[old.service_id].pop(old.id)
        elif isinstance(old, Guest):
            self._unlink_guest(old)
        elif isinstance(old, Service):
            self._forget_name(old)

    def _forget_name(self, service: Service) -> None:
        names = self._names()
        if names.get(service.name.lower()) == service.id:
            names.pop(service.name.lower())

    def _names(self) -> Edit[str]:
        if self.names is None:
            self.names = Edit(self.base._names)
        return self.names

    def _open(self) -> Edit[Task]:
        if self.unplaced is None:
            self.unplaced = Edit(self.base._unplaced)
        return self.unplaced

    def _unlink_node(self, task: Task) -> None:
        if task.node_id:
            self.by_node[task.node_id].pop(task.id)

    def _unlink_guest(self, guest: Guest) -> None:
        self.guests_on[guest.node_id].pop(guest.id)
        for place in guest.networks:
            self.guests_in[place.network_id].pop(guest.id)

    def _unlink_networks(self, task: Task) -> None:
        for place in task.networks:
            self.by_network[place.network_id].pop(task.id)


def apply(world: Snapshot, batch: Batch, index: int) -> tuple[Snapshot, bool]:
    """The world after the batch committed at log `index`, and whether it was accepted.

    A batch that was decided on another world changes nothing: every replica refuses it alike.
    """
    if batch.based_on != world.version:
        return world, False
    after = world.evolve(batch.changes, index, batch.at)
    if batch.requests:
        requests = dict(after.requests)
        for request in batch.requests:
            requests[request.id] = request
        while len(requests) > REQUESTS_KEPT:
            del requests[next(iter(requests))]
        after = replace(after, requests=requests)
    return after, True
