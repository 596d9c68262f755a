"""Admission of commands on nodes: joining, being seen, changing roles, leaving, being removed."""

from __future__ import annotations

from msgspec.structs import replace

from swarmpy.model import addressing
from swarmpy.model.commands import (
    JoinNode,
    Leave,
    ObserveNode,
    RemoveNode,
    RenewCertificate,
    Result,
    SetRole,
    UpdateNode,
)
from swarmpy.model.errors import FailedPrecondition, InvalidArgument, OutOfSequence
from swarmpy.model.lifecycle import NodeState, Role
from swarmpy.model.objects import Description, Node, NodeStatus, Revoked
from swarmpy.model.specs import NodeSpec, compact, node_view
from swarmpy.plan import pools, published
from swarmpy.plan.admission.cluster import present, require_node
from swarmpy.state.changes import Change, Delete, Put
from swarmpy.state.snapshot import Snapshot

ROLES = ("worker", "manager")
AVAILABILITIES = ("active", "pause", "drain")
REVOKED_NS = 7 * 24 * 3600 * 1_000_000_000
"""A removed node stays refused until its certificate has expired, plus a week (SwarmKit)."""


def join(now: int, world: Snapshot, command: JoinNode) -> tuple[list[Change], Result]:
    """A new node, after its token was verified and its certificate issued."""
    present(world)
    if command.availability not in AVAILABILITIES:
        raise InvalidArgument(f"invalid Availability: {command.availability!r} is not active, pause or drain")
    _check_underlay(world, command.data_address or command.address)
    _check_outside(world, command)
    node = Node(
        id=command.id,
        spec=compact({"Role": command.role.word, "Availability": command.availability}),
        role=command.role,
        description=Description(hostname=command.hostname),
        status=NodeStatus(state=NodeState.UNKNOWN, address=command.address, since=now),
        certificate=command.certificate,
        data_address=command.data_address,
        listen_port=command.listen_port,
    )
    if command.role is Role.MANAGER:
        _check_port(world, node, "join with another --listen-addr")
    return [Put(node, f"joined with the {command.role.word} token")], Result(id=node.id)


def _check_underlay(world: Snapshot, address: str) -> None:
    """Nodes send each other VXLAN over one IP version: a VXLAN device speaks one."""
    mine = pools.canonical(address)
    for node in world.nodes:
        other = pools.canonical(node.vtep)
        if mine and other and node.status.state is not NodeState.DOWN and (":" in mine) != (":" in other):
            kinds = ("IPv6", "IPv4") if ":" in mine else ("IPv4", "IPv6")
            raise InvalidArgument(
                f"this node would carry overlay networks over {kinds[0]} ({mine}), but node {node.hostname} "
                f"does over {kinds[1]} ({other}), and no network can use both: join with --data-path-addr "
                f"and an {kinds[1]} address of this node"
            )


def _check_outside(world: Snapshot, command: JoinNode) -> None:
    """The other order of the same rule is in admission/network.py: no subnet over a node's address."""
    for what, given in (("--advertise-addr", command.address), ("--data-path-addr", command.data_address)):
        mine = pools.canonical(given)
        for network in world.networks if mine else ():
            held = next((one.subnet for one in network.subnets if addressing.inside(mine, one.subnet)), "")
            if held:
                raise InvalidArgument(
                    f"this node's address {mine} lies in {held}, the subnet of network {network.name}: its "
                    f"tasks could not reach this machine, nor it them; join with {what} and an address "
                    "outside of it, or make the network anew with another subnet"
                )


def update(
    _now: int, world: Snapshot, command: UpdateNode, reachable: frozenset[str]
) -> tuple[list[Change], Result]:
    """POST /nodes/{id}/update. A demotion that would cost the quorum is refused."""
    node = require_node(world, command.node)
    if command.version != node.version:
        raise OutOfSequence
    spec = node_view(command.spec)
    _validate(spec)
    if spec.role == "worker" and node.view.role == "manager":
        _check_demotion(world, node, reachable)
    if spec.role == "manager" and node.view.role == "worker":
        _check_port(world, node, "let the node join again with another --listen-addr")
    return [Put(replace(node, spec=command.spec), "node update")], Result(id=node.id)


def _validate(spec: NodeSpec) -> None:
    if spec.role not in ROLES:
        raise InvalidArgument(f'invalid Role: "{spec.role}" is not worker or manager')
    if spec.availability not in AVAILABILITIES:
        raise InvalidArgument(f'invalid Availability: "{spec.availability}" is not active, pause or drain')


def _check_port(world: Snapshot, node: Node, instead: str) -> None:
    """The routing mesh takes a published port on every node: a manager could not be reached at its own."""
    taken = published.through_mesh(world).get(("tcp", node.listen_port))
    if taken is not None:
        raise FailedPrecondition(
            f"node {node.hostname} cannot be a manager: it listens on port {node.listen_port}, which service "
            f"'{taken.name}' ({taken.id}) has published through the routing mesh on every node; {instead}, "
            "or publish the service at another port"
        )


def _check_demotion(world: Snapshot, node: Node, reachable: frozenset[str]) -> None:
    managers = [other for other in world.nodes if other.view.role == "manager"]
    if len(managers) == 1:
        raise FailedPrecondition("attempting to demote the last manager of the swarm")
    seats = [other.id for other in world.nodes if other.manager_address and other.id != node.id]
    alive = [seat for seat in seats if seat in reachable]
    if node.manager_address and len(alive) < len(seats) // 2 + 1:
        raise FailedPrecondition(
            "can't remove member from the raft: this would result in a loss of quorum "
            f"({len(alive)} of {len(seats)} remaining managers are reachable)"
        )


def remove(now: int, world: Snapshot, command: RemoveNode) -> tuple[list[Change], Result]:
    """DELETE /nodes/{id}: the node is forgotten and its certificates are refused from now on."""
    cluster = present(world)
    node = require_node(world, command.node)
    if node.manager_address or node.view.role == "manager":
        raise FailedPrecondition(
            f"node {node.id} is a cluster manager and is a member of the raft cluster. "
            "It must be demoted to worker before removal"
        )
    if node.status.state is NodeState.READY and not command.force:
        raise FailedPrecondition(f"node {node.id} is not down and can't be removed")
    until = now + cluster.view.certificate_ns + REVOKED_NS
    kept = tuple(entry for entry in cluster.revoked if entry.until > now)
    changed = replace(cluster, revoked=(*kept, Revoked(node.id, until)))
    cause = "node rm --force" if command.force else "node rm"
    return [Put(changed, cause), Delete("node", node.id, cause)], Result(id=node.id)


def renew(_now: int, world: Snapshot, command: RenewCertificate) -> tuple[list[Change], Result]:
    """Record a node's new certificate."""
    node = require_node(world, command.node)
    return [Put(replace(node, certificate=command.certificate), "certificate renewed")], Result(id=node.id)


def set_role(_now: int, world: Snapshot, command: SetRole) -> tuple[list[Change], Result]:
    """What the role service carried out: role and seat in the raft group."""
    node = require_node(world, command.node)
    changed = replace(node, role=command.role, manager_address=command.manager_address)
    if changed == node:
        return [], Result(id=node.id)
    cause = "took its seat among the managers" if command.manager_address else f"is now a {command.role.word}"
    return [Put(changed, cause)], Result(id=node.id)


def observe(now: int, world: Snapshot, command: ObserveNode) -> tuple[list[Change], Result]:
    """What the dispatcher saw of a node. A node that is DOWN stays so until it is READY again."""
    node = require_node(world, command.node)
    status, state = node.status, command.state
    if status.state is NodeState.DOWN and state is not NodeState.READY:
        state = NodeState.DOWN
    same = state is status.state
    fresh = NodeStatus(
        state=state,
        message=status.message if same else command.message,
        address=command.address or status.address,
        since=status.since if same else now - command.silent_ns,
    )
    changed = replace(node, status=fresh, description=command.description or node.description)
    if changed == node:
        return [], Result(id=node.id)
    return [Put(changed, command.message or f"seen {state.word}")], Result(id=node.id)


def leave(now: int, world: Snapshot, command: Leave) -> tuple[list[Change], Result]:
    """A goodbye: the node is down at once and shows so until it is removed."""
    node = require_node(world, command.node)
    status = NodeStatus(
        state=NodeState.DOWN, message="node left the swarm", address=node.status.address, since=now
    )
    gone: list[Change] = [
        Delete("guest", key, "its node left the swarm") for key in sorted(world.guests_on(node.id) or ())
    ]
    return [Put(replace(node, status=status), "swarm leave"), *gone], Result(id=node.id)


def effective_role(node: Node) -> Role:
    """The role that the operator asked for."""
    return Role.MANAGER if node.view.role == "manager" else Role.WORKER
