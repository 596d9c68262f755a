"""The dispatcher's end of a session: registration, differences, reports, silence."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from swarmpy.manager.dispatcher import Dispatcher
from swarmpy.model import messages as m
from swarmpy.model.commands import (
    CreateService,
    JoinNode,
    ObserveNode,
    RemoveNode,
    RemoveService,
    UpdateNode,
    UpdateService,
)
from swarmpy.model.lifecycle import NodeState, Role, TaskState
from swarmpy.model.objects import Description, TaskStatus
from swarmpy.plan.liveness import silence_allowed
from swarmpy.ports import Peer, RefusedError, WireError
from swarmpy.state.changes import Delete, Put
from tests.manager.fakes import Pipe, pipe
from tests.manager.test_writer import SPEC, Running

BOSS = Peer("m1", "manager", "c", "1", "10.0.0.1")


class Cluster(Running):
    """A leader with its dispatcher, and nodes that are only ends of sessions."""

    async def begin(self) -> None:
        await super().begin()
        self.dispatcher = Dispatcher(
            self.writer.submit, lambda: self.store.world, self.clock, self.log.status
        )
        self.store.watch(self.dispatcher.moved)
        self.watching = asyncio.create_task(self.dispatcher.run())
        await self.writer.submit(JoinNode(id="w1", role=Role.WORKER, address="10.0.0.2", certificate=""))

    def dial(self, node_id: str, hello: dict[str, object] | None = None) -> tuple[Pipe, asyncio.Task[None]]:
        near, far = pipe(Peer(node_id, "worker", "c", "2", "10.0.0.2"), BOSS)
        body = hello or m.to_body(m.Hello(node_id=node_id, description=Description(hostname=node_id)))

        async def serve() -> None:
            try:
                await self.dispatcher.serve(far, body)
            finally:
                await far.close()

        return near, asyncio.create_task(serve())

    async def node_is(self, node_id: str, state: NodeState) -> None:
        async with asyncio.timeout(5):
            while self.store.world.nodes[node_id].status.state is not state:
                await self.store.changed(self.store.world.version, timeout=5)


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    made = Cluster()
    await made.begin()
    yield made
    for task in (made.watching, made.task):
        task.cancel()
    await asyncio.gather(made.watching, made.task, return_exceptions=True)


@pytest.mark.parametrize(
    ("said", "taken"),
    [
        ("10.0.0.7", "10.0.0.7"),
        ("fd00::7", "fd00::7"),
        ("", "10.0.0.2"),
        ("10.0.0.7:60254", "10.0.0.2"),
        ("0.0.0.0", "10.0.0.2"),
        ("224.0.0.1", "10.0.0.2"),
        ("} flush ruleset", "10.0.0.2"),
    ],
)
async def test_a_nodes_address_is_an_address(cluster: Cluster, said: str, taken: str) -> None:
    """It is written into every node's rule set: one bad word of one node would stop the networks of all."""
    hello = m.Hello(node_id="w1", description=Description(hostname="w1"), address=said)
    _, serving = cluster.dial("w1", m.to_body(hello))
    await cluster.node_is("w1", NodeState.READY)
    assert cluster.store.world.nodes["w1"].status.address == taken
    serving.cancel()


async def hear(end: Pipe, kind: type) -> m.Down:
    async with asyncio.timeout(5):
        while not isinstance(message := m.down_from(await end.recv()), kind):
            pass
    return message


async def test_a_session_registers_the_node_and_gets_everything(cluster: Cluster) -> None:
    end, serving = cluster.dial("w1")
    welcome = await hear(end, m.Welcome)
    first = await hear(end, m.Assignments)
    assert isinstance(welcome, m.Welcome)
    assert [one.node_id for one in welcome.managers] == ["m1"]
    assert isinstance(first, m.Assignments)
    assert (first.full, first.seq, first.tasks) == (True, 2, ())
    node = cluster.store.world.nodes["w1"]
    assert (node.status.state, node.hostname, node.status.address) == (NodeState.READY, "w1", "10.0.0.2")
    await end.close()
    await serving
    await cluster.node_is("w1", NodeState.DISCONNECTED)


async def drained(cluster: Cluster) -> None:
    node = cluster.store.world.nodes["m1"]
    spec = '{"Role":"manager","Availability":"drain"}'
    await cluster.writer.submit(UpdateNode(node="m1", version=node.version, spec=spec))


async def test_differences_and_reports(cluster: Cluster) -> None:
    await drained(cluster)
    end, _ = cluster.dial("w1")
    await hear(end, m.Assignments)
    await cluster.writer.submit(CreateService(id="s1", spec=SPEC % ("web", 1)))
    told = await hear(end, m.Assignments)
    assert isinstance(told, m.Assignments)
    (task,) = told.tasks
    assert (told.full, told.seq, task.desired) == (False, 3, TaskState.RUNNING)
    await end.send(
        m.to_body(m.Statuses(number=1, items=((task.id, TaskStatus(state=TaskState.RUNNING, pid=7)),)))
    )
    assert (await hear(end, m.Acknowledged)) == m.Acknowledged(number=1)
    assert cluster.store.world.tasks[task.id].status.pid == 7
    # A service's labels change nothing of its tasks; an agent needs to know them all the same.
    spec = json.loads(SPEC % ("web", 1)) | {"Labels": {"io.swarmpy.listen-wait": "0s"}}
    version = cluster.store.world.services["s1"].version
    await cluster.writer.submit(UpdateService(service="s1", version=version, spec=json.dumps(spec)))
    told = await hear(end, m.Assignments)
    assert [(one.id, one.service_labels) for one in told.tasks] == [(task.id, spec["Labels"])]
    await end.close()


async def test_a_service_that_concerns_no_node_wakes_no_session(cluster: Cluster) -> None:
    await drained(cluster)
    end, _ = cluster.dial("w1")
    await hear(end, m.Assignments)
    session = cluster.dispatcher.sessions["w1"]
    woken: list[str] = []
    set_ = session.dirty.set
    session.dirty.set = lambda: (woken.append("woken"), set_())[1]
    await cluster.writer.submit(CreateService(id="s1", spec=SPEC % ("none", 0)))
    await cluster.writer.submit(RemoveService(service="s1"))
    assert woken == []
    await cluster.writer.submit(CreateService(id="s2", spec=SPEC % ("one", 1)))
    assert woken != []
    del woken[:]
    ports = {"EndpointSpec": {"Ports": [{"TargetPort": 80, "PublishedPort": 80}]}}
    spec = json.dumps(json.loads(SPEC % ("port", 0)) | ports)
    await cluster.writer.submit(CreateService(id="s3", spec=spec))
    assert woken != []
    await end.close()


async def test_another_nodes_task_cannot_be_reported(cluster: Cluster) -> None:
    own, _ = cluster.dial("m1")
    await cluster.node_is("m1", NodeState.READY)
    await cluster.writer.submit(CreateService(id="s1", spec=SPEC % ("web", 1)))
    (task,) = cluster.store.world.tasks_of("s1")
    assert task.node_id == "m1"
    end, _ = cluster.dial("w1")
    await hear(end, m.Assignments)
    await end.send(m.to_body(m.Statuses(number=1, items=((task.id, TaskStatus(state=TaskState.FAILED)),))))
    await hear(end, m.Acknowledged)
    assert cluster.store.world.tasks[task.id].status.state is TaskState.ASSIGNED
    await end.close()
    await own.close()


async def test_silence_makes_suspect_and_a_beat_cures(cluster: Cluster) -> None:
    end, _ = cluster.dial("w1")
    await hear(end, m.Assignments)
    cluster.clock.mono += 2.5
    await cluster.node_is("w1", NodeState.DISCONNECTED)
    await end.send(m.to_body(m.Beat(seq=1)))
    await cluster.node_is("w1", NodeState.READY)
    await end.close()


async def test_the_machine_that_led_is_silent_since_it_was_last_heard_as_leader(cluster: Cluster) -> None:
    """A new leader gives all nodes their time to come back; the one whose silence made it the leader had a part
    of its time already, or it would be down an election later than any other."""
    await cluster.writer.submit(ObserveNode(node="w1", state=NodeState.UNKNOWN))
    now = cluster.store.world.at
    cluster.log.silence = {"w1.1": 1.5}
    await asyncio.sleep(0)
    assert cluster.store.world.nodes["w1"].status.state is NodeState.UNKNOWN
    cluster.log.silence = {"w1.1": 2.5}
    await cluster.node_is("w1", NodeState.DISCONNECTED)
    status = cluster.store.world.nodes["w1"].status
    assert now - status.since == 2_500_000_000
    assert silence_allowed(cluster.store.world, status.state) == 4_500_000_000


async def test_a_new_session_replaces_the_old(cluster: Cluster) -> None:
    first, _ = cluster.dial("w1")
    await hear(first, m.Assignments)
    second, _ = cluster.dial("w1")
    await hear(second, m.Assignments)
    with pytest.raises(WireError):
        await hear(first, m.Goodbye)
    assert cluster.store.world.nodes["w1"].status.state is NodeState.READY
    await second.close()


async def test_a_removed_node_hears_of_it(cluster: Cluster) -> None:
    end, _ = cluster.dial("w1")
    await hear(end, m.Assignments)
    await cluster.writer.submit(RemoveNode(node="w1", force=True))
    goodbye = await hear(end, m.Goodbye)
    assert isinstance(goodbye, m.Goodbye)
    assert goodbye.removed


@pytest.mark.parametrize(
    ("node_id", "hello", "code"),
    [
        ("w1", {"type": "hello", "node_id": "m1", "description": {}}, "PermissionDenied"),
        ("w1", {"type": "hello", "node_id": 7}, "InvalidArgument"),
        ("w1", {}, "InvalidArgument"),
        ("w9", None, "NotFound"),
    ],
)
async def test_strangers_are_refused(
    cluster: Cluster, node_id: str, hello: dict[str, object] | None, code: str
) -> None:
    _, serving = cluster.dial(node_id, {"x": 1} if hello == {} else hello)
    with pytest.raises(RefusedError) as caught:
        await serving
    assert caught.value.code == code


async def test_malformed_messages_end_the_session(cluster: Cluster) -> None:
    end, serving = cluster.dial("w1")
    await hear(end, m.Assignments)
    await end.send({"type": "statuses", "number": "x"})
    await serving
    await cluster.node_is("w1", NodeState.DISCONNECTED)


async def test_a_change_wakes_the_sessions_that_it_concerns(cluster: Cluster) -> None:
    await drained(cluster)
    await cluster.writer.submit(JoinNode(id="w2", role=Role.WORKER, address="10.0.0.3", certificate=""))
    ends = {name: cluster.dial(name)[0] for name in ("m1", "w1", "w2")}
    for end in ends.values():
        await hear(end, m.Assignments)
    sessions = cluster.dispatcher.sessions

    def woken(*changes: Put | Delete) -> set[str]:
        for session in sessions.values():
            session.dirty.clear()
        before = cluster.store.world
        cluster.dispatcher.moved(before, before.evolve(changes, before.version + 1))
        return {name for name, session in sessions.items() if session.dirty.is_set()}

    await cluster.writer.submit(CreateService(id="s1", spec=SPEC % ("web", 1)))
    world = cluster.store.world
    (task,) = world.tasks
    nodes, service = world.nodes, world.services["s1"]
    assert woken(Put(task)) == {task.node_id}
    assert woken(Delete("task", task.id)) == {task.node_id}
    assert woken(Put(service)) == {task.node_id}  # its labels are told with its tasks
    assert woken(Put(nodes["w2"])) == {"w2"}
    assert woken(Put(replace(nodes["w2"], manager_address="10.0.0.3:2377"))) == {"m1", "w1", "w2"}
    assert woken() == set()
