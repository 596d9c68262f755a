"""Every reader of other people's bytes, on the same few hundred inputs each time."""

from __future__ import annotations

import tracemalloc

import pytest

from swarmpy.adapters.wire import codec
from swarmpy.api import body as api_body
from swarmpy.api.errors import HttpError
from tests.fuzz.run import play
from tests.fuzz.targets import TARGETS, Target

EXAMPLES = 100
MIB = 1024 * 1024


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_only_declared_refusals_and_true_round_trips(target: Target) -> None:
    play(target, EXAMPLES)


BOMBS = {
    "array of 4 G": b"\xdd\xff\xff\xff\xff",
    "arrays of 64 M in each other": b"\xdd\x04\x00\x00\x00" * 500,
    "map of 4 G": b"\xdf\xff\xff\xff\xff",
    "text of 4 G": b"\xdb\xff\xff\xff\xff",
    "bytes of 4 G": b"\xc6\xff\xff\xff\xff",
    "a million brackets": b"\x91" * MIB,
    "a million maps": b"\x81\xa0" * (MIB // 2),
}


@pytest.mark.parametrize("name", BOMBS)
def test_lengths_that_lie_cost_nothing(name: str) -> None:
    tracemalloc.start()
    with pytest.raises(codec.FrameError):
        codec.unpack(BOMBS[name])
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert held < 8 * MIB


@pytest.mark.parametrize(
    "data",
    [
        b"[" * MIB,
        b'{"a":' * (MIB // 5),
        b'{"a":' + b"9" * MIB + b"}",
        b'{"a":[' + b"[]," * (MIB // 3) + b"[]]}",
    ],
    ids=["brackets", "objects", "digits", "lists"],
)
def test_a_mebibyte_of_json_costs_little(data: bytes) -> None:
    tracemalloc.start()
    try:
        api_body.parse_object(data)
    except HttpError as error:
        assert error.status == 400
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert held < 64 * MIB
