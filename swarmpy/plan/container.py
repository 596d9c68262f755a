"""From a task to the body of Docker's POST /containers/create.

What belongs here: the mapping of every field of a task's template that a container on this node can carry,
the labels by which containers are found again, and loud refusals of what cannot be honoured.
What does not belong here: when a container is made (engine.py) and how the Engine is asked (adapters/docker).
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from swarmpy.model.fabric import mac_of
from swarmpy.model.messages import Assigned
from swarmpy.model.objects import Attachment
from swarmpy.model.specs import (
    ContainerSpec,
    Healthcheck,
    Mount,
    Port,
    Resources,
    TaskTemplate,
    endpoint_view,
    template_view,
)
from swarmpy.plan.template import Context, NodeFacts, expand_container

CLUSTER_LABEL = "io.swarmpy.cluster"
"""Label that marks a container as ours; its value is the cluster's id."""
GRACE_LABEL = "io.swarmpy.grace"
"""Seconds between stop signal and SIGKILL, for containers whose task is no longer known."""
TASK_LABEL = "com.docker.swarm.task.id"
DEFAULT_GRACE = 10.0
_PREDEFINED_NETWORKS = ("host", "none", "bridge")


@dataclass(frozen=True, slots=True)
class Wire:
    """What a container's creation needs to know of a network."""

    name: str
    internal: bool = False
    ingress: bool = False
    servers: tuple[str, ...] = ()
    """Addresses of its name servers on this node."""
    ipv6: bool = True
    """Whether containers of this node may have IPv6 addresses in it, should it give such."""


@dataclass(frozen=True, slots=True)
class Place:
    """A network that a container is connected to, and what our network driver is told of it."""

    network: str
    network_id: str
    options: Mapping[str, str]


OPTION = "io.swarmpy."
"""Prefix of the options by which our network driver knows an endpoint: network, task, addresses
(comma-separated CIDRs), mac, prefix (of the interface's name), isolated (1: no way out)."""


class ContainerError(ValueError):
    """The task asks for what this node cannot give; one sentence for the user."""


def context_of(task: Assigned, node: NodeFacts) -> Context:
    """What the templates of the task may name."""
    return Context(
        service_id=task.service_id,
        service_name=task.service_name,
        task_id=task.id,
        task_name=task.name,
        slot=str(task.slot) if task.slot else task.node_id,
        node=node,
        service_labels=task.service_labels,
    )


def create_body(
    task: Assigned, node: NodeFacts, cluster_id: str, networks: Mapping[str, Wire]
) -> tuple[dict[str, Any], tuple[Place, ...]]:
    """The create request of the task's container, and its networks: the Engine takes the first one with the
    request, and the others one by one before the start.

    Raises ContainerError or TemplateError (both ValueError) with a sentence for the user.
    """
    template = template_view(task.template)
    spec = expand_container(template.container, context_of(task, node))
    _refuse_unsupported(template, spec)
    ports = _host_ports(task)
    body: dict[str, Any] = {
        "Image": spec.image,
        "Env": list(spec.env),
        "Labels": _labels(task, spec, cluster_id),
        "Tty": spec.tty,
        "OpenStdin": spec.open_stdin,
        "StopTimeout": math.ceil(spec.grace_seconds),
        "HostConfig": _host_config(template, spec, ports),
    }
    places = _places(task, networks)
    _connect(body, places, _servers(task, networks))
    optional = {
        "Entrypoint": list(spec.command),
        "Cmd": list(spec.args),
        "Hostname": spec.hostname,
        "WorkingDir": spec.dir,
        "User": spec.user,
        "StopSignal": spec.stop_signal,
        "Healthcheck": _healthcheck(spec.healthcheck),
        "ExposedPorts": {key: {} for key in ports},
    }
    body.update({key: value for key, value in optional.items() if value})
    return body, places


def _places(task: Assigned, networks: Mapping[str, Wire]) -> tuple[Place, ...]:
    isolated = all(networks[one.network_id].internal for one in task.networks)
    return tuple(place_of(task.id, one, networks[one.network_id], isolated=isolated) for one in task.networks)


def place_of(owner: str, place: Attachment, wire: Wire, *, isolated: bool) -> Place:
    """What our driver is told of a container's place; `owner` is the task's or the guest's id."""
    options = {
        **{key: value for key, value in place.driver_opts.items() if not key.startswith(OPTION)},
        OPTION + "network": place.network_id,
        OPTION + "task": owner,
        OPTION + "addresses": ",".join(one for one in place.addresses if wire.ipv6 or ":" not in one),
        OPTION + "mac": mac_of(owner, place.network_id),
        OPTION + "prefix": "ing" if wire.ingress else "eth",
        OPTION + "isolated": "1" if isolated else "0",
    }
    return Place(wire.name, place.network_id, options)


def _servers(task: Assigned, networks: Mapping[str, Wire]) -> list[str]:
    """The name servers of the first network that has some: any of them answers for all its networks."""
    for one in task.networks:
        servers = networks[one.network_id].servers
        if servers:
            return list(servers[:1])
    return []


def _connect(body: dict[str, Any], places: tuple[Place, ...], servers: list[str]) -> None:
    if not places:
        return
    first = places[0]
    host = body["HostConfig"]
    host["NetworkMode"] = first.network
    body["NetworkingConfig"] = {"EndpointsConfig": {first.network: {"DriverOpts": dict(first.options)}}}
    if servers:
        # The name servers that the user named are asked by ours for what it does not know.
        host["Dns"] = servers


def _refuse_unsupported(template: TaskTemplate, spec: ContainerSpec) -> None:
    if template.plugin_spec is not None or template.runtime not in ("", "container"):
        raise ContainerError(
            f"the runtime {template.runtime or 'plugin'!r} is not supported: tasks can only be containers"
        )
    if not spec.image:
        raise ContainerError("the task names no image: set ContainerSpec.Image")
    if spec.secrets or spec.configs:
        raise ContainerError("this node cannot deliver secrets and configs: remove them from the service")
    if spec.isolation not in ("", "default"):
        raise ContainerError(f"isolation {spec.isolation!r} does not exist on Linux: leave it at 'default'")


def _labels(task: Assigned, spec: ContainerSpec, cluster_id: str) -> dict[str, str]:
    """The user's labels, overridden by Swarm's six and ours."""
    return {
        **spec.labels,
        "com.docker.swarm.task": "",
        TASK_LABEL: task.id,
        "com.docker.swarm.task.name": task.name,
        "com.docker.swarm.node.id": task.node_id,
        "com.docker.swarm.service.id": task.service_id,
        "com.docker.swarm.service.name": task.service_name,
        CLUSTER_LABEL: cluster_id,
        GRACE_LABEL: format(spec.grace_seconds, "g"),
    }


def grace_of(labels: Mapping[str, str]) -> float:
    """The grace period that a container's labels tell, seconds; the default where they do not."""
    try:
        grace = float(labels.get(GRACE_LABEL, DEFAULT_GRACE))
    except ValueError:
        return DEFAULT_GRACE
    return grace if 0 <= grace < math.inf else DEFAULT_GRACE


def _host_ports(task: Assigned) -> dict[str, list[dict[str, str]]]:
    bindings: dict[str, list[dict[str, str]]] = {}
    for port in endpoint_view(task.endpoint).ports:
        if port.publish_mode == "host":
            where = {"HostIp": port.host_ip} if port.host_ip else {}
            binding = {**where, "HostPort": str(port.published_port or "")}
            bindings.setdefault(_port_key(port), []).append(binding)
    return bindings


def _port_key(port: Port) -> str:
    return f"{port.target_port}/{port.protocol or 'tcp'}"


def _host_config(
    template: TaskTemplate, spec: ContainerSpec, ports: Mapping[str, list[dict[str, str]]]
) -> dict[str, Any]:
    dns = spec.dns_config
    log = template.log_driver
    optional: dict[str, Any] = {
        "Mounts": [_mount(mount) for mount in spec.mounts],
        "PortBindings": dict(ports),
        "NetworkMode": _network_mode(template),
        "GroupAdd": list(spec.groups),
        "ReadonlyRootfs": spec.read_only,
        "Sysctls": dict(spec.sysctls),
        "CapAdd": list(spec.capability_add),
        "CapDrop": list(spec.capability_drop),
        "Ulimits": [{"Name": one.name, "Hard": one.hard, "Soft": one.soft} for one in spec.ulimits],
        "OomScoreAdj": spec.oom_score_adj,
        "Dns": list(dns.nameservers) if dns else [],
        "DnsSearch": list(dns.search) if dns else [],
        "DnsOptions": list(dns.options) if dns else [],
        "ExtraHosts": [host for entry in spec.hosts for host in _extra_hosts(entry)],
        "LogConfig": {"Type": log.name, "Config": dict(log.options)} if log else None,
        "SecurityOpt": _security(spec.privileges or {}),
        **_resources(template.resources),
    }
    config = {key: value for key, value in optional.items() if value}
    if spec.init is not None:
        config["Init"] = spec.init
    if template.resources.memory_swappiness is not None:
        config["MemorySwappiness"] = template.resources.memory_swappiness
    # The cluster restarts tasks; the Engine must not.
    config["RestartPolicy"] = {"Name": "no", "MaximumRetryCount": 0}
    return config


def _network_mode(template: TaskTemplate) -> str:
    for network in template.networks:
        if network.target in _PREDEFINED_NETWORKS:
            return network.target
    return ""


def _resources(resources: Resources) -> dict[str, Any]:
    limits = resources.limits
    result: dict[str, Any] = {
        "NanoCpus": limits.nano_cpus,
        "Memory": limits.memory_bytes,
        "PidsLimit": limits.pids,
    }
    swap = resources.swap_bytes
    if swap is not None:
        if swap >= 0 and not limits.memory_bytes:
            raise ContainerError("a swap limit needs a memory limit: set Resources.Limits.MemoryBytes")
        # Docker counts memory and swap together; -1 is no limit.
        result["MemorySwap"] = -1 if swap < 0 else limits.memory_bytes + swap
    return result


def _extra_hosts(entry: str) -> list[str]:
    """Swarm writes "IP name [alias…]" as in /etc/hosts; the Engine wants "name:IP" for each name."""
    words = entry.split()
    if len(words) < 2:
        raise ContainerError(f"the host entry {entry!r} is not 'IP NAME'")
    return [f"{name}:{words[0]}" for name in words[1:]]


def _healthcheck(check: Healthcheck | None) -> dict[str, Any]:
    if check is None:
        return {}
    fields: dict[str, Any] = {
        "Test": list(check.test),
        "Interval": check.interval,
        "Timeout": check.timeout,
        "StartPeriod": check.start_period,
        "StartInterval": check.start_interval,
        "Retries": check.retries,
    }
    return {key: value for key, value in fields.items() if value}


def _mount(mount: Mount) -> dict[str, Any]:
    if mount.type not in ("volume", "bind", "tmpfs"):
        raise ContainerError(f"mounts of type {mount.type!r} are not supported: use volume, bind or tmpfs")
    if not mount.target:
        raise ContainerError("a mount has no target path")
    fields: dict[str, Any] = {
        "Type": mount.type,
        "Source": mount.source,
        "Target": mount.target,
        "ReadOnly": mount.read_only,
        "Consistency": mount.consistency,
        "BindOptions": _bind_options(mount),
        "VolumeOptions": _volume_options(mount),
        "TmpfsOptions": _tmpfs_options(mount),
    }
    return {key: value for key, value in fields.items() if value}


def _bind_options(mount: Mount) -> dict[str, Any]:
    options = mount.bind_options
    if options is None:
        return {}
    fields: dict[str, Any] = {
        "Propagation": options.propagation,
        "NonRecursive": options.non_recursive,
        "CreateMountpoint": options.create_mountpoint,
    }
    return {key: value for key, value in fields.items() if value}


def _volume_options(mount: Mount) -> dict[str, Any]:
    options = mount.volume_options
    if options is None:
        return {}
    driver = options.driver_config
    fields: dict[str, Any] = {
        "NoCopy": options.no_copy,
        "Labels": dict(options.labels),
        "DriverConfig": {"Name": driver.name, "Options": dict(driver.options)} if driver else None,
        "Subpath": options.subpath,
    }
    return {key: value for key, value in fields.items() if value}


def _tmpfs_options(mount: Mount) -> dict[str, Any]:
    options = mount.tmpfs_options
    if options is None:
        return {}
    fields = {"SizeBytes": options.size_bytes, "Mode": options.mode}
    return {key: value for key, value in fields.items() if value}


def _security(privileges: Mapping[str, Any]) -> list[str]:
    """Docker's --security-opt words for ContainerSpec.Privileges."""
    if privileges.get("CredentialSpec"):
        raise ContainerError("credential specs exist on Windows only: remove Privileges.CredentialSpec")
    options: list[str] = []
    selinux = privileges.get("SELinuxContext") or {}
    if selinux.get("Disable"):
        options.append("label=disable")
    parts = [key for key in ("User", "Role", "Type", "Level") if selinux.get(key)]
    options.extend(f"label={key.lower()}:{selinux[key]}" for key in parts)
    seccomp = privileges.get("Seccomp") or {}
    if seccomp.get("Mode") == "unconfined":
        options.append("seccomp=unconfined")
    elif seccomp.get("Mode") == "custom":
        options.append(f"seccomp={_profile(seccomp.get('Profile'))}")
    if (privileges.get("AppArmor") or {}).get("Mode") == "disabled":
        options.append("apparmor=unconfined")
    if privileges.get("NoNewPrivileges"):
        options.append("no-new-privileges=true")
    return options


def _profile(profile: Any) -> str:
    """The API carries the profile base64 encoded (Go's []byte), or as JSON."""
    if isinstance(profile, str):
        try:
            return base64.b64decode(profile, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return profile
    return json.dumps(profile)
