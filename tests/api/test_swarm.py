"""Membership, /info, /_ping, and what nodes say that are not managers."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swarmpy.api import body, filters
from swarmpy.api.errors import HttpError
from swarmpy.model.errors import FailedPrecondition, InvalidArgument
from swarmpy.ports import InitRequest, JoinRequest
from tests.api.conftest import Rig
from tests.api.fakes import NO_LEADER


async def test_init_and_join_reach_the_node(rig: Rig) -> None:
    rig.local.become("inactive")
    wish = {
        "ListenAddr": "0.0.0.0:2377",
        "AdvertiseAddr": "eth0",
        "Spec": {"CAConfig": {"NodeCertExpiry": 7200000000000}},
        "Availability": "drain",
        "DefaultAddrPool": ["10.64.0.0/12"],
        "SubnetSize": 26,
        "DataPathAddr": "eth1",
        "DataPathPort": 5000,
    }
    status, node = await rig.call("POST", "/v1.41/swarm/init", wish)
    assert (status, node) == (200, rig.local.shown.node_id)
    made = rig.local.calls[-1]
    assert isinstance(made, InitRequest)
    assert (made.advertise_address, made.availability) == ("eth0", "drain")
    assert (made.address_pools, made.subnet_size) == (("10.64.0.0/12",), 26)
    assert (made.data_path_address, made.data_path_port) == ("eth1", 5000)
    assert json.loads(made.spec) == wish["Spec"]
    rig.local.become("inactive")
    assert (await rig.call("POST", "/swarm/init", {**wish, "DefaultAddrPool": None}))[0] == 200
    assert rig.local.calls[-1].address_pools == ()  # type: ignore[attr-defined]
    rig.local.become("inactive")
    wish = {"ListenAddr": "0.0.0.0:2377", "RemoteAddrs": ["10.0.0.1:2377"], "JoinToken": "SWMTKN-x",
            "DataPathAddr": "192.0.2.7"}  # fmt: skip
    assert await rig.call("POST", "/swarm/join", wish) == (200, None)
    joined = rig.local.calls[-1]
    assert isinstance(joined, JoinRequest)
    assert joined.data_path_address == "192.0.2.7"
    assert (joined.remote_addresses, joined.token) == (("10.0.0.1:2377",), "SWMTKN-x")


@pytest.mark.parametrize(
    ("path", "wish", "text"),
    [
        ("init", {}, 'invalid ListenAddr "": invalid empty address'),
        ("init", {"ListenAddr": "x", "Spec": {"Name": "y"}}, 'swarm spec must be named "default"'),
        ("init", {"ListenAddr": 5}, "invalid JSON: Expected `str`, got `int` - at `$.ListenAddr`"),
        ("join", {"ListenAddr": "x"}, "at least 1 RemoteAddr is required to join"),
        ("join", {"ListenAddr": "x", "RemoteAddrs": [" "]}, 'invalid remoteAddr " ": invalid empty address'),
    ],
)
async def test_malformed_membership(rig: Rig, path: str, wish: object, text: str) -> None:
    rig.local.become("inactive")
    status, said = await rig.call("POST", f"/swarm/{path}", wish)
    assert (status, said["message"]) == (400, text)


async def test_refusals_of_the_node_are_its_own_words(rig: Rig) -> None:
    rig.local.become("inactive")
    rig.local.refusal = InvalidArgument("the token is not one")
    wish = {"ListenAddr": "x", "RemoteAddrs": ["y"]}
    assert await rig.call("POST", "/swarm/join", wish) == (400, {"message": "the token is not one"})
    rig.local.become("active")
    rig.local.refusal = FailedPrecondition("not now")
    assert await rig.call("POST", "/swarm/leave") == (503, {"message": "not now"})


async def test_leave(rig: Rig) -> None:
    assert await rig.call("POST", "/swarm/leave?force=1") == (200, None)
    assert rig.local.calls == [("leave", True)]
    assert (await rig.call("POST", "/swarm/leave"))[1] == {"message": "This node is not part of a swarm"}


async def test_inspect_and_rotate(rig: Rig) -> None:
    _, swarm = await rig.call("GET", "/swarm")
    assert swarm["Spec"]["Orchestration"] == {"TaskHistoryRetentionLimit": 5}
    assert swarm["Spec"]["Dispatcher"] == {"HeartbeatPeriod": 5_000_000_000}
    spec = {**swarm["Spec"], "Orchestration": {"TaskHistoryRetentionLimit": 0}}
    path = (
        f"/swarm/update?version={swarm['Version']['Index']}&rotateWorkerToken=true&rotateManagerToken=false"
    )
    assert await rig.call("POST", path, spec) == (200, None)
    _, after = await rig.call("GET", "/swarm")
    assert after["Spec"]["Orchestration"] == {"TaskHistoryRetentionLimit": 0}
    assert after["JoinTokens"]["Worker"] != swarm["JoinTokens"]["Worker"]
    assert after["JoinTokens"]["Worker"][:60] == swarm["JoinTokens"]["Worker"][:60]  # the same CA
    assert after["JoinTokens"]["Manager"] == swarm["JoinTokens"]["Manager"]
    assert await rig.call("GET", "/swarm/unlockkey") == (200, {"UnlockKey": ""})


async def test_info(rig: Rig) -> None:
    _, info = await rig.call("GET", "/v1.41/info")
    assert info["Mine"] == "kept"
    swarm = info["Swarm"]
    assert (swarm["Nodes"], swarm["Managers"], swarm["ControlAvailable"]) == (3, 1, True)
    assert swarm["Cluster"]["ID"] == "cluster".ljust(25, "0")
    assert "SWMTKN" not in json.dumps(info)
    rig.control.broken = NO_LEADER
    _, info = await rig.call("GET", "/info")
    assert info["Swarm"]["Error"] == NO_LEADER.message
    rig.local.become("inactive")
    _, info = await rig.call("GET", "/info")
    assert info["Swarm"] == {
        "NodeID": "",
        "NodeAddr": "",
        "LocalNodeState": "inactive",
        "ControlAvailable": False,
        "Error": "",
        "RemoteManagers": None,
    }


async def test_ping(rig: Rig) -> None:
    for method in ("GET", "HEAD"):
        async with rig.session.request(method, "http://d/_ping") as reply:
            assert reply.headers["Api-Version"] == "1.41"
            assert reply.headers["Swarm"] == "active/manager"
            assert await reply.text() == ("OK" if method == "GET" else "")


@pytest.mark.parametrize(
    ("state", "manager", "text"),
    [
        ("inactive", False, 'Use "docker swarm init" or "docker swarm join"'),
        ("active", False, "Worker nodes can't be used to view or modify cluster state."),
        ("pending", True, "Manager is being prepared or has trouble connecting to the cluster."),
        ("locked", True, "Swarm is encrypted and needs to be unlocked"),
    ],
)
async def test_not_a_manager(rig: Rig, state: str, manager: bool, text: str) -> None:
    rig.local.become(state, manager=manager)
    for path in ("/swarm", "/nodes", "/services/x", "/tasks", "/secrets", "/configs"):
        status, said = await rig.call("GET", path)
        assert (status, text in said["message"]) == (503, True), path


async def test_own_endpoints(rig: Rig) -> None:
    await rig.create()
    _, status = await rig.call("GET", "/swarmpy/v1/status")
    assert status["cluster"]["tasks_running"] == 2
    assert status["engine"]["available"] is True
    assert (await rig.call("GET", "/swarmpy/v1/explain?ref=web"))[1] == {"reference": "web", "why": "because"}
    _, progress = await rig.call("GET", "/swarmpy/v1/services/web/progress")
    assert (progress["desired"], progress["running"], progress["leaving"]) == (2, 2, 0)


@given(
    st.text(max_size=60)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    ).map(json.dumps)
)
def test_any_filter_text_is_parsed_or_refused(text: str) -> None:
    status, found = 400, filters.Filters()
    try:
        found = filters.parse(text)
    except HttpError as error:
        status = error.status
    assert status == 400
    assert all(isinstance(value, str) for values in found.values.values() for value in values)
    assert found.labels("label", {"a": "b"}) in {True, False}


@given(st.binary(max_size=80))
def test_any_body_is_an_object_or_refused(data: bytes) -> None:
    status, found = 400, {}
    try:
        found = body.parse_object(data)
    except HttpError as error:
        status = error.status
    assert (status, type(found)) == (400, dict)


_SHAPES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**65) | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                [
                    "Name",
                    "TaskTemplate",
                    "ContainerSpec",
                    "Image",
                    "Mode",
                    "Replicated",
                    "Resources",
                    "Limits",
                    "EndpointSpec",
                    "Ports",
                    "Mounts",
                    "Labels",
                    "Runtime",
                    "Privileges",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(spec=st.dictionaries(st.sampled_from(["Name", "TaskTemplate", "Mode", "EndpointSpec", "X"]), _SHAPES))
async def test_any_spec_is_admitted_or_refused_in_a_sentence(rig: Rig, spec: object) -> None:
    status, said = await rig.call("POST", "/services/create", spec)
    assert status in {201, 400, 409, 500, 501}
    assert status == 201 or (said["message"] and "internal error" not in said["message"])
