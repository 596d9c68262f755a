"""The stock cast: pysyncobj.SyncObj as it is installed, on the world's clock, chance and links."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pysyncobj.syncobj
from pysyncobj import FAIL_REASON, SyncObj, SyncObjConf, replicated
from pysyncobj.transport import Transport

from swarmpy.adapters.raft.pinned import RaftNode
from tests.raft.stock.world import CHANCE, Message, World

REASONS = {getattr(FAIL_REASON, name): name for name in dir(FAIL_REASON) if name.isupper()}


class Surroundings:
    """What stands where the stock module reaches for its clock, its chance and its poller."""

    now: Callable[[], float] = staticmethod(lambda: 1000.0)
    name = "a"

    @classmethod
    def clock(cls) -> float:
        return cls.now()

    @classmethod
    def random(cls) -> float:
        return CHANCE[cls.name]


class NoPoller:
    def subscribe(self, *_: Any) -> None: ...
    def unsubscribe(self, *_: Any) -> None: ...
    def poll(self, timeout: float) -> None: ...


class LinkTransport(Transport):
    """pysyncobj's transport over the world's links: known peers only, like its TCP transport."""

    ready = True

    def __init__(self, world: World, name: str, peers: set[str]) -> None:
        super().__init__(None, None, [])
        self.world, self.name, self.peers = world, name, peers

    def addNode(self, node: Any) -> None:
        self.peers.add(node.id)
        if frozenset((self.name, node.id)) in self.world.connected:
            self._onNodeConnected(node)

    def dropNode(self, node: Any) -> None:
        self.peers.discard(node.id)
        self._onNodeDisconnected(node)

    def send(self, node: Any, message: Message) -> None:
        self.world.send(self.name, node.id, message)

    def destroy(self) -> None: ...


class Values(SyncObj):
    """The replicated state: a list of values."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.values: list[bytes] = []

    @replicated
    def put(self, value: bytes) -> int:
        self.values.append(value)
        if value.startswith(b"raise"):
            raise RuntimeError("the machine raises")
        return len(self.values)


class StockMember:
    def __init__(self, world: World, name: str, others: list[str]) -> None:
        self.world, self.name = world, name
        self.failure: Exception | None = None
        self.transport = LinkTransport(world, name, set(others))
        knobs = world.knobs
        folder = world.root / name
        folder.mkdir(exist_ok=True)
        files = knobs.get("files", False)
        conf = SyncObjConf(
            autoTick=False,
            raftMinTimeout=1.0,
            raftMaxTimeout=2.0,
            connectionTimeout=3.5,
            commandsWaitLeader=False,
            dynamicMembershipChange=True,
            appendEntriesBatchSizeBytes=knobs.get("batch", 2**16),
            logCompactionBatchSize=knobs.get("chunk", 2**16),
            logCompactionMinEntries=10**9,
            logCompactionMinTime=10**9,
            journalFile=str(folder / "journal") if files else None,
            fullDumpFile=str(folder / "dump") if files else None,
            useFork=False,
            serializeChecker=knobs.get("serialize_checker"),
        )
        self._enter()
        self.obj = Values(
            RaftNode(name), map(RaftNode, others), conf=conf, nodeClass=RaftNode, transport=self.transport
        )

    def _enter(self) -> None:
        Surroundings.now = staticmethod(lambda: self.world.now)
        Surroundings.name = self.name

    def _get(self, field: str) -> Any:
        return getattr(self.obj, f"_SyncObj__{field}")

    def tick(self) -> None:
        """As pysyncobj's own thread does it: what a turn raises is noted, and the next turn comes."""
        self._enter()
        try:
            self.obj.doTick(0.0)
        except Exception as error:
            self.failure = error

    def receive(self, source: str, message: Message) -> None:
        if source in self.transport.peers:
            self.deliver(source, message)

    def deliver(self, source: str, message: Message) -> None:
        """What was already read from the connection when the peer was dropped."""
        self._enter()
        try:
            self.transport._onMessageReceived(RaftNode(source), message)
        except Exception as error:
            self.failure = error

    def up(self, peer: str) -> None:
        if peer in self.transport.peers:
            self.transport._onNodeConnected(RaftNode(peer))

    def down(self, peer: str) -> None:
        self.transport._onNodeDisconnected(RaftNode(peer))

    def die(self) -> None:
        """What it wrote stays, as after kill -9: the kernel has it."""
        self._get("raftLog")._destroy()

    def propose(self, value: bytes, done: Callable[[str], None]) -> None:
        self.obj.put(value, callback=lambda _result, reason: done(REASONS[reason]))

    def read(self, done: Callable[[list[bytes] | None], None]) -> None:
        """All that stock pysyncobj offers: ask whether it leads, and read."""
        done(list(self.obj.values) if self.obj._isLeader() else None)

    def add(self, name: str) -> None:
        self.obj.addNodeToCluster(RaftNode(name))

    def remove(self, name: str) -> None:
        self.obj.removeNodeFromCluster(RaftNode(name))

    def compact(self) -> None:
        self.obj.forceLogCompaction()
        self.tick()
        self.tick()

    @property
    def values(self) -> list[bytes]:
        return self.obj.values

    @property
    def leads(self) -> bool:
        return bool(self.obj._isLeader())

    @property
    def term(self) -> int:
        return int(self._get("raftCurrentTerm"))

    @property
    def commit_index(self) -> int:
        return int(self._get("raftCommitIndex"))

    @property
    def applied_index(self) -> int:
        return int(self._get("raftLastApplied"))

    @property
    def last_index(self) -> int:
        return int(self._get("raftLog")[-1][1])

    @property
    def voters(self) -> set[str]:
        return {node.id for node in self._get("otherNodes")} | {self.name}

    def matched(self, name: str) -> int:
        return int(self._get("raftMatchIndex").get(RaftNode(name), 0))


class StockCast:
    def make(self, world: World, name: str, founders: str, *, joins: bool) -> StockMember:
        others = world.knobs.get("arguments", {}).get(name, founders)
        return StockMember(world, name, [n for n in others if n != name])

    def is_snapshot(self, message: Message) -> bool:
        return message.get("serialized") is not None

    def spoil_snapshot(self, message: Message) -> Message:
        data, first, last = message["serialized"]
        return {**message, "serialized": (bytes(len(data)), first, last)}

    def answer(self, term: int, next_index: int) -> Message:
        """There is no place for the term."""
        return {"type": "next_node_idx", "next_node_idx": next_index, "reset": False, "success": True}

    def vote_request(self, term: int, last_index: int, last_term: int) -> Message:
        return {
            "type": "request_vote",
            "term": term,
            "last_log_index": last_index,
            "last_log_term": last_term,
        }

    def grants(self, message: Message) -> bool:
        return bool(message["type"] == "response_vote")


def patches() -> dict[str, Any]:
    """What to replace in pysyncobj.syncobj, and nothing else of it."""
    assert Path(pysyncobj.syncobj.__file__).name == "syncobj.py"
    return {
        "monotonicTime": Surroundings.clock,
        "random": Surroundings,
        "createPoller": lambda _: NoPoller(),
    }


def pickled(value: Any) -> bytes:
    return pickle.dumps(value, 2)
