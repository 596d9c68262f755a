"""What a call costs on a real cluster, and where its time goes.

    python -m tests.bench.calls [--rounds N] [--calls N] [--only CASE] [--profile] [--docker]      needs root

Makes a lab of 3 managers and 2 workers and asks its leader: half and 99 of 100 calls in milliseconds, and beside them
what the processors did meanwhile for each call (the leader's daemon, the other managers', the workers'), from the
kernel's own account. Floors stand beside them: a call that our server answers without asking anybody, and a write and
fdatasync of 4 KiB on the disk of the journals. With `--docker` a Docker Swarm in a lab of its own is asked the same, in
turn with ours every few calls, so that what else the machine does happens to both. With `--profile` the daemons run
under a profiler, and the functions that a call spent most in are printed; its times are inflated, its order is what
matters. Figures only: nothing is asserted.
"""

from __future__ import annotations

import argparse
import os
import pstats
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import quote

from swarmpy.lab import lab as labs
from swarmpy.lab import nodes, unixhttp
from swarmpy.lab.layout import Lab, Node
from swarmpy.lab.processes import until
from tests.bench.contenders import ENOUGH, Contender, DockerSwarm, Swarmpy, without_live_restore
from tests.bench.notes import Notes, table
from tests.bench.profiled import DUMPED, PROFILE

SHOWN = 45
"""Functions of a profile that are printed."""


class Bench:
    """One kind of cluster that is asked."""

    def __init__(self, one: Contender, notes: Notes, calls: int, profiles: Path | None) -> None:
        self.one, self.notes, self.calls, self.profiles = one, notes, calls, profiles
        self.taken: dict[str, list[float]] = {}
        """Milliseconds of each call, by what was called."""
        self.spent: dict[str, float] = {}
        """Seconds of processor, by what was called and whose."""
        self.leader = one.leader()
        self.follower = next(n for n in one.lab.members if n.role == "manager" and n != self.leader)

    # ------------------------------------------------------------ cases

    def floor(self) -> None:
        """Our server alone: an address that it does not know."""
        path = self.one.socket(self.leader)
        self.measure("unknown page", lambda _: unixhttp.request(path, "GET", "/swarm/nothing"))

    def disk(self) -> None:
        """What a write has to wait for at least."""
        path = self.one.lab.home(self.leader) / "swarmpy" / "bench"
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

        def write(_: int) -> None:
            os.write(file, b"\xff" * 4096)
            os.fdatasync(file)

        try:
            self.measure("4 KiB and fdatasync", write)
        finally:
            os.close(file)
            path.unlink()

    def reads(self) -> None:
        """Of the leader, and of another manager."""
        self.one.create("asked", 0)
        for where, node in (("leader", self.leader), ("another", self.follower)):
            self.measure(
                f"service inspect, {where}", lambda _, n=node: self.one.ask(n, "GET", "/services/asked")
            )
            self.measure(f"node ls, {where}", lambda _, n=node: self.one.ask(n, "GET", "/nodes"))
        self.one.remove("asked")

    def writes(self) -> None:
        """Services without tasks: made, and removed again."""
        made: list[str] = []
        for where, node in (("leader", self.leader), ("another", self.follower)):
            self.measure(
                f"create, 0 replicas, {where}",
                lambda number, n=node, w=where: made.append(
                    self.one.create(f"none-{w}-{number}", 0, asked=n)
                ),
            )
        self.measure(
            "rm, leader", lambda number: self.one.ask(self.leader, "DELETE", f"/services/{made[number]}")
        )
        for service in made[self.calls :]:
            self.one.ask(self.leader, "DELETE", f"/services/{service}")

    def joins(self) -> None:
        """A worker leaves and joins anew: until its call is answered, and until it is ready."""
        worker = self.one.lab.members[-1]
        known = {each["ID"] for each in self._nodes()}
        self.one.ask(worker, "POST", "/swarm/leave?force=1")
        token = self.one.token(worker.role)
        with self._profiled("join"):
            began = time.perf_counter()
            self.one.join(worker, token)
            answered = time.perf_counter() - began
            until(lambda: self._newcomer(known) == "ready", ENOUGH, "the worker is ready")
            ready = time.perf_counter() - began
        self.notes.add("join, worker: its call is answered (ms)", self.one.name, 1000 * answered)
        self.notes.add("join, worker: it is ready (ms)", self.one.name, 1000 * ready)
        until(
            lambda: any(each["Status"]["State"] == "down" for each in self._nodes()),
            ENOUGH,
            "the old one is down",
        )
        for each in self._nodes():
            if each["Status"]["State"] == "down":
                self.one.ask(self.leader, "DELETE", f"/nodes/{quote(each['ID'])}?force=1")

    def _nodes(self) -> list[dict]:
        found: list[dict] = self.one.ask(self.leader, "GET", "/nodes")
        return found

    def _newcomer(self, known: set[str]) -> str:
        return next((str(each["Status"]["State"]) for each in self._nodes() if each["ID"] not in known), "")

    # ------------------------------------------------------------ measuring

    def measure(self, what: str, call: Callable[[int], object]) -> None:
        """So many calls, one after the other, each on a connection of its own."""
        taken = self.taken.setdefault(what, [])
        with self._profiled(what):
            before = self._spent()
            for number in range(self.calls):
                began = time.perf_counter()
                call(number)
                taken.append(1000 * (time.perf_counter() - began))
            for who, seconds in self._spent().items():
                key = f"{what}: processor, {who} (ms)"
                self.spent[key] = self.spent.get(key, 0.0) + seconds - before[who]

    def sum_up(self) -> None:
        """Note what was measured in all rounds."""
        for what, taken in self.taken.items():
            taken.sort()
            self.notes.add(f"{what}: half (ms)", self.one.name, statistics.median(taken))
            self.notes.add(f"{what}: 99 of 100 (ms)", self.one.name, taken[int(len(taken) * 0.99)])
            for key in (key for key in self.spent if key.startswith(f"{what}: ")):
                self.notes.add(key, self.one.name, 1000 * self.spent[key] / len(taken))

    def _spent(self) -> dict[str, float]:
        """Seconds of processor that the daemons took so far."""
        sums = dict.fromkeys(("leader", "other managers", "workers"), 0.0)
        for node in self.one.lab.members:
            who = (
                "leader" if node == self.leader else "workers" if node.role == "worker" else "other managers"
            )
            sums[who] += processor(self.one.lab, node, self.one.program)
        return sums

    @contextmanager
    def _profiled(self, what: str) -> Iterator[None]:
        if self.profiles is None:
            yield
            return
        watched = [self.leader, self.follower, self.one.lab.members[-1]]
        for node in watched:
            nodes.signal_program(self.one.lab, node, self.one.program, signal.SIGUSR1)
        time.sleep(0.2)  # the daemons take the signal in their own time, and say so to nobody
        try:
            yield
        finally:
            for node in watched:
                self._print_profile(what, node)

    def _print_profile(self, what: str, node: Node) -> None:
        assert self.profiles is not None
        done = self.profiles / DUMPED.format(node.name)
        done.unlink(missing_ok=True)
        nodes.signal_program(self.one.lab, node, self.one.program, signal.SIGUSR2)
        until(done.exists, 10, "the profile is written")
        print(f"\n==== {what}: {node.name} ({'leader' if node == self.leader else node.role})", flush=True)
        pstats.Stats(str(self.profiles / PROFILE.format(node.name))).sort_stats("tottime").print_stats(SHOWN)


def processor(lab: Lab, node: Node, program: str) -> float:
    """Seconds of processor that the program of the node took so far, threads that ended included."""
    process = nodes.program(lab, node, program)
    assert process is not None
    return time.clock_gettime((~process.pid << 3) | 2)  # what clock_getcpuclockid(3) returns


CASES: dict[str, Callable[[Bench], None]] = {
    "floor": Bench.floor,
    "disk": Bench.disk,
    "reads": Bench.reads,
    "writes": Bench.writes,
    "joins": Bench.joins,
}


def under_profiler(one: Swarmpy, folder: Path) -> None:
    """Start all daemons anew, one after the other, under the profiler."""
    for node in one.lab.members:
        one.crash(node)
        labs.start(one.lab, node, "daemon", under=[sys.executable, "-m", "tests.bench.profiled", str(folder)])
        until(
            lambda: list(one.states().values()) == ["ready"] * len(one.lab.members), ENOUGH, "all are ready"
        )


def main() -> None:
    """See the file's charter."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.calls", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--calls", type=int, default=30, help="in each round (%(default)s)")
    parser.add_argument("--only", action="append", choices=sorted(CASES), default=[])
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--docker", action="store_true")
    parser.add_argument("--name", default=f"calls-{os.getpid()}", help="of the lab (%(default)s)")
    options = parser.parse_args()
    kinds: list[type[Contender]] = [Swarmpy, DockerSwarm] if options.docker else [Swarmpy]
    notes = Notes()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) if options.profile else None
        benches = []
        for number, kind in enumerate(kinds):
            name = f"{options.name}-{number}"
            lab = labs.up(name, print, managers=3, workers=2, with_cluster=False)
            stack.callback(labs.down, name, print)
            if kind is DockerSwarm:
                without_live_restore(lab)
            one = kind(lab)
            one.form()
            if folder is not None and isinstance(one, Swarmpy):
                under_profiler(one, folder)
            benches.append(Bench(one, notes, options.calls, folder if kind is Swarmpy else None))
        for _ in range(options.rounds):
            for case in options.only or CASES:
                for bench in benches:
                    CASES[case](bench)
        for bench in benches:
            bench.sum_up()
    print("\n".join(table(notes.figures, DockerSwarm.name, Swarmpy.name)))


if __name__ == "__main__":
    main()
