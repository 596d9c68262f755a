"""Admission of commands on the cluster itself: its beginning and its settings."""

from __future__ import annotations

import json
from ipaddress import ip_network

from msgspec.structs import replace

from swarmpy.model import addressing
from swarmpy.model.commands import AddPools, InitCluster, Result, UpdateCluster
from swarmpy.model.errors import FailedPrecondition, InvalidArgument, NotFound, OutOfSequence
from swarmpy.model.lifecycle import NodeState, Role
from swarmpy.model.objects import Cluster, Node, NodeStatus
from swarmpy.model.specs import compact, swarm_view
from swarmpy.plan import pools
from swarmpy.plan.admission import network
from swarmpy.state.changes import Change, Put
from swarmpy.state.snapshot import Snapshot

MIN_CERTIFICATE_NS = 3600 * 1_000_000_000
"""Docker refuses node certificates that live less than an hour."""

MIN_HEARTBEAT_NS = 100_000_000
"""Nodes beat five times in a period, and are suspect after two fifths of it."""


def present(world: Snapshot) -> Cluster:
    """The cluster object. Raises FailedPrecondition where the log is still empty."""
    if world.cluster is None:
        raise FailedPrecondition("the cluster is still being initialised; try again")
    return world.cluster


def init(now: int, world: Snapshot, command: InitCluster) -> tuple[list[Change], Result]:
    """The first batch of a cluster: the cluster and its first node, a manager."""
    if world.cluster is not None:
        raise FailedPrecondition("this cluster is initialised already")
    validate_spec(command.cluster.spec)
    checked_pools(command.cluster.address_pools, command.cluster.subnet_size)
    spec = compact({"Role": "manager", "Availability": command.availability})
    node = Node(
        id=command.node_id,
        spec=spec,
        role=Role.MANAGER,
        description=command.description,
        status=NodeStatus(state=NodeState.READY, address=command.address, since=now),
        manager_address=command.manager_address,
        certificate=command.certificate,
        data_address=command.data_address,
        listen_port=command.listen_port,
    )
    cause = "swarm init"
    ingress = network.first(command.cluster, now, (command.address, command.data_address))
    return [Put(item, cause) for item in (command.cluster, node, ingress)], Result(id=command.node_id)


def validate_spec(text: str) -> None:
    """Raise InvalidArgument where a SwarmSpec asks for something that cannot be."""
    view = swarm_view(text)
    if view.name not in ("", "default"):
        raise InvalidArgument(
            'expected swarm name "" or "default", got another: the cluster\'s name is fixed'
        )
    if view.certificate_ns < MIN_CERTIFICATE_NS:
        raise InvalidArgument("minimum certificate expiry time is: 1h0m0s")
    if view.dispatcher.heartbeat_period < 0:
        raise InvalidArgument("heartbeat time period cannot be a negative duration")
    if 0 < view.dispatcher.heartbeat_period < MIN_HEARTBEAT_NS:
        raise InvalidArgument(
            f"invalid heartbeat period {view.heartbeat_seconds:.9g} s: nodes would count as dead between two "
            "beats; choose 100ms at least, such as the usual 5s"
        )
    raw = json.loads(text or "{}").get("CAConfig") or {}
    for unsupported in ("ExternalCAs", "SigningCACert", "SigningCAKey"):
        if raw.get(unsupported):
            raise InvalidArgument(
                f"CAConfig.{unsupported} is not supported: swarmpy signs with its own CA; leave it out"
            )


def update(_now: int, world: Snapshot, command: UpdateCluster) -> tuple[list[Change], Result]:
    """POST /swarm/update: the whole spec is replaced; tokens rotate where new ones are given."""
    cluster = present(world)
    if command.version != cluster.version:
        raise OutOfSequence
    validate_spec(command.spec)
    auto_lock = swarm_view(command.spec).encryption_config.auto_lock_managers
    if auto_lock:
        raise InvalidArgument(
            "autolock is not supported by this version: the journal is sealed with a key kept beside it; "
            "leave AutoLockManagers off"
        )
    changed = replace(
        cluster,
        spec=command.spec,
        worker_token=command.new_worker_token or cluster.worker_token,
        manager_token=command.new_manager_token or cluster.manager_token,
        unlock_key=command.new_unlock_key or cluster.unlock_key,
    )
    return [Put(changed, "swarm update")], Result(id=cluster.id)


def add_pools(_now: int, world: Snapshot, command: AddPools) -> tuple[list[Change], Result]:
    """More address pools, behind those that are there. None is ever taken away: networks may live in it."""
    cluster = present(world)
    if not command.pools:
        raise InvalidArgument("no address pool is named")
    every = checked_pools((*cluster.address_pools, *command.pools), cluster.subnet_size)
    return [Put(replace(cluster, address_pools=every), "address pools added")], Result(id=cluster.id)


def checked_pools(given: tuple[str, ...], size: int) -> tuple[str, ...]:
    """The address pools in their plain form. Raises InvalidArgument where no subnet of prefix length `size`
    can be cut out of one, or where two of them share addresses."""
    if not 1 <= size <= 29:
        raise InvalidArgument(
            f"invalid subnet size {size}: subnets of networks have a mask length of 1 to 29"
        )
    found: list[str] = []
    for text in given:
        pool = _pool(text, size)
        for other in found:
            if addressing.overlaps(pool, other):
                raise InvalidArgument(
                    f"address pool {pool} overlaps {other}: each address may be in one pool only"
                )
        found.append(pool)
    return tuple(found)


def _pool(text: str, size: int) -> str:
    try:
        net = ip_network(text.strip(), strict=False)
    except ValueError:
        raise InvalidArgument(
            f"invalid address pool {text!r}: it should be in CIDR notation, like 10.20.0.0/16"
        ) from None
    if net.version != 4:
        raise InvalidArgument(
            f"invalid address pool {text}: pools are IPv4; a network with IPv6 gets a subnet of its own, or "
            "the one that --subnet names"
        )
    nobodys = pools.unusable(str(net))
    if nobodys:
        raise InvalidArgument(f"invalid address pool {text}: {nobodys} cannot be given to tasks")
    if net.prefixlen > size:
        raise InvalidArgument(
            f"invalid address pool {text}: it is smaller than one subnet of mask length {size}"
        )
    return str(net)


def require_node(world: Snapshot, node_id: str) -> Node:
    """The node. Raises NotFound with Docker's words."""
    node = world.nodes.get(node_id)
    if node is None:
        raise NotFound(f"node {node_id} not found")
    return node
