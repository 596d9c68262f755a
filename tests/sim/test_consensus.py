"""The log under faults: nothing acknowledged is lost, everybody agrees, every run replays."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from swarmpy.sim.main import main
from swarmpy.sim.nemesis import REGISTRY
from swarmpy.sim.runs import run_seed
from tests.sim.seeds import broken

SEEDS_A_TEST = 50

pytestmark = pytest.mark.timeout(900)


@pytest.mark.parametrize("start", range(0, 100, SEEDS_A_TEST))
def test_seeds_are_clean(start: int) -> None:
    assert broken("consensus", range(start, start + SEEDS_A_TEST)) == ""


def test_a_seed_replays_under_any_hash_seed() -> None:
    outputs = set()
    for hashing in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-m", "swarmpy.sim.main", "--world", "consensus", "--seeds", "1..4"],
            env={**os.environ, "PYTHONHASHSEED": hashing}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        outputs.add(done.stdout)
    assert len(outputs) == 1


def test_seeds_differ_and_repeat() -> None:
    hashes = [run_seed("consensus", seed, duration=3).hash for seed in (1, 2, 1)]
    assert hashes[0] == hashes[2] != hashes[1]


def test_calm_water_makes_progress() -> None:
    outcome = run_seed("consensus", 3, faults=[])
    assert outcome.violation is None
    assert outcome.acked > 200


def test_there_are_many_kinds_of_faults() -> None:
    assert len(REGISTRY) >= 25


def test_a_violation_is_reported_with_its_replay(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--world", "consensus", "--seed", "0", "--bug", "acks-early"]) == 1
    printed = capsys.readouterr().out
    assert "BROKEN" in printed
    assert "replay: swarmpy sim --world consensus --seed 0 --bug acks-early --transcript" in printed


def test_wrong_usage_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--faults", "gremlins"]) == 125
    assert main(["--bug", "none-such"]) == 125
    assert main(["--seeds", "7"]) == 125
    assert "0..99" in capsys.readouterr().err
    for words in (["--managers", "0"], ["--managers", "-1"], ["--workers", "-1"], ["--seeds", "5..1"],
                  ["--duration", "-1"], ["--duration", "nan"], ["--duration", "inf"]):  # fmt: skip
        assert main(words) == 125
        said = capsys.readouterr().err
        assert words[0] in said
        assert words[1] in said
    assert main(["--list"]) == 0
