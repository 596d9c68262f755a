"""Overlay networks of swarmpy beside those of Docker Swarm: the cases of beside_swarm.py that need them.

Docker Swarm balances with IPVS and cannot without it, so these run where the kernel has it:
`python -m tests.qemu --bench` does it in an emulated machine. Ratios mean something there, seconds do not.
What belongs here: what networks are asked for. What does not: clusters (contenders.py), the rounds (beside_swarm.py).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from swarmpy.lab import lab as labs
from swarmpy.lab import nodes, unixhttp
from swarmpy.lab.layout import CLIENT, Node
from swarmpy.lab.processes import patience, until
from tests.bench.contenders import ENOUGH, Contender, containers, watching
from tests.bench.notes import Notes

PORT = 8080
REQUESTS = 400
SERVICES = 20
NETWORK = "bench"
SERVE = "mkdir -p /w && echo version=$V host=$(hostname) >/w/index.html && exec httpd -f -p 80 -h /w"
"""Files, not programs: a request costs the server one fork."""
ASK = """
import sys, time, urllib.request
url, seconds = sys.argv[1], float(sys.argv[2])
while True:
    try:
        print(urllib.request.urlopen(url, timeout=seconds).read().decode())
        break
    except OSError:
        time.sleep(0.02)
"""


def _spec(name: str, replicas: int, version: int, *, published: bool) -> dict[str, object]:
    ports = [{"TargetPort": 80, "PublishedPort": PORT, "Protocol": "tcp"}] if published else []
    return {
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": "busybox:latest", "Command": ["sh", "-c", SERVE], "Env": [f"V={version}"],
                "StopSignal": "SIGKILL",
            },
            "Networks": [{"Target": NETWORK}],
        },
        "EndpointSpec": {"Mode": "vip", "Ports": ports},
    }  # fmt: skip


@contextmanager
def network(one: Contender) -> Iterator[None]:
    """An overlay network for the length of the block."""
    one.ask(
        one.first, "POST", "/networks/create", {"Name": NETWORK, "Driver": "overlay", "CheckDuplicate": True}
    )
    try:
        yield
    finally:
        one.ask(one.first, "DELETE", f"/networks/{NETWORK}")


def mesh(one: Contender, notes: Notes) -> None:
    """A published service: from the call to the first answer of the farthest node, and how fast it goes then."""
    far = one.lab.members[-1]
    with network(one):
        began = time.monotonic()
        one.create("web", 3, **_spec("web", 3, 1, published=True))
        _in(
            one,
            CLIENT,
            [],
            "timeout",
            str(60 * patience()),
            sys.executable,
            "-c",
            ASK,
            f"http://{far.address}:{PORT}/",
            str(5 * patience()),
        )
        notes.add("published: created to the first answer (s)", one.name, time.monotonic() - began)
        until(lambda: _running(one, "web") == 3, ENOUGH, "all tasks run")
        told = _load(one, CLIENT, [], f"{far.address}:{PORT}")
        notes.add("mesh: new connections a second", one.name, told["sent"] / told["seconds"])
        notes.add("mesh: requests failed", one.name, told["failed"])
        inside = _namespace(one, far, "web")
        told = _load(one, far.name, inside, f"{_vip(one, 'web')}:80")
        notes.add("virtual address: new connections a second", one.name, told["sent"] / told["seconds"])
        notes.add("virtual address: requests failed", one.name, told["failed"])
        notes.add("rolling update under load: requests failed (%)", one.name, _update_under_load(one, far))
        one.remove("web")


def _update_under_load(one: Contender, far: Node) -> float:
    line = labs.command_in(one.lab, one.lab.node(CLIENT), [
        sys.executable, "-m", "swarmpy.lab.load", "--until-eof", "--rate", "20", "--timeout", str(5 * patience()),
        f"{far.address}:{PORT}",
    ])  # fmt: skip
    pipe = subprocess.PIPE
    with (
        watching(one.lab) as watched,
        subprocess.Popen(line, stdin=pipe, stdout=pipe, text=True, env=nodes.environment()) as load,
    ):
        assert load.stdin is not None
        assert load.stdout is not None
        load.stdout.readline()
        one.update("web", lambda spec: spec["TaskTemplate"]["ContainerSpec"].update(Env=["V=2"]))
        watched.wait(lambda: len(watched.times("start", "web")) >= 3)
        watched.wait(lambda: len(watched.times("die", "web")) >= 3)
        time.sleep(2.0)  # failures that come after the last change are its own, too
        load.stdin.close()
        told = json.loads(load.stdout.read().splitlines()[-1])
    return 100.0 * float(told["failed"]) / float(told["sent"])


def many(one: Contender, notes: Notes) -> None:
    """Services of two tasks each on one network: until the last task runs."""
    with network(one):
        with watching(one.lab) as watched:
            began = time.time()
            for number in range(SERVICES):
                one.create(f"many-{number}", 2, **_spec("", 2, 1, published=False))
            watched.wait(lambda: len(watched.seen) >= 2 * SERVICES)
            notes.add(f"{SERVICES} services of 2 tasks on a network, last container (s)", one.name,
                      watched.seen[2 * SERVICES - 1][0] - began)  # fmt: skip
        for number in range(SERVICES):
            one.ask(one.first, "DELETE", f"/services/many-{number}")
        for number in range(SERVICES):
            until(lambda number=number: not _any(one, f"many-{number}"), ENOUGH, "they are gone")


def _any(one: Contender, service: str) -> bool:
    return any(containers(one.lab, node, service) for node in one.lab.members)


def _running(one: Contender, service: str) -> int:
    found = [each for node in one.lab.members for each in containers(one.lab, node, service)]
    return sum(each["State"] == "running" for each in found)


def _vip(one: Contender, service: str) -> str:
    known = one.ask(one.first, "GET", f"/services/{service}")
    nets = {each["Id"]: each["Name"] for each in one.ask(one.first, "GET", "/networks")}
    vips = {nets[each["NetworkID"]]: each["Addr"] for each in known["Endpoint"]["VirtualIPs"]}
    return str(vips[NETWORK]).partition("/")[0]


def _namespace(one: Contender, node: Node, service: str) -> list[str]:
    """The words that enter the network of the service's container on the node."""
    found = next(each for each in containers(one.lab, node, service) if each["State"] == "running")
    target = f"/containers/{found['Id']}/json"
    shown = json.loads(unixhttp.request(nodes.engine_socket(one.lab, node), "GET", target)[1])
    return ["nsenter", "-t", str(shown["State"]["Pid"]), "-n"]


def _load(one: Contender, node: str, inside: list[str], target: str) -> dict[str, float]:
    done = _in(
        one, node, inside, sys.executable, "-m", "swarmpy.lab.load", "--requests", str(REQUESTS), "--rate", "0",
        "--timeout", str(5 * patience()), target,
    )  # fmt: skip
    told: dict[str, float] = json.loads(done.splitlines()[-1])
    return told


def _in(one: Contender, node: str, inside: list[str], *command: str) -> str:
    done = labs.run_in(one.lab, node, [*inside, *command], timeout=ENOUGH)
    assert done.returncode == 0, done.stderr
    return done.stdout


CASES: dict[str, Callable[[Contender, Notes], None]] = {"mesh": mesh, "many-services": many}
