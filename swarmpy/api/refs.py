"""How a user's reference finds an object: full id, then exact name, then unique id prefix.

What does not belong here: lists and their filters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from swarmpy.api.errors import HttpError
from swarmpy.model.objects import Network, Node, Object, Service, Task
from swarmpy.state.snapshot import Snapshot
from swarmpy.state.table import Table

O = TypeVar("O", bound=Object)  # noqa: E741  the customary letter for an object


def service(world: Snapshot, reference: str) -> Service:
    """The service, 404 or 400."""
    if reference not in world.services and (named := world.service_named(reference)) is not None:
        return named
    return _resolve("service", world.services, reference, lambda item: item.name)


def network(world: Snapshot, reference: str) -> Network:
    """The network, 404 or 400."""
    return _resolve("network", world.networks, reference, lambda item: item.name)


def node(world: Snapshot, reference: str) -> Node:
    """The node, 404 or 400. A node's name is its host name; several may share one."""
    return _resolve("node", world.nodes, reference, lambda item: item.description.hostname)


def task(world: Snapshot, reference: str) -> Task:
    """The task, 404 or 400."""
    return _resolve("task", world.tasks, reference, lambda item: item.name)


def _resolve(kind: str, table: Table[O], reference: str, name: Callable[[O], str]) -> O:
    found = table.get(reference)
    if found is not None:
        return found
    wanted = reference.lower()
    matches = [item for item in table if wanted and name(item).lower() == wanted]
    if not matches and wanted:
        matches = [item for item in table if item.id.startswith(reference)]
    if not matches:
        raise HttpError(404, f"{kind} {reference} not found")
    if len(matches) > 1:
        raise HttpError(400, f"{kind} {reference} is ambiguous ({len(matches)} matches found)")
    return matches[0]
