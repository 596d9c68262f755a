"""ports.Cipher in the Linux kernel: IPsec (ESP with AES-256-GCM, transport mode) for the port of encrypted
networks.

What belongs here: which associations and policies there are, and how they get into the kernel. What does not:
who the peers are, when secrets change (plan).

- Encrypted networks have a UDP port of their own, so policies select by that port. Nothing marks packets, and
  no firewall has to be there for what leaves to be encrypted, or for what comes in the clear to be dropped.
- For each peer and direction there is an association for every secret of the ring, and a policy that names
  the one to send with. A turn of the ring adds associations, then changes policies, then removes associations
  that nobody has used for a whole turn: nothing under way is lost.
- Under the policies of pairs lie two that block whatever else goes to, or comes for, the port: without
  secrets, or from strangers, nothing passes.
- Each direction of each pair has a key of its own, derived from the secret: senders never share a key, which
  AES-GCM would not forgive. Sequence numbers start again when a node does; the kernel's initialization
  vectors are drawn anew with each association, and receivers keep no replay window.

Ours is known by its request id, or by its priority where there is none.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import hmac
import logging
import socket
import struct
from collections.abc import Iterable
from typing import NamedTuple

from swarmpy.adapters.netns import OWN, apart, inside
from swarmpy.adapters.nftables.netlink import REQUEST, Message, Netlink, attribute, attributes
from swarmpy.ports import CipherTable, FabricError, Secret

logger = logging.getLogger(__name__)

XFRM = 6
REQUEST_ID = 0x53574D50
PAIR, BLOCK = 0x53570001, 0x53570002
"""Priorities: the lower number goes first."""
IN, OUT = 0, 1
_ALLOW, _BLOCK = 0, 1
_ESP, _UDP = 50, 17
_NEW_SA, _DELETE_SA, _GET_SA = 0x10, 0x11, 0x12
_DELETE_POLICY, _GET_POLICY, _UPDATE_POLICY = 0x14, 0x15, 0x19
_TEMPLATE, _AEAD = 5, 18
_NAME = b"rfc4106(gcm(aes))"
_KEY, _CHECK = 36, 128
"""Bytes of key with its salt, bits of the check value."""
_SELECTOR = struct.Struct("=16s16s2s2s2s2sHBBB3xiI")
_ASSOCIATION = struct.Struct("=56s16s4sB3x16s64s32s12sIIHBBB7x")
_POLICY = struct.Struct("=56s64s32sIIBBBB4x")
_PATTERN = struct.Struct("=16s4sB3xH2x16sIBBBxIII")
_FOREVER = struct.pack("=8Q", *[(1 << 64) - 1] * 4, 0, 0, 0, 0)
_EVERY = 0xFFFFFFFF


class Association(NamedTuple):
    """One direction of one pair with one secret."""

    source: bytes
    target: bytes
    spi: bytes
    key: bytes
    rest: tuple[int, ...] = (REQUEST_ID, 0, 0, 0, _CHECK)
    """Request id, mode, replay window, flags, bits of the check value."""


class Policy(NamedTuple):
    """What happens to packets to the port. `spi` is 0 where any will do; `blocks` those of no pair."""

    way: int
    family: int
    source: bytes
    target: bytes
    port: int
    spi: bytes
    rest: tuple[int, ...]
    """Prefixes, protocol, action, priority, request id, mode, protocol and optionality of the pattern."""


class Held(NamedTuple):
    """Everything of ours in the kernel."""

    associations: frozenset[Association]
    policies: frozenset[Policy]

    def digest(self) -> str:
        """Short digest, "" for nothing."""
        if not self.associations and not self.policies:
            return ""
        text = repr((sorted(self.associations), sorted(self.policies)))
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


class KernelCipher:
    """Encryption between nodes. `host` is the path of the namespace of the node's underlay."""

    def __init__(self, host: str = OWN) -> None:
        self._host = host
        self._turn = asyncio.Lock()

    async def probe(self) -> bool:
        """Whether the kernel can do it: an association and policies are made in a namespace made for that."""
        table = CipherTable("192.0.2.1", 4790, ("192.0.2.2",), 1, (Secret(1, bytes(32)),))
        try:
            await asyncio.to_thread(apart, _apply, table)
        except FabricError as error:
            logger.info("networks cannot be encrypted here: %s", error)
            return False
        return True

    async def observe(self) -> str:
        """Fingerprint of what the kernel has."""
        async with self._turn:
            held = await asyncio.to_thread(inside, self._host, _look)
        return held.digest()

    async def apply(self, table: CipherTable) -> str:
        """Make it as the table says."""
        async with self._turn:
            return await asyncio.to_thread(inside, self._host, _apply, table)

    async def clear(self) -> None:
        """Remove everything of ours."""
        async with self._turn:
            await asyncio.to_thread(inside, self._host, _clear)


# ---------------------------------------------------------------- what there should be


def wanted(table: CipherTable) -> Held:
    """What the kernel is to hold. Raises FabricError where the table asks for what cannot be."""
    local = _packed(table.local)
    numbers = {secret.number for secret in table.secrets}
    if table.secrets and table.sending not in numbers:
        raise FabricError(f"there is no secret number {table.sending} to encrypt with")
    associations: set[Association] = set()
    policies = {_blocking(way, family, table.port) for way in (IN, OUT)
                for family in (socket.AF_INET, socket.AF_INET6)}  # fmt: skip
    for peer in table.peers if table.secrets else ():
        other = _packed(peer)
        if len(other) != len(local):
            continue  # no packets go between addresses of two versions
        for secret in table.secrets:
            out, back = _association(secret.key, local, other), _association(secret.key, other, local)
            associations |= {out, back}
            if secret.number == table.sending:
                policies |= {_pair(OUT, local, other, table.port, out.spi),
                             _pair(IN, other, local, table.port, bytes(4))}  # fmt: skip
    return Held(frozenset(associations), frozenset(policies))


def _association(secret: bytes, source: bytes, target: bytes) -> Association:
    """HKDF-Expand (RFC 5869) of two blocks. Two that share a target and, by chance, an index would keep one
    of them silent until the next turn; with a thousand peers that happens once in a thousand turns."""
    about = b"swarmpy esp\0" + source + target
    first = hmac.new(secret, about + b"\x01", hashlib.sha256).digest()
    second = hmac.new(secret, first + about + b"\x02", hashlib.sha256).digest()
    key, spi = (first + second)[:_KEY], second[8:12]
    return Association(source, target, bytes([spi[0] | 1]) + spi[1:], key)  # the first 255 are reserved


def _pair(way: int, source: bytes, target: bytes, port: int, spi: bytes) -> Policy:
    family, bits = (socket.AF_INET, 32) if len(source) == 4 else (socket.AF_INET6, 128)
    rest = (bits, bits, _UDP, _ALLOW, PAIR, REQUEST_ID, 0, _ESP, 0)
    return Policy(way, int(family), source, target, port, spi, rest)


def _blocking(way: int, family: int, port: int) -> Policy:
    none = bytes(4 if family == socket.AF_INET else 16)
    return Policy(way, int(family), none, none, port, bytes(4), (0, 0, _UDP, _BLOCK, BLOCK, 0, 0, 0, 0))


# ---------------------------------------------------------------- what there is


def _open() -> Netlink:
    try:
        return Netlink(XFRM)
    except OSError as error:
        raise FabricError(
            f"the kernel has no IPsec ({error.strerror}); load the modules xfrm_user and esp4"
        ) from None


def _look() -> Held:
    try:
        kernel = _open()
    except FabricError:
        return Held(frozenset(), frozenset())
    with kernel:
        return _read(kernel)


def _read(kernel: Netlink) -> Held:
    associations = (_association_of(one.body) for one in kernel.ask(_GET_SA, b""))
    policies = (_policy_of(one.body) for one in kernel.ask(_GET_POLICY, b""))
    return Held(
        frozenset(one for one in associations if one is not None and one.rest[0] == REQUEST_ID),
        frozenset(one for one in policies if one is not None),
    )


def _association_of(body: bytes) -> Association | None:
    (_, target, spi, protocol, source, _, _, _, _, request, family, mode, window, flags) = (
        _ASSOCIATION.unpack_from(body)
    )
    if protocol != _ESP or request != REQUEST_ID:
        return None
    aead = attributes(body[_ASSOCIATION.size :]).get(_AEAD, b"")
    named = aead[:64].rstrip(b"\0") == _NAME and len(aead) >= 72
    bits, check = struct.unpack_from("=II", aead, 64) if named else (0, 0)
    key = aead[72 : 72 + bits // 8] if named else b""
    return Association(_cut(source, family), _cut(target, family), spi, key,
                       (request, mode, window, flags, check))  # fmt: skip


def _policy_of(body: bytes) -> Policy | None:
    selector, _, _, priority, _, way, action, _, _ = _POLICY.unpack_from(body)
    if priority not in (PAIR, BLOCK):
        return None
    target, source, port, _, _, _, family, to, of, protocol, _, _ = _SELECTOR.unpack(selector)
    pattern = attributes(body[_POLICY.size :]).get(_TEMPLATE, b"")
    spi, request, mode, kind, optional = bytes(4), 0, 0, 0, 0
    if len(pattern) >= _PATTERN.size:
        _, spi, kind, _, _, request, mode, _, optional, *_ = _PATTERN.unpack_from(pattern)
    rest = (of, to, protocol, action, priority, request, mode, kind, optional)
    number = int.from_bytes(port)
    return Policy(way, family, _cut(source, family), _cut(target, family), number, spi, rest)


# ---------------------------------------------------------------- from one to the other


def _apply(table: CipherTable) -> str:
    wants = wanted(table)
    with _open() as kernel:
        held = _read(kernel)
        wrong = held.associations - wants.associations
        known = {(one.target, one.spi) for one in wants.associations}
        changed = {one for one in wrong if (one.target, one.spi) in known}
        _remove(kernel, changed)
        new = sorted(wants.associations - held.associations)
        kernel.tell([_addition(one) for one in new], "keys (ESP with AES-GCM)")
        # those that block go first
        news = sorted(wants.policies - held.policies, key=lambda one: -one.rest[4])
        kernel.tell([_rule(one) for one in news], "policies of encryption")
        if not table.secrets:
            return _read(kernel).digest()
        chosen = {(one.way, *_place(one)) for one in wants.policies}
        old = [one for one in held.policies - wants.policies if (one.way, *_place(one)) not in chosen]
        _remove(kernel, [*old, *(wrong - changed)])
    return wants.digest()


def _clear() -> None:
    """Links went before, so that nothing leaves in the clear meanwhile."""
    held = _look()
    if not held.associations and not held.policies:
        return
    with _open() as kernel:
        _remove(kernel, [*held.policies, *held.associations])


def _place(policy: Policy) -> tuple[object, ...]:
    return policy.family, policy.source, policy.target, policy.port, policy.rest[:3]


def _remove(kernel: Netlink, held: Iterable[Association | Policy]) -> None:
    """Policies of pairs first, so that those that block are there as long as anything is; what is gone
    already is fine."""
    policies = [one for one in held if isinstance(one, Policy)]
    associations = [one for one in held if isinstance(one, Association)]
    messages = [_rule_removal(one) for one in sorted(policies, key=lambda one: one.rest[4])]
    messages += [_removal(one) for one in sorted(associations)]
    kernel.tell(messages, "removing what encrypts", fine=(errno.ENOENT, errno.ESRCH))


def _addition(one: Association) -> Message:
    family = _family(one.source)
    aead = _NAME.ljust(64, b"\0") + struct.pack("=II", len(one.key) * 8, _CHECK) + one.key
    body = _ASSOCIATION.pack(bytes(56), one.target, one.spi, _ESP, one.source, _FOREVER, bytes(32), bytes(12),
                             0, REQUEST_ID, family, 0, 0, 0)  # fmt: skip
    return Message(_NEW_SA, REQUEST, body + attribute(_AEAD, aead))


def _removal(one: Association) -> Message:
    body = struct.pack("=16s4sHBx", one.target, one.spi, _family(one.target), _ESP)
    return Message(_DELETE_SA, REQUEST, body)


def _selector(one: Policy) -> bytes:
    mask = b"\xff\xff"
    return _SELECTOR.pack(one.target, one.source, one.port.to_bytes(2), mask, bytes(2), bytes(2), one.family,
                          one.rest[1], one.rest[0], one.rest[2], 0, 0)  # fmt: skip


def _rule(one: Policy) -> Message:
    _, _, _, action, priority, request, mode, kind, optional = one.rest
    body = _POLICY.pack(_selector(one), _FOREVER, bytes(32), priority, 0, one.way, action, 0, 0)
    if kind:
        pattern = _PATTERN.pack(one.target, one.spi, kind, one.family, one.source, request, mode, 0, optional,
                                _EVERY, _EVERY, _EVERY)  # fmt: skip
        body += attribute(_TEMPLATE, pattern)
    return Message(_UPDATE_POLICY, REQUEST, body)


def _rule_removal(one: Policy) -> Message:
    return Message(_DELETE_POLICY, REQUEST, _selector(one) + struct.pack("=IB3x", 0, one.way))


def _family(raw: bytes) -> int:
    return int(socket.AF_INET if len(raw) == 4 else socket.AF_INET6)


def _cut(raw: bytes, family: int) -> bytes:
    return raw[:4] if family == socket.AF_INET else raw


def _packed(address: str) -> bytes:
    try:
        return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    except OSError:
        raise FabricError(f"{address!r} is not an address that packets can be encrypted for") from None
