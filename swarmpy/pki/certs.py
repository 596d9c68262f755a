"""What a node certificate says, and the checks on it.

What belongs here: reading a certificate into plain values, and judging them (cluster, role, time). What does
not: issuing (see `ca`), keys and TLS (see `identity`).
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from functools import lru_cache

from cryptography import x509
from cryptography.x509.oid import NameOID, ObjectIdentifier

from swarmpy.pki.errors import CertificateError

WORKER = "worker"
MANAGER = "manager"
CA_NAME = "swarm-ca"
UNITS = {WORKER: "swarm-worker", MANAGER: "swarm-manager"}
"""Role to the organisational unit of its certificates, as in Docker Swarm."""

_ROLES = {unit: role for role, unit in UNITS.items()}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")

SECOND = 1_000_000_000
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def to_datetime(instant: int) -> datetime.datetime:
    """Nanoseconds since the epoch to a UTC time, cut to whole seconds (X.509 knows no fractions)."""
    return _EPOCH + datetime.timedelta(seconds=instant // SECOND)


def to_instant(time: datetime.datetime) -> int:
    """A UTC time of a certificate to nanoseconds since the epoch."""
    return ((time - _EPOCH) // datetime.timedelta(seconds=1)) * SECOND


def check_name(what: str, name: str) -> str:
    """The name, if it may stand in a certificate. Raises CertificateError."""
    if _NAME.fullmatch(name) is None:
        raise CertificateError(
            f"{name!r} cannot be a {what}: use 1 to 64 letters, digits, '.', '_' or '-', "
            "beginning with a letter or digit"
        )
    return name


@dataclass(frozen=True, slots=True)
class NodeCertificate:
    """A node certificate's content. Times are nanoseconds since the epoch; `serial` is lower-case hex;
    `names` are the DNS names of its subjectAltName."""

    node_id: str
    role: str
    cluster_id: str
    serial: str
    not_before: int
    not_after: int
    names: frozenset[str]

    def check_time(self, now: int) -> None:
        """Raises CertificateError outside [not_before, not_after]."""
        if now > self.not_after:
            raise CertificateError(
                f"the certificate of node {self.node_id} expired at "
                f"{to_datetime(self.not_after):%Y-%m-%dT%H:%M:%SZ}: the node must join again"
            )
        if now < self.not_before:
            raise CertificateError(
                f"the certificate of node {self.node_id} is not valid before "
                f"{to_datetime(self.not_before):%Y-%m-%dT%H:%M:%SZ}: compare the nodes' clocks"
            )

    def check_cluster(self, cluster_id: str) -> None:
        """Raises CertificateError when the certificate is another cluster's."""
        if self.cluster_id != cluster_id:
            raise CertificateError(
                f"node {self.node_id} belongs to cluster {self.cluster_id}, not to {cluster_id}"
            )

    def check_manager(self) -> None:
        """Raises CertificateError unless it is a manager's, good for a server of the cluster."""
        if self.role != MANAGER or CA_NAME not in self.names:
            raise CertificateError(
                f"node {self.node_id} is a {self.role}, not a manager: use a manager's address"
            )


def load_der(der: bytes) -> NodeCertificate:
    """Read a node certificate in DER. Raises CertificateError."""
    return _load_der(bytes(der))


@lru_cache(maxsize=1024)
def _load_der(der: bytes) -> NodeCertificate:
    # Remembered because every call on a pooled connection asks for its peer again.
    try:
        return read_certificate(x509.load_der_x509_certificate(der))
    except CertificateError:
        raise
    except ValueError as error:
        raise CertificateError(f"this is not a certificate: {error}") from error


def load_pem(pem: bytes) -> NodeCertificate:
    """Read the first certificate of a PEM text. Raises CertificateError."""
    try:
        return read_certificate(x509.load_pem_x509_certificate(pem))
    except CertificateError:
        raise
    except ValueError as error:
        raise CertificateError(f"this is not a PEM certificate: {error}") from error


def read_certificate(certificate: x509.Certificate) -> NodeCertificate:
    """Plain values of a parsed certificate. Raises CertificateError when it is not a node's."""
    unit = _one(certificate.subject, NameOID.ORGANIZATIONAL_UNIT_NAME, "role (OU)")
    role = _ROLES.get(unit)
    if role is None:
        raise CertificateError(f"the certificate's role {unit!r} is none of this cluster's roles")
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        dns = frozenset(names.get_values_for_type(x509.DNSName))
    except x509.ExtensionNotFound:
        dns = frozenset()
    return NodeCertificate(
        node_id=check_name("node id", _one(certificate.subject, NameOID.COMMON_NAME, "node id (CN)")),
        role=role,
        cluster_id=_one(certificate.subject, NameOID.ORGANIZATION_NAME, "cluster id (O)"),
        serial=f"{certificate.serial_number:x}",
        not_before=to_instant(certificate.not_valid_before_utc),
        not_after=to_instant(certificate.not_valid_after_utc),
        names=dns,
    )


def _one(subject: x509.Name, oid: ObjectIdentifier, what: str) -> str:
    values = subject.get_attributes_for_oid(oid)
    # Exactly one: two CNs would let two readers see two different nodes.
    if len(values) != 1:
        raise CertificateError(f"the certificate names {len(values)} values as its {what}, not one")
    value = values[0].value
    return value if isinstance(value, str) else value.decode("utf-8", "replace")
