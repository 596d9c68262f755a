"""The reaper: how much of a slot's history is kept, and what is removed for good."""

from __future__ import annotations

import pytest

from swarmpy.model.lifecycle import TaskState
from tests.plan.worlds import Stage, node, spec


def crashed(stage: Stage, key: str, times: int) -> None:
    for _ in range(times):
        stage.report(stage.running(key)[0], TaskState.FAILED, "task: non-zero exit (1)")
        stage.agents()
        stage.pass_time(5)
        stage.agents()


@pytest.mark.parametrize(("limit", "kept"), [(5, 5), (2, 2), (1, 1), (-1, 9)])
def test_a_slot_keeps_its_last_tasks(limit: int, kept: int) -> None:
    stage = Stage(node("w1"), history=limit)
    key = stage.create(spec("web"))
    stage.agents()
    crashed(stage, key, 8)
    tasks = stage.tasks(key)
    assert len(tasks) == kept
    assert len(stage.running(key)) == 1


def test_what_the_attempts_are_counted_by_is_kept() -> None:
    stage = Stage(node("w1"), history=1)
    key = stage.create(spec("web", template={"RestartPolicy": {"MaxAttempts": 3}}))
    stage.agents()
    crashed(stage, key, 3)
    stage.report(stage.running(key)[0], TaskState.FAILED)
    stage.pass_time(60)
    assert stage.live(key) == []


def test_a_removed_service_leaves_nothing() -> None:
    stage = Stage(node("w1"), node("w2"))
    key = stage.create(spec("web", 4))
    stage.agents()
    stage.remove(key)
    stage.agents()
    stage.plan()
    assert stage.tasks() == []
