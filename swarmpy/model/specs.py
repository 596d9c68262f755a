"""Typed views of Docker's specs: what users ask for.

A spec is stored and returned as the JSON text that was sent, unknown fields included (design 5a). Code that
decides reads it through these views, which are strict about types and silent about fields they do not know.
Defaults are applied where they are used: the functions at the end of a class give the effective value.
Durations are integer nanoseconds, CPU is nano-CPUs, memory is bytes, as in Docker's API.
What does not belong here: validation beyond types (plan/admission), rendering (api/).
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any, TypeVar

import msgspec

from swarmpy.model.errors import InvalidArgument

SECOND = 1_000_000_000


class _Spec(msgspec.Struct, frozen=True, rename="pascal", omit_defaults=True):
    """Base: PascalCase names, frozen, unknown fields ignored."""


class Limits(_Spec, frozen=True):
    """Upper bounds for a container; 0 is none."""

    nano_cpus: int = msgspec.field(default=0, name="NanoCPUs")
    memory_bytes: int = 0
    pids: int = 0


class Discrete(_Spec, frozen=True):
    """`Value` units of a counted resource."""

    kind: str = ""
    value: int = 0


class Named(_Spec, frozen=True):
    """One named unit of a resource."""

    kind: str = ""
    value: str = ""


class GenericResource(_Spec, frozen=True):
    """A user-defined resource, discrete or named."""

    discrete_resource_spec: Discrete | None = None
    named_resource_spec: Named | None = None


class Reservations(_Spec, frozen=True):
    """What a node must have free to take the task."""

    nano_cpus: int = msgspec.field(default=0, name="NanoCPUs")
    memory_bytes: int = 0
    generic_resources: tuple[GenericResource, ...] = ()


class Resources(_Spec, frozen=True):
    """Limits and reservations of a task."""

    limits: Limits = Limits()
    reservations: Reservations = Reservations()
    swap_bytes: int | None = None
    memory_swappiness: int | None = None


class RestartPolicy(_Spec, frozen=True):
    """When and how often an ended task is replaced. Defaults: any, 5 s, no limit, no window."""

    condition: str = "any"
    delay: int = 5 * SECOND
    max_attempts: int = 0
    window: int = 0


class Spread(_Spec, frozen=True):
    """Spread over the values of node.labels.X or engine.labels.X."""

    spread_descriptor: str = ""


class Preference(_Spec, frozen=True):
    """A placement preference; only spread exists."""

    spread: Spread | None = None


class Platform(_Spec, frozen=True):
    """An operating system and architecture ("" matches any)."""

    architecture: str = ""
    os: str = msgspec.field(default="", name="OS")


class Placement(_Spec, frozen=True):
    """Where tasks may run."""

    constraints: tuple[str, ...] = ()
    preferences: tuple[Preference, ...] = ()
    max_replicas: int = 0
    platforms: tuple[Platform, ...] = ()


class Healthcheck(_Spec, frozen=True):
    """How the Engine probes a container; durations in ns, 0 inherits the image's."""

    test: tuple[str, ...] = ()
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class DriverConfig(_Spec, frozen=True):
    """A volume driver and its options."""

    name: str = ""
    options: dict[str, str] = {}


class BindOptions(_Spec, frozen=True):
    """Options of a bind mount."""

    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False


class VolumeOptions(_Spec, frozen=True):
    """Options of a volume mount."""

    no_copy: bool = False
    labels: dict[str, str] = {}
    driver_config: DriverConfig | None = None
    subpath: str = ""


class TmpfsOptions(_Spec, frozen=True):
    """Options of a tmpfs mount."""

    size_bytes: int = 0
    mode: int = 0


class Mount(_Spec, frozen=True):
    """A volume, bind or tmpfs in the container."""

    type: str = "volume"
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: BindOptions | None = None
    volume_options: VolumeOptions | None = None
    tmpfs_options: TmpfsOptions | None = None


class DNSConfig(_Spec, frozen=True):
    """What the container's resolv.conf says."""

    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class Ulimit(_Spec, frozen=True):
    """A process limit."""

    name: str = ""
    hard: int = 0
    soft: int = 0


class LogDriver(_Spec, frozen=True):
    """A log driver and its options."""

    name: str = ""
    options: dict[str, str] = {}


class ContainerSpec(_Spec, frozen=True):
    """The container of a task. `command` is the entrypoint, `args` the arguments."""

    image: str = ""
    labels: dict[str, str] = {}
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    hostname: str = ""
    env: tuple[str, ...] = ()
    dir: str = ""
    user: str = ""
    groups: tuple[str, ...] = ()
    tty: bool = msgspec.field(default=False, name="TTY")
    open_stdin: bool = False
    read_only: bool = False
    mounts: tuple[Mount, ...] = ()
    stop_signal: str = ""
    stop_grace_period: int | None = None
    healthcheck: Healthcheck | None = None
    hosts: tuple[str, ...] = ()
    dns_config: DNSConfig | None = msgspec.field(default=None, name="DNSConfig")
    isolation: str = ""
    init: bool | None = None
    sysctls: dict[str, str] = {}
    capability_add: tuple[str, ...] = ()
    capability_drop: tuple[str, ...] = ()
    ulimits: tuple[Ulimit, ...] = ()
    oom_score_adj: int = 0
    secrets: tuple[dict[str, Any], ...] = ()
    configs: tuple[dict[str, Any], ...] = ()
    privileges: dict[str, Any] | None = None

    @property
    def grace_seconds(self) -> float:
        """Seconds between the stop signal and SIGKILL (default 10)."""
        period = self.stop_grace_period
        return 10.0 if period is None else period / SECOND


class NetworkAttachment(_Spec, frozen=True):
    """A network that a task is attached to."""

    target: str = ""
    aliases: tuple[str, ...] = ()
    driver_opts: dict[str, str] = {}


class TaskTemplate(_Spec, frozen=True):
    """What each task of a service is."""

    container_spec: ContainerSpec | None = None
    plugin_spec: dict[str, Any] | None = None
    resources: Resources = Resources()
    restart_policy: RestartPolicy = RestartPolicy()
    placement: Placement = Placement()
    force_update: int = 0
    runtime: str = ""
    networks: tuple[NetworkAttachment, ...] = ()
    log_driver: LogDriver | None = None

    @property
    def container(self) -> ContainerSpec:
        """The container part; an empty one where the template has none."""
        return self.container_spec or ContainerSpec()


class Replicated(_Spec, frozen=True):
    """A number of equal tasks; absent means 1."""

    replicas: int | None = None


class ReplicatedJob(_Spec, frozen=True):
    """A number of tasks that run to completion."""

    max_concurrent: int | None = None
    total_completions: int | None = None


class Empty(_Spec, frozen=True):
    """A mode without settings."""


class Mode(_Spec, frozen=True):
    """How many tasks and where; exactly one is set, none means replicated."""

    replicated: Replicated | None = None
    global_: Empty | None = msgspec.field(default=None, name="Global")
    replicated_job: ReplicatedJob | None = None
    global_job: Empty | None = None


class UpdateConfig(_Spec, frozen=True):
    """How an update or a rollback rolls through the tasks. In a present object only `monitor` has a
    default (5 s): parallelism 0 really means all at once."""

    parallelism: int = 0
    delay: int = 0
    failure_action: str = "pause"
    monitor: int = 5 * SECOND
    max_failure_ratio: float = 0.0
    order: str = "stop-first"


class Port(_Spec, frozen=True):
    """A published port. `published_port` 0 means: choose one."""

    name: str = ""
    protocol: str = "tcp"
    target_port: int = 0
    published_port: int = 0
    publish_mode: str = "ingress"


class EndpointSpec(_Spec, frozen=True):
    """How a service is reached."""

    mode: str = "vip"
    ports: tuple[Port, ...] = ()


class ServiceSpec(_Spec, frozen=True):
    """What a service should be."""

    name: str = ""
    labels: dict[str, str] = {}
    task_template: TaskTemplate = TaskTemplate()
    mode: Mode = Mode()
    update_config: UpdateConfig | None = None
    rollback_config: UpdateConfig | None = None
    endpoint_spec: EndpointSpec | None = None
    networks: tuple[NetworkAttachment, ...] = ()

    @property
    def is_global(self) -> bool:
        """Whether one task runs on every fitting node."""
        return self.mode.global_ is not None

    @property
    def replicas(self) -> int:
        """Number of tasks of a replicated service (1 where the spec does not say)."""
        replicated = self.mode.replicated
        return 1 if replicated is None or replicated.replicas is None else replicated.replicas

    @property
    def update(self) -> UpdateConfig:
        """The effective update configuration (absent object: one at a time)."""
        return self.update_config or UpdateConfig(parallelism=1)

    @property
    def ports(self) -> tuple[Port, ...]:
        """Published ports."""
        return self.endpoint_spec.ports if self.endpoint_spec else ()


class NodeSpec(_Spec, frozen=True):
    """What an operator asked of a node."""

    name: str = ""
    labels: dict[str, str] = {}
    role: str = "worker"
    availability: str = "active"


class Orchestration(_Spec, frozen=True):
    """How much task history is kept per slot (default 5; negative keeps all)."""

    task_history_retention_limit: int | None = None


class Dispatcher(_Spec, frozen=True):
    """`heartbeat_period`: silence after which a node is down, ns (default 5 s)."""

    heartbeat_period: int = 0


class CAConfig(_Spec, frozen=True):
    """Certificates: `node_cert_expiry` in ns (default 90 days)."""

    node_cert_expiry: int = 0


class EncryptionConfig(_Spec, frozen=True):
    """Autolock."""

    auto_lock_managers: bool = False


class TaskDefaults(_Spec, frozen=True):
    """Defaults for tasks that do not say."""

    log_driver: LogDriver | None = None


class RaftConfig(_Spec, frozen=True):
    """Raft settings as Docker names them."""

    snapshot_interval: int = 0
    keep_old_snapshots: int | None = None
    log_entries_for_slow_followers: int = 0
    election_tick: int = 0
    heartbeat_tick: int = 0


class SwarmSpec(_Spec, frozen=True):
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


S = TypeVar("S", bound=_Spec)


def _without_nulls(value: Any) -> Any:
    """Go's clients send null where they mean absent."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value if item is not None]
    return value


def compact(raw: Any) -> str:
    """The JSON text under which a spec is stored: key order as sent, no spaces."""
    return json.dumps(raw, separators=(",", ":"), ensure_ascii=False)


def view(kind: type[S], text: str) -> S:
    """The typed view of a stored spec. Raises InvalidArgument with the path of what is wrong."""
    result: S = _view(kind, text)
    return result


@lru_cache(maxsize=20_000)
def _view(kind: type[_Spec], text: str) -> Any:
    try:
        return msgspec.convert(_without_nulls(json.loads(text or "{}")), kind)
    except json.JSONDecodeError as error:
        raise InvalidArgument(f"the spec is not JSON: {error}") from None
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"invalid {kind.__name__}: {error}") from None


def service_view(text: str) -> ServiceSpec:
    """Typed view of a service's spec."""
    return view(ServiceSpec, text)


def template_view(text: str) -> TaskTemplate:
    """Typed view of a task's template."""
    return view(TaskTemplate, text)


def node_view(text: str) -> NodeSpec:
    """Typed view of a node's spec."""
    return view(NodeSpec, text)


def swarm_view(text: str) -> SwarmSpec:
    """Typed view of the cluster's spec."""
    return view(SwarmSpec, text)


def endpoint_view(text: str) -> EndpointSpec:
    """Typed view of an endpoint spec."""
    return view(EndpointSpec, text)
