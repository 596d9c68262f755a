"""Waiting until a service has converged, and showing how far it is.

Polls every 200 ms, as Docker's client does, and never times out: Ctrl-C leaves the service to the cluster.
On a terminal the lines are rewritten in place; elsewhere every change is a line of its own.
What does not belong here: starting the change.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from swarmpy.cli.client import Client, segment
from swarmpy.cli.human import short_id
from swarmpy.cli.tables import CommandError

INTERVAL = 0.2
DEFAULT_MONITOR = 5_000_000_000
MOST_BARS = 20
ERROR_WIDTH = 75
BAR = 50
STEPS = {
    state: number
    for number, state in enumerate(
        (
            "new",
            "allocated",
            "pending",
            "assigned",
            "accepted",
            "preparing",
            "ready",
            "starting",
            "running",
            "complete",
            "shutdown",
            "failed",
            "rejected",
        ),
        start=1,
    )
}
RUNNING = STEPS["running"]
PADDED = 9
Task = dict[str, Any]


class Screen:
    """The lines of the display, by key. `dumb` is output that is not a terminal."""

    def __init__(self, stream: TextIO, *, dumb: bool) -> None:
        self._stream = stream
        self._dumb = dumb
        self._rows: dict[str, int] = {}
        self._said: dict[str, str] = {}

    def line(self, key: str, text: str, bar: str = "") -> None:
        """Show this text for the key, if it is not what is shown already."""
        shown = f"{key}: {text}"
        whole = shown + bar
        if self._said.get(key) == whole or (self._dumb and bar):
            return  # a bar is for a terminal; elsewhere the counts say enough
        self._said[key] = whole
        if self._dumb:
            self._stream.write(shown + "\n")
        elif key in self._rows:
            up = len(self._rows) - self._rows[key]
            self._stream.write(f"\x1b[{up}A\x1b[2K\r{whole}\n")
            if up > 1:
                self._stream.write(f"\x1b[{up - 1}B")
        else:
            self._rows[key] = len(self._rows)
            self._stream.write(f"\x1b[2K\r{whole}\n")
        self._stream.flush()

    def say(self, text: str) -> None:
        """A line of its own, below the others."""
        self._stream.write(text + "\n")
        self._stream.flush()


class _Nothing(Screen):
    """Shows nothing (--quiet)."""

    def __init__(self) -> None:
        super().__init__(sys.stdout, dumb=True)

    def line(self, key: str, text: str, bar: str = "") -> None:
        """Show nothing."""

    def say(self, text: str) -> None:
        """Say nothing."""


def wait(client: Client, reference: str, *, quiet: bool, now: Callable[[], float] = time.monotonic) -> None:
    """Return once the service has converged and stayed so for its monitoring period, or on Ctrl-C.

    Raises CommandError when its update or rollback is paused.
    """
    screen = _Nothing() if quiet else Screen(sys.stdout, dumb=not sys.stdout.isatty())
    watch = Watch(reference, screen, now)
    try:
        while not watch.step(client):
            time.sleep(INTERVAL)
    except KeyboardInterrupt:
        if not watch.converged:
            screen.say("Operation continuing in background.")
            screen.say(f"Use `swarmpy service ps {reference}` to check progress.")


class Watch:
    """What is known about one service's way to convergence."""

    def __init__(self, reference: str, screen: Screen, now: Callable[[], float]) -> None:
        self.reference = reference
        self.converged = False
        self._screen = screen
        self._now = now
        self._since: float | None = None
        self._rolling_back = False
        self._outcome = ""
        self._slots: dict[Any, int] = {}
        self._begun = False
        self._done = False

    def step(self, client: Client) -> bool:
        """Look once; True when there is nothing left to wait for."""
        service = client.get(f"/services/{segment(self.reference)}")
        spec = service["Spec"]
        updated = self._status(service.get("UpdateStatus") or {})
        if updated and not self._begun:  # complete before anything was shown: so does Docker's client
            return True
        held = self.converged
        monitor = ((spec.get("UpdateConfig") or {}).get("Monitor") or DEFAULT_MONITOR) / 1e9
        if self.converged and self._since is not None and self._now() - self._since >= monitor:
            self._screen.line("verify", f"Service {self.reference} converged")
            if self._outcome:
                self._screen.line("rollback", self._outcome)
            return True
        chosen = json.dumps({"service": {service["ID"]: True}, "_up-to-date": {"true": True}})
        tasks = client.get("/tasks", filters=chosen)
        nodes = {
            node["ID"] for node in client.get("/nodes") if (node.get("Status") or {}).get("State") != "down"
        }
        mode = spec.get("Mode") or {}
        if mode.get("ReplicatedJob") is not None or mode.get("GlobalJob") is not None:
            return self._job(service, tasks, nodes)
        self.converged = self._tasks(spec, tasks, nodes)
        self._verify(monitor)
        return updated and not (held or self.converged)

    def _status(self, status: dict[str, Any]) -> bool:
        """Take the update's state into account; True when it is complete, and only proof that what runs is
        stable is waited for."""
        state, message = status.get("State", ""), status.get("Message", "")
        if state == "updating":
            self._rolling_back = False
        elif state == "completed":
            return True
        elif state == "paused":
            raise CommandError(f"service update paused: {message}")
        elif state == "rollback_paused":
            raise CommandError(f"service rollback paused: {message}")
        elif state == "rollback_started":
            if not self._rolling_back and message:
                self._screen.line("rollback", message)
            self._rolling_back = True
        elif state == "rollback_completed":
            if not self.converged:
                self._outcome = message
            self._rolling_back = True
        return False

    def _verify(self, monitor: float) -> None:
        if not self.converged:
            if self._since is not None:
                self._screen.line("verify", "Detected task failure")
            self._since = None
            return
        if self._since is None:
            self._since = self._now()
        left = monitor - (self._now() - self._since)
        if left >= 0:
            self._screen.line(
                "verify", f"Waiting {max(1, math.ceil(left))} seconds to verify that tasks are stable..."
            )

    def _overall(self, running: int, wanted: int) -> None:
        prefix = "rolling back update: " if self._rolling_back else ""
        self._screen.line("overall progress", f"{prefix}{running} out of {wanted} tasks")

    def _tasks(self, spec: dict[str, Any], tasks: list[Task], nodes: set[str]) -> bool:
        """Show every task; True when all that are wanted run."""
        everywhere = (spec.get("Mode") or {}).get("Global") is not None
        chosen = _newest(tasks, "NodeID" if everywhere else "Slot", None if everywhere else nodes)
        replicas = ((spec.get("Mode") or {}).get("Replicated") or {}).get("Replicas")
        wanted = len(chosen) if everywhere else (1 if replicas is None else int(replicas))
        if not self._begin(everywhere, wanted):
            return False
        if self._done:
            self._done = all(task["Status"]["State"] == "running" for task in chosen.values())
        running = 0
        for key, task in chosen.items():
            if everywhere and task.get("NodeID") not in nodes:
                continue
            running += _runs(task)
            self._bar(short_id(str(key)) if everywhere else self._slot(key, wanted), task, wanted)
        if not self._done:
            self._overall(running, wanted)
            self._done = running == wanted
        return running == wanted

    def _begin(self, everywhere: bool, wanted: int) -> bool:
        """Draw the first lines, in order; False while there is nothing to draw."""
        if self._begun:
            return True
        if everywhere and not wanted:
            # Either the tasks are not made yet or no node fits: both may change.
            self._screen.line("overall progress", "waiting for new tasks")
            return False
        self._begun = True
        self._overall(0, wanted)
        if not everywhere and wanted <= MOST_BARS:
            for number in range(1, wanted + 1):
                self._screen.line(f"{number}/{wanted}", " ")
        return True

    def _slot(self, slot: Any, wanted: int) -> str:
        number = self._slots.setdefault(slot, len(self._slots) + 1)
        return f"{number}/{wanted}" if number <= wanted else ""

    def _bar(self, key: str, task: Task, wanted: int) -> None:
        status = task["Status"]
        if self._done or wanted > MOST_BARS or not key:
            return
        if status.get("Err"):
            self._screen.line(key, shortened(status["Err"]))
        elif (
            STEPS.get(task.get("DesiredState", ""), 99) <= RUNNING
            and STEPS.get(status["State"], 99) <= RUNNING
        ):
            self._screen.line(key, status["State"].ljust(PADDED), " " + bar(STEPS[status["State"]], RUNNING))

    def _job(self, service: dict[str, Any], tasks: list[Task], nodes: set[str]) -> bool:
        """Show a job; True when it is complete."""
        job = (service["Spec"]["Mode"].get("ReplicatedJob")) or {}
        iteration = ((service.get("JobStatus") or {}).get("JobIteration") or {}).get("Index", 0)
        mine = [task for task in tasks if (task.get("JobIteration") or {}).get("Index", 0) == iteration]
        complete = sum(task["Status"]["State"] == "complete" for task in mine)
        active = sum(
            STEPS.get(task["Status"]["State"], 99) <= RUNNING and task.get("NodeID", "") in nodes
            for task in mine
        )
        total = (
            job.get("TotalCompletions", 1) if job or "ReplicatedJob" in service["Spec"]["Mode"] else len(mine)
        )
        self._screen.line("job progress", f"{complete} out of {total} complete")
        self._screen.line(
            "active tasks", f"{active} out of {min(job.get('MaxConcurrent') or total, total)} tasks"
        )
        if mine and complete >= total:
            self._screen.say("job complete")
            return True
        return False


def _runs(task: Task) -> bool:
    return STEPS.get(task.get("DesiredState", ""), 99) <= RUNNING and task["Status"]["State"] == "running"


def _newest(tasks: list[Task], key: str, nodes: set[str] | None) -> dict[Any, Task]:
    """One task per slot or node: the one with the lowest desired state, then the lowest observed one (both
    can exist at once while one replaces the other). With `nodes`, tasks on other nodes do not count."""
    chosen: dict[Any, Task] = {}
    for task in sorted(tasks, key=lambda one: one.get(key) or 0 if key == "Slot" else str(one.get(key, ""))):
        desired, state = STEPS.get(task.get("DesiredState", "")), STEPS.get(task["Status"]["State"])
        if desired is None or state is None:
            continue
        place = task.get(key)
        other = chosen.get(place)
        if other is not None:
            rank = (STEPS[other["DesiredState"]], STEPS[other["Status"]["State"]])
            if rank <= (desired, state):
                continue
        if nodes is not None and task.get("NodeID") and task["NodeID"] not in nodes:
            continue
        chosen[place] = task
    return chosen


def shortened(error: str) -> str:
    """An error on one line of at most 75 characters."""
    text = error.replace("\n", " ")
    return text if len(text) <= ERROR_WIDTH else text[: ERROR_WIDTH - 1] + "…"


def bar(step: int, of: int) -> str:
    """A bar of fifty places."""
    full = BAR * step // of
    head = ">" if full < BAR else ""
    return f"[{'=' * full}{head}{' ' * (BAR - full - len(head))}]"
