"""Bad days of networks on a real cluster: two at once, nodes cut off, networks that go while they are needed, a
rack of containers at once."""

from __future__ import annotations

import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from swarmpy.adapters.overlay.identity import room_name
from swarmpy.lab import lab as labs
from tests.e2e.cluster import WEB_1, Cluster, until
from tests.e2e.traffic import answered, get

pytestmark = [pytest.mark.lab, pytest.mark.timeout(420)]

PORT = 8090


def doctor_finds_nothing(cluster: Cluster) -> bool:
    done = cluster.swarmpy("net", "doctor", "--format", "json", check=False)
    return done.returncode == 0 and bool(json.loads(done.stdout)["healthy"])


def test_of_two_who_create_one_name_at_once_one_is_told(cluster: Cluster) -> None:
    def create(node: str) -> tuple[int, str]:
        done = cluster.docker("network", "create", "-d", "overlay", "twice", node=node, check=False)
        return done.returncode, done.stderr

    with ThreadPoolExecutor() as pool:
        told = sorted(pool.map(create, cluster.managers))
    assert [code for code, _ in told] == [0, 1, 1]
    assert all("network with name twice already exists" in said for code, said in told if code)
    listed = cluster.docker("network", "ls", "--filter", "name=twice", "--format", "{{.Name}}").stdout.split()
    assert listed == ["twice"]
    cluster.docker("network", "rm", "twice")


def test_a_node_that_is_cut_off_for_a_minute_costs_one_second_and_comes_back(cluster: Cluster) -> None:
    cluster.docker("service", "create", "-d", "--name", "web", "-p", f"{PORT}:80", "--replicas", "5", WEB_1)
    cluster.await_running("web", 5)
    target = f"{cluster.lab.node('w1').address}:{PORT}"
    answered(cluster, "c1", target)
    # The node is cut off from the cluster, not from the client: what it answers is of its own.
    labs.partition(cluster.lab, ["w2"], [*cluster.managers, "w1"], one_way=False)
    cut = time.monotonic()
    time_of_answer = until(lambda: get(cluster, "c1", target, seconds=0.5), 20, "an answer though w2 is away")
    missed = 0
    while time.monotonic() - cut < 60:
        missed += not get(cluster, "c1", target, seconds=2)
    print(f"first answer after {time_of_answer:.1f} s; {missed} requests without one in a minute")
    assert cluster.nodes()["w2"]["Status"] == "Down"
    running = [task["Node"] for task in cluster.await_running("web", 5)]
    assert "w2" not in running
    labs.heal(cluster.lab)
    until(lambda: cluster.nodes()["w2"]["Status"] == "Ready", 30, "w2 is back")
    until(lambda: not cluster.containers("web", "w2"), 30, "w2 runs nothing that runs elsewhere")
    until(lambda: doctor_finds_nothing(cluster), 60, "the doctor finds nothing")
    assert get(cluster, "c1", f"{cluster.lab.node('w2').address}:{PORT}")
    assert missed == 0


def test_a_network_that_goes_while_its_tasks_start_leaves_nothing(cluster: Cluster) -> None:
    cluster.docker("network", "create", "-d", "overlay", "brief")
    key = cluster.docker("network", "inspect", "-f", "{{.Id}}", "brief").stdout.strip()
    cluster.docker(
        "service", "create", "-d", "--name", "web", "--network", "brief", "--replicas", "10", WEB_1
    )
    until(lambda: cluster.tasks("web", state="Starting") or cluster.tasks("web"), 30, "a task starts")
    refused = cluster.docker("network", "rm", "brief", check=False)
    assert "is in use by service" in refused.stderr
    cluster.docker("service", "rm", "web")
    until(lambda: cluster.docker("network", "rm", "brief", check=False).returncode == 0, 60, "it is removed")

    def gone() -> bool:
        spaces = [cluster.inside(name, "ls", "/run/netns").stdout for name in nodes]
        known = [cluster.engine("network", "ls", "--format", "{{.Name}}", node=name).stdout for name in nodes]
        return not any(room_name(key) in one for one in spaces) and not any("brief" in one for one in known)

    nodes = [*cluster.managers, *cluster.workers]
    until(gone, 60, "nothing of it is on any node")


def test_a_namespace_that_somebody_removes_is_made_anew_and_its_containers_replaced(cluster: Cluster) -> None:
    cluster.docker("network", "create", "-d", "overlay", "torn")
    key = cluster.docker("network", "inspect", "-f", "{{.Id}}", "torn").stdout.strip()
    cluster.create("web", "--network", "torn", "--constraint", "node.hostname==w1")
    cluster.create("client", "--network", "torn", "--constraint", "node.hostname==w2")
    [before] = cluster.await_running("web", 1)
    cluster.await_running("client", 1)
    cluster.inside("w1", "ip", "netns", "delete", room_name(key))

    def reached() -> bool:
        [container] = cluster.containers("client", "w2")
        words = ["exec", container, "timeout", "3", "wget", "-qO-", "http://web/"]
        return "version=1" in cluster.engine(*words, node="w2", check=False).stdout

    until(lambda: [one["ID"] for one in cluster.tasks("web")] not in ([], [before["ID"]]), 60, "another runs")
    until(reached, 30, "it is reached")
    cluster.swarmpy("service", "rm", "web", "client")
    until(lambda: cluster.docker("network", "rm", "torn", check=False).returncode == 0, 60, "it is removed")


def test_two_hundred_containers_at_once(cluster: Cluster) -> None:
    cluster.docker("network", "create", "-d", "overlay", "crowd")
    words = ["--network", "crowd", "--replicas", "200", "-p", f"{PORT}:80"]
    began = time.monotonic()
    cluster.create("web", *words)
    cluster.await_running("web", 200, seconds=300)
    print(f"200 tasks run on an overlay and the mesh after {time.monotonic() - began:.1f} s")
    addresses = Counter(one for network in ("crowd", "ingress") for one in _addresses(cluster, network))
    assert len(addresses) == 400, "each has its own address in each of its networks"
    assert set(addresses.values()) == {1}
    for name in (*cluster.managers, *cluster.workers):
        assert answered(cluster, "c1", f"{cluster.lab.node(name).address}:{PORT}")
    until(lambda: doctor_finds_nothing(cluster), 60, "the doctor finds nothing")
    cluster.swarmpy("service", "rm", "web")
    until(lambda: cluster.docker("network", "rm", "crowd", check=False).returncode == 0, 120, "it is removed")


def _addresses(cluster: Cluster, network: str) -> list[str]:
    """Of the service's tasks, as each node shows those that it has."""
    found: list[str] = []
    for name in (*cluster.managers, *cluster.workers):
        [shown] = json.loads(cluster.docker("network", "inspect", network, node=name).stdout)
        found += [
            one["IPv4Address"] for one in shown["Containers"].values() if one["Name"].startswith("web.")
        ]
    return found
