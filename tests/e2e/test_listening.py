"""No request fails because of a deploy: programs that take two seconds to listen, on real Engines."""

from __future__ import annotations

import pytest

from tests.e2e.cluster import WEB_1, WEB_2, Cluster, until
from tests.e2e.traffic import answered, traffic

pytestmark = [pytest.mark.lab, pytest.mark.timeout(240)]
PORT = 8080
SLOW = ("sh", "-c", "sleep 2; exec /bin/serve")
"""A program that listens two seconds after its start."""
NODES = ("m1", "w1", "w2")


def deploy(cluster: Cluster, *words: str) -> list[str]:
    """The service web, two tasks of it in traffic; returns where it answers."""
    command = ["service", "create", "-d", "--name", "web", "-p", f"{PORT}:80", "--replicas", "2", *words]
    cluster.docker(*command, WEB_1, *SLOW)
    cluster.await_running("web", 2)
    targets = [f"{cluster.lab.node(name).address}:{PORT}" for name in NODES]
    for target in targets:
        answered(cluster, "c1", target)
    return targets


@pytest.mark.parametrize("order", ["stop-first", "start-first"])
def test_no_request_fails_while_a_slow_program_is_scaled_and_updated(cluster: Cluster, order: str) -> None:
    targets = deploy(cluster, "--update-order", order, "--update-parallelism", "1")
    with traffic(cluster, *targets) as load:
        cluster.docker("service", "scale", "-d", "web=4")
        cluster.await_running("web", 4)
        cluster.docker("service", "update", "-d", "--image", WEB_2, "web")

        def updated() -> bool:
            running = cluster.tasks("web")
            return len(running) == 4 and all(task["Image"].startswith(WEB_2) for task in running)

        until(updated, 120, "all tasks run the new image")
    load.none_failed(least=200)
    assert set(load.result["seen"]["version"]) == {"1", "2"}
    assert len(load.result["seen"]["host"]) >= 6, "old and new tasks had their share"


def test_without_waiting_requests_are_refused(cluster: Cluster) -> None:
    """What the wait is for, and that this traffic would see it: the same service with the wait turned off."""
    targets = deploy(cluster, "--label", "io.swarmpy.listen-wait=0s")
    with traffic(cluster, *targets) as load:
        cluster.docker("service", "scale", "-d", "web=4")
        cluster.await_running("web", 4)
        until(lambda: all(answered(cluster, "c1", one) for one in targets), 30, "all answer")
    assert load.result["failed"] > 0, load.result
    assert all("refused" in one["error"] for one in load.result["failures"]), load.result
