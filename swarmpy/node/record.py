"""What a node remembers of its membership between restarts: one small file, replaced atomically."""

from __future__ import annotations

import zlib

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


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is in the file: the record, and the CRC-32 of its text. A disk that changes a letter of an id or
    an address would make this another node, which nothing else would notice."""

    record: msgspec.Raw
    crc32: int


def load(disk: Disk) -> Record | None:
    """The record; None outside a cluster. Raises ValueError with a sentence where it is damaged."""
    if not disk.exists(FILE):
        return None
    try:
        found = msgspec.json.decode(disk.read(FILE), type=_File)
        if zlib.crc32(found.record) != found.crc32:
            raise ValueError("its checksum does not match")
        return msgspec.json.decode(found.record, type=Record)
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        raise ValueError(
            f"this node's membership record is damaged ({error}): leave with --force and join again"
        ) from error


def save(disk: Disk, record: Record) -> None:
    """Keep the record, durably."""
    disk.mkdir("")
    text = msgspec.json.encode(record)
    disk.replace(FILE, msgspec.json.encode(_File(msgspec.Raw(text), zlib.crc32(text))))
