"""A large state and the log: how long snapshots, restarts and installations take, and what stands still meanwhile.

    python -m tests.bench.raft_state [--tasks 100000] [--nodes 5000] [--rounds 1] [--folder /var/tmp]

Three managers' logs (raft_members.py) with the manager's own store, filled by the planners with that many tasks.
"Stall" is the longest time for which the member's event loop did not turn, "its own" how long its process had a
processor then, "longest write" that of the small ones that are made every 50 ms meanwhile. Measured are: a snapshot
that is taken and stored; a member that restarts, once with nothing but a log to read, and once from a snapshot; a
member that missed everything and is sent the log, and one that is sent the snapshot.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import struct
import sys
import tempfile
from pathlib import Path

from swarmpy.manager.writer import ENTRY, fitting
from swarmpy.model import codec
from swarmpy.plan import manager
from swarmpy.state.changes import Batch, Change, Put
from swarmpy.state.snapshot import Snapshot, apply
from tests.bench.notes import Notes, table
from tests.bench.raft_members import NAMES, Ours
from tests.bench.scheduler import START, world_of

GROUP = 1000
Row = tuple[str, float]


def write_world(path: Path, nodes: int, tasks: int) -> None:
    """The batches by which the world comes about, as a leader writes them."""
    base = world_of(nodes, tasks // GROUP, GROUP, plain=False)
    objects = [base.cluster, *base.nodes, *base.services]
    world, planner = Snapshot(), manager.Planner()
    with path.open("wb") as file:

        def commit(changes: list[Change]) -> None:
            nonlocal world
            batch = Batch(based_on=world.version, at=START, changes=tuple(changes))
            data = codec.encode(batch)
            file.write(struct.pack(">I", len(data)) + data)
            world, accepted = apply(world, batch, world.version + 1)
            assert accepted

        changes: list[Change] = [Put(item) for item in objects if item is not None]
        while changes:
            some = fitting(changes, ENTRY, least=1)
            commit(some)
            del changes[: len(some)]
        while decided := planner.plan(START, world).changes:
            commit(fitting(decided, ENTRY, least=1))


def snapshot(ours: Ours, leader: str) -> list[Row]:
    """The leader takes one, by itself, while it commits."""
    ours.ask(leader, "begin_writing")
    found = ours.ask(leader, "snapshot")
    took = ours.ask(leader, "end_writing")
    what = "a snapshot is taken and stored"
    return [(what, found["seconds"]), *stalls(what, found), (f"{what}: longest write", max(took))]


def begins(ours: Ours, what: str, leader: str, name: str) -> list[Row]:
    """A member starts and has everything, while the leader commits."""
    ours.ask(leader, "stall")
    ours.ask(leader, "begin_writing")
    ours.start(name)
    index = ours.ask(leader, "status")["commit"]
    found = ours.ask(name, "caught_up", index=index)
    took = ours.ask(leader, "end_writing")
    print(f"  {name} has {found['tasks']:,.0f} tasks, its snapshot is that of entry {found['snapshot']}")
    return [(what, found["seconds"]), *stalls(what, found), (f"{what}: longest write", max(took)),
            *stalls(f"{what}: leader", ours.ask(leader, "stall"))]  # fmt: skip


def stalls(what: str, found: dict[str, float]) -> list[Row]:
    return [(f"{what}: stall", found["stall"]), (f"{what}: stall, its own", found["busy"])]


def measure(folder: Path, nodes: int, tasks: int) -> list[Row]:
    """All the cases, one after the other."""
    write_world(folder / "world", nodes, tasks)
    with Ours(folder / "ours", "tests.bench.raft_world") as ours:
        leader = ours.leading()
        away, other = (name for name in NAMES if name != leader)
        ours.end(away)
        filled = ours.ask(leader, "fill", path=str(folder / "world"))
        print(
            f"  {filled['tasks']:,} tasks in {filled['bytes'] / 1e6:.0f} MB of log, in {filled['seconds']:.1f} s"
        )
        rows = stalls("it is filled", ours.ask(leader, "stall"))
        rows += begins(ours, "a member that missed it all gets the log", leader, away)
        ours.end(other)
        rows += begins(ours, "a member restarts from its log", leader, other)
        ours.end(away)
        rows += snapshot(ours, leader)
        rows += snapshot(ours, leader)  # by now the log begins after what the absent member has
        rows += begins(ours, "a member that is far behind gets the snapshot", leader, away)
        ours.end(other)
        rows += begins(ours, "a member restarts from a snapshot", leader, other)
        return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--nodes", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--folder", default="/var/tmp", help="on the disk to measure with (%(default)s)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that nothing is left behind then, either
    notes = Notes()
    for _ in range(options.rounds):
        folder = Path(tempfile.mkdtemp(prefix="swarmpy-state-", dir=options.folder))
        try:
            for what, seconds in measure(folder, options.nodes, options.tasks):
                notes.add(what, "swarmpy", seconds)
        finally:
            shutil.rmtree(folder)
    print("\n".join(table(notes.figures, "", "swarmpy")))


if __name__ == "__main__":
    main()
