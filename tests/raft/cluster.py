"""A cluster of RaftLogs in one process and in virtual time."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

from swarmpy.adapters.raft import RaftLog, RaftSettings
from swarmpy.pki.seal import PlainSealer
from swarmpy.ports import Disk, LogRole, Member
from tests.raft.fakes import FakeClock, FakeEntropy, FakeWire, ListMachine, MemDisk, Network

FAST = RaftSettings()


class Cluster:
    def __init__(self, names: str, seed: int = 1, **settings: Any) -> None:
        self.net = Network(seed)
        self.seed = seed
        self.settings = dataclasses.replace(FAST, **settings)
        self.disks: dict[str, MemDisk] = {}
        self.machines: dict[str, ListMachine] = {}
        self.logs: dict[str, RaftLog] = {}
        self.founders = [Member(n, f"{n}:2377") for n in names]
        self.starts = 0

    async def boot(self) -> Cluster:
        for member in self.founders:
            await self.start(member.id, self.founders)
        return self

    async def start(
        self, name: str, bootstrap: list[Member] | None = None, bulk: Disk | None = None
    ) -> RaftLog:
        self.starts += 1
        disk = self.disks.setdefault(name, MemDisk(self.seed + ord(name[0])))
        machine = self.machines[name] = ListMachine()
        log = RaftLog(
            name,
            f"{name}:2377",
            disk,
            FakeWire(self.net, name),
            FakeClock(),
            FakeEntropy(self.seed * 1000 + self.starts),
            machine,
            PlainSealer(),
            bootstrap_members=bootstrap,
            settings=self.settings,
            bulk=bulk,
        )
        self.logs[name] = log
        await log.start()
        return log

    async def kill(self, name: str, *, tear: bool = False) -> None:
        """kill -9 and power loss: nothing unsynced survives."""
        self.net.kill(name)
        log = self.logs.pop(name)
        engine = log._engine
        if engine is not None:
            engine._stopping = True
            tasks = [engine._loop_task, *engine._background, *engine.transport._serving]
            for link in engine.transport._links.values():
                tasks += [link.dialler, link.sender]
            for task in tasks:
                if task is not None:
                    task.cancel()
        log._fail_waiters()
        self.disks[name].crash(tear=tear)

    def leader(self) -> RaftLog | None:
        """The leader of the highest term."""
        leaders = [log for log in self.logs.values() if log.status().role is LogRole.LEADER]
        return max(leaders, key=lambda log: log.status().term, default=None)

    async def wait_leader(self, timeout: float = 10.0, *, besides: str = "") -> RaftLog:
        async with asyncio.timeout(timeout):
            while True:
                leader = self.leader()
                if leader is not None and leader.self_id != besides:
                    return leader
                await asyncio.sleep(0.01)

    async def propose(self, entry: bytes, timeout: float = 10.0) -> int:
        leader = await self.wait_leader()
        return (await leader.propose(entry, timeout=timeout))[0]

    async def settle(self, timeout: float = 20.0) -> None:
        """Wait until all members applied the same."""
        async with asyncio.timeout(timeout):
            while True:
                states = {tuple(m.values()) for n, m in self.machines.items() if n in self.logs}
                indexes = {log.status().applied_index for log in self.logs.values()}
                if len(states) == 1 and len(indexes) == 1:
                    return
                await asyncio.sleep(0.05)
