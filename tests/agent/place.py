"""The agent's network worker on a simulated kernel, told its tables by the test.

What belongs here: putting the pieces together, and waiting in virtual time. What does not: any expectation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from swarmpy.agent.fabric import FabricWorker
from swarmpy.agent.joining import Sandbox
from swarmpy.model.fabric import Endpoint, IngressNode, ServiceEntry, Table, difference
from swarmpy.model.messages import Networks
from swarmpy.sim.disk import Platter, SimDisk
from swarmpy.sim.kernel import Kernel
from swarmpy.sim.loop import Process, SimLoop
from swarmpy.sim.trace import Trace

MANY = 2000
"""Looks at what there is within one turn that never comes to an end."""


def table(key: str, subnet: str, **more: Any) -> Table:
    ends = tuple(
        Endpoint(id=f"t{n}", name=f"web.{n}", service_id="s", node_id=node, vtep=f"192.0.2.{n}",
                 mac=f"02:00:00:00:00:0{n}", addresses=(f"{subnet}.{n + 10}",), serving=True)
        for n, node in ((1, "here"), (2, "there"))
    )  # fmt: skip
    return Table(id=key, name=key, vni=5000 + len(key), mtu=1450, subnets=(f"{subnet}.0/24",),
                 gateways=(f"{subnet}.1/24",), endpoints=ends,
                 services=(ServiceEntry(id="s", name="web", vips=(f"{subnet}.9",)),), **more)  # fmt: skip


MESHED = (
    IngressNode(id="here", number=2, vtep="192.0.2.1", mac="02:00:00:00:01:02", addresses=("10.0.0.2",)),
)


class Place:
    """A kernel and the worker on it."""

    def __init__(self) -> None:
        self.loop = SimLoop()
        self.problems: list[BaseException] = []
        trace = Trace(self.loop.time)
        self.kernel = Kernel(
            self.loop, "w1", "seed", trace, "192.0.2.1", lambda _, one: self.problems.append(one)
        )
        self.looks = 0
        self.sandboxes: dict[str, Sandbox] = {}
        self.applied: list[int] = []
        self.worker: FabricWorker

    def _seen(self) -> Mapping[str, Sandbox]:
        self.looks += 1
        assert self.looks < MANY, "a turn never ends"
        return self.sandboxes

    def take(self, seq: int, *tables: Table) -> None:
        deltas = tuple(difference(None, one) for one in tables)
        self.worker.take(Networks(seq=seq, full=True, deltas=deltas, removed=()))

    def run(self, scenario: Callable[[Place], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            process = Process("agent")
            self.worker = FabricWorker(
                "here", "192.0.2.1", self.kernel.ports(process), SimDisk(Platter("seed"), process), self._seen,
                dict, lambda: None, self.applied.append,
            )  # fmt: skip
            working = asyncio.ensure_future(self.worker.run())
            playing = asyncio.ensure_future(scenario(self))
            done, _ = await asyncio.wait({working, playing}, return_when="FIRST_COMPLETED")
            for one in done:
                one.result()

        self.loop.run(main())
        assert not self.problems


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.05)
