"""Objects as Docker's JSON: names, times and omissions as its clients expect them.

Specs go out as they were stored; `msgspec.Raw` embeds their text without parsing it. What does not belong
here: choosing what to show (the nouns' files), stored defaults (there are none: see `with_defaults`).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from swarmpy.model.lifecycle import TaskState
from swarmpy.model.objects import Cluster, Node, Resource, Service, Task
from swarmpy.model.specs import SECOND, Port
from swarmpy.ports import ManagersView
from swarmpy.state.snapshot import Snapshot

Json = dict[str, Any]

_NEVER = "0001-01-01T00:00:00Z"


def respond(value: Any, status: int = 200) -> web.Response:
    """A JSON answer, with the line end that Docker writes."""
    return web.Response(
        status=status, body=msgspec.json.encode(value) + b"\n", content_type="application/json"
    )


@lru_cache(maxsize=4096)
def instant(nanoseconds: int) -> str:
    """RFC3339Nano in UTC, as Go prints it: no trailing zeros; 0 is Go's zero time."""
    if not nanoseconds:
        return _NEVER
    seconds, fraction = divmod(nanoseconds, SECOND)
    digits = f".{fraction:09d}".rstrip("0") if fraction else ""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}{digits}Z"


def _head(item: Cluster | Node | Service | Task) -> Json:
    return {
        "ID": item.id,
        "Version": {"Index": item.version},
        "CreatedAt": instant(item.created_at),
        "UpdatedAt": instant(item.updated_at),
    }


def _raw(text: str) -> msgspec.Raw:
    return msgspec.Raw((text or "{}").encode())


# ---------------------------------------------------------------- services


def service(item: Service, *, defaults: bool = False, status: Json | None = None) -> Json:
    """A service; `defaults` fills in what GET ?insertDefaults=true shows."""
    shown = _head(item)
    shown["Spec"] = with_defaults(json.loads(item.spec)) if defaults else _raw(item.spec)
    if item.previous_spec:
        shown["PreviousSpec"] = _raw(item.previous_spec)
    shown["Endpoint"] = _endpoint(item)
    if item.update is not None:
        update: Json = {"State": item.update.state}
        if item.update.started_at:
            update["StartedAt"] = instant(item.update.started_at)
        if item.update.completed_at:
            update["CompletedAt"] = instant(item.update.completed_at)
        shown["UpdateStatus"] = {**update, "Message": item.update.message}
    if status is not None:
        shown["ServiceStatus"] = status
    return shown


def _endpoint(item: Service) -> Json:
    """What was asked (`Spec`), and what is: chosen ports and virtual addresses."""
    endpoint = item.view.endpoint_spec
    if not item.vips and (endpoint is None or not endpoint.ports):
        return {"Spec": {}}
    shown: Json = {"Spec": {"Mode": endpoint.mode if endpoint is not None else "vip"}}
    if endpoint is not None and endpoint.ports:
        shown["Spec"]["Ports"] = [_port(port) for port in endpoint.ports]
        shown["Ports"] = [_port(port) for port in item.ports]
    if item.vips:
        shown["VirtualIPs"] = [{"NetworkID": vip.network_id, "Addr": vip.address} for vip in item.vips]
    return shown


def _port(port: Port) -> Json:
    shown: Json = {"Name": port.name} if port.name else {}
    shown |= {"Protocol": port.protocol, "TargetPort": port.target_port}
    if port.published_port:
        shown["PublishedPort"] = port.published_port
    beyond = {"HostIP": port.host_ip, "Source": port.source}
    return {**shown, "PublishMode": port.publish_mode, **{key: said for key, said in beyond.items() if said}}


def service_status(world: Snapshot, item: Service) -> Json:
    """RunningTasks, DesiredTasks and CompletedTasks of `service ls`.

    A task whose node is lost keeps its last state but is no longer wanted: it does not count as running.
    """
    tasks = world.tasks_of(item.id)
    wanted = sum(task.desired == TaskState.RUNNING for task in tasks)
    return {
        "RunningTasks": sum(
            task.status.state == TaskState.RUNNING and task.desired == TaskState.RUNNING for task in tasks
        ),
        "DesiredTasks": wanted if item.view.is_global else item.view.replicas,
        "CompletedTasks": 0,
    }


def with_defaults(spec: Json) -> Json:
    """The spec with the values that hold where it says nothing, as Docker fills them in."""
    task = spec.setdefault("TaskTemplate", {})
    container = task.get("ContainerSpec")
    if container is not None:
        container.setdefault("StopGracePeriod", 10 * SECOND)
        container.setdefault("DNSConfig", {})
    task.setdefault("Resources", {})
    restart = task.setdefault("RestartPolicy", {"Condition": "any", "Delay": 5 * SECOND, "MaxAttempts": 0})
    restart.setdefault("Condition", "any")
    restart.setdefault("Delay", 5 * SECOND)
    restart.setdefault("MaxAttempts", 0)
    task.setdefault("Placement", {})
    for key in ("UpdateConfig", "RollbackConfig"):
        config = spec.setdefault(key, {"Parallelism": 1})
        config.setdefault("Parallelism", 0)
        config.setdefault("FailureAction", "pause")
        config["Monitor"] = config.get("Monitor") or 5 * SECOND
        config.setdefault("MaxFailureRatio", 0)
        config.setdefault("Order", "stop-first")
    spec.setdefault("EndpointSpec", {}).setdefault("Mode", "vip")
    return spec


# ---------------------------------------------------------------- tasks


def task(item: Task) -> Json:
    """A task."""
    shown = _head(item)
    shown["Labels"] = item.labels
    shown["Spec"] = _raw(item.template)
    shown["ServiceID"] = item.service_id
    if item.slot:
        shown["Slot"] = item.slot
    if item.node_id:
        shown["NodeID"] = item.node_id
    status = item.status
    seen: Json = {"Timestamp": instant(status.at), "State": status.state.word, "Message": status.message}
    if status.err:
        seen["Err"] = status.err
    if status.container_id:
        seen["ContainerStatus"] = {
            "ContainerID": status.container_id,
            "PID": status.pid,
            "ExitCode": status.exit_code,
        }
    ports = [
        {
            "Protocol": port.protocol,
            "TargetPort": port.target,
            "PublishedPort": port.published,
            "PublishMode": "host",
        }
        for port in status.ports
    ]
    seen["PortStatus"] = {"Ports": ports} if ports else {}
    shown["Status"] = seen
    shown["DesiredState"] = item.desired.word
    return shown


# ---------------------------------------------------------------- nodes


@lru_cache(maxsize=1024)
def _parsed(spec: str) -> Mapping[str, Any]:
    """A stored spec; shared, so not to be changed."""
    parsed: Json = json.loads(spec or "{}")
    return parsed


def node(item: Node, cluster: Cluster | None, managers: ManagersView) -> Json:
    """A node. Its manager status is there while it has a seat in the raft group."""
    shown = _head(item)
    view = item.view
    shown["Spec"] = {"Labels": {}, **_parsed(item.spec), "Role": view.role, "Availability": view.availability}
    shown["Description"] = _description(item, cluster)
    status: Json = {"State": item.status.state.word}
    if item.status.message or item.description.trouble:
        status["Message"] = item.status.message or item.description.trouble
    shown["Status"] = {**status, "Addr": item.status.address}
    if item.manager_address:
        leads = item.id == managers.leader
        reachable = leads or item.id in managers.reachable
        seat: Json = {"Leader": True} if leads else {}
        seat["Reachability"] = "reachable" if reachable else "unreachable"
        shown["ManagerStatus"] = {**seat, "Addr": item.manager_address}
    return shown


def _description(item: Node, cluster: Cluster | None) -> Json:
    said = item.description
    resources: Json = {"NanoCPUs": said.nano_cpus, "MemoryBytes": said.memory_bytes}
    generic = [part for resource in said.generic for part in _generic(resource)]
    if generic:
        resources["GenericResources"] = generic
    engine: Json = {"EngineVersion": said.engine_version}
    if said.engine_labels:
        engine["Labels"] = said.engine_labels
    engine["Plugins"] = [{"Type": kind, "Name": name} for kind, name in said.plugins]
    return {
        "Hostname": said.hostname,
        "Platform": {"Architecture": said.architecture, "OS": said.os},
        "Resources": resources,
        "Engine": engine,
        "TLSInfo": tls_info(cluster.root_cert) if cluster is not None and item.certificate else {},
    }


def _generic(resource: Resource) -> list[Json]:
    if resource.names:
        return [{"NamedResourceSpec": {"Kind": resource.kind, "Value": name}} for name in resource.names]
    return [{"DiscreteResourceSpec": {"Kind": resource.kind, "Value": resource.value}}]


# ---------------------------------------------------------------- the cluster


def cluster(item: Cluster) -> Json:
    """The cluster without its tokens and keys: what /info shows."""
    shown = _head(item)
    shown["Spec"] = _swarm_spec(json.loads(item.spec or "{}"))
    shown["TLSInfo"] = tls_info(item.root_cert)
    shown["RootRotationInProgress"] = False
    shown["DefaultAddrPool"] = list(item.address_pools)
    shown["SubnetSize"] = item.subnet_size
    shown["DataPathPort"] = item.data_path_port
    return shown


def cluster_with_tokens(item: Cluster) -> Json:
    """The cluster as GET /swarm shows it to whoever may use a manager's socket."""
    tokens = {"Worker": item.worker_token, "Manager": item.manager_token}
    return {**cluster(item), "JoinTokens": tokens}


_SWARM_DEFAULTS: Json = {
    "Name": "default",
    "Labels": {},
    "Orchestration": {"TaskHistoryRetentionLimit": 5},
    "Raft": {
        "SnapshotInterval": 10000,
        "KeepOldSnapshots": 0,
        "LogEntriesForSlowFollowers": 500,
        "ElectionTick": 10,
        "HeartbeatTick": 1,
    },
    "Dispatcher": {"HeartbeatPeriod": 5 * SECOND},
    "CAConfig": {"NodeCertExpiry": 90 * 24 * 3600 * SECOND},
    "TaskDefaults": {},
    "EncryptionConfig": {"AutoLockManagers": False},
}
_SECRET_PARTS = ("SigningCACert", "SigningCAKey")


def _swarm_spec(spec: Json) -> Json:
    """The spec with Docker's defaults where it says nothing; Docker takes 0 for nothing here."""
    shown: Json = dict(spec)
    for key, default in _SWARM_DEFAULTS.items():
        given = spec.get(key)
        if isinstance(default, Mapping) and isinstance(given, Mapping):
            parts = {name: given.get(name) for name in default}
            kept = {name: item for name, item in given.items() if name not in _SECRET_PARTS}
            filled = {
                name: default[name] if part is None or (part == 0 and name in _ZERO_IS_UNSET) else part
                for name, part in parts.items()
            }
            shown[key] = {**kept, **filled}
        else:
            shown[key] = given or default
    return shown


_ZERO_IS_UNSET = frozenset(
    {"SnapshotInterval", "LogEntriesForSlowFollowers", "ElectionTick", "HeartbeatTick", "HeartbeatPeriod",
     "NodeCertExpiry"}
)  # fmt: skip


@lru_cache(maxsize=16)
def _tls_info(root_cert: str) -> tuple[tuple[str, str], ...]:
    try:
        certificate = x509.load_pem_x509_certificate(root_cert.encode())
    except ValueError:
        return (("TrustRoot", root_cert),)
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return (
        ("TrustRoot", root_cert),
        ("CertIssuerSubject", base64.b64encode(certificate.subject.public_bytes()).decode()),
        ("CertIssuerPublicKey", base64.b64encode(key).decode()),
    )


def tls_info(root_cert: str) -> Json:
    """TrustRoot, CertIssuerSubject and CertIssuerPublicKey (base 64 of DER) of the cluster's CA."""
    return dict(_tls_info(root_cert)) if root_cert else {}
