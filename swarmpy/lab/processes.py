"""Processes of a lab as seen from this machine: who they are, whether they live, ending and entering them.

What belongs here: process identities that survive the reuse of a number, and running things inside a node.
What does not: what a node consists of (nodes.py).
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from swarmpy.lab.errors import LabError

NAMESPACES = ("-m", "-u", "-i", "-n", "-p", "-C")
MOST_PATIENCE = 100


@dataclass(frozen=True, slots=True)
class Process:
    """A process by its number here and the clock tick it was born at, which no successor shares."""

    pid: int
    born: int

    def alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        return _stat(self.pid) == (self.born, True)

    def end(self) -> None:
        """kill -9, and wait until it is gone. Gone already is fine."""
        if self.alive():
            os.kill(self.pid, signal.SIGKILL)
        until(lambda: not self.alive(), 10, f"process {self.pid} does not go after kill -9")


def _stat(pid: int) -> tuple[int, bool] | None:
    """(birth tick, runs) of a process; None when there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(fields[19]), fields[0] not in "ZX"


def identify(pid: int) -> Process:
    """The process that has this number now. Raises LabError when there is none."""
    seen = _stat(pid)
    if seen is None:
        raise LabError(f"process {pid} ended at once")
    return Process(pid, seen[0])


def remember(path: Path, process: Process) -> None:
    """Write a process's identity down, atomically."""
    aside = path.with_suffix(".new")
    aside.write_text(json.dumps([process.pid, process.born]))
    aside.rename(path)


def recall(path: Path) -> Process | None:
    """The living process written down at `path`; None when it is gone or nothing was written."""
    try:
        process = Process(*json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    return process if process.alive() else None


def find(words: Sequence[str]) -> list[Process]:
    """All processes of this machine whose command line ends with `words`."""
    tail = [word.encode() for word in words]
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        seen = _stat(int(entry.name))
        if command[-len(tail) :] == tail and seen is not None and seen[1]:
            found.append(Process(int(entry.name), seen[0]))
    return found


def _number_here(inside: int, init: Process) -> int:
    """This machine's number of the process that has number `inside` in the node of `init`."""
    space = os.readlink(f"/proc/{init.pid}/ns/pid")
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if os.readlink(entry / "ns/pid") != space:
                continue
            for line in (entry / "status").read_text().splitlines():
                if line.startswith("NSpid:") and line.split()[-1] == str(inside):
                    return int(entry.name)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    raise LabError("it ended at once")


def entering(init: Process, command: Iterable[str], procs: Iterable[Path] = ()) -> list[str]:
    """The command line that runs `command` inside the node of `init` (and in its cgroups, where given)."""
    enter = ["nsenter", "-t", str(init.pid), *NAMESPACES, "--wd=/", "--", *command]
    moves = [f"echo 0 > {shlex.quote(str(path))}" for path in procs]
    if not moves:
        return enter
    return ["sh", "-c", "; ".join([*moves, 'exec "$@"']), "sh", *enter]


def spawn(
    init: Process,
    command: Sequence[str],
    *,
    log: Path,
    procs: Iterable[Path] = (),
    env: Mapping[str, str],
) -> Process:
    """Start a program in the background of a node; its output is appended to `log`.

    Its parent becomes the node's first process, so nothing outside the node holds or reaps it. Raises
    LabError when it cannot be started or ends at once.
    """
    background = 'setsid "$@" </dev/null >>"$LAB_LOG" 2>&1 & echo $!'
    line = entering(init, ["sh", "-c", background, "sh", *command], procs)
    done = subprocess.run(
        line,
        check=False,
        capture_output=True,
        text=True,
        env={**env, "LAB_LOG": str(log)},
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        raise LabError(f"cannot start {command[0]}: {done.stderr.strip()}")
    try:
        return identify(_number_here(int(done.stdout), init))
    except LabError as error:
        raise LabError(f"{command[0]}: {error}; its last words: {last_words(log)}") from None


def run(command: Sequence[str], *, text: str = "", env: Mapping[str, str] | None = None) -> str:
    """Run a program of this machine with `text` as its input; its output. Raises LabError with its words."""
    done = subprocess.run(command, check=False, capture_output=True, text=True, input=text, env=env)
    if done.returncode:
        words = (done.stderr or done.stdout).strip()
        raise LabError(f"`{shlex.join(command)}` failed: {words}")
    return done.stdout


def last_words(log: Path, lines: int = 5) -> str:
    """The end of a log, for an error message."""
    try:
        return " | ".join(log.read_text(errors="replace").splitlines()[-lines:]) or "(none)"
    except FileNotFoundError:
        return "(none)"


def patience() -> float:
    """How many times longer than elsewhere everything may take: $SWARMPY_LAB_PATIENCE, for machines that are
    emulated; 1 where it is not set. Raises LabError for what is no number from 1 to MOST_PATIENCE."""
    given = os.environ.get("SWARMPY_LAB_PATIENCE", "1")
    try:
        found = float(given)
    except ValueError:
        found = 0.0
    if not 1 <= found <= MOST_PATIENCE:
        raise LabError(f"SWARMPY_LAB_PATIENCE is a number from 1 to {MOST_PATIENCE}, not {given!r}")
    return found


def until(condition: Callable[[], bool], seconds: float, otherwise: str) -> None:
    """Wait for a condition, looking 50 times a second (see `pause`). Raises LabError(otherwise) after
    `seconds`, times `patience`."""
    seconds *= patience()
    deadline = time.monotonic() + seconds
    while True:
        began = time.monotonic()
        if condition():
            return
        if time.monotonic() > deadline:
            raise LabError(f"{otherwise} (waited {seconds:g} s)")
        time.sleep(pause(0.02, began))


def pause(usual: float, began: float) -> float:
    """Seconds until the next look, after one that began then: where everything is slow, looking must leave
    the processors to what is waited for."""
    return usual if patience() == 1 else max(usual, time.monotonic() - began)
