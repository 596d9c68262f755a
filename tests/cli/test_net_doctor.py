"""`swarmpy net doctor`: what it prints, and how it ends."""

from __future__ import annotations

import json

from tests.cli.conftest import Run
from tests.cli.fake_swarm_daemon import FakeDaemon

SICK = {
    "healthy": False,
    "networks": [{"id": "n1", "name": "front"}, {"id": "n2", "name": "ingress"}],
    "reported": [{"id": "m", "name": "m1"}, {"id": "w", "name": "w1"}],
    "silent": [{"id": "x", "name": "w2"}],
    "tried": 6,
    "findings": [
        {"kind": "problem", "node": "w2", "network": "", "what": "it did not answer", "help": "see that it runs"},
        {"kind": "mended", "node": "w1", "network": "front", "what": "links were damaged; mended 2 s ago", "help": ""},
    ],
}  # fmt: skip


def test_findings_are_sentences_and_something_wrong_is_exit_code_1(daemon: FakeDaemon, swarmpy: Run) -> None:
    daemon.examination = SICK
    done = swarmpy("net", "doctor")
    assert done.out.splitlines() == [
        "Networks: front, ingress",
        "Nodes: 2 reported, 1 did not; 6 ways between nodes were tried",
        "",
        "PROBLEM w2: it did not answer",
        "  What would help: see that it runs",
        "",
        "MENDED w1 (front): links were damaged; mended 2 s ago",
        "",
        "Something is wrong.",
    ]
    assert (done.code, done.err) == (1, "")
    assert daemon.sent("GET", "/swarmpy/v1/net/doctor")[0]["query"] == {}


def test_a_healthy_network_is_exit_code_0_in_both_formats(daemon: FakeDaemon, swarmpy: Run) -> None:
    daemon.examination = {**SICK, "healthy": True, "findings": [], "silent": []}
    done = swarmpy("net", "doctor", "front")
    assert done.out.splitlines()[-1] == "Everything is as it should be."
    assert done.code == 0
    assert daemon.sent("GET", "/swarmpy/v1/net/doctor")[0]["query"] == {"network": "front"}
    done = swarmpy("net", "doctor", "--format", "json")
    assert json.loads(done.out) == daemon.examination
    assert done.code == 0


def test_other_formats_and_arguments_are_refused(daemon: FakeDaemon, swarmpy: Run) -> None:
    done = swarmpy("net", "doctor", "--format", "xml")
    assert (done.code, done.out) == (1, "")
    assert 'invalid --format "xml": text and json are supported' in done.err
    assert swarmpy("net", "doctor", "a", "b").code == 1
    assert daemon.sent("GET", "/swarmpy/v1/net/doctor") == []
