"""Containers that users run themselves on an attachable network: with the docker client, on any node."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from tests.e2e.cluster import WEB_1, Cluster, until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(240)]
SLEEPER = "registry:5000/sleeper"


@pytest.fixture
def front(cluster: Cluster) -> Iterator[str]:
    cluster.docker("network", "create", "-d", "overlay", "--attachable", "front")
    yield "front"
    for node in ("m1", "w1"):
        ids = cluster.engine("ps", "-aq", "--filter", "label=guest", node=node).stdout.split()
        if ids:
            cluster.engine("rm", "-f", *ids, node=node)
    names = cluster.swarmpy("service", "ls", "--format", "{{.Name}}").stdout.split()
    if names:
        cluster.swarmpy("service", "rm", *names)
    until(lambda: cluster.docker("network", "rm", "front", check=False).returncode == 0, 30, "front goes")


def run(cluster: Cluster, node: str, name: str, *words: str, image: str = SLEEPER) -> str:
    """Run a container on the network; returns its address."""
    cluster.docker("run", "-d", "--label", "guest", "--name", name, *words, image, node=node)
    [shown] = json.loads(cluster.docker("inspect", name, node=node).stdout)
    return str(shown["NetworkSettings"]["Networks"]["front"]["IPAddress"])


def inside(cluster: Cluster, node: str, name: str, *words: str) -> str:
    return cluster.docker("exec", name, *words, node=node, check=False).stdout


def reaches(cluster: Cluster, node: str, name: str, other: str, address: str) -> bool:
    found = inside(cluster, node, name, "ping", "-c1", "-W2", other)
    return f"({address})" in found and " 0% packet loss" in found


def test_containers_of_users_join_find_and_leave(cluster: Cluster, front: str) -> None:
    cluster.docker("service", "create", "-d", "--name", "web", "--network", front, "--replicas", "2", WEB_1)
    cluster.await_running("web", 2)
    far = run(cluster, "w1", "far", "--network", front)
    near = run(cluster, "m1", "near", "--network", front)
    key = cluster.docker("network", "inspect", "-f", "{{.Id}}", front).stdout.strip()
    [shown] = json.loads(cluster.docker("inspect", "far", node="w1").stdout)
    assert shown["NetworkSettings"]["Networks"][front]["NetworkID"] == key
    until(lambda: reaches(cluster, "w1", "far", "near", near), 15, "the worker's finds the manager's")
    until(lambda: reaches(cluster, "m1", "near", "far", far), 15, "the manager's finds the worker's")
    for node, name, own in (("w1", "far", far), ("m1", "near", near)):
        script = "for i in 1 2 3 4; do timeout 5 wget -qO- http://web/; done"
        answers = inside(cluster, node, name, "sh", "-c", script)
        assert len(set(re.findall(r"host=(\S+)", answers))) == 2, answers
        assert set(re.findall(r"client=(\S+)", answers)) == {own}

    # The daemon's restart takes nothing from them.
    cluster.kill("w1", "daemon")
    cluster.start("w1", "daemon")
    until(
        lambda: "host=" in inside(cluster, "w1", "far", "timeout", "5", "wget", "-qO-", "http://web/"),
        30,
        "names",
    )
    assert reaches(cluster, "m1", "near", "far", far)

    # In use by containers alone, it stays; the last to be removed frees it, whoever removes it.
    cluster.swarmpy("service", "rm", "web")
    cluster.docker("rm", "-f", "near")

    def refusal() -> str:
        return cluster.docker("network", "rm", front, check=False).stderr

    until(lambda: "is in use by container far on node w1" in refusal(), 30, "only far uses it")
    cluster.engine("rm", "-f", "far", node="w1")
    until(lambda: not refusal(), 15, "the address is free, and the network can go")
    cluster.docker("network", "create", "-d", "overlay", "--attachable", "front")


def test_connect_and_disconnect(cluster: Cluster, front: str) -> None:
    peer = run(cluster, "m1", "peer", "--network", front)
    cluster.docker("run", "-d", "--label", "guest", "--name", "late", SLEEPER, node="w1")
    cluster.docker("network", "connect", "--alias", "friend", front, "late", node="w1")
    [shown] = json.loads(cluster.docker("inspect", "late", node="w1").stdout)
    late = shown["NetworkSettings"]["Networks"][front]["IPAddress"]
    until(lambda: reaches(cluster, "m1", "peer", "friend", late), 15, "it is found by its alias")
    assert " 0% packet loss" in inside(cluster, "w1", "late", "ping", "-c1", "-W2", peer)
    cluster.docker("network", "disconnect", front, "late", node="w1")
    until(lambda: not reaches(cluster, "m1", "peer", "friend", late), 15, "it is gone")
    assert late not in inside(cluster, "w1", "late", "ip", "-4", "addr")


def test_what_is_refused_says_so_in_dockers_words(cluster: Cluster, front: str) -> None:
    cluster.docker("network", "create", "-d", "overlay", "closed")
    try:
        for node in ("m1", "w1"):
            refused = cluster.docker("run", "--rm", "--network", "closed", SLEEPER, node=node, check=False)
            assert refused.returncode == 125
            assert (
                "Could not attach to network closed: rpc error: code = PermissionDenied desc = network closed "
                "not manually attachable"
            ) in refused.stderr
            unknown = cluster.docker("run", "--rm", "--network", "nope", SLEEPER, node=node, check=False)
            assert "network nope not found" in unknown.stderr
    finally:
        # Nothing that was refused holds it.
        cluster.docker("network", "rm", "closed")
