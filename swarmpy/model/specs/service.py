"""Services: modes, updates, ports. See the package's charter."""

from __future__ import annotations

import msgspec

from swarmpy.model.specs.base import SECOND, Int64, Spec, view
from swarmpy.model.specs.task import NetworkAttachment, TaskTemplate


class Replicated(Spec, frozen=True):
    """A number of equal tasks; absent means 1."""

    replicas: int | None = None


class ReplicatedJob(Spec, frozen=True):
    """A number of tasks that run to completion."""

    max_concurrent: int | None = None
    total_completions: int | None = None


class Empty(Spec, frozen=True):
    """A mode without settings."""


class Mode(Spec, frozen=True):
    """How many tasks and where; exactly one is set, none means replicated."""

    replicated: Replicated | None = None
    global_: Empty | None = msgspec.field(default=None, name="Global")
    replicated_job: ReplicatedJob | None = None
    global_job: Empty | None = None


class UpdateConfig(Spec, frozen=True):
    """How an update or a rollback rolls through the tasks. In a present object only `monitor` has a
    default (5 s): parallelism 0 really means all at once."""

    parallelism: int = 0
    delay: Int64 = 0
    failure_action: str = "pause"
    monitor: Int64 = 5 * SECOND
    max_failure_ratio: float = 0.0
    order: str = "stop-first"


class Port(Spec, frozen=True):
    """A published port. `published_port` 0 means: choose one. Beyond Docker: `host_ip` publishes on that
    address only; `source` says what the container sees of a client that came through the routing mesh:
    preserve (its address, the default), snat (the entry node's), local (only the entry node's own tasks
    answer, and see it)."""

    name: str = ""
    protocol: str = "tcp"
    target_port: int = 0
    published_port: int = 0
    publish_mode: str = "ingress"
    host_ip: str = msgspec.field(default="", name="HostIP")
    source: str = ""


class EndpointSpec(Spec, frozen=True):
    """How a service is reached."""

    mode: str = "vip"
    ports: tuple[Port, ...] = ()


class ServiceSpec(Spec, frozen=True):
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


def service_view(text: str) -> ServiceSpec:
    """Typed view of a service's spec."""
    return view(ServiceSpec, text)


def endpoint_view(text: str) -> EndpointSpec:
    """Typed view of an endpoint spec."""
    return view(EndpointSpec, text)
