"""What the lab refuses: one sentence on stderr, exit status 1, and nothing made."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from swarmpy.lab import layout
from swarmpy.lab.layout import Lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120)]
NOBODY = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]


def lab(*words: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    line = [*before, sys.executable, "-m", "swarmpy", "lab", *words]
    return subprocess.run(line, capture_output=True, text=True, check=False)


def test_words_that_are_refused(pair: Lab) -> None:
    table = [
        (["up", "--name", pair.name], f"there is a lab {pair.name} already"),
        (["up", "--name", "Bad_Name"], "cannot name a lab"),
        (["up", "--name", "void", "--managers", "0"], "a lab has 1 to 49 managers, not 0"),
        (["down", "--name", "a.."], "cannot name a lab"),
        (["down", "--name", "nowhere"], "there is no lab nowhere"),
        (["status", "--name", "nowhere"], "there is no lab nowhere"),
        (["kill", "zz", "--name", pair.name], "has no node 'zz'"),
        (["kill", "r1", "--what", "engine", "--name", pair.name], "it has no engine"),
        (["kill", "m1", "--what", "daemon", "--name", pair.name], "the daemon of node m1 does not run"),
        (["start", "m1", "--name", pair.name], "runs already"),
        (["partition", "m1", "--from", "m1", "--name", pair.name], "cannot be cut off from itself"),
        (["exec", "--name", pair.name, "m1"], "say what to run"),
    ]
    names = [other.name for other in layout.everyone() if other.name in (pair.name, "void", "nowhere")]
    for words, sentence in table:
        done = lab(*words)
        assert (done.returncode, words) == (1, words)
        assert done.stderr.startswith("swarmpy lab: "), done.stderr
        assert sentence in done.stderr
        assert (done.stdout, done.stderr.count("\n")) == ("", 1)
    assert names == [pair.name]
    assert not layout.folder_of("void").exists()


def test_ipvs_is_asked_for_before_anything_is_made(pair: Lab) -> None:
    """Kernels differ: one without IPVS says so first, one with it gets as far as the next fault."""
    done = lab("up", "--name", "void", "--balancer", "ipvs", "--managers", "0")
    there = Path("/proc/net/ip_vs").exists()
    sentence = (
        "a lab has 1 to 49 managers, not 0" if there else "--balancer ipvs cannot be: the kernel has no IPVS"
    )
    assert sentence in done.stderr
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert not layout.folder_of("void").exists()
    other = lab("up", "--name", "void", "--balancer", "chance")
    assert "invalid choice: 'chance'" in other.stderr


@pytest.mark.parametrize("verb", ["up", "down", "status"])
def test_without_root_it_says_so(pair: Lab, verb: str) -> None:
    done = lab(verb, "--name", pair.name, before=tuple(NOBODY))
    assert done.returncode == 1
    assert "sudo" in done.stderr
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)
