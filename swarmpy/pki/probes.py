"""The key with which nodes seal their questions to each other ("do you live?").

It is derived from the CA's key, so that nothing more is kept, and given to each node in its session. Every
node holds it: it keeps strangers from pretending that a dead node lives, or a living one is dead. A node can
so pretend for another; it could refuse its own work as well. What does not belong here: the frames
(adapters/prober).
"""

from __future__ import annotations

import hashlib

KEY_BYTES = 32


def probe_key(root_key: str) -> bytes:
    """The cluster's key, of the PEM of its CA's key; b"" where there is none."""
    if not root_key:
        return b""
    # A digest of a secret with more entropy than the digest has: nothing of the secret can be found from it.
    return hashlib.blake2b(root_key.encode(), digest_size=KEY_BYTES, person=b"swarmpy probes").digest()
