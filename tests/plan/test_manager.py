"""The composed plan: what one pass achieves."""

from __future__ import annotations

from swarmpy.model.lifecycle import NodeState, TaskState
from swarmpy.plan import manager
from swarmpy.plan.manager import coalesce
from swarmpy.state.changes import Delete, Put
from swarmpy.state.snapshot import Snapshot

from .worlds import SECOND, START, Stage, node, spec


def three(**options):
    return Stage(node("w1"), node("w2"), node("w3"), **options)


def test_one_pass_takes_a_fresh_service_to_assigned_tasks():
    stage = three()
    key = stage.create(spec("web", 3))
    assert [(task.slot, task.status.state) for task in stage.tasks(key)] == [
        (slot, TaskState.ASSIGNED) for slot in (1, 2, 3)
    ]
    assert stage.places(key) == {"w1": 1, "w2": 1, "w3": 1}
    assert all(stage.causes)
    assert manager.plan(stage.now, stage.world) == manager.Plan()


def test_a_failed_task_is_replaced_after_the_delay_in_the_same_slot():
    stage = three()
    key = stage.create(spec("web", 1))
    stage.agents()
    [old] = stage.running(key)
    stage.report(old, TaskState.FAILED, "task: non-zero exit (1)")
    [new] = stage.live(key)
    assert (new.slot, new.replaces, new.desired) == (1, old.id, TaskState.READY)
    assert new.not_before == stage.now + 5 * SECOND
    assert new.status.state == TaskState.ASSIGNED
    assert stage.world.tasks[old.id].desired == TaskState.SHUTDOWN
    assert stage.plan().wake_at == new.not_before
    stage.agents()
    assert stage.pass_time(4.999).changes == ()
    stage.pass_time(0.001)
    stage.agents()
    assert [task.id for task in stage.running(key)] == [new.id]


def test_a_silent_node_is_down_after_four_and_a_half_seconds_and_its_tasks_move_at_once():
    stage = three()
    key = stage.create(spec("web", 3))
    stage.agents()
    stage.set_node("w1", state=NodeState.DISCONNECTED)
    assert stage.places(key) == {"w1": 1, "w2": 1, "w3": 1}
    assert stage.plan().wake_at == stage.now + int(4.5 * SECOND)
    stage.pass_time(4.5)
    w1 = stage.world.nodes["node-w1"]
    assert (w1.status.state, w1.status.message) == (NodeState.DOWN, "heartbeat failure")
    assert sorted(stage.places(key).values()) == [1, 2]
    assert "w1" not in stage.places(key)
    assert all(task.desired == TaskState.RUNNING for task in stage.live(key))


def test_what_was_made_and_deleted_in_one_plan_never_was():
    stage = three()
    key = stage.create(spec("web", 1))
    [task] = stage.tasks(key)
    made = Put(task, "made")
    assert coalesce(Snapshot(), [made, Delete("task", task.id, "gone")]) == ()
    assert coalesce(stage.world, [made, Delete("task", task.id, "gone")]) == (
        Delete("task", task.id, "made; gone"),
    )


def test_an_empty_world_asks_for_nothing():
    assert manager.plan(START, Snapshot()) == manager.Plan()
