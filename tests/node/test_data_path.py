"""Which address carries a node's VXLAN traffic: from the flags of init and join to the cluster's objects.

Real nodes of the simulator, joined over its wire.
"""

from __future__ import annotations

import asyncio
from ipaddress import ip_network
from typing import Any

import pytest

from swarmpy.adapters.clock import SystemClock, SystemEntropy
from swarmpy.model.errors import InvalidArgument, Refusal
from swarmpy.node import addresses, begin
from swarmpy.node.node import Node
from swarmpy.node.toolbox import Interface
from swarmpy.ports import InitRequest, JoinRequest
from swarmpy.sim.cluster import Cluster
from swarmpy.sim.runs import quiet_logs
from swarmpy.sim.stage import Box
from swarmpy.state.snapshot import Snapshot

WISHES = {"m1": "eth0", "m2": "10.99.0.2", "w1": ""}
"""What each machine is told with --data-path-addr."""


SPARED: dict[str, frozenset[int]] = {}
"""The ports that each machine's routing mesh leaves to its manager, once the cluster is formed."""


class Formed(Cluster):
    """A cluster whose nodes are told where their data path is; it forms, and that is all."""

    async def _enter(self, box: Box, node: Node) -> None:
        first = self.stage.boxes["m1"]
        if box is first:
            await node.init(InitRequest(
                listen_address=box.address, advertise_address=box.address, data_path_address=WISHES["m1"],
                data_path_port=5000, address_pools=("10.64.7.7/12", "192.168.0.0/20"), subnet_size=26,
            ))  # fmt: skip
            return
        while node.view().state != "active":
            request = JoinRequest(
                (first.address,), self.tokens[box.kind], listen_address=box.address,
                advertise_address=box.address, data_path_address=WISHES[box.name],
            )  # fmt: skip
            try:
                await node.join(request)
            except Refusal:
                await asyncio.sleep(0.5)

    async def main(self) -> None:
        await self.form()
        world = self.leader_world()
        assert world is not None
        self.seen = world
        for box in self.stage.boxes.values():
            member: Any = getattr(box.program_state["node"], "_member", None)
            SPARED[box.name] = member._agent._fabric.listening


@pytest.fixture(scope="module")
def world() -> Snapshot:
    cluster = Formed(3, managers=2, workers=1, clients=0, faults=[])
    with quiet_logs():
        outcome = cluster.run()
    assert outcome.violation is None, outcome.violation
    return cluster.seen


def test_data_addresses_of_init_and_join(world: Snapshot) -> None:
    found = {node.status.address: (node.data_address, node.vtep) for node in world.nodes}
    assert found == {
        "192.168.0.1": ("192.168.0.1", "192.168.0.1"),  # an interface's name became its address
        "192.168.0.2": ("10.99.0.2", "10.99.0.2"),
        "192.168.1.1": ("", "192.168.1.1"),
    }


def test_every_node_says_where_it_listens(world: Snapshot) -> None:
    assert {node.listen_port for node in world.nodes} == {2377}
    assert {"m1": {2377}, "m2": {2377}, "w1": frozenset()} == SPARED


def test_pools_size_and_port_of_init(world: Snapshot) -> None:
    assert world.cluster is not None
    assert world.cluster.address_pools == ("10.64.0.0/12", "192.168.0.0/20")
    assert (world.cluster.subnet_size, world.cluster.data_path_port) == (26, 5000)
    ingress = world.ingress_network()
    assert ingress is not None
    subnets = [one.subnet for one in ingress.subnets]
    assert subnets[0] == "10.64.0.0/26"
    assert [ip_network(one).version for one in subnets] == [4, 6]  # the mesh has both versions


@pytest.mark.parametrize(
    ("wish", "sentence"),
    [
        ({"data_path_port": 1023}, "data path port must be between 1024 and 49151"),
        ({"data_path_port": 49152}, "data path port must be between 1024 and 49151"),
        (
            {"data_path_port": 7946},
            "data path port 7946 cannot be: the nodes ask each other at UDP port 7946",
        ),
        ({"data_path_port": 7945}, "encrypted networks use the port after the data path port"),
        ({"subnet_size": 30}, "invalid subnet size 30"),
        ({"address_pools": ("192.168.0.0/25",)}, "smaller than one subnet of mask length 24"),
        ({"address_pools": ("10.0.0.0/8", "10.1.0.0/16")}, "address pool 10.1.0.0/16 overlaps 10.0.0.0/8"),
        ({"subnet_size": 7}, "invalid address pool 10.0.0.0/8: it is smaller than one subnet"),
    ],
)
def test_what_init_refuses(wish: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        begin.cluster(SystemClock(), SystemEntropy(), InitRequest(**wish))
    assert sentence in refused.value.message


INTERFACES = (
    Interface("eth0", "192.0.2.1"),
    Interface("eth1", "198.51.100.1"),
    Interface("eth1", "2001:db8::1"),
)


@pytest.mark.parametrize(
    ("text", "address"),
    [("", ""), ("eth1", "198.51.100.1"), ("203.0.113.9", "203.0.113.9"), ("2001:db8::2", "2001:db8::2")],
)
def test_addresses_that_are_taken(text: str, address: str) -> None:
    assert addresses.data_path(text, INTERFACES) == address


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("eth9", "'eth9' is neither an IP address nor an interface of this machine"),
        ("192.0.2.1:4789", "(without a port number)"),
        ("eth0:4789", "(without a port number)"),
        ("0.0.0.0", "must be a non-zero IP address"),
        ("::", "must be a non-zero IP address"),
    ],
)
def test_addresses_that_are_refused(text: str, sentence: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        addresses.data_path(text, INTERFACES)
    assert sentence in refused.value.message
