"""The cluster and this node, as the API sees them. See the package's charter."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from swarmpy.model.commands import AnyCommand, Result
from swarmpy.model.examination import Finding, Held
from swarmpy.model.objects import Attachment, Guest
from swarmpy.plan.container import Wire
from swarmpy.ports.engine import LogQuery
from swarmpy.state.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class ManagersView:
    """Who leads, and which managers (node ids) the leader heard from lately."""

    leader: str | None
    reachable: frozenset[str]


@dataclass(frozen=True, slots=True)
class TaskLogFrame:
    """A piece of a task's output, or (with `problem`) a sentence saying what is missing from the stream."""

    task_id: str
    node_id: str
    service_id: str
    stream: str
    data: bytes
    time: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Examination:
    """What came of examining networks: their ids, ids of the nodes that reported and of those that did not,
    how many ways between nodes were tried, and the findings."""

    networks: tuple[str, ...]
    reported: tuple[str, ...]
    silent: tuple[str, ...]
    tried: int
    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong."""
        return all(one.kind != "problem" for one in self.findings)


class Control(Protocol):
    """The control plane, on any manager: follower or leader makes no difference to the caller.

    Everything raises model.errors.Refusal; Unavailable where there is no leader or no quorum in time.
    """

    async def world(self) -> Snapshot:
        """A linearizable read: the world at or after every write acknowledged before the call."""

    async def submit(self, command: AnyCommand) -> Result:
        """Have the leader admit and commit a command; returns once it is applied on this manager too."""

    async def managers(self) -> ManagersView:
        """Leader and reachability."""

    async def world_and_managers(self) -> tuple[Snapshot, ManagersView]:
        """Both, asked at once."""

    async def changed(self, since: int, *, timeout: float = 30.0) -> Snapshot:
        """This manager's world as soon as its version is larger than `since` (not linearizable)."""

    def logs(self, tasks: tuple[str, ...], query: LogQuery) -> AsyncIterator[TaskLogFrame]:
        """Merged output of tasks (full ids) from their nodes. With query.follow it goes on until closed."""

    def explain(self, world: Snapshot, reference: str) -> Mapping[str, Any]:
        """Why tasks run where they run or do not: see plan/explain."""

    async def examine(self, networks: tuple[str, ...]) -> Examination:
        """Have the nodes look at these networks (full ids; all where none is named), mend and try them."""

    async def told(self, network_id: str) -> Mapping[str, Held]:
        """How far each node follows a network, by node id."""


@dataclass(frozen=True, slots=True)
class InitRequest:
    """POST /swarm/init, decoded. `spec` is the SwarmSpec's JSON text. Addresses are IP, interface or
    IP:PORT, "" for the default."""

    listen_address: str = "0.0.0.0:2377"
    advertise_address: str = ""
    data_path_address: str = ""
    data_path_port: int = 0
    address_pools: tuple[str, ...] = ()
    subnet_size: int = 0
    force_new_cluster: bool = False
    auto_lock: bool = False
    availability: str = "active"
    spec: str = "{}"


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """POST /swarm/join, decoded. Only the first remote address is used, as in Docker."""

    remote_addresses: tuple[str, ...]
    token: str
    listen_address: str = "0.0.0.0:2377"
    advertise_address: str = ""
    data_path_address: str = ""
    availability: str = "active"


@dataclass(frozen=True, slots=True)
class NodeView:
    """What this node is at the moment. `state`: inactive, pending, active, error or locked."""

    state: str = "inactive"
    node_id: str = ""
    address: str = ""
    is_manager: bool = False
    error: str = ""
    managers: tuple[tuple[str, str], ...] = ()
    """(node id, HOST:PORT) of the managers this node knows."""
    cluster_id: str = ""


@dataclass(frozen=True, slots=True)
class AttachRequest:
    """A container of this node that wants places in networks, which are named by id or name. `guest_id` is
    drawn by the caller, and the same for all of a container's places."""

    guest_id: str
    networks: tuple[Attachment, ...]
    name: str = ""
    container_id: str = ""
    hostname: str = ""


class LocalNode(Protocol):
    """This node's membership. Everything raises model.errors.Refusal."""

    def view(self) -> NodeView:
        """The present state."""

    @property
    def control(self) -> Control | None:
        """The control plane; None on a node that is not an active manager."""

    async def init(self, request: InitRequest) -> str:
        """Begin a cluster; returns the node id."""

    async def join(self, request: JoinRequest) -> None:
        """Join a cluster; returns once the node is a member (up to 20 s, then goes on by itself)."""

    async def attach(self, request: AttachRequest) -> tuple[Guest, Mapping[str, Wire]]:
        """Have the leader give the container its places, and this node and its Engine know the networks; what
        they are here, by id, is the second part of the answer. The places are kept without a container until
        `arrived` is called."""

    def arrived(self, guest_id: str) -> None:
        """The container of an `attach` that was granted is made, or will not be."""

    async def detach(self, guest_id: str, networks: tuple[str, ...] = ()) -> None:
        """The container gives up its places in these networks (full ids), () in all; unknown ones are
        fine."""

    async def leave(self, *, force: bool = False) -> None:
        """Leave the cluster: tasks are stopped and removed, the state is wiped."""
