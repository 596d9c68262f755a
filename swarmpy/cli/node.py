"""`swarmpy node`: list, inspect, change and remove nodes.

What does not belong here: the flags (`node_table`), `--pretty` (`pretty`), tables of tasks (`tasks`).
"""

from __future__ import annotations

from typing import Any

from swarmpy.cli.client import Client, filters, segment
from swarmpy.cli.human import natural, title
from swarmpy.cli.output import inspect as print_inspect
from swarmpy.cli.output import listing, out, warn
from swarmpy.cli.tables import CommandError, Parsed
from swarmpy.cli.values import pairs

_HEADERS = {
    "ID": "ID",
    "_SHOWN": "ID",
    "Self": "",
    "Hostname": "HOSTNAME",
    "Status": "STATUS",
    "Availability": "AVAILABILITY",
    "ManagerStatus": "MANAGER STATUS",
    "EngineVersion": "ENGINE VERSION",
    "TLSStatus": "TLS STATUS",
}
_SHOWN = ("_SHOWN", "Hostname", "Status", "Availability", "ManagerStatus", "EngineVersion")


def _tls_status(node: dict[str, Any], cluster: dict[str, Any]) -> str:
    mine, theirs = (node.get("Description") or {}).get("TLSInfo"), cluster.get("TLSInfo")
    if not mine or not theirs:
        return "Unknown"
    return "Ready" if mine == theirs else "Needs Rotation"


def _row(node: dict[str, Any], swarm: dict[str, Any]) -> dict[str, Any]:
    description = node.get("Description") or {}
    manager = node.get("ManagerStatus") or {}
    mine = node["ID"] == swarm.get("NodeID")
    return {
        "ID": node["ID"],
        "_SHOWN": f"{node['ID']} {'*' if mine else ' '}",
        "Self": mine,
        "Hostname": description.get("Hostname", ""),
        "Status": title((node.get("Status") or {}).get("State", "")),
        "Availability": title((node.get("Spec") or {}).get("Availability", "")),
        "ManagerStatus": "Leader" if manager.get("Leader") else title(manager.get("Reachability", "")),
        "EngineVersion": (description.get("Engine") or {}).get("EngineVersion", ""),
        "TLSStatus": _tls_status(node, swarm.get("Cluster") or {}),
    }


def ls(parsed: Parsed) -> int:
    """List nodes, by hostname."""
    client = Client(parsed.host)
    nodes = client.get("/nodes", **filters(parsed.list("filter")))
    quiet = parsed.on("quiet")
    swarm = {} if quiet or not nodes else client.get("/info")["Swarm"]
    rows = [_row(node, swarm) for node in nodes]
    rows.sort(key=lambda row: natural(row["Hostname"]))
    listing(rows, _HEADERS, _SHOWN, format_=parsed.text("format"), quiet=quiet)
    return 0


def self_id(client: Client) -> str:
    """The id of the node that the daemon runs on. Raises CommandError outside a cluster."""
    node = client.get("/info").get("Swarm", {}).get("NodeID", "")
    if not node:
        # Asking for the cluster makes the daemon say, in its own words, why there is none.
        client.get("/swarm")
        raise CommandError("node ID not found in /info")
    return str(node)


def fetch(client: Client, reference: str) -> Any:
    """The node that a user means; `self` is this one."""
    return client.get(f"/nodes/{segment(self_id(client) if reference == 'self' else reference)}")


def inspect(parsed: Parsed) -> int:
    """Print nodes."""
    if parsed.on("pretty") and parsed.text("format"):
        raise CommandError("--format is incompatible with human friendly format")
    client = Client(parsed.host)
    pretty = None
    if parsed.on("pretty"):
        from swarmpy.cli.pretty import node_text

        pretty = node_text
    return print_inspect(
        parsed.args, lambda reference: fetch(client, reference), parsed.text("format"), pretty
    )


def ps(parsed: Parsed) -> int:
    """List the tasks of nodes; of this node where none is named."""
    from swarmpy.cli.tasks import print_tasks

    client = Client(parsed.host)
    failures: list[str] = []
    tasks: list[dict[str, Any]] = []
    for reference in parsed.args or ["self"]:
        try:
            node = fetch(client, reference)
            chosen = [*parsed.list("filter"), ("node", node["ID"])]
            tasks += client.get("/tasks", **filters(chosen))
        except CommandError as error:
            failures.append(error.message)
    if tasks or not failures:
        print_tasks(client, tasks, parsed)
    for failure in failures:
        warn(failure)
    return 1 if failures else 0


def _write(client: Client, node: dict[str, Any]) -> None:
    """Write a node's spec back at the version that was read."""
    query = {"version": str(node["Version"]["Index"])}
    client.call("POST", f"/nodes/{node['ID']}/update", node["Spec"], query=query)


def update(parsed: Parsed) -> int:
    """Change a node's availability, role or labels."""
    client = Client(parsed.host)
    node = client.get(f"/nodes/{segment(parsed.args[0])}")
    spec = node["Spec"]
    for flag, field, words in (
        ("role", "Role", ("worker", "manager")),
        ("availability", "Availability", ("active", "pause", "drain")),
    ):
        if parsed.has(flag):
            word = parsed.text(flag).lower()
            if word not in words:
                raise CommandError(
                    f'invalid {flag} "{parsed.text(flag)}", only {", ".join(words[:-1])} and {words[-1]} '
                    "are supported"
                )
            spec[field] = word
    labels = spec.get("Labels") or {}
    labels.update(pairs(parsed.list("label-add")))
    for key in parsed.list("label-rm"):
        if key not in labels:
            raise CommandError(f"key {key} doesn't exist in node's labels")
        del labels[key]
    spec["Labels"] = labels
    _write(client, node)
    out(parsed.args[0])
    return 0


def _give_role(parsed: Parsed, role: str, done: str) -> int:
    client = Client(parsed.host)
    for reference in parsed.args:
        node = client.get(f"/nodes/{segment(reference)}")
        if node["Spec"].get("Role") == role:
            out(f"Node {node['ID']} is already a {role}.")
            continue
        node["Spec"]["Role"] = role
        _write(client, node)
        out(done.format(reference))
    return 0


def promote(parsed: Parsed) -> int:
    """Make nodes managers; stops at the first failure."""
    return _give_role(parsed, "manager", "Node {} promoted to a manager in the swarm.")


def demote(parsed: Parsed) -> int:
    """Make nodes workers; stops at the first failure."""
    return _give_role(parsed, "worker", "Manager {} demoted in the swarm.")


def remove(parsed: Parsed) -> int:
    """Remove nodes, going on past failures."""
    client = Client(parsed.host)
    query = {"force": "1"} if parsed.on("force") else None
    failures: list[str] = []
    for reference in parsed.args:
        try:
            client.call("DELETE", f"/nodes/{segment(reference)}", query=query)
            out(reference)
        except CommandError as error:
            failures.append(error.message)
    for failure in failures:
        warn(failure)
    return 1 if failures else 0
