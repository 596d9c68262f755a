"""Trying networks out, on the real kernel: over a real VXLAN between two nodes, and a real name server."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from swarmpy.adapters.dns import NameServers
from swarmpy.adapters.overlay import KernelOverlay
from swarmpy.adapters.trials import KernelTrials
from swarmpy.model.links import Answer
from swarmpy.ports import FabricError, Link, Neighbour, Plug, Station
from tests.contracts.netlab import Lab, ip

NETWORK, MTU = "net-under-trial", 1450
PATIENCE = 5.0
SHORT = 0.7
"""Seconds after which nobody will answer any more: two attempts."""


class Node:
    """A node with one container on the network; both nodes have the same gateway."""

    def __init__(self, lab: Lab, number: int, folder: Path) -> None:
        folder.mkdir()
        self.folder, self.number = folder, number
        self.address = f"10.97.0.{number}"
        self.mac, self.own = f"02:00:00:00:03:0{number}", f"10.61.0.1{number}"
        self.space = lab.space(f"n{number}")
        lab.plug(self.space, "eth0", "under", f"{self.address}/24")
        self.overlay = KernelOverlay(str(folder), self.space)

    @property
    def station(self) -> Station:
        return Station(self.mac, self.own)

    async def begin(self, lab: Lab, other: Node) -> None:
        await self.overlay.ensure(Link(NETWORK, 5001, MTU, self.address, 4789, ("10.61.0.1/24",)))
        await self.overlay.forward(NETWORK, [Neighbour(other.mac, other.address, (other.own,))], [])
        end = await self.overlay.plug(Plug("endpoint", NETWORK, self.mac, MTU))
        self.container = lab.space(f"c{self.number}")
        name, home = lab.name(self.container), lab.name(self.space)
        ip(f"-n {home} link set {end} netns {name} name eth0")
        ip(f"-n {name} address add {self.own}/24 dev eth0")
        ip(f"-n {name} link set eth0 up")

    @property
    def room(self) -> str:
        return self.overlay.namespace(NETWORK)


@pytest.fixture
async def nodes() -> AsyncIterator[tuple[Lab, Node, Node]]:
    lab = Lab()
    made: list[Node] = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            lab.bridge("under")
            made += [Node(lab, number, Path(folder) / str(number)) for number in (1, 2)]
            first, second = made
            await first.begin(lab, second)
            await second.begin(lab, first)
            yield lab, first, second
        finally:
            for node in made:
                await node.overlay.clear()
                node.overlay.close()
                subprocess.run(["umount", str(node.folder)], capture_output=True, check=False)
            lab.close()


async def test_a_container_on_another_node_answers_small_and_full_packets(
    nodes: tuple[Lab, Node, Node],
) -> None:
    lab, first, second = nodes
    trials = KernelTrials()
    nobody = Station("02:00:00:00:03:99", "10.61.0.99")
    for size in (84, MTU):
        there = [second.station, nobody]
        assert await trials.across(first.room, first.station, there, size, SHORT) == {second.station}
        assert await trials.across(second.room, second.station, [first.station], size, PATIENCE) == {
            first.station
        }
    # One byte more than the container takes is not answered: the size is what it says.
    assert await trials.across(first.room, first.station, [second.station], MTU + 1, SHORT) == frozenset()
    # The trial leaves no trace: the bridge believes the containers to be where they are.
    learned = ip(f"netns exec {lab.name(first.space)} nsenter --net={first.room} bridge fdb show dev vx0")
    assert first.mac not in learned


async def test_a_blocked_port_a_wrong_entry_and_a_narrow_way_are_seen(nodes: tuple[Lab, Node, Node]) -> None:
    lab, first, second = nodes
    trials = KernelTrials()
    block = "add table inet t\nadd chain inet t i { type filter hook input priority 0; }\nadd rule inet t i udp dport 4789 drop\n"
    nft = ["ip", "netns", "exec", lab.name(second.space), "nft"]
    subprocess.run([*nft, "-f", "-"], input=block, text=True, check=True)
    assert await trials.across(first.room, first.station, [second.station], 84, SHORT) == frozenset()
    subprocess.run([*nft, "delete", "table", "inet", "t"], check=True)
    assert await trials.across(first.room, first.station, [second.station], 84, PATIENCE)
    entry = Neighbour(second.mac, second.address, (second.own,))
    await first.overlay.forward(NETWORK, [], [entry])
    assert await trials.across(first.room, first.station, [second.station], 84, SHORT) == frozenset()
    await first.overlay.forward(NETWORK, [entry], [])
    ip(f"-n {lab.name(second.container)} link set eth0 mtu 1300")
    subprocess.run(["nsenter", f"--net={second.room}", "ip", "link", "set", "vx0", "mtu", "1300"], check=True)
    assert await trials.across(first.room, first.station, [second.station], MTU, SHORT) == frozenset()
    assert await trials.across(first.room, first.station, [second.station], 84, PATIENCE)


async def test_a_namespace_without_links_is_refused_with_a_sentence(nodes: tuple[Lab, Node, Node]) -> None:
    lab, first, second = nodes
    with pytest.raises(FabricError, match="cannot be tried out: No such device"):
        await KernelTrials().across(lab.hub, first.station, [second.station], 84, SHORT)
    with pytest.raises(FabricError, match="cannot be opened"):
        await KernelTrials().across("/run/netns/none", first.station, [second.station], 84, SHORT)


async def test_name_servers_that_serve_answer_and_others_do_not(nodes: tuple[Lab, Node, Node]) -> None:
    _, first, _ = nodes
    servers, trials = NameServers(), KernelTrials()
    asked: list[str] = []

    def resolve(question):  # type: ignore[no-untyped-def]
        asked.append(question.name)
        return Answer(addresses=("10.61.0.11",))

    servers.begin(resolve)
    try:
        await servers.serve(NETWORK, first.room, ["10.61.0.1"])
        both = ["10.61.0.1", "10.61.0.2"]
        assert await trials.answers(first.room, both, "web.1.abc", SHORT) == {"10.61.0.1"}
        assert asked[0] == "web.1.abc"
        await servers.withdraw(NETWORK)
        assert await trials.answers(first.room, ["10.61.0.1"], "web.1.abc", SHORT) == frozenset()
    finally:
        await servers.stop()
