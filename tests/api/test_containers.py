"""`docker run --network` and `network connect`: what the leader, the Engine and the user get to see."""

from __future__ import annotations

import json
from typing import Any

import pytest

from swarmpy.api import endpoints
from swarmpy.api.networks import LABEL
from swarmpy.plan.container import OPTION
from swarmpy.plan.visits import ALIASES, SERVERS
from tests.api.conftest import Rig
from tests.api.test_networks import create, local, refusal

RUN: dict[str, Any] = {"Image": "x", "HostConfig": {"NetworkMode": "front", "Dns": ["192.0.2.53"]},
       "NetworkingConfig": {"EndpointsConfig": {"front": {"Aliases": ["a"], "DriverOpts": {OPTION + "task": "z"}}}}}  # fmt: skip


async def test_a_container_on_a_network_of_ours_gets_its_place_and_the_engine_is_told(rig: Rig) -> None:
    key = await create(rig, "front", Attachable=True)
    for body in (RUN, json.loads(json.dumps(RUN).replace('"front"', f'"{key}"'))):
        status, _ = await rig.call("POST", "/v1.41/containers/create?name=box", body)
        assert status == 201
        guest = list(rig.control.current.guests)[-1]
        sent = json.loads(rig.engine.bodies[-1])
        assert sent["HostConfig"] == {"NetworkMode": "front", "Dns": ["10.0.1.1"]}
        ((name, config),) = sent["NetworkingConfig"]["EndpointsConfig"].items()
        options = config["DriverOpts"]
        assert (name, config["Aliases"], options[ALIASES], options[SERVERS]) == (
            "front",
            ["a"],
            "a",
            "192.0.2.53",
        )
        assert options[OPTION + "task"] in rig.control.current.guests
        assert options[OPTION + "network"] == key
        assert options[OPTION + "addresses"].startswith("10.0.1.")
        assert (guest.name, guest.networks[0].aliases) == ("box", ("a",))
    assert len({one.networks[0].addresses for one in rig.control.current.guests}) == 2
    assert rig.local.expected == set()


async def test_what_is_refused_leaves_nothing(rig: Rig) -> None:
    await create(rig, "closed")
    await create(rig, "front", Attachable=True)
    body = {"Image": "x", "HostConfig": {"NetworkMode": "closed"}}
    assert await refusal(rig, "POST", "/containers/create", body) == (
        500, "Could not attach to network closed: rpc error: code = PermissionDenied desc = network closed "
        "not manually attachable",
    )  # fmt: skip
    rig.engine.refusing = True  # it has no such image
    assert (await rig.call("POST", "/containers/create", RUN))[0] == 404
    status, text = await refusal(
        rig, "POST", "/containers/create", {**RUN, "MacAddress": "02:00:00:00:00:01"}
    )
    assert (status, "MAC address cannot be chosen" in text) == (400, True)
    assert not rig.control.current.guests.rows
    assert rig.local.expected == set()


@pytest.mark.parametrize("mode", ["bridge", "default", "host", "none", "container:x", "own", "nope"])
async def test_what_is_not_ours_reaches_the_engine_untouched(rig: Rig, mode: str) -> None:
    rig.engine.networks["own"] = local("own")
    body = {"Image": "x", "HostConfig": {"NetworkMode": mode}}
    assert (await rig.call("POST", "/containers/create", body))[0] == 201
    assert json.dumps(body).encode() in rig.engine.bodies
    assert not rig.control.commands


async def test_connect_and_disconnect(rig: Rig) -> None:
    key = await create(rig, "front", Attachable=True)
    assert (await rig.call("POST", f"/v1.41/networks/{key}/connect", {"Container": "c1"}))[0] == 200
    assert rig.engine.heads[-1].startswith("POST /v1.41/networks/front/connect ")
    options = json.loads(rig.engine.bodies[-1])["EndpointConfig"]["DriverOpts"]
    (guest,) = rig.control.current.guests
    assert (options[OPTION + "task"], guest.container_id, guest.name) == (guest.id, "c" * 64, "one")
    rig.engine.connected = {"front": {"NetworkID": "ab", "DriverOpts": options}}
    status, text = await refusal(rig, "POST", "/networks/front/connect", {"Container": "c1"})
    assert (status, text) == (403, "endpoint with name one already exists in network front")
    assert rig.control.current.guests.rows, "it keeps the place that it had"
    _, shown = await rig.call("GET", "/v1.41/containers/c1/json")
    assert shown["NetworkSettings"]["Networks"] == {"front": {"NetworkID": key, "DriverOpts": None}}
    assert (await rig.call("POST", f"/networks/{key}/disconnect", {"Container": "c1"}))[0] == 200
    assert not rig.control.current.guests.rows


async def test_tasks_are_connected_by_their_services(rig: Rig) -> None:
    await create(rig, "front", Attachable=True)
    rig.engine.labels = {"com.docker.swarm.task.id": "t"}
    status, text = await refusal(rig, "POST", "/networks/front/connect", {"Container": "c1"})
    assert (status, "is a task of the cluster" in text) == (403, True)


def test_bodies_of_any_shape_are_read() -> None:
    for odd in ({}, {"HostConfig": None}, {"HostConfig": {"NetworkMode": 5}},
                {"NetworkingConfig": {"EndpointsConfig": None}}, {"NetworkingConfig": []}):  # fmt: skip
        assert endpoints.wanted(odd) == {}
    assert endpoints.wanted({"NetworkingConfig": {"EndpointsConfig": {"x": None}}}) == {"x": {}}
    assert not endpoints.shown({"NetworkSettings": {"Networks": {"x": None}}})
    assert LABEL == OPTION + "network"
