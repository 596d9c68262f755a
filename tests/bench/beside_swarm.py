"""swarmpy beside Docker Swarm, on the same Engines, one after the other, in one run.

    python -m tests.bench.beside_swarm [--rounds N] [--only CASE] [--json FILE]      needs root
    python -m tests.qemu --bench     those of networks, where the kernel has IPVS

Makes a lab of 3 managers and 2 workers without a cluster. Each round makes a Docker Swarm of its nodes, measures,
takes it apart, and does the same with swarmpy; which is first changes with each round. Beside them stand plain
starts, issued straight to the same Engines, two in flight on each: what nothing on this machine could beat. Both
clusters are spoken to by the same calls of Docker's API, and what their containers did is read off the Engines'
own events. What belongs here: figures. What does not: verdicts; no test asserts any of them.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

from swarmpy.lab import lab as labs
from swarmpy.lab import nodes, unixhttp
from swarmpy.lab.layout import BALANCERS, Lab, Node
from swarmpy.lab.processes import until
from tests.bench import nets_beside
from tests.bench.contenders import (
    ENOUGH,
    Contender,
    DockerSwarm,
    Refused,
    Swarmpy,
    Watched,
    containers,
    image_of,
    watching,
    without_live_restore,
)
from tests.bench.notes import Notes, table

LIMIT = "Engines alone"
IN_FLIGHT = 2
CALLS = 300
TICK = os.sysconf("SC_CLK_TCK")


def create(one: Contender, notes: Notes, replicas: int) -> None:
    """A service of so many tasks: the call, and when the first, the middle and the last container started."""
    name = f"create-{replicas}"
    with watching(one.lab) as watched:
        began = time.time()
        one.create(name, replicas)
        notes.add("create: the call (ms)", one.name, 1000 * (time.time() - began))
        started = [at - began for at in _await(watched, "start", name, replicas)]
    _starts(notes, one.name, started)
    one.remove(name)


def _await(watched: Watched, event: str, service: str, count: int) -> list[float]:
    """When so many containers of the service did that."""
    watched.wait(lambda: len(watched.times(event, service)) >= count)
    return watched.times(event, service)[:count]


def _starts(notes: Notes, who: str, started: list[float]) -> None:
    count = len(started)
    notes.add(f"create {count}: first container (s)", who, started[0])
    notes.add(f"create {count}: middle container (s)", who, statistics.median(started))
    notes.add(f"create {count}: last container (s)", who, started[-1])


def plain_starts(lab: Lab, notes: Notes, count: int) -> None:
    """The same number of containers, straight from the Engines."""
    image, label = image_of(lab), {"com.docker.swarm.service.name": "plain"}

    def start(node: Node) -> None:
        engine = nodes.engine_socket(lab, node)
        body = json.dumps({"Image": image, "Labels": label, "StopSignal": "SIGKILL"}).encode()
        headers = {"Content-Type": "application/json"}
        status, said = unixhttp.request(engine, "POST", "/containers/create", body, headers=headers)
        assert status == 201, said
        status, said = unixhttp.request(engine, "POST", f"/containers/{json.loads(said)['Id']}/start", b"")
        assert status == 204, said

    pools = [(node, ThreadPoolExecutor(IN_FLIGHT)) for node in lab.members]
    with watching(lab) as watched:
        began = time.time()
        jobs = [pool.submit(start, node) for number in range(count // len(pools)) for node, pool in pools]
        for job in jobs:
            job.result()
        started = [at - began for at in _await(watched, "start", "plain", count)]
    for node, pool in pools:
        pool.shutdown()
        for found in containers(lab, node, "plain"):
            unixhttp.request(nodes.engine_socket(lab, node), "DELETE", f"/containers/{found['Id']}?force=1")
    _starts(notes, LIMIT, started)


def rolling(one: Contender, notes: Notes) -> None:
    """20 tasks replaced, two at a time, without a pause."""
    one.create("rolling", 20)
    _await_running(one, "rolling", 20)
    with watching(one.lab) as watched:
        began = time.time()
        one.update("rolling", _touched)
        last = _await(watched, "start", "rolling", 20)[-1]
    notes.add("rolling update of 20, two at a time (s)", one.name, last - began)
    one.remove("rolling")


def _touched(spec: dict) -> None:  # type: ignore[type-arg]
    spec["TaskTemplate"]["ForceUpdate"] = spec["TaskTemplate"].get("ForceUpdate", 0) + 1


def _await_running(one: Contender, name: str, replicas: int) -> None:
    def run() -> bool:
        found = [each for node in one.lab.members for each in containers(one.lab, node, name)]
        return sum(each["State"] == "running" for each in found) == replicas

    until(run, ENOUGH, f"{replicas} of {name} run")


def scale(one: Contender, notes: Notes) -> None:
    """From 10 to 100 and back."""
    one.create("scaled", 10)
    _await_running(one, "scaled", 10)
    with watching(one.lab) as watched:
        began = time.time()
        one.update("scaled", lambda spec: spec["Mode"]["Replicated"].update(Replicas=100))
        last = _await(watched, "start", "scaled", 90)[-1]
    notes.add("scale 10 to 100, last container (s)", one.name, last - began)
    with watching(one.lab) as watched:
        began = time.time()
        one.update("scaled", lambda spec: spec["Mode"]["Replicated"].update(Replicas=10))
        last = _await(watched, "die", "scaled", 90)[-1]
    notes.add("scale 100 to 10, all dead (s)", one.name, last - began)
    one.remove("scaled")


def latency(one: Contender, notes: Notes) -> None:
    """Calls on the leader, one after the other on one connection each."""
    leader = one.leader()
    one.create("asked", 1)
    for what, call in (
        ("service inspect", lambda _number: one.ask(leader, "GET", "/services/asked")),
        ("node ls", lambda _number: one.ask(leader, "GET", "/nodes")),
        ("create, 0 replicas", lambda number: one.create(f"none-{number}", 0, asked=leader)),
    ):
        taken = []
        for number in range(CALLS):
            began = time.perf_counter()
            call(number)
            taken.append(1000 * (time.perf_counter() - began))
        taken.sort()
        notes.add(f"{what}, half of the calls (ms)", one.name, statistics.median(taken))
        notes.add(f"{what}, 99 of 100 calls (ms)", one.name, taken[int(len(taken) * 0.99)])
    for number in range(CALLS):
        one.ask(leader, "DELETE", f"/services/none-{number}")
    one.remove("asked")


def failover(one: Contender, notes: Notes) -> None:
    """What manages on the leader is killed: until another takes a write."""
    leader = one.leader()
    other = next(node for node in one.lab.members if node.role == "manager" and node != leader)
    one.crash(leader)
    began = time.monotonic()

    def written() -> bool:
        try:
            one.create(f"after-{time.time_ns()}", 0, asked=other)
        except (Refused, OSError, http.client.HTTPException):
            return False
        return True

    until(written, ENOUGH, "a write is taken")
    notes.add("leader killed to the next write (s)", one.name, time.monotonic() - began)
    one.revive(leader)
    until(lambda: set(one.states(other).values()) == {"ready"}, ENOUGH, "all are ready again")
    for service in one.ask(other, "GET", "/services"):
        one.ask(other, "DELETE", f"/services/{service['ID']}")


def node_loss(one: Contender, notes: Notes) -> None:
    """A worker's machine loses its power: until its tasks run elsewhere."""
    victim = one.lab.members[-1]
    rest = [node for node in one.lab.members if node != victim]
    one.create("moved", 10)
    _await_running(one, "moved", 10)
    lost = len(containers(one.lab, victim, "moved"))
    with watching(one.lab, rest) as watched:
        began = time.time()
        labs.kill(one.lab, victim, "node")
        last = _await(watched, "start", "moved", lost)[-1]
    notes.add("machine lost to its tasks elsewhere (s)", one.name, last - began)
    labs.start(one.lab, victim, "node")
    if nodes.program(one.lab, victim, one.program) is None:  # this lab starts Engines only
        one.revive(victim)
    until(lambda: set(one.states().values()) == {"ready"}, ENOUGH, "all are ready again")
    one.remove("moved")


def idle(one: Contender, notes: Notes, seconds: float = 30.0) -> None:
    """What 20 sleeping containers a node cost: processor time and memory of what manages, and of the Engine."""
    one.create("idle", 20 * len(one.lab.members))
    _await_running(one, "idle", 20 * len(one.lab.members))
    time.sleep(5.0)  # what follows a start is not idleness: health, statuses, the log's last entries
    before = {node.name: _cost(one.lab, node) for node in one.lab.members}
    time.sleep(seconds)  # the measured stretch of time itself
    for node in one.lab.members:
        spent, memory = _cost(one.lab, node)
        notes.add(f"idle {node.role}: processor (% of a core)", one.name,
                  100 * (spent - before[node.name][0]) / seconds)  # fmt: skip
        notes.add(f"idle {node.role}: memory (MiB)", one.name, memory)
    one.remove("idle")


def _cost(lab: Lab, node: Node) -> tuple[float, float]:
    """(processor seconds so far, MiB held now) of the node's Engine, containerd and daemon."""
    init = nodes.must_run(lab, node)
    space, spent, held = os.readlink(f"/proc/{init.pid}/ns/pid"), 0.0, 0.0
    for entry in Path("/proc").iterdir():
        try:
            if not entry.name.isdigit() or os.readlink(entry / "ns/pid") != space:
                continue
            command = (entry / "cmdline").read_bytes().split(b"\0")
            if not (command[0].endswith((b"dockerd", b"containerd")) or b"daemon" in command[:5]):
                continue
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            spent += (int(fields[11]) + int(fields[12])) / TICK
            held += int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / 2**20
        except (FileNotFoundError, ProcessLookupError):
            continue
    return spent, held


def joining(one: Contender, notes: Notes) -> None:
    """A worker leaves, and joins anew: until it is ready."""
    worker = one.lab.members[-1]
    known = {each["ID"] for each in one.ask(one.first, "GET", "/nodes")}
    one.ask(worker, "POST", "/swarm/leave?force=1")
    token = one.token(worker.role)
    began = time.monotonic()
    one.join(worker, token)

    def ready() -> bool:
        return any(
            each["ID"] not in known and each["Status"]["State"] == "ready"
            for each in one.ask(one.first, "GET", "/nodes")
        )

    while not ready():
        pass
    notes.add("a worker joins until it is ready (s)", one.name, time.monotonic() - began)
    for each in one.ask(one.first, "GET", "/nodes"):
        if each["Status"]["State"] == "down":
            one.ask(one.first, "DELETE", f"/nodes/{quote(each['ID'])}?force=1")


CORE: dict[str, Callable[[Contender, Notes], None]] = {
    "create-50": lambda one, notes: create(one, notes, 50),
    "create-100": lambda one, notes: create(one, notes, 100),
    "rolling": rolling,
    "scale": scale,
    "latency": latency,
    "joining": joining,
    "failover": failover,
    "node-loss": node_loss,
    "idle": idle,
}
CASES = CORE | nets_beside.CASES


def measure(lab: Lab, notes: Notes, rounds: int, cases: list[str]) -> None:
    """All cases, so many times."""
    contenders: list[Contender] = [DockerSwarm(lab), Swarmpy(lab)]
    for number in range(rounds):
        for count in (50, 100):
            if f"create-{count}" in cases:
                plain_starts(lab, notes, count)
        for one in contenders if number % 2 == 0 else contenders[::-1]:
            print(f"round {number + 1}: {one.name}", flush=True)
            one.form()
            for case in cases:
                CASES[case](one, notes)
            one.dissolve()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.beside_swarm", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", action="append", choices=sorted(CASES), default=[])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--managers", type=int, default=3)
    parser.add_argument("--balancer", choices=BALANCERS, default="auto")
    options = parser.parse_args()
    notes, name = Notes(), f"beside-{os.getpid()}"
    lab = labs.up(
        name, print, managers=options.managers, workers=2, with_cluster=False, balancer=options.balancer
    )
    try:
        without_live_restore(lab)
        measure(lab, notes, options.rounds, options.only or list(CORE))
    finally:
        labs.down(name, print)
        if options.json:
            options.json.write_text(json.dumps(notes.figures, indent=1))
        print("\n".join(table(notes.figures, DockerSwarm.name, Swarmpy.name, [LIMIT])))


if __name__ == "__main__":
    main()
