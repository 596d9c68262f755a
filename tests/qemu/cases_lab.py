"""A lab on a stock kernel: networks of a cluster whose balancer is IPVS, encrypted networks, and the other balancer.

Run inside the machine by `python -m tests.qemu`. What belongs here: what needs that kernel. What does not: what
every kernel shows (tests/e2e), the machine itself as a node (cases_systemd.py). Starting a container takes half a
minute there, so all cases use the same ones, in this order.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import quote

import pytest

from swarmpy.lab import lab as labs
from swarmpy.lab import nodes, unixhttp
from swarmpy.lab.layout import SWITCH
from swarmpy.lab.processes import patience
from tests.contracts.tap import Tap
from tests.e2e.cluster import WEB_2, Cluster, until
from tests.e2e.traffic import answered, get, traffic

pytestmark = pytest.mark.timeout(240)
PORT = 8080
MEMBERS = ("m1", "w1", "w2")
UDP, ESP = 17, 50


class Stock(Cluster):
    """Looks without command lines, each of which takes seconds there."""

    def tasks(self, service: str, *, asked: str = "m1", state: str = "Running") -> list[dict[str, str]]:
        wanted = quote(json.dumps({"service": [service], "desired-state": ["running"]}))
        names = {one["ID"]: one["Description"]["Hostname"] for one in self.ask(asked, "/nodes")}
        return [
            {"ID": one["ID"], "Node": names[one["NodeID"]], "Image": one["Spec"]["ContainerSpec"]["Image"]}
            for one in self.ask(asked, f"/tasks?filters={wanted}")
            if one["Status"]["State"] == state.lower()
        ]

    def containers(self, service: str, node: str) -> dict[str, str]:
        wanted = quote(json.dumps({"label": [f"com.docker.swarm.service.name={service}"]}))
        socket = nodes.engine_socket(self.lab, self.lab.node(node))
        found = json.loads(unixhttp.request(socket, "GET", f"/containers/json?filters={wanted}")[1])
        return {one["Id"]: str(one["Created"]) for one in found}

    def ask(self, node: str, target: str) -> list[dict]:
        socket = nodes.swarmpy_socket(self.lab, self.lab.node(node))
        status, body = unixhttp.request(socket, "GET", target)
        assert status == 200, body
        return json.loads(body)

    def run_in(self, service: str, node: str, command: str) -> str:
        """What a shell command in the service's container on the node prints."""
        container = min(self.containers(service, node), default="")
        assert container, f"{service} has no running container on {node}"
        return self.engine("exec", container, "sh", "-c", command, node=node, check=False).stdout

    def beside(self, service: str, node: str, *command: str) -> str:
        """What a program of the node prints in the network namespace of the service's container there."""
        socket = nodes.engine_socket(self.lab, self.lab.node(node))
        target = f"/containers/{min(self.containers(service, node))}/json"
        shown = json.loads(unixhttp.request(socket, "GET", target)[1])
        return self.inside(node, "nsenter", "-t", str(shown["State"]["Pid"]), "-n", *command).stdout


@pytest.fixture(scope="module")
def cluster() -> Iterator[Stock]:
    """With services `web` on the network `front` and port 8080, on every node, and `both` on `front` and the
    encrypted network `sealed`, on the workers."""
    lab = labs.up("stock", print, managers=1, workers=2, balancer="ipvs")
    try:
        made = Stock(lab)
        # An emulated node is silent for seconds, which is not to be taken for its end.
        made.docker("swarm", "update", "--dispatcher-heartbeat", "60s")
        made.swarmpy("network", "create", "-d", "overlay", "front")
        made.swarmpy("network", "create", "-d", "overlay", "--opt", "encrypted", "sealed")
        made.create("web", "--network", "front", "-p", f"{PORT}:80", "--mode", "global")
        words = ["--network", "front", "--network", "sealed", "--constraint", "node.role==worker"]
        made.create("both", *words, "--mode", "global")
        made.await_running("web", 3, seconds=90)
        made.await_running("both", 2, seconds=90)
        until(lambda: "host=" in made.run_in("both", "w1", asks(1)), 30, "the name answers")
        yield made
    except BaseException:
        for node in MEMBERS:
            print(node, nodes.log_of(lab, lab.node(node), "daemon").read_text()[-5000:])
        raise
    finally:
        labs.down("stock", print)


def asks(count: int, target: str = "http://web/") -> str:
    seconds = 5 * patience()
    return f"for i in $(seq {count}); do timeout {seconds:g} wget -qO- {target} || echo FAILED; done"


def hosts(answers: str) -> list[str]:
    return re.findall(r"host=(\S+)", answers)


def test_services_are_balanced_by_ipvs_in_the_namespace_of_those_who_use_them(cluster: Stock) -> None:
    answers = cluster.run_in("both", "w1", asks(6))
    found = hosts(answers)
    assert sorted(map(found.count, set(found))) == [2, 2, 2], answers
    own = cluster.run_in("both", "w1", "hostname -i").split()
    assert set(re.findall(r"client=(\S+)", answers)) <= set(own), "the client's own address is seen"
    table = cluster.beside("both", "w1", "ipvsadm", "-Ln")
    print(table)
    assert re.search(r"^FWM +\d+ rr$", table, re.MULTILINE), table
    served = re.findall(r"-> ([\d.]+):0 +Masq +1 +(\d+) +(\d+)", table)
    tasks = set(
        re.findall(r"10\.\d+\.\d+\.\d+", cluster.run_in("both", "w1", "nslookup tasks.web | tail -n +3"))
    )
    assert len(tasks) == 3
    assert {address for address, _, _ in served} >= tasks, table
    assert sum(int(opened) + int(closing) for _, opened, closing in served) >= 3, "IPVS counts them"
    assert "numgen" not in cluster.beside("both", "w1", "nft", "list", "ruleset")


def test_every_node_answers_a_published_port_and_the_clients_address_is_seen(cluster: Stock) -> None:
    node_of = cluster.lab.node
    for target, client in (
        *((f"{node_of(name).address}:{PORT}", node_of("c1").address) for name in MEMBERS),
        (f"[{node_of('w2').address6}]:{PORT}", node_of("c1").address6),
    ):
        # A node without a processor for a second is silent for the others, who do without it for so long.
        answers = [answered(cluster, "c1", target)]

        def all_serve(target: str = target, answers: list[str] = answers) -> bool:
            answers.append(get(cluster, "c1", target))
            return len(set(hosts("".join(answers)))) == 3

        until(all_serve, 30, f"all three answer at {target}")
        assert "" not in answers, answers
        assert set(re.findall(r"client=(\S+)", "".join(answers))) == {client}, answers


def test_an_encrypted_network_shows_nothing_but_esp_between_nodes(cluster: Stock) -> None:
    switch = f"/proc/{nodes.must_run(cluster.lab, cluster.lab.node(SWITCH)).pid}/ns/net"
    tap = Tap(switch, "w1", b"version=1")
    seen = {}
    for service in ("web", "both"):
        # The address of the task on the other worker: by `front` for the one, by `sealed` for the other.
        network = "front" if service == "web" else "sealed"
        target = f"http://{task_address(cluster, service, network, 'w2')}/"
        tap.take()
        answers = cluster.run_in("both", "w1", asks(4, target))
        seen[service] = tap.take()
        print(service, target, seen[service])
        assert len(hosts(answers)) == 4, answers
    assert seen["web"]["canaries"] == 4, "what the tap would see"
    assert (UDP in seen["web"]["protocols"], 4789 in seen["web"]["ports"]) == (True, True)
    assert seen["both"]["canaries"] == 0
    assert ESP in seen["both"]["protocols"]
    assert not {4789, 4790} & set(seen["both"]["ports"])


def task_address(cluster: Stock, service: str, network: str, node: str) -> str:
    """Of the service's task on the node, in that network."""
    task = next(one for one in cluster.tasks(service) if one["Node"] == node)
    [whole] = [one for one in cluster.ask("m1", "/tasks") if one["ID"] == task["ID"]]
    [held] = [one for one in whole["NetworksAttachments"] if one["Network"]["Spec"]["Name"] == network]
    return str(held["Addresses"][0]).partition("/")[0]


def test_the_balancer_of_a_running_node_is_switched_and_no_call_fails(cluster: Stock) -> None:
    before = cluster.containers("both", "w1")

    def switched(balancer: str, sign: str) -> None:
        cluster.kill("w1", "daemon")
        nodes.start_daemon(replace(cluster.lab, balancer=balancer), cluster.lab.node("w1"))
        until(
            lambda: sign in cluster.beside("both", "w1", "nft", "list", "ruleset"),
            60, f"{balancer} balances",
        )  # fmt: skip

    def has_services() -> bool:
        return "FWM" in cluster.beside("both", "w1", "ipvsadm", "-Ln")

    # By its address: names are answered by the daemon, which takes ten seconds to start there.
    found = re.findall(r"Address[^:]*: (10\.\d+\.\d+\.\d+)", cluster.run_in("both", "w1", "nslookup web"))
    assert found
    target = f"http://{found[-1]}/"
    cluster.run_in("both", "w1", f"({asks(100000, target)}) > /tmp/answers 2>&1 & echo $! > /tmp/asking")

    def all_serve() -> bool:
        # A node without a processor for a second is silent for the others, who do without it for so long.
        return len(set(hosts(cluster.run_in("both", "w1", asks(6, target))))) == 3

    switched("nftables", "numgen")
    until(all_serve, 30, "nftables balances over all three")
    switched("ipvs", "mark set")
    assert has_services()
    until(all_serve, 30, "IPVS balances over all three")
    assert cluster.containers("both", "w1") == before
    answers = cluster.run_in("both", "w1", "kill $(cat /tmp/asking); cat /tmp/answers")
    print(f"answered: {len(hosts(answers))}, failed: {answers.count('FAILED')}")
    assert len(hosts(answers)) > 10
    assert "FAILED" not in answers, answers


def test_no_request_fails_from_outside_or_inside_while_a_service_is_updated(cluster: Stock) -> None:
    targets = [f"{cluster.lab.node(name).address}:{PORT}" for name in MEMBERS]
    cluster.run_in("both", "w1", f"({asks(100000)}) > /tmp/answers 2>&1 & echo $! > /tmp/asking")
    with traffic(cluster, *targets) as load:
        cluster.swarmpy("service", "update", "-d", "--image", WEB_2, "web")

        def updated() -> bool:
            running = cluster.tasks("web")
            return len(running) == 3 and all(task["Image"].startswith(WEB_2) for task in running)

        until(updated, 120, "all tasks run the new image")
        until(
            lambda: "version=2" in cluster.run_in("both", "w1", "tail -n 1 /tmp/answers"),
            30,
            "new ones answer",
        )
    answers = cluster.run_in("both", "w1", "kill $(cat /tmp/asking); cat /tmp/answers")
    print(load.result)
    print(f"inside: answered: {len(hosts(answers))}, failed: {answers.count('FAILED')}")
    load.none_failed(least=40)
    assert set(load.result["seen"]["version"]) == {"1", "2"}
    assert "FAILED" not in answers, answers


def test_the_doctor_finds_nothing(cluster: Stock) -> None:
    said: list[str] = []

    def well() -> bool:
        done = cluster.swarmpy("net", "doctor", check=False)
        said.append(done.stdout + done.stderr)
        return done.returncode == 0

    until(well, 60, "the doctor finds nothing")
    print(said[-1])


def test_the_daemons_logged_no_error(cluster: Stock) -> None:
    for name in MEMBERS:
        log = nodes.log_of(cluster.lab, cluster.lab.node(name), "daemon").read_text()
        print(name, log)
        assert "Traceback" not in log
