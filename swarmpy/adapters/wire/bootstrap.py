"""Calls of a machine that is not yet a node: no certificate, only a join token.

What belongs here: fetching the CA bundle that a token pins, and a call under that bundle. What does not: the
steps of joining (the daemon's).
"""

from __future__ import annotations

from typing import Any

from swarmpy.adapters.wire import dialer
from swarmpy.adapters.wire.settings import WireSettings
from swarmpy.pki.ca import digest
from swarmpy.pki.identity import bootstrap_context, unverified_context
from swarmpy.pki.tokens import parse_token
from swarmpy.ports import Body, WireError


async def fetch_bundle(address: str, token: str, *, timeout: float = 5.0) -> bytes:
    """The cluster's CA bundle (PEM), fetched from anybody and believed only if the token pins it.

    Raises TokenError, WrongClusterError, WireError, RefusedError.
    """
    pinned = parse_token(token)
    async with dialer.new_session(WireSettings()) as session:
        reply = await dialer.post(session, unverified_context(), address, "ca.bundle", {}, timeout)
    bundle = reply.get("bundle")
    if not isinstance(bundle, bytes):
        raise WireError(f"{address} sent no CA bundle: is it a swarmpy manager?")
    pinned.check_digest(digest(bundle))
    return bundle


async def bootstrap_call(
    address: str, bundle_pem: bytes, method: str, body: Body, *, timeout: float = 10.0
) -> dict[str, Any]:
    """A call without a certificate to a manager that this bundle vouches for (for `join`).

    Raises WireError, RefusedError, CertificateError (the bundle is none).
    """
    context = bootstrap_context(bundle_pem)
    async with dialer.new_session(WireSettings()) as session:
        return await dialer.post(session, context, address, method, body, timeout)
