"""Overlay networks on real Engines: names, virtual addresses, the routing mesh, and no request that fails."""

from __future__ import annotations

import json
import re

import pytest

from swarmpy.adapters.overlay.identity import room_name
from tests.e2e.cluster import WEB_1, WEB_2, Cluster, until
from tests.e2e.traffic import answered, get, traffic

pytestmark = [pytest.mark.lab, pytest.mark.timeout(240)]
PORT = 8080


def address(cluster: Cluster, node: str) -> str:
    return cluster.lab.node(node).address


def field(answer: str, key: str) -> str:
    found = re.search(rf"{key}=(\S+)", answer)
    return found.group(1) if found else ""


def inside(cluster: Cluster, service: str, *words: str) -> str:
    """Run something in a container of the service."""
    node = cluster.tasks(service)[0]["Node"]
    container = next(iter(cluster.containers(service, node)))
    return cluster.engine("exec", container, *words, node=node, check=False).stdout


@pytest.fixture
def front(cluster: Cluster):
    cluster.docker("network", "create", "-d", "overlay", "--attachable", "front")
    yield "front"
    names = cluster.swarmpy("service", "ls", "--format", "{{.Name}}").stdout.split()
    if names:
        cluster.swarmpy("service", "rm", *names)
    until(
        lambda: cluster.docker("network", "rm", "front", check=False).returncode == 0, 30, "front is removed"
    )


def test_services_find_each_other_by_name_and_are_balanced(cluster: Cluster, front: str) -> None:
    cluster.docker("service", "create", "-d", "--name", "web", "--network", front, "--replicas", "3", WEB_1)
    cluster.docker("service", "create", "-d", "--name", "client", "--network", front, "registry:5000/sleeper")
    cluster.await_running("web", 3)
    cluster.await_running("client", 1)
    answers = inside(
        cluster, "client", "sh", "-c", "for i in 1 2 3 4 5 6; do timeout 5 wget -qO- http://web/; done"
    )
    hosts = re.findall(r"host=(\S+)", answers)
    assert len(hosts) == 6
    assert len(set(hosts)) == 3, answers
    own = inside(cluster, "client", "hostname", "-i").split()
    assert set(re.findall(r"client=(\S+)", answers)) <= set(own), "the client's own address is seen"
    tasks = inside(cluster, "client", "nslookup", "tasks.web")
    assert len(set(re.findall(r"10\.\d+\.\d+\.\d+", tasks))) == 3, tasks
    assert re.search(r"10\.\d", inside(cluster, "client", "nslookup", "1.web"))
    # A task may reach its own service, itself included.
    loop = inside(cluster, "web", "sh", "-c", "for i in 1 2 3; do timeout 5 wget -qO- http://web/; done")
    assert len(set(re.findall(r"host=(\S+)", loop))) == 3, loop


def test_services_of_a_dual_stack_network_are_found_and_balanced_over_both(cluster: Cluster) -> None:
    cluster.docker("network", "create", "-d", "overlay", "--ipv6", "both")
    for name, replicas in (("web", 3), ("client", 1)):
        words = ["--name", name, "--network", "both", "--replicas", str(replicas)]
        cluster.docker("service", "create", "-d", *words, WEB_1)
        cluster.await_running(name, replicas)
    shown = cluster.docker("service", "inspect", "--format", "{{json .Endpoint.VirtualIPs}}", "web").stdout
    vips = [one["Addr"].partition("/")[0] for one in json.loads(shown)]
    assert [":" in one for one in vips] == [False, True]
    answers = inside(cluster, "client", "nslookup", "web")
    assert all(one in answers for one in vips), answers
    for vip in vips:
        host = f"[{vip}]" if ":" in vip else vip
        loop = f"for i in 1 2 3 4 5 6; do timeout 5 wget -qO- http://{host}/; done"
        found = re.findall(r"host=(\S+)", inside(cluster, "client", "sh", "-c", loop))
        assert (len(found), len(set(found))) == (6, 3), found


def test_every_node_answers_a_published_port_and_the_clients_address_is_seen(cluster: Cluster) -> None:
    cluster.docker("service", "create", "-d", "--name", "web", "-p", f"{PORT}:80", "--replicas", "2", WEB_1)
    cluster.await_running("web", 2)
    client = cluster.lab.node("c1").address
    for node in ("m1", "m2", "m3", "w1", "w2"):
        target = f"{address(cluster, node)}:{PORT}"
        answered(cluster, "c1", target)
        answers = [get(cluster, "c1", target) for _ in range(4)]
        assert {field(one, "client") for one in answers} == {client}, answers
        assert len({field(one, "host") for one in answers}) == 2, answers
        assert field(get(cluster, node, f"127.0.0.1:{PORT}"), "version") == "1"
    listed = cluster.docker("service", "ls", "--format", "{{.Ports}}").stdout.strip()
    assert listed == f"*:{PORT}->80/tcp"
    refused = cluster.docker("service", "create", "-d", "-p", f"{PORT}:80", WEB_1, check=False)
    assert f"port '{PORT}' is already in use by service 'web'" in refused.stderr


def test_nodes_answer_over_ipv6_and_the_clients_address_is_seen(cluster: Cluster) -> None:
    """The ingress network with which a cluster begins has both; one port is published on one address only."""
    alone = cluster.lab.node("w2").address6
    words = ["-p", f"{PORT}:80", "-p", f"[{alone}]:{PORT + 1}:80", "--replicas", "2"]
    cluster.swarmpy("service", "create", "-d", "--name", "web", *words, WEB_1)
    cluster.await_running("web", 2)
    client = cluster.lab.node("c1").address6
    for name in ("m1", "w1", "w2"):
        node = cluster.lab.node(name).address6
        answered(cluster, "c1", f"[{node}]:{PORT}")
        answers = [get(cluster, "c1", f"[{node}]:{PORT}") for _ in range(3)]
        assert {field(one, "client") for one in answers} == {client}, answers
        assert len({field(one, "host") for one in answers}) == 2, answers
        assert field(get(cluster, name, f"[::1]:{PORT}"), "version") == "1"
        there = get(cluster, "c1", f"[{node}]:{PORT + 1}", seconds=2)
        assert field(there, "client") == (client if node == alone else ""), there


@pytest.mark.parametrize("order", ["stop-first", "start-first"])
def test_no_request_fails_while_a_service_is_updated(cluster: Cluster, order: str) -> None:
    words = ["-p", f"{PORT}:80", "--replicas", "3", "--update-order", order, "--update-parallelism", "1"]
    cluster.docker("service", "create", "-d", "--name", "web", *words, WEB_1)
    cluster.await_running("web", 3)
    targets = [f"{address(cluster, node)}:{PORT}" for node in ("m1", "w1", "w2")]
    targets += [f"[{cluster.lab.node(node).address6}]:{PORT}" for node in ("m1", "w2")]
    for target in targets:
        answered(cluster, "c1", target)
    with traffic(cluster, *targets) as load:
        cluster.docker("service", "update", "-d", "--image", WEB_2, "web")

        def updated() -> bool:
            running = cluster.tasks("web")
            return len(running) == 3 and all(task["Image"].startswith(WEB_2) for task in running)

        until(updated, 90, "all tasks run the new image")
    load.none_failed(least=40)
    assert set(load.result["seen"]["version"]) == {"1", "2"}


def test_no_request_fails_while_a_service_is_scaled_and_a_node_drained(cluster: Cluster) -> None:
    cluster.docker("service", "create", "-d", "--name", "web", "-p", f"{PORT}:80", "--replicas", "4", WEB_1)
    cluster.await_running("web", 4)
    targets = [f"{address(cluster, node)}:{PORT}" for node in ("m1", "w1")]
    for target in targets:
        answered(cluster, "c1", target)
    with traffic(cluster, *targets) as load:
        cluster.swarmpy("service", "scale", "-d", "web=6")
        cluster.await_running("web", 6)
        cluster.swarmpy("service", "scale", "-d", "web=2")
        cluster.await_running("web", 2)
        gone = cluster.tasks("web")[0]["Node"]
        cluster.swarmpy("node", "update", "--availability", "drain", gone)
        until(lambda: gone not in {task["Node"] for task in cluster.await_running("web", 2)}, 60, "drained")
    load.none_failed(least=40)


def test_no_request_fails_while_daemons_and_the_leader_are_killed(cluster: Cluster) -> None:
    cluster.docker("service", "create", "-d", "--name", "web", "-p", f"{PORT}:80", "--replicas", "4", WEB_1)
    cluster.await_running("web", 4)
    targets = [f"{address(cluster, node)}:{PORT}" for node in ("m1", "w1", "w2")]
    for target in targets:
        answered(cluster, "c1", target)
    leader = cluster.leader()
    other = next(name for name in cluster.managers if name != leader)
    with traffic(cluster, *targets) as load:
        for node in ("w1", leader):
            cluster.kill(node, "daemon")
            cluster.start(node, "daemon")
        until(
            lambda: all(row["Status"] == "Ready" for row in cluster.nodes(other).values()),
            60,
            "all are Ready",
        )
    load.none_failed(least=40)


ASKING = """
while [ ! -e /tmp/enough ]; do
  if timeout 9 nslookup web > /tmp/said 2>&1 && grep -q "Address.*: *VIP" /tmp/said; then echo good
  else echo bad; cat /tmp/said; fi >> /tmp/asked
done
"""


def test_names_are_answered_while_the_daemon_is_away_and_comes_back(cluster: Cluster, front: str) -> None:
    cluster.create("web", "--network", front, "--replicas", "2")
    cluster.create(
        "client", "--network", front, "--constraint", "node.hostname==w1", image="registry:5000/sleeper"
    )
    cluster.await_running("web", 2)
    cluster.await_running("client", 1)
    shown = cluster.docker("service", "inspect", "--format", "{{json .Endpoint.VirtualIPs}}", "web").stdout
    vip = json.loads(shown)[0]["Addr"].partition("/")[0]
    container = next(iter(cluster.containers("client", "w1")))

    def run(*words: str, detach: bool = False) -> str:
        flags = ["-d"] if detach else []
        return cluster.engine("exec", *flags, container, *words, node="w1", check=False).stdout

    def asked() -> int:
        return run("cat", "/tmp/asked").split().count("good")

    def goes_on(what: str) -> None:
        before = asked()
        until(lambda: asked() > before + 5, 20, f"names are answered {what}")

    run("sh", "-c", ASKING.replace("VIP", vip.replace(".", "[.]")), detach=True)
    goes_on("at first")
    for _ in range(3):
        cluster.kill("w1", "daemon")
        goes_on("while the daemon is away")
        assert cluster.inside("w1", "pgrep", "-fc", "swarmpy[.]standin").stdout.strip() == "1"
        cluster.start("w1", "daemon")
        goes_on("after it came back")
        until(lambda: cluster.nodes()["w1"]["Status"] == "Ready", 60, "w1 is Ready")
    # By the daemon, not by what was written down before:
    cluster.create("late", "--network", front)
    until(lambda: "Name:" in run("nslookup", "late"), 30, "the daemon answers")
    run("touch", "/tmp/enough")
    told = run("cat", "/tmp/asked")
    print(f"{asked()} questions were answered")
    assert "bad" not in told, told


def test_flushed_rules_are_mended(cluster: Cluster) -> None:
    cluster.docker("service", "create", "-d", "--name", "web", "-p", f"{PORT}:80", WEB_1)
    cluster.await_running("web", 1)
    target = f"{address(cluster, 'w1')}:{PORT}"
    answered(cluster, "c1", target)

    def handle() -> str:
        shown = cluster.inside("w1", "nft", "-a", "list", "table", "inet", "swarmpy_mesh", check=False).stdout
        return "".join(re.findall(r"^table inet swarmpy_mesh \{ # handle (\d+)", shown))

    before = handle()
    assert before
    # Ours only: Docker does not mend its own.
    cluster.inside("w1", "nft", "delete", "table", "inet", "swarmpy_mesh")
    until(lambda: handle() not in ("", before), 20, "another table is there")
    answered(cluster, "c1", target)


def test_a_container_whose_link_somebody_removes_is_replaced(cluster: Cluster, front: str) -> None:
    cluster.create("web", "--network", front)
    [before] = cluster.await_running("web", 1)
    node = before["Node"]
    key = cluster.docker("network", "inspect", "-f", "{{.Id}}", front).stdout.strip()
    space = f"--net=/run/netns/{room_name(key)}"
    listed = cluster.inside(node, "nsenter", space, "ip", "-o", "link").stdout
    [port] = re.findall(r"(sp\w+)@", listed)
    cluster.inside(node, "nsenter", space, "ip", "link", "del", port)
    until(
        lambda: [one["ID"] for one in cluster.tasks("web")] not in ([], [before["ID"]]),
        60,
        "another one runs",
    )
    words = ["--no-trunc", "--filter", "desired-state=shutdown", "--format", "json"]
    [row] = map(json.loads, cluster.swarmpy("service", "ps", "web", *words).stdout.splitlines())
    assert row["CurrentState"].startswith("Failed")
    assert f"link to network {front} is gone from this node" in row["Error"]


def test_a_network_in_use_stays_and_shows_who_uses_it(cluster: Cluster, front: str) -> None:
    cluster.docker("service", "create", "-d", "--name", "web", "--network", front, WEB_1)
    [task] = cluster.await_running("web", 1)
    refused = cluster.docker("network", "rm", front, check=False)
    assert "is in use by service" in refused.stderr
    [shown] = json.loads(cluster.docker("network", "inspect", "-v", front).stdout)
    assert (shown["Driver"], shown["Scope"], shown["Attachable"]) == ("overlay", "swarm", True)
    assert [one["Name"].split(".")[0] for one in shown["Services"]["web"]["Tasks"]] == ["web"]
    assert [one["IP"] for one in shown["Peers"]] == [address(cluster, task["Node"])]
