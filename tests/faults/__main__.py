"""A cluster's bad days: faults in a lab of 3 managers and 2 workers, with clients outside of it that keep account.

python -m tests.faults --seed 1 --budget 1800                every fault, in turn, until the time is spent (seconds)
python -m tests.faults --only daemon --budget 600            the cases or families whose name holds "daemon"
python -m tests.faults --list                                which cases there are
python -m tests.faults --results FILE --write                keep outcomes in FILE, and put the table of all that it
                                                             holds into docs/reference/reliability.md

Needs root and a Docker Engine, as every lab. Ends with status 0 only if every case came out well, and with 2 where a
case could not be played at all.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType

import tests.faults.disks  # noqa: F401 - its cases register themselves
from swarmpy.lab import lab as labs
from tests.e2e.cluster import Cluster
from tests.faults import report
from tests.faults.campaign import Outcome, campaign, deck, lacks, named
from tests.faults.cases import CASES
from tests.faults.field import Field
from tests.faults.recorder import Recorder


def main() -> int:
    """Run the campaign."""
    asked = _asked()
    if asked.list:
        for case in CASES.values():
            print(f"{case.name:28} {case.family}{'; keeps all containers' if case.keeps else ''}")
        return 0
    chosen = deck(random.Random(0), asked.only)
    if not chosen:
        print(f"no case's name or family holds {asked.only!r}; --list names them", file=sys.stderr)
        return 2
    missing = {case.name: lack for case in chosen if (lack := lacks(case))}
    if missing:
        for name, lack in missing.items():
            print(f"NOTHING WAS SHOWN: {name}: {lack}", file=sys.stderr)
        return 2
    outcomes = _run(asked)
    kept = report.load(asked.results) if asked.results else outcomes
    text = report.table(kept)
    print(text)
    if asked.write:
        report.write(text)
    for line in named(outcomes):
        print(f"FAILED: {line}")
    return 1 if named(outcomes) else 0


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=1, help="of the order, the victims and the lengths")
    parser.add_argument("--budget", type=float, default=600, help="seconds (default: %(default)s)")
    parser.add_argument(
        "--only",
        nargs="+",
        default=[""],
        metavar="KIND",
        help="cases or families whose name holds one of these",
    )
    parser.add_argument("--list", action="store_true", help="name the cases")
    parser.add_argument(
        "--results", type=Path, help="append outcomes to this file; the table is of all it holds"
    )
    parser.add_argument(
        "--write", action="store_true", help="put the table into docs/reference/reliability.md"
    )
    parser.add_argument(
        "--logs", type=Path, default=Path(tempfile.gettempdir()) / f"swarmpy-faults-{os.getpid()}",
        help="where the daemons' logs of a failed case go (default: %(default)s)",
    )  # fmt: skip
    return parser.parse_args()


def _run(asked: argparse.Namespace) -> list[Outcome]:
    name, began = f"faults-{os.getpid()}", time.monotonic()
    for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell began it in the background, deaf
        signal.signal(number, _interrupt)

    def tell(line: str) -> None:
        print(f"[{time.monotonic() - began:6.1f}s] {line}", flush=True)

    lab = labs.up(name, tell, managers=3, workers=2)
    outcomes: list[Outcome] = []
    try:
        cluster = Cluster(lab)
        chance = random.Random(asked.seed)
        sockets = [
            Path(cluster.socket(one, "SWARMPY_HOST").removeprefix("unix://")) for one in cluster.managers
        ]
        recorder = Recorder(sockets, asked.seed)
        recorder.begin()
        try:
            field = Field(cluster, recorder, chance)
            for outcome in campaign(
                field, chance, budget=asked.budget, only=asked.only, logs=asked.logs, tell=tell
            ):
                outcomes.append(outcome)
                if asked.results:
                    report.keep(asked.results, outcome)
        finally:
            recorder.end()
    finally:
        labs.down(name, tell)
    return outcomes


if __name__ == "__main__":
    sys.exit(main())
