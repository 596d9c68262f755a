"""Joining over a real wire: whatever a machine asks for, it gets what its token says, or one sentence."""

from __future__ import annotations

import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from swarmpy.adapters.wire import TlsWire, bootstrap_call, fetch_bundle
from swarmpy.manager.certificates import CertificateService
from swarmpy.model.commands import AnyCommand, JoinNode, Result
from swarmpy.model.objects import Cluster
from swarmpy.pki.ca import Authority
from swarmpy.pki.certs import load_pem
from swarmpy.pki.errors import TokenError, WrongClusterError
from swarmpy.pki.identity import make_key_and_csr
from swarmpy.pki.tokens import make_token
from swarmpy.ports import RefusedError
from swarmpy.state.changes import Put
from swarmpy.state.snapshot import Snapshot

from .conftest import CLUSTER, Town, at


class Dice:
    def token(self, size: int) -> bytes:
        return time.monotonic_ns().to_bytes(size, "big")

    def uniform(self, low: float, high: float) -> float:
        return low


class Leader:
    """The certificate service behind a real listener; `commands` are what it had committed."""

    def __init__(self, town: Town, wire: TlsWire) -> None:
        self.authority = town.authority
        self.commands: list[AnyCommand] = []
        self.tokens = {role: make_token(town.authority.digest()) for role in ("worker", "manager")}
        self.at = at(wire)
        service = CertificateService(self._submit, self._world, town.clock, Dice())
        wire.on_call("join", service.join)
        wire.on_call("ca.bundle", self._bundle)

    def _world(self) -> Snapshot:
        cluster = Cluster(
            id=CLUSTER,
            root_cert=self.authority.cert_pem.decode(),
            root_key=self.authority.key_pem.decode(),
            worker_token=self.tokens["worker"],
            manager_token=self.tokens["manager"],
        )
        return Snapshot().evolve([Put(cluster)], 1, 1)

    async def _submit(self, command: AnyCommand) -> Result:
        self.commands.append(command)
        return Result()

    async def _bundle(self, peer, body):  # type: ignore[no-untyped-def]
        return {"bundle": self.authority.cert_pem}

    async def join(self, token: str, csr: bytes, **more: object) -> dict[str, object]:
        return await bootstrap_call(
            self.at, self.authority.cert_pem, "join", {"token": token, "csr": csr.decode(), **more}
        )


@pytest.fixture
async def leader(town: Town) -> Leader:
    return Leader(town, await town.server())


def greedy_csr() -> bytes:
    """Asks to be a manager, a CA, another node and the CA's name."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "another cluster"),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "swarm-manager"),
            x509.NameAttribute(NameOID.COMMON_NAME, "m1"),
        ]
    )
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName("swarm-ca"), x509.DNSName("m1")]), critical=False
        )
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )


async def test_a_request_decides_nothing_but_the_key(leader: Leader) -> None:
    csr = greedy_csr()
    reply = await leader.join(
        leader.tokens["worker"], csr, role="manager", node_id="m1", cluster_id="x", hostname="h" * 5000
    )
    given = load_pem(str(reply["certificate"]).encode())
    assert (given.role, given.cluster_id) == ("worker", CLUSTER)
    assert given.node_id == reply["node_id"] != "m1"
    assert given.names == {"swarm-worker", given.node_id}
    cert = x509.load_pem_x509_certificate(str(reply["certificate"]).encode())
    assert cert.public_key() == x509.load_pem_x509_csr(csr).public_key()
    assert not cert.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    (command,) = leader.commands
    assert isinstance(command, JoinNode)
    assert (command.role.word, len(command.hostname)) == ("worker", 253)


BAD_TOKENS = {
    "none": ("", "invalid join token"),
    "noise": ("SWMTKN-1-x-y", "invalid join token"),
    "newline": ("{worker}\n", "invalid join token"),
    "capitals": ("{WORKER}", "invalid join token"),
    "rotated": ("{rotated}", "not current"),
    "other cluster": ("{other}", "belongs to another cluster"),
    "digest of another": ("{mixed}", "belongs to another cluster"),
}


@pytest.mark.parametrize("kind", BAD_TOKENS)
async def test_tokens_that_let_nobody_in(leader: Leader, kind: str) -> None:
    form, sentence = BAD_TOKENS[kind]
    other = make_token(Authority.create(time.time_ns()).digest())
    text = form.format(
        worker=leader.tokens["worker"],
        WORKER=leader.tokens["worker"].upper(),
        rotated=make_token(leader.authority.digest()),
        other=other,
        mixed=other.rpartition("-")[0] + "-" + leader.tokens["worker"].rpartition("-")[2],
    )
    with pytest.raises(RefusedError, match=sentence) as refused:
        await leader.join(text, make_key_and_csr()[1])
    assert refused.value.code == "InvalidArgument"
    assert "\n" not in refused.value.message
    for token in leader.tokens.values():
        assert token.rpartition("-")[2] not in refused.value.message, "a refusal never helps to guess"
    assert leader.commands == []
    # The machine itself notices the wrong cluster before it sends the secret.
    if sentence != "not current":
        with pytest.raises(TokenError) as known:
            await fetch_bundle(leader.at, text)
        assert isinstance(known.value, WrongClusterError) is (sentence == "belongs to another cluster")


@pytest.mark.parametrize("field", ["token", "csr", "address", "hostname", "availability", "data_address"])
@pytest.mark.parametrize("value", [None, 7, b"bytes", ["list"], {"a": 1}])
async def test_fields_of_other_types(leader: Leader, field: str, value: object) -> None:
    body = {"token": leader.tokens["worker"], "csr": make_key_and_csr()[1].decode(), field: value}
    with pytest.raises(RefusedError, match=f"{field} must be a text"):
        await bootstrap_call(leader.at, leader.authority.cert_pem, "join", body)
    assert leader.commands == []


async def test_the_data_path_address_is_an_address(leader: Leader) -> None:
    await leader.join(leader.tokens["worker"], make_key_and_csr()[1], data_address="198.51.100.7")
    await leader.join(leader.tokens["worker"], make_key_and_csr()[1])
    assert [one.data_address for one in leader.commands] == ["198.51.100.7", ""]  # type: ignore[union-attr]
    for text in ("eth0", "0.0.0.0", "10.0.0.1:4789", "x" * 9000):
        with pytest.raises(RefusedError, match="invalid data path address") as refused:
            await leader.join(leader.tokens["worker"], make_key_and_csr()[1], data_address=text)
        assert (refused.value.code, len(refused.value.message) < 200) == ("InvalidArgument", True)
    assert len(leader.commands) == 2


async def test_each_token_grants_its_role_only(leader: Leader) -> None:
    for role, token in leader.tokens.items():
        reply = await leader.join(token, make_key_and_csr()[1])
        assert load_pem(str(reply["certificate"]).encode()).role == role == reply["role"]
