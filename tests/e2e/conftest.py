"""One real cluster for all end-to-end tests. Where it cannot be, they fail: they are never skipped."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarmpy.lab import lab as labs
from swarmpy.lab import layout
from tests.e2e.cluster import Cluster

NAME = "e2e"


@pytest.fixture(scope="session")
def whole_cluster() -> Iterator[Cluster]:
    if shutil.which("docker") is None:
        pytest.fail("the docker command line is missing: `make setup` installs it")
    for lab in layout.everyone():
        # Of a test run that was killed: the process whose number is in the name is gone.
        kind, _, owner = lab.name.partition("-")
        if kind == NAME and owner.isdigit() and not Path(f"/proc/{owner}").exists():
            labs.down(lab.name, print)
    name = f"{NAME}-{os.getpid()}"
    lab = labs.up(name, print, managers=3, workers=2)
    try:
        yield Cluster(lab)
    finally:
        labs.down(name, print)


@pytest.fixture
def cluster(whole_cluster: Cluster) -> Iterator[Cluster]:
    """The cluster, whole before the test and after it."""
    yield whole_cluster
    whole_cluster.tidy()
