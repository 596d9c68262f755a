"""What this log refuses beyond ports.log. Nothing else belongs here."""

from __future__ import annotations

from swarmpy.ports import LogError


class MembershipError(LogError):
    """A change of the membership was refused; the message says why and what would help."""


class ApplyError(LogError):
    """The entry was committed, but the machine raised on it (a bug in the machine)."""
