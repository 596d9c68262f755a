"""Everyday commands against a real cluster, by swarmpy's command line and by Docker's own."""

from __future__ import annotations

import pytest

from tests.e2e.cluster import WEB_1, WEB_2, Cluster, until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(180)]


def test_node_ls_shows_all_nodes_and_one_leader(cluster: Cluster) -> None:
    for asked in cluster.managers:
        rows = cluster.nodes(asked)
        assert sorted(rows) == ["m1", "m2", "m3", "w1", "w2"]
        assert {row["Status"] for row in rows.values()} == {"Ready"}
        assert sorted(rows[name]["ManagerStatus"] for name in cluster.managers) == [
            "Leader",
            "Reachable",
            "Reachable",
        ]
        assert {rows[name]["ManagerStatus"] for name in cluster.workers} == {""}
        assert [name for name, row in rows.items() if row["Self"]] == [asked]


def test_create_scale_ps_logs_rm(cluster: Cluster) -> None:
    cluster.create(
        "life", image="registry:5000/busybox:latest", command=("sh", "-c", "echo born; sleep 1000")
    )
    assert len(cluster.await_running("life", 1)) == 1
    assert cluster.swarmpy("service", "scale", "-d", "life=4").stdout == "life scaled to 4\n"
    tasks = cluster.await_running("life", 4)
    assert sorted(task["Name"] for task in tasks) == ["life.1", "life.2", "life.3", "life.4"]
    assert len({task["Node"] for task in tasks}) == 4

    def lines() -> list[str]:
        return cluster.swarmpy("service", "logs", "life").stdout.splitlines()

    until(lambda: len(lines()) == 4, 10, "a log line of each task")
    for line in lines():
        assert line.startswith("life.")
        assert line.endswith("| born")
    on = tasks[0]["Node"]
    assert len(cluster.containers("life", on)) == 1
    assert cluster.swarmpy("service", "rm", "life").stdout == "life\n"
    gone = cluster.swarmpy("service", "ps", "life", check=False)
    assert (gone.returncode, gone.stderr) == (1, "no such service: life\n")
    until(lambda: not cluster.containers("life", on), 30, "its container is gone")


def test_the_docker_command_line_drives_the_cluster(cluster: Cluster) -> None:
    nodes = cluster.docker("node", "ls", "--format", "{{.Hostname}} {{.Status}}").stdout.splitlines()
    assert sorted(nodes) == [f"{name} Ready" for name in ("m1", "m2", "m3", "w1", "w2")]
    cluster.docker("service", "create", "--name", "byhand", "--replicas", "2", WEB_1)

    def replicas() -> str:
        words = ["--filter", "name=byhand", "--format", "{{.Replicas}} {{.Image}}"]
        return cluster.docker("service", "ls", *words, node="m2").stdout.strip()

    assert replicas() == f"2/2 {WEB_1}"
    rows = cluster.docker("service", "ps", "byhand", "--format", "{{.Name}} {{.DesiredState}}").stdout
    assert sorted(rows.splitlines()) == ["byhand.1 Running", "byhand.2 Running"]
    assert "byhand scaled to 3" in cluster.docker("service", "scale", "-d", "byhand=3").stdout
    until(lambda: replicas() == f"3/3 {WEB_1}", 30, "three of three")
    assert cluster.docker("service", "rm", "byhand").stdout == "byhand\n"
    assert replicas() == ""


def test_update_of_the_image_rolls(cluster: Cluster) -> None:
    cluster.create("roll", "--replicas", "3", "--update-monitor", "1s")
    cluster.await_running("roll", 3)
    cluster.swarmpy("service", "update", "--image", WEB_2, "roll", seconds=90)
    tasks = cluster.await_running("roll", 3)
    assert {task["Image"].partition("@")[0] for task in tasks} == {WEB_2}
    state = cluster.swarmpy("service", "inspect", "--format", "{{.UpdateStatus.State}}", "roll").stdout
    assert state == "completed\n"


def test_drain_moves_tasks_and_active_takes_new_ones(cluster: Cluster) -> None:
    cluster.create("drain", "--mode", "global")
    cluster.await_running("drain", 5)
    cluster.swarmpy("node", "update", "--availability", "drain", "w1")
    tasks = cluster.await_running("drain", 4)
    assert "w1" not in {task["Node"] for task in tasks}
    until(lambda: not cluster.containers("drain", "w1"), 30, "w1 is empty")
    cluster.swarmpy("node", "update", "--availability", "active", "w1")
    assert {task["Node"] for task in cluster.await_running("drain", 5)} >= {"w1"}


def test_a_pending_task_says_why(cluster: Cluster) -> None:
    cluster.create("stuck", "--constraint", "node.labels.disk==ssd")
    until(lambda: cluster.tasks("stuck", state="Pending"), 10, "it is pending")

    def error() -> str:
        return cluster.tasks("stuck", state="Pending")[0]["Error"]

    why = "no suitable node (scheduling constraints not satisfied on 5 nodes)"
    until(lambda: why in error(), 10, "the reason is shown")
    told = cluster.swarmpy("explain", "stuck").stdout
    assert "does not satisfy node.labels.disk==ssd" in told
    assert "Smallest change: add label disk=ssd to node" in told
    cluster.swarmpy("node", "update", "--label-add", "disk=ssd", "w2")
    try:
        assert [task["Node"] for task in cluster.await_running("stuck", 1)] == ["w2"]
    finally:
        cluster.swarmpy("node", "update", "--label-rm", "disk", "w2")
