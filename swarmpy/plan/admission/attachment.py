"""Admission of guests: containers of a node that take or give up places in attachable networks.

Both commands may be repeated at will: what is so already changes nothing. What does not belong here: which
address they get (plan/addresses), guests of lost nodes (plan/guests).
"""

from __future__ import annotations

from msgspec.structs import replace

from swarmpy.model.commands import AttachContainer, DetachContainer, Result
from swarmpy.model.errors import InvalidArgument, NotFound, PermissionDenied
from swarmpy.model.objects import Attachment, Guest
from swarmpy.plan import addresses
from swarmpy.state.changes import Change, Delete, Put
from swarmpy.state.snapshot import Snapshot

Admitted = tuple[list[Change], Result]


def attach(now: int, world: Snapshot, command: AttachContainer) -> Admitted:
    """Give the container its places, all or none. Raises Refusal."""
    if command.node not in world.nodes:
        raise NotFound(f"node {command.node} not found")
    if not command.id or command.id in world.tasks:
        raise InvalidArgument(f"invalid id {command.id!r} for a container's attachment")
    old = world.guests.get(command.id)
    if old is not None and old.node_id != command.node:
        raise PermissionDenied(f"attachment {command.id} belongs to another node")
    places = {place.network_id: place for place in old.networks} if old is not None else {}
    fresh = {one.network_id: one for one in command.networks if one.network_id not in places}
    for one in fresh.values():
        _check(world, one)
    given, changes = addresses.for_guest(world, fresh.values())
    places |= {place.network_id: place for place in given}
    if not places:
        raise InvalidArgument("no network is named: a container is attached to at least one")
    base = old or Guest(id=command.id, node_id=command.node, created_at=now)
    guest = replace(
        base,
        name=command.name or base.name,
        container_id=command.container_id or base.container_id,
        hostname=command.hostname or base.hostname,
        networks=tuple(places[key] for key in sorted(places)),
    )
    if guest != old:
        cause = "network attach" if given else "the node told more of it"
        changes = [*changes, Put(guest, cause)]
    return changes, Result(id=guest.id)


def _check(world: Snapshot, wanted: Attachment) -> None:
    network = world.networks.get(wanted.network_id)
    if network is None:
        raise NotFound(f"network {wanted.network_id} not found")
    if not network.view.attachable:
        raise PermissionDenied(f"network {network.name} not manually attachable")


def detach(_now: int, world: Snapshot, command: DetachContainer) -> Admitted:
    """The container gives up places. Raises Refusal."""
    old = world.guests.get(command.id)
    if old is None:
        return [], Result(id=command.id)
    if old.node_id != command.node:
        raise PermissionDenied(f"attachment {command.id} belongs to another node")
    kept = tuple(
        place for place in old.networks if command.networks and place.network_id not in command.networks
    )
    if not kept:
        return [Delete("guest", old.id, "network detach")], Result(id=old.id)
    if kept == old.networks:
        return [], Result(id=old.id)
    return [Put(replace(old, networks=kept), "network detach")], Result(id=old.id)
