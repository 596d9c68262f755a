"""What dies, and what the cluster makes of it. Measured times are printed (pytest -s, or on failure)."""

from __future__ import annotations

import time

import pytest

from tests.e2e.cluster import Cluster, until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(180)]


def test_a_killed_container_is_replaced(cluster: Cluster) -> None:
    cluster.create("phoenix")
    [task] = cluster.await_running("phoenix", 1)
    [container] = cluster.containers("phoenix", task["Node"])
    cluster.engine("kill", container, node=task["Node"])

    def replaced() -> bool:
        running = cluster.tasks("phoenix")
        return len(running) == 1 and running[0]["ID"] != task["ID"]

    took = until(replaced, 30, "another task runs")
    print(f"killed container replaced after {took:.1f} s (restart delay 1 s)")
    words = ["--filter", "desired-state=shutdown", "--format", "{{.CurrentState}} {{.Error}}", "--no-trunc"]
    assert "Failed" in cluster.swarmpy("service", "ps", "phoenix", *words).stdout


def test_the_leaders_daemon_is_killed_and_writes_go_on(cluster: Cluster) -> None:
    leader = cluster.leader()
    other = next(name for name in cluster.managers if name != leader)
    cluster.kill(leader, "daemon")
    began = time.monotonic()

    def written() -> bool:
        words = ["service", "create", "-d", "--name", "after", "registry:5000/web:1"]
        return cluster.swarmpy(*words, node=other, check=False).returncode == 0

    until(written, 30, "a write succeeds")
    took = time.monotonic() - began
    print(f"first write {took:.2f} s after the leader was killed")
    assert took < 10
    assert cluster.leader(other) != leader
    cluster.await_running("after", 1, asked=other)
    cluster.start(leader, "daemon")
    until(lambda: cluster.nodes(other)[leader]["ManagerStatus"] == "Reachable", 30, f"{leader} is back")


@pytest.mark.parametrize("node", ["m2", "w1"])
def test_a_restarted_daemon_restarts_no_container(cluster: Cluster, node: str) -> None:
    cluster.create("steady", "--replicas", "2", "--constraint", f"node.hostname=={node}")
    cluster.await_running("steady", 2)
    before = cluster.containers("steady", node)
    cluster.kill(node, "daemon")
    cluster.start(node, "daemon")
    until(lambda: cluster.nodes()[node]["Status"] == "Ready", 30, f"{node} is Ready")
    # A change that the new daemon carries out proves that it has taken up its tasks.
    cluster.swarmpy("service", "scale", "-d", "steady=3")
    cluster.await_running("steady", 3)
    after = cluster.containers("steady", node)
    assert len(before) == 2
    assert before.items() <= after.items()


def test_a_killed_engine_leaves_its_containers_alone(cluster: Cluster) -> None:
    cluster.create("outlive", "--constraint", "node.hostname==w1")
    cluster.await_running("outlive", 1)
    before = cluster.containers("outlive", "w1")
    cluster.kill("w1", "engine")
    cluster.start("w1", "engine")
    until(lambda: cluster.nodes()["w1"]["Status"] == "Ready", 30, "w1 is Ready")
    cluster.swarmpy("service", "scale", "-d", "outlive=2")
    cluster.await_running("outlive", 2)
    assert len(before) == 1
    assert before.items() <= cluster.containers("outlive", "w1").items()


def test_a_dead_workers_replicas_run_elsewhere_and_it_may_come_back(cluster: Cluster) -> None:
    cluster.create("exodus", "--replicas", "5")
    assert "w2" in {task["Node"] for task in cluster.await_running("exodus", 5)}
    cluster.kill("w2", "node")
    down = until(lambda: cluster.nodes()["w2"]["Status"] == "Down", 45, "w2 is Down")

    def moved() -> bool:
        running = cluster.tasks("exodus")
        return len(running) == 5 and "w2" not in {task["Node"] for task in running}

    took = down + until(moved, 30, "five replicas run elsewhere")
    print(f"dead worker: Down after {down:.1f} s, all replicas elsewhere after {took:.1f} s")
    cluster.start("w2", "node")
    until(lambda: cluster.nodes()["w2"]["Status"] == "Ready", 30, "w2 is Ready")
    until(lambda: not cluster.containers("exodus", "w2"), 30, "w2 runs nothing it should not")
    assert took < 15
