"""Networks on the command line: what is sent, what is asked, and where swarmpy goes beyond Docker."""

from __future__ import annotations

import io
import shlex
import subprocess
from typing import Any

import pytest

from tests.cli.conftest import Run
from tests.cli.fake_cluster import NET_A, NET_B
from tests.cli.fake_swarm_daemon import FakeDaemon

CREATE = """
x
-d overlay x
--driver overlay --attachable --internal --ingress --scope swarm x
-d overlay --subnet 10.1.0.0/24 --gateway 10.1.0.1 --ip-range 10.1.0.128/25 --aux-address a=10.1.0.5 --aux-address b=10.1.0.6 x
-d overlay --subnet 10.1.0.0/24 --subnet fd00::/64 --gateway fd00::1 --ipv6 x
--subnet 10.1.0.0/24,10.2.0.0/24 --gateway 10.2.0.1 --aux-address r=10.2.0.9 x
--subnet foo x
--subnet 10.1.0.5/24 x
--opt encrypted --opt com.docker.network.driver.mtu=1400 -o a=b -o a=c --opt =x --label l --label k=v x
--ipam-driver foo --ipam-opt a=b --ipam-opt c x
--ipv4=false --ipv6=false x
--config-only x
--config-from y x
""".strip().splitlines()


def _written_out(body: dict[str, Any]) -> dict[str, Any]:
    """Docker leaves out what is not given (the server takes absent for zero), and sends subnets in any order."""
    body["IPAM"]["Config"].sort(key=lambda one: one["Subnet"])
    return {key: value for key, value in body.items() if value is not None}


@pytest.mark.parametrize("line", CREATE)
def test_create_sends_what_docker_sends(line: str, daemon: FakeDaemon, swarmpy: Run, docker: Run) -> None:
    bodies = []
    for run in (docker, swarmpy):
        daemon.cluster.index = 100
        done = run("network", "create", *shlex.split(line))
        assert (done.code, done.out, done.err) == (0, f"n{101:024d}\n", "")
        bodies.append(_written_out(daemon.sent("POST", "/networks/create")[-1]["body"]))
    assert bodies[1] == bodies[0]


def test_a_warning_of_the_server_is_shown(daemon: FakeDaemon, swarmpy: Run) -> None:
    daemon.cluster.network_warning = "the overlay driver does not know the option a: it has no effect"
    done = swarmpy("network", "create", "-d", "overlay", "x")
    assert (done.code, done.out) == (0, f"n{101:024d}\n")
    assert done.err == "WARNING: the overlay driver does not know the option a: it has no effect\n"


@pytest.mark.parametrize("answer", ["y\n", "Y\n", "n\n", "", "yes\n"])
@pytest.mark.parametrize("words", ["rm ingress back9", "rm -f ingress", "prune"])
def test_questions_are_asked_as_docker_does(
    words: str, answer: str, daemon: FakeDaemon, swarmpy: Run, env: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    daemon.cluster.pruned = ["back9", "back10"]
    theirs = subprocess.run(
        ["docker", "network", *words.split()], env=env, input=answer, capture_output=True, text=True,
        check=False, timeout=30,
    )  # fmt: skip
    left, asked = set(daemon.cluster.networks), len(daemon.cluster.requests)
    daemon.cluster.__init__()  # type: ignore[misc]
    daemon.cluster.pruned = ["back9", "back10"]
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    ours = swarmpy("network", *words.split())
    assert set(daemon.cluster.networks) == left
    assert len(daemon.cluster.requests) == asked - 1  # docker pings first
    said = theirs.stdout.replace("docker engine version", "swarmpy version")
    assert (ours.code, ours.out, ours.err) == (theirs.returncode, said, theirs.stderr)


def test_removal_goes_on_past_failures(daemon: FakeDaemon, swarmpy: Run) -> None:
    daemon.cluster.create({"Name": "web", "TaskTemplate": {"Networks": [{"Target": NET_A}]}})
    done = swarmpy("network", "rm", "nope", "back9", "back10")
    assert (done.code, done.out) == (1, "back10\n")
    assert done.err.splitlines() == [
        "Error response from daemon: network nope not found",
        "Error response from daemon: rpc error: code = FailedPrecondition desc = network "
        f"{NET_A} is in use by service {next(iter(daemon.cluster.services))}",
    ]
    done = swarmpy("network", "rm", "-f", "nope", "back9")
    assert (done.code, done.out) == (1, "")
    assert done.err.count("\n") == 1


def test_labels_of_a_list_are_sorted(daemon: FakeDaemon, swarmpy: Run) -> None:
    daemon.cluster.networks[NET_B]["Labels"] = {"b": "", "a": "1"}
    assert swarmpy("network", "ls", "--format", "{{.Labels}}").out.splitlines()[1] == "a=1,b="


def test_connect_sends_what_docker_sends(daemon: FakeDaemon, swarmpy: Run, docker: Run) -> None:
    words = ("--alias a,b --ip 1.2.3.4 --ip6 ::1 --link x:y --link-local-ip 169.254.1.1 --driver-opt a=b "
             "--gw-priority 3 bridge c")  # fmt: skip
    bodies = []
    for run in (docker, swarmpy):
        assert run("network", "connect", *words.split()).code == 0
        body = daemon.sent("POST", "/networks/bridge/connect")[-1]["body"]
        body["EndpointConfig"] = {key: value for key, value in body["EndpointConfig"].items() if value}
        bodies.append(body)
    assert bodies[1] == bodies[0]


# ------------------------------------------------------------ beyond Docker


def test_publishing_beyond_docker(daemon: FakeDaemon, swarmpy: Run) -> None:
    done = swarmpy("service", "create", "-d", "--name", "web", "-p",
                   "published=8080,target=80,host_ip=192.0.2.1,source=snat", "-p", "target=90,host_ip=2001:DB8::1",
                   "img")  # fmt: skip
    assert done.code == 0
    ports = daemon.sent("POST", "/services/create")[-1]["body"]["EndpointSpec"]["Ports"]
    assert ports == [
        {"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "ingress",
         "HostIP": "192.0.2.1", "Source": "snat"},
        {"Protocol": "tcp", "TargetPort": 90, "PublishMode": "ingress", "HostIP": "2001:db8::1"},
    ]  # fmt: skip
    assert "192.0.2.1:8080->80/tcp" in swarmpy("service", "ls").out
    shown = swarmpy("service", "inspect", "--pretty", "web").out
    assert "  HostIP = 192.0.2.1\n  Source = snat\n" in shown

    def update(flag: str, text: str) -> list[dict[str, Any]]:
        assert swarmpy("service", "update", "-d", flag, text, "web").code == 0
        found = daemon.sent("POST", "/services/.*/update")[-1]["body"]["EndpointSpec"].get("Ports", [])
        return [one for one in found if one["TargetPort"] == 80]

    # The same port again with another source changes it in place; the same port as it was, nothing.
    changed = update("--publish-add", "published=8080,target=80,source=local")
    assert [(one.get("HostIP"), one["Source"]) for one in changed] == [(None, "local")]
    assert update("--publish-add", "published=8080,target=80,source=local") == changed
    assert update("--publish-rm", "80") == []


def test_publishing_on_an_address_in_short(daemon: FakeDaemon, swarmpy: Run) -> None:
    words = (
        "-p [2001:DB8::1]:8080:80/udp -p 192.0.2.1:81:81 -p [::1]::82 -p published=83,target=83,host_ip=[::1]"
    )
    assert swarmpy("service", "create", "-d", "--name", "web", *words.split(), "img").code == 0
    ports = daemon.sent("POST", "/services/create")[-1]["body"]["EndpointSpec"]["Ports"]
    assert [(one["Protocol"], one["HostIP"], one.get("PublishedPort"), one["TargetPort"]) for one in ports] == [
        ("udp", "2001:db8::1", 8080, 80), ("tcp", "192.0.2.1", 81, 81), ("tcp", "::1", None, 82),
        ("tcp", "::1", 83, 83),
    ]  # fmt: skip
    shown = swarmpy("service", "ls").out
    assert "[2001:db8::1]:8080->80/udp" in shown


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("-p ::1:8080:80 img", "an IPv6 address is put in brackets, as in [2001:db8::1]:8080:80"),
        ("-p nope:8080:80 img", "IP address is not correctly formatted: nope"),
        ("-p target=80,host_ip=nope img", "IP address is not correctly formatted: nope"),
        ("-p target=80,source=nope img", "invalid source value (nope): it is preserve, snat or local"),
        ("--network name=back9,ip=10.0.0.9 img", "ip is for single containers"),
        ("--network name=back9,gw-priority=1 img", "gw-priority is for single containers"),
    ],
)
def test_refused_beyond_docker(words: str, text: str, daemon: FakeDaemon, swarmpy: Run) -> None:
    done = swarmpy("service", "create", "-d", *words.split())
    assert done.code == 125
    assert text in done.err
    assert not daemon.cluster.requests


def test_address_pools_are_added(daemon: FakeDaemon, swarmpy: Run) -> None:
    done = swarmpy("swarm", "update", "--default-addr-pool-add", "172.16.0.0/12,192.168.0.0/16")
    assert (done.code, done.out) == (0, "Swarm updated.\n")
    assert daemon.cluster.pools == ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]
    assert not daemon.sent("POST", "/swarm/update")
    # Together with the spec: the version that is written is the one after the pools were added.
    done = swarmpy("swarm", "update", "--default-addr-pool-add", "100.64.0.0/10", "--task-history-limit", "3")
    assert (done.code, done.out) == (0, "Swarm updated.\n")
    assert daemon.cluster.swarm_spec["Orchestration"]["TaskHistoryRetentionLimit"] == 3
    done = swarmpy("swarm", "update", "--default-addr-pool-add", "bad", "--task-history-limit", "9")
    assert (done.code, "invalid address pool 'bad'" in done.err) == (1, True)
    assert daemon.cluster.swarm_spec["Orchestration"]["TaskHistoryRetentionLimit"] == 3


def test_a_service_of_old_clients_moves_its_networks(daemon: FakeDaemon, swarmpy: Run) -> None:
    """Before API 1.44 networks stood beside the template."""
    daemon.cluster.create({"Name": "web", "TaskTemplate": {"ContainerSpec": {"Image": "x"}},
                           "Networks": [{"Target": NET_B, "Aliases": ["db"]}]})  # fmt: skip
    assert swarmpy("service", "update", "-d", "--network-add", "name=back9,alias=a", "web").code == 0
    body = daemon.sent("POST", "/services/.*/update")[-1]["body"]
    assert "Networks" not in body
    assert body["TaskTemplate"]["Networks"] == [
        {"Target": NET_A, "Aliases": ["a"]}, {"Target": NET_B, "Aliases": ["db"]},
    ]  # fmt: skip


def test_a_network_that_is_gone_shows_its_id(daemon: FakeDaemon, swarmpy: Run) -> None:
    daemon.cluster.create(
        {"Name": "web", "TaskTemplate": {"Networks": [{"Target": NET_B}, {"Target": "gone"}]}}
    )
    assert "\nNetworks: back10 gone \n" in swarmpy("service", "inspect", "--pretty", "web").out
