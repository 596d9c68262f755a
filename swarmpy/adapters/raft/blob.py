"""Snapshots as bytes: what is on the disk, and what goes to members that are far behind.

What belongs here: the layout of a snapshot, its checksum, reading it. What does not: files (store.py), pieces
on their way (installing.py), what the image means (the machine).

A snapshot may have a hundred megabytes. Copying those in one call takes as long as a loop may stand still, so
everything here goes by pieces, and what is read is looked at where it lies.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import msgpack

from swarmpy.adapters.raft.config import Membership
from swarmpy.adapters.raft.frames import crc32c
from swarmpy.ports import Image

_FORMAT = 1
PIECE = 1024 * 1024
"""Bytes that are copied in one call."""
_HEAD = 1024 * 1024
"""What comes before the image is shorter."""
_SIZES = {0xC4: struct.Struct(">B"), 0xC5: struct.Struct(">H"), 0xC6: struct.Struct(">I")}
"""How msgpack says the length of bytes, by the byte before it."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The machine's state after the entry at `index`, and the membership then."""

    index: int
    term: int
    membership: Membership
    image: Image

    def to_blob(self) -> bytearray:
        """As bytes, for the disk and for other members: msgpack of [format, index, term, membership,
        image]."""
        head = [_FORMAT, self.index, self.term, self.membership.to_wire()]
        blob = bytearray(b"\x95" + b"".join(map(msgpack.packb, head)))
        blob += b"\xc6" + _SIZES[0xC6].pack(len(self.image))
        for piece in pieces(self.image):
            blob += piece
        return blob

    @staticmethod
    def from_blob(blob: Image) -> Snapshot:
        """From `to_blob`; the image is a view of the blob. Raises ValueError."""
        view = memoryview(blob)
        unpacker = msgpack.Unpacker(max_buffer_size=_HEAD)
        unpacker.feed(view[:_HEAD])
        try:
            if unpacker.read_array_header() != 5:
                raise ValueError("not a snapshot")
            form, index, term, membership = (unpacker.unpack() for _ in range(4))
        except Exception as error:  # msgpack raises half a dozen unrelated classes
            raise ValueError("not a snapshot") from error
        if form != _FORMAT or type(index) is not int or type(term) is not int:
            raise ValueError("not a snapshot of a known format")
        return Snapshot(index, term, Membership.from_wire(membership), _image(view[unpacker.tell() :]))


def _image(view: memoryview) -> memoryview:
    size = _SIZES.get(view[0]) if view else None
    if size is None or len(view) < 1 + size.size:
        raise ValueError("not a snapshot: the image is missing")
    image = view[1 + size.size :]
    if size.unpack_from(view, 1)[0] != len(image):
        raise ValueError("not a snapshot: its length is wrong")
    return image


def pieces(data: Image) -> Iterator[bytes]:
    """The data in pieces."""
    view = memoryview(data)
    return (bytes(view[at : at + PIECE]) for at in range(0, len(view), PIECE))


def checksum(blob: Image) -> int:
    """CRC-32C of all of it."""
    crc = 0
    for piece in pieces(blob):
        crc = crc32c(piece, crc)
    return crc
