"""The faults, a case each: what is done to the cluster, and what undoes it.

What belongs here: faults of processes, machines, cables and identities. What does not: disks and clocks
(disks.py), what is checked after each case (campaign.py).
"""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from swarmpy.lab import lab as labs
from swarmpy.lab import nodes
from tests.e2e.cluster import until
from tests.faults.field import LONGEST, Field


@dataclass(frozen=True, slots=True)
class Case:
    """`keeps`: no container may be restarted, removed or made, and no request to the published port may fail.
    `weight`: how many times in a round of the campaign. `needs`: programs that this machine must have."""

    name: str
    family: str
    play: Callable[[Field], None]
    keeps: bool
    weight: int
    needs: tuple[str, ...]


CASES: dict[str, Case] = {}


def case(
    name: str, family: str, *, keeps: bool = False, weight: int = 1, needs: tuple[str, ...] = ()
) -> Callable[[Callable[[Field], None]], Callable[[Field], None]]:
    """Register a case."""

    def register(play: Callable[[Field], None]) -> Callable[[Field], None]:
        CASES[name] = Case(name, family, play, keeps, weight, needs)
        return play

    return register


# ---------------------------------------------------------------- processes and machines


def _daemons(field: Field, *names: str) -> None:
    field.kill(names, "daemon")
    field.await_write()
    field.nap(0, 0.3)
    field.start(names, "daemon")


@case("daemon-leader", "kill -9 of daemons", keeps=True, weight=5)
def daemon_leader(field: Field) -> None:
    _daemons(field, field.leader())


@case("daemon-follower", "kill -9 of daemons", keeps=True)
def daemon_follower(field: Field) -> None:
    _daemons(field, field.follower())


@case("daemon-worker", "kill -9 of daemons", keeps=True)
def daemon_worker(field: Field) -> None:
    _daemons(field, field.worker())


@case("daemon-leader-and-workers", "kill -9 of daemons", keeps=True, weight=3)
def daemon_leader_and_workers(field: Field) -> None:
    _daemons(field, field.leader(), *field.cluster.workers)


@case("daemon-all", "kill -9 of daemons", keeps=True, weight=3)
def daemon_all(field: Field) -> None:
    field.kill(field.members, "daemon")
    began = time.monotonic()
    field.start(field.members, "daemon")
    field.await_write("from starting them to the first write", began)


@case("daemon-restarts", "restarts, one node after the other", keeps=True)
def daemon_restarts(field: Field) -> None:
    """As an upgrade of the daemon does it: told to end, then started, on every node."""
    for name in field.chance.sample(field.members, len(field.members)):
        node = field.lab.node(name)
        field.strike(name)
        field.leaves(name)
        nodes.signal_program(field.lab, node, "daemon", signal.SIGTERM)
        until(lambda node=node: nodes.program(field.lab, node, "daemon") is None, 20, f"{name}'s daemon ends")
        field.start([name], "daemon")
        field.count("daemons restarted")
        field.await_write()


@case("engine", "kill -9 of Engines", keeps=True, weight=2)
def engine(field: Field) -> None:
    name = field.chance.choice(field.members)
    field.kill([name], "engine")
    field.nap(0, 2)
    field.start([name], "engine")
    field.await_write()


def _node(field: Field, name: str) -> None:
    field.settle(name)
    field.kill([name], "node")
    field.await_write()
    field.await_elsewhere(name)
    field.start([name], "node")


@case("node-leader", "whole machines killed")
def node_leader(field: Field) -> None:
    _node(field, field.leader())


@case("node-follower", "whole machines killed")
def node_follower(field: Field) -> None:
    _node(field, field.follower())


@case("node-worker", "whole machines killed", weight=2)
def node_worker(field: Field) -> None:
    _node(field, field.worker())


@case("node-all", "whole machines killed")
def node_all(field: Field) -> None:
    field.kill(field.members, "node")
    for name in field.chance.sample(field.members, len(field.members)):
        began = time.monotonic()
        field.start([name], "node")
    field.await_write("from starting them to the first write", began)


def _frozen(field: Field, name: str, least: float, most: float) -> None:
    field.strike(name)
    field.freeze(name)
    try:
        field.nap(least, most)
        field.await_write()
    finally:
        field.thaw(name)
    field.count("daemons stopped and continued")


@case("stop-leader", "daemons stopped and continued", keeps=True)
def stop_leader(field: Field) -> None:
    _frozen(field, field.leader(), 0.2, 2)


@case("stop-follower", "daemons stopped and continued", keeps=True)
def stop_follower(field: Field) -> None:
    _frozen(field, field.follower(), 0.2, 2)


@case("stop-worker", "daemons stopped and continued", keeps=True)
def stop_worker(field: Field) -> None:
    _frozen(field, field.worker(), 0.2, 2)


@case("stop-long", "daemons stopped and continued")
def stop_long(field: Field) -> None:
    _frozen(field, field.chance.choice(field.members), 6, 10)


# ---------------------------------------------------------------- cables


def _cut(field: Field, near: list[str], far: list[str], *, one_way: bool = False, last: float = 6) -> None:
    field.strike(*near)
    field.cut(near, far, one_way=one_way)
    field.nap(1, last)
    field.await_write()
    field.heal()
    field.count("partitions")


@case("cut-leader", "partitions")
def cut_leader(field: Field) -> None:
    """The leader alone on one side."""
    _cut(field, [field.leader()], [])


@case("cut-minority", "partitions")
def cut_minority(field: Field) -> None:
    """The leader and a worker on one side."""
    _cut(field, [field.leader(), field.worker()], [])


@case("cut-follower", "partitions")
def cut_follower(field: Field) -> None:
    _cut(field, [field.follower()], [])


@case("cut-bridge", "partitions")
def cut_bridge(field: Field) -> None:
    """The leader and one manager do not hear each other; the third hears both."""
    _cut(field, [field.leader()], [field.follower()])


@case("cut-workers", "partitions")
def cut_workers(field: Field) -> None:
    """Both workers are cut off for so long that they count as lost."""
    field.settle(field.cluster.workers[0])
    field.strike(*field.cluster.workers)
    field.cut(field.cluster.workers)
    field.await_elsewhere(field.cluster.workers[0])
    field.await_write()
    field.heal()
    field.count("partitions")


@case("cut-all", "partitions")
def cut_all(field: Field) -> None:
    """Nobody hears anybody: there is no leader, and no write."""
    field.strike(*field.members)
    for name in field.members:
        field.cut([name], field.others(name))
    field.nap(2, 5)
    field.heal()
    field.count("partitions")
    field.await_write("first write after the cables are mended", time.monotonic())


@case("cut-deaf", "one-way partitions")
def cut_deaf(field: Field) -> None:
    """The leader hears nobody, and is heard."""
    leader = field.leader()
    _cut(field, field.others(leader), [leader], one_way=True)


@case("cut-dumb", "one-way partitions")
def cut_dumb(field: Field) -> None:
    """The leader hears everybody, and is not heard."""
    leader = field.leader()
    _cut(field, [leader], field.others(leader), one_way=True)


@case("cut-one-way-bridge", "one-way partitions")
def cut_one_way_bridge(field: Field) -> None:
    """One manager does not hear the leader."""
    _cut(field, [field.leader()], [field.follower()], one_way=True)


def _lossy(field: Field, percent: float, seconds: float) -> None:
    field.strike(field.chance.choice(field.members))
    labs.lose(field.lab, field.members, percent)
    try:
        if percent <= 5:
            field.watch(seconds, lambda: _all_ready(field), "every node is ready")
        else:
            field.nap(seconds, seconds)
        field.await_write()
    finally:
        field.heal()


def _all_ready(field: Field) -> bool:
    return all(row["Status"]["State"] == "ready" for row in field.rows().values())


@case("loss-5", "packet loss", keeps=False)
def loss_5(field: Field) -> None:
    """One frame of twenty lost on each cable: no node may be taken for lost."""
    _lossy(field, 2.5, 10)


@case("loss-20", "packet loss")
def loss_20(field: Field) -> None:
    _lossy(field, 10, 8)


# ---------------------------------------------------------------- identities


def _steal(field: Field, thief: str, owner: str) -> None:
    """The thief's daemon runs with a copy of all that the owner's has on its disk, beside the owner."""
    state, kept = field.home(thief), field.home(thief).with_name("kept")
    field.end(thief)
    kept.mkdir()
    _move(state, kept)
    try:
        shutil.copytree(field.home(owner), state, dirs_exist_ok=True)
        field.strike(owner, thief)
        field.start([thief], "daemon", joins=False)
        field.count("identities stolen")
        field.nap(4, 8)
        field.await_write()
        field.end(thief)
    finally:
        _empty(state)
        _move(kept, state)
        kept.rmdir()
    field.start([thief], "daemon")


def _move(source, target) -> None:
    for entry in list(source.iterdir()):
        shutil.move(str(entry), str(target / entry.name))


def _empty(folder) -> None:
    for entry in list(folder.iterdir()):
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


@case("stolen-worker", "stolen identities")
def stolen_worker(field: Field) -> None:
    thief, owner = field.chance.sample(field.cluster.workers, 2)
    _steal(field, thief, owner)


@case("stolen-manager", "stolen identities")
def stolen_manager(field: Field) -> None:
    """A worker's machine runs with a copy of a manager, its journal and its seat included."""
    _steal(field, field.worker(), field.follower())


__all__ = ["CASES", "LONGEST", "Case", "case"]
