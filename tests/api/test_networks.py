"""Networks over the API: the cluster's beside the Engine's, and what is said on nodes of every kind."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import quote, unquote

import pytest
from msgspec.structs import replace

from swarmpy.api.networks import LABEL
from swarmpy.model.lifecycle import TaskState
from swarmpy.model.objects import Network, Task
from swarmpy.model.specs import VNI_OPTION
from swarmpy.state.changes import Delete, Put
from tests.api.conftest import Rig
from tests.api.fakes import NO_LEADER

HEX = "ab" * 32


def local(name: str, key: str = HEX, **labels: str) -> dict[str, Any]:
    """A network as the Engine shows it."""
    return {"Name": name, "Id": key, "Scope": "local", "Driver": "bridge", "Labels": labels, "Containers": {},
            "IPAM": {"Driver": "default", "Config": []}, "Options": {}}  # fmt: skip


async def create(rig: Rig, name: str = "back", **parts: Any) -> str:
    status, said = await rig.call("POST", "/networks/create", {"Name": name, "Driver": "overlay", **parts})
    assert status == 201, said
    return str(said["Id"])


def the(rig: Rig, name: str) -> Network:
    found = rig.control.current.network_named(name)
    assert found is not None
    return found


async def listed(rig: Rig, **asked: list[str]) -> list[str]:
    status, found = await rig.call("GET", f"/networks?filters={quote(json.dumps(asked))}")
    assert status == 200, found
    return sorted(one["Name"] for one in found)


async def refusal(rig: Rig, method: str, path: str, body: object = None) -> tuple[int, str]:
    status, said = await rig.call(method, path, body)
    return status, said["message"]


async def test_create_and_what_it_looks_like(rig: Rig) -> None:
    status, said = await rig.call("POST", "/v1.41/networks/create", {
        "Name": "back", "Driver": "overlay", "Internal": True, "EnableIPv6": True, "CheckDuplicate": True,
        "Labels": {"a": "b"}, "Options": {"com.docker.network.driver.mtu": "1400"},
        "IPAM": {"Driver": "default", "Config": [
            {"Subnet": "10.9.0.0/24", "IPRange": "10.9.0.128/25", "AuxiliaryAddresses": {"r": "10.9.0.9"}}]},
    })  # fmt: skip
    key = said["Id"]
    assert (status, said) == (201, {"Id": key, "Warning": ""})
    status, shown = await rig.call("GET", "/v1.41/networks/back")
    created, sixth = shown.pop("Created"), shown["IPAM"]["Config"].pop()
    assert created.endswith("Z")
    assert sixth["Subnet"].startswith("fd")
    assert (status, shown) == (200, {
        "Name": "back", "Id": key, "Scope": "swarm", "Driver": "overlay", "EnableIPv4": True,
        "EnableIPv6": True, "Internal": True, "Attachable": False, "Ingress": False,
        "IPAM": {"Driver": "default", "Options": None, "Config": [
            {"Subnet": "10.9.0.0/24", "Gateway": "10.9.0.1", "IPRange": "10.9.0.128/25",
             "AuxiliaryAddresses": {"r": "10.9.0.9"}}]},
        "ConfigFrom": {"Network": ""}, "ConfigOnly": False, "Containers": {}, "Labels": {"a": "b"},
        "Options": {VNI_OPTION: "4097", "com.docker.network.driver.mtu": "1400"}, "Peers": [],
    })  # fmt: skip


async def test_scope_swarm_is_ours_without_a_driver(rig: Rig) -> None:
    status, said = await rig.call("POST", "/networks/create", {"Name": "x", "Scope": "swarm"})
    assert (status, the(rig, "x").id) == (201, said["Id"])
    status, text = await refusal(
        rig, "POST", "/networks/create", {"Name": "y", "Scope": "swarm", "Driver": "macvlan"}
    )
    assert (status, "use --driver overlay, or --scope local" in text) == (501, True)


async def test_warnings_of_what_has_no_effect(rig: Rig) -> None:
    body = {"Name": "x", "Driver": "overlay", "Options": {"odd": "1"}}
    _, said = await rig.call("POST", "/networks/create", body)
    assert "does not know the option odd" in said["Warning"]


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"Name": "back"}, 409, "network with name back already exists"),
        ({"Name": "BACK"}, 409, "rpc error: code = AlreadyExists desc = network with name BACK already exists"),
        ({"Name": "host"}, 403, "operation is not permitted on predefined host network"),
        ({"Name": "bridge"}, 403, "operation is not permitted on predefined bridge network"),
        ({"Name": ""}, 400, "rpc error: code = InvalidArgument desc = meta: name must be provided"),
        ({"Name": "a.b"}, 400,
         "rpc error: code = InvalidArgument desc = name must be valid as a DNS name component"),
        ({"Name": 5}, 400, "Expected `str`, got `int` - at `$.Name`"),
        ({"Name": "x", "Ingress": True}, 409, "is already present: remove it first"),
        ({"Name": "x", "ConfigOnly": True}, 501, "config-only networks are for drivers of a single node"),
        ({"Name": "x", "IPAM": {"Config": [{"Subnet": "10.0.0.0/24"}]}}, 400,
         "subnet 10.0.0.0/24 overlaps 10.0.0.0/24, which is in use"),
        ({"Name": "web"}, 409, "network with name web already exists"),
    ],
)  # fmt: skip
async def test_refused(rig: Rig, body: dict[str, Any], status: int, text: str) -> None:
    await create(rig)
    rig.engine.networks["web"] = local("web")  # the Engine's own: the name is taken on this node
    before = rig.control.current
    got, said = await refusal(rig, "POST", "/networks/create", {"Driver": "overlay", **body})
    assert got == status
    assert text in said
    assert rig.control.current is before


async def test_one_space_of_names(rig: Rig) -> None:
    await create(rig)
    status, text = await refusal(rig, "POST", "/networks/create", {"Name": "back", "Driver": "bridge"})
    assert (status, text) == (409, "network with name back already exists")
    assert not any("/networks/create" in head for head in rig.engine.heads)


async def leaving(rig: Rig) -> Task:
    """A task on network back whose service is gone, and which has not stopped yet."""
    await create(rig)
    on = {"ContainerSpec": {"Image": "x"}, "Networks": [{"Target": "back"}]}
    service = await rig.create(TaskTemplate=on, Mode={"Replicated": {"Replicas": 1}})
    [task] = rig.control.current.tasks_of(service)
    stopping = replace(task, desired=TaskState.REMOVE)
    rig.control.evolve([Delete("service", service, "test"), Put(stopping)])
    return stopping


async def test_removal_waits_for_tasks_that_are_stopping(rig: Rig) -> None:
    """`docker stack rm` removes the services and, in the same breath, their networks."""
    task = await leaving(rig)
    removal = asyncio.ensure_future(rig.call("DELETE", "/networks/back"))
    await asyncio.sleep(0.1)
    assert not removal.done()
    status = replace(task.status, state=TaskState.SHUTDOWN)
    rig.control.evolve([Put(replace(task, status=status))])
    assert await asyncio.wait_for(removal, 5) == (204, None)
    assert rig.control.current.network_named("back") is None


async def test_removal_does_not_wait_for_ever(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swarmpy.api.networks.LEAVING_SECONDS", 0.2)
    task = await leaving(rig)
    status, said = await refusal(rig, "DELETE", "/networks/back")
    assert (status, said.endswith(f"is in use by task {task.id}")) == (400, True)


async def test_removal(rig: Rig) -> None:
    key = await create(rig)
    service = await rig.create(
        TaskTemplate={"ContainerSpec": {"Image": "x"}, "Networks": [{"Target": "back"}]}
    )
    assert await refusal(rig, "DELETE", "/networks/back") == (
        400, f"rpc error: code = FailedPrecondition desc = network {key} is in use by service {service}",
    )  # fmt: skip
    assert (await rig.call("DELETE", f"/services/{service}"))[0] == 200
    assert await rig.call("DELETE", "/v1.41/networks/back") == (204, None)
    assert await refusal(rig, "DELETE", "/networks/back") == (404, "network back not found")
    assert await refusal(rig, "GET", f"/networks/{key}") == (404, f"network {key} not found")


async def test_the_mesh_stays_while_a_service_needs_it(rig: Rig) -> None:
    service = await rig.create(EndpointSpec={"Ports": [{"TargetPort": 80}]})
    ingress = the(rig, "ingress").id
    assert await refusal(rig, "DELETE", "/networks/ingress") == (
        400, f"rpc error: code = FailedPrecondition desc = ingress network {ingress} cannot be removed because "
        f"service {service} depends on it",
    )  # fmt: skip
    await rig.call("DELETE", f"/services/{service}")
    assert (await rig.call("DELETE", "/networks/ingress"))[0] == 204
    status, text = await refusal(rig, "POST", "/services/create", {
        "Name": "b", "TaskTemplate": {"ContainerSpec": {"Image": "x"}}, "EndpointSpec": {"Ports": [{"TargetPort": 80}]},
    })  # fmt: skip
    assert (status, "no ingress network is present" in text) == (400, True)


async def test_names_ids_and_prefixes(rig: Rig) -> None:
    key = await create(rig, "back")
    await create(rig, key[:5])  # a name that is the beginning of another's id
    for reference, found in (
        ("back", "back"), ("BACK", "back"), (key, "back"), (key[:7], "back"), (key[:5], key[:5]),
    ):  # fmt: skip
        for query in ("", "?scope=swarm"):
            status, shown = await rig.call("GET", f"/networks/{reference}{query}")
            assert (status, shown["Name"]) == (200, found)


async def test_scopes(rig: Rig) -> None:
    await create(rig)
    rig.engine.networks["web"] = local("web")
    assert (await rig.call("GET", "/networks/web"))[1]["Id"] == HEX
    assert await refusal(rig, "GET", "/networks/web?scope=swarm") == (404, "network web not found")
    assert (await rig.call("GET", "/networks/web?scope=local"))[0] == 200
    assert await refusal(rig, "GET", "/networks/back?scope=local") == (404, "network back not found")
    rig.engine.networks["back"] = local("back", "cd" * 32, **{LABEL: the(rig, "back").id})
    assert await refusal(rig, "GET", "/networks/back?scope=local") == (404, "network back not found")


# ------------------------------------------------------------ ours and the Engine's


async def test_counterparts_are_seen_as_the_clusters(rig: Rig) -> None:
    key = await create(rig, Labels={"a": "b"})
    below = local("back", HEX, **{LABEL: key})
    below["Containers"] = {"c1": {"Name": "web.1.x"}}
    rig.engine.networks = {"back": below, "bridge": local("bridge", "cd" * 32)}
    assert await listed(rig) == ["back", "bridge", "ingress"]
    for reference in ("back", key, HEX):  # also by the Engine's own id, as containers show it
        status, shown = await rig.call("GET", f"/networks/{reference}")
        assert (status, shown["Id"], shown["Scope"]) == (200, key, "swarm")
        assert (shown["Labels"], shown["Containers"]) == ({"a": "b"}, below["Containers"])
    assert (await rig.call("DELETE", f"/networks/{HEX}"))[0] == 204
    assert rig.control.current.network_named("back") is None
    assert "back" in rig.engine.networks  # taking it down is the agent's business


async def test_a_namesake_of_the_engine_lends_no_containers(rig: Rig) -> None:
    await create(rig)
    rig.engine.networks["back"] = {**local("back"), "Containers": {"c1": {}}}
    assert (await rig.call("GET", "/networks/back"))[1]["Containers"] == {}


async def test_filters(rig: Rig) -> None:
    key = await create(rig, "back", Labels={"a": "b"})
    await create(rig, "front")
    rig.engine.networks["bridge"] = local("bridge")
    own = "bridge"  # the Engine filters its own, this one does not: it is always there
    assert await listed(rig, name=["ac"]) == sorted(["back", own])
    assert await listed(rig, name=["back", "front"]) == sorted(["back", "front", own])
    assert await listed(rig, id=[key[:6]]) == sorted(["back", own])
    assert await listed(rig, label=["a"]) == sorted(["back", own])
    assert await listed(rig, label=["a=c"]) == [own]
    assert await listed(rig, driver=["overlay"], name=["ingress"]) == sorted(["ingress", own])
    assert await listed(rig, driver=["bridge"]) == [own]
    assert await listed(rig, scope=["local"]) == [own]
    assert await listed(rig, type=["builtin"]) == [own]
    assert await listed(rig, type=["custom"], scope=["swarm"]) == sorted(["ingress", "back", "front", own])
    await rig.create(TaskTemplate={"ContainerSpec": {"Image": "x"}, "Networks": [{"Target": "back"}]})
    assert await listed(rig, dangling=["true"]) == sorted(["front", own])
    assert await listed(rig, dangling=["0"]) == sorted(["ingress", "back", own])
    status, text = await refusal(rig, "GET", f"/networks?filters={quote(json.dumps({'x': ['y']}))}")
    assert (status, text) == (400, "Invalid filter 'x'")


async def test_a_list_has_no_containers_and_comes_without_an_engine_too(rig: Rig) -> None:
    await create(rig)
    status, found = await rig.call("GET", "/networks")
    assert [one["Containers"] for one in found] == [None, None]
    await rig.engine.stop()
    status, said = await rig.call("GET", "/networks")
    assert (status, "Engine" in said["message"]) == (503, True)
    assert (await rig.call("GET", "/networks/back"))[0] == 200
    assert (await rig.call("DELETE", "/networks/back"))[0] == 204


async def test_verbose_shows_who_is_there(rig: Rig) -> None:
    await create(rig, Attachable=False)
    service = await rig.create(
        TaskTemplate={"ContainerSpec": {"Image": "x"}, "Networks": [{"Target": "back", "Aliases": ["www"]}]},
        EndpointSpec={"Ports": [{"TargetPort": 80, "PublishedPort": 8080}]},
    )
    status, shown = await rig.call("GET", "/networks/back?verbose=true")
    entry = shown["Services"]["web"]
    assert (status, entry["VIP"], entry["Ports"]) == (200, "10.0.1.2", [])
    tasks = rig.control.current.tasks_of(service)
    assert {(one["Name"], one["EndpointID"]) for one in entry["Tasks"]} == {(t.name, t.id) for t in tasks}
    nodes = {rig.control.current.nodes[task.node_id].vtep for task in tasks}
    assert {one["Info"]["Host IP"] for one in entry["Tasks"]} == nodes
    assert {one["IP"] for one in shown["Peers"]} == nodes
    _, mesh = await rig.call("GET", "/networks/ingress?verbose=1")
    assert mesh["Services"]["web"]["Ports"] == ["Target: 80, Publish: 8080"]
    assert len(mesh["Peers"]) == 3
    assert "Services" not in (await rig.call("GET", "/networks/back"))[1]
    status, text = await refusal(rig, "GET", "/networks/back?verbose=maybe")
    assert (status, "verbose" in text) == (400, True)


async def test_services_and_tasks_show_their_places(rig: Rig) -> None:
    key = await create(rig)
    service = await rig.create(
        TaskTemplate={"ContainerSpec": {"Image": "x"}, "Networks": [{"Target": "back"}]},
        EndpointSpec={
            "Ports": [{"TargetPort": 80}, {"TargetPort": 53, "Protocol": "udp", "PublishedPort": 53}]
        },
    )
    _, shown = await rig.call("GET", "/services/web")
    assert shown["Spec"]["TaskTemplate"]["Networks"] == [{"Target": key}]
    assert [one["PublishedPort"] for one in shown["Endpoint"]["Ports"]] == [30000, 53]
    assert "PublishedPort" not in shown["Spec"]["EndpointSpec"]["Ports"][0]
    vips = {one["NetworkID"]: one["Addr"] for one in shown["Endpoint"]["VirtualIPs"]}
    assert set(vips) == {key, the(rig, "ingress").id}
    assert vips[key] == "10.0.1.2/24"
    _, tasks = await rig.call("GET", f"/tasks?filters={quote(json.dumps({'service': [service]}))}")
    places = [[one["Network"]["Spec"]["Name"] for one in task["NetworksAttachments"]] for task in tasks]
    assert places == [["back", "ingress"]] * 2
    addresses = [one["Addresses"] for task in tasks for one in task["NetworksAttachments"]]
    assert sorted(addresses)[2:] == [["10.0.1.3/24"], ["10.0.1.4/24"]]


# ------------------------------------------------------------ pruning


async def test_prune(rig: Rig) -> None:
    await create(rig, "back")
    await create(rig, "idle1", Labels={"keep": ""})
    await create(rig, "idle2")
    await rig.create(TaskTemplate={"ContainerSpec": {"Image": "x"}, "Networks": [{"Target": "back"}]})
    unwanted = quote(json.dumps({"label!": {"keep": True}}))
    assert await rig.call("POST", f"/v1.41/networks/prune?filters={unwanted}") == (
        200, {"NetworksDeleted": ["idle", "idle2"]},
    )  # fmt: skip
    asked = rig.engine.heads[-1].split(" ")[1]
    path, _, said = unquote(asked).partition("?filters=")
    assert (path, json.loads(said)) == ("/v1.41/networks/prune", {"label!": {"keep": True, LABEL: True}})
    until = quote(json.dumps({"until": ["24h"]}))
    assert (await rig.call("POST", f"/networks/prune?filters={until}"))[1] == {"NetworksDeleted": ["idle"]}
    assert (await rig.call("POST", "/networks/prune"))[1] == {"NetworksDeleted": ["idle", "idle1"]}
    assert {one.name for one in rig.control.current.networks} == {"ingress", "back"}


# ------------------------------------------------------------ events


async def test_events(rig: Rig) -> None:
    reply = await rig.session.get("http://d/events")
    attributes = {"name": "back", "type": "swarmpy", "container": "c1"}
    for action in (
        "create",
        "connect",
        "disconnect",
        "destroy",
    ):  # of the Engine's counterpart: nobody's news
        event = {"Type": "network", "Action": action, "Actor": {"ID": HEX, "Attributes": attributes}}
        await rig.engine.events.put(json.dumps(event).encode() + b"\n")
    own = {"Type": "network", "Action": "create",
           "Actor": {"ID": HEX, "Attributes": {"name": "swarmpy", "type": "bridge"}}}  # fmt: skip
    await rig.engine.events.put(json.dumps(own).encode() + b"\n")
    assert json.loads(await reply.content.readline()) == own
    key = await create(rig)
    first = json.loads(await reply.content.readline())
    service = await rig.create(
        TaskTemplate={"ContainerSpec": {"Image": "x"}, "Networks": [{"Target": "back"}]}
    )
    await rig.call("DELETE", f"/services/{service}")
    await rig.call("DELETE", "/networks/back")
    seen = [first]
    while seen[-1]["Action"] != "remove" or seen[-1]["Type"] != "network":
        seen.append(json.loads(await reply.content.readline()))
    reply.close()
    networks = [one for one in seen if one["Type"] == "network"]
    assert [(one["Action"], one["scope"], one["Actor"]) for one in networks] == [
        (action, "swarm", {"ID": key, "Attributes": {"name": "back"}}) for action in ("create", "remove")
    ]  # giving addresses away is no update of the network


# ------------------------------------------------------------ nodes of every kind


async def test_on_a_worker(rig: Rig) -> None:
    key = the(rig, "ingress").id
    rig.local.become("active")
    rig.engine.networks = {
        "back": local("back", HEX, **{LABEL: key, "a": "b"}), "bridge": local("bridge", "cd" * 32),
    }  # fmt: skip
    _, found = await rig.call("GET", "/networks")
    assert [(one["Name"], one["Id"], one["Scope"], one["Driver"]) for one in found] == [
        ("back", key, "swarm", "overlay"), ("bridge", "cd" * 32, "local", "bridge"),
    ]  # fmt: skip
    _, shown = await rig.call("GET", "/networks/back")
    assert (shown["Id"], shown["Scope"], shown["Labels"]) == (key, "swarm", {"a": "b"})
    for method, path, body in (
        ("POST", "/networks/create", {"Name": "x", "Driver": "overlay"}), ("DELETE", "/networks/back", None),
    ):  # fmt: skip
        status, text = await refusal(rig, method, path, body)
        assert (status, "Worker nodes can't be used to view or modify cluster state" in text) == (503, True)
    assert "back" in rig.engine.networks
    assert (await rig.call("DELETE", "/networks/bridge"))[0] == 204
    assert (await rig.call("POST", "/networks/prune"))[1] == {"NetworksDeleted": ["idle"]}


async def test_outside_a_cluster(rig: Rig) -> None:
    rig.local.become("inactive")
    rig.engine.networks["bridge"] = local("bridge")
    assert await listed(rig) == ["bridge"]
    status, text = await refusal(rig, "POST", "/networks/create", {"Name": "x", "Driver": "overlay"})
    assert status == 500
    assert text == (
        'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to '
        "swarm and try again."
    )
    assert (await rig.call("POST", "/networks/create", {"Name": "x", "Driver": "bridge"}))[0] == 201


async def test_without_a_leader(rig: Rig) -> None:
    rig.control.broken = NO_LEADER
    for method, path, body in (
        ("GET", "/networks", None), ("GET", "/networks/back", None), ("DELETE", "/networks/back", None),
        ("POST", "/networks/create", {"Name": "x", "Driver": "overlay"}),
    ):  # fmt: skip
        status, text = await refusal(rig, method, path, body)
        assert (status, text) == (503, "The swarm does not have a leader.")


# ------------------------------------------------------------ address pools


async def test_pools_can_be_added(rig: Rig) -> None:
    add = ("POST", "/swarmpy/v1/address-pools")
    assert (await rig.call(*add, {"Add": ["172.30.1.9/16"]}))[0] == 200
    assert (await rig.call("GET", "/swarm"))[1]["DefaultAddrPool"] == ["10.0.0.0/8", "172.30.0.0/16"]
    for pools, text in (
        (["10.9.0.0/16"], "address pool 10.9.0.0/16 overlaps 10.0.0.0/8"),
        (["172.31.0.0/16", "172.31.5.0/24"], "address pool 172.31.5.0/24 overlaps 172.31.0.0/16"),
        (["nope"], "invalid address pool 'nope'"),
        ([], "no address pool is named"),
    ):
        status, said = await refusal(rig, *add, {"Add": pools})
        assert (status, text in said) == (400, True), said
    assert (await rig.call("GET", "/swarm"))[1]["DefaultAddrPool"] == ["10.0.0.0/8", "172.30.0.0/16"]
    rig.local.become("active")
    assert (await rig.call(*add, {"Add": ["172.29.0.0/16"]}))[0] == 503


async def test_a_services_way_to_the_nodes_own_networks(rig: Rig) -> None:
    rig.engine.networks["host"] = local("host")
    status, found = await rig.call("GET", "/networks/host?scope=swarm")
    assert (status, found["Id"], found["Name"], found["Scope"]) == (200, "host", "host", "swarm")
    spec = {"Name": "exporter", "TaskTemplate": {
        "ContainerSpec": {"Image": "web:1"}, "Networks": [{"Target": found["Id"]}]}}  # fmt: skip
    status, made = await rig.call("POST", "/services/create", spec)
    assert status == 201, made
    status, shown = await rig.call("GET", f"/services/{made['ID']}")
    assert shown["Spec"]["TaskTemplate"]["Networks"] == [{"Target": "host"}]
    assert (await refusal(rig, "GET", "/networks/none?scope=swarm"))[0] == 404
