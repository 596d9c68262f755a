"""`swarmpy info`: what this node is, and what it sees of its cluster.

What does not belong here: the Engine's own information (`docker info` through the same socket has it).
"""

from __future__ import annotations

from typing import Any

from swarmpy.cli.client import Client
from swarmpy.cli.human import go_duration
from swarmpy.cli.output import out
from swarmpy.cli.tables import Parsed


def info(parsed: Parsed) -> int:
    """Print the node's place in its cluster."""
    client = Client(parsed.host)
    found = client.get("/info")
    format_ = parsed.text("format")
    if format_:
        from swarmpy.cli.template import Template, go_json

        out(go_json(found) if format_ == "json" else Template(format_).render(found))
        return 0
    for line in _lines(found.get("Swarm") or {}):
        out(line)
    return 0


def _lines(swarm: dict[str, Any]) -> list[str]:
    state = swarm.get("LocalNodeState") or "inactive"
    lines = [f"Swarm: {state}"]
    if swarm.get("Error"):
        lines.append(f" Error: {swarm['Error']}")
    if state in ("inactive", "locked"):
        return lines
    manager = bool(swarm.get("ControlAvailable"))
    lines += [f" NodeID: {swarm.get('NodeID', '')}", f" Is Manager: {'true' if manager else 'false'}"]
    if manager:
        lines += _manager(swarm)
    lines.append(f" Node Address: {swarm.get('NodeAddr', '')}")
    remote = sorted(str(one.get("Addr", "")) for one in swarm.get("RemoteManagers") or [])
    if remote:
        lines += [" Manager Addresses:", *(f"  {address}" for address in remote)]
    return lines + [f"WARNING: {text}" for text in swarm.get("Warnings") or []]


def _manager(swarm: dict[str, Any]) -> list[str]:
    cluster = swarm.get("Cluster") or {}
    spec = cluster.get("Spec") or {}
    lines = [f" ClusterID: {cluster.get('ID', '')}", f" Managers: {swarm.get('Managers', 0)}",
             f" Nodes: {swarm.get('Nodes', 0)}"]  # fmt: skip
    for text, value in (
        ("Data Path Port", cluster.get("DataPathPort")),
        ("Task History Retention Limit", (spec.get("Orchestration") or {}).get("TaskHistoryRetentionLimit")),
        ("Snapshot Interval", (spec.get("Raft") or {}).get("SnapshotInterval")),
        ("Heartbeat Period", _time((spec.get("Dispatcher") or {}).get("HeartbeatPeriod"))),
        ("Certificate Expiry", _time((spec.get("CAConfig") or {}).get("NodeCertExpiry"))),
    ):
        if value:
            lines.append(f" {text}: {value}")
    locked = bool((spec.get("EncryptionConfig") or {}).get("AutoLockManagers"))
    return [*lines, f" Autolock Managers: {'true' if locked else 'false'}"]


def _time(nanoseconds: Any) -> str:
    return go_duration(int(nanoseconds)) if nanoseconds else ""
