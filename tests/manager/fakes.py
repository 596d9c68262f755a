"""A log of one member in memory, and channels in memory: what the manager's shells need of the world."""

from __future__ import annotations

import asyncio
from typing import Any

from swarmpy.adapters.raft.settings import RaftSettings
from swarmpy.ports import (
    Body,
    LogRole,
    LogStatus,
    Machine,
    Member,
    NotLeaderError,
    Peer,
    WireError,
)


class LocalLog:
    """ports.Log with one member that always leads, until `depose`."""

    failure: str | None = None

    def __init__(self, machine: Machine, node_id: str = "m1") -> None:
        self._machine, self._id = machine, node_id
        self._index = 1
        self._role = LogRole.LEADER
        self._moved = asyncio.Event()
        self.entries: list[bytes] = []
        self.members = [Member(node_id, "m1:2377")]
        self.hold: asyncio.Event | None = None
        self.silence: dict[str, float] = {}

    async def start(self) -> None:
        """Nothing to recover."""

    async def stop(self) -> None:
        self.depose()

    def depose(self) -> None:
        self._role = LogRole.FOLLOWER
        self._moved.set()

    def status(self) -> LogStatus:
        leader = self._id if self._role is LogRole.LEADER else None
        members = tuple(self.members)
        heard = frozenset({self._id})
        return LogStatus(self._role, 1, leader, self._index, self._index, members, heard, self.silence)

    async def propose(self, entry: bytes, *, timeout: float = 10.0) -> tuple[int, Any]:
        if self.hold is not None:
            await self.hold.wait()
        if len(entry) > RaftSettings().max_entry:
            raise ValueError("too large, as for the real log")
        if self._role is not LogRole.LEADER:
            raise NotLeaderError(None)
        self._index += 1
        self.entries.append(entry)
        return self._index, self._machine.apply(self._index, entry)

    async def read_index(self, *, timeout: float = 5.0) -> int:
        if self._role is not LogRole.LEADER:
            raise NotLeaderError(None)
        return self._index

    async def wait_applied(self, index: int, *, timeout: float = 5.0) -> None:
        assert index <= self._index

    async def wait_status(self, seen: LogStatus | None) -> LogStatus:
        while seen is not None and self.status().role is seen.role:
            self._moved.clear()
            await self._moved.wait()
        return self.status()

    async def add_member(self, member: Member, *, timeout: float = 30.0) -> None:
        self.members.append(member)

    async def remove_member(self, member_id: str, *, timeout: float = 10.0) -> None:
        self.members = [one for one in self.members if one.id != member_id]

    async def recover_alone(self) -> None:
        """Nothing is lost."""

    async def transfer(self, member_id: str | None = None, *, timeout: float = 5.0) -> None:
        self.depose()


class Pipe:
    """One end of a channel in memory."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self._inbox: asyncio.Queue[Body | None] = asyncio.Queue()
        self.other: Pipe
        self.closed = False

    async def send(self, body: Body) -> None:
        if self.closed:
            raise WireError("closed")
        await self.other._inbox.put(dict(body))

    async def recv(self) -> Body:
        body = await self._inbox.get()
        if body is None:
            self.closed = True
            raise WireError("closed")
        return body

    async def close(self) -> None:
        for end in (self, self.other):
            if not end.closed:
                end.closed = True
                await end._inbox.put(None)


def pipe(client: Peer, server: Peer) -> tuple[Pipe, Pipe]:
    """(what the client holds, what the server holds)."""
    near, far = Pipe(server), Pipe(client)
    near.other, far.other = far, near
    return near, far
