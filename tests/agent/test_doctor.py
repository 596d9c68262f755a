"""A node under examination, on simulated kernels: it looks, tries, and reports what it cannot mend."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from swarmpy.agent.doctor import SMALL, Examined
from swarmpy.agent.probing import Probing
from swarmpy.model import codec
from swarmpy.model.examination import NodeReport
from swarmpy.model.fabric import digest
from swarmpy.model.links import Station
from swarmpy.model.messages import Examine
from swarmpy.ports import FabricError, WireError
from swarmpy.sim.clock import SimEntropy
from swarmpy.sim.prober import SimProber, Underlay
from tests.agent.test_fabric import Networks, Scene, difference, play, table

KEY = b"k" * 32
HERE, THERE = "192.0.2.1", "192.0.2.2"


class Ways:
    """ports.Trials: packets up to `widest` bytes arrive, `servers` answer."""

    def __init__(self) -> None:
        self.widest, self.servers = 1450, frozenset({"10.0.1.100"})
        self.refused = False
        self.asked: list[tuple[str, tuple[str, ...], int]] = []

    async def across(
        self, namespace: str, here: Station, there: Sequence[Station], size: int, patience: float
    ) -> frozenset[Station]:
        if self.refused:
            raise FabricError("no such namespace")
        self.asked.append((here.address, tuple(one.address for one in there), size))
        return frozenset(there) if size <= self.widest else frozenset()

    async def answers(
        self, namespace: str, addresses: Sequence[str], name: str, patience: float
    ) -> frozenset[str]:
        return self.servers & set(addresses)


class Engine:
    """The Engine's networks."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {"front": "n" * 25}

    async def networks(self) -> Mapping[str, str]:
        return self.known


class Wire:
    """The manager that asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, Mapping[str, Any]]] = []
        self.gone = False

    async def call(self, address: str, method: str, body: Mapping[str, Any], *, timeout: float = 5) -> Any:
        self.calls.append((address, method, body))
        if self.gone:
            raise WireError("gone")
        return {}


class Patient:
    """A node with one task on a network; another task is on a second node."""

    def __init__(self, scene: Scene) -> None:
        whole = table("t1", "t2")
        away = replace(whole.endpoints[1], node_id="n2", vtep=THERE)
        self.table = replace(whole, endpoints=(whole.endpoints[0], away), peers=(HERE, THERE))
        scene.worker.take(Networks(seq=1, full=True, deltas=(difference(None, self.table),)))
        self.scene, self.ways, self.engine, self.wire = scene, Ways(), Engine(), Wire()
        self.underlay = Underlay()
        self.other = SimProber(self.underlay)
        scene.ports = scene.worker.ports = type(scene.ports)(
            **{name: getattr(scene.ports, name) for name in scene.ports.__slots__}
            | {"trials": self.ways, "prober": SimProber(self.underlay)}
        )
        self.probing = Probing(
            scene.ports.prober, SimEntropy(1), lambda: HERE, lambda: scene.worker.tables, scene.worker.without
        )
        self.probing.know(KEY)
        self.doctor = Examined("n1", self.wire, self.engine, scene.worker, self.probing)  # type: ignore[arg-type]  # parts of them

    async def __aenter__(self) -> Patient:
        await self.other.serve(THERE, 7946, KEY)
        self.task = asyncio.ensure_future(self.probing.run())
        await asyncio.sleep(4)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.doctor.stop()
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    def wrong(self, report: NodeReport) -> list[str]:
        return [one.what for one in report.wrong]


def test_a_healthy_node_says_so_and_sends_it_to_whoever_asked():
    async def scenario(scene: Scene) -> None:
        async with Patient(scene) as patient:
            patient.doctor.begin(Examine(examination="e1", address="m1:2377"))
            await asyncio.sleep(4)
            [(address, method, body)] = patient.wire.calls
            assert (address, method, body["node_id"], body["examination"]) == (
                "m1:2377",
                "net.report",
                "n1",
                "e1",
            )
            report = codec.decode(NodeReport, body["report"])
            assert report == NodeReport(node_id="n1", digests={"n" * 25: digest(patient.table)}, tried=2)
            assert sorted(patient.ways.asked) == [
                ("10.0.1.1", ("10.0.1.2",), SMALL),
                ("10.0.1.1", ("10.0.1.2",), 1450),
            ]

    play(scenario)


def test_what_is_wrong_is_in_the_report():
    async def scenario(scene: Scene) -> None:
        async with Patient(scene) as patient:
            scene.balancer.refused = "/ns/t1"
            scene.kernel.flush("/ns/t1")
            patient.ways.widest = 1000
            patient.ways.servers = frozenset()
            patient.engine.known = {}
            patient.underlay.mtu = 1400
            report = await patient.doctor.examine(())
            assert patient.wrong(report) == [
                "no link has the ingress address (yet)",
                "its name server at 10.0.1.100 does not answer",
                "its Engine has no network front of this cluster, though tasks on it run",
            ]
            [path] = report.paths
            assert (path.peer, path.small, path.full) == (THERE, True, False)
            [way] = report.crossings
            assert (way.node_id, way.address, way.small, way.full) == ("n2", "10.0.1.2", True, False)
            assert report.mended == ()  # it is not mended yet: it is among what is wrong
            patient.ways.refused = True
            again = await patient.doctor.examine(())
            assert [(one.small, one.full) for one in again.crossings] == [(False, False)]

    play(scenario)


def test_only_the_networks_that_are_asked_for_are_looked_at():
    async def scenario(scene: Scene) -> None:
        async with Patient(scene) as patient:
            report = await patient.doctor.examine(("other",))
            assert (report.digests, report.tried) == ({}, 0)
            assert patient.ways.asked == []

    play(scenario)


def test_a_network_that_does_not_come_to_rest_delays_the_report_only_so_long():
    async def scenario(scene: Scene) -> None:
        async with Patient(scene) as patient:
            scene.kernel.hang()
            began = asyncio.get_running_loop().time()
            report = await patient.doctor.examine(())
            assert asyncio.get_running_loop().time() - began < 9
            assert "its network did not come to rest within 5 s" in patient.wrong(report)
            scene.kernel.unhang()

    play(scenario)


def test_a_manager_that_is_gone_and_too_many_who_ask_harm_nothing():
    async def scenario(scene: Scene) -> None:
        async with Patient(scene) as patient:
            patient.wire.gone = True
            for number in range(20):
                patient.doctor.begin(Examine(examination=str(number), address="m1:2377"))
            await asyncio.sleep(10)
            assert len(patient.wire.calls) == 4
            patient.doctor.begin(Examine(examination="last", address="m1:2377"))
            await asyncio.sleep(10)
            assert len(patient.wire.calls) == 5

    play(scenario)
