"""Images: a world as it is saved, and read again.

What does not belong here: where images are kept (adapters/raft), how worlds move (snapshot.py).
"""

from __future__ import annotations

import msgspec

from swarmpy.model import codec
from swarmpy.model.lifecycle import TaskState
from swarmpy.model.objects import Cluster, Guest, Network, Node, Service, Task
from swarmpy.state.changes import Request
from swarmpy.state.snapshot import Snapshot
from swarmpy.state.table import Table


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """A Snapshot as it is saved."""

    version: int
    at: int
    cluster: Cluster | None
    nodes: tuple[Node, ...]
    services: tuple[Service, ...]
    tasks: tuple[Task, ...]
    networks: tuple[Network, ...] = ()
    guests: tuple[Guest, ...] = ()
    requests: tuple[Request, ...]


def save(world: Snapshot) -> bytes:
    """Encode the world, equal worlds to equal bytes."""
    return codec.encode(
        Image(version=world.version, at=world.at, cluster=world.cluster, nodes=tuple(world.nodes),
              services=tuple(world.services), tasks=tuple(world.tasks),
              networks=tuple(world.networks), guests=tuple(world.guests),
              requests=tuple(world.requests.values()))
    )  # fmt: skip


def load(data: bytes) -> Snapshot:
    """Decode a saved world. Raises codec.CodecError."""
    image = codec.decode(Image, data)
    by_service: dict[str, dict[str, Task]] = {}
    by_node: dict[str, dict[str, Task]] = {}
    by_network: dict[str, dict[str, Task]] = {}
    for task in image.tasks:
        by_service.setdefault(task.service_id, {})[task.id] = task
        if task.node_id:
            by_node.setdefault(task.node_id, {})[task.id] = task
        for place in task.networks:
            by_network.setdefault(place.network_id, {})[task.id] = task
    guests_in: dict[str, dict[str, Guest]] = {}
    guests_on: dict[str, dict[str, Guest]] = {}
    for guest in image.guests:
        guests_on.setdefault(guest.node_id, {})[guest.id] = guest
        for place in guest.networks:
            guests_in.setdefault(place.network_id, {})[guest.id] = guest
    return Snapshot(
        version=image.version, at=image.at, cluster=image.cluster,
        nodes=Table({node.id: node for node in image.nodes}),
        services=Table({service.id: service for service in image.services}),
        tasks=Table({task.id: task for task in image.tasks}),
        networks=Table({network.id: network for network in image.networks}),
        guests=Table({guest.id: guest for guest in image.guests}),
        requests={request.id: request for request in image.requests},
        _by_service=by_service, _by_node=by_node, _by_network=by_network,
        _guests_in=guests_in, _guests_on=guests_on,
        _unplaced={task.id: task for task in image.tasks if task.status.state < TaskState.ASSIGNED},
        _names={service.name.lower(): service.id for service in image.services},
    )  # fmt: skip
