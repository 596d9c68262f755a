"""The doctor between the nodes, in virtual time: who reports, who is named, and how long it may take."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from swarmpy.manager.doctor import ANSWER, PASS_ON, NetDoctor
from swarmpy.manager.sessions import Session
from swarmpy.model import codec
from swarmpy.model import messages as m
from swarmpy.model.errors import NotFound, Unavailable
from swarmpy.model.examination import Held, NodeReport
from swarmpy.model.fabric import digest
from swarmpy.plan import tables
from swarmpy.ports import Body, Examination, Peer, RefusedError, WireError
from tests.manager.fakes import pipe
from tests.manager.test_control import Dice
from tests.manager.test_silent_machines import READER, in_virtual_time
from tests.plan.test_doctor import ALL, NETWORK, Ward


class Clinic:
    """A doctor who is the leader too, over nodes that answer as a test says."""

    def __init__(self) -> None:
        self.ward = Ward()
        self.doctor = NetDoctor(Dice(), "m1:2377", self.call, self.tell)
        self.missing: list[str] = []
        self.mute: set[str] = set()
        self.leaderless = 0
        self.told: list[m.Examine] = []
        self.jobs: list[asyncio.Future[None]] = []

    async def call(self, method: str, body: Body) -> Body:
        if self.leaderless:
            self.leaderless -= 1
            raise WireError("no leader")
        serve = {"net.examine": self.doctor.serve_examine, "net.told": self.doctor.serve_told}[method]
        return await serve(READER, body)

    async def tell(self, wanted: Mapping[str, m.Down]) -> list[str]:
        for node, message in wanted.items():
            assert isinstance(message, m.Examine)
            self.told.append(message)
            if node not in self.mute and node not in self.missing:
                self.jobs.append(asyncio.ensure_future(self.answer(node, message.examination)))
        return self.missing

    async def answer(self, node: str, key: str) -> None:
        await asyncio.sleep(1)
        await self.report(node, key, self.ward.report(node))

    async def report(self, node: str, key: str, report: NodeReport) -> Body:
        body = {"node_id": node, "examination": key, "report": codec.encode(report)}
        return await self.doctor.serve_report(Peer(node, "worker", "c", "1"), body)

    async def examine(self, *networks: str) -> Examination:
        async def read():  # type: ignore[no-untyped-def]
            return self.ward.world

        return await self.doctor.examine(read, networks)


def test_all_report_and_all_is_well() -> None:
    async def work() -> None:
        clinic = Clinic()
        found = await clinic.examine(NETWORK)
        assert found == Examination((NETWORK,), ALL, (), 0, ())
        assert found.healthy
        assert {one.networks for one in clinic.told} == {(NETWORK,)}
        everything = await clinic.examine()
        assert everything.networks == (NETWORK,)

    assert in_virtual_time(work) < 3


def test_nodes_without_a_session_are_named_at_once_and_silent_ones_after_a_while() -> None:
    async def missing() -> None:
        clinic = Clinic()
        clinic.missing = ["node-b"]
        found = await clinic.examine(NETWORK)
        assert found.silent == ("node-b",)
        assert [one.node for one in found.findings] == ["b"]
        assert not found.healthy

    assert in_virtual_time(missing) < 2

    async def mute() -> None:
        clinic = Clinic()
        clinic.mute = {"node-c"}
        found = await clinic.examine(NETWORK)
        assert (found.reported, found.silent) == (("node-a", "node-b"), ("node-c",))

    assert ANSWER <= in_virtual_time(mute) < ANSWER + 1


def test_a_machine_that_its_peers_do_not_hear_is_not_waited_for() -> None:
    async def work() -> None:
        clinic = Clinic()
        clinic.mute = {"node-c"}
        whole = clinic.ward.report

        def report(node_id: str, **fields: object) -> NodeReport:
            return whole(node_id, lost=("192.0.2.3",), **fields)

        clinic.ward.report = report  # type: ignore[method-assign]
        found = await clinic.examine(NETWORK)
        assert (found.reported, found.silent) == (("node-a", "node-b"), ("node-c",))

    assert in_virtual_time(work) < 3


def test_a_leader_that_comes_soon_is_waited_for_and_none_is_said() -> None:
    async def soon() -> None:
        clinic = Clinic()
        clinic.leaderless = 5
        assert (await clinic.examine(NETWORK)).healthy

    in_virtual_time(soon)

    async def never() -> None:
        clinic = Clinic()
        clinic.leaderless = 10**9
        with pytest.raises(Unavailable, match="no leader that could ask"):
            await clinic.examine(NETWORK)
        with pytest.raises(Unavailable, match="does not say how far"):
            await clinic.doctor.told(NETWORK)

    assert in_virtual_time(never) <= PASS_ON + 1


def test_an_unknown_network_is_refused() -> None:
    async def work() -> None:
        with pytest.raises(NotFound, match="network nope not found"):
            await Clinic().examine("nope")

    in_virtual_time(work)


def test_reports_that_nobody_waits_for_are_for_others_or_are_garbage_are_refused() -> None:
    async def work() -> None:
        clinic = Clinic()
        clinic.mute = {"node-b", "node-c"}
        examining = asyncio.ensure_future(clinic.examine(NETWORK))
        await asyncio.sleep(2)
        key = clinic.told[0].examination
        report = clinic.ward.report("node-b")
        for node, case, text, why in (
            ("node-b", "other", codec.encode(report), "nobody waits"),
            ("node-a", key, codec.encode(clinic.ward.report("node-a")), "nobody waits"),
            ("node-z", key, codec.encode(report), "nobody waits"),
            ("node-c", key, codec.encode(report), "only report of itself"),
            ("node-b", key, b"\xc1garbage", "malformed"),
        ):
            body = {"node_id": node, "examination": case, "report": text}
            with pytest.raises(RefusedError, match=why):
                await clinic.doctor.serve_report(Peer(node, "worker", "c", "1"), body)
        await clinic.report("node-b", key, report)
        found = await examining
        assert found.silent == ("node-c",)

    in_virtual_time(work)


def test_how_far_each_node_is_comes_from_its_session() -> None:
    async def work() -> None:
        clinic = Clinic()
        world = clinic.ward.world
        held = tables.table(world, world.networks[NETWORK])
        _, end = pipe(READER, Peer("node-a", "worker", "c", "1"))
        here, gone = Session("node-a", end, 0.0), Session("node-b", end, 0.0)
        here.networks.tables, here.networks.settled = {NETWORK: held}, 41
        clinic.doctor.sessions = lambda: {"node-a": here, "node-b": gone}
        assert await clinic.doctor.told(NETWORK) == {"node-a": Held(digest=digest(held), version=41)}

    in_virtual_time(work)
