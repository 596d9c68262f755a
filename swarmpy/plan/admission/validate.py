"""What a ServiceSpec must be like to be admitted: every rule that needs the spec alone.

Texts that Docker's clients know are Docker's own. What Swarm knows and this version cannot do is refused with
Unimplemented and a sentence that says what would help; nothing is ignored in silence.
What does not belong here: rules that need the world, such as names in use and versions (service.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from ipaddress import IPv6Address, ip_address

from swarmpy.model.errors import InvalidArgument, Unimplemented, Unknown
from swarmpy.model.limits import MAX_PORTS
from swarmpy.model.specs import (
    ContainerSpec,
    EndpointSpec,
    Healthcheck,
    Mode,
    Mount,
    Placement,
    Port,
    Resources,
    RestartPolicy,
    ServiceSpec,
    TaskTemplate,
    UpdateConfig,
)
from swarmpy.plan import constraints, leaving, listening, template
from swarmpy.plan.admission import runnable

MIN_NANO_CPUS = 1_000_000
MIN_MEMORY = 4 * 1024 * 1024
MIN_DURATION = 1_000_000
MAX_REPLICAS = 100_000
"""More tasks than this in one service is taken for a slip of the finger."""

_NAME = re.compile(r"[a-zA-Z0-9](?:[-_]*[A-Za-z0-9]+)*\Z")
_DOMAIN = r"(?:\[[a-fA-F0-9:]+\]|(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*)(?::[0-9]+)?"  # noqa: E501  one pattern
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_IMAGE = re.compile(
    rf"(?:(?P<domain>{_DOMAIN})/)?(?P<path>{_PART}(?:/{_PART})*)(?::[\w][\w.-]{{0,127}})?"
    r"(?:@[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,})?\Z",
    re.ASCII,
)
_HEX_ID = re.compile(r"[a-f0-9]{64}\Z")

_CONDITIONS = ("", "none", "on-failure", "any")
_PROTOCOLS = ("", "tcp", "udp", "sctp")
_RELATIVE_MOUNTS = "it must be an absolute path"


def check(spec: ServiceSpec) -> None:
    """Raises InvalidArgument, Unimplemented or Unknown, in the order in which Docker would notice."""
    check_name(spec.name)
    _runtime(spec.task_template)
    _resources(spec.task_template.resources)
    _restart(spec.task_template.restart_policy)
    _placement(spec.task_template.placement)
    _container(spec.task_template.container)
    runnable.check(spec.task_template)
    try:
        template.check_container(spec.task_template.container, spec.name, spec.labels)
    except ValueError as error:
        raise InvalidArgument(str(error)) from None
    _mode(spec.mode)
    _job(spec)
    _waits(spec.labels)
    for config, kind in ((spec.update_config, "update"), (spec.rollback_config, "rollback")):
        if config is not None:
            _update(config, kind)
    if spec.endpoint_spec is not None:
        _endpoint(spec.endpoint_spec)


def check_name(name: str) -> None:
    """A service's name is a DNS label (underscores allowed inside)."""
    if not name:
        raise InvalidArgument("meta: name must be provided")
    if not _NAME.match(name):
        raise InvalidArgument("name must be valid as a DNS name component")
    if len(name) > 63:
        raise InvalidArgument("name must be 63 characters or fewer")


def _runtime(task: TaskTemplate) -> None:
    if task.runtime == "plugin" or task.plugin_spec is not None:
        raise Unimplemented("services of plugins are not supported by swarmpy: use runtime container")
    if task.runtime not in {"", "container"}:
        raise InvalidArgument("unsupported runtime")
    if task.container_spec is None:
        raise InvalidArgument("mismatched Runtime and *Spec fields")


def _resources(resources: Resources) -> None:
    limits, reserved = resources.limits, resources.reservations
    for cpus, memory in (
        (limits.nano_cpus, limits.memory_bytes),
        (reserved.nano_cpus, reserved.memory_bytes),
    ):
        if cpus != 0 and cpus < MIN_NANO_CPUS:
            raise InvalidArgument(f"invalid cpu value {cpus / 1e9:g}: Must be at least 0.001")
        if memory != 0 and memory < MIN_MEMORY:
            raise InvalidArgument(f"invalid memory value {memory}: Must be at least 4MiB")
    if limits.pids < 0:
        raise InvalidArgument(f"invalid pids limit {limits.pids}: it cannot be negative (0 is no limit)")
    for resource in reserved.generic_resources:
        discrete, named = resource.discrete_resource_spec, resource.named_resource_spec
        if (discrete is None) == (named is None):
            raise InvalidArgument("a generic resource must be either discrete or named")
        if discrete is not None and (discrete.value <= 0 or not discrete.kind):
            raise InvalidArgument(
                f"invalid generic resource {discrete.kind!r}={discrete.value}: "
                "it needs a kind and a value of at least 1"
            )
    if resources.swap_bytes is not None or resources.memory_swappiness not in {None, -1}:
        raise Unimplemented(
            "limits on swap are not supported by this version of swarmpy: leave --memory-swap and "
            "--memory-swappiness away"
        )


def _restart(policy: RestartPolicy) -> None:
    if policy.condition not in _CONDITIONS:
        raise InvalidArgument(f'invalid RestartCondition: "{policy.condition}"')
    if policy.delay < 0:
        raise InvalidArgument("TaskSpec: restart-delay cannot be negative")
    if policy.window < 0:
        raise InvalidArgument("TaskSpec: restart-window cannot be negative")
    if policy.max_attempts < 0:
        raise InvalidArgument("TaskSpec: restart-max-attempts cannot be negative")


def _placement(placement: Placement) -> None:
    for text in placement.constraints:
        try:
            constraints.parse(text)
        except ValueError as error:
            # Docker answers 500 with code Unknown here, and clients look for that.
            raise Unknown(str(error)) from None
    for preference in placement.preferences:
        if preference.spread is None or not preference.spread.spread_descriptor:
            raise InvalidArgument("a placement preference must be spread=LABEL: there is no other strategy")
    if placement.max_replicas < 0:
        raise InvalidArgument("max replicas per node cannot be negative (0 is no limit)")


def _container(container: ContainerSpec) -> None:
    _unsupported(container)
    _image(container.image)
    _mounts(container.mounts)
    if container.healthcheck is not None:
        _health(container.healthcheck)
    if container.stop_grace_period is not None and container.stop_grace_period < 0:
        raise InvalidArgument("ContainerSpec: StopGracePeriod cannot be negative")


def _unsupported(container: ContainerSpec) -> None:
    if container.secrets:
        raise Unimplemented(
            "secrets are not supported by this version of swarmpy: the service cannot use them yet"
        )
    if container.configs:
        raise Unimplemented(
            "configs are not supported by this version of swarmpy: the service cannot use them yet"
        )
    if container.isolation not in {"", "default"}:
        raise Unimplemented(
            f"isolation {container.isolation!r} is only known to Windows, which swarmpy does not run on"
        )
    if any(_says_something(value) for value in (container.privileges or {}).values()):
        raise Unimplemented(
            "privileges (credential spec, SELinux, seccomp, AppArmor, no-new-privileges) are not supported "
            "for services by this version of swarmpy"
        )


def _says_something(value: object) -> bool:
    """Whether a part of an object asks for anything: clients send empty objects where they mean none."""
    if isinstance(value, dict):
        return any(_says_something(item) for item in value.values())
    return bool(value)


def _image(image: str) -> None:
    if not image:
        raise InvalidArgument("ContainerSpec: image reference must be provided")
    found = _IMAGE.match(image) if len(image) <= 1024 else None
    if found is None or _HEX_ID.match(image) or len(found["path"]) > 255:
        raise InvalidArgument(f'ContainerSpec: "{image}" is not a valid repository/tag')


def _mounts(mounts: Iterable[Mount]) -> None:
    targets: set[str] = set()
    for mount in mounts:
        if mount.target in targets:
            raise InvalidArgument(f"ContainerSpec: duplicate mount point: {mount.target}")
        targets.add(mount.target)
        _mount(mount)


def _mount(mount: Mount) -> None:
    if mount.type in {"npipe", "cluster", "image"}:
        raise Unimplemented(
            f"mounts of type {mount.type} are not supported by this version of swarmpy: "
            "use volume, bind or tmpfs"
        )
    if mount.type not in {"", "volume", "bind", "tmpfs"}:
        raise InvalidArgument(f"invalid mount type {mount.type!r}: use volume, bind or tmpfs")
    if not _absolute(mount.target):
        raise InvalidArgument(f"invalid mount target {mount.target!r}: {_RELATIVE_MOUNTS}")
    if mount.type == "bind" and not _absolute(mount.source):
        raise InvalidArgument(f"invalid bind mount source {mount.source!r}: {_RELATIVE_MOUNTS}")
    if mount.type == "tmpfs" and mount.source:
        raise InvalidArgument("invalid tmpfs mount: its source must be empty")
    if mount.type in {"", "volume"} and mount.source.startswith("/"):
        raise InvalidArgument(
            f"invalid volume mount source {mount.source!r}: it must not be an absolute path; "
            "use type=bind for a directory of the node"
        )
    if mount.tmpfs_options is not None and mount.tmpfs_options.size_bytes < 0:
        raise InvalidArgument("invalid tmpfs mount: its size cannot be negative")


def _absolute(path: str) -> bool:
    return path.startswith("/") or "{{" in path  # what a template gives is only known on the node


def _health(check: Healthcheck) -> None:
    for name, value in (
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
    ):
        if value != 0 and value < MIN_DURATION:
            raise InvalidArgument(f"ContainerSpec: {name} in HealthConfig cannot be less than 1ms")
    if check.retries < 0:
        raise InvalidArgument("ContainerSpec: Retries in HealthConfig cannot be negative")


def _mode(mode: Mode) -> None:
    parts = (mode.replicated, mode.global_, mode.replicated_job, mode.global_job)
    if sum(part is not None for part in parts) > 1:
        raise InvalidArgument("must specify only one service mode")
    replicas = mode.replicated.replicas if mode.replicated is not None else None
    if replicas is not None and replicas < 0:
        raise InvalidArgument("Number of replicas must be non-negative")
    if replicas is not None and replicas > MAX_REPLICAS:
        raise InvalidArgument(f"{replicas} replicas are more than one service can have ({MAX_REPLICAS})")


def _job(spec: ServiceSpec) -> None:
    if spec.mode.replicated_job is None and spec.mode.global_job is None:
        return
    if spec.update_config is not None:
        raise InvalidArgument("Jobs may not have an update config")
    raise Unimplemented(
        "jobs are not supported by this version of swarmpy: use mode replicated with "
        "--restart-condition none or on-failure for tasks that run to an end"
    )


def _update(config: UpdateConfig, kind: str) -> None:
    if config.order not in {"", "stop-first", "start-first"}:
        raise InvalidArgument(f"unrecognized update order {config.order}")
    if config.failure_action not in {"", "pause", "continue", "rollback"}:
        raise InvalidArgument(f"unrecognized update failure action {config.failure_action}")
    if config.parallelism < 0:
        raise InvalidArgument(f"TaskSpec: {kind}-parallelism cannot be negative (0 is all at once)")
    if config.delay < 0:
        raise InvalidArgument(f"TaskSpec: {kind}-delay cannot be negative")
    if config.monitor < 0:
        raise InvalidArgument(f"TaskSpec: {kind}-monitor cannot be negative")
    if not 0 <= config.max_failure_ratio <= 1:
        raise InvalidArgument(f"TaskSpec: {kind}-maxfailureratio cannot be less than 0 or bigger than 1")
    if config.failure_action in {"continue", "rollback"}:
        raise Unimplemented(
            f"{kind} failure action {config.failure_action!r} is not supported by this version of swarmpy: "
            f"use --{kind}-failure-action pause"
        )


def _waits(labels: Mapping[str, str]) -> None:
    """A time that cannot be read would be the default, and nobody would know."""
    text = labels.get(leaving.DRAIN_LABEL)
    if text is not None and leaving.seconds_of(text) is None:
        raise InvalidArgument(
            f"invalid label {leaving.DRAIN_LABEL}={text}: a number of seconds from 0 to "
            f"{leaving.LONGEST:.0f} is expected, such as 10 or 0.5"
        )
    text = labels.get(listening.LABEL)
    if text is not None and listening.seconds_of(text) is None:
        raise InvalidArgument(
            f"invalid label {listening.LABEL}={text}: a duration from 0s (do not wait) to "
            f"{listening.LONGEST / 3600:.0f}h is expected, such as 30s or 1m30s"
        )


def _endpoint(endpoint: EndpointSpec) -> None:
    if endpoint.mode not in {"", "vip", "dnsrr"}:
        raise InvalidArgument(f'invalid resolution mode: "{endpoint.mode}"')
    if len(endpoint.ports) > MAX_PORTS:
        raise InvalidArgument(
            f"{len(endpoint.ports)} ports are more than one service can publish ({MAX_PORTS}): each is a "
            "rule on every node; publish fewer, or give the service the host network"
        )
    seen: set[tuple[int, str]] = set()
    for port in endpoint.ports:
        _port(port)
        if port.publish_mode in {"", "ingress"} and endpoint.mode == "dnsrr":
            raise InvalidArgument(
                "EndpointSpec: port published with ingress mode can't be used with dnsrr mode"
            )
        if not port.published_port:
            continue
        key = (port.published_port, port.protocol or "tcp")
        if key in seen:
            raise InvalidArgument("EndpointSpec: duplicate published ports provided")
        seen.add(key)


def _port(port: Port) -> None:
    if port.protocol not in _PROTOCOLS:
        raise InvalidArgument(f"invalid protocol {port.protocol!r}: ports are tcp, udp or sctp")
    if port.publish_mode not in {"", "ingress", "host"}:
        raise InvalidArgument(f"invalid publish mode {port.publish_mode!r}: ports are ingress or host")
    _reach(port)
    if not 1 <= port.target_port <= 65535:
        raise InvalidArgument(f"invalid target port {port.target_port}: ports are 1 to 65535")
    if not 0 <= port.published_port <= 65535:
        raise InvalidArgument(
            f"invalid published port {port.published_port}: ports are 1 to 65535, or 0 to have one chosen"
        )


def _reach(port: Port) -> None:
    """What swarmpy offers beyond Docker: an address of its own, and what the container sees of a client."""
    if port.source not in {"", "preserve", "snat", "local"}:
        raise InvalidArgument(f"invalid port source {port.source!r}: it is preserve, snat or local")
    if port.source and port.publish_mode == "host":
        raise InvalidArgument("a port published with mode=host keeps its client's address: leave source away")
    if port.source in {"preserve", "local"} and port.protocol == "sctp":
        raise InvalidArgument(
            f"source={port.source} is not possible for SCTP, whose programs choose the address that they "
            "answer from: tasks see the entry node's address (source=snat); mode=host shows the client's"
        )
    if port.host_ip:
        try:
            address = ip_address(port.host_ip)
        except ValueError:
            raise InvalidArgument(f"invalid host_ip {port.host_ip!r}: an IP address is expected") from None
        if address.version == 6 and port.publish_mode != "host":
            _meshed(address)


def _meshed(address: IPv6Address) -> None:
    if address.ipv4_mapped is not None:
        raise InvalidArgument(f"invalid host_ip {address}: write it as {address.ipv4_mapped}")
    if address.is_link_local or address.scope_id:
        raise InvalidArgument(
            f"host_ip {address}: the routing mesh does not reach link-local addresses, which mean something "
            "on one link only; use another address, or publish with mode=host"
        )
    if address.is_unspecified:
        raise InvalidArgument(f"host_ip {address} is no node's address: leave host_ip away to publish on all")
