from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmpy.pki import identity
from swarmpy.pki.ca import BACKDATE, DAY, Authority
from swarmpy.pki.errors import CertificateError, SealError
from swarmpy.pki.identity import Identity, NodeIdentity, make_key_and_csr, renewal_time
from swarmpy.pki.seal import PlainSealer, Sealer

from .conftest import NOW

SEALER = Sealer(bytes(32))


def node(authority: Authority, node_id="n1", role="worker", cluster="c") -> NodeIdentity:
    key, csr = make_key_and_csr()
    return NodeIdentity(authority.issue(csr, node_id, role, cluster, NOW), key, authority.cert_pem)


def test_saved_and_loaded_sealed(authority: Authority, store) -> None:
    mine = node(authority)
    mine.save(store, SEALER)
    assert NodeIdentity.load(store, SEALER) == mine
    assert mine.check(NOW).node_id == "n1"
    on_disk = b"".join(store.files.values())
    assert b"PRIVATE" not in on_disk
    assert b"PRIVATE" not in repr(mine).encode()
    with pytest.raises(SealError):
        NodeIdentity.load(store, Sealer(b"x" * 32))


def test_never_joined_and_nonsense(store) -> None:
    with pytest.raises(FileNotFoundError):
        NodeIdentity.load(store, SEALER)
    for nonsense in (b"", b"[]", b"{}", b'{"cert": 1}', b'{"cert": "AA=="}'):
        store.files[identity.IDENTITY_FILE] = PlainSealer().seal(nonsense, identity._AAD)
        with pytest.raises(SealError, match="something else"):
            NodeIdentity.load(store, PlainSealer())


def test_check_finds_what_does_not_fit(authority: Authority) -> None:
    mine, other = node(authority), node(authority)
    with pytest.raises(CertificateError, match="another key"):
        dataclasses.replace(mine, key_pem=other.key_pem).check(NOW)
    with pytest.raises(CertificateError, match="not signed"):
        dataclasses.replace(mine, bundle_pem=Authority.create(NOW).cert_pem).check(NOW)
    with pytest.raises(CertificateError, match="expired"):
        mine.check(NOW + 91 * DAY)
    with pytest.raises(CertificateError, match="clocks"):
        mine.check(NOW - 2 * BACKDATE)
    with pytest.raises(CertificateError, match="cannot be read"):
        dataclasses.replace(mine, key_pem=b"?").check(NOW)


@given(st.floats(0, 1, exclude_max=True))
def test_renewal_between_half_and_four_fifths(chance: float) -> None:
    when = renewal_time(CERTIFICATE, chance)
    assert NOW + 45 * DAY <= when <= NOW + 72 * DAY


CERTIFICATE = node(Authority.create(NOW)).certificate


def test_swap_takes_only_the_same_node(authority: Authority) -> None:
    live = Identity(node(authority))
    before = live.client_context(), live.server_context()
    assert before == (live.client_context(), live.server_context())
    for stranger in (node(authority, "n2"), node(authority, cluster="c2")):
        with pytest.raises(CertificateError, match="not this node's"):
            live.swap(stranger)
    live.swap(node(authority, role="manager"))
    assert live.certificate.role == "manager"
    assert live.client_context() is not before[0]
    assert live.server_context() is not before[1]
    assert (live.node_id, live.cluster_id) == ("n1", "c")


def test_broken_parts_are_sentences(authority: Authority) -> None:
    mine, other = node(authority), node(authority)
    with pytest.raises(CertificateError, match="cannot be used together"):
        Identity(dataclasses.replace(mine, key_pem=other.key_pem))
    with pytest.raises(CertificateError, match="CA bundle"):
        Identity(dataclasses.replace(mine, bundle_pem=b"junk"))
