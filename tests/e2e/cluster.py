"""What end-to-end tests say to a real cluster: commands through its sockets, and conditions with a deadline."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable

from swarmpy.lab import lab as labs
from swarmpy.lab.layout import Lab
from swarmpy.lab.processes import patience, pause

WEB_1, WEB_2 = "registry:5000/web:1", "registry:5000/web:2"
Done = subprocess.CompletedProcess[str]


class Cluster:
    """A lab with a cluster, as its users see it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.managers = [node.name for node in lab.members if node.role == "manager"]
        self.workers = [node.name for node in lab.members if node.role == "worker"]

    # -------------------------------------------------- commands

    def swarmpy(self, *words: str, node: str = "m1", check: bool = True, seconds: float = 45) -> Done:
        """The swarmpy command line against a node's daemon."""
        host = {"SWARMPY_HOST": self.socket(node, "SWARMPY_HOST")}
        return _run([sys.executable, "-m", "swarmpy", *words], host, check, seconds)

    def docker(self, *words: str, node: str = "m1", check: bool = True, seconds: float = 45) -> Done:
        """The installed docker command line against a node's swarmpy daemon."""
        host = {"DOCKER_HOST": self.socket(node, "SWARMPY_HOST")}
        return _run(["docker", *words], host, check, seconds)

    def engine(self, *words: str, node: str, check: bool = True) -> Done:
        """The installed docker command line against a node's Docker Engine, past swarmpy."""
        return _run(["docker", *words], {"DOCKER_HOST": self.socket(node, "ENGINE_HOST")}, check, 45)

    def inside(self, node: str, *words: str, check: bool = True) -> Done:
        """A program on a node, past swarmpy."""
        command = [
            sys.executable,
            "-m",
            "swarmpy",
            "lab",
            "exec",
            "--name",
            self.lab.name,
            node,
            "--",
            *words,
        ]
        return _run(command, {}, check, 45)

    def socket(self, node: str, which: str) -> str:
        return labs.exports(self.lab, self.lab.node(node))[which]

    def kill(self, node: str, what: str) -> None:
        labs.kill(self.lab, self.lab.node(node), what)

    def start(self, node: str, what: str) -> None:
        labs.start(self.lab, self.lab.node(node), what)

    def create(self, name: str, *words: str, image: str = WEB_1, command: tuple[str, ...] = ()) -> None:
        """Create a service without waiting for it."""
        flags = ["-d", "--name", name, "--restart-delay", "1s", *words]
        self.swarmpy("service", "create", *flags, image, *command)

    # -------------------------------------------------- what is to be seen

    def nodes(self, asked: str = "m1") -> dict[str, dict[str, str]]:
        """Rows of `node ls` by hostname."""
        rows = self.swarmpy("node", "ls", "--format", "json", node=asked).stdout.splitlines()
        return {row["Hostname"]: row for row in map(json.loads, rows)}

    def leader(self, asked: str = "m1") -> str:
        return next(name for name, row in self.nodes(asked).items() if row["ManagerStatus"] == "Leader")

    def tasks(self, service: str, *, asked: str = "m1", state: str = "Running") -> list[dict[str, str]]:
        """Rows of `service ps` for tasks that shall run and are in the state."""
        words = ["--no-trunc", "--filter", "desired-state=running", "--format", "json"]
        rows = self.swarmpy("service", "ps", service, *words, node=asked).stdout.splitlines()
        return [row for row in map(json.loads, rows) if row["CurrentState"].startswith(state)]

    def containers(self, service: str, node: str) -> dict[str, str]:
        """Running containers of a service on a node's Engine: id -> when it was started."""
        label = f"label=com.docker.swarm.service.name={service}"
        ids = self.engine("ps", "-q", "--no-trunc", "--filter", label, node=node).stdout.split()
        words = ["inspect", "--format", "{{.Id}} {{.State.StartedAt}}", *ids]
        lines = self.engine(*words, node=node).stdout.splitlines() if ids else []
        return {line.split()[0]: line.split()[1] for line in lines}

    def await_running(
        self, service: str, count: int, *, asked: str = "m1", seconds: float = 30
    ) -> list[dict[str, str]]:
        """Wait until exactly `count` tasks of the service run; returns them."""
        until(lambda: len(self.tasks(service, asked=asked)) == count, seconds, f"{count} run of {service}")
        return self.tasks(service, asked=asked)

    # -------------------------------------------------- afterwards

    def tidy(self) -> None:
        """Whatever a test did: all nodes run and are Ready, active, with their first roles; no services."""
        labs.heal(self.lab)
        self.power()
        until(self._whole, 45, "all nodes are Ready again")
        names = self.swarmpy("service", "ls", "--format", "{{.Name}}").stdout.split()
        if names:
            self.swarmpy("service", "rm", *names)
        for name, row in self.nodes().items():
            if row["Availability"] != "Active":
                self.swarmpy("node", "update", "--availability", "active", name)

    def power(self) -> None:
        """Start whatever of the lab does not run."""
        for row in labs.status(self.lab):
            if row["state"] == "down":
                self.start(row["node"], "node")
                continue
            for what in ("engine", "daemon"):
                if row[what] == "down":
                    self.start(row["node"], what)

    def _whole(self) -> bool:
        asked = self.swarmpy("node", "ls", "--format", "json", check=False)
        rows = [json.loads(line) for line in asked.stdout.splitlines()]
        managers = sorted(row["Hostname"] for row in rows if row["ManagerStatus"] in ("Leader", "Reachable"))
        ready = sorted(row["Hostname"] for row in rows if row["Status"] == "Ready")
        return ready == sorted(self.managers + self.workers) and managers == sorted(self.managers)


def _run(command: list[str], host: dict[str, str], check: bool, seconds: float) -> Done:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SWARMPY_HOST", "DOCKER_"))}
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        env=env | host,
        timeout=seconds * patience(),
        stdin=subprocess.DEVNULL,
    )
    if check:
        assert done.returncode == 0, f"{command} -> {done.returncode}: {done.stdout}{done.stderr}"
    return done


def until(condition: Callable[[], object], seconds: float, what: str) -> float:
    """Wait for a condition; returns the seconds it took. Fails at the deadline, which emulated machines put off
    (`patience`)."""
    seconds *= patience()
    began = looked = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"not within {seconds:g} s: {what}"
        time.sleep(pause(0.05, looked))
        looked = time.monotonic()
    return time.monotonic() - began
