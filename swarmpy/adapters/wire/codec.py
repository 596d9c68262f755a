"""Bytes of the wire: msgpack bodies, refusals and channel frames.

What belongs here: packing and strict unpacking. What does not: meaning of bodies (their handlers), limits per
method (pki.rpc).
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

import msgspec

from swarmpy.model.errors import Refusal as ModelRefusal
from swarmpy.pki import rpc
from swarmpy.ports import (
    AmbiguousError,
    Body,
    NoQuorumError,
    NotLeaderError,
    RefusedError,
)

CONTENT_TYPE = "application/msgpack"
SLACK = 4096
"""What frames and refusals may need beyond a body's own limit."""

HELLO = 0
ACCEPT = 1
REFUSE = 2
DATA = 3
CREDIT = 4
"""Kinds of channel frames: [HELLO, body, window], [ACCEPT, window], [REFUSE, refusal], [DATA, body],
[CREDIT, bytes]. A window or credit is how many more bytes of DATA frames the sender will take."""


class FrameError(ValueError):
    """Bytes that are not what the wire carries."""


def pack(value: Any) -> bytes:
    """Msgpack. Raises TypeError, ValueError or OverflowError for what bodies cannot carry."""
    return msgspec.msgpack.encode(value)


def unpack(data: bytes) -> Any:
    """One msgpack value filling `data`. Raises FrameError."""
    try:
        value = _DECODER.decode(data)
        # The library decodes timestamps by itself. Their first bytes may also be part of a text or of bytes.
        if any(form in data for form in _TIMESTAMPS):
            _refuse_moments(value)
        return value
    except (ValueError, TypeError, RecursionError) as error:
        raise FrameError("the bytes are not a msgpack body") from error


def unpack_body(data: bytes) -> dict[str, Any]:
    """A body: a mapping of str. Raises FrameError."""
    return as_body(unpack(data))


def as_body(value: Any) -> dict[str, Any]:
    """The value, if it is a body. Raises FrameError."""
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise FrameError("the body is not a mapping of names to values")
    return value


def unpack_frame(data: bytes) -> tuple[int, list[Any]]:
    """A channel frame: its kind and the rest. Raises FrameError."""
    frame = unpack(data)
    if not isinstance(frame, list) or not frame or type(frame[0]) is not int:
        raise FrameError("the message is not a channel frame")
    return frame[0], frame[1:]


def refused(refusal: rpc.Refusal) -> RefusedError:
    """A refusal of the table as the exception of the port; its reason is in `data`."""
    return RefusedError(refusal.code, refusal.message, {"reason": refusal.reason})


def refuse(reason: str, message: str) -> RefusedError:
    """A refusal of the wire itself."""
    return refused(rpc.Refusal(reason, message))


def refusal_of(error: BaseException) -> RefusedError | None:
    """What a handler's exception says to the other side; None for what it did not mean to say."""
    if isinstance(error, RefusedError):
        return error
    if isinstance(error, ModelRefusal):
        return RefusedError(type(error).__name__, error.message)
    if isinstance(error, NotLeaderError):
        data = {"reason": "not_leader", "leader": error.leader}
        return RefusedError("Unavailable", str(error), data)
    if isinstance(error, AmbiguousError):
        return RefusedError("Ambiguous", str(error), {"reason": "ambiguous"})
    if isinstance(error, NoQuorumError):
        return RefusedError("Unavailable", str(error), {"reason": "no_quorum"})
    return None


def refusal_body(error: RefusedError) -> dict[str, Any]:
    """A refusal as it travels."""
    return {"code": error.code, "message": error.message, "data": error.data}


def refusal_from(value: Mapping[str, Any]) -> RefusedError:
    """A refusal as it arrived; the other side's nonsense becomes an Internal one."""
    code, message, data = value.get("code"), value.get("message"), value.get("data")
    if not isinstance(code, str) or not isinstance(message, str):
        return RefusedError("Internal", "the other node refused without saying why")
    return RefusedError(code, message, data if isinstance(data, dict) else None)


def pack_refusal(error: RefusedError) -> bytes:
    """A refusal's bytes; a refusal with unpackable data travels without it."""
    try:
        return pack(refusal_body(error))
    except (TypeError, ValueError, OverflowError):
        return pack({"code": error.code, "message": error.message, "data": {}})


def plain_body(body: Body) -> dict[str, Any]:
    """Any mapping as the dict that msgpack wants."""
    return body if isinstance(body, dict) else dict(body)


def _no_extension(code: int, data: memoryview) -> Any:
    raise ValueError("extension types are not part of the wire")


_TIMESTAMPS = (b"\xd6\xff", b"\xd7\xff", b"\xc7\x0c\xff")


def _refuse_moments(value: Any) -> None:
    if isinstance(value, datetime.datetime):
        raise ValueError("extension types are not part of the wire")
    if isinstance(value, dict):
        for key, item in value.items():
            _refuse_moments(key)
            _refuse_moments(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _refuse_moments(item)


_DECODER = msgspec.msgpack.Decoder(ext_hook=_no_extension)
