"""The field on which cases are played: a cluster, its clients, what a case may do to it and what is to be seen.

What belongs here: striking, waiting, looking. What does not: which faults there are (cases.py, disks.py).
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

from swarmpy.lab import lab as labs
from swarmpy.lab import nodes, unixhttp
from swarmpy.lab.processes import pause
from tests.e2e.cluster import Cluster, until
from tests.faults.recorder import FAILURES, Recorder

STEADY, EVERY, PULSE = "steady", "every", "pulse"
REPLICAS = 5
PORT = 8080
WATCHED = (STEADY, EVERY)
LONGEST = 60.0
"""Seconds within which anything must come out."""
Containers = dict[str, dict[str, str]]
"""By node: id -> when it was started, and how often anew."""


class Field:
    """A cluster of a lab with load from outside."""

    def __init__(self, cluster: Cluster, recorder: Recorder, chance: random.Random) -> None:
        self.cluster, self.recorder, self.chance = cluster, recorder, chance
        self.lab = cluster.lab
        self.members = cluster.managers + cluster.workers
        self.struck_at = 0.0
        self.struck: list[str] = []
        self.figures: dict[str, float] = {}
        """What the case measured, in seconds."""
        self.counts: dict[str, int] = {}
        """What it did, by name."""
        self.problems: list[str] = []
        self.away = 0.0
        """How long a node's daemon or Engine was away, at most: see campaign.PATIENCE."""
        self._gone: dict[str, float] = {}
        self._pulses = 0

    def prepare(self) -> None:
        """The services that must go on, whatever happens."""
        self.cluster.create(STEADY, "--replicas", str(REPLICAS), "-p", f"{PORT}:80")
        self.cluster.create(EVERY, "--mode", "global")
        self.cluster.create(
            PULSE, "--replicas", "0", "--stop-grace-period", "1s", image="registry:5000/sleeper:latest"
        )
        until(self.whole, LONGEST, "the services run")

    def begin(self) -> None:
        """A case begins."""
        self.figures, self.counts, self.problems, self.struck, self.struck_at = {}, {}, [], [], 0.0
        self.away, self._gone = 0.0, {}

    # -------------------------------------------------- doing

    def strike(self, *names: str) -> None:
        """Now it happens, to these nodes."""
        self.struck += names
        self.struck_at = time.monotonic()

    def count(self, what: str, by: int = 1) -> None:
        self.counts[what] = self.counts.get(what, 0) + by

    def kill(self, names: Sequence[str], what: str) -> None:
        """Strike: kill -9."""
        self.strike(*names)
        self.at_once(lambda name: self.end(name, what), names)
        self.count(f"{what}s killed", len(names))

    def end(self, name: str, what: str = "daemon") -> None:
        """kill -9, as a part of a case."""
        self.leaves(name)
        self.cluster.kill(name, what)

    def start(
        self, names: Sequence[str], what: str, *, under: Sequence[str] = (), joins: bool = True
    ) -> None:
        """Start what was killed; returns once the cluster hears of the nodes again, where they join it."""

        def begin(name: str) -> None:
            labs.start(self.lab, self.lab.node(name), what, under=under)
            if joins:
                until(lambda: self.ready(name), LONGEST, f"{name} is ready again")
            self.returns(name)

        self.at_once(begin, names)

    def restart_daemon(self, name: str) -> None:
        """kill -9 and start, as a part of a preparation."""
        self.end(name)
        self.start([name], "daemon")

    def leaves(self, name: str) -> None:
        """From now on the node's daemon, or its Engine, does nothing."""
        self._gone[name] = time.monotonic()

    def returns(self, name: str) -> None:
        """It is back."""
        self.away = max(self.away, time.monotonic() - self._gone.pop(name, time.monotonic()))

    def at_once(self, work: Callable[[str], object], names: Iterable[str]) -> None:
        with ThreadPoolExecutor(max_workers=16) as pool:
            for job in [pool.submit(work, name) for name in names]:
                job.result()

    def nap(self, least: float, most: float) -> None:
        """Let the fault last."""
        time.sleep(self.chance.uniform(least, most))

    def home(self, name: str) -> Path:
        """The node's state directory, from outside."""
        return self.lab.home(self.lab.node(name)) / "swarmpy"

    def freeze(self, name: str) -> None:
        self.leaves(name)
        labs.freeze(self.lab, self.lab.node(name), "daemon")

    def thaw(self, name: str) -> None:
        labs.thaw(self.lab, self.lab.node(name), "daemon")
        if name in self._gone:
            until(lambda: self.ready(name), LONGEST, f"{name} is ready again")
        self.returns(name)

    def lead(self, name: str) -> None:
        """Have this manager lead, by killing the leader's daemon until it does."""
        while (leader := self.leader()) != name:
            self.end(leader)
            until(lambda old=leader: self.leader() != old, LONGEST, "another manager leads")
            self.start([leader], "daemon")
            until(self.whole, LONGEST, "the cluster is whole")

    def settle(self, name: str) -> None:
        """See to it that a replica runs on the node: after a loss they gather on the others."""
        key = self.rows()[name]["ID"]
        while key not in {task["NodeID"] for task in self.running(STEADY)}:
            self.cluster.swarmpy("service", "update", "-d", "--force", STEADY, node=self.cluster.managers[0])
            until(
                lambda: len(self.running(STEADY)) == REPLICAS and self.whole(), LONGEST, "replicas are spread"
            )

    # -------------------------------------------------- waiting

    def await_write(self, what: str = "next write", since: float | None = None) -> float:
        """Wait until a write that began after the strike is acknowledged; notes and returns the seconds."""
        begin = self.struck_at if since is None else since
        until(lambda: self.recorder.next_ack(begin) is not None, LONGEST, "a write is acknowledged")
        took = self.recorder.next_ack(begin)
        assert took is not None
        self.figures[what] = took
        return took

    def await_whole(self) -> float:
        """Wait until everything is as it was, and the struck nodes carry out orders; seconds."""
        began = time.monotonic()
        until(self.whole, LONGEST, f"the cluster is whole again ({self.missing()})")
        for name in list(dict.fromkeys(self.struck))[-1:]:
            self.pulse(name)
        until(self.whole, LONGEST, "the cluster is whole again")
        return time.monotonic() - began

    def pulse(self, name: str) -> None:
        """Have a node start a container: its agent is told what to do, and does it."""
        self._pulses += 1
        words = [f"PULSE={self._pulses}"]
        spec = self.get(f"/services/{PULSE}")["Spec"]
        spec["Mode"] = {"Replicated": {"Replicas": 1}}
        spec["TaskTemplate"]["Placement"] = {"Constraints": [f"node.hostname=={name}"]}
        spec["TaskTemplate"]["ContainerSpec"]["Env"] = words

        def told() -> bool:
            version = self.get(f"/services/{PULSE}")["Version"]["Index"]
            path = f"/services/{PULSE}/update?version={version}"
            return (
                self.recorder.insist("POST", path, spec, f"pulse-{self._pulses}-{version}", good=(200,))[0]
                == 200
            )

        until(told, LONGEST, "the pulse is ordered")

        def beats() -> bool:
            return any(task["Spec"]["ContainerSpec"].get("Env") == words for task in self.running(PULSE))

        until(beats, LONGEST, f"{name} starts a container")

    # -------------------------------------------------- looking

    def get(self, path: str) -> Any:
        """Ask any manager until one of them answers 200."""
        answers: list[Any] = []

        def asks() -> bool:
            try:
                status, body = self.recorder.ask(self.recorder.anyone(), "GET", path)
            except FAILURES:
                return False
            if status == 200:
                answers.append(body)
            return status == 200

        until(asks, LONGEST, f"GET {path} is answered")
        return answers[-1]

    def rows(self) -> dict[str, dict[str, Any]]:
        """Nodes by name."""
        return {one["Description"]["Hostname"]: one for one in self.get("/nodes")}

    def ready(self, name: str) -> bool:
        """Whether the cluster hears of the node."""
        return bool(self.rows()[name]["Status"]["State"] == "ready")

    def leader(self) -> str:
        """Its name; waits for one."""
        found: list[str] = []

        def leads() -> bool:
            found[:] = [n for n, one in self.rows().items() if one.get("ManagerStatus", {}).get("Leader")]
            return bool(found)

        until(leads, LONGEST, "a manager leads")
        return found[0]

    def follower(self) -> str:
        """Some manager that does not lead."""
        leader = self.leader()
        return self.chance.choice([name for name in self.cluster.managers if name != leader])

    def worker(self) -> str:
        return self.chance.choice(self.cluster.workers)

    def others(self, *names: str) -> list[str]:
        """All members but these."""
        return [name for name in self.members if name not in names]

    def info(self, name: str) -> dict[str, Any]:
        """What a node says of itself (`swarmpy info`)."""
        return dict(self.recorder.ask(self.socket(name), "GET", "/info", timeout=10)[1]["Swarm"])

    def socket(self, name: str) -> Path:
        return nodes.swarmpy_socket(self.lab, self.lab.node(name))

    def running(self, service: str) -> list[dict[str, Any]]:
        """Tasks of a service that shall run and do."""
        asked = quote(json.dumps({"service": [service], "desired-state": ["running"]}))
        return [task for task in self.get(f"/tasks?filters={asked}") if task["Status"]["State"] == "running"]

    def missing(self) -> str:
        """What keeps the cluster from being whole; "" where nothing does."""
        rows = self.rows()
        for name in self.members:
            row = rows.get(name, {})
            if row.get("Status", {}).get("State") != "ready":
                return f"{name} is not ready"
            if (
                name in self.cluster.managers
                and row.get("ManagerStatus", {}).get("Reachability") != "reachable"
            ):
                return f"{name} is no reachable manager"
        wanted = {STEADY: REPLICAS, EVERY: len(self.members)}
        for one in self.get("/services?status=true"):
            name = one["Spec"]["Name"]
            if wanted.pop(name, None) not in (None, one["ServiceStatus"]["RunningTasks"]):
                return f"{one['ServiceStatus']['RunningTasks']} tasks of {name} run"
        if wanted:
            return f"there is no service {', '.join(wanted)}"
        there = sum(len(found) for found in self.containers().values())
        return "" if there == REPLICAS + len(self.members) else f"{there} containers run"

    def whole(self) -> bool:
        """Every node is ready, every manager reachable, and exactly the right containers run."""
        return not self.missing()

    def containers(self) -> Containers:
        """The watched services' running containers, as the Engines know them."""
        found: Containers = {}
        for name in self.members:
            engine = nodes.engine_socket(self.lab, self.lab.node(name))
            try:
                found[name] = {
                    one: _life(engine, one) for service in WATCHED for one in _ids(engine, service)
                }
            except FAILURES:
                found[name] = {}
        return found

    def await_elsewhere(self, dead: str, seconds: float = LONGEST) -> float:
        """Wait until all replicas run on other nodes; notes the seconds since the strike."""
        key = self.rows()[dead]["ID"]

        def moved() -> bool:
            where = [task["NodeID"] for task in self.running(STEADY)]
            return len(where) == REPLICAS and key not in where

        until(moved, seconds, f"what ran on {dead} runs elsewhere")
        self.figures["replicas elsewhere"] = time.monotonic() - self.struck_at
        return self.figures["replicas elsewhere"]

    def watch(self, seconds: float, sight: Callable[[], object], what: str) -> None:
        """For so long, `sight` must hold at every look."""
        end = time.monotonic() + seconds
        while (began := time.monotonic()) < end:
            if not sight():
                self.problems.append(f"for a while not: {what}")
                return
            time.sleep(pause(0.2, began))

    # -------------------------------------------------- cables

    def cut(self, near: Sequence[str], far: Sequence[str] = (), *, one_way: bool = False) -> None:
        labs.partition(self.lab, near, far, one_way=one_way)

    def heal(self) -> None:
        labs.heal(self.lab)


def _ids(engine: Path, service: str) -> list[str]:
    asked = quote(json.dumps({"label": [f"com.docker.swarm.service.name={service}"]}))
    status, body = unixhttp.request(engine, "GET", f"/containers/json?filters={asked}")
    if status != 200:
        raise OSError(f"the Engine answers {status}")
    return [one["Id"] for one in json.loads(body)]


def _life(engine: Path, container: str) -> str:
    status, body = unixhttp.request(engine, "GET", f"/containers/{container}/json")
    if status != 200:
        return "gone"
    found = json.loads(body)
    return f"{found['State']['StartedAt']} {found['RestartCount']}"
