"""What a node remembers of its membership between restarts: one small file, replaced atomically."""

from __future__ import annotations

import msgspec

from swarmpy.ports import Disk

FILE = "node.json"


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Membership of this node. Addresses are HOST:PORT; `managers` are (node id, address)."""

    node_id: str
    cluster_id: str
    listen: str
    advertise: str
    managers: tuple[tuple[str, str], ...] = ()
    seat: int = 0
    """How often this node gave up a seat in the log: see model.ids.seat_id."""
    logged: bool = False
    """Whether the log of this seat was on the disk: without it, its promises and votes are forgotten."""


def load(disk: Disk) -> Record | None:
    """The record; None outside a cluster. Raises ValueError with a sentence where it is damaged."""
    if not disk.exists(FILE):
        return None
    try:
        return msgspec.json.decode(disk.read(FILE), type=Record)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"this node's membership record is damaged ({error}): leave and join again"
        ) from error


def save(disk: Disk, record: Record) -> None:
    """Keep the record, durably."""
    disk.mkdir("")
    disk.replace(FILE, msgspec.json.encode(record))
