"""The codec: typed structs to bytes and back, strict about types, with the path of what is wrong.

Used for log entries, images of the world and commands between managers. What does not belong here: frames,
checksums and sealing (adapters/raft), untyped bodies (adapters/wire).
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

_ENCODER = msgspec.msgpack.Encoder()
_DECODERS: dict[Any, msgspec.msgpack.Decoder[Any]] = {}


class CodecError(ValueError):
    """The bytes are not what they should be; the text names the path."""


def encode(value: Any) -> bytes:
    """msgpack of a struct or of builtins."""
    return _ENCODER.encode(value)


def decode(kind: type[T], data: bytes | memoryview) -> T:
    """Decode and check types. Raises CodecError with the path of what is wrong."""
    result: T = decode_any(kind, data)
    return result


def decode_any(kind: Any, data: bytes | memoryview) -> Any:
    """`decode` for what is not a class, such as a union."""
    decoder = _DECODERS.get(kind)
    if decoder is None:
        decoder = _DECODERS[kind] = msgspec.msgpack.Decoder(kind)
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CodecError(f"cannot decode {getattr(kind, '__name__', kind)}: {error}") from None
