"""A small cluster's trust for the wire's tests: one CA, nodes with real certificates, wires on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
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

    @staticmethod
    def identity_of(authority: Authority) -> NodeIdentity:
        """A manager of the same name under another CA."""
        return Town(authority).identity("m1")

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


class Relay:
    """A TCP relay between a client and a server that can be cut or go deaf, as a network does."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._server: asyncio.Server | None = None
        self._pipes: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self._open = asyncio.Event()
        self._open.set()

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._join, "127.0.0.1", 0)
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def deafen(self) -> None:
        """From now on nothing passes, and nobody is told."""
        self._open.clear()

    def cut(self) -> None:
        """Reset every connection."""
        for writer in self._writers:
            writer.transport.abort()

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for pipe in self._pipes:
            pipe.cancel()
        if self._pipes:
            await asyncio.wait(self._pipes)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers += [writer, far_writer]
        for pair in ((reader, far_writer), (far_reader, writer)):
            pipe = asyncio.create_task(self._pipe(*pair))
            self._pipes.add(pipe)

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._open.wait()
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


@pytest.fixture
async def relays() -> AsyncIterator[Callable[[TlsWire], Awaitable[tuple[Relay, str]]]]:
    made: list[Relay] = []

    async def make(wire: TlsWire) -> tuple[Relay, str]:
        relay = Relay(wire.port)
        made.append(relay)
        return relay, await relay.start()

    yield make
    for relay in made:
        await relay.stop()
