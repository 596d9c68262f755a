"""Strategies for hostile bytes: msgpack of every form, JSON as others spell it, damage to what was good.

What does not belong here: what the readers of these bytes promise (targets.py).
"""

from __future__ import annotations

import json
import struct
import types
from enum import Enum
from typing import Any, Union, get_args, get_origin

import msgpack
import msgspec
from hypothesis import strategies as st

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
    | st.binary(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.text(st.characters(exclude_categories=("Cs",)), max_size=10), inner, max_size=5)
    ),
    max_leaves=20,
)
"""Everything that a body of the wire may hold."""

BODIES = st.dictionaries(st.text(st.characters(exclude_categories=("Cs",)), max_size=10), PLAIN, max_size=6)

_SCALARS_OF = {
    int: st.integers(-(2**63), 2**63 - 1),
    str: st.text(st.characters(exclude_categories=("Cs",)), max_size=12),
    float: st.floats(allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
    bytes: st.binary(max_size=12),
    type(None): st.none(),
}


def of(kind: Any) -> st.SearchStrategy[Any]:
    """Values of a type of the model: structs with every field drawn, and what they are made of."""
    if kind in _SCALARS_OF:
        return _SCALARS_OF[kind]
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return st.one_of(*map(of, parts))
    if origin is tuple and parts[-1:] == (...,):
        return st.lists(of(parts[0]), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*map(of, parts))
    if origin is dict:
        return st.dictionaries(of(parts[0]), of(parts[1]), max_size=3)
    if issubclass(kind, msgspec.Struct):
        fields = {one.name: of(one.type) for one in msgspec.structs.fields(kind)}
        return st.builds(kind, **fields)
    assert issubclass(kind, Enum), kind
    return st.sampled_from(list(kind))


_LENGTHS = st.sampled_from([0, 1, 2, 31, 255, 65_535, 2**24, 2**31 - 1, 2**31, 2**32 - 1])
_HEADS = st.one_of(
    # Containers and texts that promise more than they hold, in each form that has a length.
    st.builds(
        lambda kind, length: bytes([kind]) + struct.pack(">I", length),
        st.sampled_from([0xDD, 0xDF, 0xDB, 0xC6, 0xC9]),
        _LENGTHS,
    ),
    st.builds(
        lambda kind, length: bytes([kind]) + struct.pack(">H", length & 0xFFFF),
        st.sampled_from([0xDC, 0xDE, 0xDA, 0xC5, 0xC8]),
        _LENGTHS,
    ),
    st.builds(
        lambda kind, length: bytes([kind, length & 0xFF]), st.sampled_from([0xD9, 0xC4, 0xC7]), _LENGTHS
    ),
    # Extensions, of which timestamps (-1) are the one that libraries know.
    st.builds(
        lambda form, code, data: form[0] + code + data[: form[1]],
        st.sampled_from(
            [(b"\xd4", 1), (b"\xd5", 2), (b"\xd6", 4), (b"\xd7", 8), (b"\xc7\x0c", 12), (b"\xd8", 9)]
        ),
        st.sampled_from([b"\xff", b"\x00", b"\x05"]),
        st.sampled_from([bytes(16), b"\xff" * 16, bytes(3) + b"\x01" * 13]),
    ),
    st.binary(max_size=4),
    st.integers(0, 255).map(lambda byte: bytes([byte])),
)
MSGPACK_LIKE = st.one_of(
    _HEADS,
    st.builds(lambda around, one: around + one, st.sampled_from([b"\x91", b"\x81\xa0", b"\x81"]), _HEADS),
    st.lists(_HEADS, max_size=12).map(b"".join),
    st.builds(
        lambda one, times, tail: one * times + tail, _HEADS, st.integers(1, 3000), st.binary(max_size=4)
    ),
)


@st.composite
def damaged(draw: st.DrawFn, good: bytes) -> bytes:
    """The bytes with a few changes: flipped, cut out, doubled, inserted, cut off."""
    data = bytearray(good)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        how = draw(st.sampled_from(["flip", "cut", "insert", "double", "end", "zero"]))
        if how == "flip" and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif how == "cut":
            del data[at : at + draw(st.integers(1, 64))]
        elif how == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=8))
        elif how == "double":
            data[at:at] = data[at : at + draw(st.integers(1, 64))]
        elif how == "zero":
            data[at : at + 512] = bytes(len(data[at : at + 512]))
        else:
            del data[at:]
    return bytes(data)


def packed(values: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    """Msgpack of the values, whole and damaged, and what only looks like msgpack."""
    good = values.map(lambda value: bytes(msgpack.packb(value)))
    return st.one_of(good, good.flatmap(damaged), MSGPACK_LIKE, st.binary(max_size=200))


_ODD_JSON = st.sampled_from(
    ["NaN", "-Infinity", "1e400", "-1e400", "9" * 5000, "1." + "0" * 5000, '"\\ud800"', '"\\udc00x"', "-0", "1E5",
     "18446744073709551615", "18446744073709551616", "-9223372036854775809", '"\\u0000"', "nul", "'x'", "[1,]",
     "{,}", "[" * 60 + "]" * 60, "[" * 300 + "]" * 300, '{"a":' * 5000, "\ufeff1", "0x10", "1_0", '"\t"', "//"]
)  # fmt: skip
_WORDS = st.sampled_from(
    ["Name", "Labels", "TaskTemplate", "ContainerSpec", "Image", "Mode", "Replicated", "Replicas", "Global",
     "EndpointSpec", "Ports", "TargetPort", "UpdateConfig", "Parallelism", "Role", "Availability", "Args",
     "Placement", "Constraints", "Mounts", "Resources", "Limits", "NanoCPUs", "RestartPolicy", "Condition",
     "Healthcheck", "Test", "Env", "ListenAddr", "RemoteAddrs", "JoinToken", "Spec", "name", "id", "label",
     "role", "node", "service", "desired-state", "mode", "Orchestration", "Raft", "CAConfig", "Dispatcher"]
)  # fmt: skip
_SCALARS = st.one_of(
    _ODD_JSON,
    st.none().map(json.dumps),
    st.booleans().map(json.dumps),
    st.integers(-(2**70), 2**70).map(json.dumps),
    st.floats().map(json.dumps),
    st.text(max_size=12).map(json.dumps),
    st.sampled_from(["web", "nginx", "active", "drain", "manager", "any", "none", "running"]).map(json.dumps),
)


def _object(pairs: list[tuple[str, str]]) -> str:
    return "{" + ",".join(f"{json.dumps(key)}:{value}" for key, value in pairs) + "}"


JSON_TEXTS = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda items: "[" + ",".join(items) + "]"),
        # Pairs and not a dict: keys may come twice.
        st.lists(st.tuples(_WORDS | st.text(max_size=5), inner), max_size=6).map(_object),
    ),
    max_leaves=25,
)
"""JSON as text, valid or nearly so, with the words of our specs."""

JSON_BYTES = st.one_of(
    JSON_TEXTS.map(lambda text: text.encode("utf-8", "surrogatepass")),
    JSON_TEXTS.map(lambda text: text.encode("utf-8", "surrogatepass")).flatmap(damaged),
    st.binary(max_size=50),
)
