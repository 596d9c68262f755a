"""`swarmpy service`: list, inspect, scale, roll back and remove services, and list their tasks.

What does not belong here: creating and updating (`service_create`, `service_update`), logs (`logs`), waiting
(`progress`), the flags (`service_table`).
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from swarmpy.cli.client import ApiError, Client, filters, segment
from swarmpy.cli.human import natural, short_id, shown_image
from swarmpy.cli.output import inspect as print_inspect
from swarmpy.cli.output import listing, out, warn
from swarmpy.cli.tables import CommandError, Parsed

_HEADERS = {
    "ID": "ID",
    "Name": "NAME",
    "Mode": "MODE",
    "Replicas": "REPLICAS",
    "Image": "IMAGE",
    "Ports": "PORTS",
}
_SHOWN = ("ID", "Name", "Mode", "Replicas", "Image", "Ports")
_MODES = {
    "Replicated": "replicated",
    "Global": "global",
    "ReplicatedJob": "replicated job",
    "GlobalJob": "global job",
}
MOST_REPLICAS = 2**64 - 1


def _mode(spec: dict[str, Any]) -> str:
    """Docker's word for the mode; a spec without one is replicated."""
    mode = spec.get("Mode") or {}
    for key, word in _MODES.items():
        if mode.get(key) is not None:
            return word
    return "replicated"


def _replicas(service: dict[str, Any], mode: str) -> str:
    """Running and wanted tasks, as `service ls` shows them."""
    status = service.get("ServiceStatus") or {}
    spec = service.get("Spec") or {}
    text = f"{status.get('RunningTasks', 0)}/{status.get('DesiredTasks', 0)}"
    if mode == "replicated job":
        total = (spec["Mode"]["ReplicatedJob"] or {}).get("TotalCompletions") or 0
        text += f" ({status.get('CompletedTasks', 0)}/{total} completed)"
    elif mode == "global job":
        total = status.get("DesiredTasks", 0) + status.get("CompletedTasks", 0)
        text += f" ({status.get('CompletedTasks', 0)}/{total} completed)"
    most = ((spec.get("TaskTemplate") or {}).get("Placement") or {}).get("MaxReplicas") or 0
    if most and mode in ("replicated", "replicated job"):
        text += f" (max {most} per node)"
    return text


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _ports(service: dict[str, Any]) -> str:
    """Ports published on every node; consecutive ones as a range. `*` is every address of a node."""
    ports = [
        (
            _bracketed(str(port.get("HostIP") or "*")),
            str(port.get("Protocol", "tcp")),
            int(port.get("TargetPort", 0)),
            int(port.get("PublishedPort", 0)),
        )
        for port in ((service.get("Endpoint") or {}).get("Ports") or [])
        if port.get("PublishMode", "ingress") == "ingress"
    ]
    groups: list[list[tuple[str, str, int, int]]] = []
    for port in sorted(ports):
        last = groups[-1][-1] if groups else None
        if last and last[:2] == port[:2] and port[2] - last[2] == 1 and port[3] - last[3] == 1:
            groups[-1].append(port)
        else:
            groups.append([port])
    return ", ".join(
        f"{group[0][0]}:{_span(group, 3)}->{_span(group, 2)}/{group[0][1]}"
        for group in sorted(groups, key=lambda item: item[0][3])
    )


def _span(group: list[tuple[str, str, int, int]], place: int) -> str:
    first, last = group[0][place], group[-1][place]
    return str(first) if first == last else f"{first}-{last}"


def _row(service: dict[str, Any], trunc: bool) -> dict[str, Any]:
    spec = service.get("Spec") or {}
    container = (spec.get("TaskTemplate") or {}).get("ContainerSpec") or {}
    mode = _mode(spec)
    return {
        "ID": short_id(service["ID"]) if trunc else service["ID"],
        "Name": spec.get("Name", ""),
        "Mode": mode,
        "Replicas": _replicas(service, mode),
        "Image": shown_image(container.get("Image", "")),
        "Ports": _ports(service),
    }


def ls(parsed: Parsed) -> int:
    """List services, by name."""
    client = Client(parsed.host)
    services = client.get("/services", status="true", **filters(parsed.list("filter")))
    rows = [_row(service, trunc=True) for service in services]
    rows.sort(key=lambda row: natural(row["Name"]))
    listing(rows, _HEADERS, _SHOWN, format_=parsed.text("format"), quiet=parsed.on("quiet"))
    return 0


def inspect(parsed: Parsed) -> int:
    """Print services."""
    if parsed.on("pretty") and parsed.text("format"):
        raise CommandError("--format is incompatible with human friendly format")
    client = Client(parsed.host)

    def fetch(reference: str) -> Any:
        try:
            return client.get(f"/services/{segment(reference)}", insertDefaults="true")
        except ApiError as error:
            if error.status == 404:
                raise CommandError(f"Error: no such service: {reference}") from None
            raise

    pretty = None
    if parsed.on("pretty"):
        pretty = partial(_text, client)
    return print_inspect(parsed.args, fetch, parsed.text("format"), pretty)


def _text(client: Client, service: Any) -> str:
    from swarmpy.cli.pretty import service_text
    from swarmpy.cli.service_networks import names

    return service_text(service, names(client, service))


def _chosen(client: Client, references: list[str]) -> tuple[list[str], list[str]]:
    """Ids of the services that the user means, and a sentence for each that does not exist."""
    by_name = client.get("/services", **filters([("name", reference) for reference in references]))
    by_id = client.get("/services", **filters([("id", reference) for reference in references]))
    ids: list[str] = []
    missing: list[str] = []
    for reference in references:
        exact = [one["ID"] for one in by_id if one["ID"] == reference]
        exact = exact or [one["ID"] for one in by_name if one["Spec"].get("Name") == reference]
        prefixed = exact or [one["ID"] for one in by_id if one["ID"].startswith(reference)]
        if len(prefixed) > 1:
            raise CommandError(f"multiple services found with provided prefix: {reference}")
        if prefixed:
            ids.append(prefixed[0])
        else:
            missing.append(f"no such service: {reference}")
    return ids, missing


def ps(parsed: Parsed) -> int:
    """List the tasks of services."""
    from swarmpy.cli.node import self_id
    from swarmpy.cli.tasks import print_tasks

    client = Client(parsed.host)
    ids, missing = _chosen(client, parsed.args)
    if not ids:
        raise CommandError("\n".join(missing))
    given = [
        (key, self_id(client) if (key, value) == ("node", "self") else value)
        for key, value in parsed.list("filter")
    ]
    tasks = client.get("/tasks", **filters([*given, *(("service", one) for one in ids)]))
    print_tasks(client, tasks, parsed)
    for sentence in missing:
        warn(sentence)
    return 1 if missing else 0


def remove(parsed: Parsed) -> int:
    """Remove services, going on past failures."""
    client = Client(parsed.host)
    failures: list[str] = []
    for reference in parsed.args:
        try:
            client.call("DELETE", f"/services/{segment(reference)}")
            out(reference)
        except CommandError as error:
            failures.append(error.message)
    for failure in failures:
        warn(failure)
    return 1 if failures else 0


def send_update(client: Client, service: dict[str, Any], query: dict[str, str],
                headers: dict[str, str] | None = None) -> None:  # fmt: skip
    """Write a service's spec back at the version that was read; warnings go to stderr."""
    query = {"version": str(service["Version"]["Index"]), **query}
    path = f"/services/{service['ID']}/update"
    answer = client.call("POST", path, service["Spec"], query=query, headers=headers)
    for warning in (answer or {}).get("Warnings") or []:
        warn(warning)


def _scale_one(client: Client, reference: str, number: str) -> None:
    if not re.fullmatch(r"[0-9]+", number):
        raise CommandError(
            f'invalid replicas value {number}: strconv.ParseUint: parsing "{number}": invalid syntax'
        )
    replicas = int(number)
    if replicas > MOST_REPLICAS:
        raise CommandError(
            f'invalid replicas value {number}: strconv.ParseUint: parsing "{number}": value out of range'
        )
    service = client.get(f"/services/{segment(reference)}")
    mode = service["Spec"].setdefault("Mode", {})
    if mode.get("ReplicatedJob") is not None:
        mode["ReplicatedJob"]["TotalCompletions"] = replicas
    elif mode.get("Global") is not None or mode.get("GlobalJob") is not None:
        raise CommandError("scale can only be used with replicated or replicated-job mode")
    else:
        mode["Replicated"] = {**(mode.get("Replicated") or {}), "Replicas": replicas}
    send_update(client, service, {})


def scale(parsed: Parsed) -> int:
    """Set the number of tasks of services, then wait for all of them; goes on past failures."""
    targets = []
    for word in parsed.args:
        reference, equals, number = word.partition("=")
        if not equals or not reference or not number:
            raise CommandError(
                f"invalid scale specifier '{word}'.\nSee '{parsed.path} --help'.\n\n"
                f"Usage:  {parsed.path} SERVICE=REPLICAS [SERVICE=REPLICAS...]\n\n"
                "Scale one or multiple replicated services"
            )
        targets.append((reference, number))
    client = Client(parsed.host)
    failures: list[str] = []
    scaled: list[str] = []
    for reference, number in targets:
        try:
            _scale_one(client, reference, number)
            out(f"{reference} scaled to {int(number)}")
            scaled.append(reference)
        except CommandError as error:
            failures.append(f"{reference}: {error.message}")
    if not parsed.on("detach"):
        from swarmpy.cli.progress import wait

        for reference in scaled:
            try:
                wait(client, reference, quiet=False)
            except CommandError as error:
                failures.append(f"{reference}: {error.message}")
    for failure in failures:
        warn(failure)
    return 1 if failures else 0


def rollback(parsed: Parsed) -> int:
    """Bring back the previous spec of a service."""
    client = Client(parsed.host)
    reference = parsed.args[0]
    service = client.get(f"/services/{segment(reference)}")
    send_update(client, service, {"rollback": "previous"})
    out(reference)
    if not parsed.on("detach"):
        from swarmpy.cli.progress import wait

        wait(client, reference, quiet=parsed.on("quiet"))
    return 0
