"""Scaling, removal, history, and global services."""

from __future__ import annotations

import json

from swarmpy.model.lifecycle import NodeState, TaskState
from swarmpy.plan import manager
from swarmpy.plan.replicas import ADDED
from swarmpy.plan.types import Plan

from .worlds import Stage, node, spec


def started(text: str, *nodes, **options):
    stage = Stage(*(nodes or (node("w1"), node("w2"))), **options)
    key = stage.create(text)
    stage.agents()
    return stage, key


def slots(stage, key):
    return sorted(task.slot for task in stage.live(key))


def test_scaling_fills_the_lowest_free_slots():
    stage, key = started(spec("web", 2))
    stage.update(key, spec("web", 5))
    assert slots(stage, key) == [1, 2, 3, 4, 5]


def test_scaling_down_takes_from_the_fullest_node_then_what_does_not_run_then_the_highest():
    stage, key = started(spec("web", 2), node("w1"), node("w2", availability="pause"))
    stage.set_node("w2", availability="active")
    stage.update(key, spec("web", 3))
    stage.agents()
    assert stage.places(key) == {"w1": 2, "w2": 1}
    stage.update(key, spec("web", 2))
    assert stage.places(key) == {"w1": 1, "w2": 1}
    gone = [task for task in stage.tasks(key) if task.desired == TaskState.REMOVE]
    assert [task.node_id for task in gone] == ["node-w1"]
    stage.agents()
    assert len(stage.tasks(key)) == 2


def test_what_does_not_run_goes_before_what_runs():
    stage = Stage(node("w1"), node("w2"))
    key = stage.create(spec("web", 2))
    second = next(task for task in stage.live(key) if task.slot == 2)
    stage.report(second, TaskState.RUNNING)
    stage.update(key, spec("web", 1))
    assert slots(stage, key) == [2]


def test_a_slot_that_is_on_no_node_goes_first():
    text = spec("web", 2, template={"Resources": {"Reservations": {"NanoCPUs": 3 * 10**9}}})
    stage, key = started(text, node("w1"))
    [waiting] = [task for task in stage.live(key) if not task.node_id]
    raw = json.loads(text) | {"Mode": {"Replicated": {"Replicas": 1}}}
    stage.update(key, json.dumps(raw))
    assert waiting.id not in stage.world.tasks
    assert len(stage.running(key)) == 1


def test_scaling_to_nothing_and_back():
    stage, key = started(spec("web", 3))
    stage.update(key, spec("web", 0))
    stage.agents()
    assert stage.tasks(key) == []
    stage.update(key, spec("web", 3))
    assert slots(stage, key) == [1, 2, 3]


def test_a_removed_service_takes_its_tasks_along_once_they_stopped():
    stage, key = started(spec("web", 3))
    stage.remove(key)
    assert [task.desired for task in stage.tasks(key)] == [TaskState.REMOVE] * 3
    stage.agents()
    assert stage.tasks(key) == []


def test_tasks_of_a_removed_service_stay_known_while_their_node_is_down():
    stage, key = started(spec("web", 1), node("w1"))
    stage.set_node("w1", state=NodeState.DOWN)
    stage.remove(key)
    assert len(stage.tasks(key)) == 1
    stage.remove_node("w1")
    assert stage.tasks(key) == []


def test_history_is_bounded_and_counts_the_live_task():
    stage, key = started(spec("web", 1), history=3)
    for _ in range(6):
        stage.report(stage.running(key)[0], TaskState.FAILED)
        stage.pass_time(5)
        stage.agents()
    assert len(stage.tasks(key)) == 3


def test_a_negative_limit_keeps_all_history():
    stage, key = started(spec("web", 1), history=-1)
    for _ in range(8):
        stage.report(stage.running(key)[0], TaskState.FAILED)
        stage.pass_time(5)
        stage.agents()
    assert len(stage.tasks(key)) == 9


def test_a_global_service_has_one_task_per_fitting_node():
    stage, key = started(
        spec("agent", None, template={"Placement": {"Constraints": ["node.labels.zone==a"]}}),
        node("w1", labels={"zone": "a"}), node("w2", labels={"zone": "a"}, availability="drain"),
        node("w3"), node("w4", labels={"zone": "a"}, availability="pause"),
    )  # fmt: skip
    assert stage.places(key) == {"w1": 1}
    [task] = stage.live(key)
    assert (task.slot, task.status.state) == (0, TaskState.RUNNING)
    stage.set_node("w4", availability="active")
    stage.set_node("w3", labels={"zone": "a"})
    assert stage.places(key) == {"w1": 1, "w3": 1, "w4": 1}
    stage.set_node("w1", labels={})
    assert stage.places(key) == {"w3": 1, "w4": 1}


def test_global_tasks_on_a_paused_node_stay_and_are_not_replaced():
    stage, key = started(spec("agent", None), node("w1"))
    stage.set_node("w1", availability="pause")
    [task] = stage.running(key)
    stage.report(task, TaskState.FAILED)
    stage.pass_time(60)
    assert [one.id for one in stage.live(key)] == [task.id]
    stage.set_node("w1", availability="active")
    stage.pass_time(5)
    stage.agents()
    assert len(stage.running(key)) == 1


def test_a_global_task_that_does_not_fit_waits_on_its_node():
    reserve = {"Resources": {"Reservations": {"MemoryBytes": 1 << 40}}}
    stage, key = started(spec("agent", None, template=reserve), node("w1"))
    [task] = stage.live(key)
    assert (task.node_id, task.status.state) == ("node-w1", TaskState.PENDING)
    assert task.status.err == "insufficient resources on 1 node"


def test_a_global_task_returns_with_its_node():
    stage, key = started(spec("agent", None), node("w1"))
    stage.set_node("w1", state=NodeState.DOWN)
    assert stage.live(key) == []
    stage.set_node("w1", state=NodeState.READY)
    assert stage.live(key)[0].desired == TaskState.READY
    stage.agents()
    assert len(stage.running(key)) == 1


def test_a_slot_given_up_and_taken_again_waits_for_what_still_runs_in_it():
    """Scaled down and up at once, the removed task still runs: the new one starts only when it has ended."""
    stage, key = started(spec("web", 2))
    stage.update(key, spec("web", 1))
    (gone,) = [task for task in stage.tasks(key) if task.desired == TaskState.REMOVE]
    stage.update(key, spec("web", 2))
    (fresh,) = [task for task in stage.live(key) if task.slot == gone.slot]
    assert fresh.desired == TaskState.READY
    stage.agents()
    (fresh,) = [task for task in stage.live(key) if task.slot == gone.slot]
    assert fresh.desired == TaskState.RUNNING


def test_a_very_large_service_is_made_in_parts_that_follow_each_other_at_once():
    """Working out tens of thousands of tasks, only to commit the first thousand, kept a leader silent for so
    long that the others elected a new one, again and again."""
    stage = Stage(node("w1"), planner=lambda now, world: Plan())
    key = stage.create(spec("web", 2 * ADDED + 500))
    stage.planner = manager.Planner().plan
    sizes = []
    while True:
        decided = stage.plan()
        if not decided.changes:
            break
        sizes.append(len(decided.changes))
        more = len(slots(stage, key)) < 2 * ADDED + 500
        assert (decided.wake_at == stage.now) is more
    assert sizes == [ADDED, ADDED, 500]
    assert slots(stage, key) == list(range(1, 2 * ADDED + 501))
