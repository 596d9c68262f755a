"""Sealing at rest: AES-256-GCM for journals, snapshots and keys, and the file that holds the data key.

What belongs here: sealing and opening bytes; wrapping the data key (DEK) with a key-encryption key (KEK).
What does not: deciding what is sealed, and reading disks but through the `Store` passed in.

WITHOUT AUTOLOCK THE KEK LIES IN THE SAME FILE AS THE DEK THAT IT WRAPS. Whoever can read the state directory
can then open everything: sealing protects nothing but copies of single files. With autolock the KEK is kept
by people and given at every start (`unlock`), and a stolen disk is worthless. Docker Swarm has the same two
modes.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from swarmpy.pki.errors import LockedError, SealError, UnknownKeyError

KEY_BYTES = 32
KEY_FILE = "pki/seal.json"
OVERHEAD = 1 + 4 + 16 + 12 + 16
"""Bytes that sealing adds: version, key id, salt, nonce, tag."""

_VERSION = 1
_MESSAGES_PER_SALT = 1 << 28
"""Far below the 2^32 messages after which random 96-bit nonces wear out (NIST SP 800-38D, 8.3)."""
_SALTS_KEPT = 64

Random = Callable[[int], bytes]


class Store(Protocol):
    """The part of ports.Disk that this room needs."""

    def exists(self, path: str) -> bool:
        """Whether the file exists."""

    def read(self, path: str) -> bytes:
        """The whole file. Raises FileNotFoundError."""

    def replace(self, path: str, data: bytes) -> None:
        """Atomically and durably replace the file."""

    def mkdir(self, folder: str) -> None:
        """Create the folder; existing is fine."""


class Sealing(Protocol):
    """What users of a sealer see: real and plain have the same shape."""

    def seal(self, data: bytes, aad: bytes = b"") -> bytes:
        """Seal `data`, bound to the context `aad` (what and where it is)."""

    def open(self, sealed: bytes, aad: bytes = b"") -> bytes:
        """The data. Raises SealError."""


class Sealer:
    """AES-256-GCM under keys derived from one or more data keys; seals with the first, opens with any.

    Each sealer draws a 128-bit salt and derives its own key from the data key (HKDF-SHA-256), so the limit on
    random nonces counts per process and not per the cluster's life. Layout: version, key id (4), salt (16),
    nonce (12), ciphertext and tag.
    """

    def __init__(self, *keys: bytes, random: Random = os.urandom) -> None:
        if not keys or any(len(key) != KEY_BYTES for key in keys):
            raise SealError(f"a sealer needs data keys of {KEY_BYTES} bytes")
        self._keys = {_key_id(key): key for key in keys}
        self._first = _key_id(keys[0])
        self._random = random
        self._cache: dict[bytes, AESGCM] = {}
        self._left = 0
        self._head = b""

    def __repr__(self) -> str:
        return f"Sealer(keys={len(self._keys)})"

    def seal(self, data: bytes, aad: bytes = b"") -> bytes:
        """Seal `data`, bound to `aad`. The result is OVERHEAD bytes longer."""
        if self._left == 0:
            self._head = bytes([_VERSION]) + self._first + self._random(16)
            self._left = _MESSAGES_PER_SALT
        self._left -= 1
        head, nonce = self._head, self._random(12)  # one look: another thread may change it meanwhile
        return head + nonce + self._cipher(head).encrypt(nonce, data, head + aad)

    def open(self, sealed: bytes, aad: bytes = b"") -> bytes:
        """The data. Raises SealError when it is damaged, moved, or sealed by another key."""
        if len(sealed) < OVERHEAD or sealed[0] != _VERSION:
            raise SealError("the sealed data is damaged: it does not begin as sealed data does")
        head, nonce, rest = sealed[:21], sealed[21:33], sealed[33:]
        if head[1:5] not in self._keys:
            raise UnknownKeyError("the data was sealed with a key that this node does not have")
        try:
            return self._cipher(head).decrypt(nonce, rest, head + aad)
        except InvalidTag as error:
            raise SealError(
                "the sealed data does not open: it is damaged, or it was moved from another place"
            ) from error

    def _cipher(self, head: bytes) -> AESGCM:
        cipher = self._cache.get(head)
        if cipher is None:
            derive = HKDF(hashes.SHA256(), KEY_BYTES, salt=head[5:], info=b"swarmpy seal 1")
            cipher = AESGCM(derive.derive(self._keys[head[1:5]]))
            while len(self._cache) >= _SALTS_KEPT:
                self._cache.pop(next(iter(self._cache)))
            self._cache[head] = cipher
        return cipher


class PlainSealer:
    """Seals nothing and keeps the same promises of shape: for tests and simulations of what seals.

    It still notices damage and a wrong context, by a plain digest.
    """

    def seal(self, data: bytes, aad: bytes = b"") -> bytes:
        """The data behind a digest of itself and `aad`."""
        return b"\x00" + self._sum(data, aad) + data

    def open(self, sealed: bytes, aad: bytes = b"") -> bytes:
        """The data. Raises SealError."""
        data = sealed[9:]
        if sealed[:1] != b"\x00" or sealed[1:9] != self._sum(data, aad):
            raise SealError("the plainly sealed data is damaged or was moved from another place")
        return data

    @staticmethod
    def _sum(data: bytes, aad: bytes) -> bytes:
        return hashlib.sha256(len(aad).to_bytes(8, "big") + aad + data).digest()[:8]


@dataclass(frozen=True, slots=True)
class DataKeys:
    """The node's data keys (newest first), opened. `autolock`: the KEK is not on this disk."""

    keys: tuple[bytes, ...] = field(repr=False)
    kek: bytes = field(repr=False)
    autolock: bool = False

    @classmethod
    def create(cls, store: Store, kek: bytes | None = None, random: Random = os.urandom) -> DataKeys:
        """Make and save a data key. With `kek` (32 bytes) autolock is on. Raises SealError if one exists."""
        if store.exists(KEY_FILE):
            raise SealError("this node already has a data key: leave the cluster before a new start")
        made = cls((random(KEY_BYTES),), kek or random(KEY_BYTES), kek is not None)
        made.save(store)
        return made

    @classmethod
    def load(cls, store: Store, kek: bytes | None = None) -> DataKeys:
        """Open the key file. Raises LockedError (autolock, no key given) or SealError."""
        try:
            data = json.loads(store.read(KEY_FILE))
            autolock = bool(data["autolock"])
            wrapped = [base64.b64decode(text, validate=True) for text in data["keys"]]
            beside = None if autolock else base64.b64decode(data["kek"], validate=True)
        except FileNotFoundError as error:
            raise SealError("this node has no data key: it has not joined a cluster") from error
        except (ValueError, KeyError, TypeError) as error:
            raise SealError("the data key's file is damaged and cannot be read") from error
        key = beside or kek
        if key is None:
            raise LockedError(
                "this node is locked: its data is sealed by the cluster's unlock key; "
                "give it with 'swarm unlock'"
            )
        if not wrapped or len(key) != KEY_BYTES:
            raise SealError("the data key's file is damaged: it holds no usable key")
        return cls(tuple(_unwrap(key, one, autolock=autolock) for one in wrapped), key, autolock)

    def save(self, store: Store) -> None:
        """Write the key file in one atomic step, so key and wrapping never disagree."""
        store.mkdir(KEY_FILE.rpartition("/")[0])
        wrap = AESGCM(self.kek)
        data: dict[str, object] = {"version": _VERSION, "autolock": self.autolock, "keys": []}
        sealed = []
        for key in self.keys:
            nonce = os.urandom(12)
            sealed.append(base64.b64encode(nonce + wrap.encrypt(nonce, key, _WRAP)).decode())
        data["keys"] = sealed
        if not self.autolock:
            data["kek"] = base64.b64encode(self.kek).decode()
        store.replace(KEY_FILE, json.dumps(data, indent=1).encode())

    def locked_by(self, kek: bytes) -> DataKeys:
        """The same data keys with autolock on (or its key rotated); not yet saved."""
        return DataKeys(self.keys, kek, autolock=True)

    def unlocked(self, random: Random = os.urandom) -> DataKeys:
        """The same data keys with autolock off, under a fresh KEK; not yet saved."""
        return DataKeys(self.keys, random(KEY_BYTES), autolock=False)

    def rotated(self, random: Random = os.urandom) -> DataKeys:
        """A fresh data key first; old ones still open what they sealed; not yet saved."""
        return DataKeys((random(KEY_BYTES), *self.keys), self.kek, self.autolock)

    def newest_only(self) -> DataKeys:
        """Without the old data keys: only once everything was sealed again; not yet saved."""
        return DataKeys(self.keys[:1], self.kek, self.autolock)

    def sealer(self, random: Random = os.urandom) -> Sealer:
        """A sealer under these keys."""
        return Sealer(*self.keys, random=random)


_WRAP = b"swarmpy data key 1"


def _unwrap(kek: bytes, wrapped: bytes, *, autolock: bool) -> bytes:
    try:
        return AESGCM(kek).decrypt(wrapped[:12], wrapped[12:], _WRAP)
    except (InvalidTag, ValueError) as error:
        raise SealError(
            "the unlock key is not this cluster's current one: ask a manager with 'unlock-key'"
            if autolock
            else "the data key's file is damaged: its key does not open"
        ) from error


def _key_id(key: bytes) -> bytes:
    return hmac.digest(key, b"swarmpy key id", "sha256")[:4]
