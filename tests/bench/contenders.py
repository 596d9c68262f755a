"""Docker Swarm and swarmpy on the same machines of a lab, spoken to in the same way: both serve Docker's API.

What belongs here: making a cluster of either kind of the lab's nodes, taking it apart, and what is asked of it.
What does not: what is measured (beside_swarm.py).
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from swarmpy.lab import cluster, nodes, unixhttp
from swarmpy.lab import lab as labs
from swarmpy.lab.layout import Lab, Node
from swarmpy.lab.processes import until

NANO = 1_000_000_000
ENOUGH = 180.0


class Refused(Exception):
    """The API's answer was no success."""


class Contender(ABC):
    """One kind of cluster on the lab's nodes."""

    name = ""
    program = ""
    """What manages on a node, as the lab calls it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.image = image_of(lab)

    @abstractmethod
    def form(self) -> None:
        """Make the cluster; returns when every node is ready."""

    @abstractmethod
    def dissolve(self) -> None:
        """Take it apart, with all that it runs."""

    @abstractmethod
    def socket(self, node: Node) -> Path:
        """Where the node serves the API."""

    def crash(self, node: Node) -> None:
        """kill -9 what manages on that node."""
        labs.kill(self.lab, node, self.program)

    def revive(self, node: Node) -> None:
        """Start that again."""
        labs.start(self.lab, node, self.program)

    def token(self, role: str) -> str:
        """The join token of a role."""
        tokens: dict[str, str] = self.ask(self.first, "GET", "/swarm")["JoinTokens"]
        return tokens[role.capitalize()]

    def join(self, node: Node, token: str = "") -> None:
        """Let a node join with its role."""
        self.ask(node, "POST", "/swarm/join", {
            "ListenAddr": f"{node.address}:2377", "AdvertiseAddr": node.address,
            "RemoteAddrs": [f"{self.first.address}:2377"], "JoinToken": token or self.token(node.role),
        })  # fmt: skip

    # ------------------------------------------------------------ the API

    def ask(self, node: Node, method: str, target: str, body: object = None, timeout: float = 60.0) -> Any:
        """One call on a connection of its own. Raises Refused, OSError or http.client.HTTPException."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        status, said = unixhttp.request(
            self.socket(node), method, target, data, headers=headers, timeout=timeout
        )
        if status >= 300:
            raise Refused(f"{method} {target}: {status} {said.decode(errors='replace').strip()}")
        return json.loads(said) if said.strip() else None

    @property
    def first(self) -> Node:
        """The manager that is asked where it does not matter which."""
        return self.lab.members[0]

    def leader(self, asked: Node | None = None) -> Node:
        """The node that leads."""
        found = [
            one["Description"]["Hostname"]
            for one in self.ask(asked or self.first, "GET", "/nodes")
            if (one.get("ManagerStatus") or {}).get("Leader")
        ]
        return self.lab.node(found[0])

    def states(self, asked: Node | None = None) -> dict[str, str]:
        """The nodes' states by host name."""
        return {one["Description"].get("Hostname", ""): one["Status"]["State"]
                for one in self.ask(asked or self.first, "GET", "/nodes")}  # fmt: skip

    def create(self, name: str, replicas: int, *, asked: Node | None = None, timeout: float = 60.0,
               **spec: object) -> str:  # fmt: skip
        """A service that sleeps; its id."""
        body = spec_of(name, replicas, self.image) | spec
        made = self.ask(asked or self.first, "POST", "/services/create", body, timeout)
        return str(made["ID"])

    def update(self, name: str, change: Callable[[dict[str, Any]], None]) -> None:
        """Change the service's spec."""
        known = self.ask(self.first, "GET", f"/services/{name}")
        change(known["Spec"])
        version = known["Version"]["Index"]
        self.ask(self.first, "POST", f"/services/{name}/update?version={version}", known["Spec"])

    def remove(self, name: str) -> None:
        """Remove the service; returns when no Engine has a container of it."""
        self.ask(self.first, "DELETE", f"/services/{name}")
        until(lambda: not any(containers(self.lab, one, name) for one in self.lab.members), ENOUGH, name)


def image_of(lab: Lab) -> str:
    """The sleeper by its digest: what each Engine has of it is good, and nothing is asked of a registry."""
    status, said = unixhttp.request(
        nodes.engine_socket(lab, lab.members[0]), "GET", "/images/sleeper:latest/json"
    )
    assert status == 200, said
    return str(json.loads(said)["RepoDigests"][0])


def spec_of(name: str, replicas: int, image: str) -> dict[str, Any]:
    """A service that does nothing and dies at once when told."""
    return {
        "Name": name,
        "TaskTemplate": {"ContainerSpec": {"Image": image, "StopSignal": "SIGKILL"}},
        "Mode": {"Replicated": {"Replicas": replicas}},
        "UpdateConfig": {"Parallelism": 2, "Delay": 0, "Monitor": NANO // 1000},
    }


def containers(lab: Lab, node: Node, service: str) -> list[dict[str, Any]]:
    """The service's containers on a node, dead ones too."""
    if nodes.init_of(lab, node) is None:
        return []
    wanted = quote(json.dumps({"label": [f"com.docker.swarm.service.name={service}"]}))
    _, said = unixhttp.request(
        nodes.engine_socket(lab, node), "GET", f"/containers/json?all=1&filters={wanted}"
    )
    found: list[dict[str, Any]] = json.loads(said)
    return found


class DockerSwarm(Contender):
    """The Engines' own swarm mode."""

    name, program = "Docker Swarm", "engine"

    def form(self) -> None:
        first = self.first
        body = {"ListenAddr": f"{first.address}:2377", "AdvertiseAddr": first.address, "Spec": {}}
        self.ask(first, "POST", "/swarm/init", body)
        for node in self.lab.members[1:]:
            self.join(node)
        until(
            lambda: list(self.states().values()) == ["ready"] * len(self.lab.members), ENOUGH, "all are ready"
        )

    def dissolve(self) -> None:
        for node in reversed(self.lab.members):
            self.ask(node, "POST", "/swarm/leave?force=1")

    def socket(self, node: Node) -> Path:
        return nodes.engine_socket(self.lab, node)


class Swarmpy(Contender):
    """Ours."""

    name, program = "swarmpy", "daemon"

    def form(self) -> None:
        cluster.form(self.lab, lambda _line: None)

    def dissolve(self) -> None:
        for node in reversed(self.lab.members):
            self.ask(node, "POST", "/swarm/leave?force=1")
            self.crash(node)

    def socket(self, node: Node) -> Path:
        return nodes.swarmpy_socket(self.lab, node)


def without_live_restore(lab: Lab) -> None:
    """Docker Swarm does not go with it. An Engine reads the setting again on SIGHUP."""
    for node in lab.members:
        path = lab.home(node) / "etc/docker/daemon.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"live-restore": False}))
        engine = nodes.program(lab, node, "engine")
        assert engine is not None
        os.kill(engine.pid, signal.SIGHUP)
        until(lambda node=node: not _live_restore(lab, node), 10, f"{node.name} takes the setting")


def _live_restore(lab: Lab, node: Node) -> bool:
    _, said = unixhttp.request(nodes.engine_socket(lab, node), "GET", "/info")
    return bool(json.loads(said)["LiveRestoreEnabled"])


class Watched:
    """What the Engines say of containers meanwhile: (seconds since the epoch, event, labels)."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, str, dict[str, str]]] = []
        self._moved = threading.Condition()

    def add(self, at: float, event: str, labels: dict[str, str]) -> None:
        """One more."""
        with self._moved:
            self.seen.append((at, event, labels))
            self._moved.notify_all()

    def times(self, event: str, service: str) -> list[float]:
        """When containers of the service did that, in order."""
        label = "com.docker.swarm.service.name"
        return sorted(
            at for at, what, labels in self.seen if what == event and labels.get(label) == service
        )  # fmt: skip

    def wait(self, enough: Callable[[], bool], seconds: float = ENOUGH) -> None:
        """Until it is so. Raises TimeoutError."""
        end = time.monotonic() + seconds
        with self._moved:
            while not enough():
                left = end - time.monotonic()
                if left <= 0 or not self._moved.wait(left):
                    raise TimeoutError(f"{len(self.seen)} events, and still not what was waited for")


@contextmanager
def watching(lab: Lab, asked: list[Node] | None = None) -> Iterator[Watched]:
    """The Engines' events meanwhile."""
    watched, streams = Watched(), []
    for node in asked or lab.members:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.connect(str(nodes.engine_socket(lab, node)))
        wanted = quote(json.dumps({"type": ["container"], "event": ["start", "die", "destroy"]}))
        connection.sendall(f"GET /events?filters={wanted} HTTP/1.1\r\nHost: e\r\n\r\n".encode())
        thread = threading.Thread(target=_listen, args=(connection, watched), daemon=True)
        thread.start()
        streams.append((connection, thread))
    try:
        yield watched
    finally:
        for connection, thread in streams:
            connection.shutdown(socket.SHUT_RDWR)
            thread.join()
            connection.close()


def _listen(connection: socket.socket, watched: Watched) -> None:
    reply = http.client.HTTPResponse(connection)
    try:
        reply.begin()
        while line := reply.readline():
            said = json.loads(line)
            watched.add(said["timeNano"] / NANO, said["Action"], said["Actor"]["Attributes"])
    except (OSError, ValueError, http.client.HTTPException):
        return  # the stream was ended on our side, or the machine with it
