"""A replacement that is rejected while it waits for its time is not replaced before that time."""

from __future__ import annotations

from swarmpy.model.lifecycle import TaskState
from tests.plan.worlds import Stage, node, spec


def test_an_image_that_cannot_be_pulled_is_tried_once_per_delay() -> None:
    stage = Stage(node("w1"), node("w2"))
    key = stage.create(spec("web"))
    [first] = stage.live(key)
    stage.report(first, TaskState.REJECTED, "No such image: app:1")
    [second] = stage.live(key)
    stage.report(second, TaskState.REJECTED, "No such image: app:1")
    assert len(stage.tasks(key)) == 2
    assert stage.plan().wake_at == second.not_before
    stage.pass_time(5)
    assert len(stage.tasks(key)) == 3
