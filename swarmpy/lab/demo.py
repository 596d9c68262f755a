"""A cluster before the reader's eyes: it comes up, serves, is updated, loses machines, and heals.

What belongs here: the story and its words. What does not: how a lab or a cluster does it (lab.py, nodes.py).

    python -m swarmpy.lab.demo [--down]      needs root; takes about two minutes
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from types import FrameType

from swarmpy.lab import lab as labs
from swarmpy.lab.errors import LabError
from swarmpy.lab.layout import CLIENT, Lab
from swarmpy.lab.processes import until

NAME = "demo"
REPLICAS = 5
IMAGE, NEW_IMAGE = "registry:5000/web:1", "registry:5000/web:2"
PORT = 8080
_ASK = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=5).read().decode())"
_BEGAN = time.monotonic()


def main(argv: list[str]) -> int:
    """Show the whole story; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m swarmpy.lab.demo", description=__doc__.splitlines()[0])
    parser.add_argument("--down", action="store_true", help="remove the cluster at the end")
    args = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        lab = labs.up(NAME, _say, managers=3, workers=2)
    except LabError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return _interrupted()
    try:
        _story(lab)
    except KeyboardInterrupt:
        labs.down(NAME, _say)
        return _interrupted()
    except LabError as error:
        print(f"demo: {error}; the lab is left for a look, `swarmpy lab down --name {NAME}` removes it")
        return 1
    if args.down:
        labs.down(NAME, _say)
    else:
        _farewell(lab)
    return 0


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _interrupted() -> int:
    print("demo: interrupted; nothing is left of it", file=sys.stderr)
    return 130


def _story(lab: Lab) -> None:
    _say(f"a service with {REPLICAS} replicas, published on port {PORT} of every node")
    words = ["--name", "web", "--replicas", str(REPLICAS), "--publish", f"{PORT}:80", IMAGE]
    _show(lab, "m1", "service", "create", "-d", *words)
    _await(f"all {REPLICAS} replicas run", lambda: len(_where(lab, "m1")) == REPLICAS)
    _show(lab, "m1", "node", "ls")
    _show(lab, "m1", "service", "ps", "web")
    _mesh(lab)
    _rolling(lab)

    leader = _leader(lab, "m1")
    living = [node.name for node in lab.members if node.name not in ("w2", leader)]
    load = Requests(lab, living)
    _say(f"requests from outside to {', '.join(living)} go on")
    _say("now worker w2 loses its power: kill -9, no goodbye")
    labs.kill(lab, lab.node("w2"), "node")
    _await("the cluster has noticed", lambda: _rows(lab, "m1", "node", "ls")["w2"]["Status"] == "Down")
    _await("its replica runs elsewhere", lambda: "w2" not in _healthy(lab, "m1", without="w2"))
    _show(lab, "m1", "node", "ls")
    _show(lab, "m1", "service", "ps", "web")

    other = next(node.name for node in lab.members if node.role == "manager" and node.name != leader)
    _say(f"and now the leader, {leader}: kill -9 of the whole machine")
    labs.kill(lab, lab.node(leader), "node")
    _await("another manager leads, and takes writes", lambda: _writes(lab, other))
    away = {"w2", leader}
    _await(f"{REPLICAS} replicas run elsewhere", lambda: not away & _healthy(lab, other, without=leader))
    _show(lab, other, "node", "ls")
    _show(lab, other, "service", "ps", "web")

    load.end()

    _say("power again for both")
    for name in ("w2", leader):
        labs.start(lab, lab.node(name), "node")
    _await("all nodes are Ready", lambda: _all_ready(lab, other))
    _show(lab, other, "node", "ls")


def _mesh(lab: Lab) -> None:
    """Any node answers, whoever runs the replica, and the replica sees who asked."""
    client = lab.node(CLIENT)
    _say(f"a client outside the cluster, {client.address}, asks every node in turn")
    for node in lab.members:
        answer: list[str] = []

        def asks(address: str = node.address, found: list[str] = answer) -> bool:
            found.append(_get(lab, address))
            return bool(found[-1])

        until(asks, 20, f"port {PORT} of {node.name} does not answer")
        print(f"          {node.name:3} {node.address}:{PORT}  ->  {answer[-1]}", flush=True)


def _rolling(lab: Lab) -> None:
    """Scaling and a rolling update under load."""
    names = [node.name for node in lab.members]
    load = Requests(lab, names)
    _say(
        "requests from outside go on, while the service is scaled to 8 and back, and updated to another image"
    )
    for count in (8, REPLICAS):
        _show(lab, "m1", "service", "scale", "-d", f"web={count}")
        _await(f"{count} replicas run", partial(_runs, lab, count))
    _show(lab, "m1", "service", "update", "-d", "--update-parallelism", "2", "--image", NEW_IMAGE, "web")
    _await("all replicas run the new image", lambda: _images(lab, "m1") == [NEW_IMAGE] * REPLICAS)
    load.end()


class Requests:
    """The load generator on the client node."""

    def __init__(self, lab: Lab, names: list[str]) -> None:
        line = [sys.executable, "-m", "swarmpy", "lab", "exec", "--name", lab.name, CLIENT, "--"]
        line += [sys.executable, "-m", "swarmpy.lab.load", "--until-eof", "--rate", "40", "--timeout", "10"]
        line += [f"{lab.node(name).address}:{PORT}" for name in names]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(line, stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    def end(self) -> None:
        """Stop, and say what came of it."""
        out, err = self._process.communicate(timeout=60)
        lines = out.splitlines()
        if len(lines) < 2:
            raise LabError(f"the load generator failed: {err.strip()}")
        told = json.loads(lines[-1])
        _say(f"{told['sent']} requests were sent meanwhile, {told['failed']} failed")
        for failure in told["failures"][:5]:
            print(f"          {failure['target']}: {failure['error']}", flush=True)


def _farewell(lab: Lab) -> None:
    exe = shlex.quote(_program())
    print(
        f"""
The cluster is yours now. What to try next:

  eval $({exe} lab env m1 --name {lab.name})         # talk to manager m1
  {exe} service scale web=8
  {exe} service update --image {IMAGE} web
  {exe} lab exec --name {lab.name} {CLIENT} -- busybox wget -qO- http://{lab.node("m1").address}:{PORT}/
  {exe} explain web
  DOCKER_HOST=$SWARMPY_HOST docker node ls            # Docker's own command line works as well
  {exe} lab kill m2 --name {lab.name}                # and: lab start, lab partition, lab heal

It goes away, without a trace, with:

  {exe} lab down --name {lab.name}
"""
    )


# ---------------------------------------------------------------- words


def _say(line: str) -> None:
    print(f"[{time.monotonic() - _BEGAN:6.1f}s] {line}", flush=True)


def _show(lab: Lab, node: str, *words: str) -> None:
    _say(f"{node}$ swarmpy {shlex.join(words)}")
    done = _swarmpy(lab, node, *words)
    for line in (done.stdout + done.stderr).splitlines():
        print(f"          {line}", flush=True)
    if done.returncode:
        raise LabError(f"`swarmpy {shlex.join(words)}` on {node} was refused")


def _await(what: str, condition: Callable[[], bool]) -> None:
    began = time.monotonic()
    until(condition, 60, f"this did not come true: {what}")
    _say(f"{what} (after {time.monotonic() - began:.1f} s)")


# ---------------------------------------------------------------- questions


def _program() -> str:
    """How the reader calls swarmpy: by its path where the shell would not find it."""
    folder = os.path.dirname(sys.executable)
    return "swarmpy" if folder in os.get_exec_path() else os.path.join(folder, "swarmpy")


def _swarmpy(lab: Lab, node: str, *words: str) -> subprocess.CompletedProcess[str]:
    host = labs.exports(lab, lab.node(node))["SWARMPY_HOST"]
    line = [sys.executable, "-m", "swarmpy", "--host", host, *words]
    return subprocess.run(line, check=False, capture_output=True, text=True, timeout=60)


def _rows(lab: Lab, node: str, *words: str) -> dict[str, dict[str, str]]:
    """Rows of a list, by the hostname of a node or the id of a task; none while nobody can answer."""
    done = _swarmpy(lab, node, *words, "--format", "json")
    rows = [json.loads(line) for line in done.stdout.splitlines()] if not done.returncode else []
    return {row.get("Hostname") or row["ID"]: row for row in rows}


def _leader(lab: Lab, asked: str) -> str:
    rows = _rows(lab, asked, "node", "ls")
    return next(name for name, row in rows.items() if row["ManagerStatus"] == "Leader")


def _where(lab: Lab, asked: str) -> list[str]:
    """The nodes of the replicas that run and shall run."""
    rows = _rows(lab, asked, "service", "ps", "web", "--filter", "desired-state=running").values()
    return [row["Node"] for row in rows if row["CurrentState"].startswith("Running")]


def _runs(lab: Lab, count: int) -> bool:
    return len(_where(lab, "m1")) == count


def _images(lab: Lab, asked: str) -> list[str]:
    """The images of the replicas that run and shall run."""
    rows = _rows(lab, asked, "service", "ps", "web", "--filter", "desired-state=running").values()
    return [row["Image"].partition("@")[0] for row in rows if row["CurrentState"].startswith("Running")]


def _get(lab: Lab, address: str) -> str:
    """What the port of a node answers the client outside; "" where it does not."""
    line = [sys.executable, "-m", "swarmpy", "lab", "exec", "--name", lab.name, CLIENT, "--"]
    line += [sys.executable, "-c", _ASK, f"http://{address}:{PORT}/"]
    return subprocess.run(line, check=False, capture_output=True, text=True, timeout=30).stdout.strip()


def _healthy(lab: Lab, asked: str, *, without: str) -> set[str]:
    """The nodes of the replicas once all run; until then, as if one still were on the dead node."""
    where = _where(lab, asked)
    return set(where) if len(where) == REPLICAS else {without}


def _writes(lab: Lab, asked: str) -> bool:
    return _swarmpy(lab, asked, "service", "update", "-d", "--label-add", "led=again", "web").returncode == 0


def _all_ready(lab: Lab, asked: str) -> bool:
    return all(row["Status"] == "Ready" for row in _rows(lab, asked, "node", "ls").values())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
