"""What becomes of a command: applied once, answered once."""

from __future__ import annotations

from tests.raft.stock.conftest import Stage
from tests.raft.stock.world import World

# ---------------------------------------------------------------- a callback that raises


def a_callback_that_raises(world: World) -> World:
    world.boot()
    assert world.leader() == "a"

    def raises(_: str) -> None:
        if not heard:
            heard.append("called")
            raise RuntimeError("a client's callback")

    heard: list[str] = []
    world["a"].propose(b"once", raises)
    world.run(1)
    assert heard
    return world


def test_stock_applies_twice(stock: Stage) -> None:
    world = a_callback_that_raises(stock("abc"))
    assert world["a"].values == [b"once", b"once"]
    assert world["b"].values == [b"once"]


def test_ours_applies_once(ours: Stage) -> None:
    world = a_callback_that_raises(ours("abc"))
    assert world["a"].values == [b"once"]
    # No callback of the log raises; if one did, the member would stop, and come back with everything once.
    world.crash("a")
    world.leader("bc")
    world.start("a")
    world.connect_to("a", "bc")
    world.run(2)
    assert all(member.values == [b"once"] for member in world.members.values())


# ---------------------------------------------------------------- a machine that raises


def a_poisonous_entry(world: World) -> World:
    world.boot()
    assert world.leader() == "a"
    world.commit("a", b"before")
    world.propose("a", b"raise", b"after")
    world.run(20)
    return world


def test_stock_is_stuck_on_every_member(stock: Stage) -> None:
    world = a_poisonous_entry(stock("abc"))
    assert b"after" not in world.acked
    assert all(member.applied_index < member.commit_index for member in world.members.values())
    assert all(member.values.count(b"raise") > 10 for member in world.members.values())
    assert all(isinstance(member.failure, RuntimeError) for member in world.members.values())


def test_ours_answers_it_and_goes_on(ours: Stage) -> None:
    world = a_poisonous_entry(ours("abc"))
    assert world.outcomes[b"raise"] == ["FAILED"]
    assert all(member.values == [b"before", b"raise", b"after"] for member in world.members.values())


# ---------------------------------------------------------------- a forwarded command


def a_command_to_a_follower(world: World) -> World:
    """The connection to the leader breaks and comes back while the command is on its way."""
    world.boot()
    assert world.leader() == "a"
    world.commit("a", b"x")
    world.run(0.3)
    world.hold("b", "a")
    world.propose("b", b"forwarded")
    world.run(0.1)
    world.disconnect("a", "b")
    world.release()
    world.connect("a", "b")
    world.run(60)
    assert world["a"].leads
    return world


def test_stock_never_answers(stock: Stage) -> None:
    world = a_command_to_a_follower(stock("abc"))
    assert world.outcomes[b"forwarded"] == []
    assert b"forwarded" not in world["a"].values


def test_ours_says_at_once_that_it_does_not_lead(ours: Stage) -> None:
    world = a_command_to_a_follower(ours("abc"))
    assert world.outcomes[b"forwarded"] == ["NOT_LEADER"]


# ---------------------------------------------------------------- waiters that a snapshot skips


def a_snapshot_passes_a_waiter(world: World) -> World:
    """a's own write is committed by b's leadership while a is away: a learns of it by a snapshot."""
    world.boot()
    assert world.leader() == "a"
    world.commit("a", b"common")
    world.block("b", "a", one_way=True)
    world.block("c", "a", one_way=True)
    world.propose("a", b"mine")
    world.run(0.3)
    world.block("a", "bc")
    world.until(lambda: world["b"].leads or world["c"].leads)
    leader = world.leader("bc")
    world.commit(leader, *[b"new%d" % n for n in range(20)])
    assert b"mine" in world[leader].values
    world[leader].compact()
    for other in "bc":
        world.disconnect("a", other)
    world.blocked.clear()
    world.connect("a", leader)
    world.run(10)
    assert b"new19" in world["a"].values
    return world


def test_stock_never_answers_the_waiter(stock: Stage) -> None:
    world = a_snapshot_passes_a_waiter(stock("abc"))
    assert world.outcomes[b"mine"] == []


def test_ours_answers_the_waiter(ours: Stage) -> None:
    world = a_snapshot_passes_a_waiter(ours("abc"))
    assert len(world.outcomes[b"mine"]) == 1
