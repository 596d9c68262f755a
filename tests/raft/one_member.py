"""One member of the log on a real directory, in real time: what the tests with real processes run."""

from __future__ import annotations

import dataclasses
import os

from swarmpy.adapters.disk import FileDisk
from swarmpy.adapters.raft import RaftLog, RaftSettings
from swarmpy.pki.seal import Sealer
from swarmpy.ports import Member
from tests.raft.fakes import FakeClock, FakeEntropy, FakeWire, ListMachine, Network

KEY = bytes(range(32))
SETTINGS = RaftSettings(snapshot_entries=40, keep_entries=10)


def make(
    folder: str | os.PathLike[str], *, bulk: bool = False, disk: FileDisk | None = None, **settings: int
) -> tuple[RaftLog, ListMachine]:
    """A log that is not started yet, alone in its cluster, and its machine."""
    machine = ListMachine()
    log = RaftLog(
        "a",
        "a:2377",
        disk or FileDisk(folder),
        FakeWire(Network(1), "a"),
        FakeClock(),
        FakeEntropy(1),
        machine,
        Sealer(KEY),
        bootstrap_members=[Member("a", "a:2377")],
        settings=dataclasses.replace(SETTINGS, **settings),
        bulk=FileDisk(folder) if bulk else None,
    )
    return log, machine


async def leading(log: RaftLog) -> None:
    """Wait until it leads and has applied all that it holds."""
    status = log.status()
    while status.role.value != "leader":
        status = await log.wait_status(status)
    await log.read_index()
