"""`swarmpy service create`: from flags to a service spec, as Docker's client builds it.

What does not belong here: the flags (`service_flags`), value grammars, digests (`registry`), waiting
(`progress`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from swarmpy.cli.client import Client
from swarmpy.cli.grammars import notes
from swarmpy.cli.output import out, warn
from swarmpy.cli.service_flags import create_flags
from swarmpy.cli.spec import Spec, apply_fields, put
from swarmpy.cli.tables import CommandError, Parsed
from swarmpy.cli.values import pairs

HEALTH = ("health-cmd", "health-interval", "health-timeout", "health-start-period", "health-start-interval",
          "health-retries")  # fmt: skip
_ROLLOUT = ("delay", "failure-action", "max-failure-ratio", "monitor", "order", "parallelism")
_CONTAINER = "TaskTemplate.ContainerSpec"


def create(parsed: Parsed) -> int:
    """Create a service, print its id, and wait until it has converged."""
    spec = build(parsed)
    for note in notes(parsed.list("mount")):
        warn(note)
    client = Client(parsed.host)
    if parsed.list("network"):
        from swarmpy.cli.service_networks import resolved

        spec["TaskTemplate"]["Networks"] = resolved(client, parsed.list("network"))
    auth = ""
    if parsed.on("with-registry-auth"):
        from swarmpy.cli.registry import auth_header

        auth = auth_header(parsed.args[0])
    from swarmpy.cli.registry import resolve

    resolve(client, spec, auth, ask=not parsed.on("no-resolve-image"))
    headers = {"X-Registry-Auth": auth} if auth else None
    answer = client.call("POST", "/services/create", spec, headers=headers)
    for warning in answer.get("Warnings") or []:
        warn(warning)
    out(answer["ID"])
    if not parsed.on("detach"):
        from swarmpy.cli.progress import wait

        wait(client, answer["ID"], quiet=parsed.on("quiet"))
    return 0


def build(parsed: Parsed) -> Spec:
    """The spec for these flags. Raises CommandError for flags that contradict each other."""
    container: Spec = {"Image": parsed.args[0], "Init": False, "DNSConfig": {}}
    spec: Spec = {
        "Name": parsed.text("name"),
        "Labels": pairs(parsed.list("label")),
        "TaskTemplate": {
            "ContainerSpec": container,
            "Resources": {"Limits": {}, "Reservations": {}},
            "Placement": {},
            "ForceUpdate": 0,
        },
        "Mode": service_mode(parsed),
        "EndpointSpec": {"Mode": "vip"},
    }
    apply_fields(spec, create_flags(), parsed)
    if parsed.args[1:]:
        container["Args"] = parsed.args[1:]
    for flag, path in (
        ("mount", f"{_CONTAINER}.Mounts"),
        ("group", f"{_CONTAINER}.Groups"),
        ("host", f"{_CONTAINER}.Hosts"),
        ("dns", f"{_CONTAINER}.DNSConfig.Nameservers"),
        ("dns-search", f"{_CONTAINER}.DNSConfig.Search"),
        ("dns-option", f"{_CONTAINER}.DNSConfig.Options"),
        ("constraint", "TaskTemplate.Placement.Constraints"),
        ("placement-pref", "TaskTemplate.Placement.Preferences"),
        ("publish", "EndpointSpec.Ports"),
    ):
        put(spec, path, parsed.list(flag))
    put(spec, f"{_CONTAINER}.Labels", pairs(parsed.list("container-label")))
    put(spec, f"{_CONTAINER}.Sysctls", pairs(parsed.list("sysctl")))
    put(spec, f"{_CONTAINER}.Ulimits", ulimits(parsed.list("ulimit")))
    put(spec, f"{_CONTAINER}.Env", environment(parsed))
    put(spec, f"{_CONTAINER}.Healthcheck", healthcheck(parsed))
    put(
        spec,
        "TaskTemplate.Resources.Reservations.GenericResources",
        resources(parsed.list("generic-resource")),
    )
    put(spec, "TaskTemplate.LogDriver", log_driver(parsed))
    add, drop = capabilities(parsed.list("cap-add"), parsed.list("cap-drop"))
    put(spec, f"{_CONTAINER}.CapabilityAdd", add)
    put(spec, f"{_CONTAINER}.CapabilityDrop", drop)
    return spec


def service_mode(parsed: Parsed) -> Spec:
    """The mode object. Raises CommandError for flags that the mode does not have."""
    word = parsed.text("mode") or "replicated"
    replicas = parsed.values.get("replicas")
    concurrent = parsed.values.get("max-concurrent")
    if word not in ("replicated", "global", "replicated-job", "global-job"):
        raise CommandError(f"unknown mode: {word}, only replicated and global supported")
    if word.startswith("global"):
        if replicas is not None:
            raise CommandError("replicas can only be used with replicated or replicated-job mode")
        if parsed.values.get("replicas-max-per-node"):
            raise CommandError(
                "replicas-max-per-node can only be used with replicated or replicated-job mode"
            )
    if word != "replicated-job" and concurrent is not None:
        raise CommandError("max-concurrent can only be used with replicated-job mode")
    if word.endswith("-job") and parsed.has(
        *(f"{kind}-{name}" for kind in ("update", "rollback") for name in _ROLLOUT)
    ):
        raise CommandError("update and rollback configuration is not supported for jobs")
    if word == "replicated":
        return {"Replicated": {} if replicas is None else {"Replicas": replicas}}
    if word == "replicated-job":
        counts = {
            "MaxConcurrent": replicas if concurrent is None else concurrent,
            "TotalCompletions": replicas,
        }
        return {"ReplicatedJob": {key: value for key, value in counts.items() if value is not None}}
    return {"Global": {}} if word == "global" else {"GlobalJob": {}}


def environment(parsed: Parsed) -> list[str]:
    """Variables of --env-file, then of --env; the last of a name wins."""
    texts = [line for path in parsed.list("env-file") for line in _env_file(path)] + parsed.list("env")
    result: list[str] = []
    for text in texts:
        if text in result:
            continue
        key = text.partition("=")[0]
        result = [one for one in result if not one.startswith(key + "=")]
        result.append(text)
    return result


def _env_file(path: str) -> Iterable[str]:
    """The variables of a file: `KEY=VALUE` lines, `KEY` for this process's own value, `#` comments."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = file.read().split("\n")
    except UnicodeDecodeError:
        raise CommandError(f"env file {path} contains invalid utf8 bytes") from None
    except OSError as error:
        raise CommandError(f"open {path}: {(error.strerror or str(error)).lower()}") from None
    result = []
    for raw in lines:
        line = raw.rstrip("\r").lstrip()
        if not line or line.startswith("#"):
            continue
        key, equals, value = line.partition("=")
        if not key:
            raise CommandError(f"invalid env file ({path}): no variable name on line '{line}'")
        if any(letter.isspace() for letter in key):
            raise CommandError(f"invalid env file ({path}): variable '{key}' contains whitespaces")
        if equals:
            result.append(f"{key}={value}")
        elif key in os.environ:
            result.append(f"{key}={os.environ[key]}")
    return result


def healthcheck(parsed: Parsed) -> Spec:
    """The health check, empty where the image's own is to be used."""
    if parsed.on("no-healthcheck"):
        if parsed.has(*HEALTH):
            raise CommandError("--no-healthcheck conflicts with --health-* options")
        return {"Test": ["NONE"]}
    result: Spec = {}
    if not (parsed.text("health-cmd") or parsed.values.get("health-retries") or parsed.has(*HEALTH[1:-1])):
        return result
    put(result, "Test", ["CMD-SHELL", parsed.text("health-cmd")] if parsed.text("health-cmd") else [])
    for flag, field in (("health-interval", "Interval"), ("health-timeout", "Timeout"),
                        ("health-start-period", "StartPeriod"), ("health-start-interval", "StartInterval"),
                        ("health-retries", "Retries")):  # fmt: skip
        put(result, field, parsed.values.get(flag, 0))
    return result


def log_driver(parsed: Parsed) -> Spec:
    """The log driver with its options; options without a driver are refused rather than dropped."""
    name = parsed.text("log-driver")
    options = pairs(parsed.list("log-opt"))
    if not name:
        if options:
            raise CommandError("--log-opt needs --log-driver: options belong to a driver")
        return {}
    return {"Name": name, "Options": options} if options else {"Name": name}


def ulimits(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Ulimits by name; the last of a name wins."""
    by_name = {one["Name"]: one for one in found}
    return [by_name[name] for name in sorted(by_name)]


def resources(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Generic resources. Raises CommandError where one is asked for twice."""
    kinds = [one["DiscreteResourceSpec"]["Kind"] for one in found]
    for kind in kinds:
        if kinds.count(kind) > 1:
            raise CommandError(f"generic-resource `{kind}` is given more than once")
    return found


def capability(word: str) -> str:
    """A capability's full name: net_admin is CAP_NET_ADMIN."""
    word = word.strip().upper()
    return word if word in ("ALL", "RESET") or word.startswith("CAP_") else f"CAP_{word}"


def capabilities(add: list[str], drop: list[str]) -> tuple[list[str], list[str]]:
    """What to add and to drop, sorted; ALL stands for every other, and adding wins over dropping."""
    adds = {capability(word) for word in add}
    drops = {capability(word) for word in drop}
    if "ALL" in adds:
        adds = {"ALL"}
    if "ALL" in drops:
        drops = {"ALL"}
    return sorted(adds), sorted(drops - (adds if "ALL" not in drops else set()))
