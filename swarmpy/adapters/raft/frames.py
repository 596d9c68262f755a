"""Frames: how bytes are laid out in a journal or snapshot file, and how damage is told from a torn tail.

What belongs here: building and reading frames of one file. What does not: files and their meaning
(store.py).

A frame is a header (magic, length, number, CRC32C of the body, CRC32C of the header) and a body, sealed.
The body's CRC continues the one of the frame before, and number and chain are bound into the seal, so a
frame that is lost, repeated or moved is noticed as surely as a flipped bit.

One frame is one append followed by one sync, so only the last frame can be torn. Frames fill whole sectors,
padded with ones: the last frame counts as torn when the file ends before it does, or when one of its sectors
was never written (reads as zeros, which no written sector does but by the content's chance). Anything else
that does not add up was once whole, perhaps acknowledged: it is refused, never cut off.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import google_crc32c

from swarmpy.pki.errors import LockedError, SealError, UnknownKeyError
from swarmpy.pki.seal import Sealing

_HEADER = struct.Struct("<4sIQI")
_CRC = struct.Struct("<I")
HEADER_SIZE = _HEADER.size + _CRC.size
MAGIC = b"SWF1"
_SECTOR = 512
_PADDING = b"\xff"


class CorruptError(ValueError):
    """A file of the log is damaged; the message is a sentence for the operator."""


def crc32c(data: bytes, start: int = 0) -> int:
    """CRC-32C (Castagnoli) of `data`, continuing from `start`."""
    value: int = google_crc32c.extend(start, data)
    return value


class FrameWriter:
    """Builds the frames of one file in order."""

    def __init__(self, sealer: Sealing, context: bytes) -> None:
        self._sealer = sealer
        self._context = context
        self._number = 0
        self._chain = crc32c(context)

    def frame(self, payload: bytes) -> bytes:
        """The next frame."""
        body = self._sealer.seal(payload, _aad(self._context, self._number, self._chain))
        chain = crc32c(body, self._chain)
        header = _HEADER.pack(MAGIC, len(body), self._number, chain)
        self._number += 1
        self._chain = chain
        frame = header + _CRC.pack(crc32c(header)) + body
        return frame.ljust(_padded(len(frame)), _PADDING)


def read_frames(
    data: bytes, sealer: Sealing, context: bytes, *, what: str
) -> Iterator[tuple[int, bytes, int]]:
    """The (number, payload, end in the file) of each whole frame; a torn last frame ends the file.

    Raises CorruptError naming `what`.
    """
    position, number, chain = 0, 0, crc32c(context)
    while position < len(data):
        body = _body(data, position, number, what)
        if body is None:
            return
        end = position + _padded(HEADER_SIZE + len(body))
        found = _HEADER.unpack_from(data, position)[3]
        if crc32c(body, chain) != found:
            if end == len(data) and _unwritten(data, position):
                return
            why = "its checksum does not match"
            if number == 0:
                why += ", or it is the file of another manager, or of another name"
            raise CorruptError(_sentence(what, number, position, why))
        try:
            payload = sealer.open(body, _aad(context, number, chain))
        except LockedError:
            raise
        except UnknownKeyError as error:  # the checksum is right, so it is the key that is wrong
            raise CorruptError(
                f"{what} cannot be opened: {error}; put back the file with the data keys that belongs to "
                "this state directory, or remove this manager from the cluster and join it again as a new "
                "manager with an empty directory"
            ) from error
        except SealError as error:
            raise CorruptError(_sentence(what, number, position, str(error))) from error
        if data[position + HEADER_SIZE + len(body) : end].strip(_PADDING):
            if end == len(data) and _unwritten(data, position):
                return
            raise CorruptError(_sentence(what, number, position, "its padding was changed"))
        yield number, payload, end
        position, number, chain = end, number + 1, found


def _body(data: bytes, position: int, number: int, what: str) -> bytes | None:
    """The body of the frame at `position`; None when it is the torn end of the file."""
    header = data[position : position + HEADER_SIZE]
    if len(header) < HEADER_SIZE:
        return None
    if not _header_ok(header):
        if _unwritten(data, position) and not _frame_after(data, position + 1):
            return None
        raise CorruptError(_sentence(what, number, position, "its header is damaged"))
    _, length, found, _ = _HEADER.unpack_from(header)
    if found != number:
        raise CorruptError(_sentence(what, number, position, f"frame {found} stands in its place"))
    start = position + HEADER_SIZE
    if position + _padded(HEADER_SIZE + length) > len(data):
        return None
    return data[start : start + length]


def _header_ok(header: bytes) -> bool:
    (crc,) = _CRC.unpack_from(header, _HEADER.size)
    return header[:4] == MAGIC and crc32c(header[: _HEADER.size]) == crc


def _frame_after(data: bytes, position: int) -> bool:
    """Whether any frame begins at or after `position`: then what is before it was synced once."""
    starts = range(_padded(position), len(data) - HEADER_SIZE + 1, _SECTOR)
    return any(_header_ok(data[start : start + HEADER_SIZE]) for start in starts)


def _unwritten(data: bytes, start: int) -> bool:
    """Whether some sector from `start` on is all zeros."""
    sectors = range(start, len(data), _SECTOR)
    return any(not any(data[at : at + _SECTOR]) for at in sectors)


def _padded(size: int) -> int:
    return -(-size // _SECTOR) * _SECTOR


def _aad(context: bytes, number: int, chain: int) -> bytes:
    return context + struct.pack("<QI", number, chain)


def _sentence(what: str, number: int, position: int, why: str) -> str:
    return (
        f"{what} is damaged at byte {position} (frame {number}): {why}; this manager cannot trust its "
        "disk: remove it from the cluster and join it again as a new manager with an empty directory"
    )
