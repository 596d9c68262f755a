"""SCTP by real associations: through a virtual address and through the routing mesh.

The kernels that CI has of its own know no SCTP sockets; there, the first packet alone is looked at (tests/contracts).
The cases with a `balancer` are run inside User-mode Linux by test_ipvs.py; `python -m tests.qemu` runs all of them.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from swarmpy.adapters.netns import inside
from swarmpy.ports import Balancer, MeshPort
from tests.contracts import test_mesh as mesh4
from tests.contracts import test_mesh_ipv6 as mesh6
from tests.contracts.netlab import Lab
from tests.contracts.test_balancer import (  # noqa: F401  fixtures
    BACKENDS,
    BACKENDS6,
    CLIENT,
    CLIENT6,
    VIP,
    VIP6,
    balancer,
    lab,
    table,
)

PORT = 80
PATIENCE = 20.0
MANY = bytes(range(256)) * 1000
"""More than a socket's buffer holds..."""
MESSAGE = 8000
"""...in messages that do not fit a packet."""


def opened(space: str, address: str) -> socket.socket:
    """An SCTP socket of that namespace, for addresses of that version."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = inside(space, socket.socket, family, socket.SOCK_STREAM, socket.IPPROTO_SCTP)
    made.setblocking(False)
    return made


async def send(writer: asyncio.StreamWriter, data: bytes) -> None:
    """In messages, one after the other: none may be larger than the socket's buffer."""
    writer.transport.set_write_buffer_limits(0)
    for at in range(0, len(data), MESSAGE):
        writer.write(data[at : at + MESSAGE])
        await writer.drain()


async def answer(name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Who comes is told the server's name and his own address, and then gets back all that he sends."""
    try:
        writer.write(f"{name} {writer.get_extra_info('peername')[0]}\n".encode())
        while data := await reader.read(1 << 16):
            await send(writer, data)
    finally:
        writer.close()


@asynccontextmanager
async def servers(spaces: Mapping[str, str]) -> AsyncIterator[None]:
    """One in each namespace, at all its addresses; by name, which is one of the addresses."""
    async with AsyncExitStack() as stack:
        for name, space in spaces.items():
            listening = opened(space, name)
            if ":" in name:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listening.bind(("", PORT))
            serve = await asyncio.start_server(
                lambda reader, writer, name=name: answer(name, reader, writer), sock=listening
            )
            await stack.enter_async_context(serve)
        yield


class Association:
    """A client's. `who`: the server that answers; `seen`: the client's address as it sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, greeting: str) -> None:
        self.reader, self.writer = reader, writer
        self.who, self.seen = greeting.split()

    @classmethod
    async def begin(cls, space: str, address: str, port: int = PORT) -> Association:
        made = opened(space, address)
        async with asyncio.timeout(PATIENCE):
            await asyncio.get_running_loop().sock_connect(made, (address, port))
            reader, writer = await asyncio.open_connection(sock=made)
            return cls(reader, writer, (await reader.readline()).decode())

    async def echoes(self, data: bytes = b"still there\n") -> bool:
        async with asyncio.timeout(PATIENCE):
            _, heard = await asyncio.gather(send(self.writer, data), self.reader.readexactly(len(data)))
        return heard == data

    async def end(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


async def asked(space: str, address: str, port: int = PORT, *, count: int) -> Counter[tuple[str, str]]:
    """(who answered, the address that it saw) of so many associations, one after the other."""
    found = Counter[tuple[str, str]]()
    for _ in range(count):
        one = await Association.begin(space, address, port)
        found[one.who, one.seen] += 1
        await one.end()
    return found


@pytest.mark.parametrize(
    ("vip", "backends", "client"), [(VIP, BACKENDS, CLIENT), (VIP6, BACKENDS6, CLIENT6)], ids=["4", "6"]
)
async def test_associations_through_a_virtual_address(
    balancer: Balancer, lab: Lab, vip: str, backends: tuple[str, ...], client: str  # noqa: F811
) -> None:  # fmt: skip
    """Each in turn, the client's address kept, whole, and on to its end when its server leaves."""
    whole = table(*backends, vip=vip)
    async with servers(dict(zip(backends, lab.backends.values(), strict=True))):
        await balancer.apply(lab.client, whole, None)
        found = await asked(lab.client, vip, count=6)
        assert found == {(one, client): 2 for one in backends}
        kept = await Association.begin(lab.client, vip)
        assert await kept.echoes(MANY)
        left = table(*(one for one in backends if one != kept.who), vip=vip)
        await balancer.apply(lab.client, left, whole)
        assert await kept.echoes(MANY)
        later = await asked(lab.client, vip, count=4)
        assert later == {(one, client): 2 for one in backends if one != kept.who}
        assert await kept.echoes()
        await kept.end()


@pytest.mark.parametrize("world", [mesh4, mesh6], ids=["4", "6"])
async def test_associations_through_the_mesh(world: ModuleType) -> None:
    """By every node, with or without a task of its own; as above when a task leaves."""
    with world.whole() as mesh:
        await world.mend(mesh)
        for node in mesh.nodes:
            await _apply(node, tuple(_seen_as_the_node(one) for one in node.table.ports))
        backends, (first, *_) = world.BACKENDS, mesh.nodes
        async with servers(dict(zip(backends, mesh.backends, strict=True))):
            for node in mesh.nodes:
                found = await asked(mesh.outside, node.address, world.PORT, count=4)
                assert found == {(one, node.own): 2 for one in backends}
            kept = await Association.begin(mesh.outside, first.address, world.PORT)
            assert await kept.echoes(MANY)
            await _apply(first, tuple(_without(one, kept.who) for one in first.table.ports))
            assert await kept.echoes(MANY)
            found = await asked(mesh.outside, first.address, world.PORT, count=2)
            assert {who for who, _ in found} == set(backends) - {kept.who}
            assert await kept.echoes()
            await kept.end()


async def _apply(node: Any, ports: tuple[MeshPort, ...]) -> None:
    before, node.table = node.table, replace(node.table, ports=ports)
    await node.mesh.apply(node.table, before)


def _seen_as_the_node(port: MeshPort) -> MeshPort:
    """As SCTP's ports always are (plan/tables.py)."""
    return replace(port, snat=True) if port.protocol == "sctp" else port


def _without(port: MeshPort, backend: str) -> MeshPort:
    return replace(port, backends=tuple(one for one in port.backends if one != backend))
