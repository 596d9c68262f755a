"""Snapshots between members: sent in pieces at the receiver's pace, installed whole or not at all.

What belongs here: the pieces, their answers, and taking over a received snapshot. What does not: making,
decoding and storing snapshots (engine.py, store.py), which takes long and so happens beside the turns.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pysyncobj.node import Node

from swarmpy.adapters.raft.blob import Snapshot, checksum
from swarmpy.adapters.raft.replication import Replication
from swarmpy.adapters.raft.state import LEADER, Drop, SnapshotSend
from swarmpy.ports import Image

logger = logging.getLogger(__name__)


Key = tuple[int, int, int]
"""Which snapshot it is: its index, size and checksum."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """A snapshot that arrived whole, with the message that brought the last piece."""

    node: Node
    message: dict[str, Any]
    key: Key
    blob: Image

    def opened(self) -> Snapshot:
        """Checked and taken apart. Raises ValueError."""
        if checksum(self.blob) != self.message["crc"]:
            raise ValueError("its checksum does not match")
        snapshot = Snapshot.from_blob(self.blob)
        if snapshot.index != self.message["index"]:
            raise ValueError(f"it is that of index {snapshot.index}")
        return snapshot


class Installing(Replication):
    """Defects fixed: SyncObj's pieces have no offset and no checksum; a snapshot that failed to load was
    acknowledged; and while one arrived, the follower's own, different entries were taken as committed."""

    def __init__(self, *args: Any) -> None:
        self.blob: tuple[int, Image, int] | None = None
        """The newest snapshot that is durable here: its index, itself, its checksum."""
        self.blob_wanted = False
        self._incoming: Key | None = None
        self._received = bytearray()
        self.arrived: list[Arrived] = []
        """To be made ready for `install` by the engine."""
        self._preparing: Key | None = None
        super().__init__(*args)

    # -------------------------------------------------- the leader's side

    def oldest_transfer(self) -> int | None:
        """The least index of the snapshots that are on their way to a member."""
        indexes = [p.snapshot.index for p in self.progress.values() if p.snapshot is not None]
        return min(indexes, default=None)

    def give_blob(self, index: int, blob: Image, crc: int) -> None:
        """The node read the newest snapshot from disk, because `blob_wanted`."""
        self.blob = (index, blob, crc)
        self.blob_wanted = False

    def feed_snapshot(self, node: Node) -> bool:
        """Send the pieces that the window allows; whether any was sent."""
        progress = self.progress[node.id]
        if progress.snapshot is None and not self._begin(node):
            return False
        transfer = progress.snapshot
        assert transfer is not None
        if self.now - transfer.moved > 3 * self.settings.resend:
            transfer.sent, transfer.moved = transfer.acked, self.now
        window = self.settings.chunk * self.settings.chunks_in_flight
        sent = False
        while transfer.sent < len(transfer.blob) and transfer.sent - transfer.acked < window:
            data = bytes(transfer.blob[transfer.sent : transfer.sent + self.settings.chunk])
            self.send(
                node,
                "install",
                term=self.term,
                index=transfer.index,
                total=len(transfer.blob),
                crc=transfer.crc,
                offset=transfer.sent,
                data=data,
                seq=self.next_seq(),
            )
            transfer.sent += len(data)
            sent = True
        return sent

    def _begin(self, node: Node) -> bool:
        if self.blob is None or self.blob[0] < self.base_index:
            self.blob_wanted = True
            return False
        index, blob, crc = self.blob
        self.rewind(node, self.next_index[node])
        self.progress[node.id].snapshot = SnapshotSend(index, blob, crc, moved=self.now)
        return True

    def on_installed(self, node: Node, message: dict[str, Any]) -> None:
        """The follower has this much of the snapshot; all of it means installed and on its disk."""
        if not self.is_answer(node, message):
            return
        progress = self.progress[node.id]
        transfer = progress.snapshot
        if transfer is None or transfer.index != message["index"]:
            return
        offset = message["offset"]
        if offset > len(transfer.blob):
            return
        if offset == len(transfer.blob):
            progress.snapshot = None
            self.matched(node, transfer.index)
            self.rewind(node, max(transfer.index, self.match_index[node]) + 1)
        elif offset > transfer.acked:
            transfer.acked, transfer.moved = offset, self.now
            # A member that had a part from before a broken connection says so: go on from there.
            transfer.sent = max(transfer.sent, offset)
        self.feed(node)

    # -------------------------------------------------- the follower's side

    def on_install(self, node: Node, message: dict[str, Any]) -> None:
        """Take a piece. The last one is acknowledged only when the snapshot is installed."""
        if not self.accept_leader(node, message):
            return
        total = message["total"]
        if message["index"] <= self.commit_index:
            self._answer_install(node, message, total)
            return
        key = (message["index"], total, message["crc"])
        if self._preparing == key:
            return  # answered when that is done
        if self._incoming != key:
            self._incoming = key
            self._received = bytearray()
        fits = len(message["data"]) <= total - message["offset"]
        if total > self.settings.max_snapshot or not fits:
            self._refuse(node, "its size is out of bounds")
            return
        if message["offset"] == len(self._received):
            self._received += message["data"]
        if len(self._received) < total:
            self._answer_install(node, message, len(self._received))
            return
        self.arrived.append(Arrived(node, message, key, self._received))
        self._incoming, self._received, self._preparing = None, bytearray(), key

    def install(self, arrived: Arrived, snapshot: Snapshot, take: Callable[[], None]) -> None:
        """Take over what arrived, now that it is checked, decoded and durable. The log may have come as far
        without it; and who leads by now has all that was ever committed."""
        if self._preparing == arrived.key:
            self._preparing = None
        if self.raft_state == LEADER:
            return
        if snapshot.index > self.commit_index:
            take()
            self.log.reset_to_snapshot(snapshot.index, snapshot.term)
            self.commit_index = self.applied_index = snapshot.index
            self.memberships = [(snapshot.index, snapshot.membership)]
            self.read_memberships(snapshot.index + 1)
        self._answer_install(arrived.node, arrived.message, len(arrived.blob))

    def refuse_install(self, arrived: Arrived, why: str) -> None:
        """What arrived is no snapshot: nothing of it is kept."""
        if self._preparing == arrived.key:
            self._preparing = None
        self._refuse(arrived.node, why)

    def _refuse(self, node: Node, why: str) -> None:
        logger.error("a snapshot from %s was not installed: %s", node.id, why)
        self._incoming, self._received = None, bytearray()
        self.outbox.append(Drop(node.id))

    def _answer_install(self, node: Node, message: dict[str, Any], offset: int) -> None:
        self.send(
            node,
            "installed",
            term=self.term,
            index=message["index"],
            offset=offset,
            seq=message["seq"],
        )
