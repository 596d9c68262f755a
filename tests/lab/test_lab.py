"""A lab of engines without a cluster: nodes, cables, cuts, kill and start, and that nothing stays behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarmpy.lab import lab as labs
from swarmpy.lab import layout, nodes
from swarmpy.lab.errors import LabError
from swarmpy.lab.layout import Lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(180)]


def lab_command(*words: str) -> list[str]:
    return [sys.executable, "-m", "swarmpy", "lab", *words]


def remains(name: str) -> list[str]:
    """Everything of a lab that can still be seen on this machine."""
    found = []
    home = str(layout.root() / name)
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace")
            space = (entry / "mountinfo").read_text()
        except (FileNotFoundError, ProcessLookupError, OSError):
            continue  # it ended meanwhile
        if home in words or home in space:
            found.append(f"process {entry.name}: {words}")
    found += [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/swarmpy-lab/{name}")]
    found += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if home in line]
    if Path(home).exists():
        found.append(home)
    return found


def links() -> set[str]:
    return {path.name for path in Path("/sys/class/net").iterdir()}


def named_namespaces() -> str:
    return subprocess.run(["ip", "netns"], check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    name = f"t{os.getpid()}"
    before = (links(), named_namespaces())
    made = labs.up(name, print, managers=1, workers=1, with_cluster=False)
    try:
        yield made
    finally:
        labs.down(name, print)
    assert remains(name) == []
    assert (links(), named_namespaces()) == before


@pytest.fixture(autouse=True)
def whole(lab: Lab) -> Iterator[None]:
    """Tests run in any order: each leaves all nodes up and all cables whole."""
    yield
    labs.heal(lab)
    for node in lab.members:
        if nodes.init_of(lab, node) is None:
            labs.start(lab, node, "node")
        elif nodes.program(lab, node, "engine") is None:
            labs.start(lab, node, "engine")
        for container in engine(lab, node.name, "ps", "-aq").split():
            engine(lab, node.name, "rm", "-f", container)


def said(lab: Lab, node: str, *words: str) -> str:
    done = labs.run_in(lab, node, words)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def reaches(lab: Lab, near: str, far: str) -> bool:
    words = ["busybox", "ping", "-c1", "-W1", lab.node(far).address]
    return labs.run_in(lab, near, words).returncode == 0


LISTEN = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("0.0.0.0", 9999))
s.settimeout(1.5)
print("listening", flush=True)
s.recv(9)
"""


def hears(lab: Lab, near: str, far: str) -> bool:
    """Whether a datagram from `near` arrives at `far`, whatever happens to the answer."""
    listener = subprocess.Popen(
        labs.command_in(lab, lab.node(far), [sys.executable, "-c", LISTEN]),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=nodes.environment(),
    )
    assert listener.stdout is not None
    assert listener.stdout.readline() == b"listening\n"
    address = (lab.node(far).address, 9999)
    send = f"import socket; socket.socket(2, 2).sendto(b'x', {address})"
    said(lab, near, sys.executable, "-c", send)
    listener.communicate(timeout=10)
    return listener.returncode == 0


def engine(lab: Lab, node: str, *words: str) -> str:
    return said(lab, node, "docker", *words)


def run_container(lab: Lab, node: str, name: str, image: str = "sleeper") -> str:
    engine(lab, node, "run", "-d", "--name", name, "-p", "8080:80", image)
    return engine(lab, node, "inspect", "-f", "{{.State.Pid}} {{.State.Running}}", name)


def test_each_node_has_its_own_engine_and_the_same_images(lab: Lab) -> None:
    seen = []
    for node in lab.members:
        form = "{{.Repository}}:{{.Tag}} {{.ID}} {{.Digest}}"
        rows = engine(lab, node.name, "images", "--no-trunc", "--digests", "--format", form)
        seen.append(sorted(row for row in rows.splitlines() if not row.startswith("registry:5001")))
        run_container(lab, node.name, f"only-on-{node.name}")
        assert engine(lab, node.name, "ps", "--format", "{{.Names}}") == f"only-on-{node.name}"
        assert said(lab, node.name, "hostname") == node.name
    assert len(seen[0]) == 4
    assert seen[0] == seen[1]


def test_a_web_container_answers_the_outside_client_with_its_version(lab: Lab) -> None:
    run_container(lab, "w1", "web", "web:2")
    page = said(lab, "c1", "busybox", "wget", "-qO-", f"http://{lab.node('w1').address}:8080/")
    assert page.startswith("version=2 host=")
    assert f"client={lab.node('c1').address}" in page
    began = time.monotonic()
    engine(lab, "w1", "stop", "web")
    assert time.monotonic() - began < 8, "web does not stop when told to"
    assert engine(lab, "w1", "inspect", "-f", "{{.State.ExitCode}}", "web") == "0"


def test_the_registry_serves_plain_names_and_the_locked_one_asks_for_its_password(lab: Lab) -> None:
    assert "Status:" in engine(lab, "m1", "pull", "web:1")
    labs.run_in(lab, "m1", ["docker", "logout", "registry:5001"])
    assert labs.run_in(lab, "m1", ["docker", "pull", "registry:5001/web:1"]).returncode != 0
    user, word = layout.LOCKED_REGISTRY_USER, layout.LOCKED_REGISTRY_PASSWORD
    config = ["docker", "--config", "/run/docker-test"]
    said(lab, "m1", *config, "login", "-u", user, "-p", word, "registry:5001")
    said(lab, "m1", *config, "pull", "registry:5001/web:1")


def test_an_unknown_address_is_refused_at_once(lab: Lab) -> None:
    began = time.monotonic()
    assert labs.run_in(lab, "m1", ["busybox", "wget", "-qO-", "http://192.0.2.77/"]).returncode
    assert time.monotonic() - began < 5


def test_a_partition_cuts_both_ways_and_heals(lab: Lab) -> None:
    assert reaches(lab, "m1", "w1")
    labs.partition(lab, ["w1"], [], one_way=False)
    assert not reaches(lab, "m1", "w1")
    assert not reaches(lab, "w1", "m1")
    assert reaches(lab, "c1", "w1"), "only the named nodes are cut off"
    labs.heal(lab)
    assert reaches(lab, "m1", "w1")


def test_a_one_way_partition_loses_only_what_the_named_node_sends(lab: Lab) -> None:
    assert reaches(lab, "m1", "w1")  # both know each other's MAC now
    labs.partition(lab, ["w1"], ["m1"], one_way=True)
    assert hears(lab, "m1", "w1")
    assert not hears(lab, "w1", "m1")


def test_a_partition_outlives_the_restart_of_a_node(lab: Lab) -> None:
    labs.partition(lab, ["w1"], ["m1"], one_way=False)
    labs.kill(lab, lab.node("w1"), "node")
    labs.start(lab, lab.node("w1"), "node")
    assert not reaches(lab, "m1", "w1")
    labs.heal(lab)
    assert reaches(lab, "m1", "w1")


def test_a_container_outlives_its_engine(lab: Lab) -> None:
    before = run_container(lab, "w1", "survivor")
    labs.kill(lab, lab.node("w1"), "engine")
    with pytest.raises(LabError, match="the engine of node w1 does not run"):
        labs.kill(lab, lab.node("w1"), "engine")
    labs.start(lab, lab.node("w1"), "engine")
    after = engine(lab, "w1", "inspect", "-f", "{{.State.Pid}} {{.State.Running}}", "survivor")
    assert after == before


def test_a_killed_node_comes_back_with_its_data(lab: Lab) -> None:
    run_container(lab, "m1", "memory")
    before = engine(lab, "m1", "info", "-f", "{{.ID}}")
    labs.kill(lab, lab.node("m1"), "node")
    assert not reaches(lab, "w1", "m1")
    with pytest.raises(LabError, match=r"node m1 .* is down; .*lab start m1"):
        labs.run_in(lab, "m1", ["true"])
    labs.start(lab, lab.node("m1"), "node")
    assert reaches(lab, "w1", "m1")
    assert engine(lab, "m1", "info", "-f", "{{.ID}}") == before
    assert engine(lab, "m1", "inspect", "-f", "{{.State.Running}}", "memory") == "false"


def test_the_words_of_the_terminal(lab: Lab) -> None:
    def words(*args: str) -> subprocess.CompletedProcess[str]:
        line = lab_command(*args[:1], "--name", lab.name, *args[1:])
        return subprocess.run(line, check=False, capture_output=True, text=True)

    assert words("exec", "w1", "--", "hostname").stdout == "w1\n"
    assert words("exec", "w1", "--", "sh", "-c", "exit 7").returncode == 7
    env = words("env", "w1").stdout
    assert f"export NODE_ADDR={lab.node('w1').address}\n" in env
    host = next(line for line in env.splitlines() if line.startswith("export ENGINE_HOST="))
    client = ["docker", "-H", host.partition("=")[2], "info", "-f", "{{.Name}}"]
    assert subprocess.run(client, capture_output=True, text=True, check=True).stdout == "w1\n"
    assert words("partition", "w1", "--from", "m1", "--one-way").stdout == "cut: w1 -> m1\n"
    assert "cut: w1 -> m1" in words("status").stdout
    assert words("heal").returncode == 0
    refused = words("exec", "w9", "--", "true")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "has no node 'w9'; it has" in refused.stderr
    taken = words("up", "--no-cluster")
    assert taken.returncode == 1
    assert f"there is a lab {lab.name} already" in taken.stderr


def test_an_interrupted_up_leaves_nothing() -> None:
    name = f"i{os.getpid()}"
    line = lab_command("up", "--no-cluster", "--managers", "1", "--workers", "0", "--name", name)
    process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stderr is not None
    for text in process.stderr:
        if "outside client" in text:
            os.killpg(process.pid, signal.SIGINT)
            break
    rest = process.communicate(timeout=60)[1]
    assert process.returncode == 130, rest
    assert remains(name) == []


def test_down_removes_the_ruins_of_a_killed_up() -> None:
    name = f"k{os.getpid()}"
    line = lab_command("up", "--no-cluster", "--managers", "1", "--workers", "0", "--name", name)
    process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stderr is not None
    for text in process.stderr:
        if "outside client" in text:
            os.killpg(process.pid, signal.SIGKILL)
            break
    process.communicate(timeout=60)
    done = subprocess.run(lab_command("down", "--name", name), check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert remains(name) == []
    again = subprocess.run(lab_command("down", "--name", name), check=False, capture_output=True, text=True)
    assert again.returncode == 1
    assert f"there is no lab {name}" in again.stderr


def test_two_labs_live_side_by_side(lab: Lab) -> None:
    other = labs.up(f"o{os.getpid()}", print, managers=1, workers=0, with_cluster=False)
    try:
        assert other.subnet != lab.subnet
        assert json.loads(engine(other, "m1", "info", "-f", "{{json .Name}}")) == "m1"
    finally:
        labs.down(other.name, print)
    assert reaches(lab, "m1", "w1")
    assert engine(lab, "m1", "info", "-f", "{{.Name}}") == "m1"
