"""Invariants of networks as the store has them.

What belongs here: a task's addresses over each step, and who may wait for an address for ever. What does not:
what `apply` itself refuses (state/invariants: nobody shares an address, a subnet or a port), what kernels
hold (netwatch.py), tasks and nodes (invariants.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from swarmpy.model import addressing
from swarmpy.model.lifecycle import TERMINAL, TaskState
from swarmpy.model.objects import Network
from swarmpy.plan import pools
from swarmpy.plan.addresses import MESSAGE
from swarmpy.sim.invariants import Broken
from swarmpy.state.snapshot import Snapshot


def check_network_step(old: Snapshot, new: Snapshot) -> Iterator[Broken]:
    """What one committed batch may not do to networks."""
    for key, task in new.tasks.rows.items():
        before = old.tasks.rows.get(key)
        if before is None or before is task or before.status.state < TaskState.ASSIGNED:
            continue
        if before.networks != task.networks:
            yield "address-kept", f"task {task.name} has other addresses than when it was assigned"


def _used(world: Snapshot, network: Network) -> Iterator[str]:
    """Every address of the network that somebody has."""
    for service in world.services:
        yield from (addressing.bare(vip.address) for vip in service.vips if vip.network_id == network.id)
    for _, task in sorted((world.bucket_in(network.id) or {}).items()):
        if task.status.state not in TERMINAL:
            for place in task.networks:
                if place.network_id == network.id:
                    yield from (addressing.bare(one) for one in place.addresses)
    if network.view.ingress:
        for node in world.nodes:
            yield from (addressing.bare(one) for one in node.ingress)


def waiting(world: Snapshot) -> tuple[frozenset[str], list[Broken]]:
    """Ids of services whose tasks wait for an address in a network that is full, and waits without cause."""
    excused: set[str] = set()
    broken: list[Broken] = []
    for task in world.unplaced():
        if task.status.message != MESSAGE or not task.status.err:
            continue
        full = [network for network in _of(world, task.view.networks) if _is_full(world, network)]
        if full or _ingress_full(world):
            excused.add(task.service_id)
        else:
            broken.append(
                ("room-is-used", f"task {task.name} waits though no network is full: {task.status.err}")
            )
    return frozenset(excused), broken


def _of(world: Snapshot, attachments: Iterable[object]) -> Iterator[Network]:
    for one in attachments:
        network = world.networks.get(getattr(one, "target", ""))
        if network is not None:
            yield network


def _is_full(world: Snapshot, network: Network) -> bool:
    used = set(_used(world, network))
    for subnet in network.subnets:
        if ":" in subnet.subnet:
            continue
        if sum(addressing.inside(one, subnet.subnet) for one in used) < pools.capacity(subnet):
            return False
    return True


def _ingress_full(world: Snapshot) -> bool:
    ingress = world.ingress_network()
    return ingress is not None and _is_full(world, ingress)
