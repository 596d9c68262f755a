"""The simulated balancer keeps the bookkeeping of the port's contract, and misbehaves as it is told."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from swarmpy.ports import FabricError, MeshPort, MeshTable, Return, SandboxTable, VirtualService
from swarmpy.sim.balancer import Netfilter, SimBalancer, SimMesh
from swarmpy.sim.loop import Process, SimLoop
from swarmpy.sim.trace import Trace

WANTED = SandboxTable(
    services=(VirtualService("10.0.0.2", ("10.0.0.3", "10.0.0.4")), VirtualService("10.0.0.5", ())),
    ingress_address="10.1.0.9", returns=(Return(1, "02:00:00:00:00:01", "10.1.0.2"),),
)  # fmt: skip
LESS = SandboxTable(services=(VirtualService("10.0.0.2", ("10.0.0.4",)),))
MESH = MeshTable(
    network_id="ingress", addresses=("10.1.0.2",),
    ports=(MeshPort("tcp", 80, 8080, ("10.1.0.9",)), MeshPort("udp", 53, 53, ())),
    hosts=(("tcp", 80, ""), ("udp", 53, "192.0.2.1")),
)  # fmt: skip


def play(scenario: Callable[[SimLoop, Netfilter], Coroutine[Any, Any, Any]]) -> Any:
    loop = SimLoop()
    return loop.run(scenario(loop, Netfilter(loop, "w1", "seed", Trace(loop.time), "gone".__ne__)))


def test_what_connections_meet() -> None:
    async def scenario(loop: SimLoop, kernel: Netfilter) -> None:
        balancer = SimBalancer(kernel)
        assert kernel.pick("s", "10.0.0.2") is None
        await balancer.apply("s", WANTED, None)
        assert Counter(kernel.pick("s", "10.0.0.2") for _ in range(4)) == {"10.0.0.3": 2, "10.0.0.4": 2}
        assert kernel.pick("s", "10.0.0.5") == ""
        assert kernel.pick("s", "10.0.0.6") is None
        assert kernel.pick("other", "10.0.0.2") is None
        assert kernel.returned("s") == {"10.1.0.2"}
        await balancer.apply("s", LESS, WANTED)
        assert {kernel.pick("s", "10.0.0.2") for _ in range(4)} == {"10.0.0.4"}
        mesh = SimMesh(kernel)
        assert kernel.enter("tcp", 80) is None
        await mesh.apply(MESH, None)
        assert kernel.enter("tcp", 80) == "10.1.0.9"
        assert kernel.enter("udp", 53) is None
        assert kernel.enter("udp", 53, "192.0.2.1") == ""
        assert kernel.enter("tcp", 80, six=True) is None

    play(scenario)


def test_the_mesh_over_ipv6() -> None:
    six = MeshTable(
        network_id="ingress", addresses=("10.1.0.2", "fd00::2"),
        ports=(MeshPort("tcp", 80, 8080, ("10.1.0.9", "fd00::9")), MeshPort("udp", 53, 53, ("10.1.0.9",))),
        hosts=(("tcp", 80, ""), ("udp", 53, "2001:db8::1")),
    )  # fmt: skip

    async def scenario(loop: SimLoop, kernel: Netfilter) -> None:
        await SimMesh(kernel).apply(six, None)
        assert {kernel.enter("tcp", 80) for _ in range(3)} == {"10.1.0.9"}
        assert {kernel.enter("tcp", 80, six=True) for _ in range(3)} == {"fd00::9"}
        assert kernel.enter("udp", 53, six=True) is None
        assert kernel.enter("udp", 53, "2001:db8::1") == ""
        ways = (
            Return(1, "02:00:00:00:00:01", "10.1.0.2", "fd00::2"),
            Return(2, "02:00:00:00:00:02", "10.1.0.3"),
        )
        await SimBalancer(kernel).apply("s", SandboxTable(returns=ways), None)
        assert kernel.returned("s") == {"10.1.0.2", "fd00::2", "10.1.0.3"}

    play(scenario)


def test_fingerprints() -> None:
    async def scenario(loop: SimLoop, kernel: Netfilter) -> None:
        balancer, mesh = SimBalancer(kernel), SimMesh(kernel)
        assert await balancer.observe("s") == await mesh.observe() == ""
        print_of, of_mesh = await balancer.apply("s", WANTED, None), await mesh.apply(MESH, None)
        assert await balancer.observe("s") == print_of != ""
        assert await mesh.observe() == of_mesh != ""
        assert await balancer.apply("s", LESS, WANTED) != print_of
        assert await balancer.apply("s", WANTED, None) == print_of
        kernel.flush("s")
        kernel.flush_mesh()
        assert await balancer.observe("s") == await mesh.observe() == ""
        await balancer.apply("s", WANTED, WANTED)
        await balancer.clear("s")
        await mesh.clear()
        assert await balancer.observe("s") == await mesh.observe() == ""
        with pytest.raises(FabricError, match="cannot be opened"):
            await balancer.apply("gone", WANTED, None)
        await balancer.clear("gone")

    play(scenario)


def test_refused_is_not_done_and_unsealed_is_done_without_a_fingerprint() -> None:
    async def scenario(loop: SimLoop, kernel: Netfilter) -> None:
        balancer = SimBalancer(kernel)
        print_of = await balancer.apply("s", LESS, None)
        kernel.refuse = 1.0
        with pytest.raises(FabricError, match="Cannot allocate memory"):
            await balancer.apply("s", WANTED, LESS)
        assert await balancer.observe("s") == print_of
        kernel.refuse, kernel.unsealed = 0.0, 1.0
        with pytest.raises(FabricError, match="does not answer"):
            await balancer.apply("s", WANTED, LESS)
        assert await balancer.observe("s") == ""
        assert kernel.pick("s", "10.0.0.5") == ""
        kernel.heal()
        assert await balancer.apply("s", WANTED, LESS) == await balancer.observe("s")

    play(scenario)


def test_it_outlives_the_agent_and_finishes_what_the_agent_began() -> None:
    async def scenario(loop: SimLoop, kernel: Netfilter) -> None:
        agent = Process("w1")
        kernel.hang()
        loop.spawn(agent, SimBalancer(kernel).apply("s", LESS, None))
        await asyncio.sleep(1)
        assert kernel.pick("s", "10.0.0.2") is None
        loop.kill(agent)
        kernel.unhang()
        await asyncio.sleep(1)
        assert kernel.pick("s", "10.0.0.2") == "10.0.0.4"
        assert await SimBalancer(kernel).observe("s") != ""
        kernel.power_cut()
        assert await SimBalancer(kernel).observe("s") == ""

    play(scenario)
