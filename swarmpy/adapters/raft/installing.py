"""Snapshots between members: sent in pieces at the receiver's pace, installed whole or not at all.

What belongs here: the pieces, their answers, and taking over a received snapshot. What does not: making
and storing snapshots (node.py, store.py).
"""

from __future__ import annotations

import logging
from typing import Any

from pysyncobj.node import Node

from swarmpy.adapters.raft.frames import crc32c
from swarmpy.adapters.raft.replication import Replication
from swarmpy.adapters.raft.state import Drop, SnapshotSend
from swarmpy.adapters.raft.store import Snapshot

logger = logging.getLogger(__name__)


class Installing(Replication):
    """Defects fixed: SyncObj's pieces have no offset and no checksum; a snapshot that failed to load was
    acknowledged; and while one arrived, the follower's own, different entries were taken as committed."""

    def __init__(self, *args: Any) -> None:
        self.blob: tuple[int, bytes] | None = None
        self.blob_wanted = False
        self._incoming: tuple[int, int, int] | None = None
        self._received = bytearray()
        super().__init__(*args)

    # -------------------------------------------------- the leader's side

    def oldest_transfer(self) -> int | None:
        """The least index of the snapshots that are on their way to a member."""
        indexes = [p.snapshot.index for p in self.progress.values() if p.snapshot is not None]
        return min(indexes, default=None)

    def give_blob(self, index: int, blob: bytes) -> None:
        """The node read the newest snapshot from disk, because `blob_wanted`."""
        self.blob = (index, blob)
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
            data = transfer.blob[transfer.sent : transfer.sent + self.settings.chunk]
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
        index, blob = self.blob
        self.rewind(node, self.next_index[node])
        self.progress[node.id].snapshot = SnapshotSend(index, blob, crc32c(blob), moved=self.now)
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
        """Take a piece; with the last one, load the snapshot and acknowledge only if that worked."""
        if not self.accept_leader(node, message):
            return
        total = message["total"]
        if message["index"] <= self.commit_index:
            self._answer_install(node, message, total)
            return
        key = (message["index"], total, message["crc"])
        if self._incoming != key:
            self._incoming = key
            self._received = bytearray()
        fits = len(message["data"]) <= total - message["offset"]
        if total > self.settings.max_snapshot or not fits:
            self._refuse(node, "its size is out of bounds")
            return
        if message["offset"] == len(self._received):
            self._received += message["data"]
        arrived = len(self._received)
        if arrived < total or self._install(node, message):
            self._answer_install(node, message, arrived)

    def _install(self, node: Node, message: dict[str, Any]) -> bool:
        blob = bytes(self._received)
        self._incoming, self._received = None, bytearray()
        try:
            if crc32c(blob) != message["crc"]:
                raise ValueError("its checksum does not match")
            snapshot = Snapshot.from_blob(blob)
            if snapshot.index != message["index"]:
                raise ValueError(f"it is that of index {snapshot.index}")
            self.machine.load(snapshot.image)
        except ValueError as error:
            self._refuse(node, str(error))
            return False
        self.log.reset_to_snapshot(snapshot.index, snapshot.term, blob)
        self.commit_index = self.applied_index = snapshot.index
        self.memberships = [(snapshot.index, snapshot.membership)]
        self.read_memberships(snapshot.index + 1)
        return True

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
