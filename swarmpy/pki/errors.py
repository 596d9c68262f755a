"""Refusals of the trust room.

What belongs here: the exceptions that `pki` raises, each carrying one sentence for the user. What does not:
codes of the wire protocol (see `rpc`) and anything about sockets.
"""

from __future__ import annotations


class PkiError(ValueError):
    """Base of everything that the trust room refuses. The text is a sentence for the user."""


class TokenError(PkiError):
    """A join token or an unlock key that cannot be read, or that is not the cluster's."""


class WrongClusterError(TokenError):
    """A well-formed token whose digest belongs to another cluster's CA."""


class CsrError(PkiError):
    """A certificate request that this CA does not sign."""


class CertificateError(PkiError):
    """A certificate that is not a node certificate of the expected cluster, role or time."""


class SealError(PkiError):
    """Sealed data that does not open: wrong key, wrong place, or damaged."""


class LockedError(SealError):
    """The data key is wrapped by an unlock key that has not been given yet (autolock)."""


class UnknownKeyError(SealError):
    """Sealed data, whole, under a data key that this node does not have."""
