"""Named invariants of networks: addresses, subnets, ids and ports. See invariants.py, which checks them.

What belongs here: what the world alone can show. What the nodes' kernels hold is checked by the simulator.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from swarmpy.model import addressing
from swarmpy.model.lifecycle import TERMINAL
from swarmpy.model.objects import Guest, Network, Task
from swarmpy.state.snapshot import Snapshot


def _holders(world: Snapshot, network: Network) -> Iterator[tuple[str, str]]:
    """(address without prefix length, who holds it) of a network."""
    for service in world.services:
        found = (vip.address for vip in service.vips if vip.network_id == network.id)
        yield from ((address, f"service {service.name}") for address in found)
    for task_id, task in sorted((world.bucket_in(network.id) or {}).items()):
        if task.status.state not in TERMINAL:
            yield from ((address, f"task {task_id}") for address in _addresses(task, network))
    for guest_id, guest in sorted((world.guests_in(network.id) or {}).items()):
        yield from ((address, f"guest {guest_id}") for address in _addresses(guest, network))
    if network.view.ingress:
        yield from ((address, f"node {node.id}") for node in world.nodes for address in node.ingress)
    for subnet in network.subnets:
        yield from ((address, "the network itself") for address in (subnet.gateway, *subnet.reserved))


def _addresses(task: Task | Guest, network: Network) -> Iterator[str]:
    for place in task.networks:
        if place.network_id == network.id:
            yield from place.addresses


def addresses_unique(world: Snapshot) -> Iterator[str]:
    """No two holders of one address."""
    for network in world.networks:
        seen: dict[str, str] = {}
        for cidr, holder in _holders(world, network):
            address = cidr.partition("/")[0]
            other = seen.setdefault(address, holder)
            if other != holder:
                yield f"{address} in network {network.name} is held by {other} and by {holder}"


def addresses_inside(world: Snapshot) -> Iterator[str]:
    """Every address lies in a subnet of its network."""
    for network in world.networks:
        for address, holder in _holders(world, network):
            if not any(addressing.inside(address, one.subnet) for one in network.subnets):
                yield f"{address} of {holder} is in no subnet of network {network.name}"


def subnets_disjoint(world: Snapshot) -> Iterator[str]:
    """No two subnets share an address."""
    spans = sorted(
        (net.version, int(net.network_address), int(net.broadcast_address), one.subnet)
        for network in world.networks for one in network.subnets for net in [addressing.parse(one.subnet)]
    )  # fmt: skip
    for before, after in pairwise(spans):
        if before[0] == after[0] and after[1] <= before[2]:
            yield f"{before[3]} and {after[3]} overlap"


def ids_unique(world: Snapshot) -> Iterator[str]:
    """No two networks with one VXLAN id or one name, and at most one carries the routing mesh."""
    vnis: dict[int, str] = {}
    names: dict[str, str] = {}
    for network in world.networks:
        if vnis.setdefault(network.vni, network.id) != network.id:
            yield f"VXLAN id {network.vni} is used twice"
        if names.setdefault(network.name.lower(), network.id) != network.id:
            yield f"two networks are called {network.name}"
    if sum(network.view.ingress for network in world.networks) > 1:
        yield "there are two ingress networks"


def guests_settled(world: Snapshot) -> Iterator[str]:
    """Every guest is in networks that exist and take guests, with an address, and is no task too."""
    for guest in world.guests:
        if guest.id in world.tasks:
            yield f"{guest.id} is a guest and a task"
        if not guest.networks:
            yield f"guest {guest.id} is on no network"
        for place in guest.networks:
            network = world.networks.get(place.network_id)
            if network is None or not network.view.attachable or not place.addresses:
                yield f"guest {guest.id} has no place in network {place.network_id}"


def ports_unique(world: Snapshot) -> Iterator[str]:
    """No port is published twice through the routing mesh."""
    seen: dict[tuple[str, int], str] = {}
    for service in world.services:
        for port in service.ports:
            if port.publish_mode != "host":
                other = seen.setdefault((port.protocol, port.published_port), service.name)
                if other != service.name:
                    yield f"port {port.published_port}/{port.protocol} of {other} and of {service.name}"


def places_fixed(old: Snapshot, new: Snapshot) -> Iterator[str]:
    """A task keeps its places in networks for its life."""
    for key, before in old.tasks.rows.items():
        after = new.tasks.get(key)
        if after is not None and before.networks and after.networks != before.networks:
            yield f"task {key} had {before.networks} and has {after.networks}"
