from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmpy.pki import tokens
from swarmpy.pki.errors import TokenError, WrongClusterError

DIGEST = hashlib.sha256(b"root").digest()


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=16, max_size=16))
def test_round_trip(digest: bytes, secret: bytes) -> None:
    text = tokens.make_token(digest, lambda size: secret)
    assert len(text) == len("SWMTKN-1-") + 50 + 1 + 25
    assert tokens.parse_token(text) == tokens.JoinToken(digest, secret)
    assert text == tokens.parse_token(text).text()


def test_the_form_is_swarms() -> None:
    # Base 36 of the largest values, by hand: 36^50 > 2^256 and 36^25 > 2^128.
    text = tokens.make_token(b"\xff" * 32, lambda size: b"\x00" * 15 + b"\x24")
    assert text.startswith("SWMTKN-1-6dp5qcb22im238nr3wvp0ic7q99w035jmy2iw7i6n43d37jtof-")
    assert text.endswith("-" + "0" * 23 + "10")


def test_secrets_are_not_shown() -> None:
    token = tokens.parse_token(tokens.make_token(DIGEST, lambda size: b"\xaa" * size))
    assert "aa" not in repr(token).split("digest")[1].rpartition("'")[2]
    assert "secret" not in repr(token)


@given(st.text(max_size=120))
def test_any_text_is_a_token_or_refused(text: str) -> None:
    for read in (tokens.parse_token, tokens.parse_unlock_key):
        with pytest.raises(TokenError) as caught:
            read(text)
        assert len(text) < 12 or text not in str(caught.value)


@given(st.text("0123456789abcdefghijklmnopqrstuvwxyz", min_size=50, max_size=50),
       st.text("0123456789abcdefghijklmnopqrstuvwxyz", min_size=25, max_size=25))  # fmt: skip
def test_any_digits_are_a_token_or_too_large(digest: str, secret: str) -> None:
    text = f"SWMTKN-1-{digest}-{secret}"
    if int(digest, 36) < 1 << 256 and int(secret, 36) < 1 << 128:
        assert tokens.parse_token(text).text() == text
    else:
        with pytest.raises(TokenError, match="too large"):
            tokens.parse_token(text)


def test_roles_by_secret() -> None:
    kept = {role: tokens.make_token(DIGEST) for role in ("worker", "manager")}
    for role, text in kept.items():
        assert tokens.role_of_token(text, kept) == role
    with pytest.raises(TokenError, match="not current"):
        tokens.role_of_token(tokens.make_token(DIGEST), kept)
    with pytest.raises(WrongClusterError, match="another cluster"):
        tokens.role_of_token(tokens.make_token(hashlib.sha256(b"x").digest()), kept)
    stolen = kept["manager"].replace(kept["manager"][9:59], tokens.make_token(bytes(32))[9:59])
    with pytest.raises(WrongClusterError):
        tokens.role_of_token(stolen, kept)
    with pytest.raises(TokenError, match="invalid join token"):
        tokens.role_of_token(kept["worker"] + " ", kept)


def test_digest_check() -> None:
    token = tokens.parse_token(tokens.make_token(DIGEST))
    token.check_digest(DIGEST)
    with pytest.raises(WrongClusterError, match="belongs to another cluster"):
        token.check_digest(bytes(32))


@given(st.binary(min_size=32, max_size=32))
def test_unlock_keys(key: bytes) -> None:
    text = tokens.unlock_key_text(key)
    assert text.startswith("SWMKEY-1-")
    assert not text.endswith("=")
    assert tokens.parse_unlock_key(text) == key


def test_one_text_per_unlock_key() -> None:
    text = tokens.unlock_key_text(bytes(32))
    with pytest.raises(TokenError):
        tokens.parse_unlock_key(text[:-1] + "B")
    assert tokens.make_unlock_key() != tokens.make_unlock_key()
