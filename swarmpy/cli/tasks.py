"""Tables of tasks: `service ps` and `node ps`.

What does not belong here: which tasks (`service`, `node`).
"""

from __future__ import annotations

from typing import Any

from swarmpy.cli.client import Client
from swarmpy.cli.human import ago, cut, instant, natural, short_id, shown_image, title
from swarmpy.cli.output import listing
from swarmpy.cli.tables import CommandError, Parsed

ERROR_WIDTH = 30
_HEADERS = {"ID": "ID", "Name": "NAME", "Image": "IMAGE", "Node": "NODE", "DesiredState": "DESIRED STATE",
            "CurrentState": "CURRENT STATE", "Error": "ERROR", "Ports": "PORTS"}  # fmt: skip
_SHOWN = ("ID", "Name", "Image", "Node", "DesiredState", "CurrentState", "Error", "Ports")


class Names:
    """Names of services and nodes by id, asked once each; an id that is not found stays an id."""

    def __init__(self, client: Client, resolve: bool) -> None:
        self._client = client
        self._resolve = resolve
        self._known: dict[tuple[str, str], str] = {}

    def service(self, service_id: str) -> str:
        """The service's name."""
        return self._name("services", service_id)

    def node(self, node_id: str) -> str:
        """The node's name: the one in its spec, else its hostname."""
        return self._name("nodes", node_id)

    def _name(self, kind: str, key: str) -> str:
        if not self._resolve or not key:
            return key
        known = self._known.get((kind, key))
        if known is None:
            known = self._known[kind, key] = self._ask(kind, key)
        return known

    def _ask(self, kind: str, key: str) -> str:
        try:
            found = self._client.get(f"/{kind}/{key}")
        except CommandError:
            return key  # gone meanwhile, or not ours to see: its id is all there is to show
        name = (found.get("Spec") or {}).get("Name", "")
        if not name and kind == "nodes":
            name = (found.get("Description") or {}).get("Hostname", "")
        return str(name or key)


def _ports(task: dict[str, Any]) -> str:
    ports = ((task.get("Status") or {}).get("PortStatus") or {}).get("Ports") or []
    return ",".join(
        f"*:{port.get('PublishedPort', 0)}->{port.get('TargetPort', 0)}/{port.get('Protocol', 'tcp')}"
        for port in ports
    )


def _error(text: str, trunc: bool) -> str:
    shown = cut(text, ERROR_WIDTH) if trunc else text
    return f'"{shown}"' if shown else ""


def _row(task: dict[str, Any], name: str, node: str, trunc: bool) -> dict[str, Any]:
    status = task.get("Status") or {}
    image = ((task.get("Spec") or {}).get("ContainerSpec") or {}).get("Image", "")
    return {
        "ID": short_id(task["ID"]) if trunc else task["ID"],
        "Name": name,
        "Image": shown_image(image) if trunc else image,
        "Node": node,
        "DesiredState": title(task.get("DesiredState", "")),
        "CurrentState": f"{title(status.get('State', ''))} {ago(status.get('Timestamp', '')).lower()}",
        "Error": _error(status.get("Err", ""), trunc),
        "Ports": _ports(task),
    }


def print_tasks(client: Client, tasks: list[dict[str, Any]], parsed: Parsed) -> None:
    """Print tasks by name, newest first; earlier tasks of the same slot are indented in tables."""
    names = Names(client, not parsed.on("no-resolve"))
    format_ = parsed.text("format")
    quiet = parsed.on("quiet")
    # `ps -q` shows full ids, whatever --no-trunc says, and needs no names but for the order.
    trunc = not parsed.on("no-trunc") and not quiet
    named = []
    for task in tasks:
        place = task.get("Slot") or task.get("NodeID", "")
        named.append((f"{names.service(task.get('ServiceID', ''))}.{place}", task))
    named.sort(key=lambda pair: instant(pair[1].get("CreatedAt", "")), reverse=True)
    named.sort(key=lambda pair: natural(pair[0]))
    indent = " \\_ " if format_ in ("", "table") or format_.startswith("table ") else ""
    rows = []
    previous = None
    for name, task in named:
        shown = indent + name if name == previous else name
        previous = name
        node = "" if quiet else names.node(task.get("NodeID", ""))
        rows.append(_row(task, shown, node, trunc))
    listing(rows, _HEADERS, _SHOWN, format_=format_, quiet=quiet)
