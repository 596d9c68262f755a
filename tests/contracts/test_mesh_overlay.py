"""The routing mesh over the real overlay: balancer, mesh and overlay know nothing of each other, and must not
take each other's work apart.

Two nodes in namespaces, a backend on the second, an outside client. What comes in at either node gets to the
backend through VXLAN, and the backend sees the client.
"""

from __future__ import annotations

import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from swarmpy.adapters.nftables import NftBalancer, NftMesh
from swarmpy.adapters.overlay import KernelOverlay
from swarmpy.ports import Link, MeshPort, MeshTable, Neighbour, Plug, Return, SandboxTable
from tests.contracts.netlab import Lab, call, datagrams, ip

NETWORK = "ingress-over-vxlan"
OUTSIDE, BACKEND, MAC, MTU = "10.99.0.200", "10.60.0.11", "02:00:00:00:01:11", 1450
OUTSIDE6, BACKEND6 = "2001:db8::200", "fd60::11"


class Node:
    def __init__(self, lab: Lab, number: int, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.address, self.own, self.mac = (
            f"10.99.0.{number}",
            f"10.60.0.10{number}",
            f"02:00:00:00:00:0{number}",
        )
        self.address6, self.own6 = f"2001:db8::{number}", f"fd60::10{number}"
        self.space = lab.space(f"n{number}")
        lab.plug(self.space, "eth0", "under", f"{self.address}/24", f"{self.address6}/64")
        self.overlay = KernelOverlay(str(folder), self.space)
        self.mesh = NftMesh(self.overlay.namespace, self.space)
        gateways = (f"{self.own}/24", f"{self.own6}/64")
        self.link = Link(NETWORK, 5000, MTU, self.address, 4789, gateways, self.mac)
        self.table = MeshTable(
            network_id=NETWORK, addresses=(self.own, self.own6),
            ports=tuple(MeshPort(one, 8080, 80, (BACKEND, BACKEND6)) for one in ("tcp", "udp")),
            hosts=(("tcp", 8080, ""), ("udp", 8080, "")),
        )  # fmt: skip

    @property
    def station(self) -> Neighbour:
        return Neighbour(self.mac, self.address, (self.own, self.own6))


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    made = Lab()
    made.nodes = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            made.bridge("under")
            made.outside = made.space("outside")
            made.plug(made.outside, "eth0", "under", f"{OUTSIDE}/24", f"{OUTSIDE6}/64")
            made.nodes = [Node(made, number, Path(folder) / str(number)) for number in (1, 2)]
            yield made
        finally:
            for node in made.nodes:
                await node.mesh.clear()
                await node.overlay.clear()
                node.overlay.close()
                # the overlay binds its folder onto itself with its first namespace
                subprocess.run(["umount", str(node.folder)], capture_output=True, check=False)
            made.close()


async def begin(lab: Lab) -> str:
    """Links, stations, the backend; returns its namespace."""
    first, second = lab.nodes
    for node in lab.nodes:
        await node.overlay.ensure(node.link)
    backend = Neighbour(MAC, second.address, (BACKEND, BACKEND6))
    await first.overlay.forward(NETWORK, [second.station, backend], [])
    await second.overlay.forward(NETWORK, [first.station], [])
    end = await second.overlay.plug(Plug("endpoint", NETWORK, MAC, MTU))
    space = lab.space("backend")
    lab.bridge("out")
    lab.plug(space, "eth1", "out", "172.18.0.2/16")
    name, home = lab.name(space), lab.name(second.space)
    ip(f"-n {name} route add default via 172.18.0.1")
    ip(f"-n {home} link set {end} netns {name} name ing0")
    ip(f"-n {name} address add {BACKEND}/24 dev ing0")
    ip(f"-n {name} address add {BACKEND6}/64 dev ing0 nodad")
    ip(f"-n {name} link set ing0 up")
    for family in (socket.AF_INET, socket.AF_INET6):
        lab.server.listen(space, "backend", 80, family=family)
    returns = tuple(Return(number, node.mac, node.own, node.own6) for number, node in enumerate(lab.nodes, 1))
    await NftBalancer().apply(space, SandboxTable((), BACKEND, returns, BACKEND6), None)
    return space


async def test_every_node_leads_to_a_backend_on_another(lab: Lab) -> None:
    await begin(lab)
    prints = [await node.mesh.apply(node.table, None) for node in lab.nodes]
    for _ in range(2):
        for node, print_of in zip(lab.nodes, prints, strict=True):
            assert call(lab.outside, node.address, 8080) == ("backend", OUTSIDE)
            assert call(node.space, "127.0.0.1", 8080) == ("backend", node.own)
            assert call(lab.outside, node.address6, 8080) == ("backend", OUTSIDE6)
            assert call(node.space, "::1", 8080) == ("backend", node.own6)
            for address, client in ((node.address, OUTSIDE), (node.address6, OUTSIDE6)):
                with datagrams(lab.outside, address, 8080) as made:
                    made.send(b"x")
                    assert made.recv(100).decode().split() == ["backend", client]
            # what the one mends leaves the other's work as it is
            await node.overlay.ensure(node.link)
            assert (await node.overlay.observe())[NETWORK].link == node.link
            assert await node.mesh.observe() == print_of
    first = lab.nodes[0]
    await first.mesh.clear()
    assert (await first.overlay.observe())[NETWORK].link == first.link
    with pytest.raises(ConnectionRefusedError):
        call(lab.outside, first.address, 8080)


async def test_the_network_made_anew_gets_its_mesh_again(lab: Lab) -> None:
    first, _ = lab.nodes
    await begin(lab)
    await first.mesh.apply(first.table, None)
    seen = (await first.overlay.observe())[NETWORK]
    await first.overlay.remove(NETWORK)
    assert await first.mesh.observe() == ""
    await first.overlay.ensure(first.link)
    await first.overlay.forward(NETWORK, list(seen.neighbours.values()), [])
    print_of = await first.mesh.apply(first.table, first.table)
    assert await first.mesh.observe() == print_of
    assert call(lab.outside, first.address, 8080) == ("backend", OUTSIDE)
    assert call(lab.outside, first.address6, 8080) == ("backend", OUTSIDE6)
