"""The restart supervisor and promotion, case by case."""

from __future__ import annotations

import pytest

from swarmpy.model.lifecycle import NodeState, TaskState
from swarmpy.plan.liveness import ORPHAN_AFTER

from .worlds import SECOND, Stage, node, spec


def started(text: str, *nodes, **options):
    stage = Stage(*(nodes or (node("w1"), node("w2"))), **options)
    key = stage.create(text)
    stage.agents()
    return stage, key


def policy(**fields):
    return {"RestartPolicy": fields}


@pytest.mark.parametrize(
    ("condition", "end", "replaced"),
    [
        ("any", TaskState.COMPLETE, True),
        ("any", TaskState.FAILED, True),
        ("on-failure", TaskState.COMPLETE, False),
        ("on-failure", TaskState.FAILED, True),
        ("on-failure", TaskState.REJECTED, True),
        ("none", TaskState.FAILED, False),
    ],
)
def test_condition(condition, end, replaced):
    stage, key = started(spec("web", template=policy(Condition=condition)))
    [old] = stage.running(key)
    stage.report(old, end)
    assert stage.world.tasks[old.id].desired == TaskState.SHUTDOWN
    assert [task.replaces for task in stage.live(key)] == ([old.id] if replaced else [])


def test_an_ended_slot_counts_as_filled_until_an_update():
    stage, key = started(spec("web", 2, template=policy(Condition="none")))
    stage.report(stage.running(key)[0], TaskState.COMPLETE)
    stage.pass_time(3600)
    assert len(stage.live(key)) == 1
    stage.update(key, spec("web", 2, image="app:2", template=policy(Condition="none")))
    assert len({task.slot for task in stage.tasks(key)}) == 2
    stage.agents()
    assert {task.slot for task in stage.running(key)} == {1, 2}


def crash(stage, key):
    """Let the running task fail and its replacement run, if there is one."""
    stage.report(stage.running(key)[0], TaskState.FAILED)
    stage.agents()
    stage.pass_time(5)
    stage.agents()


def test_max_attempts_counts_replacements_of_one_spec_version():
    text = spec("web", template=policy(Condition="any", MaxAttempts=2))
    stage, key = started(text, history=1)
    for _ in range(2):
        crash(stage, key)
        assert len(stage.running(key)) == 1
    stage.report(stage.running(key)[0], TaskState.FAILED)
    assert stage.live(key) == []
    assert len(stage.tasks(key)) == 3
    stage.update(key, spec("web", image="app:2", template=policy(Condition="any", MaxAttempts=2)))
    stage.agents()
    crash(stage, key)
    assert len(stage.running(key)) == 1


def test_a_window_forgets_old_restarts():
    stage, key = started(spec("web", template=policy(MaxAttempts=1, Window=60 * SECOND)))
    crash(stage, key)
    stage.pass_time(120)
    crash(stage, key)
    assert len(stage.running(key)) == 1
    stage.pass_time(10)
    stage.report(stage.running(key)[0], TaskState.FAILED)
    assert stage.live(key) == []


def test_a_drained_node_is_left_without_delay_but_not_before_the_old_task_stopped():
    stage, key = started(spec("web", 1), node("w1"), node("w2"))
    [old] = stage.running(key)
    stage.set_node(old.node_id.removeprefix("node-"), availability="drain")
    [new] = stage.live(key)
    assert new.node_id != old.node_id
    assert (new.desired, new.not_before) == (TaskState.READY, 0)
    stage.report(old, TaskState.SHUTDOWN)
    assert stage.live(key)[0].desired == TaskState.RUNNING


def test_draining_the_last_node_leaves_tasks_pending():
    stage, key = started(spec("web", 1), node("w1"))
    stage.set_node("w1", availability="drain")
    stage.agents()
    [task] = stage.live(key)
    assert task.status.state == TaskState.PENDING
    assert task.status.err == "no suitable node (1 node not available for new tasks)"
    stage.set_node("w1", availability="active")
    stage.agents()
    assert len(stage.running(key)) == 1


def test_a_task_that_does_not_stop_is_waited_for_one_minute():
    stage, key = started(spec("web", 1))
    [old] = stage.running(key)
    stage.now += SECOND
    stage.set_node(old.node_id.removeprefix("node-"), availability="drain")
    assert stage.plan().wake_at == stage.now + 60 * SECOND
    stage.pass_time(59)
    assert stage.live(key)[0].desired == TaskState.READY
    stage.pass_time(1)
    assert stage.live(key)[0].desired == TaskState.RUNNING


def test_a_long_grace_period_is_waited_for():
    container = {"ContainerSpec": {"Image": "app:1", "StopGracePeriod": 300 * SECOND}}
    stage, key = started(spec("web", 1, template=container))
    [old] = stage.running(key)
    stage.now += SECOND
    stage.set_node(old.node_id.removeprefix("node-"), availability="drain")
    assert stage.plan().wake_at == stage.now + (60 + 290) * SECOND


def test_no_delay_when_the_node_is_down():
    stage, key = started(spec("web", 1, template=policy(Delay=60 * SECOND)))
    [old] = stage.running(key)
    stage.set_node(old.node_id.removeprefix("node-"), state=NodeState.DOWN)
    [new] = stage.live(key)
    assert (new.desired, new.status.state) == (TaskState.RUNNING, TaskState.ASSIGNED)
    stale = stage.world.tasks[old.id]
    assert (stale.desired, stale.status.state) == (TaskState.SHUTDOWN, TaskState.RUNNING)
    # The node comes back: the stale task is told to stop, the new one stays where it is.
    stage.set_node(old.node_id.removeprefix("node-"), state=NodeState.READY)
    stage.agents()
    assert [task.id for task in stage.running(key)] == [new.id]


def test_a_node_lost_for_a_day_orphans_its_tasks():
    stage, key = started(spec("web", 1))
    [old] = stage.running(key)
    stage.set_node(old.node_id.removeprefix("node-"), state=NodeState.DOWN)
    stage.now += ORPHAN_AFTER - 1
    assert stage.plan().wake_at == stage.now + 1
    stage.now += 1
    stage.plan()
    assert stage.world.tasks[old.id].status.state == TaskState.ORPHANED


def test_a_removed_node_orphans_its_tasks_at_once():
    stage, key = started(spec("web", 1))
    [old] = stage.running(key)
    stage.remove_node(old.node_id.removeprefix("node-"))
    assert stage.world.tasks[old.id].status.state == TaskState.ORPHANED
    assert len(stage.live(key)) == 1


def test_after_a_change_of_leader_nodes_have_one_period():
    stage, key = started(spec("web", 1))
    [old] = stage.running(key)
    name = old.node_id.removeprefix("node-")
    stage.set_node(name, state=NodeState.UNKNOWN)
    stage.pass_time(4.9)
    assert stage.world.nodes[old.node_id].status.state == NodeState.UNKNOWN
    stage.pass_time(0.1)
    assert stage.world.nodes[old.node_id].status.state == NodeState.DOWN


def test_the_enforcer_moves_tasks_off_a_node_that_lost_its_label():
    placement = {"Placement": {"Constraints": ["node.labels.zone==a"]}}
    stage, key = started(spec("web", 1, template=placement), node("w1", labels={"zone": "a"}), node("w2"))
    [old] = stage.running(key)
    stage.set_node("w1", labels={})
    rejected = stage.world.tasks[old.id]
    assert (rejected.status.state, rejected.status.err) == (
        TaskState.REJECTED, "assigned node no longer meets constraints",
    )  # fmt: skip
    [new] = stage.live(key)
    assert new.not_before == stage.now + 10 * SECOND
    assert new.status.err == "no suitable node (scheduling constraints not satisfied on 2 nodes)"


def test_the_enforcer_moves_the_youngest_tasks_off_a_node_that_shrank():
    reserve = {"Resources": {"Reservations": {"NanoCPUs": 10**9}}}
    stage, key = started(spec("web", 3, template=reserve), node("w1", cpus=4))
    stage.set_node("w1", about={"nano_cpus": 2 * 10**9})
    states = sorted(task.status.state.word for task in stage.tasks(key))
    assert states == ["pending", "rejected", "running", "running"]


def test_a_tightened_service_moves_by_its_update_not_by_the_enforcer():
    stage, key = started(spec("web", 2), node("w1", labels={"zone": "a"}), node("w2"))
    tight = spec("web", 2, template={"Placement": {"Constraints": ["node.labels.zone==a"]}})
    stage.update(key, tight)
    assert not [task for task in stage.tasks(key) if task.status.state == TaskState.REJECTED]
    stage.agents()
    assert stage.places(key) == {"w1": 2}
