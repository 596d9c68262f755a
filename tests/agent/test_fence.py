"""The agent guards its ports: first of all, for ever, and until it leaves. On simulated kernels, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from swarmpy.agent import journal
from swarmpy.agent.fabric import VERIFY, FabricWorker
from swarmpy.agent.joining import Sandbox
from swarmpy.model.fabric import Endpoint, ServiceEntry, Table, difference
from swarmpy.model.messages import Networks
from swarmpy.model.objects import NetworkKey
from swarmpy.ports import FabricError, FabricPorts, Plumber
from swarmpy.ports.fabric import Resolve
from swarmpy.sim.balancer import Netfilter, SimBalancer, SimMesh
from swarmpy.sim.disk import Platter, SimDisk
from swarmpy.sim.guard import SimCipher, SimGuard, arrives, leaves
from swarmpy.sim.loop import Process, SimLoop
from swarmpy.sim.netstack import Netstack
from swarmpy.sim.overlay import SimOverlay
from swarmpy.sim.trace import Trace

LOCAL, PEER, STRANGER = "192.0.2.1", "192.0.2.2", "192.0.2.66"
PLAIN, SEALED = 4789, 4790
KEYS = tuple(NetworkKey(number, f"{number:02x}" * 32) for number in (1, 2, 3))


def table(
    key: str = "net1", *, vni: int = 5000, tasks: int = 1, encrypted: bool = True, **rest: Any
) -> Table:
    ends = [Endpoint(id="other", name="other", node_id="n2", service_id="s", vtep=PEER, mac="02:00:00:00:00:99",
                     addresses=("10.0.1.99",), serving=True)]  # fmt: skip
    ends += [Endpoint(id=f"t{number}", name=f"t{number}", node_id="n1", service_id="s", vtep=LOCAL,
                      mac=f"02:00:00:00:00:{number:02x}", addresses=(f"10.0.1.{number}",), serving=True)
             for number in range(2, 2 + tasks)]  # fmt: skip
    keys = {"keys": KEYS, "sending": 2} if encrypted else {}
    return Table(
        id=key, name=key, vni=vni, mtu=1400, subnets=("10.0.1.0/24",), gateways=("10.0.1.1/24",),
        peers=(LOCAL, PEER), endpoints=tuple(sorted(ends, key=lambda one: one.id)), encrypted=encrypted,
        services=(ServiceEntry(id="s", name="web", vips=("10.0.1.200",)),), **(keys | rest),
    )  # fmt: skip


class Quiet:
    """Names, driver and sandboxes, of which nothing is asked here."""

    def begin(self, resolve: Resolve) -> None: ...
    async def serve(self, network_id: str, namespace: str, addresses: Sequence[str]) -> None: ...
    async def withdraw(self, network_id: str) -> None: ...
    def changed(self) -> None: ...
    async def start(self, plumber: Plumber) -> None: ...
    async def stop(self) -> None: ...
    async def wipe(self) -> None: ...
    async def appeared(self, path: str, *, patience: float) -> bool:
        return True


class Machine:
    """A node whose kernel outlives its agent."""

    def __init__(self) -> None:
        self.loop = SimLoop()
        trace = Trace(self.loop.time)
        self.rules = Netfilter(self.loop, "n1", "seed", trace)
        self.stack = Netstack(self.loop, "n1", "seed", trace, {LOCAL: 1500})
        self.platter = Platter("seed")
        self.sandboxes: dict[str, Sandbox] = {}
        self.lives = 0
        self.worker: FabricWorker
        self.process: Process

    def play(self, scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async def within() -> None:
            async with asyncio.timeout(10_000):
                await scenario()

        self.loop.run(within())
        assert self.loop.problems == []

    def boot(self) -> None:
        """A new life of the agent."""
        self.lives += 1
        self.process = Process("agent", self.lives)
        quiet, disk = Quiet(), SimDisk(self.platter, self.process)

        async def live() -> None:
            ports = FabricPorts(
                overlay=SimOverlay(self.stack), sandboxes=quiet, balancer=SimBalancer(self.rules),
                mesh=SimMesh(self.rules), guard=SimGuard(self.rules), cipher=SimCipher(self.rules), names=quiet,
                driver=quiet, prober=quiet, trials=quiet,
            )  # fmt: skip
            self.worker = FabricWorker("n1", LOCAL, ports, disk, lambda: self.sandboxes, dict, lambda: None,
                                       lambda seq: None)  # fmt: skip
            self.worker.remember(journal.load_networks(disk))
            await self.worker.run()

        self.loop.spawn(self.process, live())

    def tell(self, *tables: Table) -> None:
        deltas = tuple(difference(None, one) for one in tables)
        self.worker.take(Networks(seq=1, full=True, deltas=deltas, removed=()))

    async def until(self, condition: Callable[[], Any], seconds: float = 30.0) -> float:
        begun = self.loop.time()
        while not condition():
            assert self.loop.time() < begun + seconds, "what was waited for did not come"
            await asyncio.sleep(0.001)
        return self.loop.time() - begun

    @property
    def woven(self) -> bool:
        rooms = [room for room in self.stack.rooms.values() if room.identity]
        return bool(rooms) and all(room.tunnel and room.tunnel.forwards for room in rooms)

    @property
    def fenced(self) -> bool:
        return (
            arrives(self.rules, PEER, SEALED, number=2) and not arrives(self.rules, PEER, SEALED)
            and not arrives(self.rules, STRANGER, PLAIN) and not arrives(self.rules, STRANGER, SEALED, number=2)
            and leaves(self.rules, PEER, SEALED) == 2 and leaves(self.rules, PEER, SEALED, process=True) is None
        )  # fmt: skip


@pytest.fixture
def machine() -> Machine:
    return Machine()


async def begin(machine: Machine, *tables: Table) -> None:
    machine.__dict__.pop("worker", None)
    machine.boot()
    await machine.until(lambda: hasattr(machine, "worker"))
    machine.tell(*tables)


def test_fences_stand_before_the_first_device(machine: Machine) -> None:
    async def scenario() -> None:
        await begin(machine, table())
        while not machine.woven:
            if any(room.tunnel for room in machine.stack.rooms.values()):
                assert machine.fenced
            await asyncio.sleep(0.0001)

    machine.play(scenario)


@pytest.mark.parametrize("which", ["guard", "cipher"])
@pytest.mark.parametrize("busy", [False, True])
def test_what_somebody_flushed_is_back_within_a_second(machine: Machine, which: str, busy: bool) -> None:
    """Also while tables change all the time, and the agent is woken more often than it looks."""

    async def scenario() -> None:
        await begin(machine, table())
        await machine.until(lambda: machine.woven and machine.fenced)
        stop = asyncio.Event()

        async def change() -> None:
            number = 0
            while busy and not stop.is_set():
                number += 1
                machine.tell(table(attachable=number % 2 == 0))
                await asyncio.sleep(0.1)

        changing = asyncio.get_running_loop().create_task(change())
        for pause in range(10):
            await asyncio.sleep(pause * 0.13)
            getattr(machine.rules, f"flush_{which}")()
            assert not machine.fenced
            took = await machine.until(lambda: machine.fenced)
            assert took < (VERIFY if which == "guard" else 2 * VERIFY) + 0.4
        stop.set()
        await changing

    machine.play(scenario)


def test_nothing_is_woven_unguarded(machine: Machine) -> None:
    async def scenario() -> None:
        machine.rules.refuse = 1.0
        await begin(machine, table())
        await asyncio.sleep(5)
        assert not machine.stack.rooms
        with pytest.raises(FabricError, match="refused"):
            await machine.loop.spawn(machine.process, machine.worker.prepare("net1"))
        assert not machine.stack.rooms
        machine.rules.heal()
        await machine.until(lambda: machine.woven and machine.fenced)

    machine.play(scenario)


def test_a_network_without_encryption_does_not_wait_for_it(machine: Machine) -> None:
    async def scenario() -> None:
        await begin(machine)

        async def refuse(_: object) -> str:
            raise FabricError("no ESP here")

        machine.worker.ports.cipher.apply = refuse  # type: ignore[method-assign]
        machine.tell(table(), table("net2", vni=5001, encrypted=False))
        await machine.until(lambda: machine.woven)
        assert [room.tunnel.port for room in machine.stack.rooms.values() if room.tunnel] == [PLAIN]

    machine.play(scenario)


def test_an_agent_that_starts_anew_without_managers_keeps_the_node_talking(machine: Machine) -> None:
    async def scenario() -> None:
        await begin(machine, table())
        await machine.until(lambda: machine.woven and machine.fenced)
        await asyncio.sleep(1)
        machine.loop.kill(machine.process)
        machine.boot()
        for _ in range(50):
            await asyncio.sleep(0.1)
            assert machine.fenced
        assert machine.worker.tables["net1"].keys == (), "no secret was on the disk"
        machine.rules.power_cut()
        await machine.until(lambda: machine.rules.cipher is not None)
        assert leaves(machine.rules, PEER, SEALED) is None, "rather silent than in the clear"
        machine.tell(table())
        await machine.until(lambda: machine.fenced)

    machine.play(scenario)


def test_leaving_takes_everything_away(machine: Machine) -> None:
    async def scenario() -> None:
        await begin(machine, table())
        await machine.until(lambda: machine.woven and machine.fenced)
        machine.loop.kill(machine.process)
        machine.boot()
        await machine.until(lambda: machine.worker.ports is not None)
        await machine.loop.spawn(machine.process, machine.worker.wipe())
        assert (machine.rules.guard, machine.rules.cipher, machine.stack.rooms) == (None, None, {})

    machine.play(scenario)


def test_a_restart_into_no_networks_sweeps_what_was_left(machine: Machine) -> None:
    async def scenario() -> None:
        await begin(machine, table())
        await machine.until(lambda: machine.woven and machine.fenced)
        machine.loop.kill(machine.process)
        machine.platter.wipe()
        await begin(machine)
        await machine.until(lambda: machine.rules.guard is None and machine.rules.cipher is None)
        assert not machine.stack.rooms

    machine.play(scenario)
