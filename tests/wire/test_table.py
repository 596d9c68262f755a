"""Every row of the role table with every kind of credentials, on a real server over loopback."""

from __future__ import annotations

import io
import ssl
import time

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from swarmpy.adapters.wire import TlsWire, WireSettings, codec, dialer
from swarmpy.adapters.wire.faults import explain
from swarmpy.pki import rpc
from swarmpy.pki.ca import DAY, Authority
from swarmpy.pki.identity import NodeIdentity, _load_key, bootstrap_context
from swarmpy.ports import RefusedError, WireError

from .conftest import Town, at

GOOD = {"none": "none", "worker": "worker", "manager": "manager"}
"""Credentials that pass the gate, and the role they pass it in."""
REVOKED = ("removed node", "demoted manager")
BROKEN = ("expired", "not yet valid", "other CA", "cloned node", "signed by a node", "signed by itself")
"""Credentials with which there is no connection at all."""
FOREIGN = ("other cluster",)
EVERY = (*GOOD, *REVOKED, *BROKEN, *FOREIGN)


def credentials(town: Town, kind: str, role: str) -> NodeIdentity | None:
    """The identity of a caller; `role` for the bad ones is one that the row would let in."""
    if kind == "none":
        return None
    if kind in GOOD:
        return town.identity("n1", kind)
    if kind == "expired":
        return town.identity("n1", role, age=91 * DAY)
    if kind == "not yet valid":
        return town.identity("n1", role, age=-2 * DAY)
    if kind == "other CA":
        return town.identity("n1", role, authority=Authority.create(time.time_ns()))
    if kind == "cloned node":
        # A stranger's CA with our CA's name and key id, and a certificate that copies a living node's.
        return forged(town.identity("n1", role), issuer_of(town.authority.cert_pem), None)
    if kind in ("signed by a node", "signed by itself"):
        signer = town.identity("n1", "manager")
        by_itself = kind == "signed by itself"
        return forged(town.identity("n1", role), None if by_itself else signer, None if by_itself else signer)
    if kind == "other cluster":
        return town.identity("n1", role, cluster="c2uster")
    identity = town.identity("n1", role)
    if kind == "removed node":
        town.revoked.revoke(node_id="n1")
    else:
        town.revoked.revoke(serial=identity.certificate.serial)
    return identity


def issuer_of(pem: bytes) -> NodeIdentity:
    """A certificate without a key to copy names from."""
    return NodeIdentity(pem, b"", b"")


def forged(model: NodeIdentity, named: NodeIdentity | None, signer: NodeIdentity | None) -> NodeIdentity:
    """A copy of a node's certificate, extensions included, for a fresh key; issued in the name of `named` (its
    own without one) and signed with the key of `signer` (a fresh one without)."""
    original = x509.load_pem_x509_certificate(model.cert_pem)
    key = ec.generate_private_key(ec.SECP256R1())
    ours = x509.load_pem_x509_certificate(named.cert_pem).subject if named else original.subject
    builder = (
        x509.CertificateBuilder()
        .subject_name(original.subject)
        .issuer_name(ours)
        .public_key(key.public_key())
        .serial_number(original.serial_number)
        .not_valid_before(original.not_valid_before_utc)
        .not_valid_after(original.not_valid_after_utc)
    )
    for extension in original.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    signing: PrivateKeyTypes = key
    if signer is not None:
        signing = serialization.load_pem_private_key(signer.key_pem, None)
    elif named is not None:
        signing = ec.generate_private_key(ec.SECP256R1())
    assert isinstance(signing, ec.EllipticCurvePrivateKey)
    cert = builder.sign(signing, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    chain = signer.cert_pem if signer is not None else b""
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return NodeIdentity(cert + chain, text, model.bundle_pem)


def context_of(town: Town, identity: NodeIdentity | None) -> ssl.SSLContext:
    context = bootstrap_context(town.authority.cert_pem)
    if identity is not None:
        _load_key(context, identity)
    return context


async def use(wire: TlsWire, context: ssl.SSLContext, method: str, kind: str) -> None:
    """Call or open `method` as somebody with this context, past all checks of the client's side."""
    async with dialer.new_session(WireSettings()) as session:
        if kind == "call":
            await dialer.post(session, context, at(wire), method, {}, 5.0)
            return
        try:
            socket = await dialer.connect(session, context, at(wire), method, WireSettings())
            try:
                await dialer.greet(socket, {}, 1000)
            finally:
                await socket.close()
        except (aiohttp.ClientError, OSError) as error:
            raise explain(at(wire), error, 5.0) from error


async def serving_everything(town: Town) -> TlsWire:
    wire = await town.server("m1")

    async def call(peer, body):
        return {}

    async def channel(channel, hello):
        return

    for rule in rpc.TABLE.values():
        if rule.kind == "call":
            wire.on_call(rule.method, call)
        else:
            wire.on_channel(rule.method, channel)
    return wire


@pytest.mark.parametrize("method", sorted(rpc.TABLE))
@pytest.mark.parametrize("kind", EVERY)
async def test_row(town: Town, method: str, kind: str) -> None:
    rule = rpc.TABLE[method]
    wire = await serving_everything(town)
    role = "worker" if "worker" in rule.roles else "manager"
    context = context_of(town, credentials(town, kind, role))
    if kind in GOOD and GOOD[kind] in rule.roles:
        await use(wire, context, method, rule.kind)
        return
    if kind in BROKEN:
        with pytest.raises(WireError) as broken:
            await use(wire, context, method, rule.kind)
        assert not isinstance(broken.value, RefusedError)
        return
    with pytest.raises(RefusedError) as refused:
        await use(wire, context, method, rule.kind)
    assert refused.value.code == "PermissionDenied"
    expected = rpc.REVOKED if kind in REVOKED else rpc.FORBIDDEN
    if kind == "none":
        expected = rpc.UNAUTHENTICATED
    assert refused.value.data == {"reason": expected}


@pytest.mark.parametrize("kind", ["none", "worker", "manager"])
@pytest.mark.parametrize("path", ["/rpc/", "/rpc/raft", "/rpc/nothing", "/", "/rpc/ping/x", "/rpc/%00"])
async def test_unlisted_is_refused(town: Town, kind: str, path: str) -> None:
    wire = await serving_everything(town)
    context = context_of(town, credentials(town, kind, ""))
    url = f"https://{at(wire)}{path}"
    async with (
        dialer.new_session(WireSettings()) as session,
        session.post(url, data=codec.pack({}), ssl=context) as response,
    ):
        refusal = codec.refusal_from(codec.unpack_body(await response.read()))
    assert response.status == 404
    assert refusal.data == {"reason": rpc.UNKNOWN_METHOD}


@pytest.mark.parametrize("method", ["nothing", "ping"])
async def test_unlisted_channel_is_refused(town: Town, method: str) -> None:
    wire = await serving_everything(town)
    context = context_of(town, town.identity("m2"))
    async with dialer.new_session(WireSettings()) as session:
        url = f"https://{at(wire)}/channel/{method}"
        async with session.ws_connect(url, ssl=context) as socket:
            kind, rest = codec.unpack_frame((await socket.receive()).data)
    assert kind == codec.REFUSE
    assert codec.refusal_from(rest[0]).data == {"reason": rpc.UNKNOWN_METHOD}


@pytest.mark.parametrize(
    "rule", [rule for rule in rpc.TABLE.values() if rule.own_node], ids=lambda r: r.method
)
async def test_nobody_speaks_for_another_node(town: Town, rule: rpc.Rule) -> None:
    wire = await serving_everything(town)
    for role in rule.roles:
        client = town.wire("n1", role)
        ask = client.call if rule.kind == "call" else client.open
        for node_id in ("n2", "", None, 1, ["n1"]):
            with pytest.raises(RefusedError, match="only for itself"):
                await ask(at(wire), rule.method, {"node_id": node_id})
        await ask(at(wire), rule.method, {"node_id": "n1"})


@pytest.mark.parametrize(
    "rule", [rule for rule in rpc.TABLE.values() if rule.kind == "call"], ids=lambda r: r.method
)
async def test_large_bodies_are_refused(town: Town, rule: rpc.Rule) -> None:
    wire = await serving_everything(town)
    role = "none" if "none" in rule.roles else "manager"
    context = context_of(town, credentials(town, role, ""))
    exact = codec.pack({"x": b""})
    fill = rule.max_body - len(exact) - 4
    async with dialer.new_session(WireSettings()) as session:
        for size, status in ((fill - 4, 200), (fill + 64, 400)):
            data = codec.pack({"x": bytes(size)})
            url = f"https://{at(wire)}/rpc/{rule.method}"
            async with session.post(url, data=io.BytesIO(data), ssl=context) as response:
                await response.read()
            assert response.status == status

        # Without a declared length the server counts as it reads.
        async def parts():
            for _ in range(0, rule.max_body + 70_000, 65_536):
                yield bytes(65_536)

        async with session.post(url, data=parts(), ssl=context) as response:
            refusal = codec.refusal_from(codec.unpack_body(await response.read()))
        assert refusal.data == {"reason": rpc.TOO_LARGE}
    if rule.roles != frozenset({"none"}):
        with pytest.raises(RefusedError, match="at most"):
            await town.wire("m2").call(at(wire), rule.method, {"x": bytes(rule.max_body)})
