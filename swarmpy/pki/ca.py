"""The cluster's certificate authority.

What belongs here: making the root, signing node certificates, the digest that join tokens pin. What does not:
deciding who gets a certificate (manager/), keeping the root key at rest (cluster state, sealed), and TLS.

The layout of certificates follows Docker Swarm: root ECDSA P-256 `CN=swarm-ca` for 20 years; leaves with
`CN=node id, OU=swarm-manager|swarm-worker, O=cluster id`, back-dated by an hour for clocks that disagree.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from swarmpy.pki.certs import (
    CA_NAME,
    MANAGER,
    SECOND,
    UNITS,
    check_name,
    to_datetime,
    to_instant,
)
from swarmpy.pki.errors import CertificateError, CsrError, PkiError

HOUR = 3600 * SECOND
DAY = 24 * HOUR
BACKDATE = HOUR
MIN_EXPIRY = HOUR
DEFAULT_EXPIRY = 90 * DAY
ROOT_LIFETIME = 20 * 365 * DAY
MAX_CSR = 16 * 1024

LeafKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


def digest(bundle_pem: bytes) -> bytes:
    """SHA-256 of the CA bundle's PEM bytes: what a join token pins."""
    return hashlib.sha256(bundle_pem).digest()


@dataclass(frozen=True, slots=True)
class Authority:
    """A root certificate with its private key. Its text form must never be logged: `repr` hides the key.

    `chain_pem` is appended to every issued certificate (a cross-signed root while roots change hands).
    """

    cert_pem: bytes
    key_pem: bytes = field(repr=False)
    chain_pem: bytes = b""

    @classmethod
    def create(cls, now: int) -> Authority:
        """A fresh root, valid from an hour before `now` (ns) for 20 years."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, CA_NAME)])
        cert = _root_builder(name, key.public_key(), now).issuer_name(name)
        return cls(
            cert_pem=_pem(cert.sign(key, hashes.SHA256())),
            key_pem=key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        )

    def check(self) -> None:
        """Raises CertificateError unless certificate and key are a CA pair."""
        cert, key = self._load()
        if cert.public_key() != key.public_key():
            raise CertificateError("the CA's private key does not belong to its certificate")
        try:
            is_ca = cert.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        except x509.ExtensionNotFound:
            is_ca = False
        if not is_ca:
            raise CertificateError("the CA certificate is not one: it may not sign others (CA:false)")

    def digest(self) -> bytes:
        """SHA-256 of the root's PEM."""
        return digest(self.cert_pem)

    def issue(
        self,
        csr_pem: bytes,
        node_id: str,
        role: str,
        cluster_id: str,
        now: int,
        expiry: int = DEFAULT_EXPIRY,
    ) -> bytes:
        """Sign a node certificate; returns PEM (leaf first, then the chain if any).

        Only the request's public key is used: subject, names and extensions are the server's. `now` in
        ns since the epoch, `expiry` in ns from now. Raises CsrError for the request, PkiError for the rest.
        """
        public = check_csr(csr_pem)
        if role not in UNITS:
            raise PkiError(f"{role!r} is not a role: nodes are worker or manager")
        if expiry < MIN_EXPIRY:
            raise PkiError("certificates must be valid for at least one hour")
        cert, key = self._load()
        end = min(now + expiry, to_instant(cert.not_valid_after_utc))
        if end <= now:
            raise PkiError("the cluster's root certificate has expired: rotate the CA")
        names = [UNITS[role], check_name("node id", node_id)]
        if role == MANAGER:
            names.append(CA_NAME)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_subject(node_id, role, check_name("cluster id", cluster_id)))
            .issuer_name(cert.subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(to_datetime(now - BACKDATE))
            .not_valid_after(to_datetime(end))
        )
        for extension, critical in _leaf_extensions(names, public, cert):
            builder = builder.add_extension(extension, critical)
        return _pem(builder.sign(key, hashes.SHA256())) + self.chain_pem

    def cross_sign(self, other_root_pem: bytes, now: int) -> bytes:
        """Another root's name and key under this root's signature, PEM.

        Appended as `chain_pem` of the new Authority while roots change: nodes that only know this root
        then trust what the new one issues. Raises CertificateError.
        """
        try:
            other = x509.load_pem_x509_certificate(other_root_pem)
            public = other.public_key()
        except (ValueError, UnsupportedAlgorithm) as error:
            raise CertificateError(f"the new root is not a PEM certificate: {error}") from error
        if not isinstance(public, ec.EllipticCurvePublicKey):
            raise CertificateError("the new root's key must be ECDSA (P-256 or P-384)")
        cert, key = self._load()
        builder = _root_builder(other.subject, public, now, path_length=0).issuer_name(cert.subject)
        ours = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
        return _pem(builder.add_extension(ours, critical=False).sign(key, hashes.SHA256()))

    def _load(self) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        try:
            cert = x509.load_pem_x509_certificate(self.cert_pem)
            key = serialization.load_pem_private_key(self.key_pem, None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise CertificateError(f"the CA's certificate or key cannot be read: {error}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise CertificateError("the CA's key must be ECDSA (P-256 or P-384)")
        return cert, key


def check_csr(csr_pem: bytes) -> LeafKey:
    """The public key of an acceptable request: self-signed, ECDSA P-256/P-384 or Ed25519. Raises CsrError."""
    if len(csr_pem) > MAX_CSR:
        raise CsrError(f"the certificate request is longer than {MAX_CSR} bytes")
    try:
        csr = x509.load_pem_x509_csr(csr_pem)
        valid = csr.is_signature_valid
        public = csr.public_key()
    except (ValueError, TypeError, InvalidSignature) as error:
        raise CsrError(f"the certificate request cannot be read: {error}") from error
    # cryptography raises its own UnsupportedAlgorithm for odd keys, which is not a ValueError.
    except Exception as error:
        raise CsrError(f"the certificate request's key is not supported: {error}") from error
    if not valid:
        raise CsrError("the certificate request's signature is wrong: its sender lacks the private key")
    if isinstance(public, ed25519.Ed25519PublicKey):
        return public
    if isinstance(public, ec.EllipticCurvePublicKey) and isinstance(
        public.curve, ec.SECP256R1 | ec.SECP384R1
    ):
        return public
    raise CsrError("node keys must be ECDSA P-256, ECDSA P-384 or Ed25519")


def _subject(node_id: str, role: str, cluster_id: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, cluster_id),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, UNITS[role]),
            x509.NameAttribute(NameOID.COMMON_NAME, node_id),
        ]
    )


def _leaf_extensions(
    names: list[str], public: LeafKey, issuer: x509.Certificate
) -> list[tuple[x509.ExtensionType, bool]]:
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_key_usage(sign=True, ca=False), True),
        (
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
            False,
        ),
        (x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), False),
        (x509.SubjectKeyIdentifier.from_public_key(public), False),
        (x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), False),
    ]


def _root_builder(
    name: x509.Name, public: ec.EllipticCurvePublicKey, now: int, path_length: int = 1
) -> x509.CertificateBuilder:
    # Path length 1 leaves room for one cross-signed root below this one during a rotation.
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(to_datetime(now - BACKDATE))
        .not_valid_after(to_datetime(now + ROOT_LIFETIME))
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_key_usage(sign=False, ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _key_usage(*, sign: bool, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(cert: x509.Certificate) -> bytes:
    return cert.public_bytes(serialization.Encoding.PEM)
