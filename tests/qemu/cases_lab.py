"""A lab on a stock kernel: networks of a cluster whose balancer is IPVS, encrypted networks, and the other balancer.

Run inside the machine by `python -m tests.qemu`. What belongs here: what needs that kernel. What does not: what
every kernel shows (tests/e2e), the machine itself as a node (cases_systemd.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

from swarmpy.lab import lab as labs
from swarmpy.lab import nodes
from swarmpy.lab.layout import SWITCH
from swarmpy.lab.processes import patience
from tests.contracts.tap import Tap
from tests.e2e.cluster import WEB_2, Cluster, until
from tests.e2e.traffic import answered, get, traffic

pytestmark = pytest.mark.timeout(240)
PORT = 8080
MEMBERS = ("m1", "w1", "w2")
UDP, ESP = 17, 50
SLEEPER = "registry:5000/sleeper"


@pytest.fixture(scope="module")
def whole_cluster() -> Iterator[Cluster]:
    lab = labs.up("stock", print, managers=1, workers=2, balancer="ipvs")
    try:
        yield Cluster(lab)
    finally:
        labs.down("stock", print)


@pytest.fixture
def cluster(whole_cluster: Cluster) -> Iterator[Cluster]:
    """The cluster, whole before the test and after it, without services and networks of tests."""
    yield whole_cluster
    whole_cluster.tidy()
    names = whole_cluster.docker("network", "ls", "-q", "-f", "label=test", "--format", "{{.Name}}").stdout
    for name in names.split():
        until(
            lambda name=name: not whole_cluster.docker("network", "rm", name, check=False).returncode,
            30, f"network {name} is removed",
        )  # fmt: skip


def network(cluster: Cluster, name: str, *words: str) -> None:
    cluster.docker("network", "create", "-d", "overlay", "--label", "test", *words, name)


def place(cluster: Cluster, service: str) -> tuple[str, str]:
    """Node and container of the only task of a service."""
    node = cluster.tasks(service)[0]["Node"]
    return node, next(iter(cluster.containers(service, node)))


def inside(cluster: Cluster, service: str, command: str) -> str:
    """What a shell command in the container of the service prints."""
    node, container = place(cluster, service)
    return cluster.engine("exec", container, "sh", "-c", command, node=node, check=False).stdout


def beside(cluster: Cluster, service: str, *command: str) -> str:
    """What a program of the node prints in the network namespace of the container."""
    node, container = place(cluster, service)
    shown = cluster.engine("inspect", "--format", "{{.State.Pid}}", container, node=node)
    return cluster.inside(node, "nsenter", "-t", shown.stdout.strip(), "-n", *command).stdout


def asks(count: int, target: str = "http://web/") -> str:
    seconds = 5 * patience()
    return f"for i in $(seq {count}); do timeout {seconds:g} wget -qO- {target} || echo FAILED; done"


def reached(cluster: Cluster, service: str, target: str = "http://web/") -> None:
    """Wait for the first answer."""
    until(lambda: "host=" in inside(cluster, service, asks(1, target)), 30, f"{target} answers {service}")


def web_and_client(cluster: Cluster, network_name: str, *words: str, replicas: int = 3) -> None:
    count = ["--replicas", str(replicas), *words]
    cluster.create("web", "--network", network_name, *count)
    cluster.create("client", "--network", network_name, "--constraint", "node.hostname==w1", image=SLEEPER)
    cluster.await_running("web", replicas, seconds=60)
    cluster.await_running("client", 1, seconds=60)
    reached(cluster, "client")


def test_services_are_balanced_by_ipvs_in_the_namespace_of_those_who_use_them(cluster: Cluster) -> None:
    network(cluster, "front")
    web_and_client(cluster, "front")
    answers = inside(cluster, "client", asks(6))
    hosts = re.findall(r"host=(\S+)", answers)
    assert (len(hosts), len(set(hosts))) == (6, 3), answers
    assert sorted(map(hosts.count, set(hosts))) == [2, 2, 2], "in turn"
    own = inside(cluster, "client", "hostname -i").split()
    assert set(re.findall(r"client=(\S+)", answers)) <= set(own), "the client's own address is seen"
    table = beside(cluster, "client", "ipvsadm", "-Ln")
    print(table)
    assert re.search(r"^FWM +\d+ rr$", table, re.MULTILINE), table
    served = re.findall(r"-> ([\d.]+):0 +Masq +1 +\d+ +(\d+)", table)
    tasks = set(
        re.findall(r"10\.\d+\.\d+\.\d+", inside(cluster, "client", "nslookup tasks.web | tail -n +3"))
    )
    assert {address for address, _ in served} >= tasks, table
    assert sum(int(closed) for _, closed in served) >= 6, "IPVS counted the connections"
    rules = beside(cluster, "client", "nft", "list", "ruleset")
    assert "numgen" not in rules, rules
    loop = inside(cluster, "client", "wget -qO- http://web/; ping -c 1 -W 20 web")
    assert "1 packets received" in loop, loop


def test_every_node_answers_a_published_port_and_the_clients_address_is_seen(cluster: Cluster) -> None:
    cluster.create("web", "-p", f"{PORT}:80", "--replicas", "2")
    cluster.await_running("web", 2, seconds=60)
    node_of = cluster.lab.node
    for target, client in (
        *((f"{node_of(name).address}:{PORT}", node_of("c1").address) for name in MEMBERS),
        *((f"[{node_of(name).address6}]:{PORT}", node_of("c1").address6) for name in ("m1", "w2")),
    ):
        answered(cluster, "c1", target)
        answers = "".join(get(cluster, "c1", target) for _ in range(4))
        assert set(re.findall(r"client=(\S+)", answers)) == {client}, answers
        assert len(set(re.findall(r"host=(\S+)", answers))) == 2, answers


def test_no_request_fails_while_a_service_is_updated(cluster: Cluster) -> None:
    cluster.create("web", "-p", f"{PORT}:80", "--replicas", "3", "--update-parallelism", "1")
    cluster.await_running("web", 3, seconds=60)
    targets = [f"{cluster.lab.node(name).address}:{PORT}" for name in MEMBERS]
    for target in targets:
        answered(cluster, "c1", target)
    with traffic(cluster, *targets) as load:
        cluster.swarmpy("service", "update", "-d", "--image", WEB_2, "web")

        def updated() -> bool:
            running = cluster.tasks("web")
            return len(running) == 3 and all(task["Image"].startswith(WEB_2) for task in running)

        until(updated, 90, "all tasks run the new image")
    print(load.result)
    load.none_failed(least=40)
    assert set(load.result["seen"]["version"]) == {"1", "2"}


def test_no_call_fails_between_services_while_one_is_updated_behind_ipvs(cluster: Cluster) -> None:
    network(cluster, "front")
    web_and_client(cluster, "front", "--update-parallelism", "1")
    inside(cluster, "client", f"({asks(10000)}) > /tmp/answers 2>&1 &")
    cluster.swarmpy("service", "update", "-d", "--image", WEB_2, "web")
    until(
        lambda: [task["Image"].partition("@")[0] for task in cluster.tasks("web")] == [WEB_2] * 3,
        90, "all tasks run the new image",
    )  # fmt: skip
    until(lambda: "version=2" in inside(cluster, "client", "tail -n 1 /tmp/answers"), 30, "new ones answer")
    answers = inside(cluster, "client", "cat /tmp/answers")
    print(answers.count("version=1"), answers.count("version=2"), answers.count("FAILED"))
    assert answers.count("version=1") >= 3
    assert "FAILED" not in answers, answers


def test_an_encrypted_network_shows_nothing_but_esp_between_nodes(cluster: Cluster) -> None:
    switch = f"/proc/{nodes.must_run(cluster.lab, cluster.lab.node(SWITCH)).pid}/ns/net"
    tap = Tap(switch, "w1", b"version=1")
    seen = {}
    for name, words in (("clear", ()), ("sealed", ("--opt", "encrypted"))):
        network(cluster, name, *words)
        web_and_client(cluster, name, "--constraint", "node.hostname==w2", replicas=1)
        tap.take()
        answers = inside(cluster, "client", asks(5))
        seen[name] = tap.take()
        print(name, seen[name])
        assert answers.count("host=") == 5, answers
        cluster.swarmpy("service", "rm", "web", "client")
        until(lambda: not cluster.containers("web", "w2"), 60, "the first service is gone")
    assert seen["clear"]["canaries"] >= 5, "what the tap would see"
    assert UDP in seen["clear"]["protocols"]
    assert seen["sealed"]["canaries"] == 0
    assert ESP in seen["sealed"]["protocols"]
    assert not {4789, 4790} & set(seen["sealed"]["ports"])


def test_the_balancer_of_a_running_node_is_switched_and_no_call_fails(cluster: Cluster) -> None:
    network(cluster, "front")
    web_and_client(cluster, "front")
    node, container = place(cluster, "client")

    def switched(balancer: str, sign: str) -> None:
        cluster.kill(node, "daemon")
        nodes.start_daemon(replace(cluster.lab, balancer=balancer), cluster.lab.node(node))
        until(lambda: sign in beside(cluster, "client", "nft", "list", "ruleset"), 60, f"{balancer} balances")

    inside(cluster, "client", f"({asks(10000)}) > /tmp/answers 2>&1 &")
    switched("nftables", "numgen")
    until(
        lambda: not re.search(r"^FWM", beside(cluster, "client", "ipvsadm", "-Ln"), re.MULTILINE),
        60, "what IPVS had is removed",
    )  # fmt: skip
    answers = inside(cluster, "client", asks(6))
    assert len(set(re.findall(r"host=(\S+)", answers))) == 3, answers
    switched("ipvs", "mark set")
    assert re.search(r"^FWM", beside(cluster, "client", "ipvsadm", "-Ln"), re.MULTILINE)
    answers = inside(cluster, "client", asks(6))
    assert len(set(re.findall(r"host=(\S+)", answers))) == 3, answers
    assert place(cluster, "client") == (node, container)
    answers = inside(cluster, "client", "cat /tmp/answers")
    print(answers.count("host="), answers.count("FAILED"))
    assert "FAILED" not in answers, answers


def test_the_doctor_finds_nothing(cluster: Cluster) -> None:
    network(cluster, "front")
    cluster.create("web", "--mode", "global", "--network", "front", "-p", f"{PORT}:80")
    cluster.await_running("web", 3, seconds=60)
    said: list[str] = []

    def well() -> bool:
        done = cluster.swarmpy("net", "doctor", check=False)
        said.append(done.stdout + done.stderr)
        return done.returncode == 0

    until(well, 60, "the doctor finds nothing")
    print(said[-1])
