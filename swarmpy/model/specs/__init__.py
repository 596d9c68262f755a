"""Typed views of Docker's specs: what users ask for.

A spec is stored and returned as the JSON text that was sent, unknown fields included (design 5a). Code that
decides reads it through these views, which are strict about types and silent about fields they do not know.
Defaults are applied where they are used: the functions at the end of a class give the effective value.
Durations are integer nanoseconds, CPU is nano-CPUs, memory is bytes, as in Docker's API.
What does not belong here: validation beyond types (plan/admission), rendering (api/).
"""

from __future__ import annotations

from swarmpy.model.specs.base import (
    SECOND,
    compact,
    view,
)
from swarmpy.model.specs.cluster import (
    CAConfig,
    Dispatcher,
    EncryptionConfig,
    NodeSpec,
    Orchestration,
    RaftConfig,
    SwarmSpec,
    TaskDefaults,
    node_view,
    swarm_view,
)
from swarmpy.model.specs.container import (
    BindOptions,
    ContainerSpec,
    DNSConfig,
    DriverConfig,
    Healthcheck,
    LogDriver,
    Mount,
    TmpfsOptions,
    Ulimit,
    VolumeOptions,
)
from swarmpy.model.specs.network import (
    IPAM,
    MTU_OPTION,
    VNI_OPTION,
    ConfigReference,
    IPAMConfig,
    NetworkSpec,
    network_view,
)
from swarmpy.model.specs.service import (
    Empty,
    EndpointSpec,
    Mode,
    Port,
    Replicated,
    ReplicatedJob,
    ServiceSpec,
    UpdateConfig,
    endpoint_view,
    service_view,
)
from swarmpy.model.specs.task import (
    Discrete,
    GenericResource,
    Limits,
    Named,
    NetworkAttachment,
    Placement,
    Platform,
    Preference,
    Reservations,
    Resources,
    RestartPolicy,
    Spread,
    TaskTemplate,
    template_view,
)

__all__ = [
    "IPAM",
    "MTU_OPTION",
    "SECOND",
    "VNI_OPTION",
    "BindOptions",
    "CAConfig",
    "ConfigReference",
    "ContainerSpec",
    "DNSConfig",
    "Discrete",
    "Dispatcher",
    "DriverConfig",
    "Empty",
    "EncryptionConfig",
    "EndpointSpec",
    "GenericResource",
    "Healthcheck",
    "IPAMConfig",
    "Limits",
    "LogDriver",
    "Mode",
    "Mount",
    "Named",
    "NetworkAttachment",
    "NetworkSpec",
    "NodeSpec",
    "Orchestration",
    "Placement",
    "Platform",
    "Port",
    "Preference",
    "RaftConfig",
    "Replicated",
    "ReplicatedJob",
    "Reservations",
    "Resources",
    "RestartPolicy",
    "ServiceSpec",
    "Spread",
    "SwarmSpec",
    "TaskDefaults",
    "TaskTemplate",
    "TmpfsOptions",
    "Ulimit",
    "UpdateConfig",
    "VolumeOptions",
    "compact",
    "endpoint_view",
    "network_view",
    "node_view",
    "service_view",
    "swarm_view",
    "template_view",
    "view",
]
