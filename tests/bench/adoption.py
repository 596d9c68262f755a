"""How long an agent that begins anew takes with the containers that are there. Needs root.

    python -m tests.bench.adoption [--endpoints 1000] [--services 100] [--rounds 3] [--json FILE]

A network with that many endpoints of this node, each plugged into a namespace of its own, and that many services:
the agent's network (the real one, with the real overlay, balancer and name servers, in namespaces of the bench)
programs all of it from nothing. Then it begins anew, as after a restart of the daemon, with what it wrote down:
how long until it knows that every container holds all that it needs, and how long one change of one service
takes to be in all of them then. The mesh, the guard and encryption, of which none depends on how many endpoints
there are, are left out, and so is the Engine: reading 1,000 containers from it costs its own time.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from swarmpy.adapters.disk import FileDisk
from swarmpy.adapters.dns import NameServers
from swarmpy.adapters.nftables import NftBalancer
from swarmpy.adapters.overlay import KernelOverlay
from swarmpy.agent import journal
from swarmpy.agent.fabric import FabricWorker
from swarmpy.agent.joining import Sandbox
from swarmpy.model.fabric import Endpoint, ServiceEntry, Table, difference
from swarmpy.model.messages import Networks
from swarmpy.ports import FabricPorts, Plug
from tests.agent.test_fence import Quiet
from tests.bench.balancer import keep
from tests.contracts.netlab import Lab, ip

NODE, LOCAL, NETWORK, MTU = "n1", "10.99.0.1", "net1", 1450


class Still(Quiet):
    """Mesh, guard and cipher, which have nothing to do."""

    async def observe(self) -> str:
        return "applied"

    async def apply(self, *_: object) -> str:
        return "applied"

    async def clear(self) -> None: ...


def table_of(endpoints: int, services: int) -> Table:
    ends = [Endpoint(id=f"t{number:05}", name=f"t{number:05}", node_id=NODE, service_id=f"s{number % services:05}",
                     vtep=LOCAL, mac=mac(number), addresses=(address(number),), serving=True)
            for number in range(endpoints)]  # fmt: skip
    entries = [ServiceEntry(id=f"s{number:05}", name=f"web{number}", vips=(f"10.60.{200 + number // 250}.{number % 250 + 1}",))
               for number in range(services)]  # fmt: skip
    return Table(
        id=NETWORK, name="net", vni=5000, mtu=MTU, subnets=("10.60.0.0/16",), gateways=("10.60.0.1/16",),
        peers=(LOCAL,), endpoints=tuple(ends), services=tuple(entries),
    )  # fmt: skip


def address(number: int) -> str:
    return f"10.60.{number // 250 + 1}.{number % 250 + 1}"


def mac(number: int) -> str:
    return f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}"


class Machine:
    """The node, whose kernel outlives its agents."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab, self.folder = lab, folder
        self.disk = FileDisk(folder / "state")
        self.home = lab.space("node")
        self.sandboxes: dict[str, Sandbox] = {}
        self.overlay = self.fresh_overlay()

    def fresh_overlay(self) -> KernelOverlay:
        return KernelOverlay(str(self.folder / "spaces"), self.home)

    def agent(self) -> FabricWorker:
        """One that begins now."""
        still = Still()
        ports = FabricPorts(
            overlay=self.overlay, sandboxes=still, balancer=NftBalancer(), mesh=still, guard=still, cipher=still,
            names=NameServers(), driver=still, prober=still, trials=still,
        )  # fmt: skip
        seen: Callable[[], Mapping[str, Sandbox]] = lambda: self.sandboxes  # noqa: E731
        return FabricWorker(NODE, LOCAL, ports, self.disk, seen, dict, lambda: None, lambda seq: None)

    async def contain(self, number: int) -> None:
        """A container at the endpoint, without its process."""
        key = f"t{number:05}"
        end = await self.overlay.plug(Plug(key, NETWORK, mac(number), MTU))
        space = self.lab.space(f"c{number}")
        ip(f"-n {Lab.name(self.home)} link set {end} netns {Lab.name(space)} name eth0")
        ip(f"-n {Lab.name(space)} address add {address(number)}/16 dev eth0")
        ip(f"-n {Lab.name(space)} link set eth0 up")
        self.sandboxes[key] = Sandbox(space, (key,))


def told(table: Table, seq: int, before: Table | None = None) -> Networks:
    return Networks(seq=seq, full=before is None, deltas=(difference(before, table),), removed=())


async def done(agent: FabricWorker, count: int, vips: int) -> None:
    """Every container's namespace holds what it needs, and names are answered."""
    while True:
        programmed = agent._rules.tables()
        whole = len(programmed) == count and all(len(one.services) == vips for one in programmed.values())
        if whole and agent._rules.served and len(agent._done_with) == count:
            return
        await asyncio.sleep(0.02)


def note(found: dict[str, list[float]], what: str, value: float) -> None:
    found.setdefault(what, []).append(value)
    print(f"  {what}: {value:.2f}", flush=True)


async def life(agent: FabricWorker, work: Callable[[], asyncio.Future[None]]) -> float:
    """Seconds until the work is done; the agent runs until then."""
    running = asyncio.create_task(agent.run())
    began = time.perf_counter()
    await work()
    spent = time.perf_counter() - began
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await agent.ports.names.stop()
    return spent


async def measured(machine: Machine, options: argparse.Namespace) -> dict[str, list[float]]:
    count, services = options.endpoints, options.services
    table = table_of(count, services)
    found: dict[str, list[float]] = {}
    first = machine.agent()
    first.take(told(table, 1))
    await first.prepare(NETWORK)
    began = time.perf_counter()
    for number in range(count):
        await machine.contain(number)
    print(f"{count} namespaces made in {time.perf_counter() - began:.1f} s", flush=True)
    note(found, "all programmed from nothing, s", await life(first, lambda: done(first, count, services)))
    whole = journal.KeptNetworks(tables={NETWORK: table})
    for turn in range(options.rounds):
        machine.overlay.close()
        machine.overlay = machine.fresh_overlay()
        await machine.disk.work(lambda: journal.save_networks(machine.disk, whole))
        again = machine.agent()
        again.remember(journal.load_networks(machine.disk))
        note(found, "begun anew, s", await life(again, lambda again=again: done(again, count, services)))
        more = msgspec.structs.replace(
            table,
            services=(
                *table.services,
                ServiceEntry(id=f"z{turn}", name=f"late{turn}", vips=("10.60.250.1",)),
            ),
        )
        again.take(told(more, 2, table))
        note(found, "one change, s", await life(again, lambda again=again: done(again, count, services + 1)))
        again.take(told(table, 3, more))
        await life(again, lambda again=again: done(again, count, services))
    return found


async def bench(lab: Lab, folder: Path, options: argparse.Namespace) -> dict[str, list[float]]:
    machine = Machine(lab, folder)
    (folder / "spaces").mkdir()
    lab.bridge("under")
    lab.plug(machine.home, "eth0", "under", f"{LOCAL}/24")
    try:
        return await measured(machine, options)
    finally:
        await machine.overlay.clear()
        machine.overlay.close()
        machine.disk.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--endpoints", type=int, default=1000)
    parser.add_argument("--services", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", help="write the figures to this file")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was made is removed
    lab = Lab()
    with tempfile.TemporaryDirectory() as folder:
        try:
            figures = asyncio.run(bench(lab, Path(folder), options))
        finally:
            lab.close()
            unbind(Path(folder) / "spaces")
    for name, values in figures.items():
        print(f"  {name:<34}{statistics.median(values):8.2f}")
    keep(options.json, figures)


def unbind(folder: Path) -> None:
    """The overlay binds its folder onto itself with its first namespace."""
    subprocess.run(["umount", str(folder)], capture_output=True, check=False)


if __name__ == "__main__":
    main()
