"""Invariants of networks as the store has them, over each step of the store.

What belongs here: what must hold of addresses, subnets and ports in any world, and who may wait for an
address for ever. What does not: what kernels hold (netwatch.py), tasks and nodes (invariants.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from swarmpy.model.lifecycle import TERMINAL, TaskState
from swarmpy.model.objects import Network
from swarmpy.plan import pools
from swarmpy.plan.addresses import MESSAGE
from swarmpy.sim.invariants import Broken
from swarmpy.state.snapshot import Snapshot


def check_network_step(old: Snapshot, new: Snapshot) -> Iterator[Broken]:
    """What one committed batch may not do to networks."""
    if old.networks is not new.networks:
        yield from _disjoint(new)
    if old.services is not new.services:
        yield from _ports(new)
    holders = old.services is not new.services or old.nodes is not new.nodes
    for network in new.networks:
        if holders or old.bucket_in(network.id) is not new.bucket_in(network.id):
            yield from _unique(new, network)
    for key, task in new.tasks.rows.items():
        before = old.tasks.rows.get(key)
        if before is None or before is task or before.status.state < TaskState.ASSIGNED:
            continue
        if before.networks != task.networks:
            yield "address-kept", f"task {task.name} has other addresses than when it was assigned"


def _disjoint(world: Snapshot) -> Iterator[Broken]:
    networks = list(world.networks)
    for place, one in enumerate(networks):
        for other in networks[:place]:
            if one.vni == other.vni:
                yield "vni-once", f"networks {one.name} and {other.name} both have VNI {one.vni}"
            for first in one.subnets:
                for second in other.subnets:
                    if pools.overlaps(first.subnet, second.subnet):
                        yield "subnets-disjoint", f"{one.name}'s {first.subnet} overlaps {second.subnet}"


def _ports(world: Snapshot) -> Iterator[Broken]:
    taken: dict[tuple[str, int], str] = {}
    for service in world.services:
        for port in service.ports:
            if port.publish_mode == "host":
                continue
            other = taken.setdefault((port.protocol, port.published_port), service.name)
            if other != service.name:
                yield "port-once", f"port {port.published_port} is published by {other} and {service.name}"


def holders(world: Snapshot, network: Network) -> Iterator[tuple[str, str]]:
    """(address, who has it) of everybody in the network."""
    for subnet in network.subnets:
        yield subnet.gateway, "the gateway"
    for service in world.services:
        for vip in service.vips:
            if vip.network_id == network.id:
                yield pools.bare(vip.address), f"service {service.name}"
    for _, task in sorted((world.bucket_in(network.id) or {}).items()):
        if task.status.state in TERMINAL:
            continue
        for place in task.networks:
            if place.network_id == network.id:
                for address in place.addresses:
                    yield pools.bare(address), f"task {task.name}"
    if network.view.ingress:
        for node in world.nodes:
            for address in node.ingress:
                yield pools.bare(address), f"node {node.hostname}"


def _unique(world: Snapshot, network: Network) -> Iterator[Broken]:
    taken: dict[str, str] = {}
    for address, who in holders(world, network):
        other = taken.setdefault(address, who)
        if other != who:
            yield "address-once", f"{address} of network {network.name} is of {other} and of {who}"


def waiting(world: Snapshot) -> tuple[frozenset[str], list[Broken]]:
    """Ids of services whose tasks wait for an address in a network that is full, and waits without cause."""
    excused: set[str] = set()
    broken: list[Broken] = []
    for task in world.unplaced():
        if task.status.message != MESSAGE or not task.status.err:
            continue
        full = [network for network in _of(world, task.view.networks) if _is_full(world, network)]
        if full or world.networks and _ingress_full(world):
            excused.add(task.service_id)
        else:
            broken.append(("room-is-used", f"task {task.name} waits though no network is full: {task.status.err}"))
    return frozenset(excused), broken


def _of(world: Snapshot, attachments: Iterable[object]) -> Iterator[Network]:
    for one in attachments:
        network = world.networks.get(getattr(one, "target", ""))
        if network is not None:
            yield network


def _is_full(world: Snapshot, network: Network) -> bool:
    used = {address for address, who in holders(world, network) if who != "the gateway"}
    for subnet in network.subnets:
        if ":" in subnet.subnet:
            continue
        if sum(pools.inside(one, subnet.subnet) for one in used) < pools.capacity(subnet):
            return False
    return True


def _ingress_full(world: Snapshot) -> bool:
    ingress = world.ingress_network()
    return ingress is not None and _is_full(world, ingress)
