"""A power cut loses nothing that was acknowledged; without fdatasync it does, so the test can fail."""

from __future__ import annotations

import pytest

from tests.uml.power import cuts

pytestmark = [pytest.mark.uml, pytest.mark.timeout(400)]


def test_power_cuts_lose_nothing_that_was_acknowledged() -> None:
    result = cuts(5, seed=7)
    assert result["acked"] > 200
    assert result["opened"] >= 5


def test_without_fdatasync_they_do() -> None:
    with pytest.raises(AssertionError, match="lost: "):
        cuts(3, seed=7, unsynced=True)
