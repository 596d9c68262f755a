"""Requests from outside the cluster while something happens to it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from swarmpy.lab.layout import CLIENT
from swarmpy.lab.processes import patience
from tests.e2e.cluster import Cluster, until

ASK = "import sys, urllib.request as r; a = sys.argv; print(r.urlopen(a[1], timeout=float(a[2])).read().decode())"


class Traffic:
    """The load generator on the client node. `result` is there after the block."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.result: dict[str, Any] = {}

    def end(self) -> None:
        out, err = self._process.communicate(timeout=60 * patience())  # the end of its input ends it
        assert out, err
        self.result = json.loads(out.splitlines()[-1])

    def none_failed(self, *, least: int) -> None:
        """That enough was asked to mean something, and that all was answered."""
        assert self.result["sent"] >= least, self.result
        assert self.result["failed"] == 0, self.result


@contextmanager
def traffic(cluster: Cluster, *targets: str, rate: float = 40, keep: bool = False) -> Iterator[Traffic]:
    """Requests in turn to the targets (HOST:PORT) for the length of the block; `keep`: over kept connections.
    On an emulated machine (`patience`) fewer, which may take longer."""
    rate, seconds = rate / patience(), 5 * patience()
    command = [sys.executable, "-m", "swarmpy", "lab", "exec", "--name", cluster.lab.name, CLIENT, "--"]
    command += [
        sys.executable,
        "-m",
        "swarmpy.lab.load",
        "--until-eof",
        "--rate",
        str(rate),
        "--timeout",
        str(seconds),
        *targets,
    ]
    command += ["--keep-alive"] if keep else []
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "sending\n"
    made = Traffic(process)
    try:
        yield made
    except BaseException:
        process.communicate(timeout=60)
        raise
    made.end()


def get(cluster: Cluster, node: str, target: str, seconds: float = 5) -> str:
    """One request from a node; "" where it failed."""
    words = [sys.executable, "-m", "swarmpy", "lab", "exec", "--name", cluster.lab.name, node, "--"]
    words += [sys.executable, "-c", ASK, f"http://{target}/", str(seconds * patience())]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout


def answered(cluster: Cluster, node: str, target: str, seconds: float = 20) -> str:
    """The first answer of a port that was published just now."""
    found: list[str] = []

    def asks() -> bool:
        found.append(get(cluster, node, target))
        return bool(found[-1])

    until(asks, seconds, f"{target} answers {node}")
    return found[-1]
