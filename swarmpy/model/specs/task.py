"""A task's template: container, resources, restarts, placement. See the package's charter."""

from __future__ import annotations

from typing import Any

import msgspec

from swarmpy.model.specs.base import SECOND, Int64, Spec, UInt64, view
from swarmpy.model.specs.container import ContainerSpec, LogDriver


class Limits(Spec, frozen=True):
    """Upper bounds for a container; 0 is none."""

    nano_cpus: Int64 = msgspec.field(default=0, name="NanoCPUs")
    memory_bytes: Int64 = 0
    pids: Int64 = 0


class Discrete(Spec, frozen=True):
    """`Value` units of a counted resource."""

    kind: str = ""
    value: Int64 = 0


class Named(Spec, frozen=True):
    """One named unit of a resource."""

    kind: str = ""
    value: str = ""


class GenericResource(Spec, frozen=True):
    """A user-defined resource, discrete or named."""

    discrete_resource_spec: Discrete | None = None
    named_resource_spec: Named | None = None


class Reservations(Spec, frozen=True):
    """What a node must have free to take the task."""

    nano_cpus: Int64 = msgspec.field(default=0, name="NanoCPUs")
    memory_bytes: Int64 = 0
    generic_resources: tuple[GenericResource, ...] = ()


class Resources(Spec, frozen=True):
    """Limits and reservations of a task."""

    limits: Limits = Limits()
    reservations: Reservations = Reservations()
    swap_bytes: Int64 | None = None
    memory_swappiness: Int64 | None = None


class RestartPolicy(Spec, frozen=True):
    """When and how often an ended task is replaced. Defaults: any, 5 s, no limit, no window."""

    condition: str = "any"
    delay: Int64 = 5 * SECOND
    max_attempts: int = 0
    window: Int64 = 0


class Spread(Spec, frozen=True):
    """Spread over the values of node.labels.X or engine.labels.X."""

    spread_descriptor: str = ""


class Preference(Spec, frozen=True):
    """A placement preference; only spread exists."""

    spread: Spread | None = None


class Platform(Spec, frozen=True):
    """An operating system and architecture ("" matches any)."""

    architecture: str = ""
    os: str = msgspec.field(default="", name="OS")


class Placement(Spec, frozen=True):
    """Where tasks may run."""

    constraints: tuple[str, ...] = ()
    preferences: tuple[Preference, ...] = ()
    max_replicas: int = 0
    platforms: tuple[Platform, ...] = ()


class NetworkAttachment(Spec, frozen=True):
    """A network that a task is attached to."""

    target: str = ""
    aliases: tuple[str, ...] = ()
    driver_opts: dict[str, str] = {}


class TaskTemplate(Spec, frozen=True):
    """What each task of a service is."""

    container_spec: ContainerSpec | None = None
    plugin_spec: dict[str, Any] | None = None
    resources: Resources = Resources()
    restart_policy: RestartPolicy = RestartPolicy()
    placement: Placement = Placement()
    force_update: UInt64 = 0
    runtime: str = ""
    networks: tuple[NetworkAttachment, ...] = ()
    log_driver: LogDriver | None = None

    @property
    def container(self) -> ContainerSpec:
        """The container part; an empty one where the template has none."""
        return self.container_spec or ContainerSpec()


def template_view(text: str) -> TaskTemplate:
    """Typed view of a task's template."""
    return view(TaskTemplate, text)
