"""Refusals: the one way in which swarmpy says no to a user.

A refusal is a code from the small set below (gRPC's words, because Docker's clients read them in error texts)
and one sentence. What does not belong here: HTTP statuses (api/errors.py) and exit codes (cli/).

    Refusal
    ├── InvalidArgument       the request itself is wrong
    ├── NotFound              no such object
    ├── AlreadyExists         the name is taken
    ├── FailedPrecondition    right request, wrong state of the cluster
    ├── PermissionDenied      this caller may not
    ├── Unimplemented         known to Swarm, not supported here: says so loudly
    ├── Unknown               an expression that does not parse (Docker: 500 with this code)
    ├── OutOfSequence         the object changed since it was read (Docker: 500 "update out of sequence")
    ├── Unavailable           not now: no leader, no quorum, locked, not in a cluster; retry may help
    └── Internal              our fault
"""

from __future__ import annotations


class Refusal(Exception):
    """Base of all refusals; `code` is the gRPC word, `message` one sentence for the user."""

    code = "Unknown"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidArgument(Refusal):
    """The request is malformed or asks for something that can never be."""

    code = "InvalidArgument"


class NotFound(Refusal):
    """The object that the request names does not exist."""

    code = "NotFound"


class AlreadyExists(Refusal):
    """Another object has that name."""

    code = "AlreadyExists"


class FailedPrecondition(Refusal):
    """The cluster's present state does not allow it."""

    code = "FailedPrecondition"


class PermissionDenied(Refusal):
    """The caller's role does not allow it."""

    code = "PermissionDenied"


class Unimplemented(Refusal):
    """Swarm knows it, this version of swarmpy does not support it."""

    code = "Unimplemented"


class Unknown(Refusal):
    """Docker has no better code for it: a placement constraint that does not parse."""

    code = "Unknown"


class OutOfSequence(Refusal):
    """The version index given is not the object's present one."""

    code = "Unknown"

    def __init__(self, message: str = "update out of sequence") -> None:
        super().__init__(message)


class Unavailable(Refusal):
    """Not possible at the moment; trying again may help."""

    code = "Unavailable"


class Ambiguous(Unavailable):
    """The outcome of a write is unknown: it may or may not have been applied."""

    code = "Unavailable"


class Internal(Refusal):
    """A defect of swarmpy; details are in the daemon's log."""

    code = "Internal"


_BY_NAME: dict[str, type[Refusal]] = {
    kind.__name__: kind
    for kind in (InvalidArgument, NotFound, AlreadyExists, FailedPrecondition, PermissionDenied,
                 Unimplemented, Unknown, OutOfSequence, Unavailable, Ambiguous, Internal)
}  # fmt: skip


def refusal_from(name: str, message: str) -> Refusal:
    """The refusal with this class name (as sent between nodes); an unknown name becomes Internal."""
    return _BY_NAME.get(name, Internal)(message)
