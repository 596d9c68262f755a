"""How fast the planners decide: SwarmKit's scheduler workload, on our planners and our store.

    python -m tests.bench.scheduler [--nodes 5000] [--tasks 100000] [--group 1000] [--plain]

`--group` tasks make one service; every third node has the plugin that the tasks need (`--plain`: no need).
Timed, in one process: the whole plan (tasks made, placed, coalesced), the batch encoded for the log, and its
application to the world. Not timed: building the world, admission. CPU time, so that a busy machine counts
less. A second figure is the cost of one more small service in the full cluster, what a leader pays per batch.
"""

from __future__ import annotations

import argparse
import json
import time

from swarmpy.model import codec, ids
from swarmpy.model.lifecycle import NodeState, TaskState
from swarmpy.model.objects import Cluster, Description, Node, NodeStatus, Service
from swarmpy.plan import manager
from swarmpy.state.changes import Batch, Put
from swarmpy.state.snapshot import Snapshot, apply

START = 1_700_000_000 * 10**9


def world_of(nodes: int, services: int, group: int, *, plain: bool) -> Snapshot:
    """Ready nodes and services without tasks."""
    made = [Put(Cluster(id="c", spec='{"Name":"default"}'))]
    for number in range(nodes):
        plugins = (("Log", "json-file"),) + ((("Log", "special"),) if number % 3 == 0 else ())
        about = Description(hostname=f"n{number}", os="linux", architecture="x86_64", nano_cpus=64 * 10**9,
                            memory_bytes=1 << 38, plugins=plugins)  # fmt: skip
        status = NodeStatus(state=NodeState.READY, since=START)
        made.append(Put(Node(id=ids.derive("node", number), spec="{}", description=about, status=status)))
    made += [Put(service(number, group, plain=plain)) for number in range(services)]
    return Snapshot().evolve(made, 1, START)


def service(number: int, replicas: int, *, plain: bool) -> Service:
    template = {"ContainerSpec": {"Image": "app:1"}}
    if not plain:
        template["LogDriver"] = {"Name": "special"}
    spec = {"Name": f"s{number}", "TaskTemplate": template, "Mode": {"Replicated": {"Replicas": replicas}}}
    return Service(id=ids.derive("service", number), name=f"s{number}", spec=json.dumps(spec), spec_version=1)


def turn(planner, world: Snapshot, now: int) -> tuple[Snapshot, dict[str, float], int | None]:
    """One turn of the leader: plan, encode, apply; the world after it, seconds, and when to plan again."""
    spent = {}
    start = time.process_time()
    decided = planner(now, world)
    spent["plan"] = time.process_time() - start
    start = time.process_time()
    batch = Batch(based_on=world.version, at=now, changes=decided.changes)
    data = codec.encode(batch)
    spent["encode"] = time.process_time() - start
    start = time.process_time()
    after, accepted = apply(world, batch, world.version + 1)
    spent["apply"] = time.process_time() - start
    assert accepted
    spent["MB"] = len(data) / 1e6
    return after, spent, decided.wake_at


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=5000)
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--group", type=int, default=1000)
    parser.add_argument("--plain", action="store_true")
    options = parser.parse_args()
    world = world_of(options.nodes, options.tasks // options.group, options.group, plain=options.plain)
    planner = manager.Planner()
    spent, longest, turns, wake = {}, 0.0, 0, START
    while wake == START:  # a plan comes in parts, as the leader commits it
        world, part, wake = turn(planner.plan, world, START)
        spent = {what: spent.get(what, 0.0) + value for what, value in part.items()}
        longest, turns = max(longest, part["plan"] + part["encode"] + part["apply"]), turns + 1
    placed = sum(task.status.state == TaskState.ASSIGNED for task in world.tasks.rows.values())
    seconds = spent["plan"] + spent["encode"] + spent["apply"]
    print(f"{options.nodes} nodes, {placed} tasks placed in groups of {options.group}")
    print("  " + ", ".join(f"{what} {value:.2f}" for what, value in spent.items()))
    print(f"  {placed / seconds:,.0f} tasks/s in all, {placed / spent['plan']:,.0f} planned/s")
    print(f"  in {turns} turns, of which the longest took {longest * 1000:.0f} ms")
    for name in ("first", "second", "third"):
        world = world.evolve([Put(service(10**6 + world.version, 3, plain=True))], world.version + 1, START)
        world, spent, _ = turn(planner.plan, world, START + world.version)
        print(f"  {name} small service after that: plan {spent['plan'] * 1000:.1f} ms, "
              f"apply {spent['apply'] * 1000:.1f} ms")  # fmt: skip


if __name__ == "__main__":
    main()
