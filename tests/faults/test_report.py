"""The table of a campaign: its arithmetic, and its place in the page."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import report
from tests.faults.campaign import Outcome


def outcome(case: str, seconds: float, **more) -> Outcome:
    return Outcome(case=case, family="f", seconds=60, problems=[], figures={"next write": seconds}, **more)


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(one) for one in range(1, 101)]
    assert (report.percentile(values, 0.5), report.percentile(values, 0.99)) == (50.0, 99.0)
    assert report.spread([3.0]) == "3.00 / 3.00 / 3.00"


def test_the_table_counts_kills_restarts_and_problems() -> None:
    good = outcome("daemon-leader", 0.5, counts={"daemons killed": 1}, restarts=0, requests=9, acked=1000)
    bad = outcome("daemon-leader", 1.5, counts={"daemons killed": 1}, restarts=2, requests=1, failed=1)
    bad.problems.append("2 containers were restarted, removed or made")
    text = report.table([good, bad])
    assert "| f | `daemon-leader` | 2 | 1,000 | 0 | 0.50 / 1.50 / 1.50 | – | 2 | 10 | 1 | 1 |" in text
    assert "2 cases in 2 minutes, 1 of them with a problem: daemons killed 2." in text
    assert "2 containers touched by 2 kills of daemons" in text
    assert "Failover, 2 kills of the leader's daemon or machine: 0.50 / 1.50 / 1.50 s." in text


def test_outcomes_are_kept_and_the_page_is_written_between_its_marks(tmp_path: Path) -> None:
    kept, page = tmp_path / "kept", tmp_path / "page.md"
    report.keep(kept, outcome("engine", 1.0))
    report.keep(kept, outcome("engine", 2.0))
    assert [one.figures["next write"] for one in report.load(kept)] == [1.0, 2.0]
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.write("new", page)
    assert page.read_text() == f"before\n{report.BEGIN}\nnew\n{report.END}\nafter\n"
    page.write_text("no marks")
    with pytest.raises(ValueError, match="has no section"):
        report.write("new", page)


def test_the_real_page_has_its_marks() -> None:
    text = report.PAGE.read_text()
    assert text.index(report.BEGIN) < text.index(report.END)
