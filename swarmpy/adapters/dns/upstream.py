"""Asking other name servers.

What belongs here: which are asked, in what order, how long, and whether a reply is one. What does not:
whether a question may be asked of others. Questions go out from the process's own namespace, each from a
socket of its own: the kernel picks the port and takes packets of that server only, and the id is random.
"""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from swarmpy.adapters.dns import wire

DEADLINE = 3.5
"""Seconds for one question: the Engine's own resolver waits for 4."""
STAGGER = 0.8
"""A server that was silent for so long is not waited for alone."""
ROUNDS = 2
SICK = 10.0
"""Seconds for which a server that was silent is asked last."""
POOR = (wire.FORMERR, wire.SERVFAIL, wire.NOTIMP, wire.REFUSED)
"""Replies after which another server may know better."""
SERVERS = 8
"""More are not asked."""


class ResolvConf:
    """The servers of a resolv.conf, read again when the file changed."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._seen: tuple[int, int, int] | None = None
        self._servers: tuple[str, ...] = ()

    def servers(self) -> tuple[str, ...]:
        """() where there is no such file."""
        try:
            info = self._path.stat()
            seen = (info.st_mtime_ns, info.st_ino, info.st_size)
            if seen != self._seen:
                text = self._path.read_text(errors="replace")
                words = [line.split() for line in text.splitlines()]
                servers = [line[1] for line in words if len(line) > 1 and line[0] == "nameserver"]
                self._servers, self._seen = tuple(servers[:SERVERS]), seen
        except OSError:
            self._servers, self._seen = (), None
        return self._servers


class _Reply(asyncio.DatagramProtocol):
    """Waits for the reply to one question."""

    def __init__(self, number: bytes, question: bytes) -> None:
        self.reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._number, self._question = number, question

    def datagram_received(self, data: bytes, addr: object) -> None:
        if not self.reply.done() and wire.answers(data, self._number, self._question):
            self.reply.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.reply.done():
            self.reply.set_exception(exc)


class Upstream:
    """Asks servers on `port`."""

    def __init__(self, *, port: int = 53, deadline: float = DEADLINE, stagger: float = STAGGER) -> None:
        self._port, self._deadline, self._stagger = port, deadline, stagger
        self._sick: dict[str, float] = {}

    async def ask(self, packet: bytes, question: bytes, servers: Sequence[str]) -> bytes | None:
        """The reply to the packet, under another id; None where no server gave any. Servers are asked in
        order; the next one joins in as soon as the ones before failed or were silent for a while."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._deadline
        queue = deque(self._ordered(servers, loop.time()) * ROUNDS)
        asked: dict[asyncio.Task[bytes | None], str] = {}
        poor, well = None, ""
        try:
            while queue or asked:
                if queue:
                    server = queue.popleft()
                    asked[asyncio.create_task(self._one(server, packet, question))] = server
                left = end - loop.time()
                if left <= 0:
                    break
                wait = min(left, self._stagger) if queue else left
                done, _ = await asyncio.wait(asked, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    server, reply = asked.pop(task), task.result()
                    if reply is not None and reply[3] & 15 not in POOR:
                        well = server
                        return reply
                    poor = reply or poor
            return poor
        finally:
            await self._give_up(asked, loop.time(), well)

    def _ordered(self, servers: Sequence[str], now: float) -> list[str]:
        # A name instead of an address would have to be looked up first, by us.
        unique = [server for server in dict.fromkeys(servers) if _is_address(server)][:SERVERS]
        return sorted(unique, key=lambda server: self._sick.get(server, 0) > now)

    async def _give_up(self, asked: dict[asyncio.Task[bytes | None], str], now: float, well: str) -> None:
        """Those that are still asked were silent longer than others, but for the one that answered `well`."""
        if len(self._sick) > 64:
            self._sick.clear()
        for task, server in asked.items():
            if server != well:
                self._sick[server] = now + SICK
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)

    async def _one(self, server: str, packet: bytes, question: bytes) -> bytes | None:
        """One server's reply: by UDP, or by TCP if it was cut short."""
        try:
            reply = await self._udp(server, packet, question)
        except OSError:
            return None
        if reply[2] & 2:
            try:
                async with asyncio.timeout(self._deadline / 2):
                    return await self._tcp(server, packet, question) or reply
            except (OSError, TimeoutError, asyncio.IncompleteReadError):
                return reply
        return reply

    async def _udp(self, server: str, packet: bytes, question: bytes) -> bytes:
        number = secrets.token_bytes(2)
        transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Reply(number, question), remote_addr=(server, self._port)
        )
        try:
            transport.sendto(number + packet[2:])
            return await protocol.reply
        finally:
            transport.close()

    async def _tcp(self, server: str, packet: bytes, question: bytes) -> bytes | None:
        number = secrets.token_bytes(2)
        reader, writer = await asyncio.open_connection(server, self._port)
        try:
            writer.write(len(packet).to_bytes(2) + number + packet[2:])
            size = int.from_bytes(await reader.readexactly(2))
            reply = await reader.readexactly(size)
            return reply if wire.answers(reply, number, question) else None
        finally:
            writer.close()


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
