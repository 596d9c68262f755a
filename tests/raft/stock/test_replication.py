"""Acknowledged writes that stock pysyncobj loses with a FIFO network and healthy disks."""

from __future__ import annotations

import pytest

from swarmpy.adapters.raft.state import SafetyError
from tests.raft.stock.conftest import Stage
from tests.raft.stock.world import Message, World, numbered

# ---------------------------------------------------------------- A: SUCCESS while a snapshot arrives


def a_deposed_leader_gets_a_snapshot(world: World) -> set[bytes]:
    """a is cut off with five writes that nobody else has; b leads on and compacts; a returns slowly. Whatever
    was in a's state in the meantime."""
    world.boot()
    assert world.leader() == "a"
    world.commit("a", b"common")
    world.block("a", "bc")
    world.propose("a", *numbered("orphan", 5))
    world.run(0.5)
    leader = world.leader("bc")
    world.commit(leader, *numbered("new", 20))
    world[leader].compact()
    for other in "bc":
        world.disconnect("a", other)
    world.blocked.clear()
    world.hold(leader, "a")
    world.connect("a", leader)
    seen: set[bytes] = set()
    for _ in range(100):
        world.run(0.1)
        world.pass_on(leader, "a")
        world["a"].tick()
        seen.update(world["a"].values)
    world.release()
    world.run(3)
    assert set(world["a"].values) >= set(numbered("new", 20))
    return seen


def test_stock_acknowledges_writes_that_the_snapshot_erases(stock: Stage) -> None:
    world = stock("abc", chunk=64)
    assert a_deposed_leader_gets_a_snapshot(world) >= set(numbered("orphan", 5))
    assert world.lost("a") == world.lost("b") == numbered("orphan", 5)


def test_ours_acknowledges_nothing_that_is_lost(ours: Stage) -> None:
    world = ours("abc", chunk=64)
    assert not a_deposed_leader_gets_a_snapshot(world) & set(numbered("orphan", 5))
    assert any(world.cast.is_snapshot(message) for _, _, message in world.log)
    assert world.lost("a") == world.lost("b") == []
    assert not any("SUCCESS" in world.outcomes[value] for value in numbered("orphan", 5))


# ---------------------------------------------------------------- B: acknowledged entries are cut


def two_refusals_in_flight(world: World, *, flap: bool) -> World:
    """b missed entries; two heartbeats tell a so, one after the other, and a sends the entries twice. c is away
    meanwhile; then a dies and c comes back."""
    world.boot()
    assert world.leader() == "a"
    world.disconnect("a", "c")
    world.disconnect("b", "c")
    world.block("a", "b")
    values = numbered("v", 10)
    world.propose("a", *values)
    world.run(0.2)
    if flap:
        world.disconnect("a", "b")
        world.connect("a", "b")
    world.blocked.clear()
    world.hold("a", "b")
    world.hold("b", "a")
    world.run(0.36)
    world.pass_on("a", "b", 2)
    for _ in range(2):
        world.pass_on("b", "a")
        world.run(0.14)
    # Entries arrive one message at a time, until all are acknowledged; then one more that was on its way.
    while not set(values) <= set(world.acked) and world.pass_on("a", "b"):
        world.pass_on("b", "a", 100)
        world["a"].tick()
    world.pass_on("a", "b")
    assert set(values) <= set(world.acked)
    world.release()
    world.crash("a")
    world.connect("b", "c")
    world.leader("bc")
    world.run(1)
    return world


@pytest.mark.parametrize("flap", [True, False])
def test_stock_cuts_what_it_acknowledged(stock: Stage, flap: bool) -> None:
    world = two_refusals_in_flight(stock("abc", batch=70), flap=flap)
    assert len(world.lost("b")) >= 5


@pytest.mark.parametrize("flap", [True, False])
def test_ours_keeps_what_it_acknowledged(ours: Stage, flap: bool) -> None:
    world = two_refusals_in_flight(ours("abc", batch=7), flap=flap)
    if not flap:
        refusals = [
            m for s, _, m in world.log if s == "b" and m["type"] == "next_node_idx" and not m["success"]
        ]
        assert len(refusals) > 1
    assert world.lost("b") == world.lost("c") == []


def an_old_message_arrives_again(world: World) -> World:
    """The message that brought the first write comes to b once more after all ten are acknowledged (over a
    second connection, or sent again by a leader that waited in vain); then a dies. c was away all the time."""
    world.boot()
    assert world.leader() == "a"
    world.disconnect("a", "c")
    world.disconnect("b", "c")
    for value in numbered("v", 10):
        world.commit("a", value)
    first = next(
        m
        for s, t, m in world.log
        if (s, t) == ("a", "b") and any(b"v0" in e[0] for e in m.get("entries", ()))
    )
    world["b"].receive("a", first)
    world.crash("a")
    world.connect("b", "c")
    world.leader("bc")
    world.run(1)
    return world


def test_stock_cuts_the_log_at_an_old_message(stock: Stage) -> None:
    assert an_old_message_arrives_again(stock("abc")).lost("c") == numbered("v", 10)[1:]


def test_ours_keeps_the_log_at_an_old_message(ours: Stage) -> None:
    world = an_old_message_arrives_again(ours("abc"))
    assert world.lost("b") == world.lost("c") == []


# ---------------------------------------------------------------- C: a snapshot that did not load is acknowledged


def a_spoiled_snapshot(world: World) -> World:
    """As A, with more orphans than new entries and with c cut off later; the snapshot is damaged on its way,
    after which a and the leader are alone with each other."""
    world.boot()
    assert world.leader() == "a"
    world.commit("a", b"common")
    world.block("a", "bc")
    world.propose("a", *numbered("orphan", 40))
    world.run(0.5)
    leader = world.leader("bc")
    world.commit(leader, *numbered("new", 20))
    world[leader].compact()
    for other in "bc":
        world.disconnect("a", other)
    world.blocked.clear()
    third = "b" if leader == "c" else "c"
    world.disconnect(leader, third)
    world.tap = lambda _s, target, message: (
        world.cast.spoil_snapshot(message) if target == "a" and world.cast.is_snapshot(message) else message
    )
    world.connect("a", leader)
    world.propose(leader, b"precious")
    world.run(0.8)
    return world


def test_stock_counts_a_member_that_could_not_load_the_snapshot(stock: Stage) -> None:
    world = a_spoiled_snapshot(stock("abc"))
    assert b"precious" in world.acked
    assert b"precious" not in world["a"].values + world["c"].values


def test_ours_acknowledges_a_snapshot_only_when_it_is_loaded(ours: Stage) -> None:
    world = a_spoiled_snapshot(ours("abc"))
    assert any(world.cast.is_snapshot(message) for _, _, message in world.log)
    assert b"precious" not in world.acked
    assert frozenset("ab") not in world.connected
    world.tap = lambda _s, _t, message: message
    world.connect("a", "b")
    world.until(lambda: b"precious" in world.outcomes and bool(world.outcomes[b"precious"]))
    world.run(2)
    assert world.lost("a") == world.lost("b") == []
    assert set(numbered("new", 20)) <= set(world["a"].values)


# ---------------------------------------------------------------- answers without a term


def an_answer_of_an_earlier_leadership(world: World) -> World:
    """An answer comes to a, which leads: it was given to an earlier leadership, with a longer log."""
    world.boot()
    assert world.leader() == "a"
    world.commit("a", b"x")
    world["a"].receive("b", world.cast.answer(world["a"].term - 1, 99))
    return world


def test_stock_believes_it(stock: Stage) -> None:
    world = an_answer_of_an_earlier_leadership(stock("abc"))
    assert world["a"].matched("b") == 98 > world["a"].last_index
    # From now on everything counts as being on b, which nobody can reach.
    world.disconnect("a", "b")
    world.disconnect("a", "c")
    world.propose("a", b"nowhere else")
    world.run(1)
    assert b"nowhere else" in world.acked


def test_ours_ignores_it(ours: Stage) -> None:
    world = an_answer_of_an_earlier_leadership(ours("abc"))
    assert world["a"].matched("b") <= world["a"].last_index
    assert world["a"].failure is None
    world.commit("a", b"y")


def test_ours_stops_rather_than_believe_it_of_its_own_term(ours: Stage) -> None:
    world = ours("abc").boot()
    world.leader()
    world.commit("a", b"x")
    world["a"].receive("b", world.cast.answer(world["a"].term, 99))
    assert isinstance(world["a"].failure, SafetyError)


# ---------------------------------------------------------------- a large entry in pieces


def an_entry_of_nearly_two_pieces(world: World, size: int) -> World:
    world.boot()
    assert world.leader() == "a"
    world.propose("a", b"x" * size)
    world.run(5)
    return world


def _sizes(batch: int) -> list[int]:
    """Pickling adds 60 bytes or so: the command is just below two batches, its pickle above."""
    return [2 * batch - below for below in (60, 80)]


@pytest.mark.parametrize("size", _sizes(4096))
def test_stock_ends_a_large_entry_twice_and_never_replicates_it(stock: Stage, size: int) -> None:
    world = an_entry_of_nearly_two_pieces(stock("abc", batch=4096), size)

    def finish(message: Message) -> bool:
        return message.get("transmission") == "finish"

    ends = [(m["prevLogIdx"], t) for _, t, m in world.log if finish(m)]
    assert any(ends.count(one) > 1 for one in ends)
    assert world["b"].failure is not None


@pytest.mark.parametrize("size", _sizes(4096))
def test_ours_replicates_it(ours: Stage, size: int) -> None:
    world = an_entry_of_nearly_two_pieces(ours("abc", batch=4096), size)
    assert world.acked == [b"x" * size]
    assert world.lost("b") == world.lost("c") == []
    assert all(member.failure is None for member in world.members.values())
