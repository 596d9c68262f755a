"""`/swarmpy/v1/net/doctor`, and how far nodes follow a network in its verbose inspection."""

from __future__ import annotations

from swarmpy.model.errors import Unavailable
from swarmpy.model.examination import Finding, Held
from swarmpy.model.fabric import digest
from swarmpy.plan import tables
from swarmpy.ports import Examination
from tests.api.conftest import SPEC, Rig

NODES = [f"node{number}".ljust(25, "0") for number in (1, 2, 3)]
PATH = "/swarmpy/v1/net/doctor"


async def made(rig: Rig) -> str:
    status, body = await rig.call("POST", "/networks/create", {"Name": "front", "Driver": "overlay"})
    assert status == 201, body
    return str(body["Id"])


async def test_all_networks_or_one_are_examined(rig: Rig) -> None:
    key = await made(rig)
    finding = Finding("problem", "host2", "front", "it is ill", "a rest")
    rig.control.examination = Examination((key,), (NODES[0],), (NODES[1],), 4, (finding,))
    assert await rig.call("GET", PATH) == (
        200,
        {
            "healthy": False,
            "networks": [{"id": key, "name": "front"}],
            "reported": [{"id": NODES[0], "name": "host1"}],
            "silent": [{"id": NODES[1], "name": "host2"}],
            "tried": 4,
            "findings": [
                {
                    "kind": "problem",
                    "node": "host2",
                    "network": "front",
                    "what": "it is ill",
                    "help": "a rest",
                }
            ],
        },
    )
    rig.control.examination = Examination((key,), (), (), 0, (Finding("mended", "host1", "", "x"),))
    status, body = await rig.call("GET", f"{PATH}?network=front")
    assert (status, body["healthy"]) == (200, True)
    assert rig.control.examined == [(), (key,)]


async def test_unknown_networks_and_clusters_without_a_leader_are_refused(rig: Rig) -> None:
    status, said = await rig.call("GET", f"{PATH}?network=nope")
    assert (status, "nope not found" in said["message"]) == (404, True)
    rig.control.broken = Unavailable("The swarm does not have a leader.")
    assert (await rig.call("GET", PATH))[0] == 503
    rig.local.become("active")
    status, said = await rig.call("GET", PATH)
    assert (status, "Worker nodes" in said["message"]) == (503, True)


async def test_verbose_inspection_shows_how_far_each_node_is(rig: Rig) -> None:
    key = await made(rig)
    template = {**SPEC["TaskTemplate"], "Networks": [{"Target": key}]}
    await rig.create(TaskTemplate=template)
    world = rig.control.current
    present = digest(tables.table(world, world.networks[key]))
    carrying = sorted({task.node_id for task in world.tasks})
    rig.control.held = {carrying[0]: Held(digest=present, version=7)}
    for verbose, shown in (("0", False), ("1", True)):
        _, body = await rig.call("GET", f"/networks/front?verbose={verbose}")
        assert ("Nodes" in body) is shown
    first, second = (next(one for one in body["Nodes"] if one["ID"] == key) for key in carrying)
    assert (first["Digest"], first["Current"], first["Version"]) == (present, True, 7)
    assert (second["Digest"], second["Current"], second["Version"]) == ("", False, 0)
    rig.control.held = {carrying[0]: Held(digest="old", version=3)}
    _, body = await rig.call("GET", "/networks/front?verbose=1")
    assert [one["Current"] for one in body["Nodes"]] == [False, False]
