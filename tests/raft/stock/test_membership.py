"""Changing who takes part."""

from __future__ import annotations

from tests.raft.stock.conftest import Stage
from tests.raft.stock.world import World

# ---------------------------------------------------------------- D: two changes at once


def a_partitioned_leader_adds_two(world: World) -> World:
    """a is cut off from b and c, and adds d and e, which only it can reach. Both sides try to write."""
    world.boot()
    assert world.leader() == "a"
    world.commit("a", b"x")
    world.run(0.3)
    for other in "bc":
        world.disconnect("a", other)
    for name in "de":
        world.start(name, joins=True)
        world.connect("a", name)
    world.connect("d", "e")
    world["a"].add("d")
    world["a"].add("e")
    world.propose("a", b"left")
    world.until(lambda: world["b"].leads or world["c"].leads)
    world.propose(world.leader("bc"), b"right")
    world.run(3)
    return world


def test_stock_two_leaders_acknowledge(stock: Stage) -> None:
    world = a_partitioned_leader_adds_two(stock("abc", arguments={"d": "abce", "e": "abcd"}))
    assert world["a"].leads
    assert world["b"].leads
    assert set(world.acked) >= {b"left", b"right"}
    assert b"right" not in world["a"].values
    assert b"left" not in world["b"].values


def test_ours_one_side_acknowledges(ours: Stage) -> None:
    world = a_partitioned_leader_adds_two(ours("abc"))
    assert not world["a"].leads
    assert b"right" in world.acked
    assert b"left" not in world.acked


def test_ours_two_changes_in_a_row_are_both_made(ours: Stage) -> None:
    """The test above can fail: with a majority the same two changes go through, one after the other."""
    world = ours("abc").boot()
    world.leader()
    for name in "de":
        world.start(name, joins=True)
        world.connect_to(name, "abcde"[: "abcde".index(name)])
        world["a"].add(name)
    world.until(lambda: world["d"].voters == world["e"].voters == set("abcde"))


# ---------------------------------------------------------------- the base of the membership


def a_member_restarts_with_old_arguments(world: World) -> World:
    """d was added long ago; b restarts, alone, with the arguments of its first start."""
    world.boot()
    assert world.leader() == "a"
    world.start("d", joins=True)
    world.connect_to("d", "abc")
    world["a"].add("d")
    world.until(lambda: "d" in world["b"].voters)
    world.commit("a", b"x")
    world.run(0.5)
    world.crash("b")
    world.start("b")
    return world


def test_stock_forgets_who_takes_part(stock: Stage) -> None:
    world = a_member_restarts_with_old_arguments(stock("abc", files=True, arguments={"d": "abc"}))
    assert world["b"].last_index >= 4
    assert world["b"].voters == set("abc")


def test_ours_knows_it_from_the_log(ours: Stage) -> None:
    world = a_member_restarts_with_old_arguments(ours("abc"))
    assert world["b"].voters == set("abcd")


# ---------------------------------------------------------------- no learners


def a_lone_leader_adds_somebody_unreachable(world: World) -> World:
    world.boot()
    assert world.leader() == "a"
    world.commit("a", b"before")
    world["a"].add("b")
    world.run(1)
    world.propose("a", b"after")
    world.run(40)
    return world


def test_stock_is_leaderless_for_ever(stock: Stage) -> None:
    world = a_lone_leader_adds_somebody_unreachable(stock("a"))
    assert not world["a"].leads
    assert b"after" not in world.acked


def test_ours_leads_on(ours: Stage) -> None:
    world = a_lone_leader_adds_somebody_unreachable(ours("a"))
    assert world["a"].leads
    assert b"after" in world.acked
    assert world["a"].voters == {"a"}
    world.start("b", joins=True)
    world.connect("a", "b")
    world.until(lambda: world["b"].voters == {"a", "b"})


# ---------------------------------------------------------------- what a removed member still says


def a_late_answer_of_a_removed_member(world: World) -> World:
    world.boot()
    assert world.leader() == "a"
    world.commit("a", b"x")
    world["a"].remove("c")
    world.until(lambda: "c" not in world["a"].voters and world["a"].commit_index == world["a"].last_index)
    world["a"].deliver("c", world.cast.answer(world["a"].term, 2))
    return world


def test_stock_stumbles_over_it(stock: Stage) -> None:
    world = a_late_answer_of_a_removed_member(stock("abc"))
    assert isinstance(world["a"].failure, KeyError)


def test_ours_does_not(ours: Stage) -> None:
    world = a_late_answer_of_a_removed_member(ours("abc"))
    assert world["a"].failure is None
    world.commit("a", b"y")
