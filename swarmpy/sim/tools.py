"""What a simulated node needs: node.toolbox.Toolbox over a Box, and certificates that replay.

What belongs here: the simulated counterpart of the daemon's RealTools. What does not: the node (node/).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from swarmpy.adapters.raft import RaftLog, RaftSettings
from swarmpy.node.toolbox import Interface
from swarmpy.pki import identity as identities
from swarmpy.pki.ca import digest
from swarmpy.pki.identity import Identity
from swarmpy.pki.rpc import Revoked
from swarmpy.pki.seal import PlainSealer, Sealing
from swarmpy.pki.tokens import parse_token
from swarmpy.ports import Body, FabricPorts, Log, Machine, Member, Peer, Wire, WireError
from swarmpy.sim.clock import SimEntropy
from swarmpy.sim.stage import Box
from swarmpy.sim.wire import STRANGER, SimWire

MadeLog = Callable[[Box, str, RaftLog, Machine], None]


class IdentityWire(SimWire):
    """A wire that shows what the node's certificate says at the moment."""

    def follow(self, identity: Identity) -> None:
        """Speak as this identity, whatever it is swapped for."""
        self._identity = identity

    @property
    def me(self) -> Peer:
        """What the certificate says."""
        identity: Identity | None = getattr(self, "_identity", None)
        if identity is None:
            return self._first
        known = identity.certificate
        return Peer(known.node_id, known.role, known.cluster_id, str(known.serial))

    @me.setter
    def me(self, peer: Peer) -> None:
        self._first = peer


class SimTools:
    """See the file's charter. `made_log` is told of each log before it starts."""

    def __init__(self, box: Box, settings: RaftSettings, made_log: MadeLog) -> None:
        self._box, self._settings, self._made_log = box, settings, made_log
        self.clock = box.clock
        self.entropy = box.make_entropy()
        self.disk, self._bulk = box.make_disk(), box.make_disk()
        self.engine = box.make_engine()
        self.sockets = box.make_sockets()
        self.fabric: FabricPorts | None = box.make_fabric()

    def interfaces(self) -> Sequence[Interface]:
        """One address a machine."""
        return [Interface("eth0", self._box.host)]

    def wire(self, identity: Identity, revoked: Revoked) -> Wire:
        """A wire of this life."""
        box = self._box
        assert box.process is not None
        wire = IdentityWire(box.stage.net, box.host, box.process, revoked=revoked)
        wire.follow(identity)
        box.program_state.setdefault("wires", []).append(wire)
        return wire

    def log(
        self, seat: str, address: str, wire: Wire, machine: Machine, sealer: Sealing, *, bootstrap: bool
    ) -> Log:
        """The Raft log under `raft/`."""
        log = RaftLog(
            seat, address, self.disk, wire, self.clock, self.entropy, machine, sealer,
            bootstrap_members=(Member(seat, address),) if bootstrap else None, settings=self._settings,
            bulk=self._bulk,
        )  # fmt: skip
        self._made_log(self._box, seat, log, machine)
        return log

    def sealer(self, *, create: bool) -> Sealing:
        """No sealing: what is on the simulated disk is not read by strangers."""
        return PlainSealer()

    async def fetch_bundle(self, address: str, token: str) -> bytes:
        """The CA bundle pinned by the token."""
        pinned = parse_token(token)
        reply = await self._stranger().call(address, "ca.bundle", {})
        bundle = reply.get("bundle")
        if not isinstance(bundle, bytes):
            raise WireError(f"{address} sent no CA bundle")
        pinned.check_digest(digest(bundle))
        return bundle

    async def bootstrap_call(self, address: str, bundle: bytes, method: str, body: Body) -> Body:
        """A call without a certificate."""
        return await self._stranger().call(address, method, body, timeout=10.0)

    def _stranger(self) -> SimWire:
        assert self._box.process is not None
        return SimWire(self._box.stage.net, self._box.host, self._box.process)

    def wipe(self) -> None:
        """Forget everything."""
        self._box.platter.wipe()
        self._box.me = STRANGER


@contextmanager
def repeatable_pki(seed: str) -> Generator[None, None, None]:
    """Keys, serial numbers and signatures from the seed, and no TLS contexts, inside the block.

    OpenSSL draws its own randomness, which no port can reach; the simulated wire reads certificates but
    performs no handshakes, so contexts (a millisecond each) are not made.
    """
    chance = SimEntropy(f"{seed} pki").random
    sign, sign_request = x509.CertificateBuilder.sign, x509.CertificateSigningRequestBuilder.sign

    def key(curve: ec.EllipticCurve, backend: Any = None) -> ec.EllipticCurvePrivateKey:
        return ec.derive_private_key(chance.getrandbits(250) + 1, curve)

    replaced: list[tuple[Any, str, Any]] = [
        (ec, "generate_private_key", key),
        (x509, "random_serial_number", lambda: chance.getrandbits(120) | 1 << 121),
        (x509.CertificateBuilder, "sign",
         lambda *args, **more: sign(*args, **more, ecdsa_deterministic=True)),
        (x509.CertificateSigningRequestBuilder, "sign",
         lambda *args, **more: sign_request(*args, **more, ecdsa_deterministic=True)),
        (identities, "server_context", lambda identity: None),
        (identities, "client_context", lambda identity: None),
    ]  # fmt: skip
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in replaced]
    for owner, name, value in replaced:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)
