"""Accepting TLS connections.

What belongs here: binding, the accept loop, handshakes and their bounds. What does not: HTTP, and who may
call.

The accept loop is our own and not `loop.create_server`, because the TLS context is asked for at every
connection (so a renewed certificate is used at once, without a gap in listening) and handshakes are bounded.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Callable

from swarmpy.adapters.wire.faults import explain_listen, parse_address
from swarmpy.adapters.wire.settings import WireSettings
from swarmpy.pki.rate import source_of

log = logging.getLogger(__name__)

_BACKLOG = 512
_FULL = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Listener:
    """A listening port; `factory` makes the protocol of a connection, `admit` sees it after its handshake."""

    def __init__(
        self,
        context: Callable[[], ssl.SSLContext],
        factory: Callable[[], asyncio.BaseProtocol],
        admit: Callable[[asyncio.Transport], None],
        settings: WireSettings,
    ) -> None:
        self._context = context
        self._factory = factory
        self._admit = admit
        self._settings = settings
        self._sockets: list[socket.socket] = []
        self._loops: list[asyncio.Task[None]] = []
        self._handshakes: dict[asyncio.Task[None], str] = {}  # and whence, in the order of their coming

    @property
    def port(self) -> int:
        """The port that is listened on (asked from the kernel, for port 0)."""
        return int(self._sockets[0].getsockname()[1])

    async def start(self, listen: str) -> None:
        """Bind HOST:PORT and accept. Raises WireError with a sentence."""
        host, port = parse_address(listen)
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(
                host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            for family, _, _, _, address in dict.fromkeys(found):
                bound = socket.socket(family, socket.SOCK_STREAM)
                self._sockets.append(bound)
                _bind(bound, family, (address[0], port or self._same_port(), *address[2:]))
        except OSError as error:
            self._close_sockets()
            raise explain_listen(listen, error) from error
        self._loops = [asyncio.create_task(self._accept(one)) for one in self._sockets]

    async def stop(self) -> None:
        """Stop accepting and give up handshakes; accepted connections go on."""
        tasks = [*self._loops, *self._handshakes]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._close_sockets()

    def _same_port(self) -> int:
        # A second family of the same name must share the port that the first was given.
        return int(self._sockets[0].getsockname()[1]) if len(self._sockets) > 1 else 0

    def _close_sockets(self) -> None:
        for one in self._sockets:
            one.close()
        self._sockets = []

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, address = await loop.sock_accept(listening)
            except OSError as error:
                if error.errno in _FULL:
                    log.warning("cannot accept connections: %s", error.strerror)
                    # The kernel does not say when descriptors are free again.
                    await asyncio.sleep(0.2)
                continue
            if len(self._handshakes) >= self._settings.handshakes:
                self._give_up_one()
            task = asyncio.create_task(self._handshake(accepted))
            self._handshakes[task] = source_of(str(address[0]))
            task.add_done_callback(self._forget)

    def _give_up_one(self) -> None:
        """Make room: the oldest handshake of the source that has most of them.

        An honest one takes milliseconds. Refusing the newcomer instead would let anybody who opens enough
        connections and says nothing shut the port for everybody.
        """
        busiest, _ = Counter(self._handshakes.values()).most_common(1)[0]
        oldest = next(task for task, source in self._handshakes.items() if source == busiest)
        self._forget(oldest)
        oldest.cancel()

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._handshakes.pop(task, None)

    async def _handshake(self, accepted: socket.socket) -> None:
        try:
            transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
                self._factory,
                accepted,
                ssl=self._context(),
                ssl_handshake_timeout=self._settings.handshake_seconds,
                ssl_shutdown_timeout=self._settings.close_seconds,
            )
        except (OSError, ssl.SSLError) as error:
            # Port scans and strangers' certificates are daily bread: not worth a warning each.
            log.debug("a handshake failed: %s", error)
            return
        except asyncio.CancelledError:
            accepted.close()
            raise
        self._admit(transport)


def _bind(bound: socket.socket, family: int, address: tuple[object, ...]) -> None:
    bound.setblocking(False)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    bound.bind(address)
    bound.listen(_BACKLOG)
