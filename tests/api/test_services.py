"""Services, tasks and nodes over the real server."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import pytest

from swarmpy.model.objects import Service
from tests.api.conftest import SPEC, Rig
from tests.api.fakes import NO_LEADER


async def test_create_and_inspect_echo_what_was_sent(rig: Rig) -> None:
    key = await rig.create(Labels={"a": "b"}, Unknown={"kept": 1})
    status, shown = await rig.call("GET", f"/v1.41/services/{key}")
    assert status == 200
    assert shown["Spec"] == {
        "Name": "web",
        "Labels": {"a": "b"},
        "TaskTemplate": {
            "ContainerSpec": {"Image": "nginx:1.25", "DNSConfig": {}, "Isolation": "default"},
            "Resources": {"Limits": {}, "Reservations": {}},
            "ForceUpdate": 0,
            "Runtime": "container",
        },
        "Mode": {"Replicated": {"Replicas": 2}},
        "Unknown": {"kept": 1},
    }
    assert shown["Endpoint"] == {"Spec": {}}
    assert shown["CreatedAt"] == "2023-11-14T22:13:20.123456Z"


async def test_insert_defaults_only_when_asked(rig: Rig) -> None:
    await rig.create()
    _, shown = await rig.call("GET", "/services/web?insertDefaults=true")
    assert shown["Spec"]["UpdateConfig"] == {
        "Parallelism": 1,
        "FailureAction": "pause",
        "Monitor": 5_000_000_000,
        "MaxFailureRatio": 0,
        "Order": "stop-first",
    }
    _, plain = await rig.call("GET", "/services/web")
    assert "UpdateConfig" not in plain["Spec"]


async def test_status_is_counted_only_when_asked(rig: Rig) -> None:
    await rig.create()
    _, with_status = await rig.call("GET", "/v1.41/services?status=true")
    assert with_status[0]["ServiceStatus"] == {"RunningTasks": 2, "DesiredTasks": 2, "CompletedTasks": 0}
    _, without = await rig.call("GET", "/v1.41/services")
    assert "ServiceStatus" not in without[0]


async def test_update_scales_and_rolls_back(rig: Rig) -> None:
    key = await rig.create()
    _, shown = await rig.call("GET", f"/services/{key}")
    spec = {**shown["Spec"], "Mode": {"Replicated": {"Replicas": 3}}}
    path = f"/services/{key}/update?version={shown['Version']['Index']}"
    assert await rig.call("POST", path, spec) == (200, {"Warnings": None})
    status, refused = await rig.call("POST", path, spec)
    assert (status, refused["message"]) == (500, "rpc error: code = Unknown desc = update out of sequence")
    _, tasks = await rig.call("GET", '/tasks?filters={"service":["web"],"desired-state":["running"]}')
    assert [task["Slot"] for task in tasks] == [1, 2, 3]
    _, now = await rig.call("GET", f"/services/{key}")
    assert now["PreviousSpec"]["Mode"] == {"Replicated": {"Replicas": 2}}
    back = f"/services/{key}/update?version={now['Version']['Index']}&rollback=previous"
    assert (await rig.call("POST", back, now["Spec"]))[0] == 200
    _, after = await rig.call("GET", f"/services/{key}")
    assert after["Spec"] == now["PreviousSpec"]
    assert after["PreviousSpec"] == now["Spec"]


async def test_auth_is_kept_and_never_shown(rig: Rig) -> None:
    auth = base64.urlsafe_b64encode(b'{"username":"u","password":"hunter2"}').decode()
    await rig.call("POST", "/services/create", SPEC, headers={"X-Registry-Auth": auth})
    service = rig.control.current.service_named("web")
    assert isinstance(service, Service)
    assert service.auth == auth
    _, shown = await rig.call("GET", "/services/web")
    spec = {**shown["Spec"], "Labels": {"x": "y"}}
    await rig.call("POST", f"/services/web/update?version={shown['Version']['Index']}", spec)
    assert rig.control.current.services[service.id].auth == auth
    for path in ("/services", "/tasks", "/services/web"):
        _, body = await rig.call("GET", path)
        assert auth not in json.dumps(body)


async def test_request_id_reaches_the_command(rig: Rig) -> None:
    await rig.call("POST", "/services/create", SPEC, headers={"X-Swarmpy-Request-Id": "retry-1"})
    assert rig.control.commands[-1].request_id == "retry-1"


async def test_nameless_services_get_names(rig: Rig) -> None:
    key = await rig.create(Name="")
    assert "_" in rig.control.current.services[key].name


async def test_references(rig: Rig) -> None:
    key = await rig.create()
    for reference in (key, "web", "WEB", key[:20]):
        assert (await rig.call("GET", f"/services/{reference}"))[0] == 200, reference
    status, body = await rig.call("GET", "/nodes/node")
    assert (status, body["message"]) == (400, "node node is ambiguous (3 matches found)")
    status, body = await rig.call("GET", "/nodes/nope")
    assert (status, body["message"]) == (404, "node nope not found")


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ('{"name":{"we":true}}', ["web", "web2"]),
        ('{"name":["web2"]}', ["web2"]),
        ('{"name":["web2","db"]}', ["db", "web2"]),
        ('{"label":["tier=front"]}', ["web"]),
        ('{"label":["tier"]}', ["db", "web"]),
        ('{"mode":["global"]}', ["web2"]),
        ('{"runtime":["plugin"]}', []),
        ('{"name":["we"],"label":["tier=back"]}', []),
    ],
)
async def test_service_filters(rig: Rig, path: str, names: list[str]) -> None:
    await rig.create(Labels={"tier": "front"})
    await rig.create(Name="db", Labels={"tier": "back"})
    await rig.create(Name="web2", Mode={"Global": {}})
    _, found = await rig.call("GET", "/services", params={"filters": path})
    assert sorted(item["Spec"]["Name"] for item in found) == names


async def test_task_filters(rig: Rig) -> None:
    key = await rig.create(Labels={"tier": "front"})

    async def count(**wanted: Any) -> int:
        status, found = await rig.call("GET", "/tasks", params={"filters": json.dumps(wanted)})
        assert status == 200, found
        return len(found)

    assert await count() == 2
    assert await count(service=["web"]) == 2
    assert await count(service=[key], node=["host1"]) + await count(node=["host2"]) <= 2
    assert await count(label=["tier=front"]) == 2
    assert await count(name=["web.1"]) == 1
    assert await count(**{"_up-to-date": ["true"]}) == 2
    assert await count(**{"desired-state": ["shutdown"]}) == 0
    assert (await rig.call("GET", "/tasks", params={"filters": '{"service":["nope"]}'}))[0] == 404


async def test_task_shape(rig: Rig) -> None:
    await rig.create()
    _, tasks = await rig.call("GET", "/tasks")
    task = tasks[0]
    assert task["Status"]["State"] == "running"
    assert task["Status"]["ContainerStatus"] == {"ContainerID": "c" * 64, "PID": 42, "ExitCode": 0}
    assert task["Status"]["PortStatus"] == {}
    assert task["Spec"]["ContainerSpec"]["Image"] == "nginx:1.25"
    assert (await rig.call("GET", f"/tasks/{task['ID']}"))[1] == task


async def test_nodes(rig: Rig) -> None:
    _, nodes = await rig.call("GET", "/v1.41/nodes")
    assert nodes[0]["ManagerStatus"] == {"Leader": True, "Reachability": "reachable", "Addr": "10.0.0.1:2377"}
    assert "ManagerStatus" not in nodes[1]
    assert nodes[0]["Description"]["TLSInfo"]["TrustRoot"].startswith("-----BEGIN CERTIFICATE")
    for text, count in (
        ('{"role":["manager"]}', 1),
        ('{"node.label":["rack=r2"]}', 1),
        ('{"label":["disk"]}', 3),
        ('{"name":["host"]}', 3),
        ('{"membership":["pending"]}', 0),
    ):
        _, found = await rig.call("GET", "/nodes", params={"filters": text})
        assert len(found) == count, text


async def test_node_update_and_refusals(rig: Rig) -> None:
    _, node = await rig.call("GET", "/nodes/host2")
    path = f"/nodes/host2/update?version={node['Version']['Index']}"
    assert (await rig.call("POST", path, {**node["Spec"], "Availability": "drain"}))[0] == 200
    _, node = await rig.call("GET", "/nodes/host2")
    assert node["Spec"]["Availability"] == "drain"
    status, body = await rig.call("POST", path, {"Availability": "active"})
    assert (status, body["message"]) == (400, 'invalid Role: ""')
    status, body = await rig.call("DELETE", "/nodes/host2")
    assert status == 400
    assert "is not down and can't be removed" in body["message"]


async def test_remove(rig: Rig) -> None:
    await rig.create()
    assert await rig.call("DELETE", "/services/web") == (200, None)
    status, body = await rig.call("DELETE", "/services/web")
    assert (status, body["message"]) == (404, "service web not found")
    assert await rig.create()


async def test_no_quorum_is_unavailable(rig: Rig) -> None:
    rig.control.broken = NO_LEADER
    for method, path, body in (("GET", "/services", None), ("POST", "/services/create", SPEC)):
        status, said = await rig.call(method, path, body)
        assert (status, said["message"]) == (503, "The swarm does not have a leader.")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "text"),
    [
        ("POST", "/services/create", {}, 400, "mismatched Runtime and *Spec fields"),
        (
            "POST",
            "/services/create",
            {**SPEC, "Name": "a.b"},
            400,
            "rpc error: code = InvalidArgument desc = name must be valid as a DNS name component",
        ),
        (
            "POST",
            "/services/create",
            {"Name": 5},
            400,
            "invalid ServiceSpec: Expected `str`, got `int` - at `$.Name`",
        ),
        ("POST", "/services/nope/update?version=1", SPEC, 404, "service nope not found"),
        (
            "POST",
            "/services/x/update",
            SPEC,
            400,
            "invalid service version '': strconv.ParseUint: parsing \"\": invalid syntax",
        ),
        ("POST", "/services/x/update?version=NaN", SPEC, 400, "invalid service version 'NaN'"),
        ("GET", '/services?filters={"nope":["x"]}', None, 400, "Invalid filter 'nope'"),
        ("GET", '/tasks?filters={"desired-state":["x"]}', None, 500, "Invalid desired-state filter: 'x'"),
        ("GET", "/services?filters=[", None, 400, "invalid filter"),
        (
            "GET",
            "/v1.50/services",
            None,
            400,
            "client version 1.50 is too new. Maximum supported API version is 1.41",
        ),
        (
            "GET",
            "/v1.10/services",
            None,
            400,
            "client version 1.10 is too old. Minimum supported API version is 1.12",
        ),
        ("POST", "/secrets/create", {"Name": "x"}, 501, "secrets are not supported"),
        ("POST", "/configs/create", {"Name": "x"}, 501, "configs are not supported"),
        ("GET", "/secrets/x", None, 404, "secret x not found"),
        ("POST", "/swarm/init", {"ListenAddr": "0.0.0.0:2377"}, 503, "This node is already part of a swarm."),
        ("POST", "/swarm/leave", None, 503, "Removing the last manager erases all current state"),
        ("POST", "/swarm/unlock", {"UnlockKey": "x"}, 409, "swarm is not locked"),
        (
            "POST",
            "/swarm/update?version=1&rotateWorkerToken=maybe",
            {},
            400,
            "invalid value for rotateWorkerToken",
        ),
        ("GET", "/services/web/logs", None, 400, "you must choose at least one stream"),
        ("GET", "/swarm/nope", None, 404, "page not found"),
        ("GET", "/events?since=yesterday", None, 400, "invalid value for since"),
        ("GET", "/swarmpy/v1/explain", None, 400, "the parameter ref is missing"),
    ],
)
async def test_refusals(rig: Rig, method: str, path: str, body: object, status: int, text: str) -> None:
    found, said = await rig.call(method, path, body)
    assert (found, text in said["message"]) == (status, True), said


async def test_bad_bodies(rig: Rig) -> None:
    for data, text in (
        (b"{", "invalid JSON"),
        (b"[]", "must be an object"),
        (b'{"a": NaN}', "NaN"),
        (b"\xff", "invalid JSON"),
        (b'{"Name": "\\ud800"}', "surrogate"),
        (b'{"x": 99999999999999999999999}', "64 bits"),
        (b"[" * 100_000, "nested too deeply"),
    ):
        headers = {"Content-Type": "application/json"}
        status, said = await rig.call("POST", "/services/create", data=data, headers=headers)
        assert (status, text in said["message"]) == (400, True), said
    status, said = await rig.call(
        "POST", "/services/create", data=b"{}", headers={"Content-Type": "text/plain"}
    )
    assert (status, said["message"]) == (
        400,
        "unsupported Content-Type header (text/plain): must be 'application/json'",
    )
    big = b'{"Name": "' + b"x" * 3_000_000 + b'"}'
    status, said = await rig.call(
        "POST", "/services/create", data=io.BytesIO(big), headers={"Content-Type": "application/json"}
    )
    assert (status, "too large" in said["message"]) == (413, True)
    status, said = await rig.call("POST", "/services/create", SPEC, headers={"X-Registry-Auth": "!!"})
    assert (status, "X-Registry-Auth" in said["message"]) == (400, True)
