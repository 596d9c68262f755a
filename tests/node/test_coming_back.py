"""A manager that is not back at its post yet is a manager all the same, for whoever asks its daemon.

What belongs here: what a node says of itself between its daemon's start and its manager's. What does not:
managers that cannot come back (test_broken_log.py).
"""

from __future__ import annotations

import pytest

from swarmpy.model.errors import Unavailable
from swarmpy.node.member import Member

from .test_broken_log import Site as Place


def test_a_manager_that_is_just_starting_neither_passes_for_a_worker_nor_leaves_unasked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = Place(managers=3)

    async def scenario() -> None:
        await place.until(lambda: not place.box("m3").leads())
        box = place.box("m3")
        box.kill()

        async def never(self: Member, **_: object) -> None:
            await place.stage.loop.create_future()

        with monkeypatch.context() as slow:
            slow.setattr(Member, "_start_manager", never)
            box.start()
            await place.until(lambda: "node" in box.program_state and place.view("m3").state == "active")
            node = place.node("m3")
            assert node.control is None
            assert node.view().is_manager
            with pytest.raises(Unavailable, match="participating as a manager"):
                await node.leave()

    place.run(scenario)


def test_a_kernel_that_refuses_for_a_moment_costs_no_node_its_place() -> None:
    """A daemon that was started then said that it could not take up its place, and never tried again."""
    place = Place(managers=3)

    async def scenario() -> None:
        await place.until(lambda: not place.box("m3").leads())
        box = place.box("m3")
        box.kill()
        box.kernel.stack.refuse = 1.0
        box.start()
        await place.until(lambda: "node" in box.program_state and place.view("m3").state == "error")
        assert "No buffer space" in place.view("m3").error
        box.kernel.stack.refuse = 0.0
        await place.until(
            lambda: place.view("m3").state == "active" and place.node("m3")._member._agent.connected
        )

    place.run(scenario)
