"""One case of each kind of fault that is quick, judged from outside: all of them are `python -m tests.faults`."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import Cluster
from tests.faults.campaign import begin, describe, play
from tests.faults.cases import CASES
from tests.faults.disks import damage
from tests.faults.field import Field
from tests.faults.recorder import Recorder

pytestmark = [pytest.mark.lab, pytest.mark.timeout(240)]

SHOWN = ["daemon-leader", "stop-follower", "cut-dumb", "disk-full-follower", "damaged-journal"]
SEED = 4


@pytest.fixture(scope="module")
def field(whole_cluster: Cluster) -> Iterator[Field]:
    whole_cluster.tidy()
    sockets = [
        Path(whole_cluster.socket(name, "SWARMPY_HOST").removeprefix("unix://"))
        for name in whole_cluster.managers
    ]
    recorder = Recorder(sockets, SEED)
    recorder.begin()
    try:
        made = Field(whole_cluster, recorder, random.Random(SEED))
        begin(made)
        yield made
    finally:
        recorder.end()
        whole_cluster.tidy()


@pytest.mark.parametrize("name", SHOWN)
def test_nothing_acknowledged_is_lost_and_no_read_is_stale(field: Field, name: str) -> None:
    outcome = play(CASES[name], field)
    print(describe(outcome))
    assert outcome.problems == []
    assert outcome.acked > 10
    assert outcome.reads > 10


def test_damage_is_damage() -> None:
    whole, chance = bytes(range(256)) * 8, random.Random(SEED)
    for _ in range(200):
        spoilt = damage(whole, chance)
        assert len(spoilt) == len(whole)
        assert spoilt != whole
        assert spoilt[len(whole) // 2 + 1 :] == whole[len(whole) // 2 + 1 :]
