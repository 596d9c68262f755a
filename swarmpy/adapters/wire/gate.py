"""Who is on the other end of a connection, and whether it is still trusted.

What belongs here: from a TLS connection to a Peer, past cluster, expiry and revocation; the bound on callers
without a certificate. What does not: what a trusted peer may call (pki.rpc).
"""

from __future__ import annotations

import asyncio
import math

from swarmpy.adapters.wire import codec
from swarmpy.adapters.wire.settings import WireSettings
from swarmpy.pki import rpc
from swarmpy.pki.certs import load_der
from swarmpy.pki.errors import CertificateError
from swarmpy.pki.rate import RateLimit, source_of
from swarmpy.ports import Clock, Peer, RefusedError


def shown(transport: asyncio.BaseTransport) -> bytes | None:
    """The certificate that the other side of a connection showed. Raises RefusedError where TLS does not know
    any more: a connection on which it failed is still there for a moment."""
    tls = transport.get_extra_info("ssl_object")
    try:
        found: bytes | None = tls.getpeercert(binary_form=True) if tls is not None else None
    except ValueError as error:
        raise codec.refuse(rpc.BAD_REQUEST, f"TLS on this connection has failed: {error}") from None
    return found


class Gate:
    """The check of both halves of the wire, made at every call and opened channel."""

    def __init__(self, cluster_id: str, clock: Clock, revoked: rpc.Revoked, settings: WireSettings) -> None:
        self._rates = RateLimit(settings.stranger_calls, settings.all_stranger_calls)
        self._cluster_id = cluster_id
        self._clock = clock
        self._revoked = revoked

    def look(self, transport: asyncio.BaseTransport | None) -> tuple[Peer, int]:
        """The peer and when its certificate expires (ns; 0 without one). Raises RefusedError.

        The handshake has already proved the chain to our CA. Expiry is checked again because connections
        outlive it, and the cluster because a CA could be carried from one cluster to another.
        """
        if transport is None:
            raise codec.refuse(rpc.BAD_REQUEST, "the connection is gone")
        address = _address(transport)
        der = shown(transport)
        if not der:
            return Peer("", rpc.NONE, "", "", address), 0
        try:
            certificate = load_der(der)
            certificate.check_cluster(self._cluster_id)
            certificate.check_time(self._clock.now())
        except CertificateError as error:
            raise codec.refuse(rpc.FORBIDDEN, str(error)) from error
        refusal = self._revoked.refuse(certificate.node_id, certificate.serial)
        if refusal is not None:
            raise codec.refused(refusal)
        peer = Peer(
            certificate.node_id,
            certificate.role,
            certificate.cluster_id,
            certificate.serial,
            address,
        )
        return peer, certificate.not_after

    def charge(self, peer: Peer) -> None:
        """Count a call; nodes call as they like. Raises RefusedError, which says when to try again."""
        if peer.role != rpc.NONE:
            return
        host = peer.address
        wait = self._rates.admit(source_of(host), self._clock.monotonic())
        if wait:
            seconds = math.ceil(wait)
            refusal = codec.refuse(
                rpc.RATE_LIMITED,
                f"too many calls without a certificate from {host}: try again in {seconds} s",
            )
            refusal.data["retry_after"] = round(wait, 3)
            raise refusal

    def trusted(self, transport: asyncio.BaseTransport | None) -> bool:
        """Whether `look` would let it pass."""
        try:
            self.look(transport)
        except RefusedError:
            return False
        return True

    def outdated(self, not_after: int) -> bool:
        """Whether a certificate that was good until `not_after` has expired."""
        return self._clock.now() > not_after

    def distrusts(self, peer: Peer) -> RefusedError | None:
        """Why a peer that was let in is no longer trusted; None when it is."""
        refusal = self._revoked.refuse(peer.node_id, peer.serial)
        return codec.refused(refusal) if refusal is not None else None

    @staticmethod
    def node_id(transport: asyncio.BaseTransport) -> str:
        """Whose connection this is; "" for a stranger's."""
        try:
            der = shown(transport)
            return load_der(der).node_id if der else ""
        except (CertificateError, RefusedError):
            return ""


def _address(transport: asyncio.BaseTransport) -> str:
    """The peer's IP without its port, which says nothing of where the peer listens. An IPv4 peer of an IPv6
    socket is told by its IPv4 address."""
    name = transport.get_extra_info("peername")
    host = str(name[0]).partition("%")[0] if name else ""
    return host.removeprefix("::ffff:") if "." in host else host
