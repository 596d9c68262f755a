"""The doctor on a real cluster: health, what agents mend, and what only people can."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from swarmpy.adapters.overlay.identity import room_name
from swarmpy.cli.client import Client
from swarmpy.lab import lab as labs
from tests.e2e.cluster import Cluster, until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(180)]

NETWORK = "ward"


@pytest.fixture(scope="module")
def ward(whole_cluster: Cluster) -> Iterator[Cluster]:
    """A cluster with a task of a service on every node, on a network of its own and behind a port: one for
    all of these tests, each of which leaves it healthy."""
    cluster = whole_cluster
    cluster.docker("network", "create", "-d", "overlay", NETWORK)
    words = ["--mode", "global", "--network", NETWORK, "-p", "18081:80"]
    cluster.docker("service", "create", "-d", "-q", "--name", "patients", *words, "registry:5000/web:1")
    cluster.await_running("patients", 5)
    healthy(cluster)
    yield cluster
    cluster.swarmpy("service", "rm", "patients")
    until(
        lambda: not cluster.docker("network", "rm", NETWORK, check=False).returncode,
        30,
        "the network is gone",
    )


def inside(cluster: Cluster, node: str, *command: str) -> str:
    """Run a command inside a node."""
    return cluster.swarmpy("lab", "exec", "--name", cluster.lab.name, node, "--", *command).stdout


def examine(cluster: Cluster, *words: str) -> dict[str, Any]:
    """What the doctor says; its exit code must fit."""
    done = cluster.swarmpy("net", "doctor", *words, "--format", "json", check=False)
    found: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (0 if found["healthy"] else 1), done.stderr
    return found


def healthy(cluster: Cluster, seconds: float = 30) -> dict[str, Any]:
    """What the doctor says once nothing is wrong."""
    last: dict[str, Any] = {}

    def well() -> bool:
        last.update(examine(cluster))
        return bool(last["healthy"])

    try:
        until(well, seconds, "the doctor finds nothing")
    except AssertionError as error:
        raise AssertionError(f"{error}: {json.dumps(last['findings'], indent=1)}") from None
    return last


def test_a_healthy_cluster_is_said_to_be_and_every_node_follows_the_network(ward: Cluster) -> None:
    found = examine(ward, NETWORK)
    assert [one["name"] for one in found["networks"]] == [NETWORK]
    assert len(found["reported"]) == 5
    assert found["tried"] == 5 * 4 * 2  # each node to each other one: underneath and through the network
    assert "Everything is as it should be." in ward.swarmpy("net", "doctor", NETWORK).stdout
    # How far the nodes are is shown to whoever asks our API, and no trouble for Docker's client.
    shown = json.loads(ward.docker("network", "inspect", "-v", NETWORK).stdout)[0]
    assert sorted(shown["Services"]) == ["patients"]
    raw = Client(ward.socket("m2", "SWARMPY_HOST")).get(f"/networks/{NETWORK}", verbose="1")
    assert {(one["Name"], one["Current"]) for one in raw["Nodes"]} == {
        (name, True) for name in (*ward.managers, *ward.workers)
    }


def test_what_others_flush_is_mended_and_told(ward: Cluster) -> None:
    key = ward.docker("network", "inspect", "-f", "{{.Id}}", NETWORK).stdout.strip()
    space = f"/run/netns/{room_name(key)}"
    entry = inside(
        ward, "w1", "sh", "-c", f"nsenter --net={space} bridge fdb show dev vx0 | grep -m1 dst"
    ).split()
    inside(ward, "w1", "nsenter", f"--net={space}", "bridge", "fdb", "del", entry[0], "dev", "vx0")
    inside(ward, "w1", "nft", "flush", "ruleset")
    found = healthy(ward)
    mended = {
        (one["node"], one["network"]): one["what"] for one in found["findings"] if one["kind"] == "mended"
    }
    assert "forwarding entries were missing or wrong" in mended["w1", NETWORK]
    assert "the routing mesh was changed by others" in mended["w1", ""]
    entries = inside(ward, "w1", "nsenter", f"--net={space}", "bridge", "fdb", "show", "dev", "vx0")
    assert f"{entry[0]} dst" in entries


BLOCK = "add table inet ill; add chain inet ill in { type filter hook input priority -300; }; add rule inet ill in udp dport {} drop"


def test_a_blocked_vxlan_port_is_named_with_its_node(ward: Cluster) -> None:
    inside(ward, "w2", "nft", BLOCK.replace("{}", "4789"))
    try:
        found = examine(ward, NETWORK)
        [finding] = [one for one in found["findings"] if one["kind"] == "problem"]
        assert (finding["node"], finding["network"]) == ("w2", NETWORK)
        assert "nothing passes between it and any other node" in finding["what"]
        assert "UDP port 4789" in finding["help"]
    finally:
        inside(ward, "w2", "nft", "delete", "table", "inet", "ill")
    healthy(ward)


def test_a_killed_machine_is_missed_by_its_peers_and_named_by_the_doctor(ward: Cluster) -> None:
    ward.kill("w2", "node")
    killed = time.monotonic()

    def missed() -> bool:
        done = ward.swarmpy("net", "doctor", NETWORK, "--format", "json", check=False)
        problems = [one["what"] for one in json.loads(done.stdout)["findings"] if one["node"] == "m1"]
        return any("does not hear w2" in one for one in problems)

    until(missed, 30, "m1 misses w2")
    print(f"w2 missed by m1, as the doctor says it, {time.monotonic() - killed:.1f} s after it was killed")
    found = examine(ward)
    assert [one["name"] for one in found["silent"]] == ["w2"]
    assert any(one["node"] == "w2" and "did not answer" in one["what"] for one in found["findings"])
    labs.start(ward.lab, ward.lab.node("w2"), "node")
    ward.await_running("patients", 5)
    healthy(ward)
