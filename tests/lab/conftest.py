"""A lab of two engines without a cluster. Where it cannot be, the tests fail: they are never skipped."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from swarmpy.lab import lab as labs
from swarmpy.lab.layout import Lab


@pytest.fixture(scope="session")
def pair() -> Iterator[Lab]:
    name = f"pair-{os.getpid()}"
    lab = labs.up(name, print, managers=1, workers=1, with_cluster=False)
    try:
        yield lab
    finally:
        labs.down(name, print)
