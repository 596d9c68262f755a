"""Damage to anything on a manager's disk is noticed; more of it by `python -m tests.node.corruption`."""

from __future__ import annotations

from tests.node.corruption import Disk, campaign, outcome


def test_nothing_damaged_is_served() -> None:
    counted, wrong = campaign(500, 1)
    assert wrong == []
    paths = {path for path, _ in counted}
    assert len(paths) == 7
    for path in paths:
        assert counted[path, "noticed"] >= 30, path


def test_what_is_served_is_told() -> None:
    whole = Disk().whole
    assert outcome(whole, whole) == "as it was"
    assert outcome(whole, whole | {"record": ValueError()}) == "noticed"
    assert outcome(whole, whole | {"record": None}).startswith("SERVED: record is None")
