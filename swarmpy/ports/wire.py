"""The wire between nodes: calls and channels between authenticated peers. See the package's charter."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is on the other end, as its certificate says. `node_id` is "" and `role` "none" for a caller
    without a certificate (bootstrap only). `address` is the IP that the connection comes from, no port; ""
    where it is not known."""

    node_id: str
    role: str
    cluster_id: str
    serial: str
    address: str = ""


class WireError(Exception):
    """The other side could not be reached, broke off, or did not answer in time."""


class RefusedError(Exception):
    """The other side answered with a refusal: a code (see model.errors) and a sentence for the user."""

    def __init__(self, code: str, message: str, data: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = dict(data or {})


Body = Mapping[str, Any]
"""What calls carry: a msgpack-able mapping of str to None, bool, int, float, str, bytes, lists, dicts."""


class Channel(Protocol):
    """A bidirectional, ordered stream of bodies between two nodes."""

    peer: Peer

    async def send(self, body: Body) -> None:
        """Send one body, waiting while the other side is slow. Raises WireError."""

    async def recv(self) -> Body:
        """The next body. Raises WireError when the channel is closed or broken."""

    async def close(self) -> None:
        """Close; idempotent."""


CallHandler = Callable[[Peer, Body], Awaitable[Body]]
ChannelHandler = Callable[[Channel, Body], Awaitable[None]]
"""Handler of an opened channel: (channel, hello body). The channel closes when it returns."""


class Wire(Protocol):
    """Calls and channels between nodes, mutually authenticated."""

    def on_call(self, method: str, handler: CallHandler) -> None:
        """Serve a method. Who may call it is in pki.rpc's table; unlisted methods are refused."""

    def on_channel(self, method: str, handler: ChannelHandler) -> None:
        """Serve a channel method."""

    async def call(self, address: str, method: str, body: Body, *, timeout: float = 5.0) -> Body:
        """Call a method of the node at HOST:PORT. Raises WireError or RefusedError."""

    async def open(self, address: str, method: str, hello: Body, *, timeout: float = 5.0) -> Channel:
        """Open a channel. Raises WireError or RefusedError."""

    async def start(self, listen: str) -> None:
        """Listen on HOST:PORT."""

    async def stop(self) -> None:
        """Stop listening and break all channels."""
