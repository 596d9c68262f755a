"""The one writer: batches, answers, retries, and losing the leadership."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from swarmpy.manager.store import Store
from swarmpy.manager.writer import PLANNED, ClusterTime, Writer, coalesce
from swarmpy.model import codec
from swarmpy.model.commands import CreateService, InitCluster, ObserveNode, RemoveService, UpdateCluster
from swarmpy.model.errors import AlreadyExists, NotFound, OutOfSequence, Unavailable
from swarmpy.model.lifecycle import NodeState, Role, TaskState
from swarmpy.model.objects import Cluster, Description, Node, NodeStatus, Service
from swarmpy.plan.manager import Planner
from swarmpy.plan.types import Plan
from swarmpy.ports import NotLeaderError
from swarmpy.state.changes import Batch, Delete, Put
from swarmpy.state.snapshot import Snapshot
from tests.manager.fakes import LocalLog

SPEC = (
    '{"Name":"%s","TaskTemplate":{"ContainerSpec":{"Image":"web:1"}},"Mode":{"Replicated":{"Replicas":%d}}}'
)


class StepClock:
    """A clock that only moves when told."""

    def __init__(self) -> None:
        self.wall, self.mono = 1_000, 0.0

    def now(self) -> int:
        return self.wall

    def monotonic(self) -> float:
        return self.mono


class Running:
    """A writer that leads, over a log in memory."""

    def __init__(self) -> None:
        self.store = Store()
        self.log = LocalLog(self.store)
        self.clock = StepClock()
        self.writer = Writer(self.log, self.store, self.clock)
        self.task = asyncio.create_task(self.writer.lead())

    async def begin(self) -> None:
        await self.writer.opened.wait()
        await self.writer.submit(
            InitCluster(
                cluster=Cluster(id="c"),
                node_id="m1",
                address="10.0.0.1",
                manager_address="10.0.0.1:2377",
                certificate="",
                description=Description(hostname="m1"),
            )
        )


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    made = Running()
    await made.begin()
    yield made
    made.task.cancel()
    await asyncio.gather(made.task, return_exceptions=True)


def create(name: str, replicas: int = 3, **more: str) -> CreateService:
    return CreateService(id=f"id-{name}", spec=SPEC % (name, replicas), **more)


async def test_a_service_reaches_assigned_tasks_in_one_entry(running: Running) -> None:
    before = len(running.log.entries)
    result = await running.writer.submit(create("web"))
    tasks = running.store.world.tasks_of(result.id)
    assert len(running.log.entries) == before + 1
    assert [task.slot for task in tasks] == [1, 2, 3]
    assert {task.status.state for task in tasks} == {TaskState.ASSIGNED}
    assert result.index == running.store.world.version


async def test_what_arrives_meanwhile_goes_into_one_batch(running: Running) -> None:
    running.log.hold = asyncio.Event()
    first = asyncio.ensure_future(running.writer.submit(create("a")))
    await asyncio.sleep(0)
    others = [asyncio.ensure_future(running.writer.submit(create(name))) for name in "bcd"]
    await asyncio.sleep(0)
    before = len(running.log.entries)
    running.log.hold.set()
    await asyncio.gather(first, *others)
    assert len(running.log.entries) == before + 2


async def test_a_refusal_waits_for_what_it_is_based_on_and_changes_nothing(running: Running) -> None:
    await running.writer.submit(create("web"))
    world = running.store.world
    with pytest.raises(AlreadyExists):
        await running.writer.submit(create("WEB"))
    with pytest.raises(NotFound):
        await running.writer.submit(RemoveService(service="nothing"))
    assert running.store.world.services == world.services


async def test_two_of_one_name_in_one_batch(running: Running) -> None:
    one = create("same")
    two = CreateService(id="other", spec=SPEC % ("same", 1))
    answers = await asyncio.gather(
        running.writer.submit(one), running.writer.submit(two), return_exceptions=True
    )
    assert [type(answer).__name__ for answer in answers] == ["Result", "AlreadyExists"]


async def test_a_retried_request_is_carried_out_once(running: Running) -> None:
    command = create("web", request_id="r1")
    first = await running.writer.submit(command)
    again = await running.writer.submit(command)
    assert again.id == first.id
    both = await asyncio.gather(*(running.writer.submit(create("twin", request_id="r2")) for _ in range(2)))
    assert both[0].id == both[1].id


async def test_stale_versions_are_refused(running: Running) -> None:
    with pytest.raises(OutOfSequence):
        await running.writer.submit(UpdateCluster(version=99, spec="{}"))


async def test_losing_the_leadership_answers_everyone(running: Running) -> None:
    running.log.hold = asyncio.Event()
    caught = asyncio.ensure_future(running.writer.submit(create("a")))
    await asyncio.sleep(0)
    queued = asyncio.ensure_future(running.writer.submit(create("b")))
    await asyncio.sleep(0)
    running.log.depose()
    running.log.hold.set()
    answers = await asyncio.gather(caught, queued, return_exceptions=True)
    assert all(isinstance(answer, Unavailable) for answer in answers)
    with pytest.raises(NotLeaderError):
        await running.task
    with pytest.raises(Unavailable):
        await running.writer.submit(create("c"))


async def test_an_entry_does_not_grow_with_the_service(running: Running) -> None:
    await running.writer.submit(
        ObserveNode(node="m1", state=NodeState.READY, description=Description(hostname="m1", nano_cpus=1))
    )
    result = await running.writer.submit(create("big", replicas=PLANNED * 2 + 10))
    while len(running.store.world.tasks_of(result.id)) < PLANNED * 2 + 10:
        await running.store.changed(running.store.world.version, timeout=5)
    sizes = [len(codec.decode(Batch, entry).changes) for entry in running.log.entries]
    assert max(sizes) <= PLANNED + 1


async def test_a_batch_on_a_world_that_moved_is_decided_anew(running: Running) -> None:
    running.log.hold = asyncio.Event()
    answer = asyncio.ensure_future(running.writer.submit(create("late")))
    await asyncio.sleep(0)
    world = running.store.world
    other = Put(Service(id="s9", name="other", spec=SPEC % ("other", 0)))
    running.store.apply(
        running.log.status().commit_index + 1,
        codec.encode(Batch(based_on=world.version, at=world.at, changes=(other,))),
    )
    running.log._index += 1
    running.log.hold.set()
    assert (await answer).id == "id-late"
    assert running.store.world.service_named("late") is not None


def test_cluster_time_never_goes_back() -> None:
    clock = StepClock()
    time = ClusterTime(clock, Snapshot(at=5_000))
    assert time.now() == 5_000
    clock.wall = -10
    clock.mono = 2.0
    assert time.now() == 5_000 + 2_000_000_000


def test_coalescing_keeps_the_last_of_each_object() -> None:
    first = Put(Service(id="s", name="a", spec="{}"), "made")
    second = Put(Service(id="s", name="b", spec="{}"), "renamed")
    gone = Delete("service", "t")
    merged = coalesce([first, gone, second])
    assert len(merged) == 2
    assert isinstance(merged[0], Put)
    assert merged[0].cause == "made; renamed"
    assert merged[0].item == second.item


async def test_a_new_leader_gives_every_node_its_time_again_before_it_decides_anything() -> None:
    running = Running()
    await running.begin()
    seen = ObserveNode(node="m1", state=NodeState.UNKNOWN, message="the leader changed")
    await running.writer.submit(seen)
    running.task.cancel()
    await asyncio.gather(running.task, return_exceptions=True)
    # Nobody leads for a minute; under the old leader the node's time would be over.
    running.clock.wall += 60 * 10**9
    running.clock.mono += 60
    next_leader = Writer(running.log, running.store, running.clock)
    leading = asyncio.create_task(next_leader.lead())
    version = running.store.world.version
    await running.store.changed(version, timeout=5)
    status = running.store.world.nodes["m1"].status
    assert (status.state, status.since) == (NodeState.UNKNOWN, running.clock.wall)
    leading.cancel()
    await asyncio.gather(leading, return_exceptions=True)


async def test_a_new_leader_of_thousands_of_nodes_needs_several_entries_and_plans_after_them() -> None:
    running = Running()
    await running.begin()
    running.task.cancel()
    await asyncio.gather(running.task, return_exceptions=True)
    labels = {"role": "x" * 2000}
    nodes = [
        Node(
            id=f"n{number}", role=Role.WORKER, spec="{}", description=Description(engine_labels=labels),
            status=NodeStatus(state=NodeState.DOWN if number == 7 else NodeState.READY, since=1),
        )
        for number in range(1500)
    ]  # fmt: skip
    for part in range(0, len(nodes), 500):
        changes = tuple(Put(one, "joined") for one in nodes[part : part + 500])
        world = running.store.world
        await running.log.propose(
            codec.encode(Batch(based_on=world.version, at=world.at + 1, changes=changes))
        )
    entries = len(running.log.entries)
    next_leader = Writer(running.log, running.store, running.clock)
    leading = asyncio.create_task(next_leader.lead())
    await next_leader.opened.wait()
    # Nobody judges nodes by what the last leader knew: the dispatcher begins when this is open.
    assert NodeState.READY not in {one.status.state for one in running.store.world.nodes}
    await next_leader.submit(create("web"))
    leading.cancel()
    await asyncio.gather(leading, return_exceptions=True)
    written = running.log.entries[entries:]
    assert len(written) >= 3
    assert max(map(len, written)) < 1_500_000
    states = [one.status.state for one in running.store.world.nodes if one.id != "m1"]
    assert (states.count(NodeState.UNKNOWN), states.count(NodeState.DOWN)) == (1499, 1)


async def test_a_term_has_one_planner_which_knows_the_world_before_its_first_plan() -> None:
    running = Running()
    await running.begin()
    await running.writer.submit(create("web"))
    running.task.cancel()
    await asyncio.gather(running.task, return_exceptions=True)
    heard: list[str] = []

    class Listening(Planner):
        def prepare(self, world: Snapshot) -> Iterator[None]:
            heard.append("new")
            for portion in super().prepare(world):
                heard.append("portion")
                yield portion

        def plan(self, now: int, world: Snapshot) -> Plan:
            heard.append("plan")
            return super().plan(now, world)

    next_leader = Writer(running.log, running.store, running.clock, Listening)
    leading = asyncio.create_task(next_leader.lead())
    await next_leader.opened.wait()
    await next_leader.submit(create("shop"))
    leading.cancel()
    await asyncio.gather(leading, return_exceptions=True)
    assert heard.count("new") == 1
    first = heard.index("plan")
    assert set(heard[:first]) == {"new", "portion"}
    assert set(heard[first:]) == {"plan"}
