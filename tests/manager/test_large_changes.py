"""Changes that do not fit one entry of the log: they are made in parts or refused with a sentence, and never end
the leader's reign. A plan that can never be committed would be a cluster that nobody leads."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from swarmpy.adapters.raft.settings import RaftSettings
from swarmpy.model.commands import CreateService, ObserveNode, ReportTasks, UpdateNode, UpdateService
from swarmpy.model.errors import InvalidArgument
from swarmpy.model.lifecycle import NodeState, TaskState
from swarmpy.model.objects import Description, TaskStatus
from swarmpy.plan.admission.tasks import portions
from tests.manager.test_writer import Running

MOST = RaftSettings().max_entry


def text(name: str, replicas: int, size: int) -> str:
    container = {"Image": "web:1", "Env": ["A=" + "x" * size]}
    mode = {"Replicated": {"Replicas": replicas}}
    return json.dumps({"Name": name, "TaskTemplate": {"ContainerSpec": container}, "Mode": mode})


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    made = Running()
    await made.begin()
    about = Description(hostname="m1", nano_cpus=1)
    await made.writer.submit(ObserveNode(node="m1", state=NodeState.READY, description=about))
    yield made
    assert not made.task.done(), "the leader's reign ended"
    made.task.cancel()
    await asyncio.gather(made.task, return_exceptions=True)


async def all_placed(running: Running, service: str, count: int) -> None:
    async with asyncio.timeout(20):
        while len([one for one in running.store.world.tasks_of(service) if one.node_id]) < count:
            await running.store.changed(running.store.world.version, timeout=5)


async def test_many_tasks_of_a_large_template(running: Running) -> None:
    await running.writer.submit(CreateService(id="s", spec=text("web", 50, 60_000)))
    await all_placed(running, "s", 50)
    assert sum(map(len, running.log.entries)) > 2 * MOST
    # And so is what is decided later: all of them are renewed at once.
    service = running.store.world.services["s"]
    spec = json.loads(service.spec) | {"UpdateConfig": {"Parallelism": 0}}
    spec["TaskTemplate"]["ForceUpdate"] = 1
    command = UpdateService(service="s", version=service.version, spec=json.dumps(spec), auth_from="spec")
    await running.writer.submit(command)
    async with asyncio.timeout(20):
        while len(running.store.world.tasks_of("s")) < 100:
            await running.store.changed(running.store.world.version, timeout=5)


async def test_many_large_commands_at_once(running: Running) -> None:
    names = [f"s{number}" for number in range(30)]
    answers = await asyncio.gather(
        *(running.writer.submit(CreateService(id=name, spec=text(name, 1, 100_000))) for name in names)
    )
    assert [one.id for one in answers] == names


async def test_one_change_that_fits_no_entry_is_refused(running: Running) -> None:
    node = running.store.world.nodes["m1"]
    spec = json.dumps({"Role": "manager", "Availability": "active", "Labels": {"a": "x" * MOST}})
    with pytest.raises(InvalidArgument) as refused:
        await running.writer.submit(UpdateNode(node="m1", version=node.version, spec=spec))
    assert (
        "bytes, and 1200000 are the most that one change may have: make it smaller" in refused.value.message
    )


async def test_a_service_is_small_enough_to_be_changed(running: Running) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await running.writer.submit(CreateService(id="s", spec=text("web", 1, 300_000)))
    assert refused.value.message.endswith(
        "bytes, and 262144 are the most that a service may have, as each of its tasks carries it: put what is large "
        "into the image or a volume"
    )
    await running.writer.submit(CreateService(id="s", spec=text("web", 1, 250_000)))
    service = running.store.world.services["s"]
    command = UpdateService(service="s", version=service.version, spec=text("web", 2, 250_001))
    await running.writer.submit(command)
    await all_placed(running, "s", 2)


async def test_a_report_on_many_large_tasks(running: Running) -> None:
    await running.writer.submit(CreateService(id="s", spec=text("web", 50, 60_000)))
    await all_placed(running, "s", 50)
    world = running.store.world
    status = TaskStatus(state=TaskState.RUNNING)
    statuses = tuple((task.id, status) for task in world.tasks_of("s"))
    parts = portions(world, (*statuses, ("unknown", status)))
    assert [one for part in parts for one in part] == [*statuses, ("unknown", status)]
    assert 2 < len(parts) < 10
    for part in parts:
        await running.writer.submit(ReportTasks(node="m1", statuses=part))
    assert {one.status.state for one in running.store.world.tasks_of("s")} == {TaskState.RUNNING}
    assert portions(world, ()) == ((),)
