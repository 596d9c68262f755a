"""What the leader's turns cost by the size of a service: the planner, the log entry and the store, in one process.

    python -m tests.bench.large_service [--nodes 5000] [--sizes 1000 10000 100000]

For each size one service is made on so many nodes, brought to rest (all tasks run), and then something happens.
A turn is: plan, the changes that fit one entry encoded, the entry decoded and applied, as the leader does it.
Printed: milliseconds of CPU of the longest turn, and how many turns it took to come to rest again; whatever
agents would report meanwhile is put in between, and not timed. What others on the machine do makes it slower.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

from msgspec.structs import replace

from swarmpy.manager.writer import ENTRY, fitting
from swarmpy.model import codec
from swarmpy.model.lifecycle import NodeState, TaskState
from swarmpy.model.objects import Service
from swarmpy.plan import manager
from swarmpy.state.changes import Batch, Change, Delete, Put
from swarmpy.state.snapshot import apply

from .scheduler import START, service, world_of


class Leader:
    """A planner with its memory, and the world that it leads."""

    def __init__(self, nodes: int, replicas: int) -> None:
        self.world, self.now = world_of(nodes, 0, 0, plain=True), START
        self.planner = manager.Planner()
        self.size = replicas

    def happen(self, *changes: Change) -> None:
        """Something that is not the leader's doing."""
        self.world = self.world.evolve(changes, self.world.version + 1, self.now)

    def turn(self) -> tuple[float, bool]:
        """One turn: its CPU in milliseconds, and whether there is more to do at once."""
        start = time.process_time()
        decided = self.planner.plan(self.now, self.world)
        changes = fitting(decided.changes, ENTRY, least=1)
        if changes:
            entry = codec.encode(Batch(based_on=self.world.version, at=self.now, changes=tuple(changes)))
            self.world, accepted = apply(self.world, codec.decode(Batch, entry), self.world.version + 1)
            assert accepted
        return (time.process_time() - start) * 1000, bool(changes) or decided.wake_at == self.now

    def rest(self, between: Callable[[], None] = lambda: None) -> tuple[float, int]:
        """Turns until there is nothing to do: the longest of them in milliseconds, and how many they were."""
        longest, turns, more = 0.0, 0, True
        while more:
            spent, more = self.turn()
            longest, turns = max(longest, spent), turns + 1
            between()
        return longest, turns

    def agents(self) -> None:
        """All tasks become what is wanted of them."""
        moved = []
        for task in self.world.tasks.rows.values():
            state = TaskState.RUNNING if task.desired == TaskState.RUNNING else TaskState.SHUTDOWN
            if TaskState.ASSIGNED <= task.status.state < state:
                moved.append(
                    Put(replace(task, status=replace(task.status, state=state), state_since=self.now))
                )
        if moved:
            self.happen(*moved)

    @property
    def service(self) -> Service:
        """The service that is large."""
        found = self.world.service_named("s1")
        assert found is not None
        return found

    def change(self, **mode: object) -> None:
        """A user changes fields of the spec."""
        old = self.service
        self.happen(Put(replace(old, spec=json.dumps(json.loads(old.spec) | mode))))

    # ---- what happens

    def created(self) -> tuple[float, int]:
        self.happen(Put(service(1, self.size, plain=True)))
        return self.rest()

    def one_report(self) -> tuple[float, int]:
        task = next(iter(self.world.tasks.rows.values()))
        self.happen(Put(replace(task, status=replace(task.status, container_id="c"))))
        return self.rest()

    def one_failure(self) -> tuple[float, int]:
        task = next(iter(self.world.tasks.rows.values()))
        self.happen(
            Put(replace(task, status=replace(task.status, state=TaskState.FAILED), state_since=self.now))
        )
        return self.rest()

    def node_down(self) -> tuple[float, int]:
        node = next(iter(self.world.nodes))
        self.happen(Put(replace(node, status=replace(node.status, state=NodeState.DOWN, since=self.now))))
        return self.rest()

    def relabelled(self) -> tuple[float, int]:
        self.change(Labels={"a": "b"})
        return self.rest()

    def updated(self) -> tuple[float, int]:
        """The first turns of a rolling update; the rest goes at the pace of containers."""
        old = self.service
        raw = json.loads(old.spec)
        raw["TaskTemplate"]["ContainerSpec"]["Image"] = "app:2"
        self.happen(Put(replace(old, spec=json.dumps(raw), spec_version=self.world.version + 1)))
        longest, turns = 0.0, 0
        for _ in range(10):
            spent, one = self.rest()
            longest, turns = max(longest, spent), turns + one
            self.agents()
        return longest, turns

    def new_leader(self) -> tuple[float, int]:
        self.planner = manager.Planner()
        longest, portions = 0.0, self.planner.prepare(self.world)
        start = time.process_time()
        for _ in portions:
            longest, start = max(longest, (time.process_time() - start) * 1000), time.process_time()
        first, turns = self.rest()
        return max(longest, first), turns

    def halved(self) -> tuple[float, int]:
        self.change(Mode={"Replicated": {"Replicas": self.size // 2}})
        return self.rest(self.agents)

    def regrown(self) -> tuple[float, int]:
        self.change(Mode={"Replicated": {"Replicas": self.size}})
        return self.rest()

    def grown_beyond(self) -> tuple[float, int]:
        """Half as many again are wanted, and none of them fits anywhere."""
        raw = json.loads(self.service.spec)
        template = raw["TaskTemplate"] | {"Resources": {"Reservations": {"MemoryBytes": 1 << 50}}}
        self.happen(Put(replace(service(2, self.size // 2, plain=True), spec=json.dumps(
            raw | {"Name": "s2", "TaskTemplate": template, "Mode": {"Replicated": {"Replicas": self.size // 2}}}
        ))))  # fmt: skip
        return self.rest()

    def removed(self) -> tuple[float, int]:
        for one in list(self.world.services):
            self.happen(Delete("service", one.id))
        return self.rest(self.agents)


STORY = (
    ("created", Leader.created), ("one report", Leader.one_report), ("one task failed", Leader.one_failure),
    ("one node down", Leader.node_down), ("a label changed", Leader.relabelled),
    ("a new leader's first plan", Leader.new_leader), ("half as many that fit nowhere", Leader.grown_beyond),
    ("one report, while they wait", Leader.one_report), ("one node down, while they wait", Leader.node_down),
    ("scaled to half", Leader.halved), ("scaled up again", Leader.regrown),
    ("rolling update, first 10 rounds", Leader.updated), ("removed", Leader.removed),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=5000)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000, 100_000])
    options = parser.parse_args()
    columns = []
    for size in options.sizes:
        leader = Leader(options.nodes, size)
        column = []
        for _, happens in STORY:
            column.append(happens(leader))
            leader.agents()
            leader.rest()
        columns.append(column)
    print("| longest turn in ms (turns) | " + " | ".join(f"{size:,}" for size in options.sizes) + " |")
    print("|---" * (len(options.sizes) + 1) + "|")
    for row, (name, _) in enumerate(STORY):
        cells = (f"{column[row][0]:.1f} ({column[row][1]})" for column in columns)
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
