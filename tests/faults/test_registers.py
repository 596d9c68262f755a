"""The records that judge a cluster, against the search that the simulator's clients are judged by."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swarmpy.sim.history import Op, linearizable
from tests.faults.registers import Book, Register


def judged(ops: list[Op]) -> bool:
    """Whether the register finds nothing wrong with the history of one writer and several readers."""
    register = Register("x")
    events = sorted(
        [(op.began, True, place) for place, op in enumerate(ops)]
        + [(op.ended, False, place) for place, op in enumerate(ops)]
    )
    floors: dict[int, tuple[int, int]] = {}
    for _, begins, place in events:
        op = ops[place]
        if op.kind == "write":
            (register.write_begins if begins else register.write_acked)(op.value)
        elif begins:
            floors[place] = register.read_begins()
        else:
            register.read_ends(floors[place], op.value, "a reader")
    return not register.problems


@st.composite
def histories(draw: st.DrawFn) -> list[Op]:
    """Writes of 1, 2, 3 one after the other, and reads of whatever at any time; no two events at once."""
    writes, reads = draw(st.integers(0, 4)), draw(st.integers(1, 4))
    moments = [float(one) for one in draw(st.permutations(range(2 * (writes + reads))))]
    bounds = sorted(moments[: 2 * writes])
    ops = [Op(0, "write", "x", bounds[2 * n], bounds[2 * n + 1], value=n + 1, ok=True) for n in range(writes)]
    for number in range(reads):
        began, ended = sorted(moments[2 * writes + 2 * number :][:2])
        ops.append(Op(number + 1, "read", "x", began, ended, value=draw(st.integers(0, writes + 1)), ok=True))
    return ops


@given(histories())
def test_the_register_agrees_with_the_search(ops: list[Op]) -> None:
    assert judged(ops) == linearizable(ops, 0)


def test_a_stale_read_is_named() -> None:
    register = Register("x")
    register.write_begins(1)
    early = register.read_begins()
    register.write_acked(1)
    late = register.read_begins()
    register.read_ends(early, 0, "one that began before")
    assert register.problems == []
    register.read_ends(late, 0, "reader 2")
    assert register.problems == ["x: reader 2 read 0 after 1 was acknowledged"]


def test_a_read_may_not_go_back_behind_another_and_not_ahead_of_all_writes() -> None:
    register = Register("x")
    register.write_begins(1)
    register.read_ends(register.read_begins(), 1, "one")
    register.read_ends(register.read_begins(), 0, "two")
    register.read_ends(register.read_begins(), 7, "three")
    assert register.problems == ["x: two read 0 after 1 was read", "x: three read 7, which nobody wrote"]


def test_the_book_names_what_is_lost_and_what_came_back() -> None:
    book = Book()
    for name in ("a", "b", "c"):
        book.create_acked(name)
    book.removal_begins("a")
    book.removal_acked("a")
    before = book.look()
    book.removal_begins("b")  # while the list is on its way: either is right
    assert book.contradictions(before, {"c"}) == []
    assert book.contradictions(before, {"b", "c"}) == []
    assert book.contradictions(before, {"a"}) == [
        "c was made, and is not there",
        "a was removed, and is there",
    ]
