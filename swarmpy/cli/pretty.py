"""`inspect --pretty`: a service or a node as text for people, in Docker's layout.

What does not belong here: fetching, JSON (`output.inspect`).
"""

from __future__ import annotations

import base64
from typing import Any

from swarmpy.cli.human import ago, bytes_size, go_duration, moment, title
from swarmpy.cli.template import go_text

Lines = list[str]


def _get(found: Any, path: str) -> Any:
    for name in path.split("."):
        found = (found or {}).get(name)
    return found


def _labels(labels: dict[str, str] | None, mark: str) -> Lines:
    pairs = sorted((labels or {}).items())
    return [f"{mark}{key}={value}" if value else f"{mark}{key}" for key, value in pairs]


# ------------------------------------------------------------ services


def service_text(service: dict[str, Any], networks: list[str]) -> str:
    """A service; `networks` are the names of those that it is on."""
    spec = service["Spec"]
    lines = ["", f"ID:\t\t{service['ID']}", f"Name:\t\t{spec.get('Name', '')}"]
    if spec.get("Labels"):
        lines += ["Labels:", *_labels(spec["Labels"], " ")]
    for part in (
        _mode(spec),
        _status(service.get("UpdateStatus") or {}),
        _placement(spec),
        _rollout(spec.get("UpdateConfig"), "Update"),
        _rollout(spec.get("RollbackConfig"), "Rollback"),
        _container(_get(spec, "TaskTemplate.ContainerSpec") or {}),
        _log_driver(spec),
        _resources(_get(spec, "TaskTemplate.Resources")),
        ["Networks: " + "".join(f"{name} " for name in networks)] if networks else [],
        _endpoint(service),
    ):
        lines += part
    check = _get(spec, "TaskTemplate.ContainerSpec.Healthcheck")
    return "\n".join(lines) + _healthcheck(check) + "\n"


def _mode(spec: dict[str, Any]) -> Lines:
    mode = spec.get("Mode") or {}
    if mode.get("Global") is not None:
        return ["Service Mode:\tGlobal"]
    if mode.get("Replicated") is not None:
        replicas = mode["Replicated"].get("Replicas")
        return ["Service Mode:\tReplicated", *([f" Replicas:\t{replicas}"] if replicas is not None else [])]
    return ["Service Mode:"]


def _status(status: dict[str, Any]) -> Lines:
    if not status.get("State"):
        return []
    lines = ["UpdateStatus:", f" State:\t\t{status['State']}"]
    if status.get("StartedAt"):
        lines.append(f" Started:\t{ago(status['StartedAt'])}")
    if status["State"] == "completed" and status.get("CompletedAt"):
        lines.append(f" Completed:\t{ago(status['CompletedAt'])}")
    return [*lines, f" Message:\t{status.get('Message', '')}"]


def _placement(spec: dict[str, Any]) -> Lines:
    placement = _get(spec, "TaskTemplate.Placement") or {}
    lines = ["Placement:"]
    if placement.get("Constraints"):
        lines.append(f" Constraints:\t{go_text(placement['Constraints'])}")
    spread = [
        f"spread={one['Spread']['SpreadDescriptor']}"
        for one in placement.get("Preferences") or []
        if one.get("Spread")
    ]
    if spread:
        lines.append(f" Preferences:   {go_text(spread)}")
    if placement.get("MaxReplicas"):
        lines.append(f" Max Replicas Per Node:   {placement['MaxReplicas']}")
    return lines


def _rollout(config: dict[str, Any] | None, word: str) -> Lines:
    if config is None:
        return []
    lines = [f"{word}Config:", f" Parallelism:\t{config.get('Parallelism', 0)}"]
    if config.get("Delay", 0) > 0:
        lines.append(f" Delay:\t\t{go_duration(config['Delay'])}")
    lines.append(f" On failure:\t{config.get('FailureAction', '')}")
    if config.get("Monitor", 0) > 0:
        lines.append(f" Monitoring Period: {go_duration(config['Monitor'])}")
    lines.append(f" Max failure ratio: {config.get('MaxFailureRatio', 0):g}")
    order = f"{word} order:".ljust(len("Max failure ratio: "))
    return [*lines, f" {order}{config.get('Order', '')}"]


def _container(spec: dict[str, Any]) -> Lines:
    lines = ["ContainerSpec:", f" Image:\t\t{spec.get('Image', '')}"]
    if spec.get("Args"):
        lines.append(" Args:\t\t" + "".join(f"{word} " for word in spec["Args"]))
    if spec.get("Env"):
        lines.append(" Env:\t\t" + "".join(f"{word} " for word in spec["Env"]))
    if spec.get("Dir"):
        lines.append(f" Dir:\t\t{spec['Dir']}")
    if spec.get("Init") is not None:
        lines.append(f" Init:\t\t{go_text(spec['Init'])}")
    if spec.get("User"):
        lines.append(f" User: {spec['User']}")
    return lines + _kernel(spec) + _mounts(spec)


def _kernel(spec: dict[str, Any]) -> Lines:
    lines: Lines = []
    if spec.get("CapabilityAdd") or spec.get("CapabilityDrop"):
        lines.append("Capabilities:")
        lines += [
            f" {word}: {', '.join(spec[key])}"
            for word, key in (("Add", "CapabilityAdd"), ("Drop", "CapabilityDrop"))
            if spec.get(key)
        ]
    if spec.get("Sysctls"):
        lines += [
            "SysCtls:",
            *(f" {key}: {value}" if value else f" {key}" for key, value in sorted(spec["Sysctls"].items())),
        ]
    if spec.get("Ulimits"):
        lines.append("Ulimits:")
        lines += [
            f" {one['Name']}: {one.get('Soft', 0)}:{one.get('Hard', 0)}"
            for one in sorted(spec["Ulimits"], key=lambda one: str(one["Name"]))
        ]
    return lines


def _mounts(spec: dict[str, Any]) -> Lines:
    lines: Lines = []
    if spec.get("Mounts"):
        lines.append("Mounts:")
    for mount in spec.get("Mounts") or []:
        lines += [
            f" Target:\t{mount.get('Target', '')}",
            f"  Source:\t{mount.get('Source', '')}",
            f"  ReadOnly:\t{go_text(bool(mount.get('ReadOnly')))}",
            f"  Type:\t\t{mount.get('Type', '')}",
        ]
    for word, key, name in (("Configs", "Configs", "ConfigName"), ("Secrets", "Secrets", "SecretName")):
        if spec.get(key):
            lines.append(f"{word}:")
        for one in spec.get(key) or []:
            lines += [f" Target:\t{_get(one, 'File.Name') or ''}", f"  Source:\t{one.get(name, '')}"]
    return lines


def _log_driver(spec: dict[str, Any]) -> Lines:
    driver = _get(spec, "TaskTemplate.LogDriver")
    if driver is None:
        return []
    lines = ["Log Driver:"]
    if driver.get("Name"):
        lines.append(f" Name:\t\t{driver['Name']}")
    if driver.get("Options"):
        lines.append(" LogOpts:")
        lines += [
            f"  {key}:       {value}" if value else f"  {key}"
            for key, value in sorted(driver["Options"].items())
        ]
    return [*lines, ""]


def _resources(resources: dict[str, Any] | None) -> Lines:
    if resources is None:
        return []
    lines = ["Resources:"]
    for word, part in (("Reservations", "Reservations"), ("Limits", "Limits")):
        found = resources.get(part) or {}
        cpus, memory = found.get("NanoCPUs") or 0, found.get("MemoryBytes") or 0
        if cpus > 0 or memory > 0 or found.get("Pids"):
            lines.append(f" {word}:")
            lines += [f"  CPU:\t\t{cpus / 1e9:g}"] if cpus else []
            lines += [f"  Memory:\t{bytes_size(memory)}"] if memory else []
            lines += [f"  PIDs:\t\t{found['Pids']}"] if found.get("Pids") else []
    return lines


def _endpoint(service: dict[str, Any]) -> Lines:
    endpoint = service.get("Endpoint") or {}
    mode = _get(service, "Spec.EndpointSpec.Mode") or ""
    lines = [f"Endpoint Mode:\t{mode}"]
    if not endpoint.get("Ports"):
        return lines
    lines.append("Ports:")
    for port in endpoint["Ports"]:
        lines += [
            f" PublishedPort = {port.get('PublishedPort', 0)}",
            f"  Protocol = {port.get('Protocol', '')}",
            f"  TargetPort = {port.get('TargetPort', 0)}",
            f"  PublishMode = {port.get('PublishMode', '')}",
            *(f"  {key} = {port[key]}" for key in ("HostIP", "Source") if port.get(key)),
        ]
    lines[-1] += " "
    return lines


def _healthcheck(check: dict[str, Any] | None) -> str:
    """The last part; Docker puts it on the line of what comes before it."""
    if check is None:
        return "\n"
    lines = [
        " Healthcheck:",
        f"  Interval = {go_duration(check.get('Interval', 0))}",
        f"  Retries = {check.get('Retries', 0)}",
        f"  StartPeriod =\t{go_duration(check.get('StartPeriod', 0))}",
        f"  Timeout =\t{go_duration(check.get('Timeout', 0))}",
    ]
    if check.get("Test"):
        lines += ["  Tests:", *(f"\t Test = {word}" for word in check["Test"])]
        lines[-1] += " "
    return "\n" + "\n".join(lines) + "\n"


# ------------------------------------------------------------ nodes


def node_text(node: dict[str, Any]) -> str:
    """A node."""
    spec, description = node.get("Spec") or {}, node.get("Description") or {}
    lines = [f"ID:\t\t\t{node['ID']}"]
    if spec.get("Name"):
        lines.append(f"Name:\t\t\t{spec['Name']}")
    if spec.get("Labels"):
        lines += ["Labels:", *_labels(spec["Labels"], " - ")]
    status = node.get("Status") or {}
    lines += [
        f"Hostname:              \t{description.get('Hostname', '')}",
        f"Joined at:             \t{moment(node.get('CreatedAt', ''))}",
        "Status:",
        f" State:\t\t\t{title(status.get('State', ''))}",
    ]
    if status.get("Message"):
        lines.append(f" Message:              \t{title(status['Message'])}")
    lines.append(f" Availability:         \t{title(spec.get('Availability', ''))}")
    if status.get("Addr"):
        lines.append(f" Address:\t\t{status['Addr']}")
    lines += _manager(node.get("ManagerStatus")) + _machine(description) + _tls(description.get("TLSInfo"))
    return "\n".join(lines) + "\n"


def _manager(status: dict[str, Any] | None) -> Lines:
    if status is None:
        return []
    return [
        "Manager Status:",
        f" Address:\t\t{status.get('Addr', '')}",
        f" Raft Status:\t\t{title(status.get('Reachability', ''))}",
        f" Leader:\t\t{'Yes' if status.get('Leader') else 'No'}",
    ]


def _machine(description: dict[str, Any]) -> Lines:
    platform, resources = description.get("Platform") or {}, description.get("Resources") or {}
    engine = description.get("Engine") or {}
    lines = [
        "Platform:",
        f" Operating System:\t{platform.get('OS', '')}",
        f" Architecture:\t\t{platform.get('Architecture', '')}",
        "Resources:",
        f" CPUs:\t\t\t{resources.get('NanoCPUs', 0) // 10**9}",
        f" Memory:\t\t{bytes_size(resources.get('MemoryBytes', 0))}",
    ]
    plugins: dict[str, list[str]] = {}
    for plugin in engine.get("Plugins") or []:
        plugins.setdefault(plugin["Type"], []).append(plugin["Name"])
    if plugins:
        lines += ["Plugins:", *(f" {kind}:\t\t{', '.join(names)}" for kind, names in sorted(plugins.items()))]
    lines.append(f"Engine Version:\t\t{engine.get('EngineVersion', '')}")
    if engine.get("Labels"):
        lines += ["Engine Labels:", *_labels(engine["Labels"], " - ")]
    return lines


def _tls(found: dict[str, Any] | None) -> Lines:
    if not found or not any(found.values()):
        return []
    lines = ["TLS Info:", " TrustRoot:", str(found.get("TrustRoot", ""))]
    for word, key in (("Issuer Subject", "CertIssuerSubject"), ("Issuer Public Key", "CertIssuerPublicKey")):
        raw = found.get(key) or ""
        text = base64.b64encode(raw).decode() if isinstance(raw, bytes) else raw
        lines.append(f" {word}:\t{text}")
    return lines
