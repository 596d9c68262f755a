"""Who leads, and what a leader that is none any more may still say."""

from __future__ import annotations

from collections import deque

from tests.raft.stock.conftest import Stage
from tests.raft.stock.world import World

# ---------------------------------------------------------------- no pre-vote


def a_deaf_member(world: World) -> int:
    """c can be heard and hears nothing, for 30 seconds. By how much the terms grow."""
    world.boot()
    world.leader()
    world.commit("a", b"x")
    before = world["a"].term
    world.block("ab", "c", one_way=True)
    world.run(30)
    return max(member.term for member in world.members.values()) - before


def test_stock_a_deaf_member_drives_the_term_up(stock: Stage) -> None:
    assert a_deaf_member(stock("abc")) > 10


def test_ours_a_deaf_member_moves_no_term(ours: Stage) -> None:
    world = ours("abc")
    assert a_deaf_member(world) == 0
    assert world["a"].leads


# ---------------------------------------------------------------- votes without a voter


def the_same_vote_three_times(world: World) -> World:
    """Of five members, b alone hears the candidate a, and its answers arrive three times."""
    world.boot()
    world.block("a", "cde")

    def thrice(source: str, target: str, message: dict) -> dict:
        if message["type"] == "response_vote" and (source, target) == ("b", "a"):
            world.links.setdefault((source, target), deque()).extend([message] * 2)
        return message

    world.tap = thrice
    # The others would elect one of themselves; here nobody but a and b speaks.
    world.block("cde", "bcde")
    world.run(1.3)
    return world


def test_stock_two_of_five_make_a_leader(stock: Stage) -> None:
    assert the_same_vote_three_times(stock("abcde"))["a"].leads


def test_ours_a_vote_counts_once(ours: Stage) -> None:
    world = the_same_vote_three_times(ours("abcde"))
    assert any(message["type"] == "response_vote" for _, target, message in world.log if target == "a")
    assert not world["a"].leads


# ---------------------------------------------------------------- stale reads


def an_isolated_leader(world: World) -> World:
    world.boot()
    assert world.leader() == "a"
    world.commit("a", b"old")
    world.block("a", "bc")
    world.until(lambda: world["b"].leads or world["c"].leads)
    world.commit(world.leader("bc"), b"new")
    return world


def test_stock_an_isolated_leader_serves_stale_reads_for_half_a_minute(stock: Stage) -> None:
    world = an_isolated_leader(stock("abc"))
    begin = world.now
    world.run(20)
    assert world.read("a") == [[b"old"]]
    world.until(lambda: not world["a"].leads)
    assert world.now - begin > 25


def test_ours_an_isolated_leader_answers_no_read(ours: Stage) -> None:
    world = ours("abc").boot()
    world.leader()
    world.commit("a", b"old")
    world.block("a", "bc")
    answers = world.read("a")
    world.until(lambda: not world["a"].leads, limit=2.0)
    assert answers == [None]
    world.commit(world.leader("bc"), b"new")
    answers = world.read("a")
    world.run(1)
    assert answers == [None]


def test_ours_a_read_through_the_majority_is_answered(ours: Stage) -> None:
    """The test above can fail: without the cut the same read is answered."""
    world = ours("abc").boot()
    world.leader()
    world.commit("a", b"old")
    answers = world.read("a")
    world.run(0.5)
    assert answers == [[b"old"]]
