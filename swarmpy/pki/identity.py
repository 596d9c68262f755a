"""A node's own identity: private key, certificate and the CA bundle it trusts.

What belongs here: making keys and requests, keeping the identity on disk (sealed), when to renew, and the TLS
contexts made of it. What does not: sockets, and asking for certificates (agent/, manager/).

The private key never touches a disk in clear: it is sealed in one file with its certificate, which therefore
change together, and reaches OpenSSL through memory (memfd), because `load_cert_chain` only reads files.
"""

from __future__ import annotations

import base64
import json
import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from swarmpy.pki.ca import BACKDATE
from swarmpy.pki.certs import NodeCertificate, load_der, load_pem
from swarmpy.pki.errors import CertificateError, LockedError, SealError
from swarmpy.pki.seal import Sealing, Store

IDENTITY_FILE = "pki/identity.sealed"
_AAD = b"swarmpy node identity 1"

Check = Callable[[NodeCertificate], None]


def make_key_and_csr() -> tuple[bytes, bytes]:
    """A fresh ECDSA P-256 key (PKCS#8 PEM, unencrypted) and a request (PEM) signed by it.

    The request's subject is empty: the server sets it.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return (
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
        csr.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM),
    )


def renewal_time(certificate: NodeCertificate, chance: float) -> int:
    """When to renew (ns since the epoch): at 50 to 80 % of the lifetime, by `chance` in [0, 1).

    Spread out so that the nodes of a cluster made at once do not all renew at once.
    """
    issued = certificate.not_before + BACKDATE
    return issued + int((certificate.not_after - issued) * (0.5 + 0.3 * chance))


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """One generation of a node's identity; PEM texts. Replaced as a whole at renewal."""

    cert_pem: bytes
    key_pem: bytes = field(repr=False)
    bundle_pem: bytes = field(repr=False)

    @property
    def certificate(self) -> NodeCertificate:
        """What the certificate says. Raises CertificateError."""
        return load_pem(self.cert_pem)

    def check(self, now: int) -> NodeCertificate:
        """The certificate, if it fits key and bundle and is valid at `now`. Raises CertificateError."""
        certificate = self.certificate
        certificate.check_time(now)
        try:
            key = serialization.load_pem_private_key(self.key_pem, None)
            leaf, *chain = x509.load_pem_x509_certificates(self.cert_pem)
            issuers = [*chain, *x509.load_pem_x509_certificates(self.bundle_pem)]
            fits = leaf.public_key() == key.public_key()
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise CertificateError(f"the node's identity cannot be read: {error}") from error
        if not fits:
            raise CertificateError("the certificate was made for another key than this node's")
        if not any(_issued(leaf, issuer) for issuer in issuers):
            raise CertificateError("the certificate was not signed by the cluster's CA")
        return certificate

    def save(self, store: Store, sealer: Sealing) -> None:
        """Seal and write in one atomic step. Raises OSError."""
        parts = {"cert": self.cert_pem, "key": self.key_pem, "bundle": self.bundle_pem}
        text = json.dumps({name: base64.b64encode(pem).decode() for name, pem in parts.items()})
        store.mkdir(IDENTITY_FILE.rpartition("/")[0])
        store.replace(IDENTITY_FILE, sealer.seal(text.encode(), _AAD))

    @classmethod
    def load(cls, store: Store, sealer: Sealing) -> NodeIdentity:
        """Read what `save` wrote. Raises FileNotFoundError (never joined) or SealError."""
        try:
            data = sealer.open(store.read(IDENTITY_FILE), _AAD)
        except LockedError:
            raise
        except SealError as error:
            raise SealError(
                f"the node's identity in {IDENTITY_FILE} cannot be trusted ({error}): leave with --force and "
                "join again"
            ) from error
        try:
            parts = {name: base64.b64decode(pem) for name, pem in json.loads(data).items()}
            return cls(parts["cert"], parts["key"], parts["bundle"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SealError("the node's identity file holds something else") from error


class Identity:
    """The live identity: what the wire asks for contexts; swapped at renewal under running connections.

    The same context object is returned until the next swap, so that connections can be pooled by it.
    """

    def __init__(self, first: NodeIdentity) -> None:
        self._use(first)

    def _use(self, identity: NodeIdentity) -> None:
        certificate = identity.certificate
        server = server_context(identity)
        client = client_context(identity)
        self._current, self._certificate = identity, certificate
        self._server, self._client = server, client

    @property
    def current(self) -> NodeIdentity:
        """The present generation."""
        return self._current

    @property
    def certificate(self) -> NodeCertificate:
        """What the present certificate says."""
        return self._certificate

    @property
    def node_id(self) -> str:
        """This node's id."""
        return self._certificate.node_id

    @property
    def cluster_id(self) -> str:
        """This node's cluster."""
        return self._certificate.cluster_id

    def swap(self, renewed: NodeIdentity) -> None:
        """Use a renewed identity for new connections. Raises CertificateError when it is another node's."""
        certificate = renewed.certificate
        if (certificate.node_id, certificate.cluster_id) != (self.node_id, self.cluster_id):
            raise CertificateError(
                f"the renewed certificate is node {certificate.node_id}'s of cluster "
                f"{certificate.cluster_id}, not this node's"
            )
        self._use(renewed)

    def server_context(self) -> ssl.SSLContext:
        """For connections that are accepted from now on."""
        return self._server

    def client_context(self) -> ssl.SSLContext:
        """For connections that are dialled from now on."""
        return self._client


def server_context(identity: NodeIdentity) -> ssl.SSLContext:
    """TLS 1.3 server: shows our certificate, asks for the caller's, accepts callers without one (bootstrap).

    A certificate that is shown must chain to the cluster's CA and be in time, or the handshake fails.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # No resumption: every connection proves its certificate anew.
    context.num_tickets = 0
    context.verify_mode = ssl.CERT_OPTIONAL
    _trust(context, identity.bundle_pem)
    _load_key(context, identity)
    return context


def client_context(identity: NodeIdentity) -> ssl.SSLContext:
    """TLS 1.3 client showing our certificate; the server must be a manager of our cluster.

    Who the server is, is checked inside the handshake, before a byte of ours is sent: nodes are known by
    cluster, role and id, not by host names.
    """
    cluster_id = identity.certificate.cluster_id

    def check(certificate: NodeCertificate) -> None:
        certificate.check_cluster(cluster_id)
        certificate.check_manager()

    context = bootstrap_context(identity.bundle_pem, check)
    _load_key(context, identity)
    return context


def bootstrap_context(bundle_pem: bytes, check: Check = NodeCertificate.check_manager) -> ssl.SSLContext:
    """TLS 1.3 client without a certificate; the server must be a manager under this CA bundle."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    _trust(context, bundle_pem)
    context.sslobject_class = _checking(check)
    return context


def unverified_context() -> ssl.SSLContext:
    """TLS 1.3 client that trusts anybody: only to fetch a CA bundle whose digest a join token pins."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _checking(check: Check) -> type[ssl.SSLObject]:
    class CheckedObject(ssl.SSLObject):
        """A TLS connection whose handshake fails unless `check` accepts the peer's certificate."""

        def do_handshake(self) -> None:
            super().do_handshake()
            try:
                check(load_der(self.getpeercert(binary_form=True) or b""))
            except CertificateError as error:
                raise ssl.SSLCertVerificationError(str(error)) from error

    return CheckedObject


def _trust(context: ssl.SSLContext, bundle_pem: bytes) -> None:
    try:
        context.load_verify_locations(cadata=bundle_pem.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise CertificateError(f"the CA bundle cannot be read: {error}") from error


def _load_key(context: ssl.SSLContext, identity: NodeIdentity) -> None:
    handle = os.memfd_create("swarmpy-identity", os.MFD_CLOEXEC)
    try:
        text = identity.cert_pem + b"\n" + identity.key_pem
        while text:
            text = text[os.write(handle, text) :]
        context.load_cert_chain(f"/proc/self/fd/{handle}")
    except ssl.SSLError as error:
        raise CertificateError(f"the node's key and certificate cannot be used together: {error}") from error
    finally:
        os.close(handle)


def _issued(leaf: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True
