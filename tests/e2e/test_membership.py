"""Nodes that come, go and change roles; and every word the cluster refuses: one sentence, and nothing changed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.cluster import WEB_1, Cluster, until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(180)]
USAGE = 125
"""Exit status for flags that cannot be parsed, as Docker's."""


def token(cluster: Cluster, role: str) -> str:
    return cluster.swarmpy("join-token", "-q", role).stdout.strip()


def address(cluster: Cluster, node: str) -> str:
    return f"{cluster.lab.node(node).address}:2377"


def stand_ins(cluster: Cluster, node: str) -> list[str]:
    """Processes that answer names for a daemon that is away."""
    return cluster.inside(node, "pgrep", "-f", "swarmpy[.]standin", check=False).stdout.split()


def rejoin(cluster: Cluster, node: str) -> None:
    cluster.swarmpy("join", "--token", token(cluster, "worker"), address(cluster, "m1"), node=node)
    until(lambda: cluster.nodes()[node]["Status"] == "Ready", 30, f"{node} is Ready")


@pytest.fixture
def outsider(cluster: Cluster) -> Iterator[str]:
    """A node whose daemon runs but belongs to no cluster."""
    cluster.swarmpy("leave", node="w2")
    until(lambda: cluster.nodes()["w2"]["Status"] == "Down", 30, "w2 is Down")
    cluster.swarmpy("node", "rm", "w2")
    yield "w2"
    rejoin(cluster, "w2")


def test_a_worker_becomes_a_manager_and_a_worker_again(cluster: Cluster) -> None:
    cluster.swarmpy("node", "promote", "w1")
    until(lambda: cluster.nodes()["w1"]["ManagerStatus"] == "Reachable", 45, "w1 is a manager")
    until(lambda: cluster.swarmpy("node", "ls", node="w1", check=False).returncode == 0, 30, "w1 answers")
    assert sorted(cluster.nodes("w1")) == ["m1", "m2", "m3", "w1", "w2"]
    cluster.swarmpy("node", "demote", "w1")
    until(lambda: cluster.nodes()["w1"]["ManagerStatus"] == "", 45, "w1 is a worker")
    until(lambda: cluster.swarmpy("node", "ls", node="w1", check=False).returncode == 1, 30, "w1 says so")
    cluster.create("onw1", "--constraint", "node.hostname==w1")
    assert len(cluster.await_running("onw1", 1)) == 1


def test_a_node_that_left_is_removed_and_may_join_again(cluster: Cluster, outsider: str) -> None:
    assert sorted(cluster.nodes()) == ["m1", "m2", "m3", "w1"]
    assert cluster.swarmpy("info", node=outsider, check=False).returncode == 0
    rejoin(cluster, outsider)
    cluster.swarmpy("network", "create", "-d", "overlay", "named")
    cluster.create("back", "--constraint", "node.hostname==w2", "--network", "named")
    assert len(cluster.await_running("back", 1)) == 1
    until(lambda: len(stand_ins(cluster, outsider)) == 1, 10, "one stands in for the daemon")
    cluster.swarmpy("service", "rm", "back")
    cluster.swarmpy("leave", node=outsider)
    until(lambda: cluster.nodes()["w2"]["Status"] == "Down", 30, "w2 is Down")
    until(lambda: not stand_ins(cluster, outsider), 10, "nobody answers names there any more")
    cluster.swarmpy("node", "rm", "w2")
    removed = ("network", "rm", "named")
    until(lambda: cluster.swarmpy(*removed, check=False).returncode == 0, 30, "the network is removed")


def test_joins_that_are_refused(cluster: Cluster, outsider: str) -> None:
    good, at = token(cluster, "worker"), address(cluster, "m1")
    table = [
        (["--token", "SWMTKN-1-foo-bar", at], "invalid join token: it should look like"),
        (["--token", good[:-5] + "aaaaa", at], "this one's secret is not current"),
        (["--token", good, address(cluster, "c1")], "nothing listens on"),
        (["--token", good, "192.0.2.1:2377"], "cannot be reached"),
        ([at], "a join token is required"),
    ]
    for words, sentence in table:
        done = cluster.swarmpy("join", *words, node=outsider, check=False)
        assert done.returncode == 1, words
        assert sentence in done.stderr
        assert (done.stdout, done.stderr.count("\n")) == ("", 1)
        assert sorted(cluster.nodes()) == ["m1", "m2", "m3", "w1"]
    refused = cluster.swarmpy("node", "ls", node=outsider, check=False)
    assert refused.returncode == 1
    assert "This node is not a swarm manager" in refused.stderr


REFUSED: list[tuple[list[str], int, str]] = [
    (["init"], 1, "This node is already part of a swarm"),
    (["join", "--token", "x", "10.0.0.1:2377"], 1, "This node is already part of a swarm"),
    (["leave"], 1, "You are attempting to leave the swarm on a node that is participating as a manager"),
    (["join-token", "boss"], 1, "unknown role boss"),
    (["node", "inspect", "nope"], 1, "node nope not found"),
    (["node", "rm", "w1"], 1, "is not down and can't be removed"),
    (["node", "update", "--availability", "gone", "w1"], 1, 'invalid availability "gone"'),
    (["service", "rm", "nope"], 1, "service nope not found"),
    (["service", "scale", "nope=3"], 1, "service nope not found"),
    (["service", "create", "-d", "--name", "a.b", WEB_1], 1, "valid as a DNS name component"),
    (["service", "create", "-d", "--name", "taken", WEB_1], 1, "taken"),
    (["service", "create", "-d", "--constraint", "foo", WEB_1], 1, "constraint"),
    (["service", "create", "-d", "--mode", "sideways", WEB_1], 1, "unknown mode: sideways"),
    (["service", "create", "--replicas", "x", WEB_1], USAGE, 'invalid argument "x" for "--replicas"'),
    (["service", "create", "--bogus", WEB_1], USAGE, "unknown flag: --bogus"),
    (["service", "create"], 1, "requires at least 1 argument"),
    (["frobnicate"], 1, "unknown command"),
]


def test_words_that_are_refused(cluster: Cluster) -> None:
    cluster.create("taken", "--replicas", "0")
    before = picture(cluster)
    for words, status, sentence in REFUSED:
        done = cluster.swarmpy(*words, check=False)
        assert (done.returncode, words) == (status, words)
        assert sentence in done.stderr.splitlines()[0], words
        assert "Traceback" not in done.stderr
    assert picture(cluster) == before


def test_an_ambiguous_start_of_an_id_is_refused(cluster: Cluster) -> None:
    starts: set[str] = set()
    for number in range(40):  # 36 letters: two of 37 ids begin alike
        name = f"many{number}"
        cluster.create(name, "--replicas", "0")
        identity = cluster.swarmpy("service", "inspect", "--format", "{{.ID}}", name).stdout
        if identity[0] in starts:
            break
        starts.add(identity[0])
    done = cluster.swarmpy("service", "rm", identity[0], check=False)
    assert done.returncode == 1
    assert f"service {identity[0]} is ambiguous" in done.stderr
    assert len(cluster.swarmpy("service", "ls", "-q").stdout.split()) == number + 1


def picture(cluster: Cluster) -> list[str]:
    """What must not change when a command is refused: nodes, and services with their versions."""
    services = cluster.swarmpy("service", "ls", "-q").stdout.split()
    words = ["inspect", "--format", "{{.ID}} {{.Version.Index}}"]
    versions = cluster.swarmpy("service", *words, *services).stdout if services else ""
    nodes = cluster.swarmpy("node", "ls", "--format", "{{.ID}} {{.Availability}} {{.ManagerStatus}}").stdout
    return sorted([*versions.splitlines(), *nodes.splitlines()])
