"""The container of a task: what the Engine is asked to run. See the package's charter."""

from __future__ import annotations

from typing import Any

import msgspec

from swarmpy.model.specs.base import SECOND, Int64, Spec, UInt32


class Healthcheck(Spec, frozen=True):
    """How the Engine probes a container; durations in ns, 0 inherits the image's."""

    test: tuple[str, ...] = ()
    interval: Int64 = 0
    timeout: Int64 = 0
    start_period: Int64 = 0
    start_interval: Int64 = 0
    retries: Int64 = 0


class DriverConfig(Spec, frozen=True):
    """A volume driver and its options."""

    name: str = ""
    options: dict[str, str] = {}


class BindOptions(Spec, frozen=True):
    """Options of a bind mount."""

    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False


class VolumeOptions(Spec, frozen=True):
    """Options of a volume mount."""

    no_copy: bool = False
    labels: dict[str, str] = {}
    driver_config: DriverConfig | None = None
    subpath: str = ""


class TmpfsOptions(Spec, frozen=True):
    """Options of a tmpfs mount."""

    size_bytes: Int64 = 0
    mode: UInt32 = 0


class Mount(Spec, frozen=True):
    """A volume, bind or tmpfs in the container."""

    type: str = "volume"
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: BindOptions | None = None
    volume_options: VolumeOptions | None = None
    tmpfs_options: TmpfsOptions | None = None


class DNSConfig(Spec, frozen=True):
    """What the container's resolv.conf says."""

    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class Ulimit(Spec, frozen=True):
    """A process limit."""

    name: str = ""
    hard: Int64 = 0
    soft: Int64 = 0


class LogDriver(Spec, frozen=True):
    """A log driver and its options."""

    name: str = ""
    options: dict[str, str] = {}


class ContainerSpec(Spec, frozen=True):
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
    stop_grace_period: Int64 | None = None
    healthcheck: Healthcheck | None = None
    hosts: tuple[str, ...] = ()
    dns_config: DNSConfig | None = msgspec.field(default=None, name="DNSConfig")
    isolation: str = ""
    init: bool | None = None
    sysctls: dict[str, str] = {}
    capability_add: tuple[str, ...] = ()
    capability_drop: tuple[str, ...] = ()
    ulimits: tuple[Ulimit, ...] = ()
    oom_score_adj: Int64 = 0
    secrets: tuple[dict[str, Any], ...] = ()
    configs: tuple[dict[str, Any], ...] = ()
    privileges: dict[str, Any] | None = None

    @property
    def grace_seconds(self) -> float:
        """Seconds between the stop signal and SIGKILL (default 10)."""
        period = self.stop_grace_period
        return 10.0 if period is None else period / SECOND
