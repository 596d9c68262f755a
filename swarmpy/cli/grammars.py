"""How flag values with fields are read: mounts, ports, ulimits, placement preferences, generic resources.

Each parser returns the JSON object (or objects) of Docker's API, or raises ValueError with the sentence that
Docker's command line would print. Scalars are in `values`.
"""

from __future__ import annotations

import os
import re
from typing import Any

from swarmpy.cli.tables import Kind
from swarmpy.cli.values import boolean, decimal, ip_address, size
from swarmpy.model.limits import MAX_PORTS

_HOST_PORT = re.compile(r"(?:(\[.*\]|[^:\[]*):)?([^:]*)")
_LONG_PORT = re.compile(r"\w=\w")  # Docker searches for \w+=\w+(,\w+=\w+)*: the same, but in linear time
_MOUNT_SWITCHES = frozenset(("readonly", "ro", "volume-nocopy", "bind-nonrecursive", "bind-create-src"))
_RECURSIVE = {
    "enabled": "",
    "disabled": "NonRecursive",
    "writable": "ReadOnlyNonRecursive",
    "readonly": "ReadOnlyForceRecursive",
}
_ULIMITS = frozenset(
    ("core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss",
     "rtprio", "rttime", "sigpending", "stack")
)  # fmt: skip
_HIGHEST_PORT = 65535
_LONGEST = 1000
"""Digits of a number, leading zeros included: beyond that it is no slip of the hand."""
_RANGE = re.compile(r"([0-9]{1,1000})(?:-([0-9]{1,1000}))?")


def _fields(text: str) -> list[str]:
    """The fields of a line of comma-separated values; quotes protect commas."""
    import csv

    try:
        return next(csv.reader([text]), [])
    except csv.Error as error:
        raise ValueError(f"invalid value: its comma-separated fields cannot be read: {error}") from None


class Resolved(str):
    """A relative path as the absolute one that it is here; `typed` as the user wrote it."""

    typed: str

    def __new__(cls, typed: str) -> Resolved:
        """The path from this process's working directory."""
        path = super().__new__(cls, os.path.abspath(typed))
        path.typed = typed
        return path


def notes(mounts: list[dict[str, Any]]) -> list[str]:
    """What to say of mounts: a path that nobody typed will be in the errors of tasks."""
    return [
        f"Note: the source {source.typed} of a mount is taken as {source}, which is looked for on the node "
        "that runs the task"
        for source in (one.get("Source") for one in mounts)
        if isinstance(source, Resolved)
    ]


def mount(text: str) -> dict[str, Any]:
    """`type=volume|bind|tmpfs|..,source=..,target=..,readonly,..` as a Mount."""
    text = text.strip()
    if not text:
        raise ValueError("value is empty")
    result: dict[str, Any] = {"Type": "volume"}
    for field in _fields(text):
        key, equals, value = field.partition("=")
        if key.strip() != key:
            raise ValueError(
                f"invalid option '{key.strip()}' in '{field}': option should not have whitespace"
            )
        if equals and not value.strip():
            raise ValueError(f"invalid value for '{key}': value is empty")
        if value.strip() != value:
            raise ValueError(f"invalid value for '{key}' in '{field}': value should not have whitespace")
        key = key.lower()
        if not equals and key not in _MOUNT_SWITCHES:
            raise ValueError(f"invalid field '{field}' must be a key=value pair")
        _mount_field(result, key, value, field, bool(equals))
    return _checked(result)


def _flag_value(key: str, value: str, given: bool) -> bool:
    if not given:
        return True
    if value not in ("true", "1", "false", "0"):
        raise ValueError(f"invalid value for '{key}': invalid boolean value (\"{value}\"): must be one of "
                         '"true", "1", "false", or "0" (default "true")')  # fmt: skip
    return boolean(value)


def _mount_field(result: dict[str, Any], key: str, value: str, field: str, given: bool) -> None:
    """Put one field of a mount where the API has it."""
    if key == "type":
        result["Type"] = value.lower()
    elif key in ("source", "src"):
        result["Source"] = Resolved(value) if value.startswith(".") else value
    elif key in ("target", "dst", "destination"):
        result["Target"] = value
    elif key in ("readonly", "ro"):
        result["ReadOnly"] = _flag_value(key, value, given)
    elif key == "consistency":
        result["Consistency"] = value.lower()
    elif key.startswith("bind-"):
        _bind_field(result, key, value, field, given)
    elif key.startswith("volume-"):
        _volume_field(result, key, value, field, given)
    elif key == "image-subpath":
        result.setdefault("ImageOptions", {})["Subpath"] = value
    elif key in ("tmpfs-size", "tmpfs-mode"):
        try:
            number = size(value) if key == "tmpfs-size" else _mode(value)
        except ValueError:
            raise ValueError(f"invalid value for {key}: {value}") from None
        options = result.setdefault("TmpfsOptions", {})
        options["SizeBytes" if key == "tmpfs-size" else "Mode"] = number
    else:
        raise ValueError(f"unknown option '{key}' in '{field}'")


def _mode(text: str) -> int:
    """A file's mode, octal."""
    if not re.fullmatch(r"[0-7]{1,10}", text):
        raise ValueError(text)
    return int(text, 8)


def _bind_field(result: dict[str, Any], key: str, value: str, field: str, given: bool) -> None:
    options = result.setdefault("BindOptions", {}) if key != "bind-recursive" else {}
    if key == "bind-propagation":
        options["Propagation"] = value.lower()
    elif key == "bind-create-src":
        options["CreateMountpoint"] = _flag_value(key, value, given)
    elif key == "bind-nonrecursive":
        options["NonRecursive"] = _flag_value(key, value, given)
    elif key == "bind-recursive":
        if value not in _RECURSIVE:
            raise ValueError(f"invalid value for {key}: {value} "
                             '(must be "enabled", "disabled", "writable", or "readonly")')  # fmt: skip
        if _RECURSIVE[value]:
            result.setdefault("BindOptions", {})[_RECURSIVE[value]] = True
    else:
        raise ValueError(f"unknown option '{key}' in '{field}'")


def _volume_field(result: dict[str, Any], key: str, value: str, field: str, given: bool) -> None:
    options = result.setdefault("VolumeOptions", {})
    if key == "volume-nocopy":
        options["NoCopy"] = _flag_value(key, value, given)
    elif key == "volume-subpath":
        options["Subpath"] = value
    elif key == "volume-driver":
        options.setdefault("DriverConfig", {})["Name"] = value
    elif key in ("volume-label", "volume-opt"):
        name, _, content = value.partition("=")
        home = options if key == "volume-label" else options.setdefault("DriverConfig", {})
        home.setdefault("Labels" if key == "volume-label" else "Options", {})[name] = content
    else:
        raise ValueError(f"unknown option '{key}' in '{field}'")


def _checked(result: dict[str, Any]) -> dict[str, Any]:
    """The mount without empty parts. Raises where options do not belong to its type."""
    kind = result["Type"]
    if not kind:
        raise ValueError("type is required")
    if not result.get("Target"):
        raise ValueError("target is required")
    owners = {
        "VolumeOptions": "volume",
        "BindOptions": "bind",
        "TmpfsOptions": "tmpfs",
        "ImageOptions": "image",
    }
    for part, owner in owners.items():
        if part in result and kind != owner:
            raise ValueError(f"cannot mix '{owner}-*' options with mount type '{kind}'")
    if result.get("BindOptions", {}).get("ReadOnlyNonRecursive") and not result.get("ReadOnly"):
        raise ValueError(
            "option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction"
        )
    if result.get("BindOptions", {}).get("ReadOnlyForceRecursive"):
        if not result.get("ReadOnly"):
            raise ValueError(
                "option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction"
            )
        if result["BindOptions"].get("Propagation") != "rprivate":
            raise ValueError("option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' "
                             "to be specified in conjunction")  # fmt: skip
    if not result.get("ReadOnly", True):
        del result["ReadOnly"]
    return result


_NOT_FOR_TASKS = frozenset(("ip", "ip6", "mac-address", "link-local-ip", "gw-priority"))


def network(text: str) -> dict[str, Any]:
    """`NAME`, or `name=,alias=,driver-opt=`, as an attachment whose target is not resolved yet."""
    if not _LONG_PORT.search(text):
        return {"Target": text}
    result: dict[str, Any] = {}
    for field in _fields(text):
        key, equals, value = (part.strip() for part in field.lower().partition("="))
        if not equals or not key:
            raise ValueError(f"invalid field {field.lower()}")
        if key == "name":
            result["Target"] = value
        elif key == "alias":
            result.setdefault("Aliases", []).append(value)
        elif key == "driver-opt":
            name, given, content = (part.strip() for part in value.partition("="))
            if not given:
                raise ValueError("invalid key value pair format in driver options")
            result.setdefault("DriverOpts", {})[name] = content
        elif key in _NOT_FOR_TASKS:
            raise ValueError(f"{key} is for single containers: a service's tasks get theirs from the cluster")
        else:
            raise ValueError(f"invalid field key {key}")
    if not result.get("Target"):
        raise ValueError("network name/id is not specified")
    return result


def port(text: str) -> list[dict[str, Any]]:
    """`[PUBLISHED:]TARGET[/PROTOCOL]` with ranges, or `published=,target=,protocol=,mode=`, and beyond Docker
    `host_ip=` and `source=`, or the address before the first form, in brackets where it is an IPv6 one."""
    return [_long_port(text)] if _LONG_PORT.search(text) else _short_port(text)


def _number(text: str, what: str) -> int:
    if not re.fullmatch(r"[0-9]+", text):
        raise ValueError(f"invalid {what} port ({text}): value must be an integer: invalid syntax")
    if len(text) > _LONGEST or int(text) > _HIGHEST_PORT:
        raise ValueError(f"invalid {what} port ({text}): value must be an integer: value out of range")
    return int(text)


_PORT_WORDS = {
    "protocol": ("Protocol", ("tcp", "udp", "sctp"), "invalid protocol value '{}'"),
    "mode": (
        "PublishMode",
        ("ingress", "host"),
        "invalid publish mode value ({}): must be either 'ingress' or 'host'",
    ),
    "source": (
        "Source",
        ("preserve", "snat", "local"),
        "invalid source value ({}): it is preserve, snat or local",
    ),
}
"""Fields that know some words only: the field of the API, the words, what is said of others."""


def _long_port(text: str) -> dict[str, Any]:
    result: dict[str, Any] = {
        "Protocol": "tcp",
        "TargetPort": 0,
        "PublishedPort": 0,
        "PublishMode": "ingress",
    }
    for field in _fields(text):
        key, equals, value = field.lower().partition("=")
        if not equals or not key:
            raise ValueError(f"invalid field: {field}")
        if key in _PORT_WORDS:
            name, words, problem = _PORT_WORDS[key]
            if value not in words:
                raise ValueError(problem.format(value))
            result[name] = value
        elif key == "host_ip":
            result["HostIP"] = ip_address(_unbracketed(value))
        elif key in ("target", "published"):
            result["TargetPort" if key == "target" else "PublishedPort"] = _number(value, key)
        else:
            raise ValueError(f"invalid field key: {key}")
    if not result["TargetPort"]:
        raise ValueError("missing mandatory field 'target'")
    if not result["PublishedPort"]:
        del result["PublishedPort"]
    return result


def _range(text: str, what: str) -> range:
    match = _RANGE.fullmatch(text)
    if match is None:
        raise ValueError(f"invalid {what}: {text}")
    low, high = int(match[1]), int(match[2] or match[1])
    if low > high or high > _HIGHEST_PORT:
        raise ValueError(f"invalid {what}: {text}")
    return range(low, high + 1)


def _short_port(text: str) -> list[dict[str, Any]]:
    body, _, protocol = text.partition("/")
    protocol = protocol or "tcp"
    host, _, target = body.rpartition(":")
    if not target:
        raise ValueError(f"no port specified: {text}<empty>")
    targets = _range(target, "containerPort")
    split = _HOST_PORT.fullmatch(host)
    if split is None:
        raise ValueError(
            f"invalid port {text}: an IPv6 address is put in brackets, as in [2001:db8::1]:8080:80"
        )
    host = split[2]
    where = {"HostIP": ip_address(_unbracketed(split[1]))} if split[1] else {}
    published = _range(host, "hostPort") if host else range(0)
    if protocol.lower() not in ("tcp", "udp", "sctp"):
        raise ValueError(f"invalid proto: {protocol}")
    if max(len(published), len(targets)) > MAX_PORTS:
        raise ValueError(
            f"{max(len(published), len(targets))} ports are more than one service can publish ({MAX_PORTS}): "
            "each is a rule on every node; publish fewer, or give the service the host network"
        )
    if published and len(published) != len(targets) and len(targets) > 1:
        raise ValueError(f"invalid ranges specified for container and host Ports: {target} and {host}")
    if published and len(targets) == 1:
        pairs = [(targets[0], number) for number in published]
    else:
        pairs = list(zip(targets, published or [0] * len(targets), strict=True))
    return [
        {"Protocol": protocol.lower(), "TargetPort": inner, **({"PublishedPort": outer} if outer else {}),
         "PublishMode": "ingress", **where}
        for inner, outer in pairs
    ]  # fmt: skip


def _unbracketed(text: str) -> str:
    return text[1:-1] if text.startswith("[") and text.endswith("]") and ":" in text else text


def target_port(text: str) -> dict[str, Any]:
    """What --publish-rm names: `TARGET[/PROTOCOL]` or the long form."""
    if _LONG_PORT.search(text):
        return _long_port(text)
    return _short_port(text)[0]


def ulimit(text: str) -> dict[str, Any]:
    """`NAME=SOFT[:HARD]`; -1 is unlimited."""
    name, equals, limits = text.partition("=")
    if not equals:
        raise ValueError(f"invalid ulimit argument: {text}")
    if name not in _ULIMITS:
        raise ValueError(f"invalid ulimit type: {name}")
    parts = limits.split(":")
    if len(parts) > 2:
        raise ValueError(f"too many limit value arguments - {limits}, can only have up to two, `soft[:hard]`")
    numbers = [decimal(part) for part in parts]
    soft, hard = numbers[0], numbers[-1]
    if hard != -1 and soft == -1:
        raise ValueError(
            f"ulimit soft limit must be less than or equal to hard limit: soft: -1 (unlimited), hard: {hard}"
        )
    if hard != -1 and soft > hard:
        raise ValueError(f"ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}")
    return {"Name": name, "Hard": hard, "Soft": soft}


def preference(text: str) -> dict[str, Any]:
    """`spread=node.labels.X` as a placement preference."""
    strategy, equals, descriptor = text.partition("=")
    if not equals or not strategy:
        raise ValueError('placement preference must be of the format "<strategy>=<arg>"')
    if strategy != "spread":
        raise ValueError(f"unsupported placement preference {strategy} (only spread is supported)")
    return {"Spread": {"SpreadDescriptor": descriptor}}


def generic_resource(text: str) -> dict[str, Any]:
    """`KIND=N` as a discrete generic resource."""
    kind, equals, count = text.partition("=")
    if not equals or not kind or not count:
        raise ValueError(f"invalid generic-resource format `{text}` expected `name=value`")
    if not re.fullmatch(r"[+-]?[0-9]+", count):
        raise ValueError(f"invalid generic-resource request `{text}`, Named Generic Resources is not "
                         "supported for service create or update")  # fmt: skip
    return {"DiscreteResourceSpec": {"Kind": kind, "Value": decimal(count)}}


MOUNTS = Kind("mount", mount, many=True)
NETWORKS = Kind("network", network, many=True)
PORTS = Kind("port", port, many=True)
TARGET_PORTS = Kind("port", target_port, many=True)
ULIMITS = Kind("ulimit", ulimit, many=True)
PREFERENCES = Kind("pref", preference, many=True)
RESOURCES = Kind("list", generic_resource, many=True)
