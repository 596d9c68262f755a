"""What of a container no Engine could run, on whatever node: such a spec is refused, not tried for ever.

What belongs here: rules that hold on every Linux node, whatever its Engine's version and plugins. What does
not: what some node may be able to do (its Engine says so when the task starts), form (validate.py).
Values that a template fills in (environment, host name, mounts) are only known on the node.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address
from typing import Any

import msgspec

from swarmpy.model.errors import InvalidArgument
from swarmpy.model.specs import (
    ContainerSpec,
    DNSConfig,
    Healthcheck,
    Mount,
    NetworkAttachment,
    TaskTemplate,
    Ulimit,
)
from swarmpy.plan.container import OPTION
from swarmpy.plan.places import USABLE

LAST_SIGNAL = 64
LONGEST_HOSTNAME = 64
"""What the kernel takes."""
LAST_ID = 2**31 - 1
"""The highest number of a user or group that container runtimes take."""
_SIGNAL_WORDS = (
    "ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF PWR QUIT SEGV STKFLT STOP SYS "
    "TERM TRAP TSTP TTIN TTOU URG USR1 USR2 VTALRM WINCH XCPU XFSZ RTMIN RTMAX"
)
_SIGNALS = frozenset(
    [
        *_SIGNAL_WORDS.split(),
        *(f"RTMIN+{number}" for number in range(1, 16)),
        *(f"RTMAX-{number}" for number in range(1, 15)),
    ]
)
_CAPABILITY_WORDS = (
    "AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE "
    "DAC_READ_SEARCH FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE "
    "MKNOD NET_ADMIN NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID SYSLOG "
    "SYS_ADMIN SYS_BOOT SYS_CHROOT SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME "
    "SYS_TTY_CONFIG WAKE_ALARM"
)
_CAPABILITIES = frozenset(_CAPABILITY_WORDS.split())
_ULIMIT_WORDS = (
    "core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack"
)
_ULIMITS = frozenset(_ULIMIT_WORDS.split())
_PROPAGATIONS = ("", "private", "rprivate", "slave", "rslave", "shared", "rshared")
_SYSCTL = re.compile(r"[a-zA-Z0-9_-]+(?:[./][a-zA-Z0-9_-]+)+\Z")
_VOLUME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+\Z")
_ODD = re.compile(r"[\s\x00-\x1f\x7f]")


def check(task: TaskTemplate) -> None:
    """Raises InvalidArgument with a sentence for the first thing that cannot be."""
    container = task.container
    _no_zero_bytes(container)
    _process(container)
    _signal(container.stop_signal)
    for flag, names in (("--cap-add", container.capability_add), ("--cap-drop", container.capability_drop)):
        _capabilities(flag, names)
    _sysctls(container.sysctls, task.networks)
    if not -1000 <= container.oom_score_adj <= 1000:
        raise InvalidArgument(
            f"invalid value {container.oom_score_adj}, range for oom score adj is [-1000, 1000]"
        )
    _ulimits(container.ulimits)
    _hostname(container.hostname)
    if container.dns_config is not None:
        _dns(container.dns_config)
    for entry in container.hosts:
        _host(entry)
    _mounts(container.mounts)
    if container.healthcheck is not None:
        _health(container.healthcheck)
    for network in task.networks:
        _network(network)


def _no_zero_bytes(container: ContainerSpec) -> None:
    for text in _texts(msgspec.to_builtins(container)):
        if "\x00" in text:
            raise InvalidArgument(f"{text[:64]!r} holds a zero byte, which no program can be given")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


# ---------------------------------------------------------------- the process


def _process(container: ContainerSpec) -> None:
    for variable in container.env:
        if not variable or variable.startswith("="):
            raise InvalidArgument(f"invalid environment variable: {variable}: it has no name")
    if container.dir and not container.dir.startswith("/"):
        raise InvalidArgument(
            f"the working directory '{container.dir}' is invalid: it needs to be an absolute path"
        )
    parts = container.user.split(":")
    if len(parts) > 2:
        raise InvalidArgument(f"invalid user {container.user!r}: it is USER or USER:GROUP")
    if any(_beyond(part) for part in parts):
        raise InvalidArgument(
            f"invalid user {container.user!r}: numbers of users and groups go from 0 to {LAST_ID}"
        )
    for group in container.groups:
        if not group or _beyond(group):
            raise InvalidArgument(
                f"invalid group {group!r}: it is a group's name, or a number from 0 to {LAST_ID}"
            )


def _beyond(text: str) -> bool:
    """Whether the text is a number that no user or group can have."""
    return text.isascii() and text.isdigit() and (len(text) > 20 or int(text) > LAST_ID)


def _signal(text: str) -> None:
    if not text:
        return
    if text.isascii() and text.isdigit():
        known = len(text) < 4 and 1 <= int(text) <= LAST_SIGNAL
    else:
        known = text.upper().removeprefix("SIG") in _SIGNALS
    if not known:
        raise InvalidArgument(
            f"invalid stop signal {text!r}: name one, such as SIGTERM, or its number from 1 to {LAST_SIGNAL}"
        )


def _capabilities(flag: str, names: Iterable[str]) -> None:
    for name in names:
        if name.upper() != "ALL" and name.upper().removeprefix("CAP_") not in _CAPABILITIES:
            raise InvalidArgument(
                f"unknown capability {name!r} in {flag}: name one of Linux's, such as CAP_NET_ADMIN, or ALL"
            )


def _sysctls(sysctls: Mapping[str, str], networks: Iterable[NetworkAttachment]) -> None:
    hosts = any(one.target == "host" for one in networks)
    for name, value in sysctls.items():
        if not _SYSCTL.match(name) or not value.strip():
            shown = f"{name}={value}" if value else name
            raise InvalidArgument(
                f"invalid sysctl {shown!r}: it is NAME=VALUE, as in net.core.somaxconn=1024"
            )
        if hosts and name.replace("/", ".").startswith("net."):
            raise InvalidArgument(
                f"sysctl {name!r} cannot be set in the host network, which is the node's own: leave it away, "
                "or use another network"
            )


def _ulimits(ulimits: Iterable[Ulimit]) -> None:
    seen: set[str] = set()
    for one in ulimits:
        if one.name not in _ULIMITS:
            raise InvalidArgument(
                f"invalid ulimit type {one.name!r}: it is one of {', '.join(sorted(_ULIMITS))}"
            )
        if one.name in seen:
            raise InvalidArgument(f"ulimit {one.name} is given twice")
        seen.add(one.name)
        for limit in (one.soft, one.hard):
            if limit < -1:
                raise InvalidArgument(
                    f"invalid ulimit {one.name}: {limit} is neither a limit nor -1 for none"
                )
        if one.hard != -1 and not 0 <= one.soft <= one.hard:
            soft = "unlimited" if one.soft == -1 else one.soft
            raise InvalidArgument(
                f"invalid ulimit {one.name}: its soft limit {soft} is above its hard limit {one.hard}"
            )


def _health(check: Healthcheck) -> None:
    if not check.test:
        return
    kind = check.test[0]
    if kind not in {"NONE", "CMD", "CMD-SHELL"}:
        raise InvalidArgument(f"unknown health check type {kind!r}: it is NONE, CMD or CMD-SHELL")
    if kind != "NONE" and len(check.test) < 2:
        raise InvalidArgument(f"a health check of type {kind} needs a command")


# ---------------------------------------------------------------- names


def _hostname(text: str) -> None:
    if "{{" in text:
        return
    if _ODD.search(text):
        raise InvalidArgument(f"invalid hostname {text!r}: it can have no blanks and control characters")
    if len(text.encode()) > LONGEST_HOSTNAME:
        raise InvalidArgument(
            f"invalid hostname '{text[:12]}…': it can have {LONGEST_HOSTNAME} characters at most"
        )


def _dns(config: DNSConfig) -> None:
    for server in config.nameservers:
        if not _is_ip(server):
            raise InvalidArgument(f"invalid DNS server {server!r}: an IP address is expected")
    for what, words in (("search domain", config.search), ("option", config.options)):
        for word in words:
            if not word or _ODD.search(word):
                raise InvalidArgument(f"invalid DNS {what} {word!r}: one word is expected")


def _host(entry: str) -> None:
    words = entry.split()
    if len(words) < 2 or not (words[0] == "host-gateway" or _is_ip(words[0])):
        raise InvalidArgument(f"invalid host entry {entry!r}: it is an IP address and a name")


def _is_ip(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _network(network: NetworkAttachment) -> None:
    if network.aliases and network.target in USABLE:
        raise InvalidArgument(
            f"aliases are for overlay networks: the node's {network.target} network knows no names of tasks"
        )
    for alias in network.aliases:
        labels = alias.removesuffix(".").split(".")
        if _ODD.search(alias) or len(alias) > 253 or not all(0 < len(label) < 64 for label in labels):
            raise InvalidArgument(
                f"invalid alias {alias!r}: it is a name as in DNS, at most 63 characters between dots"
            )
    for option in network.driver_opts:
        if option.startswith(OPTION):
            raise InvalidArgument(f"driver option {option} is swarmpy's own: leave it away")


# ---------------------------------------------------------------- mounts


def _mounts(mounts: Iterable[Mount]) -> None:
    targets: set[str] = set()
    for mount in mounts:
        _mount(mount)
        if "{{" in mount.target:
            continue
        target = posixpath.normpath("/" + mount.target.lstrip("/"))
        if target == "/":
            raise InvalidArgument(f"invalid mount target {mount.target!r}: it is the container's own root")
        if target in targets:
            raise InvalidArgument(f"ContainerSpec: duplicate mount point: {mount.target}")
        targets.add(target)


def _mount(mount: Mount) -> None:
    if mount.bind_options is not None and mount.bind_options.propagation not in _PROPAGATIONS:
        raise InvalidArgument(
            f"invalid bind propagation {mount.bind_options.propagation!r}: it is private, rprivate, slave, "
            "rslave, shared or rshared"
        )
    config = mount.volume_options.driver_config if mount.volume_options is not None else None
    local = config is None or config.name in {"", "local"}  # other drivers have rules of their own
    named = mount.type in {"", "volume"} and mount.source and "{{" not in mount.source
    if named and local and not _VOLUME.match(mount.source):
        raise InvalidArgument(
            f"invalid volume name {mount.source!r}: it is of letters, digits, _ . - and at least two of them"
        )
