from __future__ import annotations

import contextlib
import dataclasses
import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmpy.pki import ca
from swarmpy.pki.ca import DAY, HOUR, Authority
from swarmpy.pki.certs import load_der, load_pem
from swarmpy.pki.errors import CertificateError, CsrError, PkiError
from swarmpy.pki.identity import make_key_and_csr

from .conftest import NOW


def csr_for(key, subject=(), extensions=()) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(oid, value) for oid, value in subject])
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.PEM)


def test_root_is_as_in_swarm(authority: Authority) -> None:
    root = x509.load_pem_x509_certificate(authority.cert_pem)
    assert root.subject.rfc4514_string() == "CN=swarm-ca" == root.issuer.rfc4514_string()
    assert isinstance(root.public_key().curve, ec.SECP256R1)
    assert root.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    years = (root.not_valid_after_utc - root.not_valid_before_utc).days / 365
    assert 19.9 < years < 20.1
    authority.check()
    assert "PRIVATE" not in repr(authority)


@pytest.mark.parametrize("role", ["worker", "manager"])
def test_leaf_says_who_the_node_is(authority: Authority, role: str) -> None:
    _, csr = make_key_and_csr()
    pem = authority.issue(csr, "node1", role, "cluster1", NOW, 90 * DAY)
    read = load_pem(pem)
    assert (read.node_id, read.role, read.cluster_id) == ("node1", role, "cluster1")
    assert read.not_before == NOW - HOUR
    assert read.not_after == NOW + 90 * DAY
    names = {f"swarm-{role}", "node1"} | ({"swarm-ca"} if role == "manager" else set())
    assert read.names == names
    leaf = x509.load_pem_x509_certificate(pem)
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usage) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    basic = leaf.extensions.get_extension_for_class(x509.BasicConstraints)
    assert basic.critical
    assert not basic.value.ca
    leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.cert_pem))


def test_serials_differ(authority: Authority) -> None:
    _, csr = make_key_and_csr()
    made = [load_pem(authority.issue(csr, "n", "worker", "c", NOW)).serial for _ in range(20)]
    assert len(set(made)) == 20


def test_the_request_decides_nothing_but_the_key(authority: Authority) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    csr = csr_for(
        key,
        [(NameOID.COMMON_NAME, "m1"), (NameOID.ORGANIZATIONAL_UNIT_NAME, "swarm-manager")],
        [
            x509.BasicConstraints(ca=True, path_length=None),
            x509.SubjectAlternativeName([x509.DNSName("swarm-ca")]),
        ],
    )
    pem = authority.issue(csr, "w1", "worker", "c", NOW)
    read = load_pem(pem)
    assert (read.node_id, read.role, read.names) == ("w1", "worker", {"swarm-worker", "w1"})
    leaf = x509.load_pem_x509_certificate(pem)
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert leaf.public_key() == key.public_key()


@pytest.mark.parametrize(
    "make",
    [
        lambda: ec.generate_private_key(ec.SECP256R1()),
        lambda: ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate,
    ],
)
def test_good_keys(authority: Authority, make) -> None:
    assert authority.issue(csr_for(make()), "n", "worker", "c", NOW)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ec.generate_private_key(ec.SECP521R1()),
        lambda: ec.generate_private_key(ec.SECP256K1()),
        lambda: rsa.generate_private_key(65537, 2048),
    ],
)
def test_other_keys_are_refused(authority: Authority, make) -> None:
    with pytest.raises(CsrError, match="must be ECDSA"):
        authority.issue(csr_for(make()), "n", "worker", "c", NOW)


def test_a_forged_request_is_refused(authority: Authority) -> None:
    _, csr = make_key_and_csr()
    der = bytearray(x509.load_pem_x509_csr(csr).public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    forged = x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM)
    with pytest.raises(CsrError, match="signature"):
        authority.issue(forged, "n", "worker", "c", NOW)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 400), st.booleans())
def test_any_bytes_are_the_request_or_refused(data: bytes, place: int, damage: bool) -> None:
    _, csr = PAIR
    bad = csr[:place] + data + csr[place + len(data) :] if damage else data
    with contextlib.suppress(CsrError):
        # Damage that leaves the request whole (in the text around it) may pass; anything else is refused.
        assert ca.check_csr(bad).public_numbers() == x509.load_pem_x509_csr(csr).public_key().public_numbers()


PAIR = make_key_and_csr()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_as_certificate(data: bytes) -> None:
    for load in (load_der, load_pem):
        with pytest.raises(CertificateError):
            load(data)


@pytest.mark.parametrize("bad", ["", "a b", "x" * 65, "-x", "é", "a/b", "a\n"])
def test_odd_names_are_refused(authority: Authority, bad: str) -> None:
    _, csr = PAIR
    with pytest.raises(CertificateError, match="cannot be a node id"):
        authority.issue(csr, bad, "worker", "c", NOW)
    with pytest.raises(CertificateError, match="cannot be a cluster id"):
        authority.issue(csr, "n", "worker", bad, NOW)


def test_odd_roles_and_times_are_refused(authority: Authority) -> None:
    _, csr = PAIR
    with pytest.raises(PkiError, match="not a role"):
        authority.issue(csr, "n", "none", "c", NOW)
    with pytest.raises(PkiError, match="one hour"):
        authority.issue(csr, "n", "worker", "c", NOW, HOUR - 1)
    late = NOW + 20 * 365 * DAY - 10 * DAY
    assert load_pem(authority.issue(csr, "n", "worker", "c", late)).not_after < late + 11 * DAY
    with pytest.raises(PkiError, match="rotate the CA"):
        authority.issue(csr, "n", "worker", "c", late + 11 * DAY)


def test_a_ca_with_anothers_key_or_none(authority: Authority) -> None:
    other = Authority.create(NOW)
    with pytest.raises(CertificateError, match="does not belong"):
        dataclasses.replace(authority, key_pem=other.key_pem).check()
    with pytest.raises(CertificateError, match="cannot be read"):
        dataclasses.replace(authority, key_pem=b"x").check()
    key, csr = PAIR
    leaf = authority.issue(csr, "n", "worker", "c", NOW)
    with pytest.raises(CertificateError, match="may not sign"):
        Authority(leaf, key).check()


def test_openssl_agrees_on_the_chain(authority: Authority, tmp_path) -> None:
    _, csr = PAIR
    new = Authority.create(NOW)
    chained = dataclasses.replace(new, chain_pem=authority.cross_sign(new.cert_pem, NOW))
    direct = authority.issue(csr, "m1", "manager", "c", NOW)
    crossed = chained.issue(csr, "m1", "manager", "c", NOW)
    for name, data in (("old", authority.cert_pem), ("new", new.cert_pem), ("direct", direct),
                       ("crossed", crossed), ("chain", chained.chain_pem)):  # fmt: skip
        (tmp_path / name).write_bytes(data)

    def verify(root: str, leaf: str, *more: str) -> bool:
        done = subprocess.run(
            ["openssl", "verify", "-x509_strict", "-purpose", "sslclient",
             "-CAfile", root, *more, leaf],
            cwd=tmp_path, capture_output=True, check=False,
        )  # fmt: skip
        return done.returncode == 0

    assert verify("old", "direct")
    assert not verify("new", "direct")
    assert verify("new", "crossed")
    assert verify("old", "crossed", "-untrusted", "chain")
    assert not verify("old", "crossed")
