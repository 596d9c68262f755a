"""The log's own commands: what the first byte of an entry means, and the membership it may carry.

What belongs here: the entry kinds (pysyncobj's numbers) and the membership as a value. What does not: the
rules of changing it (node.py) and its effect on the core (core.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgpack

from swarmpy.ports import Member

REGULAR = b"\x00"
"""An entry for the Machine."""
NO_OP = b"\x01"
"""A new leader's first entry; also the placeholder at the start of a log."""
MEMBERSHIP = b"\x02"
"""A whole new membership: not a difference, so that rolling back is going to the one before."""


@dataclass(frozen=True, slots=True)
class Membership:
    """Who takes part. `removed` are the ids that were members once: they are never taken again."""

    members: tuple[Member, ...] = ()
    removed: frozenset[str] = field(default_factory=frozenset)

    def find(self, member_id: str) -> Member | None:
        """The member with this id."""
        return next((m for m in self.members if m.id == member_id), None)

    def voters(self) -> tuple[str, ...]:
        """Ids of the members that vote, sorted."""
        return tuple(m.id for m in self.members if m.voter)

    def with_member(self, member: Member) -> Membership:
        """This membership with the member added or replaced."""
        rest = [m for m in self.members if m.id != member.id]
        return Membership(_ordered([*rest, member]), self.removed)

    def without(self, member_ids: Iterable[str]) -> Membership:
        """This membership without these members, whose ids are spent."""
        gone = frozenset(member_ids)
        kept = [m for m in self.members if m.id not in gone]
        return Membership(_ordered(kept), self.removed | gone)

    def alone(self, member: Member) -> Membership:
        """The membership with that member only; the ids of all others are spent."""
        return self.without(m.id for m in self.members if m.id != member.id).with_member(member)

    def after(self, commands: Iterable[bytes]) -> Membership:
        """The membership after log entries; those of other kinds change nothing. Raises ValueError."""
        last = self
        for command in commands:
            last = Membership.from_entry(command) or last
        return last

    def refusal(self, member: Member) -> str:
        """Why this member cannot be added; "" if it can."""
        if member.id in self.removed:
            return (
                f"manager {member.id} was removed from this cluster and its id is never used again; "
                "join it as a new manager with an empty directory"
            )
        taken = [m.id for m in self.members if m.address == member.address]
        if taken and taken != [member.id]:
            return f"the address {member.address} belongs to manager {taken[0]}; remove that one first"
        return ""

    def to_wire(self) -> dict[str, Any]:
        """As msgpack-able data."""
        return {
            "members": [[m.id, m.address, m.voter] for m in self.members],
            "removed": sorted(self.removed),
        }

    def to_entry(self) -> bytes:
        """As a log entry."""
        body: bytes = msgpack.packb(self.to_wire())
        return MEMBERSHIP + body

    @staticmethod
    def of(members: Iterable[Member]) -> Membership:
        """The membership of a new cluster."""
        return Membership(_ordered(members))

    @staticmethod
    def from_wire(data: Any) -> Membership:
        """From `to_wire`. Raises ValueError."""
        try:
            members = [Member(str(i), str(a), bool(v)) for i, a, v in data["members"]]
            return Membership(_ordered(members), frozenset(str(i) for i in data["removed"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError("not a membership") from error

    @staticmethod
    def from_entry(entry: bytes) -> Membership | None:
        """The membership that an entry carries; None for other kinds. Raises ValueError."""
        if entry[:1] != MEMBERSHIP:
            return None
        return Membership.from_wire(msgpack.unpackb(entry[1:]))


def _ordered(members: Iterable[Member]) -> tuple[Member, ...]:
    return tuple(sorted(members, key=lambda m: m.id))
