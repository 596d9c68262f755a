from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmpy.pki import seal
from swarmpy.pki.errors import LockedError, SealError
from swarmpy.pki.seal import DataKeys, PlainSealer, Sealer

KEY, OTHER = bytes(range(32)), bytes(32)
SEALER = Sealer(KEY)


@pytest.mark.parametrize("sealer", [SEALER, PlainSealer()], ids=["real", "plain"])
@settings(max_examples=60)
@given(data=st.binary(max_size=200), aad=st.binary(max_size=40), other=st.binary(max_size=40))
def test_round_trip_and_context(sealer, data: bytes, aad: bytes, other: bytes) -> None:
    sealed = sealer.seal(data, aad)
    assert sealer.open(sealed, aad) == data
    if other != aad:
        with pytest.raises(SealError):
            sealer.open(sealed, other)


@settings(max_examples=200)
@given(st.data())
def test_every_bit_counts(data) -> None:
    sealed = bytearray(SEALER.seal(b"some secret text", b"here"))
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(SealError):
        SEALER.open(bytes(sealed), b"here")


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_any_bytes_do_not_open(data: bytes) -> None:
    for sealer in (SEALER, PlainSealer()):
        with pytest.raises(SealError):
            sealer.open(data)


def test_sizes_and_difference() -> None:
    one, two = SEALER.seal(b"x"), SEALER.seal(b"x")
    assert one != two
    assert len(one) == 1 + seal.OVERHEAD
    assert b"secret text" not in SEALER.seal(b"secret text")


def test_another_process_opens_it_and_another_key_does_not() -> None:
    sealed = SEALER.seal(b"x")
    assert Sealer(KEY).open(sealed) == b"x"
    with pytest.raises(SealError, match="does not have"):
        Sealer(OTHER).open(sealed)
    assert Sealer(OTHER, KEY).open(sealed) == b"x"


def test_salts_change_before_nonces_wear_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seal, "_MESSAGES_PER_SALT", 3)
    sealer = Sealer(KEY)
    made = [sealer.seal(b"x") for _ in range(300)]
    assert len({one[:21] for one in made}) == 100
    assert all(sealer.open(one) == b"x" for one in made)


def test_key_sizes() -> None:
    for keys in ((), (b"short",)):
        with pytest.raises(SealError):
            Sealer(*keys)


def test_without_autolock_the_file_opens_itself(store) -> None:
    made = DataKeys.create(store)
    assert DataKeys.load(store) == made
    assert made.sealer().open(DataKeys.load(store).sealer().seal(b"x")) == b"x"
    with pytest.raises(SealError, match="already has a data key"):
        DataKeys.create(store)


def test_autolock(store) -> None:
    kek = b"k" * 32
    made = DataKeys.create(store, kek)
    with pytest.raises(LockedError, match="locked"):
        DataKeys.load(store)
    with pytest.raises(SealError, match="not this cluster's current one"):
        DataKeys.load(store, b"x" * 32)
    assert DataKeys.load(store, kek).keys == made.keys
    text = store.files[seal.KEY_FILE].decode()
    assert "kek" not in json.loads(text)
    assert repr(made).count("b'") == 0


def test_turning_autolock_on_and_off_keeps_the_data(store) -> None:
    sealed = DataKeys.create(store).sealer().seal(b"x")
    on = DataKeys.load(store).locked_by(b"k" * 32)
    on.save(store)
    rotated = DataKeys.load(store, b"k" * 32).locked_by(b"n" * 32)
    rotated.save(store)
    with pytest.raises(SealError):
        DataKeys.load(store, b"k" * 32)
    assert DataKeys.load(store, b"n" * 32).sealer().open(sealed) == b"x"
    DataKeys.load(store, b"n" * 32).unlocked().save(store)
    off = DataKeys.load(store)
    assert off.sealer().open(sealed) == b"x"
    assert off.kek != b"n" * 32


def test_rotating_the_data_key(store) -> None:
    first = DataKeys.create(store)
    old = first.sealer().seal(b"x")
    second = first.rotated()
    second.save(store)
    loaded = DataKeys.load(store)
    assert loaded.sealer().open(old) == b"x"
    new = loaded.sealer().seal(b"y")
    with pytest.raises(SealError):
        first.sealer().open(new)
    last = loaded.newest_only()
    assert last.sealer().open(new) == b"y"
    with pytest.raises(SealError):
        last.sealer().open(old)


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b'{"autolock": false, "keys": [], "kek": ""}',
        b'{"autolock": true, "keys": ["AAAA"]}',
        b'{"autolock": false, "keys": 3, "kek": "AAAA"}',
        b'{"autolock": false, "keys": ["AAAA"], "kek": "AAAA"}',
    ],
)
def test_a_damaged_file_is_a_sentence(store, damage: bytes) -> None:
    store.files[seal.KEY_FILE] = damage
    with pytest.raises(SealError):
        DataKeys.load(store, b"k" * 32)


def test_no_file(store) -> None:
    with pytest.raises(SealError, match="has not joined"):
        DataKeys.load(store)
