"""A manager whose disk is full or damaged: it says so in a sentence, touches no container, and comes back.

Whole nodes in virtual time, on simulated disks and Engines.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from swarmpy.adapters.raft import RaftSettings
from swarmpy.api.info import Info
from swarmpy.model.commands import CreateService, UpdateNode, UpdateService
from swarmpy.model.errors import Refusal
from swarmpy.model.ids import derive
from swarmpy.node.node import Node
from swarmpy.ports import Control, NodeView
from swarmpy.sim.cluster import Cluster
from swarmpy.sim.stage import Box
from swarmpy.sim.tools import SimTools, repeatable_pki
from swarmpy.sim.workload import service_spec

SENTENCE = re.compile(r"[^\n]{40,500}")
NAME = derive("sim service", "web")


class Site:
    """A cluster of which single nodes break, and an operator who looks at it."""

    def __init__(self, managers: int = 1, workers: int = 0) -> None:
        self.cluster = Cluster(5, managers=managers, workers=workers, clients=0, faults=[])
        self.cluster.settings = RaftSettings(snapshot_entries=20, keep_entries=5)
        self.stage = self.cluster.stage
        for box in self.stage.boxes.values():
            box._program = self.program

    async def program(self, box: Box) -> None:
        """The daemon: it starts, and stays whatever its state is."""
        node = Node(SimTools(box, self.cluster.settings, self.cluster._made_log))
        box.program_state |= {"node": node, "leads": lambda: self.cluster._leads(node)}
        await node.start()
        if node.view().state == "inactive" and not self.cluster.formed:
            await self.cluster._enter(box, node)
        box.program_state["joined"] = True
        await asyncio.get_running_loop().create_future()

    def run(self, scenario: Callable[[], Awaitable[None]]) -> None:
        async def main() -> None:
            await self.cluster.form()
            await scenario()
            assert not self.stage.loop.problems
            assert not self.stage.net.problems

        with repeatable_pki("broken log"):
            self.stage.loop.run(main())
        assert self.stage.violation is None

    def box(self, name: str) -> Box:
        return self.stage.boxes[name]

    def node(self, name: str) -> Node:
        node: Node = self.box(name).program_state["node"]
        return node

    def view(self, name: str) -> NodeView:
        return self.node(name).view()

    def control(self, name: str) -> Control:
        control = self.node(name).control
        assert control is not None
        return control

    async def until(self, condition: Callable[[], Any], patience: float = 30.0) -> None:
        async with asyncio.timeout(patience):
            while not condition():
                await asyncio.sleep(0.1)

    async def on(self, name: str, work: Callable[[], Awaitable[Any]], patience: float = 30.0) -> Any:
        """Do it inside the node's process, again while it is refused as unavailable."""

        async def insist() -> Any:
            while True:
                try:
                    return await work()
                except Refusal:
                    await asyncio.sleep(0.2)

        async with asyncio.timeout(patience):
            return await self.stage.loop.spawn(self.box(name).process, insist())

    async def serve(self, replicas: int, mark: str = "1", on: str = "m1") -> None:
        async def work() -> None:
            spec = service_spec("web", replicas=replicas, mark=mark, image="web:1")
            world = await self.control(on).world()
            found = next((one for one in world.services if one.id == NAME), None)
            if found is None:
                await self.control(on).submit(CreateService(id=NAME, spec=spec))
            else:
                await self.control(on).submit(UpdateService(service=NAME, version=found.version, spec=spec))

        await self.on(on, work)
        await self.until(lambda: len(self.running()) == replicas)

    async def set_role(self, name: str, role: str, on: str = "m1") -> None:
        key = self.view(name).node_id

        async def work() -> None:
            world = await self.control(on).world()
            node = next(one for one in world.nodes if one.id == key)
            spec = {**json.loads(node.spec), "Role": role}
            await self.control(on).submit(UpdateNode(node=key, version=node.version, spec=json.dumps(spec)))

        await self.on(on, work)

    def running(self, name: str | None = None) -> dict[str, int]:
        """Containers that run, with the count of their starts."""
        boxes = self.stage.boxes.values() if name is None else [self.box(name)]
        return {
            container.id: container.life
            for box in boxes
            for container in box.dockerd.listed
            if container.state == "running"
        }

    async def fill(self, name: str) -> None:
        """Fill the disk to the last byte, and write until the log notices."""
        platter = self.box(name).platter
        platter.capacity = platter.used

        async def attempt() -> None:
            count = 0
            while self.view(name).state != "error":
                count += 1
                try:
                    spec = service_spec(f"big{count}", replicas=0, mark="x", image="web:1")
                    await self.control(name).submit(CreateService(id=derive("big", str(count)), spec=spec))
                except Refusal:
                    await asyncio.sleep(0.05)

        async with asyncio.timeout(20):
            await self.stage.loop.spawn(self.box(name).process, attempt())


async def shown(site: Site, name: str) -> dict[str, Any]:
    """What `swarmpy info` gets from the node's API."""

    class OneNode:
        local = site.node(name)

        @staticmethod
        def control() -> Control:
            return site.control(name)

    made: dict[str, Any] = await site.stage.loop.spawn(
        site.box(name).process,
        Info(OneNode()).swarm(),  # type: ignore[arg-type]  # the two members that it uses
    )
    return made


def no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    told = [record for record in caplog.records if record.exc_info or "Traceback" in record.getMessage()]
    assert not told, caplog.text


def says(view: NodeView, *parts: str) -> None:
    assert view.state == "error"
    assert SENTENCE.fullmatch(view.error), view.error
    assert "Errno" not in view.error
    for part in parts:
        assert part in view.error, view.error


def test_a_full_disk_stops_the_log_with_a_sentence_and_room_starts_it_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    site = Site()

    async def scenario() -> None:
        await site.serve(3)
        before = site.running()
        await site.fill("m1")
        says(site.view("m1"), "disk is full", "make room", "by itself")
        info = await shown(site, "m1")
        assert info["LocalNodeState"] == "error"
        assert info["Error"] == site.view("m1").error
        await asyncio.sleep(20)
        says(site.view("m1"), "disk is full")
        assert site.running() == before
        site.box("m1").platter.capacity = None
        await site.until(lambda: site.view("m1").state == "active", patience=15)
        await site.serve(4, "2")
        assert before.items() <= site.running().items()

    site.run(scenario)
    no_traceback(caplog)


def test_a_daemon_started_on_a_full_disk_waits_for_room_and_keeps_its_containers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    site = Site()

    async def scenario() -> None:
        await site.serve(3)
        before = site.running()
        await site.fill("m1")
        box = site.box("m1")
        box.kill()
        box.platter.capacity = box.platter.used
        box.start()
        await site.until(lambda: box.program_state.get("joined"))
        says(site.view("m1"), "disk is full", "make room", "by itself")
        assert (await shown(site, "m1"))["Error"] == site.view("m1").error
        await asyncio.sleep(30)
        says(site.view("m1"), "disk is full")
        assert site.running() == before
        box.platter.capacity = None
        await site.until(lambda: site.view("m1").state == "active", patience=90)
        await site.serve(4, "2")
        assert before.items() <= site.running().items()

    site.run(scenario)
    no_traceback(caplog)


def corrupt(box: Box) -> None:
    (name,) = [path for path in box.platter.live if path.startswith("raft/journal/")]
    box.platter.rot(name, 40)


def test_a_damaged_journal_leaves_the_worker_at_work_and_demotion_and_promotion_heal_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    site = Site(managers=3)

    async def scenario() -> None:
        await site.until(lambda: not site.box("m3").leads())
        await site.serve(6)
        before = site.running()
        assert site.running("m3")
        box = site.box("m3")
        box.kill()
        corrupt(box)
        box.start()
        await site.until(lambda: box.program_state.get("joined"))
        says(site.view("m3"), "is damaged at byte", "join it again")
        assert (await shown(site, "m3"))["Error"] == site.view("m3").error
        await asyncio.sleep(15)
        assert site.running() == before, "nothing was stopped, started or moved"
        await site.serve(9, "1")
        assert len(site.running("m3")) > len(before) // 3, "it still works as a worker"
        assert before.items() <= site.running().items()
        key = site.view("m3").node_id
        await site.set_role("m3", "worker")
        await site.until(lambda: not site.view("m3").is_manager, patience=60)
        assert (site.view("m3").state, site.view("m3").error) == ("active", "")
        await asyncio.sleep(3)
        member: Any = site.node("m3")._member
        assert "seat" not in {task.get_name() for task in member._tasks}, "a worker asks for no seat"
        await site.set_role("m3", "manager")
        await site.until(lambda: site.view("m3").is_manager, patience=60)
        await site.on("m3", lambda: site.control("m3").world())
        assert (site.view("m3").state, site.view("m3").node_id) == ("active", key)
        assert before.items() <= site.running().items()

    site.run(scenario)
    no_traceback(caplog)


def test_a_manager_whose_journal_is_gone_does_not_vote_again_and_a_new_seat_heals_it() -> None:
    """Empty, it would promise and vote once more for a seat whose promises are forgotten: entries that two
    of three managers held could be lost with them."""
    site = Site(managers=3)

    async def scenario() -> None:
        await site.until(lambda: not site.box("m3").leads())
        await site.serve(3)
        before = site.running()
        box = site.box("m3")
        box.kill()
        for path in [path for path in box.platter.live if path.startswith("raft/")]:
            del box.platter.live[path], box.platter.durable[path]
        box.platter.folders -= {"raft", "raft/journal", "raft/snapshot"}
        site.cluster.watch.forget(box)
        box.start()
        await site.until(lambda: box.program_state.get("joined"))
        await asyncio.sleep(10)
        says(site.view("m3"), "journal of this manager is missing", "demote", "promote")
        assert not [path for path in box.platter.live if path.startswith("raft/")]
        await site.set_role("m3", "worker")
        await site.until(lambda: site.view("m3").state == "active", patience=60)
        await site.set_role("m3", "manager")
        await site.until(lambda: site.view("m3").is_manager, patience=60)
        await site.on("m3", lambda: site.control("m3").world())
        assert site.view("m3").state == "active"
        assert site.running() == before

    site.run(scenario)


def test_a_damaged_journal_that_was_put_back_is_taken_up_without_a_restart() -> None:
    site = Site()

    async def scenario() -> None:
        await site.serve(2)
        before = site.running()
        box = site.box("m1")
        box.kill()
        corrupt(box)
        box.start()
        await site.until(lambda: box.program_state.get("joined"))
        says(site.view("m1"), "is damaged at byte")
        await asyncio.sleep(60)
        says(site.view("m1"), "is damaged at byte")
        corrupt(box)  # the same bits again: whole
        await site.until(lambda: site.view("m1").state == "active", patience=90)
        await site.serve(3, "2")
        assert before.items() <= site.running().items()

    site.run(scenario)


def test_a_node_with_a_damaged_journal_can_leave_and_begin_again() -> None:
    site = Site()

    async def scenario() -> None:
        await site.serve(2)
        box = site.box("m1")
        box.kill()
        corrupt(box)
        box.start()
        await site.until(lambda: box.program_state.get("joined"))
        says(site.view("m1"), "is damaged at byte")
        async with asyncio.timeout(60):
            await site.stage.loop.spawn(box.process, site.node("m1").leave(force=True))
        assert site.view("m1") == NodeView(state="inactive")
        assert site.running() == {}, "leaving removes the cluster's containers"

    site.run(scenario)
