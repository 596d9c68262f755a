"""A task leaves traffic before it is told to stop: nodes answer, or patience ends."""

from __future__ import annotations

import asyncio

import pytest

from swarmpy.model import messages as m
from swarmpy.model.commands import (
    CreateNetwork,
    CreateService,
    JoinNode,
    ObserveNode,
    RemoveService,
)
from swarmpy.model.lifecycle import NodeState, Role, TaskState
from swarmpy.model.objects import TaskStatus
from swarmpy.plan import leaving
from tests.manager.fakes import Pipe
from tests.manager.test_dispatcher import Cluster, cluster, drained, hear

__all__ = ["cluster"]

NET = "n" * 25
SPEC = (
    '{"Name":"web","Labels":{"io.swarmpy.drain-delay":"0.01"},"Mode":{"Replicated":{"Replicas":1}},'
    '"TaskTemplate":{"ContainerSpec":{"Image":"web:1"},"Networks":[{"Target":"front"}]}}'
)


async def running(cluster: Cluster) -> tuple[Pipe, str]:
    """A service on w1 in a network; w1's session, told and answered."""
    await drained(cluster)
    await cluster.writer.submit(CreateNetwork(id=NET, spec='{"Name":"front","Driver":"overlay"}'))
    end, _ = cluster.dial("w1")
    await hear(end, m.Assignments)
    await cluster.writer.submit(CreateService(id="s1", spec=SPEC))
    tables = await hear(end, m.Networks)
    assert isinstance(tables, m.Networks)
    assert [delta.head.name for delta in tables.deltas] == ["front"]
    told = await hear(end, m.Assignments)
    assert isinstance(told, m.Assignments)
    assert told.seq > tables.seq
    assert told.tasks[0].networks[0].addresses == ("10.0.2.3/24",)
    key = told.tasks[0].id
    await end.send(m.to_body(m.Statuses(number=1, items=((key, TaskStatus(state=TaskState.RUNNING)),))))
    serving = await hear(end, m.Networks)
    assert isinstance(serving, m.Networks)
    assert [one.serving for one in serving.deltas[0].endpoints] == [True]
    await end.send(m.to_body(m.Applied(seq=serving.seq)))
    return end, key


async def pass_time(cluster: Cluster, end: Pipe, seconds: float) -> None:
    """The node lives, and says so every half second. The dispatcher's timers run by the real clock: it is
    told to look."""
    began = cluster.clock.mono
    while cluster.clock.mono - began < seconds:
        cluster.clock.mono += 0.5
        await end.send(m.to_body(m.Beat(seq=0)))
        cluster.dispatcher.sessions["w1"].dirty.set()
        await asyncio.sleep(0.02)


async def told_to_stop(cluster: Cluster, end: Pipe) -> m.Assignments:
    """Let time pass until the node is told."""
    hearing = asyncio.ensure_future(hear(end, m.Assignments))
    while not hearing.done():
        await pass_time(cluster, end, 0.5)
    told = hearing.result()
    assert isinstance(told, m.Assignments)
    return told


async def test_the_node_hears_of_the_stop_after_everyone_has_answered(cluster: Cluster) -> None:
    end, key = await running(cluster)
    start = cluster.clock.mono
    await cluster.writer.submit(RemoveService(service="s1"))
    gone = await hear(end, m.Networks)
    assert isinstance(gone, m.Networks)
    assert not any(one.serving for delta in gone.deltas for one in delta.endpoints)
    assert cluster.dispatcher.sessions["w1"].told[key].desired == TaskState.RUNNING
    await end.send(m.to_body(m.Applied(seq=gone.seq)))
    told = await told_to_stop(cluster, end)
    assert [one.desired for one in told.tasks] == [TaskState.REMOVE]
    assert cluster.clock.mono - start < leaving.PATIENCE
    await end.close()


async def test_a_node_that_is_slow_is_waited_for(cluster: Cluster) -> None:
    """On machines with twelve times the work that they have cores for, answers took three seconds."""
    end, key = await running(cluster)
    await cluster.writer.submit(RemoveService(service="s1"))
    gone = await hear(end, m.Networks)
    assert isinstance(gone, m.Networks)
    await pass_time(cluster, end, 6)
    assert cluster.dispatcher.sessions["w1"].told[key].desired == TaskState.RUNNING
    await end.send(m.to_body(m.Applied(seq=gone.seq)))
    told = await told_to_stop(cluster, end)
    assert [one.desired for one in told.tasks] == [TaskState.REMOVE]
    await end.close()


async def test_a_node_that_does_not_answer_is_not_waited_for_for_ever(cluster: Cluster) -> None:
    end, _ = await running(cluster)
    start = cluster.clock.mono
    await cluster.writer.submit(RemoveService(service="s1"))
    await hear(end, m.Networks)
    told = await told_to_stop(cluster, end)
    assert [one.desired for one in told.tasks] == [TaskState.REMOVE]
    assert cluster.clock.mono - start >= leaving.PATIENCE
    await end.close()


@pytest.mark.parametrize(("down_for", "waits"), [(0.0, True), (leaving.BACK + 1, False)])
async def test_a_node_whose_daemon_is_away_is_waited_for_until_it_is_long_down(
    cluster: Cluster, down_for: float, waits: bool
) -> None:
    """Its kernel goes on balancing by what it last heard: were the task stopped now, requests by that node would
    find nobody."""
    end, key = await running(cluster)
    join = JoinNode(id="w2", role=Role.WORKER, address="10.0.0.3", certificate="", hostname="w2")
    await cluster.writer.submit(join)
    other, _ = cluster.dial("w2")
    await cluster.node_is("w2", NodeState.READY)
    there = SPEC.replace('"web"', '"db"').replace("]}}", '],"Placement":{"Constraints":["node.id==w2"]}}}')
    await cluster.writer.submit(CreateService(id="s2", spec=there))
    assert [task.node_id for task in cluster.store.world.tasks_of("s2")] == ["w2"]
    await other.close()
    await cluster.node_is("w2", NodeState.DISCONNECTED)
    await cluster.writer.submit(RemoveService(service="s1"))
    start = cluster.clock.mono
    await pass_time(cluster, end, 1)
    await end.send(m.to_body(m.Applied(seq=cluster.dispatcher.sessions["w1"].seq)))
    await pass_time(cluster, end, 3)
    assert cluster.dispatcher.sessions["w1"].told[key].desired == TaskState.RUNNING
    await cluster.writer.submit(ObserveNode(node="w2", state=NodeState.DOWN))
    cluster.clock.mono += down_for
    start += down_for
    told = await told_to_stop(cluster, end)
    assert [one.desired for one in told.tasks] == [TaskState.REMOVE]
    assert (cluster.clock.mono - start >= leaving.PATIENCE) == waits
    await end.close()
