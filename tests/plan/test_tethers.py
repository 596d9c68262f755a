"""plan/tethers: a running container without its link is found, one in the middle of anything is not."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmpy.model.lifecycle import TaskState
from swarmpy.model.links import Link, LinkSeen, Plug
from swarmpy.model.messages import Assigned
from swarmpy.model.objects import Attachment, TaskStatus
from swarmpy.plan import tethers as p
from swarmpy.plan.node import LocalTask

NETS = ("blue", "red")


def local(state: TaskState = TaskState.RUNNING, *, networks: tuple[str, ...] = ("blue",)) -> LocalTask:
    one = Assigned(
        id="t", service_id="s", service_name="web", slot=1, node_id="n1", template="{}", endpoint="{}",
        desired=TaskState.RUNNING, networks=tuple(Attachment(network_id=key) for key in networks),
    )  # fmt: skip
    return LocalTask(assigned=one, status=TaskStatus(state=state))


def links(*plugged: str, network: str = "blue", whole: bool = True) -> dict[str, LinkSeen]:
    link = Link(network, 4097, 1450, "192.0.2.1")
    plugs = {one: Plug(one, network, "02:00:00:00:00:01", 1450, "t") for one in plugged}
    return {network: LinkSeen(network, link if whole else None, plugs=plugs)}


def tethers(*plugged: str, task: LocalTask | None = None, at: float = 0.0, **more: object) -> p.Tethers:
    known = {"t": task or local()}
    made = p.Tethers(known, {"t": ("e1",)}, at, links(*plugged), at)
    return replace(made, **more)  # type: ignore[arg-type]  # by name


def test_a_container_that_has_its_link_is_let_alone() -> None:
    assert p.judge(0.0, tethers("e1", "other")) == p.Verdict({}, {})


def test_a_lost_link_is_lost_once_it_was_looked_for_again() -> None:
    first = p.judge(5.0, tethers(at=4.9))
    assert (dict(first.missing), first.lost) == ({("t", "blue", ("e1",)): 5.0}, {})
    soon = p.judge(5.1, tethers(at=5.1, missing=first.missing))
    assert (soon.missing, soon.lost) == (first.missing, {}), "one look may have begun before the link came"
    later = tethers(at=6.5, missing=first.missing)
    assert p.judge(6.5, later).lost == {"t": ("blue",)}
    assert p.judge(6.5, replace(later, engine_at=5.5)).lost == {}, "the Engine was not asked again"
    assert p.judge(6.5, replace(later, links_at=6.4)).lost == {}, "the links are those of before"


def test_a_link_that_comes_is_forgotten_to_have_been_missed() -> None:
    missed = {("t", "blue", ("e1",)): 0.0}
    assert p.judge(9.0, tethers("e1", at=9.0, missing=missed)) == p.Verdict({}, {})


def test_a_container_that_was_started_again_is_judged_anew() -> None:
    missed = {("t", "blue", ("e0",)): 0.0}
    assert p.judge(9.0, tethers(at=9.0, missing=missed)).lost == {}


@pytest.mark.parametrize(
    "task",
    [
        msgspec.structs.replace(local(), leaving=True),
        msgspec.structs.replace(local(), doomed="unhealthy container"),
        msgspec.structs.replace(
            local(), assigned=msgspec.structs.replace(local().assigned, desired=TaskState.SHUTDOWN)
        ),
        local(TaskState.FAILED),
        local(networks=()),
        local(networks=("red",)),
    ],
)
def test_a_container_that_ends_anyway_or_is_elsewhere_is_not_judged(task: LocalTask) -> None:
    assert p.judge(0.0, tethers(task=task)).missing == {}


def test_links_that_are_not_whole_or_not_there_are_mended_before_anybody_is_judged() -> None:
    assert p.judge(0.0, tethers(links=links(whole=False))).missing == {}
    assert p.judge(0.0, tethers(links={})).missing == {}


def test_each_network_counts_for_itself() -> None:
    two = local(networks=NETS)
    seen = {**links("e1"), **links(network="red")}
    world = tethers(task=two, containers={"t": ("e1", "e2")}, links=seen)
    missing = p.judge(0.0, world).missing
    assert {place[1] for place in missing} == {"red"}
    none = replace(world, links={**links(), **links(network="red")})
    missing = p.judge(0.0, none).missing
    assert p.judge(2.0, replace(none, engine_at=2.0, links_at=2.0, missing=missing)).lost == {"t": NETS}


def test_the_sentence_names_the_networks() -> None:
    assert "link to network blue is gone" in p.sentence(("blue",))
    assert "links to networks blue, red are gone" in p.sentence(NETS)


@given(st.lists(st.tuples(st.floats(0, 3), st.booleans(), st.booleans()), max_size=20))
def test_nobody_is_lost_who_had_a_link_within_the_hold(looks: list[tuple[float, bool, bool]]) -> None:
    """Whatever the order of looks: lost means that no look of the last HOLD seconds showed the link."""
    now = had = engine_at = 0.0
    missing: dict[p.Place, float] = {}
    for pause, there, asked in looks:
        now += pause
        engine_at = now if asked else engine_at
        had = now if there else had
        plugged = ("e1",) if there else ()
        verdict = p.judge(now, replace(tethers(*plugged), engine_at=engine_at, links_at=now, missing=missing))
        missing = dict(verdict.missing)
        if verdict.lost:
            assert had + p.HOLD <= now  # as the planner adds it: a difference may be rounded down
            assert engine_at > had
