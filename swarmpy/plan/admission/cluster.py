"""Admission of commands on the cluster itself: its beginning and its settings."""

from __future__ import annotations

import json

from msgspec.structs import replace

from swarmpy.model.commands import InitCluster, Result, UpdateCluster
from swarmpy.model.errors import FailedPrecondition, InvalidArgument, NotFound, OutOfSequence
from swarmpy.model.lifecycle import NodeState, Role
from swarmpy.model.objects import Cluster, Node, NodeStatus
from swarmpy.model.specs import compact, swarm_view
from swarmpy.plan.admission import network
from swarmpy.state.changes import Change, Put
from swarmpy.state.snapshot import Snapshot

MIN_CERTIFICATE_NS = 3600 * 1_000_000_000
"""Docker refuses node certificates that live less than an hour."""


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
    spec = compact({"Role": "manager", "Availability": command.availability})
    node = Node(
        id=command.node_id,
        spec=spec,
        role=Role.MANAGER,
        description=command.description,
        status=NodeStatus(state=NodeState.READY, address=command.address, since=now),
        manager_address=command.manager_address,
        certificate=command.certificate,
    )
    cause = "swarm init"
    ingress = network.first(command.cluster, now)
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


def require_node(world: Snapshot, node_id: str) -> Node:
    """The node. Raises NotFound with Docker's words."""
    node = world.nodes.get(node_id)
    if node is None:
        raise NotFound(f"node {node_id} not found")
    return node
