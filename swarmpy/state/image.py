"""The world as bytes: what snapshots of the log hold.

What belongs here: encoding and decoding a whole world, piece by piece. What does not: entries of the log
(changes.py), files (adapters/raft).

An image is a mark and then parts of at most `MOST` objects, each with its length. A part is one call of the
codec, and so the longest time for which other threads wait: a hundred thousand tasks in one call would stop a
manager's loop for most of a second.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import msgspec

from swarmpy.model import codec
from swarmpy.model.lifecycle import TaskState
from swarmpy.model.objects import Cluster, Guest, Network, Node, Service, Task
from swarmpy.state.changes import Request
from swarmpy.state.snapshot import Snapshot
from swarmpy.state.table import Table

MOST = 500
"""Objects of one part at most."""
MARK = b"SWW2"
_LENGTH = struct.Struct(">I")


class ImagePart(msgspec.Struct, frozen=True, kw_only=True):
    """Some of a Snapshot. `version`, `at` and `cluster` are those of the first part."""

    version: int = 0
    at: int = 0
    cluster: Cluster | None = None
    nodes: tuple[Node, ...] = ()
    services: tuple[Service, ...] = ()
    tasks: tuple[Task, ...] = ()
    networks: tuple[Network, ...] = ()
    guests: tuple[Guest, ...] = ()
    requests: tuple[Request, ...] = ()


_TABLES = ("nodes", "services", "tasks", "networks", "guests")


def save(world: Snapshot) -> bytearray:
    """Encode the world, equal worlds to equal bytes."""
    data = bytearray(MARK)
    for part in _parts(world):
        encoded = codec.encode(part)
        data += _LENGTH.pack(len(encoded))
        data += encoded
    return data


def _parts(world: Snapshot) -> Iterator[ImagePart]:
    yield ImagePart(version=world.version, at=world.at, cluster=world.cluster)
    for name in _TABLES:
        for items in _taken(_ordered(getattr(world, name).rows)):
            filled: dict[str, Any] = {name: items}
            yield ImagePart(**filled)
    for requests in _taken(world.requests.values()):
        yield ImagePart(requests=requests)


def _ordered(rows: Mapping[str, Any]) -> Iterator[Any]:
    """The objects by id. A hundred thousand ids are not sorted in one call either: by their first letter."""
    heads: dict[str, list[str]] = {}
    for key in rows:
        heads.setdefault(key[:1], []).append(key)
    for head in sorted(heads):
        for key in sorted(heads[head]):
            yield rows[key]


def _taken(items: Iterable[Any]) -> Iterator[tuple[Any, ...]]:
    """The items, MOST at a time."""
    left = iter(items)
    while taken := tuple(islice(left, MOST)):
        yield taken


def load(data: bytes | bytearray | memoryview) -> Snapshot:
    """Decode a saved world. Raises codec.CodecError."""
    rows: dict[str, dict[str, Any]] = {name: {} for name in (*_TABLES, "requests")}
    first: ImagePart | None = None
    for piece in pieces(memoryview(data)):
        part = codec.decode(ImagePart, piece)
        first = first or part
        for name, items in rows.items():
            items.update((one.id, one) for one in getattr(part, name))
    if first is None:
        raise codec.CodecError("the image of the world is empty")
    return _indexed(first, rows)


def pieces(data: memoryview) -> Iterator[memoryview]:
    """The parts; an image from before there were parts is one."""
    if data[: len(MARK)] != MARK:
        yield data
        return
    at = len(MARK)
    while at < len(data):
        if at + _LENGTH.size > len(data):
            raise codec.CodecError("the image of the world is cut short")
        (size,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        if at + size > len(data):
            raise codec.CodecError("the image of the world is cut short")
        yield data[at : at + size]
        at += size


def _indexed(first: ImagePart, rows: dict[str, dict[str, Any]]) -> Snapshot:
    by_service: dict[str, dict[str, Task]] = {}
    by_node: dict[str, dict[str, Task]] = {}
    by_network: dict[str, dict[str, Task]] = {}
    tasks: dict[str, Task] = rows["tasks"]
    for task in tasks.values():
        by_service.setdefault(task.service_id, {})[task.id] = task
        if task.node_id:
            by_node.setdefault(task.node_id, {})[task.id] = task
        for place in task.networks:
            by_network.setdefault(place.network_id, {})[task.id] = task
    guests_in: dict[str, dict[str, Guest]] = {}
    guests_on: dict[str, dict[str, Guest]] = {}
    guests: dict[str, Guest] = rows["guests"]
    for guest in guests.values():
        guests_on.setdefault(guest.node_id, {})[guest.id] = guest
        for place in guest.networks:
            guests_in.setdefault(place.network_id, {})[guest.id] = guest
    services: dict[str, Service] = rows["services"]
    return Snapshot(
        version=first.version, at=first.at, cluster=first.cluster, nodes=Table(rows["nodes"]),
        services=Table(services), tasks=Table(tasks), networks=Table(rows["networks"]), guests=Table(guests),
        requests=rows["requests"],
        _by_service=by_service, _by_node=by_node, _by_network=by_network,
        _guests_in=guests_in, _guests_on=guests_on,
        _unplaced={key: task for key, task in tasks.items() if task.status.state < TaskState.ASSIGNED},
        _names={service.name.lower(): service.id for service in services.values()},
    )  # fmt: skip
