"""The memory of the fake swarm daemon: nodes, services and tasks with consistent versions and names.

What does not belong here: HTTP (`fake_swarm_daemon`).
"""

from __future__ import annotations

import copy
import json
from typing import Any

NODE_M = "m1aaaaaaaaaaaaaaaaaaaaaaa"
NODE_W = "w1bbbbbbbbbbbbbbbbbbbbbbb"
NODE_X = "w10cccccccccccccccccccccc"
NET_A = "na9aaaaaaaaaaaaaaaaaaaaaa"
NET_B = "nb10bbbbbbbbbbbbbbbbbbbbb"
NET_I = "ningresscccccccccccccccccc"[:25]
DIGEST = "sha256:" + "ab" * 32
STATES = ("new", "pending", "assigned", "accepted", "preparing", "ready", "starting", "running")
INACTIVE = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" '
    "to connect this node to swarm and try again."
)
STAMP = "2026-01-02T03:04:05.123456789Z"


def network(network_id: str, name: str, **more: Any) -> dict[str, Any]:
    """A network as the daemon lists it; fields in Docker's order."""
    found: dict[str, Any] = {
        "Name": name,
        "Id": network_id,
        "Created": STAMP,
        "Scope": "swarm",
        "Driver": "overlay",
        "EnableIPv4": True,
        "EnableIPv6": False,
        "IPAM": {"Driver": "default", "Options": None,
                 "Config": [{"Subnet": "10.0.1.0/24", "Gateway": "10.0.1.1"}]},
        "Internal": False,
        "Attachable": False,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {},
        "Options": {"com.docker.network.driver.overlay.vxlanid_list": "4097"},
        "Labels": None,
    }  # fmt: skip
    return {**found, **more}


class Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def node(node_id: str, hostname: str, role: str, state: str = "ready") -> dict[str, Any]:
    found: dict[str, Any] = {
        "ID": node_id,
        "Version": {"Index": 7},
        "CreatedAt": STAMP,
        "UpdatedAt": STAMP,
        "Spec": {"Labels": {}, "Role": role, "Availability": "active"},
        "Description": {
            "Hostname": hostname,
            "Platform": {"Architecture": "x86_64", "OS": "linux"},
            "Resources": {"NanoCPUs": 4000000000, "MemoryBytes": 8346071040},
            "Engine": {
                "EngineVersion": "20.10.24",
                "Labels": {"disk": "ssd"},
                "Plugins": [{"Type": "Volume", "Name": "local"}, {"Type": "Log", "Name": "json-file"}],
            },
            "TLSInfo": {"TrustRoot": "ROOT\n", "CertIssuerSubject": "c3Vi", "CertIssuerPublicKey": "a2V5"},
        },
        "Status": {"State": state, "Addr": "10.0.0.1"},
    }
    if role == "manager":
        found["ManagerStatus"] = {"Leader": True, "Reachability": "reachable", "Addr": "10.0.0.1:2377"}
    return found


class Cluster:
    """The daemon's memory."""

    def __init__(self) -> None:
        self.active = True
        self.index = 100
        self.requests: list[dict[str, Any]] = []
        self.services: dict[str, dict[str, Any]] = {}
        self.tasks: dict[str, dict[str, Any]] = {}
        self.nodes = {one["ID"]: one for one in (
            node(NODE_X, "node10", "worker", "down"), node(NODE_M, "node1", "manager"),
            node(NODE_W, "node2", "worker"))}  # fmt: skip
        self.networks = {one["Id"]: one for one in (
            network(NET_B, "back10", Labels={"a": "1"}, Attachable=True, Internal=True),
            network(NET_A, "back9", EnableIPv6=True), network(NET_I, "ingress", Ingress=True),
            network("7f" * 32, "bridge", Scope="local", Driver="bridge",
                    Created="2026-01-02T04:04:05.5+01:00"))}  # fmt: skip
        self.tokens = {"Worker": "SWMTKN-1-aaa-worker", "Manager": "SWMTKN-1-aaa-manager"}
        self.swarm_spec: dict[str, Any] = {"Name": "default", "Labels": {}, "Orchestration": {}}
        self.pools = ["10.0.0.0/8"]
        self.registry: dict[str, Any] = {}
        self.logs: list[tuple[int, bytes]] = []
        self.network_warning = ""
        self.pruned: list[str] | None = None
        self.stuck = False
        self.task_error = ""
        self.role_after_join = "worker"

    def next(self) -> int:
        self.index += 1
        return self.index

    # ------------------------------------------------------------ services

    def service(self, reference: str) -> dict[str, Any]:
        for one in self.services.values():
            if reference in (one["ID"], one["Spec"]["Name"]):
                return one
        found = [one for one in self.services.values() if one["ID"].startswith(reference)]
        if len(found) == 1:
            return found[0]
        raise Refused(404, f"service {reference} not found")

    def create(self, spec: dict[str, Any]) -> dict[str, Any]:
        spec.setdefault("Name", "")
        if any(one["Spec"]["Name"].lower() == spec["Name"].lower() for one in self.services.values()):
            raise Refused(409, "rpc error: code = AlreadyExists desc = name conflicts with an existing object: "
                               f"service {spec['Name']} already exists")  # fmt: skip
        index = self.next()
        service_id = f"s{index:024d}"
        spec["Name"] = spec["Name"] or f"generated_{index}"
        self.services[service_id] = {
            "ID": service_id, "Version": {"Index": index}, "CreatedAt": STAMP, "UpdatedAt": STAMP,
            "Spec": spec, "Endpoint": {"Spec": {}, "Ports": (spec.get("EndpointSpec") or {}).get("Ports") or []},
        }  # fmt: skip
        self.reconcile(service_id)
        return {"ID": service_id}

    def update(self, service_id: str, spec: dict[str, Any], query: dict[str, str]) -> dict[str, Any]:
        service = self.service(service_id)
        if query.get("version") != str(service["Version"]["Index"]):
            raise Refused(500, "rpc error: code = Unknown desc = update out of sequence")
        if query.get("rollback") == "previous":
            if "PreviousSpec" not in service:
                raise Refused(
                    400, "rpc error: code = FailedPrecondition desc = service does not have a previous spec"
                )
            spec = service["PreviousSpec"]
        service["PreviousSpec"], service["Spec"] = service["Spec"], spec
        service["Version"] = {"Index": self.next()}
        self.reconcile(service["ID"])
        return {"Warnings": None}

    def reconcile(self, service_id: str) -> None:
        service = self.services[service_id]
        mode = service["Spec"].get("Mode") or {}
        places: list[tuple[int, str]]
        if "Global" in mode:
            places = [(0, NODE_M), (0, NODE_W)]
        else:
            replicas = (mode.get("Replicated") or {}).get("Replicas", 1)
            places = [(slot, NODE_M if slot % 2 else NODE_W) for slot in range(1, replicas + 1)]
        wanted = {(slot or node_id) for slot, node_id in places}
        mine = {
            (one["Slot"] or one["NodeID"]): one
            for one in self.tasks.values()
            if one["ServiceID"] == service_id
        }
        for key, one in mine.items():
            if key not in wanted:
                del self.tasks[one["ID"]]
        for slot, node_id in places:
            if (slot or node_id) not in mine:
                self.add_task(service, slot, node_id)

    def add_task(self, service: dict[str, Any], slot: int, node_id: str, **more: Any) -> dict[str, Any]:
        index = self.next()
        task = {
            "ID": f"t{index:024d}", "Version": {"Index": index}, "CreatedAt": f"2026-01-02T03:04:05.{index:09d}Z",
            "UpdatedAt": STAMP, "Spec": copy.deepcopy(service["Spec"]["TaskTemplate"]),
            "ServiceID": service["ID"], "Slot": slot, "NodeID": node_id, "DesiredState": "running",
            "Status": {"Timestamp": STAMP, "State": "new", "PortStatus": {}},
        }  # fmt: skip
        task.update(more)
        self.tasks[task["ID"]] = task
        return task

    def advance(self) -> None:
        for task in self.tasks.values():
            state = task["Status"]["State"]
            if state in STATES[:-1] and not self.stuck:
                task["Status"]["State"] = STATES[min(STATES.index(state) + 3, len(STATES) - 1)]
            if self.task_error:
                task["Status"]["Err"] = self.task_error

    def counts(self, service_id: str) -> dict[str, int]:
        mine = [one for one in self.tasks.values() if one["ServiceID"] == service_id]
        running = sum(one["Status"]["State"] == "running" for one in mine)
        return {
            "RunningTasks": running,
            "DesiredTasks": sum(one["DesiredState"] == "running" for one in mine),
        }

    # ------------------------------------------------------------ networks

    def network(self, reference: str) -> dict[str, Any]:
        for one in self.networks.values():
            if reference in (one["Id"], one["Name"]):
                return one
        raise Refused(404, f"network {reference} not found")

    def remove_network(self, reference: str) -> None:
        found = self.network(reference)
        for service in self.services.values():
            if any(
                one["Target"] == found["Id"] for one in service["Spec"]["TaskTemplate"].get("Networks") or []
            ):
                raise Refused(400, f"rpc error: code = FailedPrecondition desc = network {found['Id']} is in use by "
                                   f"service {service['ID']}")  # fmt: skip
        del self.networks[found["Id"]]

    # ------------------------------------------------------------ nodes and the cluster

    def node(self, reference: str) -> dict[str, Any]:
        for one in self.nodes.values():
            if reference in (one["ID"], one["Description"]["Hostname"]):
                return one
        raise Refused(404, f"node {reference} not found")

    def info(self) -> dict[str, Any]:
        if not self.active:
            return {"Swarm": {"NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": False,
                              "Error": "", "RemoteManagers": None}}  # fmt: skip
        return {"Swarm": {
            "NodeID": NODE_M, "NodeAddr": "10.0.0.1", "LocalNodeState": "active", "ControlAvailable": True,
            "Error": "", "RemoteManagers": [{"NodeID": NODE_M, "Addr": "10.0.0.1:2377"}], "Nodes": 3, "Managers": 1,
            "Cluster": {"ID": "c1", "TLSInfo": {"TrustRoot": "ROOT\n", "CertIssuerSubject": "c3Vi",
                                                "CertIssuerPublicKey": "a2V5"}}}}  # fmt: skip

    def swarm(self) -> dict[str, Any]:
        return {
            "ID": "c1",
            "Version": {"Index": self.index},
            "Spec": self.swarm_spec,
            "DefaultAddrPool": self.pools,
            "JoinTokens": self.tokens,
        }


def matching(items: list[dict[str, Any]], query: dict[str, str]) -> list[dict[str, Any]]:
    wanted = json.loads(query.get("filters") or "{}")
    for key, table in wanted.items():
        values = list(table)
        if key == "id":
            items = [one for one in items if any(one["ID"].startswith(value) for value in values)]
        elif key == "name":
            items = [one for one in items if any(one["Spec"]["Name"].startswith(value) for value in values)]
        elif key in ("service", "node"):
            field = {"service": "ServiceID", "node": "NodeID"}[key]
            items = [one for one in items if one[field] in values]
        elif key == "desired-state":
            items = [one for one in items if one["DesiredState"] in values]
        elif key not in ("_up-to-date", "role", "mode", "label"):
            raise Refused(400, f"invalid filter '{key}'")
    return items
