"""How fast a real cluster is: starting, healing, failing over, and what its users notice of it.

    python -m tests.bench.cluster [--rounds N] [--requests N] [--only PART]      needs root

Makes a lab of 3 managers and 2 workers, measures, prints one table of minimum, median and maximum, and removes
the lab. What belongs here: figures. What does not: verdicts; no test asserts any of them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from swarmpy.lab import lab as labs
from tests.bench import node_loss
from tests.bench.nginx import NGINX_1, NGINX_2, STOP_SIGNAL, bring, program
from tests.e2e.cluster import WEB_1, Cluster, until
from tests.e2e.traffic import answered, traffic

PORT = 8080
Figures = dict[str, list[float]]


def note(figures: Figures, what: str, value: float) -> None:
    """One more sample."""
    figures.setdefault(what, []).append(value)
    print(f"  {what}: {value:.3f}", flush=True)


def whole_process(cluster: Cluster, *words: str) -> float:
    """Seconds of a command as a whole process."""
    env = os.environ | {"SWARMPY_HOST": cluster.socket("m1", "SWARMPY_HOST")}
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "swarmpy", *words], env=env, check=True, capture_output=True)
    return time.perf_counter() - began


def commands(cluster: Cluster, figures: Figures) -> None:
    """`node ls` as users call it; creating with a cached image; scaling."""
    for _ in range(5):
        note(figures, "node ls, whole process (s)", whole_process(cluster, "node", "ls"))
    began = time.monotonic()
    cluster.create("five", "--replicas", "5")
    cluster.await_running("five", 5)
    note(figures, "service create to 5/5, cached image (s)", time.monotonic() - began)
    cluster.swarmpy("service", "rm", "five")


def failover(cluster: Cluster, figures: Figures) -> None:
    """The leader's daemon is killed: until a write succeeds elsewhere."""
    leader = cluster.leader()
    other = next(name for name in cluster.managers if name != leader)
    cluster.kill(leader, "daemon")
    began = time.monotonic()
    words = ["service", "create", "-d", "--name", f"after{time.time_ns()}", WEB_1]
    until(lambda: cluster.swarmpy(*words, node=other, check=False).returncode == 0, 30, "a write succeeds")
    note(figures, "leader killed to next write (s)", time.monotonic() - began)
    cluster.start(leader, "daemon")


def worker_lost(cluster: Cluster, figures: Figures) -> None:
    """A worker's machine is killed: until it is down, and until its replicas run elsewhere."""
    cluster.create("exodus", "--replicas", "5")
    cluster.await_running("exodus", 5)
    cluster.kill("w2", "node")
    began = time.monotonic()
    until(lambda: cluster.nodes()["w2"]["Status"] == "Down", 45, "w2 is Down")
    note(figures, "worker killed to Down (s)", time.monotonic() - began)

    def moved() -> bool:
        running = cluster.tasks("exodus")
        return len(running) == 5 and "w2" not in {task["Node"] for task in running}

    until(moved, 45, "all replicas run elsewhere")
    note(figures, "worker killed to replicas elsewhere (s)", time.monotonic() - began)


def mesh(cluster: Cluster, figures: Figures) -> None:
    """From when a task is healthy to the first request that it answers through another node. Its only task is
    on m1, its health is looked at twice a second; requests come in at w2, 50 a second, before there is any."""
    health = ["--health-cmd", "true", "--health-interval", "500ms"]
    words = ["--constraint", "node.hostname==m1", "-p", f"{node_loss.PORT}:80", *health]
    with node_loss.asking(cluster.lab.name, cluster.lab.node("w2").address, 50, 10) as told:
        cluster.docker("service", "create", "-d", "--name", "web", *words, WEB_1)
        [task] = cluster.await_running("web", 1)
        requests = told()
    shown = cluster.docker("inspect", "--format", "{{json .Status.Timestamp}}", task["ID"]).stdout
    since = datetime.fromisoformat(json.loads(shown)[:26].rstrip("Z")).replace(tzinfo=UTC).timestamp()
    first = min(at for at, why in requests if not why)
    note(figures, "healthy to first request answered through another node (s)", first - since)
    failed = [(round(at - first, 3), why) for at, why in requests if why and at > first]
    note(figures, "requests that failed after that one", len(failed))
    print("   ", failed[:10], flush=True)


def last_failure(cluster: Cluster, figures: Figures) -> None:
    """A worker's machine is killed while requests come in at m1, 200 a second; a task is on every node."""
    requests, began, _ = node_loss.killed(cluster.lab.name, 200, 12, "w2", "m1")
    failed = [at - began for at, why in requests if why]
    note(figures, "machine killed to last failed request (s)", max(failed, default=0.0))
    note(figures, "requests failed meanwhile, of 200 a second", len(failed))


def load_case(
    name: str, act: Callable[[Cluster], None], nodes: tuple[str, ...], *, keep: bool = False
) -> Callable[[Cluster, Figures, int], None]:
    """Requests to published ports while something happens again and again, until enough were sent."""

    def run(cluster: Cluster, figures: Figures, requests: int) -> None:
        words = ["-p", f"{PORT}:80", "--replicas", "4", "--update-parallelism", "2"]
        words += ["--stop-signal", STOP_SIGNAL]
        cluster.docker("service", "create", "-d", "--name", "web", *words, NGINX_1)
        cluster.await_running("web", 4)
        targets = [f"{cluster.lab.node(node).address}:{PORT}" for node in nodes]
        for target in targets:
            answered(cluster, "c1", target)
        sent = failed = reopened = times = 0
        seconds = 0.0
        while sent < requests:
            with traffic(cluster, *targets, rate=0, keep=keep) as load:
                act(cluster)
            told = load.result
            sent, failed, seconds = sent + told["sent"], failed + told["failed"], seconds + told["seconds"]
            reopened, times = reopened + told["reopened"], times + 1
            if told["failed"]:
                print("   ", told["failures"], flush=True)
        note(figures, f"{name}: requests sent", sent)
        note(figures, f"{name}: requests failed", failed)
        note(figures, f"{name}: times it was done meanwhile", times)
        if keep:
            note(figures, f"{name}: kept connections found closed", reopened)
        note(figures, f"{name}: requests per second", sent / seconds)

    return run


def _update(order: str) -> Callable[[Cluster], None]:
    def act(cluster: Cluster) -> None:
        now = cluster.tasks("web")[0]["Image"].partition("@")[0]
        image = NGINX_2 if now == NGINX_1 else NGINX_1
        cluster.docker("service", "update", "-d", "--update-order", order, "--image", image, "web")

        def done() -> bool:
            running = cluster.tasks("web")
            return len(running) == 4 and all(task["Image"].startswith(image) for task in running)

        until(done, 120, "all tasks run the new image")

    return act


def _scale(cluster: Cluster) -> None:
    for count in (8, 2, 4):
        cluster.swarmpy("service", "scale", "-d", f"web={count}")
        cluster.await_running("web", count, seconds=60)


def _drain(cluster: Cluster) -> None:
    full = cluster.tasks("web")[0]["Node"]  # who was drained before has nothing to lose
    cluster.swarmpy("node", "update", "--availability", "drain", full)
    until(lambda: full not in {task["Node"] for task in cluster.await_running("web", 4)}, 60, "drained")
    cluster.swarmpy("node", "update", "--availability", "active", full)


def _daemons(cluster: Cluster) -> None:
    for node in ("w1", cluster.leader()):
        cluster.kill(node, "daemon")
        cluster.start(node, "daemon")
    until(lambda: all(row["Status"] == "Ready" for row in cluster.nodes("m2").values()), 60, "all are Ready")


EVERYONE = ("m1", "w1", "w2")
CASES: dict[str, tuple[Callable[[Cluster], None], tuple[str, ...]]] = {
    "update stop-first": (_update("stop-first"), EVERYONE),
    "update start-first": (_update("start-first"), EVERYONE),
    "scale": (_scale, EVERYONE),
    "drain": (_drain, EVERYONE),
    "daemons killed": (_daemons, EVERYONE),
}
LOADS = {name: load_case(name, *case) for name, case in CASES.items()} | {
    f"{name}, keep-alive": load_case(f"{name}, keep-alive", *case, keep=True) for name, case in CASES.items()
}
PARTS: dict[str, Callable[[Cluster, Figures], None]] = {
    "commands": commands,
    "failover": failover,
    "node loss": worker_lost,
    "mesh": mesh,
    "last failure": last_failure,
}


@contextmanager
def fresh_cluster(figures: Figures) -> Iterator[Cluster]:
    """A lab of our own."""
    name = f"bench-{os.getpid()}"
    began = time.monotonic()
    lab = labs.up(name, print, managers=3, workers=2)
    note(figures, "lab up, 5 nodes Ready (s)", time.monotonic() - began)
    try:
        yield Cluster(lab)
    finally:
        labs.down(name, print)


def table(figures: Figures) -> None:
    """All figures: minimum, median, maximum."""
    width = max(map(len, figures))
    print(f"\n{'':{width}}  {'n':>3} {'min':>9} {'median':>9} {'max':>9}")
    for what, values in figures.items():
        row = (min(values), statistics.median(values), max(values))
        print(f"{what:{width}}  {len(values):3} " + " ".join(f"{value:9.3f}" for value in row))


def main(argv: list[str] | None = None) -> int:
    """See the file's charter."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.cluster")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions of each part (%(default)s)")
    parser.add_argument("--requests", type=int, default=2000, help="requests of each load case (%(default)s)")
    parser.add_argument("--only", choices=[*PARTS, *LOADS], action="append", help="measure only this")
    parser.add_argument("--json", help="write the figures to this file")
    options = parser.parse_args(argv)
    chosen = options.only or [*PARTS, *LOADS]
    loads = not set(LOADS).isdisjoint(chosen)
    if loads:
        program()
    figures: Figures = {}
    with fresh_cluster(figures) as cluster:
        for name, part in PARTS.items():
            for _ in range(options.rounds if name in chosen else 0):
                part(cluster, figures)
                cluster.tidy()
        if loads:
            bring(cluster)
        for name, load in LOADS.items():
            if name in chosen:
                load(cluster, figures, options.requests)
                cluster.tidy()
                keep(options.json, figures)
    table(figures)
    keep(options.json, figures)
    return 0


def keep(path: str | None, figures: Figures) -> None:
    """Write what was measured so far."""
    if path:
        Path(path).write_text(json.dumps(figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
