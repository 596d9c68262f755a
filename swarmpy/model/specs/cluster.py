"""The cluster and its nodes. See the package's charter."""

from __future__ import annotations

import msgspec

from swarmpy.model.specs.base import SECOND, Int64, Spec, UInt64, view
from swarmpy.model.specs.container import LogDriver


class NodeSpec(Spec, frozen=True):
    """What an operator asked of a node."""

    name: str = ""
    labels: dict[str, str] = {}
    role: str = "worker"
    availability: str = "active"


class Orchestration(Spec, frozen=True):
    """How much task history is kept per slot (default 5; negative keeps all)."""

    task_history_retention_limit: Int64 | None = None


class Dispatcher(Spec, frozen=True):
    """`heartbeat_period`: silence after which a node is down, ns (default 5 s)."""

    heartbeat_period: Int64 = 0


class CAConfig(Spec, frozen=True):
    """Certificates: `node_cert_expiry` in ns (default 90 days)."""

    node_cert_expiry: Int64 = 0


class EncryptionConfig(Spec, frozen=True):
    """Autolock."""

    auto_lock_managers: bool = False


class TaskDefaults(Spec, frozen=True):
    """Defaults for tasks that do not say."""

    log_driver: LogDriver | None = None


class RaftConfig(Spec, frozen=True):
    """Raft settings as Docker names them."""

    snapshot_interval: UInt64 = 0
    keep_old_snapshots: UInt64 | None = None
    log_entries_for_slow_followers: UInt64 = 0
    election_tick: Int64 = 0
    heartbeat_tick: Int64 = 0


class SwarmSpec(Spec, frozen=True):
    """What the cluster as a whole should be."""

    name: str = ""
    labels: dict[str, str] = {}
    orchestration: Orchestration = Orchestration()
    raft: RaftConfig = RaftConfig()
    dispatcher: Dispatcher = Dispatcher()
    ca_config: CAConfig = msgspec.field(default=CAConfig(), name="CAConfig")
    encryption_config: EncryptionConfig = EncryptionConfig()
    task_defaults: TaskDefaults = TaskDefaults()

    @property
    def history_limit(self) -> int:
        """Tasks kept per slot, the live one included."""
        limit = self.orchestration.task_history_retention_limit
        return 5 if limit is None else limit

    @property
    def heartbeat_seconds(self) -> float:
        """Seconds of silence after which a node is down."""
        return (self.dispatcher.heartbeat_period or 5 * SECOND) / SECOND

    @property
    def certificate_ns(self) -> int:
        """Lifetime of node certificates, ns."""
        return self.ca_config.node_cert_expiry or 90 * 24 * 3600 * SECOND


def node_view(text: str) -> NodeSpec:
    """Typed view of a node's spec."""
    return view(NodeSpec, text)


def swarm_view(text: str) -> SwarmSpec:
    """Typed view of the cluster's spec."""
    return view(SwarmSpec, text)
