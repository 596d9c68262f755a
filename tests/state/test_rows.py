"""Shared rows against plain dicts, and what two tables are said to differ in against what they do."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmpy.model.objects import Node
from swarmpy.state import rows, table
from swarmpy.state.changes import Delete, Put
from swarmpy.state.rows import Edit, Rows
from swarmpy.state.snapshot import Snapshot
from swarmpy.state.table import Table, differing

KEYS = st.sampled_from([f"k{number}" for number in range(40)])
MOVES = st.lists(
    st.tuples(st.sampled_from(["set", "set", "pop", "read"]), KEYS, st.integers(0, 9)), max_size=8
)


@pytest.fixture(autouse=True, scope="module")
def small_ones_are_large():
    """The machinery for large mappings, on small ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "LARGE", 6)
        patch.setattr(rows, "SHARE", 2)
        yield


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(KEYS, st.integers(0, 9), max_size=40), st.lists(MOVES, max_size=10))
def test_rows_are_what_a_dict_would_be_and_old_ones_stay_as_they_were(first, edits):
    shared, plain, history = dict(first), dict(first), []
    for moves in edits:
        history.append((shared, dict(plain)))
        edit = Edit(shared)
        for what, key, value in moves:
            if what == "set":
                edit[key] = plain[key] = value
            elif what == "pop":
                assert edit.pop(key) == plain.pop(key, None)
            else:
                list(shared.values())  # merges it: nobody may notice
            assert (edit.get(key), key in edit) == (plain.get(key), key in plain)
        shared = edit.done()
        for key in (f"k{number}" for number in range(40)):
            assert (shared.get(key), key in shared) == (plain.get(key), key in plain)
            assert shared.get(key, -1) == plain.get(key, -1)
        assert len(shared) == len(plain)
        assert bool(shared) == bool(plain)
    assert shared == plain
    assert dict(shared.items()) == plain
    assert sorted(shared) == sorted(shared.keys()) == sorted(plain)
    for old, then in history:
        assert old == then


def test_a_large_mapping_is_not_copied_for_a_small_change():
    big = {f"n{number}": number for number in range(100)}
    edit = Edit(big)
    edit["more"] = 1
    after = edit.done()
    assert isinstance(after, Rows)
    assert after.parts() == (big, {"more": 1})
    assert after["more"] == 1
    with pytest.raises(KeyError):
        after["none"]
    edit = Edit(after)
    edit.pop("n1")
    with pytest.raises(KeyError):
        edit.done()["n1"]


NAMES = st.sampled_from([f"n{number}" for number in range(12)])
CHANGES = st.lists(st.one_of(
    st.builds(lambda key: Put(Node(id=key)), NAMES), st.builds(lambda key: Delete("node", key), NAMES),
), max_size=3)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 50), CHANGES), min_size=1, max_size=50), st.data())
def test_whatever_differs_between_two_worlds_is_said(story, data):
    """Worlds branch: drafts of plans, and what was committed instead."""
    worlds = [Snapshot()]
    for back, changes in story:
        worlds.append(worlds[max(0, len(worlds) - 1 - back)].evolve(changes, at=len(worlds)))
    for _ in range(5):
        old, new = (data.draw(st.sampled_from(worlds)).nodes for _ in range(2))
        said = differing(old, new)
        assert {key for key in {*old.rows, *new.rows} if old.rows.get(key) is not new.rows.get(key)} <= said
        touched = {change.key[1] for _, changes in story for change in changes}
        assert said <= touched


def test_a_close_relative_is_not_looked_through():
    before = Snapshot().evolve([Put(Node(id=f"n{number}")) for number in range(50)])
    draft = before.evolve([Put(Node(id="n1"))]).evolve([Delete("node", "n2")])
    after = before.evolve([Put(Node(id="n3"))])
    assert differing(draft.nodes, after.nodes) == {"n1", "n2", "n3"}
    assert differing(after.nodes, after.nodes) == set()


def test_strangers_are_looked_through():
    before = Snapshot().evolve([Put(Node(id=f"n{number}")) for number in range(5)]).nodes
    assert differing(before, Table(dict(before.rows))) == set()
    assert differing(before, Table({**before.rows, "n1": Node(id="n1")})) == {"n1"}
    assert differing(Table(), before) == set(before.rows)
    later = before
    for _ in range(table.TRAIL + 1):
        later = later.changed(later.rows, ["n0"])
    assert differing(before, later) == set()
