"""Join tokens and unlock keys: the two texts that people copy between machines.

What belongs here: making, reading and comparing them. What does not: where they are stored. Docker shows the
join tokens again (`swarm join-token`), so the cluster's state must keep them in clear; that state is sealed
at rest (see `seal`) and its tokens must be left out of every log and diff.

Formats as in Docker Swarm: `SWMTKN-1-<SHA-256 of the CA bundle, base 36, 50 digits>-<16 random bytes,
base 36, 25 digits>` and `SWMKEY-1-<32 random bytes, base 64 without padding>`.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from swarmpy.pki.errors import TokenError, WrongClusterError

SECRET_BYTES = 16
DIGEST_BYTES = 32
KEK_BYTES = 32

_DIGEST_DIGITS = 50
_SECRET_DIGITS = 25
_TOKEN = re.compile(r"SWMTKN-1-([0-9a-z]{50})-([0-9a-z]{25})")
_KEY = re.compile(r"SWMKEY-1-([A-Za-z0-9+/]{43})")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"

Random = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class JoinToken:
    """What a join token says: the CA's digest (32 bytes) and the role's secret (16 bytes)."""

    digest: bytes
    secret: bytes = field(repr=False)

    def text(self) -> str:
        """The token as people copy it."""
        return f"SWMTKN-1-{_base36(self.digest, _DIGEST_DIGITS)}-{_base36(self.secret, _SECRET_DIGITS)}"

    def check_digest(self, digest: bytes) -> None:
        """Raises WrongClusterError unless the token pins this CA digest."""
        if not hmac.compare_digest(self.digest, digest):
            raise WrongClusterError(
                "the join token belongs to another cluster: its CA digest does not match the CA at "
                "this address; check the address, or ask a manager for the token with 'join-token'"
            )


def make_token(ca_digest: bytes, random: Random = os.urandom) -> str:
    """A fresh join token for the CA with this digest (see `ca.digest`)."""
    if len(ca_digest) != DIGEST_BYTES:
        raise TokenError(f"a CA digest has {DIGEST_BYTES} bytes, not {len(ca_digest)}")
    return JoinToken(ca_digest, random(SECRET_BYTES)).text()


def parse_token(text: str) -> JoinToken:
    """Read a token. Raises TokenError; the message never repeats the text, which may be a secret."""
    found = _TOKEN.fullmatch(text)
    if found is None:
        raise TokenError(
            "invalid join token: it should look like SWMTKN-1-<50 characters>-<25 characters>; "
            "copy the whole token that 'join-token' prints"
        )
    return JoinToken(
        _bytes(found[1], DIGEST_BYTES, "join token"),
        _bytes(found[2], SECRET_BYTES, "join token"),
    )


def role_of_token(text: str, tokens: Mapping[str, str]) -> str:
    """The role that a presented token grants, among the cluster's `tokens` (role to token text).

    All tokens are compared, in constant time. Raises TokenError (malformed, or its secret is not current)
    or WrongClusterError.
    """
    given = parse_token(text)
    granted = ""
    known = False
    for role, kept_text in tokens.items():
        kept = parse_token(kept_text)
        same_digest = hmac.compare_digest(given.digest, kept.digest)
        known |= same_digest
        if same_digest & hmac.compare_digest(given.secret, kept.secret):
            granted = role
    if granted:
        return granted
    if not known:
        raise WrongClusterError(
            "the join token belongs to another cluster: check the address, or ask a manager of this "
            "cluster for the token with 'join-token'"
        )
    raise TokenError(
        "a valid join token is necessary to join this cluster: this one's secret is not current, "
        "perhaps it was rotated; ask a manager for the token with 'join-token'"
    )


def make_unlock_key(random: Random = os.urandom) -> str:
    """A fresh unlock key (32 random bytes) as text."""
    return unlock_key_text(random(KEK_BYTES))


def unlock_key_text(key: bytes) -> str:
    """The text form of an unlock key."""
    if len(key) != KEK_BYTES:
        raise TokenError(f"an unlock key has {KEK_BYTES} bytes, not {len(key)}")
    return "SWMKEY-1-" + base64.b64encode(key).decode("ascii").rstrip("=")


def parse_unlock_key(text: str) -> bytes:
    """The 32 bytes of an unlock key. Raises TokenError without repeating the text."""
    found = _KEY.fullmatch(text)
    refusal = TokenError(
        "invalid unlock key: it should look like SWMKEY-1-<43 characters>; "
        "copy the whole key that 'unlock-key' printed"
    )
    if found is None:
        raise refusal
    try:
        key = base64.b64decode(found[1] + "=", validate=True)
    except binascii.Error as error:
        raise refusal from error
    # One text per key: the last character's two spare bits must be zero.
    if unlock_key_text(key) != text:
        raise refusal
    return key


def _base36(data: bytes, width: int) -> str:
    number = int.from_bytes(data, "big")
    digits = []
    while number:
        number, digit = divmod(number, 36)
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits)).rjust(width, "0")


def _bytes(text: str, size: int, what: str) -> bytes:
    number = int(text, 36)
    if number >> (8 * size):
        raise TokenError(f"invalid {what}: one of its parts is too large; copy it again in full")
    return number.to_bytes(size, "big")
