"""Simulated containers and what their images make them do.

What belongs here: a container's data and its image's behaviour. What does not: the daemon (engine.py).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from swarmpy.ports import ContainerSeen


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What containers of an image do. Seconds; `runs_for` None is for ever."""

    exists: bool = True
    runs_for: tuple[float, float] | None = None
    exit_code: int = 0
    stop_time: tuple[float, float] = (0.01, 0.2)
    stop_code: int = 0
    probed: bool = False
    healthy: bool = True
    oom: bool = False
    """Whether it ends because it took more memory than it may."""
    prints: tuple[tuple[float, str, str], ...] = ((0.0, "stdout", "hello from {name}"),)
    """Its output: (seconds after its start, stream, line)."""
    reachable: bool = True
    """Whether its registry can be reached."""
    startable: bool = True
    listens: tuple[float, float] | None = (0.0, 0.0)
    """How long after its start it listens; None is never."""
    late: Mapping[int, float] = field(default_factory=dict)
    """Seconds after its start at which it listens on these TCP ports, apart from all others."""

    @staticmethod
    def of(image: str) -> Behaviour:
        """By the word before the tag (see BEHAVIOURS); else it serves."""
        return BEHAVIOURS.get(image.partition("@")[0].rpartition("/")[2].partition(":")[0], SERVES)

    def has_health(self, config: Mapping[str, Any]) -> bool:
        """Whether the Engine probes such a container."""
        test = (config.get("Healthcheck") or {}).get("Test") or []
        return test[:1] != ["NONE"] if test else self.probed


SERVES = Behaviour()
BEHAVIOURS = {
    "missing": Behaviour(exists=False),
    "crash": Behaviour(runs_for=(0.05, 0.5), exit_code=1),
    "job": Behaviour(runs_for=(0.5, 3.0), exit_code=0),
    "flaky": Behaviour(runs_for=(2.0, 30.0), exit_code=1),
    "stubborn": Behaviour(stop_time=(3.0, 30.0)),
    "sick": Behaviour(probed=True, healthy=False),
    "probed": Behaviour(probed=True),
    "hungry": Behaviour(runs_for=(0.1, 0.2), exit_code=137, oom=True),
    "talker": Behaviour(
        prints=((0.0, "stdout", "out 1"), (0.0, "stderr", "err 1"), (0.5, "stdout", "out 2")),
    ),
    "unreachable": Behaviour(reachable=False),
    "broken": Behaviour(startable=False),
    "slow": Behaviour(listens=(0.5, 4.0)),
    "deaf": Behaviour(listens=None),
}


@dataclass(slots=True)
class Container:
    """A container of a Dockerd; `life` counts its starts."""

    id: str
    name: str
    labels: Mapping[str, str]
    image: str
    config: Mapping[str, Any] = field(repr=False)
    state: str = "created"
    life: int = 0
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    health: str = ""
    health_log: str = ""
    started_at: int = 0
    finished_at: int = 0
    ports: tuple[tuple[str, int, int], ...] = ()
    places: dict[str, Mapping[str, str]] = field(default_factory=dict)
    """Driver options by network."""
    output: list[tuple[int, str, bytes]] = field(default_factory=list, repr=False)
    """What it printed: (time, stream, line)."""
    volumes: int = 0
    """Its anonymous volumes."""
    began: float = 0.0
    """Virtual time of its start."""
    opens: float = math.inf
    """Virtual time from which it listens on its TCP ports; `late` has those for which that is another."""
    late: Mapping[int, float] = field(default_factory=dict)
    watchers: list[asyncio.Future[None]] = field(default_factory=list, repr=False)

    async def changed(self) -> None:
        """Return when it printed something, stopped, or its Engine went."""
        watcher = asyncio.get_running_loop().create_future()
        self.watchers.append(watcher)
        await watcher

    def connect(self, network: str, options: Mapping[str, str]) -> None:
        """One more network."""
        self.places[network] = dict(options)

    @property
    def sandbox(self) -> str:
        """Its network namespace in its present life."""
        return self.sandbox_of(self.life) if self.state == "running" else ""

    def sandbox_of(self, life: int) -> str:
        """Its network namespace in that life."""
        return f"/run/docker/netns/{self.id[:12]}-{life}"

    def endpoint(self, network: str) -> str:
        """The Engine's endpoint in its present life."""
        return self.endpoint_of(self.life, network) if self.state == "running" else ""

    def endpoint_of(self, life: int, network: str) -> str:
        """The Engine's endpoint in that life."""
        return f"{self.id[:12]}-{life}-{network}"

    def print(self, now: int, stream: str, line: str) -> None:
        """A line of its output."""
        self.output.append((now, stream, f"{line.format(name=self.name)}\n".encode()))
        self.stir()

    def stir(self) -> None:
        """Wake those who wait for a change."""
        watchers, self.watchers = self.watchers, []
        for watcher in watchers:
            if not watcher.done():
                watcher.set_result(None)

    def run(self, now: int, ports: tuple[tuple[str, int, int], ...], pid: int) -> None:
        """It starts."""
        self.state, self.life, self.pid = "running", self.life + 1, pid
        self.started_at, self.finished_at, self.ports, self.error = now, 0, ports, ""
        self.exit_code, self.oom_killed = 0, False

    def end(self, now: int, code: int, oom: bool) -> None:
        """It ended."""
        self.state, self.pid, self.exit_code, self.oom_killed = "exited", 0, code, oom
        self.finished_at, self.ports, self.health, self.health_log = now, (), "", ""
        self.stir()

    def listens(self, port: int, now: float) -> bool:
        """Whether it accepts connections to that TCP port at this virtual time."""
        return self.state == "running" and now >= self.late.get(port, self.opens)

    def seen(self) -> ContainerSeen:
        """As the Engine reports it."""
        return ContainerSeen(
            id=self.id, name=self.name, labels=self.labels, state=self.state, pid=self.pid,
            exit_code=self.exit_code, error=self.error, oom_killed=self.oom_killed, health=self.health,
            health_log=self.health_log, started_at=self.started_at, finished_at=self.finished_at,
            ports=self.ports, sandbox=self.sandbox,
            hostname=str(self.config.get("Hostname") or self.id[:12]),
            options={name: dict(one) for name, one in sorted(self.places.items()) if one},
            networks=tuple((name, self.endpoint(name)) for name in sorted(self.places)),
        )  # fmt: skip


def published(config: Mapping[str, Any]) -> tuple[tuple[str, int, int], ...]:
    """(protocol, target, host port) of a create body's fixed port bindings."""
    bindings = (config.get("HostConfig") or {}).get("PortBindings") or {}
    found = []
    for target in sorted(bindings):
        number, _, protocol = target.partition("/")
        found += [(protocol or "tcp", int(number), int(binding.get("HostPort") or 0))
                  for binding in bindings[target] or () if int(binding.get("HostPort") or 0)]  # fmt: skip
    return tuple(sorted(found))
