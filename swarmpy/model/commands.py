"""Commands: what users, nodes and the managers' own services ask the leader to do.

A command is admitted by plan/admission (validated against the present world) and becomes changes; its answer
is a Result. Commands cross the wire from followers to the leader, so they are plain data.
What does not belong here: how they are carried out (plan/), HTTP (api/).
"""

from __future__ import annotations

import msgspec

from swarmpy.model import codec
from swarmpy.model.lifecycle import NodeState, Role
from swarmpy.model.objects import Attachment, Cluster, Description, TaskStatus


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """Base. `request_id` makes retries apply once ("" for commands that are naturally idempotent)."""

    request_id: str = ""


class InitCluster(Command, frozen=True, kw_only=True, tag="init-cluster"):
    """The first command of a cluster: the cluster object and its first node."""

    cluster: Cluster
    node_id: str
    address: str
    manager_address: str
    certificate: str
    description: Description
    availability: str = "active"
    data_address: str = ""
    """Address of its VXLAN endpoint, "" for `address`."""
    listen_port: int = 0
    """Where its wire server listens; 0 for the port of `manager_address`."""


class UpdateCluster(Command, frozen=True, kw_only=True, tag="update-cluster"):
    """POST /swarm/update. New tokens are drawn by the shell; empty ones are kept as they are."""

    version: int
    spec: str
    new_worker_token: str = ""
    new_manager_token: str = ""
    new_unlock_key: str = ""


class AddPools(Command, frozen=True, kw_only=True, tag="add-pools"):
    """POST /swarmpy/v1/address-pools: more ranges from which networks get their subnets."""

    pools: tuple[str, ...]


class CreateService(Command, frozen=True, kw_only=True, tag="create-service"):
    """POST /services/create. `id` is drawn by the shell."""

    id: str
    spec: str
    auth: str = ""
    fallback_name: str = ""
    """Name to use where the spec has none."""


class UpdateService(Command, frozen=True, kw_only=True, tag="update-service"):
    """POST /services/{id}/update. `service` is the full id. `auth_from`: spec or previous-spec.
    `rollback`: "" or previous."""

    service: str
    version: int
    spec: str
    auth: str = ""
    auth_from: str = "spec"
    rollback: str = ""


class RemoveService(Command, frozen=True, kw_only=True, tag="remove-service"):
    """DELETE /services/{id}; `service` is a full id."""

    service: str


class CreateNetwork(Command, frozen=True, kw_only=True, tag="create-network"):
    """POST /networks/create for an overlay network. `id` is drawn by the shell; `spec` is the body sent."""

    id: str
    spec: str


class RemoveNetwork(Command, frozen=True, kw_only=True, tag="remove-network"):
    """DELETE /networks/{id}; `network` is a full id."""

    network: str


class AttachContainer(Command, frozen=True, kw_only=True, tag="attach-container"):
    """A node's container takes places in networks, besides those that it has; what is said again changes
    nothing. `id` is the guest's, drawn by the node. `networks`: full ids; their addresses, with or without
    prefix length, are those that are asked for (none: any)."""

    id: str
    node: str
    name: str = ""
    container_id: str = ""
    hostname: str = ""
    networks: tuple[Attachment, ...] = ()


class DetachContainer(Command, frozen=True, kw_only=True, tag="detach-container"):
    """A node's container gives up its places in these networks (full ids), () in all."""

    id: str
    node: str
    networks: tuple[str, ...] = ()


class UpdateNode(Command, frozen=True, kw_only=True, tag="update-node"):
    """POST /nodes/{id}/update: full replacement of the NodeSpec."""

    node: str
    version: int
    spec: str


class RemoveNode(Command, frozen=True, kw_only=True, tag="remove-node"):
    """DELETE /nodes/{id}."""

    node: str
    force: bool = False


class JoinNode(Command, frozen=True, kw_only=True, tag="join-node"):
    """A node presented a valid token and got a certificate. `id` is drawn by the shell."""

    id: str
    role: Role
    address: str
    certificate: str
    hostname: str = ""
    availability: str = "active"
    data_address: str = ""
    """Address of its VXLAN endpoint, "" for `address`."""
    listen_port: int = 0
    """Where its wire server listens, or would as a manager; 0 where the node did not say."""


class RenewCertificate(Command, frozen=True, kw_only=True, tag="renew-certificate"):
    """A node got a new certificate."""

    node: str
    certificate: str


class SetRole(Command, frozen=True, kw_only=True, tag="set-role"):
    """The role service carried out a promotion or demotion. `manager_address` "" gives up the seat."""

    node: str
    role: Role
    manager_address: str = ""


class ObserveNode(Command, frozen=True, kw_only=True, tag="observe-node"):
    """The dispatcher saw a node's session begin, break, fall silent or end with a goodbye."""

    node: str
    state: NodeState
    message: str = ""
    address: str = ""
    description: Description | None = None
    silent_ns: int = 0
    """For how long the node had not been heard when this was seen: the state began that much earlier."""


class ReportTasks(Command, frozen=True, kw_only=True, tag="report-tasks"):
    """An agent's report on its own tasks: (task id, status), latest per task."""

    node: str
    statuses: tuple[tuple[str, TaskStatus], ...]


class Leave(Command, frozen=True, kw_only=True, tag="leave"):
    """A node said goodbye: it is down at once."""

    node: str


NetworkCommand = CreateNetwork | RemoveNetwork | AttachContainer | DetachContainer

NodeCommand = UpdateNode | RemoveNode | JoinNode | RenewCertificate | SetRole | ObserveNode | Leave

AnyCommand = (
    InitCluster
    | UpdateCluster
    | AddPools
    | CreateService
    | UpdateService
    | RemoveService
    | ReportTasks
    | NetworkCommand
    | NodeCommand
)


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What an admitted command answers: the id of its object, and warnings for the user. `index` is the
    log index at which its changes were applied (set by the writer)."""

    id: str = ""
    warnings: tuple[str, ...] = ()
    index: int = 0


def decode_command(data: bytes) -> AnyCommand:
    """The command in these bytes. Raises codec.CodecError with the path of what is wrong."""
    command: AnyCommand = codec.decode_any(AnyCommand, data)
    return command
