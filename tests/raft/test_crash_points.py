"""A member dies at every operation of its disk, and comes back with all that it may have told others.

The script appends, votes, is contradicted, takes and installs snapshots, trims and restarts. For each of its
disk operations the process dies before it and after it, alone (kill -9) or with the machine (every subset of
the names that were not durable; contents torn in several ways), and is opened again.
"""

from __future__ import annotations

from functools import cache

import pytest

from swarmpy.sim.disk import Platter
from tests.raft.crashing import SCRIPT, Died, DyingDisk, Scribe, View, killed, power_cuts


def play(disk: DyingDisk) -> Scribe:
    """Play the script until the disk dies, or to its end."""
    scribe = Scribe(disk)
    try:
        for step in SCRIPT:
            step(scribe)
    except Died:
        pass
    return scribe


@cache
def sides() -> int:
    """How many places to die there are."""
    disk = DyingDisk(Platter("count"))
    play(disk)
    return disk.sides


def check(before: Scribe, after: View, *, where: str) -> None:
    """What was acknowledged is there; of the write in progress all or nothing; nothing else."""
    acked, trying = before.acked, before.trying
    assert after.log in (acked.log, trying.log), where
    assert (after.term, after.vote) in {
        (acked.term, acked.vote),
        (trying.term, trying.vote),
    }, where
    assert after.term >= acked.term, where


def reopen(platter: Platter, before: Scribe, *, where: str) -> None:
    """Open, check, and see that the log goes on: a write, a vote, and a power cut at the worst moment."""
    scribe = Scribe(DyingDisk(platter))
    found = scribe.open()
    if not found.fresh:
        check(before, scribe.view(), where=where)
    else:
        assert before.acked.log == (), f"{where}: all is gone"
    scribe.elect(scribe.view().term + 1, "m1")
    scribe.append(b"goes on")
    again = Scribe(DyingDisk(platter.unlucky()))
    again.open()
    assert again.view() == scribe.acked, f"{where}: and then lost after a second power cut"


@pytest.mark.parametrize("part", range(4))
def test_dying_at_any_disk_operation_loses_nothing(part: int) -> None:
    seen: set[str] = set()
    for at in range(1 + part, sides() + 1, 4):
        disk = DyingDisk(platter := Platter("crash"), at)
        before = play(disk)
        assert disk.sides == at
        seen.add(disk.last.split()[1])
        for number, cut in enumerate([killed(platter), *power_cuts(platter)]):
            reopen(cut, before, where=f"died {disk.last!r} (side {at}), fate {number}")
    assert {"append", "sync", "rename", "sync_dir", "unlink"} <= seen


def test_a_snapshot_whose_name_is_not_durable_is_made_durable_before_the_log_relies_on_it() -> None:
    """The process dies between the rename of a snapshot and the sync of its folder, is started again, and
    then the machine loses power."""
    for at in range(1, sides() + 1):
        disk = DyingDisk(platter := Platter("crash"), at)
        before = play(disk)
        if not disk.last.startswith("before sync_dir raft/snapshot"):
            continue
        second = Scribe(DyingDisk(again := killed(platter)))
        second.open()
        third = Scribe(DyingDisk(again.unlucky()))
        third.open()
        check(before, third.view(), where=f"died {disk.last!r}")


def test_dying_again_while_coming_back_loses_nothing() -> None:
    """The second death is at every operation of the recovery, for a sample of first deaths."""
    for at in range(1, sides() + 1, 13):
        first = DyingDisk(platter := Platter("crash"), at)
        before = play(first)
        for second_at in range(1, 40):
            second = DyingDisk(again := killed(platter), second_at)
            try:
                Scribe(second).open()
                break
            except Died:
                where = f"died {first.last!r}, then {second.last!r}"
                for cut in (killed(again), *power_cuts(again, seeds=1)):
                    reopen(cut, before, where=where)
        else:
            raise AssertionError("the recovery never came to its end")
