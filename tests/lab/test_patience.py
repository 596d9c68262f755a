"""Emulated machines put off every deadline of a lab, by one factor."""

from __future__ import annotations

import pytest

from swarmpy.lab.errors import LabError
from swarmpy.lab.processes import patience, until


@pytest.mark.parametrize(("given", "found"), [(None, 1.0), ("1", 1.0), ("2.5", 2.5), ("100", 100.0)])
def test_it_is_a_number(monkeypatch: pytest.MonkeyPatch, given: str | None, found: float) -> None:
    if given is None:
        monkeypatch.delenv("SWARMPY_LAB_PATIENCE", raising=False)
    else:
        monkeypatch.setenv("SWARMPY_LAB_PATIENCE", given)
    assert patience() == found


@pytest.mark.parametrize("given", ["", "much", "0", "0.5", "-3", "nan", "inf", "101"])
def test_other_words_are_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("SWARMPY_LAB_PATIENCE", given)
    with pytest.raises(LabError, match=f"SWARMPY_LAB_PATIENCE is a number from 1 to 100, not '{given}'"):
        patience()


def test_waiting_takes_so_much_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWARMPY_LAB_PATIENCE", "3")
    with pytest.raises(LabError, match=r"nothing came \(waited 0\.15 s\)"):
        until(lambda: False, 0.05, "nothing came")
