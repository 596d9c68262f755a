"""Rolling updates, step by step."""

from __future__ import annotations

import json

import msgspec
import pytest

from swarmpy.model.lifecycle import TaskState
from swarmpy.model.objects import UpdateStatus
from swarmpy.state.changes import Put

from .worlds import SECOND, START, Stage, node, spec


def updating(replicas=4, *, nodes=None, to="app:2", **config):
    """A running service and the text of its next spec."""
    stage = Stage(*(nodes or (node("w1"), node("w2"))))
    key = stage.create(spec("web", replicas, UpdateConfig=config))
    stage.agents()
    return stage, key, spec("web", replicas, image=to, UpdateConfig=config)


def images(stage, key, state=TaskState.RUNNING):
    return sorted(
        task.view.container.image for task in stage.tasks(key)
        if task.status.state == state and task.desired == TaskState.RUNNING
    )  # fmt: skip


def renewed(stage, key):
    """Slots that have a task of the present spec."""
    version = stage.world.services[key].spec_version
    return {task.slot for task in stage.live(key) if task.spec_version == version}


def step(stage, key):
    """Agents report one round of moves."""
    for task in stage.tasks(key):
        state = stage._next(stage.world.tasks[task.id]) if task.id in stage.world.tasks else None
        if state is not None:
            stage.report(task, state)


@pytest.mark.parametrize(("parallelism", "first"), [(1, 1), (2, 2), (0, 4)])
def test_parallelism(parallelism, first):
    stage, key, text = updating(Parallelism=parallelism)
    stage.update(key, text)
    assert len(renewed(stage, key)) == first
    least = 4
    while images(stage, key) != ["app:2"] * 4:
        least = min(least, len(stage.running(key)))
        step(stage, key)
    assert least == 4 - first


def test_stop_first_starts_the_new_task_only_when_the_old_one_stopped():
    stage, key, text = updating(1, Parallelism=1)
    [old] = stage.running(key)
    stage.update(key, text)
    [new] = stage.live(key)
    assert (new.desired, new.replaces, new.status.state) == (TaskState.READY, old.id, TaskState.ASSIGNED)
    assert stage.world.tasks[old.id].desired == TaskState.SHUTDOWN
    stage.report(new, TaskState.READY)
    assert stage.world.tasks[new.id].desired == TaskState.READY
    stage.report(old, TaskState.SHUTDOWN)
    assert stage.world.tasks[new.id].desired == TaskState.RUNNING


def test_start_first_keeps_the_old_task_until_the_new_one_runs():
    stage, key, text = updating(2, Parallelism=1, Order="start-first")
    stage.update(key, text)
    assert images(stage, key) == ["app:1", "app:1"]
    [new] = [task for task in stage.live(key) if task.replaces]
    assert new.desired == TaskState.RUNNING
    stage.report(new, TaskState.RUNNING)
    assert stage.world.tasks[new.replaces].desired == TaskState.SHUTDOWN
    assert len(stage.running(key)) == 2
    stage.agents()
    assert images(stage, key) == ["app:2", "app:2"]


def test_start_first_survives_a_new_task_that_fails():
    stage, key, text = updating(1, Parallelism=1, Order="start-first")
    [old] = stage.running(key)
    stage.update(key, text)
    [new] = [task for task in stage.live(key) if task.replaces]
    stage.report(new, TaskState.REJECTED, "No such image: app:2")
    assert [task.id for task in stage.running(key)] == [old.id]
    stage.pass_time(5)
    stage.agents()
    assert images(stage, key) == ["app:2"]


def test_start_first_tries_a_failing_version_again_at_the_restart_policys_pace():
    """Beside the old task, a new one that failed was followed by the next at once: five pulls a second of an
    image that does not exist, for ever."""
    stage, key, text = updating(2, Parallelism=1, Order="start-first")
    stage.update(key, text)
    for tries in range(1, 4):
        [new] = [task for task in stage.live(key) if task.replaces]
        stage.report(new, TaskState.REJECTED, "No such image: app:2")
        made = [task for task in stage.tasks(key) if task.replaces]
        assert len(made) == tries
        assert images(stage, key) == ["app:1", "app:1"]
        assert stage.plan().wake_at == stage.now + 5 * SECOND
        assert not [task for task in stage.live(key) if task.replaces]
        stage.pass_time(5)
        assert len([task for task in stage.tasks(key) if task.replaces]) == tries + 1
    stage.agents()
    assert images(stage, key) == ["app:2", "app:2"]
    stage.pass_time(5)
    assert stage.world.services[key].update.state == "completed"


def test_start_first_with_a_policy_that_allows_no_restart_leaves_the_old_task_alone():
    never = {"RestartPolicy": {"Condition": "none"}}
    config = {"Parallelism": 1, "Order": "start-first"}
    stage = Stage(node("w1"), node("w2"))
    key = stage.create(spec("web", 2, template=never, UpdateConfig=config))
    stage.agents()
    stage.update(key, spec("web", 2, image="app:2", template=never, UpdateConfig=config))
    [new] = [task for task in stage.live(key) if task.replaces]
    stage.report(new, TaskState.REJECTED, "No such image: app:2")
    stage.pass_time(60)
    stage.agents()
    assert [task.id for task in stage.tasks(key) if task.replaces] == [new.id]
    assert images(stage, key) == ["app:1", "app:1"]
    assert stage.world.services[key].update.state == "updating"


def test_the_delay_passes_between_batches():
    stage, key, text = updating(2, Parallelism=1, Delay=10 * SECOND)
    stage.update(key, text)
    stage.agents()
    assert images(stage, key) == ["app:1", "app:2"]
    assert stage.plan().wake_at == stage.now + 10 * SECOND
    stage.pass_time(10)
    stage.agents()
    assert images(stage, key) == ["app:2", "app:2"]


def test_status_and_its_messages():
    stage, key, text = updating(1, Parallelism=1)
    assert stage.world.services[key].update is None
    stage.update(key, text)
    status = stage.world.services[key].update
    assert status == UpdateStatus(state="updating", started_at=stage.now, message="update in progress")
    stage.agents()
    stage.pass_time(5)
    status = stage.world.services[key].update
    assert (status.state, status.message) == ("completed", "update completed")
    assert status.completed_at == stage.now


@pytest.mark.parametrize(("delay", "watched"), [(0, 7), (3, 7), (7, 8), (20, 21)])
def test_an_update_is_complete_when_its_last_slot_was_watched(delay, watched):
    """Whoever waits for it would hear that it is complete while the last tasks are not seen to run."""
    stage, key, text = updating(2, Parallelism=0, Delay=delay * SECOND, Monitor=7 * SECOND)
    stage.update(key, text)
    stage.agents()
    assert images(stage, key) == ["app:2", "app:2"]
    assert stage.world.services[key].update.state == "updating"
    began = stage.now
    while (wake_at := stage.plan().wake_at) is not None:
        assert stage.world.services[key].update.state == "updating"
        stage.now = wake_at
    assert stage.world.services[key].update.state == "completed"
    assert stage.now - began == watched * SECOND


def test_a_rollback_has_its_own_words_and_pace():
    stage, key, text = updating(3, Parallelism=0)
    first = stage.world.services[key]
    stage.update(key, text)
    stage.agents()
    present = stage.world.services[key]
    stage.put(Put(msgspec.structs.replace(
        present, spec=first.spec, spec_version=first.spec_version, previous_spec=present.spec,
        update=UpdateStatus(state="rollback_started", started_at=stage.now, message="manually requested rollback"),
    )))  # fmt: skip
    stage.plan()
    assert len(renewed(stage, key)) == 1
    stage.agents()
    assert images(stage, key) == ["app:1"] * 3
    stage.pass_time(5)
    status = stage.world.services[key].update
    assert (status.state, status.message) == ("rollback_completed", "rollback completed")


def test_a_paused_update_goes_no_further():
    stage, key, text = updating(2, Parallelism=1)
    stage.update(key, text)
    present = stage.world.services[key]
    paused = msgspec.structs.replace(present.update, state="paused", message="update paused")
    stage.put(Put(msgspec.structs.replace(present, update=paused)))
    stage.agents()
    assert images(stage, key) == ["app:1", "app:2"]


def test_scale_up_tasks_are_outside_the_update():
    stage, key, _ = updating(2, Parallelism=1)
    stage.update(key, spec("web", 4, image="app:2", UpdateConfig={"Parallelism": 1}))
    fresh = [task for task in stage.live(key) if task.slot in (3, 4)]
    assert [task.view.container.image for task in fresh] == ["app:2", "app:2"]
    assert len(renewed(stage, key) & {1, 2}) == 1
    stage.agents()
    assert images(stage, key) == ["app:2"] * 4


@pytest.mark.parametrize(
    "change",
    [
        {"UpdateConfig": {"Parallelism": 3}},
        {"Labels": {"a": "b"}},
        {"RollbackConfig": {"Parallelism": 3}},
    ],
)
def test_what_is_not_the_template_restarts_nothing(change):
    stage, key, _ = updating(2)
    before = {task.id for task in stage.running(key)}
    raw = json.loads(stage.world.services[key].spec) | change
    stage.update(key, json.dumps(raw))
    assert {task.id for task in stage.running(key)} == before
    assert stage.world.services[key].update is None


def test_a_port_restarts_every_task():
    stage, key, _ = updating(2)
    before = {task.id for task in stage.running(key)}
    raw = json.loads(stage.world.services[key].spec) | {"EndpointSpec": {"Ports": [{"TargetPort": 80}]}}
    stage.update(key, json.dumps(raw))
    stage.agents()
    assert not before & {task.id for task in stage.running(key)}


def test_placement_alone_moves_only_what_no_longer_fits():
    stage, key, _ = updating(2, nodes=(node("w1", labels={"zone": "a"}), node("w2")))
    stays = {task.id for task in stage.running(key) if task.node_id == "node-w1"}
    stage.update(key, spec("web", 2, template={"Placement": {"Constraints": ["node.labels.zone==a"]}}))
    stage.agents()
    assert stays < {task.id for task in stage.running(key)}
    assert stage.places(key) == {"w1": 2}


def test_nulls_in_a_spec_are_no_change():
    stage, key, _ = updating(1)
    [old] = stage.running(key)
    raw = json.loads(stage.world.services[key].spec)
    raw["TaskTemplate"]["Networks"] = None
    stage.update(key, json.dumps(raw))
    assert [task.id for task in stage.running(key)] == [old.id]


def test_an_update_replaces_tasks_that_never_found_a_node():
    reserve = {"Resources": {"Reservations": {"NanoCPUs": 9 * 10**9}}}
    stage = Stage(node("w1"))
    key = stage.create(spec("web", 1, template=reserve))
    [waiting] = stage.live(key)
    stage.update(key, spec("web", 1))
    [new] = stage.live(key)
    assert stage.world.tasks[waiting.id].status.state == TaskState.SHUTDOWN
    assert (new.status.state, new.desired) == (TaskState.ASSIGNED, TaskState.RUNNING)


def test_global_services_roll_too():
    stage = Stage(node("w1"), node("w2"), node("w3"))
    key = stage.create(spec("agent", None, UpdateConfig={"Parallelism": 1}))
    stage.agents()
    stage.update(key, spec("agent", None, image="app:2", UpdateConfig={"Parallelism": 1}))
    assert len([task for task in stage.live(key) if task.replaces]) == 1
    stage.agents()
    assert images(stage, key) == ["app:2"] * 3
    assert stage.places(key) == {"w1": 1, "w2": 1, "w3": 1}


def test_a_second_update_cancels_the_first():
    stage, key, text = updating(3, Parallelism=1)
    stage.update(key, text)
    stage.now = START + SECOND
    stage.update(key, spec("web", 3, image="app:3", UpdateConfig={"Parallelism": 1}))
    stage.agents()
    assert images(stage, key) == ["app:3"] * 3
    assert all(len([task for task in stage.live(key) if task.slot == slot]) == 1 for slot in (1, 2, 3))


def test_an_overtaken_start_first_update_leaves_no_second_task():
    stage, key, text = updating(2, Parallelism=1, Order="start-first")
    stage.update(key, text)
    [new] = [task for task in stage.live(key) if task.replaces]
    stage.update(key, spec("web", 2, image="app:3", UpdateConfig={"Parallelism": 1}))
    [third] = [task for task in stage.live(key) if task.view.container.image == "app:3"]
    other = next(task for task in stage.live(key) if task.slot != third.slot)
    stage.agents()
    assert images(stage, key) == ["app:3", "app:3"]
    assert stage.world.tasks[new.id].desired == TaskState.SHUTDOWN
    assert stage.world.tasks[other.id].desired == TaskState.SHUTDOWN
