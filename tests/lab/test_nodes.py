"""Nodes of a lab without a cluster: engines, cables, power; and nothing left when it is gone."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarmpy.lab import cgroups
from swarmpy.lab import lab as labs
from swarmpy.lab.layout import Lab
from swarmpy.lab.processes import until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120)]


@pytest.fixture
def two(pair: Lab) -> Iterator[Lab]:
    """The pair of nodes, whole afterwards."""
    yield pair
    for row in labs.status(pair):
        if row["state"] == "down":
            labs.start(pair, pair.node(row["node"]), "node")
    labs.heal(pair)


def engine(lab: Lab, node: str, *words: str) -> str:
    host = labs.exports(lab, lab.node(node))["ENGINE_HOST"]
    done = subprocess.run(["docker", "-H", host, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def reaches(lab: Lab, source: str, target: str) -> bool:
    return labs.run_in(lab, source, ["busybox", "ping", "-c1", "-W1", target]).returncode == 0


def hears(lab: Lab, source: str, target: str) -> bool:
    """Whether what `source` sends arrives at `target`, whatever becomes of the answer."""
    counter = [
        "sh",
        "-c",
        "awk '/^IpExt|^Ip:/ && $2 ~ /^[0-9]/ {print}' /proc/net/snmp; grep Icmp: /proc/net/snmp",
    ]

    def echoes() -> int:
        names, values = (
            line.split() for line in labs.run_in(lab, target, counter).stdout.splitlines() if "Icmp:" in line
        )
        return int(values[names.index("InEchos")])

    before = echoes()
    reaches(lab, source, target)
    return echoes() > before


def test_containers_run_on_either_engine(two: Lab) -> None:
    for node in ("m1", "w1"):
        said = engine(two, node, "run", "--rm", "registry:5000/busybox:latest", "echo", f"hello from {node}")
        assert said == f"hello from {node}\n"
        assert engine(two, node, "info", "--format", "{{.Name}}") == f"{node}\n"


def test_nodes_reach_each_other_by_name(two: Lab) -> None:
    assert reaches(two, "m1", "w1")
    assert reaches(two, "w1", "m1")
    assert reaches(two, "c1", "m1")


def test_a_cut_in_one_direction_loses_only_that_and_heals(two: Lab) -> None:
    assert reaches(two, "m1", "w1")
    labs.partition(two, ["m1"], ["w1"], one_way=True)
    assert not reaches(two, "m1", "w1")
    assert not hears(two, "m1", "w1")
    assert hears(two, "w1", "m1")
    assert reaches(two, "w1", "r1")
    labs.heal(two)
    assert reaches(two, "m1", "w1")


def test_a_node_loses_power_and_comes_back_with_its_containers(two: Lab) -> None:
    words = ["--restart", "always", "--name", "keeper", "registry:5000/sleeper:latest"]
    engine(two, "w1", "run", "-d", *words)
    labs.kill(two, two.node("w1"), "node")
    assert not reaches(two, "m1", "w1")
    assert next(row for row in labs.status(two) if row["node"] == "w1")["state"] == "down"
    labs.start(two, two.node("w1"), "node")
    assert reaches(two, "m1", "w1")
    running = ["ps", "--filter", "name=keeper", "--format", "{{.Names}}"]
    until(lambda: engine(two, "w1", *running) == "keeper\n", 30, "the container runs again")
    engine(two, "w1", "rm", "-f", "keeper")


def test_down_leaves_nothing() -> None:
    spaces, mounts = namespaces(), Path("/proc/self/mountinfo").read_text()
    name = f"brief-{os.getpid()}"
    lab = labs.up(name, print, managers=1, workers=0, with_cluster=False)
    try:
        engine(lab, "m1", "run", "-d", "registry:5000/sleeper:latest")
        assert of(lab.folder)
        held = namespaces_of(lab)
        assert held.isdisjoint(spaces)
    finally:
        labs.down(name, print)
    until(lambda: not of(lab.folder), 10, "no process of the lab is left")
    until(lambda: held.isdisjoint(namespaces()), 10, "no namespace of the lab is left")
    assert not lab.folder.exists()
    assert str(lab.folder) not in Path("/proc/self/mountinfo").read_text()
    assert str(lab.folder) not in mounts
    assert not [tree for tree in cgroups.hierarchies() if tree.home(lab.cgroup).exists()]


def of(folder: Path) -> list[str]:
    """Command lines on this machine that name the folder."""
    return [line for line in each("cmdline") if str(folder).encode() in line]


def each(part: str) -> list[bytes]:
    lines = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                lines.append((entry / part).read_bytes())
            except (FileNotFoundError, ProcessLookupError):
                continue
    return lines


def namespaces() -> set[str]:
    """Network namespaces that any process of this machine is in."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found.add(os.readlink(entry / "ns/net"))
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
    return found


def namespaces_of(lab: Lab) -> set[str]:
    inside = ["readlink", "/proc/self/ns/net"]
    return {labs.run_in(lab, node.name, inside).stdout.strip() for node in lab.nodes}
