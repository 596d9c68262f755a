"""The objects of the replicated world: what is, as against specs.py, which is what users ask for.

Every object is frozen; a change replaces it. One field has one writer: specs are the user's, `desired` and
everything up to ASSIGNED the leader's, `status` from ACCEPTED on the agent's of the task's node.
What does not belong here: containers of objects (state/), messages between nodes (messages.py).
"""

from __future__ import annotations

import msgspec

from swarmpy.model.lifecycle import NodeState, Role, TaskState
from swarmpy.model.specs import (
    EndpointSpec,
    NetworkSpec,
    NodeSpec,
    Port,
    ServiceSpec,
    SwarmSpec,
    TaskTemplate,
    endpoint_view,
    network_view,
    node_view,
    service_view,
    swarm_view,
    template_view,
)


class Object(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What every object has. Frozen trees of plain values have no cycles, so the garbage collector need not
    walk through a hundred thousand of them. `version` is the log index of its last write (set by apply, as
    are the two times, ns since the epoch)."""

    id: str
    version: int = 0
    created_at: int = 0
    updated_at: int = 0


class Revoked(msgspec.Struct, frozen=True):
    """A node that was removed: its certificates are refused until they have expired."""

    node_id: str
    until: int


class NetworkKey(msgspec.Struct, frozen=True, gc=False):
    """A secret (hex) from which the nodes of encrypted networks make the keys of their pairs. Never shown."""

    number: int
    secret: str


class KeyRing(msgspec.Struct, frozen=True, kw_only=True):
    """The secrets of encrypted networks, in order: the one that was used before, the one that is sent with,
    and the one that comes next. `seed` (hex) is what all later ones are made of; `since` (cluster time, ns)
    is when they were rotated last."""

    seed: str = ""
    keys: tuple[NetworkKey, ...] = ()
    since: int = 0

    @property
    def sending(self) -> int:
        """Number of the secret that is sent with, 0 for none."""
        return self.keys[1].number if len(self.keys) > 1 else 0


class Cluster(Object, frozen=True, kw_only=True, tag="cluster"):
    """The cluster itself; there is one. Its `id` is the O of every certificate."""

    spec: str = "{}"
    root_cert: str = ""
    root_key: str = ""
    """PEM of the CA's key. The journal and snapshots that hold it are sealed at rest."""
    worker_token: str = ""
    manager_token: str = ""
    """The two join tokens, whole (pki/tokens.py)."""
    unlock_key: str = ""
    address_pools: tuple[str, ...] = ("10.0.0.0/8",)
    subnet_size: int = 24
    data_path_port: int = 4789
    network_keys: KeyRing = KeyRing()
    revoked: tuple[Revoked, ...] = ()

    @property
    def view(self) -> SwarmSpec:
        """Typed view of the spec."""
        return swarm_view(self.spec)


class Resource(msgspec.Struct, frozen=True):
    """A generic resource of a node: `value` units, or the named ones in `names`."""

    kind: str
    value: int = 0
    names: tuple[str, ...] = ()


class Description(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a node says of itself. Memory in bytes, CPU in nano-CPUs."""

    hostname: str = ""
    os: str = ""
    architecture: str = ""
    nano_cpus: int = 0
    memory_bytes: int = 0
    generic: tuple[Resource, ...] = ()
    engine_version: str = ""
    engine_labels: dict[str, str] = {}
    plugins: tuple[tuple[str, str], ...] = ()
    """(type, name): Volume, Network, Log, Authorization."""
    mtu: int = 0
    """MTU of the link that carries its VXLAN traffic, 0 while it is not known."""
    trouble: str = ""
    """What keeps the node from starting anything: its Engine does not answer, say. "" while all is well."""
    features: tuple[str, ...] = ()
    """What its kernel offers to networks: overlay, nftables, ipvs, encryption, sctp, ipv6; sorted."""


class Subnet(msgspec.Struct, frozen=True, kw_only=True):
    """A subnet of a network, with what is given away of it. `ip_range` "" is all of it; `reserved` are
    addresses never given away. `cursor`: offset of the address given away last, so that one that was freed
    is not taken again at once."""

    subnet: str
    gateway: str
    ip_range: str = ""
    reserved: tuple[str, ...] = ()
    cursor: int = 0


class Network(Object, frozen=True, kw_only=True, tag="network"):
    """An overlay network. One VXLAN id carries all its subnets."""

    name: str
    spec: str = "{}"
    subnets: tuple[Subnet, ...] = ()
    vni: int = 0

    @property
    def view(self) -> NetworkSpec:
        """Typed view of the spec."""
        return network_view(self.spec)


class Vip(msgspec.Struct, frozen=True, gc=False):
    """A service's virtual address in a network, as CIDR (10.0.1.2/24)."""

    network_id: str
    address: str


class Attachment(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A task's place in a network. `addresses` are CIDRs, IPv4 first, kept for the task's whole life;
    `aliases` are the names given to it there besides its service's."""

    network_id: str
    addresses: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    driver_opts: dict[str, str] = {}


class NodeStatus(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the leader knows of a node; `since` is when the state began (cluster time, ns)."""

    state: NodeState = NodeState.UNKNOWN
    message: str = ""
    address: str = ""
    since: int = 0


class Node(Object, frozen=True, kw_only=True, tag="node"):
    """A machine of the cluster. The spec's role is what was asked, `role` what it is."""

    spec: str = "{}"
    role: Role = Role.WORKER
    description: Description = Description()
    status: NodeStatus = NodeStatus()
    manager_address: str = ""
    """HOST:PORT of its wire server while it has a seat in the raft group; "" otherwise."""
    listen_port: int = 0
    """TCP port at which its wire server listens while it is a manager; 0 while that is not known."""
    certificate: str = ""
    """PEM of the last certificate issued to it."""
    data_address: str = ""
    """Address of its VXLAN endpoint, "" for `status.address`."""
    ingress: tuple[str, ...] = ()
    """Its own addresses (CIDR) in the ingress network: where replies to its routing mesh go."""

    @property
    def view(self) -> NodeSpec:
        """Typed view of the spec."""
        return node_view(self.spec)

    @property
    def hostname(self) -> str:
        """Its host name, or its id while that is not known."""
        return self.description.hostname or self.id

    @property
    def vtep(self) -> str:
        """The address that other nodes send its VXLAN frames to."""
        return self.data_address or self.status.address


class UpdateStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Where a service's update stands: updating, paused, completed, rollback_started, rollback_paused,
    rollback_completed."""

    state: str
    started_at: int
    completed_at: int = 0
    message: str = ""


class Service(Object, frozen=True, kw_only=True, tag="service"):
    """A service. `spec_version` is the version at which its tasks' template last changed: tasks that
    carry an older one are dirty. `auth` is X-Registry-Auth content; it is never returned."""

    name: str
    spec: str
    spec_version: int = 0
    auth: str = ""
    previous_spec: str = ""
    previous_spec_version: int = 0
    previous_auth: str = ""
    update: UpdateStatus | None = None
    vips: tuple[Vip, ...] = ()
    """Its virtual addresses, in the order of its networks."""
    ports: tuple[Port, ...] = ()
    """Its published ports as they are: what the spec left open is chosen."""

    @property
    def view(self) -> ServiceSpec:
        """Typed view of the spec."""
        return service_view(self.spec)


class PortStatus(msgspec.Struct, frozen=True):
    """A port that the Engine published for a container on its node."""

    protocol: str
    target: int
    published: int


class TaskStatus(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A task as last observed. `at` is when the state was reached; `err` is for the user."""

    state: TaskState = TaskState.NEW
    at: int = 0
    message: str = "created"
    err: str = ""
    container_id: str = ""
    pid: int = 0
    exit_code: int = 0
    ports: tuple[PortStatus, ...] = ()


class Task(Object, frozen=True, kw_only=True, tag="task"):
    """One run of one slot of a service. id, service_id, slot never change; node_id never changes once set.
    `slot` is 0 for tasks of global services, whose place is the node."""

    service_id: str
    service_name: str
    slot: int = 0
    node_id: str = ""
    template: str = "{}"
    """JSON text of the TaskTemplate that it runs."""
    endpoint: str = "{}"
    """JSON text of the EndpointSpec that it was made for."""
    spec_version: int = 0
    """The service's spec_version that it was made for."""
    auth: str = ""
    desired: TaskState = TaskState.RUNNING
    status: TaskStatus = TaskStatus()
    state_since: int = 0
    """When status.state last changed, cluster time in ns (status.at is the node's own clock)."""
    not_before: int = 0
    """A restarted task waits in desired READY until this instant (cluster time, ns); 0: it does not wait."""
    replaces: str = ""
    """Id of the task that this one replaces in its slot; it waits for that one to stop ("" if none)."""
    labels: dict[str, str] = {}
    networks: tuple[Attachment, ...] = ()
    """Its places in networks, in the order of the template, the ingress network last."""

    @property
    def view(self) -> TaskTemplate:
        """Typed view of the template."""
        return template_view(self.template)

    @property
    def endpoint_view(self) -> EndpointSpec:
        """Typed view of the endpoint spec."""
        return endpoint_view(self.endpoint)

    @property
    def name(self) -> str:
        """SERVICE.SLOT.ID, or SERVICE.NODEID.ID without a slot: the container's name."""
        return f"{self.service_name}.{self.slot or self.node_id}.{self.id}"


class Guest(Object, frozen=True, kw_only=True, tag="guest"):
    """A container that is no task but has places in attachable networks: a user of a node made it. It is what
    Swarm calls a task of the runtime "attachment"; it keeps its places until it is disconnected or removed.
    node_id never changes."""

    node_id: str
    name: str = ""
    """The container's name, "" until that is known; likewise `container_id`."""
    container_id: str = ""
    hostname: str = ""
    networks: tuple[Attachment, ...] = ()
    """Its places, by network id; never empty."""


AnyObject = Cluster | Node | Service | Task | Network | Guest
KINDS: dict[str, type[AnyObject]] = {
    "cluster": Cluster,
    "node": Node,
    "service": Service,
    "task": Task,
    "network": Network,
    "guest": Guest,
}


_KIND_OF: dict[type[Object], str] = {kind: name for name, kind in KINDS.items()}


def kind_of(item: AnyObject) -> str:
    """The table that the object lives in."""
    return _KIND_OF[type(item)]
