"""Servers for the tests of the name server: ours with a table of answers, others with a script, and clients.

What belongs here: starting and asking. What does not: any test. Each test has a loopback address of its own, so
that no two meet, and the sockets lie in the namespace of the test: no privilege is needed.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable

import dns.asyncquery
import dns.message
import dns.rdata
import dns.rdatatype

from swarmpy.model.links import Answer, Question

PORT = 5300
OWN = "/proc/self/ns/net"
_numbers = itertools.count(1)


def address() -> str:
    """A loopback address that nobody else uses."""
    number = next(_numbers)
    return f"127.{100 + os.getpid() % 100}.{os.getpid() // 100 % 250}.{number % 250 + 1}"


class Table:
    """What `resolve` knows, by name; an exception is raised. Remembers what it was asked."""

    def __init__(self, **answers: Answer) -> None:
        self.answers: dict[str, Answer | Exception] = dict(answers)
        self.asked: list[Question] = []
        self.default = Answer(forward=True)

    def __call__(self, question: Question) -> Answer:
        self.asked.append(question)
        found = self.answers.get(question.name, self.default)
        if isinstance(found, Exception):
            raise found
        return found


Script = Callable[[dns.message.Message, bool], dns.message.Message | bytes | list[bytes] | None]
"""(query, over TCP) to what is sent back; a message is sent as it is, lists as several packets."""


class Other(asyncio.DatagramProtocol):
    """Another name server, that does what its script says."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.address = address()
        self.seen: list[dns.message.Message] = []
        self.peers: list[tuple[str, int]] = []

    async def start(self) -> Other:
        loop = asyncio.get_running_loop()
        self._udp, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(self.address, PORT))
        self._tcp = await asyncio.start_server(self._connected, self.address, PORT)
        return self

    async def stop(self) -> None:
        self._udp.close()
        self._tcp.close()
        await self._tcp.wait_closed()

    def _said(self, packet: bytes, tcp: bool) -> list[bytes]:
        query = dns.message.from_wire(packet)
        self.seen.append(query)
        said = self.script(query, tcp)
        if isinstance(said, dns.message.Message):
            return [said.to_wire(max_size=65535)]
        if isinstance(said, bytes):
            return [said]
        return said or []

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.peers.append(addr)
        for packet in self._said(data, False):
            self._udp.sendto(packet, addr)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        packet = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
        for said in self._said(packet, True):
            writer.write(len(said).to_bytes(2) + said)
        await writer.drain()
        writer.close()


def answering(text: str) -> Script:
    """Every question for A has that address."""

    def script(query: dns.message.Message, tcp: bool) -> dns.message.Message:
        reply = dns.message.make_response(query)
        rrset = reply.find_rrset(reply.answer, query.question[0].name, 1, 1, create=True)
        rrset.add(dns.rdata.from_text("IN", "A", text), 60)
        return reply

    return script


async def ask(
    server: str, name: str, kind: str = "A", *, tcp: bool = False, source: str | None = None, **query: object
) -> dns.message.Message:
    """The reply."""
    message = dns.message.make_query(name, kind, **query)
    if tcp:
        return await dns.asyncquery.tcp(message, server, 10, PORT, source=source)
    return await dns.asyncquery.udp(message, server, 10, PORT, source=source)


def texts(reply: dns.message.Message) -> list[str]:
    """The answer's data, in order."""
    return [str(data) for rrset in reply.answer for data in rrset]


async def exchange(server: str, packet: bytes, *, source: str | None = None) -> bytes | None:
    """The reply to the packet by UDP; None when a proper question that follows is answered first."""
    loop = asyncio.get_running_loop()
    got: asyncio.Queue[bytes] = asyncio.Queue()

    class Client(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: object) -> None:
            got.put_nowait(data)

    local = (source, 0) if source else None
    transport, _ = await loop.create_datagram_endpoint(Client, local_addr=local, remote_addr=(server, PORT))
    try:
        probe = dns.message.make_query("probe.test", "A", id=0xFFFE)
        transport.sendto(packet)
        transport.sendto(probe.to_wire())
        first = await asyncio.wait_for(got.get(), 5)
        return None if first[:2] == b"\xff\xfe" else first
    finally:
        transport.close()
