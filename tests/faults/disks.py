"""Cases in which a node's disk is full, slow, failing or damaged, or its clock jumps.

What belongs here: faults of what a node keeps and of its time. What does not: all others (cases.py).
"""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from swarmpy.lab import lab as labs
from swarmpy.lab import nodes
from tests.e2e.cluster import until
from tests.faults.cases import case
from tests.faults.field import LONGEST, Field

STATE = "/var/lib/swarmpy"
OWN = "/run/small"
ROOM = 6
"""Megabytes that the small disk has beside what the node keeps."""
FAKETIME = "*/faketime/libfaketimeMT.so.1"
"""Below /usr/lib, whatever the processor."""


def _in(field: Field, name: str, script: str) -> str:
    done = labs.run_in(field.lab, name, ["sh", "-ec", script])
    assert done.returncode == 0, f"{name}: {script}: {done.stderr}"
    return done.stdout


@contextmanager
def small_disk(field: Field, name: str) -> Iterator[None]:
    """The node's state lies on a file system of a few megabytes of its own."""
    field.end(name)
    kept = int(_in(field, name, f"du -sm {STATE}").split()[0])
    _in(field, name, f"mkdir {OWN} && mount -t tmpfs -o size={kept + ROOM}m small {OWN}"
        f" && cp -a {STATE}/. {OWN}/ && mount --bind {OWN} {STATE}")  # fmt: skip
    try:
        field.start([name], "daemon")
        until(field.whole, LONGEST, f"{name} runs on a small disk")
        yield
    finally:
        if nodes.program(field.lab, field.lab.node(name), "daemon") is not None:
            field.end(name)
        _in(field, name, f"rm -f {OWN}/ballast && umount -l {STATE} && find {STATE} -mindepth 1 -delete"
            f" && cp -a {OWN}/. {STATE}/ && umount -l {OWN} && rmdir {OWN}")  # fmt: skip
        field.start([name], "daemon")


def _fill(field: Field, name: str) -> None:
    _in(field, name, f"dd if=/dev/zero of={OWN}/ballast bs=4096 2>/dev/null || true")


def _says(field: Field, name: str, *words: str) -> bool:
    """Whether the node says of itself that something is wrong, in such words."""
    said = field.info(name)
    return said["LocalNodeState"] == "error" and any(word in said["Error"] for word in words)


def _full(field: Field, name: str, *, leads: bool) -> None:
    with small_disk(field, name):
        if leads:
            field.lead(name)
        field.strike(name)
        _fill(field, name)
        until(lambda: _says(field, name, "disk is full"), LONGEST, f"{name} says that its disk is full")
        field.await_write(since=time.monotonic())
        field.nap(0, 3)
        began = time.monotonic()
        _in(field, name, f"rm {OWN}/ballast")
        until(lambda: field.info(name)["LocalNodeState"] == "active", LONGEST, f"{name} goes on with room")
        field.figures["room to recovery"] = time.monotonic() - began
        until(field.whole, LONGEST, "the cluster is whole")
        field.count("disks filled")


@case("disk-full-leader", "full disks", keeps=True)
def disk_full_leader(field: Field) -> None:
    _full(field, field.leader(), leads=True)


@case("disk-full-follower", "full disks", keeps=True)
def disk_full_follower(field: Field) -> None:
    _full(field, field.follower(), leads=False)


@contextmanager
def traced(field: Field, name: str, injection: str) -> Iterator[None]:
    """What the kernel answers the daemon's syncs is tampered with."""
    process = nodes.program(field.lab, field.lab.node(name), "daemon")
    assert process is not None
    command = ["strace", "-f", "-qq", "-p", str(process.pid), "-o", "/dev/null"]
    command += ["-e", "trace=fdatasync,fsync", "-e", f"inject=fdatasync,fsync:{injection}"]
    tracer = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        until(lambda: _traced(process.pid), 10, "the daemon is traced")
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait(20)


def _traced(pid: int) -> bool:
    return "TracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_text()


def _slow(field: Field, name: str) -> None:
    milliseconds = field.chance.choice([100, 500, 2000])
    with traced(field, name, f"delay_enter={1000 * milliseconds}"):
        field.strike(name)
        field.nap(4, 8)
        field.await_write()
    field.count("disks slowed down")


@case("disk-slow-leader", "slow disks", keeps=True, needs=("strace",))
def disk_slow_leader(field: Field) -> None:
    """Each sync takes 0.1, 0.5 or 2 seconds."""
    _slow(field, field.leader())


@case("disk-slow-follower", "slow disks", keeps=True, needs=("strace",))
def disk_slow_follower(field: Field) -> None:
    _slow(field, field.follower())


@case("disk-fails", "failing disks", keeps=True, needs=("strace",))
def disk_fails(field: Field) -> None:
    """The leader's syncs fail with an input/output error."""
    name = field.leader()
    with traced(field, name, "error=EIO"):
        field.strike(name)
        until(lambda: _says(field, name, "disk failed"), LONGEST, f"{name} says that its disk failed")
        field.await_write()
    began = time.monotonic()
    until(lambda: field.info(name)["LocalNodeState"] == "active", LONGEST, f"{name} goes on")
    field.figures["mended to recovery"] = time.monotonic() - began
    field.count("disks failed")


# ---------------------------------------------------------------- damage


def damage(data: bytes, chance: random.Random) -> bytes:
    """Some bits flipped, or a part zeroed. In the first half, so that a journal's last write, of which nobody
    can tell a damaged one from one that was never finished, is left alone."""
    spoilt = bytearray(data)
    place = chance.randrange(len(data) // 2)
    if chance.random() < 0.5 or not any(data[place : place + 512]):
        spoilt[place] ^= 1 << chance.randrange(8)
    else:
        spoilt[place : min(place + 512, len(data) // 2 + 1)] = bytes(
            min(place + 512, len(data) // 2 + 1) - place
        )
    return bytes(spoilt)


def _spoil(field: Field, name: str, pattern: str) -> tuple[Path, bytes]:
    """Damage the newest file of the pattern; (which, what was in it)."""
    path = max(field.home(name).glob(pattern))
    whole = path.read_bytes()
    path.write_bytes(damage(whole, field.chance))
    return path, whole


def _corrupt(field: Field, pattern: str, *, works: bool = True) -> None:
    """A follower's file is damaged while its daemon is down: it says so, and serves nothing. Put back, it takes
    part again. `works`: its agent goes on."""
    name = field.follower()
    field.kill([name], "daemon")
    path, whole = _spoil(field, name, pattern)
    field.start([name], "daemon", joins=works)
    until(lambda: field.info(name)["LocalNodeState"] == "error", 20, f"{name} notices damage in {path.name}")
    field.await_write()
    field.nap(0, 2)
    field.end(name)
    path.write_bytes(whole)
    field.start([name], "daemon")
    field.count("files damaged")


@case("damaged-journal", "damaged files", keeps=True)
def damaged_journal(field: Field) -> None:
    _corrupt(field, "raft/journal/*.log")


@case("damaged-key", "damaged files")
def damaged_key(field: Field) -> None:
    """Without its identity, or without knowing who it is, a node does nothing at all, its agent neither: it
    counts as lost."""
    _corrupt(field, "pki/identity.sealed", works=False)


@case("damaged-record", "damaged files")
def damaged_record(field: Field) -> None:
    _corrupt(field, "node.json", works=False)


@case("damaged-snapshot", "damaged files", keeps=True)
def damaged_snapshot(field: Field) -> None:
    """Where there is none yet, the load makes one first."""
    until(lambda: all(any(field.home(name).glob("raft/snapshot/*.img")) for name in field.cluster.managers),
          4 * LONGEST, "each manager has a snapshot")  # fmt: skip
    _corrupt(field, "raft/snapshot/*.img")


@case("damaged-journal-new-seat", "damaged files", keeps=True)
def damaged_journal_new_seat(field: Field) -> None:
    """Nobody has the old file: the node is demoted and promoted again."""
    name = field.follower()
    field.kill([name], "daemon")
    _spoil(field, name, "raft/journal/*.log")
    field.start([name], "daemon")
    until(lambda: field.info(name)["LocalNodeState"] == "error", 20, f"{name} notices damage in its journal")
    other = field.chance.choice([one for one in field.cluster.managers if one != name])
    field.cluster.swarmpy("node", "demote", name, node=other)
    until(lambda: not field.info(name)["ControlAvailable"] and not field.info(name)["Error"], LONGEST,
          f"{name} is a worker")  # fmt: skip
    field.cluster.swarmpy("node", "promote", name, node=other)
    until(lambda: field.info(name)["ControlAvailable"], LONGEST, f"{name} is a manager again")
    field.await_write()
    field.count("files damaged")


@case("damaged-agent", "damaged files", keeps=True)
def damaged_agent(field: Field) -> None:
    """What an agent remembers is a memory only: containers are known by their labels."""
    name = field.chance.choice(field.members)
    field.kill([name], "daemon")
    for pattern in ("agent/tasks", "agent/networks"):
        if any(field.home(name).glob(pattern)):
            _spoil(field, name, pattern)
            field.count("files damaged")
    field.start([name], "daemon")
    field.await_write()


# ---------------------------------------------------------------- clocks


@case("clock", "clocks that jump", keeps=True, needs=("faketime",))
def clock(field: Field) -> None:
    """The clocks of the leader and of another node jump by up to an hour, forth or back, and back again. Their
    daemons see another time by libfaketime; namespaces cannot move a clock."""
    library = next(Path("/usr/lib").glob(FAKETIME))
    leader = field.leader()
    names = [leader, field.chance.choice(field.others(leader))]
    times = {name: field.home(name).with_name("clock") for name in names}
    for name in reversed(names):
        _set(times[name], 0)
        field.end(name)
        under = ["env", f"LD_PRELOAD={library}", f"FAKETIME_TIMESTAMP_FILE={times[name]}"]
        # It reads the file at most once a second: at each look at the clock, that alone would stall a daemon.
        under += ["FAKETIME_CACHE_DURATION=1", "FAKETIME_DONT_FAKE_MONOTONIC=1", "NO_FAKE_STAT=1"]
        field.start([name], "daemon", under=under)
        until(field.whole, LONGEST, f"{name} runs with a clock of its own")
    try:
        if field.leader() not in names:
            names.reverse()
        leader, jump = field.leader(), field.chance.choice([-3500, -300, 300, 3600])
        for name in names:
            field.strike(name)
            _set(times[name], jump)
        field.await_write()
        field.watch(
            4, lambda: field.leader() == leader and field.whole(), "the same leader, the cluster whole"
        )
        for name in names:
            _set(times[name], 0)
        field.watch(
            2, lambda: field.leader() == leader and field.whole(), "the same leader, the cluster whole"
        )
        field.count("clocks moved", len(names))
    finally:
        for name in names:
            field.restart_daemon(name)


def _set(path: Path, seconds: int) -> None:
    aside = path.with_suffix(".new")
    aside.write_text(f"{seconds:+d}\n")
    aside.rename(path)
