"""Services over VXLAN on an underlay that loses and delays packets. Run inside User-mode Linux by test_ipvs.py."""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from swarmpy.adapters.ipvs import IpvsBalancer
from swarmpy.adapters.netns import inside
from swarmpy.adapters.overlay import KernelOverlay
from swarmpy.ports import Link, Neighbour, Plug, SandboxTable, VirtualService
from tests.contracts.netlab import Lab, call, ip

NETWORK, VIP = "service-over-vxlan", "10.70.0.2"
BACKENDS = ("10.70.0.12", "10.70.0.13")


class Node:
    """One node: its own namespace with a cable to the others, and its overlay."""

    def __init__(self, lab: Lab, number: int, folder: Path) -> None:
        folder.mkdir()
        self.lab, self.folder, self.address = lab, folder, f"10.99.0.{number}"
        self.space = lab.space(f"n{number}")
        lab.plug(self.space, "eth0", "under", f"{self.address}/24")
        self.overlay = KernelOverlay(str(folder), self.space)
        gateway = f"10.70.0.25{number}/24"
        self.link = Link(NETWORK, 5001, 1450, self.address, 4789, (gateway,), f"02:00:00:00:00:0{number}")

    async def container(self, address: str) -> tuple[str, Neighbour]:
        last = address.rpartition(".")[2]
        mac, space = f"02:00:00:00:01:{last}", self.lab.space(f"c{last}")
        free = await self.overlay.plug(Plug(f"e{last}".ljust(12, "0"), NETWORK, mac, 1450, f"t{last}"))
        name = Lab.name(space)
        ip(f"-n {Lab.name(self.space)} link set {free} netns {name} name eth0 address {mac}")
        ip(f"-n {name} address add {address}/24 dev eth0")
        ip(f"-n {name} link set eth0 up")
        return space, Neighbour(mac, self.address, (address,))


@pytest.fixture
async def balancer() -> IpvsBalancer:
    made = IpvsBalancer()
    assert await made.probe()
    return made


async def test_services_over_a_lossy_underlay(balancer: IpvsBalancer) -> None:
    """TCP repeats what is lost. Nothing that is compared with the kernel depends on what arrives: no repairs."""
    lab, nodes = Lab(), []
    with tempfile.TemporaryDirectory() as folder:
        try:
            lab.bridge("under")
            nodes = [Node(lab, number, Path(folder) / str(number)) for number in (1, 2)]
            for node in nodes:
                await node.overlay.ensure(node.link)
            client, here = await nodes[0].container("10.70.0.11")
            theirs = [await nodes[1].container(address) for address in BACKENDS]
            for (space, _), address in zip(theirs, BACKENDS, strict=True):
                lab.server.listen(space, address, 80)
            await nodes[0].overlay.forward(NETWORK, [one for _, one in theirs], [])
            await nodes[1].overlay.forward(NETWORK, [here], [])
            table = SandboxTable(services=(VirtualService(VIP, BACKENDS),))
            print_of = await balancer.apply(client, table, None)
            seen = [await node.overlay.observe() for node in nodes]
            for loss in (1, 5, 20):
                for node in nodes:
                    inside(node.space, netem, loss)
                calls = [asyncio.to_thread(call, client, VIP, 80, timeout=100) for _ in range(12)]
                answered = await asyncio.gather(*calls)
                assert Counter(who for who, _ in answered).keys() == set(BACKENDS), loss
                assert {source for _, source in answered} == {"10.70.0.11"}
                assert await balancer.observe(client) == print_of
                assert [await node.overlay.observe() for node in nodes] == seen
            assert sum(inside(node.space, dropped) for node in nodes) > 5, "packets were lost on the way"
        finally:
            for node in nodes:
                await node.overlay.clear()
                node.overlay.close()
                # the overlay binds its folder onto itself with its first namespace
                subprocess.run(["umount", str(node.folder)], capture_output=True, check=False)
            lab.close()


def netem(loss: int) -> None:
    command = f"tc qdisc replace dev eth0 root netem delay 5ms 2ms loss {loss}%"
    subprocess.run(command.split(), check=True, capture_output=True)


def dropped() -> int:
    shown = subprocess.run(
        ["tc", "-s", "qdisc", "show", "dev", "eth0"], capture_output=True, text=True, check=True
    )
    return int(shown.stdout.partition("dropped ")[2].partition(",")[0])
