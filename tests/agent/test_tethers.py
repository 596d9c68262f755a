"""A running container keeps its links, or its task ends with a sentence: on a whole agent, its Engine and kernel."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from swarmpy.model.fabric import Endpoint, Table
from swarmpy.model.messages import Assigned
from swarmpy.model.objects import Attachment
from swarmpy.sim.netstack import DRIFTS, Room
from tests.agent.rig import Rig, task

KEYS = ("t1", "t2")
NETS = ("n" * 25, "m" * 25)
NAMES = {NETS[0]: "blue", NETS[1]: "red"}
SEVERING = {"port nameless", "port gone"}
"""What cannot be mended: nobody can tell whose the port is, or there is none."""


def table(number: int) -> Table:
    ends = tuple(
        Endpoint(id=key, name=f"web.{key}", service_id="s1", slot=key[1:], node_id="n1", vtep="10.0.0.9",
                 mac=f"02:00:00:00:0{number}:0{key[1:]}", addresses=(f"10.0.{number}.{key[1:]}",), serving=True)
        for key in KEYS
    )  # fmt: skip
    key = NETS[number]
    return Table(id=key, name=NAMES[key], vni=4097 + number, mtu=1450, subnets=(f"10.0.{number}.0/24",),
                 gateways=(f"10.0.{number}.100/24",), endpoints=ends)  # fmt: skip


def woven(key: str) -> Assigned:
    places = tuple(
        Attachment(network_id=net, addresses=(f"10.0.{number}.{key[1:]}/24",))
        for number, net in enumerate(NETS)
    )
    return task(key, networks=places)


def rooms(rig: Rig) -> dict[str, Room]:
    return {room.identity.network_id: room for room in rig.kernel.stack.rooms.values() if room.identity}


def cut(rig: Rig, key: str, network: str) -> None:
    """Somebody deletes the task's port in the network."""
    room = rooms(rig)[network]
    (port,) = [name for name, one in room.ports.items() if one.plug is not None and one.plug.task_id == key]
    del room.ports[port]


async def both_run(rig: Rig) -> None:
    rig.leader.tables = tuple(table(number) for number in range(len(NETS)))
    await rig.leader.assign(*(woven(key) for key in KEYS))
    await rig.boot()
    for key in KEYS:
        await rig.reaches(key, "running")
    assert all(len(room.ports) == len(KEYS) for room in rooms(rig).values())


async def ends(rig: Rig, key: str, *networks: str) -> None:
    status = await rig.reaches(key, "failed", 30)
    assert "gone from this node, and only a new container can be given one" in status.err
    assert all(NAMES[one] in status.err for one in networks)
    assert [one.state for one in rig.of(key)] == ["exited"]


@pytest.mark.parametrize("network", NETS)
def test_a_container_whose_link_somebody_removed_ends_with_a_sentence(network: str) -> None:
    rig = Rig(woven=True)

    async def scenario() -> None:
        await both_run(rig)
        cut(rig, "t1", network)
        await ends(rig, "t1", network)
        await asyncio.sleep(60)
        assert rig.running() == {"t2"}, "nobody else is judged by it"

    rig.run(scenario)


def test_a_link_that_was_lost_while_the_agent_was_dead_is_missed_too() -> None:
    rig = Rig(woven=True)

    async def scenario() -> None:
        await both_run(rig)
        rig.crash()
        for network in NETS:
            cut(rig, "t1", network)
        await rig.boot()
        await ends(rig, "t1", *NETS)
        assert rig.running() == {"t2"}

    rig.run(scenario)


@pytest.mark.parametrize("what", sorted(DRIFTS))
def test_what_can_be_mended_ends_nobody(what: str) -> None:
    rig = Rig(woven=True)

    async def scenario() -> None:
        await both_run(rig)
        for name in sorted(rig.kernel.stack.rooms):
            rig.kernel.stack.drift(name, what)
        await asyncio.sleep(60)
        assert (rig.running() == set(KEYS)) == (what not in SEVERING)

    rig.run(scenario)


def test_an_engine_that_is_away_or_mute_and_a_kernel_that_refuses_end_nobody() -> None:
    rig = Rig(woven=True)

    async def during(begin: Any, end: Any) -> None:
        begin()
        await asyncio.sleep(30)
        end()
        await asyncio.sleep(30)
        assert rig.running() == set(KEYS)

    async def scenario() -> None:
        await both_run(rig)
        stack = rig.kernel.stack
        await during(rig.dockerd.die, rig.dockerd.revive)
        await during(rig.dockerd.hang, rig.dockerd.unhang)
        await during(stack.hang, stack.heal)
        stack.refuse = 0.7
        await during(lambda: stack.drift(min(stack.rooms), "bridge gone"), stack.heal)

    rig.run(scenario)


def test_containers_are_not_judged_in_the_middle_of_their_start() -> None:
    """However slow the Engine and the kernel are."""
    rig = Rig(woven=True)

    async def scenario() -> None:
        rig.kernel.stack.latency = rig.kernel.filter.latency = (0.1, 0.7)
        rig.dockerd.latency, rig.dockerd.start_time = (0.1, 0.9), (1.0, 5.0)
        await both_run(rig)
        await asyncio.sleep(60)
        assert rig.running() == set(KEYS)
        assert all("failed" not in rig.leader.history[key] for key in KEYS)

    rig.run(scenario)
