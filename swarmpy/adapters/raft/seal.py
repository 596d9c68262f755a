"""Sealing what the log keeps on disk.

What belongs here: the Sealer contract and its two implementations. What does not: where the key comes from
(pki), and what is sealed (store.py).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM


class SealError(ValueError):
    """The sealed bytes were changed, moved, or sealed with another key."""


class Sealer(Protocol):
    """Authenticated encryption; `aad` is bound to the result but not stored in it."""

    def seal(self, data: bytes, aad: bytes) -> bytes:
        """Seal."""

    def open(self, data: bytes, aad: bytes) -> bytes:
        """Open. Raises SealError."""


class PlainSealer:
    """No sealing: for tests and for reading a journal with other tools. CRCs still detect corruption."""

    def seal(self, data: bytes, aad: bytes) -> bytes:
        """The data itself."""
        return data

    def open(self, data: bytes, aad: bytes) -> bytes:
        """The data itself."""
        return data


class AesSealer:
    """AES-256-GCM with a random 96-bit nonce per message.

    With random nonces one key is good for 2**32 messages (NIST SP 800-38D, 8.3): at 1,000 disk writes a
    second, for seven weeks of uninterrupted full load; rotate the key on rejoin or on autolock rotation.
    `nonce` may be injected where runs must replay exactly.
    """

    def __init__(self, key: bytes, nonce: Callable[[int], bytes] = os.urandom) -> None:
        if len(key) != 32:
            raise ValueError("the journal's key must be 32 bytes")
        self._aead = AESGCM(key)
        self._nonce = nonce

    def seal(self, data: bytes, aad: bytes) -> bytes:
        """Nonce and ciphertext with its tag."""
        nonce = self._nonce(12)
        return nonce + self._aead.encrypt(nonce, data, aad)

    def open(self, data: bytes, aad: bytes) -> bytes:
        """The plain bytes. Raises SealError."""
        if len(data) < 28:
            raise SealError("sealed data is too short")
        try:
            return self._aead.decrypt(data[:12], data[12:], aad)
        except InvalidTag as error:
            raise SealError("sealed data was changed, moved or sealed with another key") from error
