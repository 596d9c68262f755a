"""Changes: how the replicated world moves. A Batch is one log entry.

What belongs here: the data of a change. What does not: how it is applied (snapshot.py), who decides (plan/).
"""

from __future__ import annotations

import msgspec

from swarmpy.model.objects import AnyObject, kind_of


class Put(msgspec.Struct, frozen=True, tag="put", gc=False):
    """Create or replace an object; apply sets its version and times. `cause` says why, for people."""

    item: AnyObject
    cause: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """(table, id) of the object."""
        return (kind_of(self.item), self.item.id)


class Delete(msgspec.Struct, frozen=True, tag="delete", gc=False):
    """Remove an object (`kind` is its table); a missing one is fine."""

    kind: str
    id: str
    cause: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """(table, id) of the object."""
        return (self.kind, self.id)


Change = Put | Delete


class Request(msgspec.Struct, frozen=True):
    """A request that was carried out and what it answered, so that its retry is not carried out again."""

    id: str
    result_id: str
    at: int


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """One log entry: changes decided on the world of version `based_on`, at cluster time `at` (ns).

    On any other world it is refused, identically on every replica.
    """

    based_on: int
    at: int
    changes: tuple[Change, ...]
    requests: tuple[Request, ...] = ()
