"""The seal: what tells our rule set, as we left it, from one that others touched.

What belongs here: reading a table's shape out of the kernel, labelling it. What does not: the rules' text.

After each transaction an empty chain is added, whose name holds the digest of what was applied and
that of the table's shape: chains, rules and the entries of maps, with their handles. Handles are never given
twice, so that whatever is removed, added or replaced changes the shape. A transaction takes the seal away, so
that one that was cut short by a crash has none. Nothing is kept outside the kernel.

Messages are hashed as they come: taking a thousand services apart would cost a hundred milliseconds. And as
long as the kernel's generation of rules is the one that our seal made, there is nothing to read at all.
"""

from __future__ import annotations

import errno
import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from swarmpy.adapters.nftables import library, netlink
from swarmpy.adapters.nftables.netlink import Netlink, attributes, name, text

_NFT = 10 << 8
_GET_TABLE, _GET_CHAIN, _GET_RULE, _GET_ELEMENTS, _GET_GENERATION = (
    _NFT | kind for kind in (1, 4, 7, 13, 16)
)
_INET = struct.pack("=BBH", 1, 0, 0)
_MISSING = (errno.ENOENT,)
_PREFIX = "seal_"
_HEAD = len(_INET)


@dataclass(frozen=True, slots=True)
class Seal:
    """What the kernel has. `chains`: names of all chains of the table but the seal, () for no table."""

    chains: tuple[str, ...] = ()
    label: str = ""
    """Digest of what was applied; "" where the rule set is not as it was left."""
    about: str = ""
    """Digest of what was true around the rule set when it was sealed."""
    chain: str = ""
    generation: int = 0
    """Of the kernel's rules when they were sealed by us; 0 for unknown."""

    def lifted(self, table: str) -> str:
        """The command that takes the seal away."""
        return f"delete chain {table} {self.chain}\n" if self.chain else ""


def digest(about: object) -> str:
    """Short digest of anything that prints the same when it is the same."""
    return hashlib.blake2b(repr(about).encode(), digest_size=8).hexdigest()


def read(table: str, maps: Sequence[str], left: Seal | None = None) -> Seal:
    """The seal of a table (family inet) in the thread's namespace. `maps` are the table's maps, `left` is
    what `write` returned: it is believed if no rule of the namespace changed since, and it is that one."""
    if left and left.generation:
        with Netlink(netlink.NETFILTER) as kernel:
            named = _INET + text(1, table) + text(3, left.chain)
            if _generation(kernel) == left.generation and kernel.get(_GET_CHAIN, named, missing=_MISSING):
                return left
    chains, shape, seals = _look(table, maps)
    parts = seals[0].split("_") if len(seals) == 1 else []
    if len(parts) != 4:
        return Seal(chains)
    _, label, sealed, about = parts
    return Seal(chains, label if sealed == shape else "", about, seals[0])


def write(table: str, maps: Sequence[str], label: str, about: str) -> Seal:
    """Seal the table as it is now."""
    with Netlink(netlink.NETFILTER) as kernel:
        before = _generation(kernel)
        chains, shape, _ = _look(table, maps)
        chain = f"{_PREFIX}{label}_{shape}_{about}"
        library.run(f"add chain inet {table} {chain}\n")
        after = _generation(kernel)
    # anything else means that others changed rules meanwhile
    return Seal(chains, label, about, chain, after if after == before + 1 else 0)


def _generation(kernel: Netlink) -> int:
    answer = kernel.get(_GET_GENERATION, _INET) or b""
    return int.from_bytes(attributes(answer[_HEAD:]).get(1, b""))


def _look(table: str, maps: Sequence[str]) -> tuple[tuple[str, ...], str, list[str]]:
    """(names of chains, digest of the shape, names of seals)."""
    ours = text(1, table)
    shape = hashlib.blake2b(digest_size=8)
    names: list[str] = []
    seals: list[str] = []
    with Netlink(netlink.NETFILTER) as kernel:
        for body in _ask(kernel, _GET_CHAIN):
            if not body.startswith(ours):
                continue
            called = next(name(value) for kind, value in netlink.each(body) if kind == 3)
            if called.startswith(_PREFIX):
                seals.append(called)
            else:
                names.append(called)
                shape.update(body)
        if not names:
            return (), "", []
        for body in _ask(kernel, _GET_TABLE):
            if body.startswith(ours):
                # a table may be told to sleep; how many parts it has counts the seal too
                shape.update(attributes(body).get(2, b""))
        shape.update(b"".join(_ask(kernel, _GET_RULE, ours)))
        for one in maps:
            elements: list[bytes] = []
            for body in _ask(kernel, _GET_ELEMENTS, ours, text(2, one)):
                elements += [payload for _, payload in netlink.each(attributes(body).get(3, b""))]
            shape.update(b"".join(sorted(elements)))
    return tuple(names), shape.hexdigest(), seals


def _ask(kernel: Netlink, kind: int, *parts: bytes) -> list[bytes]:
    answers = kernel.ask(kind, _INET + b"".join(parts), missing=_MISSING)
    return [answer.body[_HEAD:] for answer in answers]
