"""Our cast: the daemon's own engine, core and store, with turns taken when the script says so."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgpack

from swarmpy.adapters.raft import RaftSettings
from swarmpy.adapters.raft.config import REGULAR, Membership
from swarmpy.adapters.raft.core import ApplyFailed, Core, Proposal
from swarmpy.adapters.raft.engine import Engine
from swarmpy.adapters.raft.journal import BASE, Journal, LogImage
from swarmpy.adapters.raft.messages import check
from swarmpy.adapters.raft.pinned import FAIL_REASON, RaftNode, Surroundings, driving
from swarmpy.adapters.raft.state import LEADER
from swarmpy.adapters.raft.store import Store
from swarmpy.pki.seal import PlainSealer
from swarmpy.ports import Member
from tests.raft.fakes import ListMachine, MemDisk
from tests.raft.stock.world import CHANCE, Message, World

REASONS = {getattr(FAIL_REASON, name): name for name in dir(FAIL_REASON) if name.isupper()}
NEVER = 10**9


class InlineDisk(MemDisk):
    """A disk in memory that works at once."""

    async def work(self, job: Callable[[], Any]) -> Any:
        return job()


class LinkTransport:
    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name

    def send(self, peer: str, body: Mapping[str, Any]) -> None:
        self.world.send(self.name, peer, msgpack.unpackb(msgpack.packb(body)))

    def drop(self, peer: str) -> None:
        self.world.disconnect(self.name, peer)

    def set_members(self, addresses: Mapping[str, str]) -> None:
        """The script dials."""


class OurMember:
    def __init__(self, world: World, name: str, founders: str, disk: Any) -> None:
        self.world, self.name = world, name
        self.failure: Exception | None = None
        self.loop = world.knobs["loop"]
        self.machine = ListMachine()
        self.disk = disk
        store = Store(disk, "raft", PlainSealer(), name)
        found = store.open()
        image = found.image
        if found.fresh:
            if founders:
                first = Membership.of(Member(n, n) for n in founders).to_entry()
                image = LogImage(1, None, (BASE, (first, 2, 1)))
            store.create(image)
        if found.snapshot is not None:
            self.machine.load(found.snapshot.image)()
        surroundings = Surroundings(lambda: world.now, lambda: CHANCE[name], Journal(image))
        settings = dataclasses.replace(
            RaftSettings(),
            batch=world.knobs.get("batch", 2**16),
            chunk=world.knobs.get("chunk", 2**16),
            snapshot_entries=NEVER,
            keep_entries=0,
        )
        with driving(surroundings):
            self.core = Core(name, surroundings, self.machine, settings, found.snapshot)
        self.engine = Engine(self.core, store, (disk, disk), settings, lambda _: None)
        self.engine.transport = LinkTransport(world, name)  # type: ignore[assignment]
        self.joining: list[str] = []

    def tick(self) -> None:
        """A turn of the engine, and what it left to be done in the background."""
        if self.failure is not None:
            return
        self._add()
        try:
            self.loop.run_until_complete(self.engine._turn())
            while self.engine._background:
                self.loop.run_until_complete(asyncio.gather(*self.engine._background))
        except Exception as error:
            # The daemon stops its log here.
            self.failure = error

    def receive(self, source: str, message: Message) -> None:
        checked = check(message)
        assert checked is not None
        self.engine.post(partial(self.core.receive, source, checked))
        self.tick()

    deliver = receive

    def up(self, peer: str) -> None:
        self.engine.up(peer)

    def down(self, peer: str) -> None:
        self.engine.down(peer)

    def die(self) -> None:
        """kill -9 and power loss at once."""
        self.disk.crash()

    def propose(self, value: bytes, done: Callable[[str], None]) -> None:
        def told(_index: int, result: Any, reason: int) -> None:
            done("FAILED" if isinstance(result, ApplyFailed) else REASONS[reason])

        self.engine.propose(Proposal(REGULAR + value, told))

    def read(self, done: Callable[[list[bytes] | None], None]) -> None:
        def told(index: int | None) -> None:
            done(None if index is None else self.machine.values())

        self.engine.post(lambda: self.core.read(told))

    def add(self, name: str) -> None:
        """As RaftLog.add_member: a learner first, a voter when it has caught up."""
        self.joining.append(name)
        self.engine.change((lambda m: m.with_member(Member(name, name, voter=False)), lambda *_: None))

    def remove(self, name: str) -> None:
        self.engine.change((lambda m: m.without([name]), lambda *_: None))

    def _add(self) -> None:
        for name in list(self.joining):
            if self.core.raft_state == LEADER and self.core.caught_up(name):
                self.joining.remove(name)
                self.engine.change((lambda m, n=name: m.with_member(Member(n, n)), lambda *_: None))

    def compact(self) -> None:
        self.engine._snapshot_entries = 1
        self.tick()
        self.engine._snapshot_entries = NEVER
        self.tick()

    @property
    def values(self) -> list[bytes]:
        return self.machine.values()

    @property
    def leads(self) -> bool:
        return self.core.raft_state == LEADER

    @property
    def term(self) -> int:
        return self.core.term

    @property
    def commit_index(self) -> int:
        return self.core.commit_index

    @property
    def applied_index(self) -> int:
        return self.core.applied_index

    @property
    def last_index(self) -> int:
        return self.core.last_index

    @property
    def voters(self) -> set[str]:
        return set(self.core.membership.voters())

    def matched(self, name: str) -> int:
        return self.core.match_index.get(RaftNode(name), 0)


class OurCast:
    def make(self, world: World, name: str, founders: str, *, joins: bool) -> OurMember:
        disks = world.knobs.setdefault("disks", {})
        return OurMember(world, name, "" if joins else founders, disks.setdefault(name, InlineDisk()))

    def is_snapshot(self, message: Message) -> bool:
        return bool(message["type"] == "install")

    def spoil_snapshot(self, message: Message) -> Message:
        return {**message, "data": bytes(len(message["data"]))}

    def answer(self, term: int, next_index: int) -> Message:
        return {"type": "next_node_idx", "term": term, "next_node_idx": next_index, "success": True, "seq": 1}

    def vote_request(self, term: int, last_index: int, last_term: int) -> Message:
        return {
            "type": "request_vote",
            "term": term,
            "last_log_index": last_index,
            "last_log_term": last_term,
            "pre": False,
            "force": True,
        }

    def grants(self, message: Message) -> bool:
        return bool(message["type"] == "response_vote" and message["granted"] and not message["pre"])
