"""Our replicated log beside etcd's, on the same machine and in turn: commits a second, and how long one takes.

    python -m tests.bench.raft [--rounds 3] [--seconds 5] [--folder /var/tmp]

Needs Debian's etcd-server. Three members each, on loopback, their own settings, files on one real disk (`--folder`
must not be in memory), every write on the disk of a majority before it is answered, mutual TLS between the members.
One client process with one connection to the leader keeps 1, 64 or 512 writes of 256 B or 4 KB to 1,000 keys
outstanding: etcd's by gRPC, ours by a door beside `Log.propose` that takes the same and does no more than that.
Both clusters run all the time; the loads alternate, and who begins changes with each round.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.bench import etcd
from tests.bench.notes import Notes, table
from tests.bench.puts import Load, drive
from tests.bench.raft_members import Ours

CELLS = [(size, outstanding) for size in (256, 4096) for outstanding in (1, 64, 512)]


def disk_of(folder: Path) -> tuple[float, float]:
    """Seconds (p50, p99) that the disk takes for an append of 4 KB and its fdatasync, alone."""
    took = []
    with (folder / "probe").open("wb", buffering=0) as file:
        for _ in range(200):
            start = time.perf_counter()
            file.write(b"x" * 4096)
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - start)
    took.sort()
    return took[100], took[198]


def measure(folder: Path, rounds: int, seconds: float) -> tuple[Notes, Notes]:
    """What was measured by cell, and what one write costs the clients."""
    notes, costs = Notes(), Notes()
    with Ours(folder / "ours") as ours, etcd.Etcd(folder / "etcd") as theirs:
        for number in range(rounds):
            p50, p99 = disk_of(folder)
            print(f"round {number + 1}; the disk alone: {p50 * 1000:.2f} ms, p99 {p99 * 1000:.2f} ms")
            for size, outstanding in CELLS:
                what = f"{'256 B' if size == 256 else '4 KB'}, {outstanding} outstanding"
                for contender in (ours, theirs) if number % 2 else (theirs, ours):
                    load: Load = asyncio.run(
                        drive(contender.client, contender.leader(), size, outstanding, seconds)
                    )
                    notes.add(what, f"{contender.name}, commits/s", load.rate)
                    notes.add(what, f"{contender.name}, p50 (ms)", load.p50 * 1000)
                    notes.add(what, f"{contender.name}, p99 (ms)", load.p99 * 1000)
                    costs.add(what, contender.name, load.client)
    return notes, costs


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load (%(default)s)")
    parser.add_argument("--folder", default="/var/tmp", help="on the disk to measure with (%(default)s)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that nothing is left behind then, either
    etcd.require()
    folder = Path(tempfile.mkdtemp(prefix="swarmpy-raft-", dir=options.folder))
    try:
        notes, costs = measure(folder, options.rounds, options.seconds)
    finally:
        shutil.rmtree(folder)
    others = [f"{who}, {what} (ms)" for what in ("p50", "p99") for who in ("etcd", "swarmpy")]
    print("\n".join(table(notes.figures, "etcd, commits/s", "swarmpy, commits/s", others)))
    print("\nWhat a write costs the client (µs of processor time):")
    print("\n".join(table(costs.figures, "etcd", "swarmpy")))


if __name__ == "__main__":
    main()
