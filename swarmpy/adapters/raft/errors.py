"""What this log refuses beyond ports.log. Nothing else belongs here."""

from __future__ import annotations

import errno

from swarmpy.ports import LogError

_FULL = (errno.ENOSPC, errno.EDQUOT)


class DiskError(OSError):
    """The log's disk refused; the message is a sentence for the operator."""

    @staticmethod
    def explaining(error: OSError) -> DiskError:
        """What the operating system said, why it matters and what would help."""
        why = error.strerror or str(error) or type(error).__name__
        if error.filename:
            why = f"{why}: {error.filename}"
        if error.errno in _FULL:
            what, remedy = "its disk is full", "make room on it, and the log starts again by itself"
        else:
            what = "its disk failed"
            remedy = (
                "look into the kernel's log; when the disk works again the log starts by itself, and when it "
                "does not, remove this manager from the cluster and join it again on another disk"
            )
        return DiskError(
            f"the log of this manager is stopped because {what} ({why}); nothing that was acknowledged is "
            f"lost; {remedy}"
        )


class MembershipError(LogError):
    """A change of the membership was refused; the message says why and what would help."""


class ApplyError(LogError):
    """The entry was committed, but the machine raised on it (a bug in the machine)."""
