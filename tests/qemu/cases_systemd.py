"""The machine itself as a node: Debian's Engine and swarmpy's daemon as units of systemd, control groups of version 2.

Run inside the machine by `python -m tests.qemu`. What belongs here: what needs systemd or that kernel. What does
not: clusters of several nodes (cases_lab.py). The cases build on each other, in this order.
"""

from __future__ import annotations

import http.client
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from swarmpy.adapters.ipvs import kernel
from swarmpy.lab import cgroups, images, machine, unixhttp
from swarmpy.lab.processes import patience
from tests.e2e.cluster import until

pytestmark = pytest.mark.timeout(240)
ROOT = Path(__file__).resolve().parent.parent.parent
ADDRESS = "10.0.2.15"
HEARTBEAT = "60s"
"""An emulated node is silent for seconds, which is not to be taken for its end."""
OUTSIDE, DOOR = "10.77.0.2", "10.77.0.1"
PORT = 8080
ENGINE, DAEMON = Path("/run/docker.sock"), Path("/run/swarmpy/swarmpy.sock")
NETNS = Path("/run/netns")
UNITS = Path("/etc/systemd/system")
ASK = """
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), float(sys.argv[3]))
s.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
print(b"".join(iter(lambda: s.recv(4096), b"")).decode())
"""
SWARMPY = f"""#!/bin/sh
export PYTHONPATH={ROOT}
exec /opt/venv/bin/python -m swarmpy "$@"
"""
DROP_IN = """[Service]
ExecStart=
ExecStart=/usr/bin/env swarmpy daemon --balancer {balancer}
"""


def run(*words: str, check: bool = True) -> str:
    """What a program printed."""
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60 * patience())
    assert not check or done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


def engine(target: str, **filters: str) -> Any:
    """What the Engine answers: its command line would take seconds here."""
    asked = quote(json.dumps({key: [value] for key, value in filters.items()}))
    status, body = unixhttp.request(ENGINE, "GET", f"{target}?filters={asked}")
    assert status == 200, body
    return json.loads(body)


def running(service: str) -> dict[str, str]:
    """Containers of the service: id -> when each was started."""
    found = engine("/containers/json", label=f"com.docker.swarm.service.name={service}")
    return {one["Id"]: engine(f"/containers/{one['Id']}/json")["State"]["StartedAt"] for one in found}


def knows(before: dict[str, str]) -> bool:
    """Whether the Engine answers, and these run as before."""
    try:
        return running("web") == before
    except (OSError, http.client.HTTPException):
        return False


def process(service: str) -> str:
    """The number of the process of one of its containers."""
    return str(engine(f"/containers/{min(running(service))}/json")["State"]["Pid"])


def get() -> str:
    """One request from outside; "" where it failed."""
    words = ["ip", "netns", "exec", "outside", "/opt/venv/bin/python", "-c", ASK]
    return run(*words, DOOR, str(PORT), str(5 * patience()), check=False)


@contextmanager
def requests() -> Iterator[dict[str, Any]]:
    """Requests from outside for the length of the block, all of which are answered."""
    words = ["ip", "netns", "exec", "outside", "swarmpy-load", "--until-eof", "--rate", str(40 / patience())]
    words += ["--timeout", str(5 * patience()), f"{DOOR}:{PORT}"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "sending\n"
    result: dict[str, Any] = {}
    try:
        yield result
    finally:
        out, _ = process.communicate(timeout=60 * patience())
    result.update(json.loads(out.splitlines()[-1]))
    print(result)
    assert result["sent"] >= 10, result
    assert result["failed"] == 0, result


def active(unit: str) -> bool:
    return run("systemctl", "is-active", unit, check=False).strip() == "active"


def pid(unit: str) -> str:
    return run("systemctl", "show", "-P", "MainPID", unit).strip()


def answers() -> bool:
    """Whether the daemon says that its node is in a cluster, Ready and leading."""
    try:
        status, body = unixhttp.request(DAEMON, "GET", "/nodes")
    except (OSError, http.client.HTTPException):
        return False
    nodes = json.loads(body) if status == 200 else []
    return [(one["Status"]["State"], one["ManagerStatus"].get("Leader")) for one in nodes] == [
        ("ready", True)
    ]


@pytest.fixture(scope="module", autouse=True)
def outside() -> Iterator[None]:
    """Somebody outside the machine."""
    run("ip", "netns", "add", "outside")
    run("ip", "link", "add", "door", "type", "veth", "peer", "name", "eth0", "netns", "outside")
    run("ip", "addr", "add", f"{DOOR}/24", "dev", "door")
    run("ip", "link", "set", "door", "up")
    run("ip", "-n", "outside", "addr", "add", f"{OUTSIDE}/24", "dev", "eth0")
    run("ip", "-n", "outside", "link", "set", "eth0", "up")
    yield
    run("ip", "netns", "del", "outside")


@pytest.fixture(scope="module", autouse=True)
def units() -> Iterator[None]:
    """What a packet would install, as the project ships it."""
    bin_ = Path("/usr/local/bin")
    for name, text in (
        ("swarmpy", SWARMPY),
        ("swarmpy-load", SWARMPY.replace("-m swarmpy", "-m swarmpy.lab.load")),
    ):
        (bin_ / name).write_text(text)
        (bin_ / name).chmod(0o755)
    shutil.copy(ROOT / "deploy" / "swarmpy.service", UNITS)
    Path("/etc/docker").mkdir(exist_ok=True)
    Path("/etc/docker/daemon.json").write_text(json.dumps({"live-restore": True}))
    run("systemctl", "daemon-reload")
    yield
    run("systemctl", "stop", "swarmpy")
    run("systemctl", "stop", "docker.socket", "docker")


def balance_with(balancer: str) -> None:
    folder = UNITS / "swarmpy.service.d"
    folder.mkdir(exist_ok=True)
    (folder / "balancer.conf").write_text(DROP_IN.format(balancer=balancer))
    run("systemctl", "daemon-reload")


def test_this_is_a_stock_kernel_with_systemd_and_control_groups_of_version_2_only() -> None:
    release = Path("/proc/sys/kernel/osrelease").read_text().strip()
    assert Path("/boot", f"vmlinuz-{release}").exists(), release
    assert Path("/proc/1/comm").read_text().strip() == "systemd"
    assert [one.version for one in cgroups.hierarchies()] == [2]
    assert not Path("/proc/net/ip_vs").exists(), "IPVS is not loaded beforehand"


def test_the_engine_starts_as_a_unit_and_uses_them() -> None:
    run("systemctl", "start", "docker")
    shown = json.loads(run("docker", "info", "-f", "{{json .}}"))
    print({key: shown[key] for key in ("ServerVersion", "CgroupDriver", "CgroupVersion", "KernelVersion")})
    assert (shown["CgroupDriver"], shown["CgroupVersion"]) == ("systemd", "2")
    archive = Path("/tmp/images.tar")
    archive.write_bytes(images.archive(machine.busybox()))
    run("docker", "load", "-i", str(archive))


def test_the_daemon_starts_as_a_unit_and_a_cluster_begins() -> None:
    balance_with("ipvs")
    run("systemctl", "start", "swarmpy")
    until(DAEMON.exists, 30, "the daemon's socket is there")
    run("swarmpy", "init", "--advertise-addr", ADDRESS, "--dispatcher-heartbeat", HEARTBEAT)
    until(answers, 30, "the node is Ready")
    print(run("journalctl", "-u", "swarmpy", "-o", "cat", "--no-pager"))


def test_a_service_is_published_and_calls_itself_through_ipvs() -> None:
    run("swarmpy", "network", "create", "-d", "overlay", "front")
    words = ["service", "create", "-d", "--network", "front", "--no-resolve-image"]
    run("swarmpy", *words, "--name", "web", "-p", f"{PORT}:80", "--replicas", "2", "web:1")
    until(lambda: len(running("web")) == 2, 60, "all run")
    until(get, 30, "the port answers")
    hosts = set()
    for _ in range(4):
        answer = get()
        hosts.add(answer.split("host=")[1].split()[0])
        assert f"client={OUTSIDE}" in answer
    assert len(hosts) == 2
    until(lambda: "host=" in called(), 30, "the name answers inside")
    table = beside("ipvsadm", "-Ln")
    print(table)
    assert re.search(r"^FWM +\d+ rr$", table, re.MULTILINE), table


def beside(*words: str) -> str:
    """What a program of the machine prints in the network namespace of a container of the service."""
    return run("nsenter", "-t", process("web"), "-n", *words)


def called() -> str:
    """One request from inside the network."""
    words = ["timeout", str(int(5 * patience())), "wget", "-qO-", "http://web/"]
    return run("docker", "exec", min(running("web")), *words, check=False)


def test_restarting_the_daemon_touches_no_container_and_no_request() -> None:
    before, old, names = running("web"), pid("swarmpy"), sorted(NETNS.iterdir())
    with requests():
        run("systemctl", "restart", "swarmpy")
        until(answers, 60, "the node is Ready again")
        until(called, 60, "the name answers inside")
    assert pid("swarmpy") != old
    assert running("web") == before
    assert sorted(NETNS.iterdir()) == names
    assert len(names) >= 3, "the networks' namespaces have their names on the machine, not in the unit"


def test_a_killed_daemon_is_started_by_systemd_and_touches_nothing() -> None:
    before, old = running("web"), pid("swarmpy")
    with requests():
        run("kill", "-9", old)
        until(lambda: active("swarmpy") and pid("swarmpy") not in ("0", old), 30, "systemd starts it")
        until(answers, 60, "the node is Ready again")
    assert running("web") == before
    assert called()


def test_restarting_and_stopping_the_engine_touches_no_container_and_no_request() -> None:
    before = running("web")
    with requests():
        run("systemctl", "restart", "docker")
        until(lambda: knows(before), 60, "the Engine knows its containers")
        run("systemctl", "stop", "docker.socket", "docker")
        assert not active("docker")
        until(answers, 60, "the daemon goes on")
        run("systemctl", "start", "docker")
    until(lambda: answers() and knows(before), 60, "all as before")
    run("swarmpy", "service", "scale", "-d", "web=3")
    until(lambda: len(running("web")) == 3, 60, "one more runs")
    assert before.items() <= running("web").items()


def test_switching_the_unit_to_the_other_balancer_fails_no_request() -> None:
    before = running("web")
    balance_with("nftables")
    with requests():
        run("systemctl", "restart", "swarmpy")
        until(lambda: "numgen" in beside("nft", "list", "ruleset"), 60, "nftables balances")
    assert called()
    assert running("web") == before


def test_the_daemon_logged_no_error() -> None:
    log = run("journalctl", "-u", "swarmpy", "-o", "cat", "--no-pager")
    print(log)
    assert "Traceback" not in log


def test_leaving_leaves_nothing_on_the_machine() -> None:
    run("swarmpy", "leave", "--force")
    until(lambda: not engine("/containers/json"), 60, "no container is left")
    until(lambda: "swarmpy" not in run("nft", "list", "ruleset"), 60, "no rule is left")
    until(lambda: [one.name for one in NETNS.iterdir()] == ["outside"], 60, "no namespace is left")
    assert active("swarmpy")
    assert "swarmpy.standin" not in run("ps", "-eo", "args"), "nobody answers names any more"
    assert not run("ip", "-o", "link", "show", "type", "vxlan")
    assert run("docker", "network", "ls", "--format", "{{.Driver}}").split().count("swarmpy") == 0


def test_ipvs_is_asked_for_as_the_kernel_has_it() -> None:
    kernel.load()
    assert Path("/proc/net/ip_vs").exists()
