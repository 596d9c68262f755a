"""A small cluster's trust for the wire's tests: one CA, nodes with real certificates, wires on loopback."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from swarmpy.adapters.wire import TlsWire, WireSettings
from swarmpy.pki.ca import DEFAULT_EXPIRY, Authority
from swarmpy.pki.identity import Identity, NodeIdentity, make_key_and_csr
from swarmpy.pki.rpc import Revoked

CLUSTER = "c1uster"


class WallClock:
    """The machine's clocks, with an offset that tests may turn."""

    def __init__(self) -> None:
        self.offset = 0

    def now(self) -> int:
        return time.time_ns() + self.offset

    def monotonic(self) -> float:
        return time.monotonic()


@dataclass
class Town:
    """Everything that a test needs to raise nodes; `close` stops every wire."""

    authority: Authority
    clock: WallClock = field(default_factory=WallClock)
    revoked: Revoked = field(default_factory=Revoked)
    wires: list[TlsWire] = field(default_factory=list)

    def identity(
        self,
        node_id: str,
        role: str = "manager",
        *,
        cluster: str = CLUSTER,
        age: int = 0,
        authority: Authority | None = None,
    ) -> NodeIdentity:
        authority = authority or self.authority
        key, csr = make_key_and_csr()
        cert = authority.issue(csr, node_id, role, cluster, self.clock.now() - age, DEFAULT_EXPIRY)
        return NodeIdentity(cert, key, authority.cert_pem)

    def wire(
        self,
        node_id: str,
        role: str = "manager",
        *,
        identity: NodeIdentity | None = None,
        settings: WireSettings | None = None,
        revoked: Revoked | None = None,
    ) -> TlsWire:
        made = TlsWire(
            Identity(identity or self.identity(node_id, role)),
            self.clock,
            self.revoked if revoked is None else revoked,
            settings,
        )
        self.wires.append(made)
        return made

    async def server(self, node_id: str = "m1", settings: WireSettings | None = None) -> TlsWire:
        made = self.wire(node_id, settings=settings)
        await made.start("127.0.0.1:0")
        return made

    async def close(self) -> None:
        for wire in self.wires:
            await wire.stop()


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority.create(time.time_ns())


@pytest.fixture
async def town(authority: Authority) -> AsyncIterator[Town]:
    made = Town(authority)
    yield made
    await made.close()


def at(wire: TlsWire) -> str:
    return f"127.0.0.1:{wire.port}"
