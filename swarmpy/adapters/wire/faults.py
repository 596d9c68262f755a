"""What can go wrong when dialling, as one sentence each.

What belongs here: turning errors of sockets, TLS and HTTP into WireError sentences. What does not: refusals,
which the other side words itself.
"""

from __future__ import annotations

import errno
import logging
import socket
import ssl
from typing import Any

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from swarmpy.ports import WireError


class PeersFaults(logging.LoggerAdapter[logging.Logger]):
    """The HTTP server's log: what is no HTTP is the peer's fault, answered and not worth a traceback."""

    def exception(self, msg: object, *args: object, exc_info: Any = True, **more: Any) -> None:
        """Log an error of the server; for one of the peer's a line for those who look for it."""
        if isinstance(exc_info, HttpProcessingError):
            self.debug("%s: %s", str(msg) % args, exc_info.message)
        else:
            super().exception(msg, *args, exc_info=exc_info, **more)


_ALERTS = (
    ("CERTIFICATE_EXPIRED", "our certificate has expired: this node must join again"),
    ("UNKNOWN_CA", "our certificate is not of its cluster's CA"),
    ("BAD_CERTIFICATE", "it does not accept our certificate"),
    ("CERTIFICATE_REVOKED", "our certificate was revoked"),
    ("CERTIFICATE_UNKNOWN", "it does not accept our certificate"),
)

_NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "UNEXPECTED_MESSAGE")


def parse_address(address: str) -> tuple[str, int]:
    """HOST:PORT or [IPv6]:PORT. Raises WireError."""
    host, colon, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        colon = ""
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise WireError(f"{address!r} is not an address: write HOST:PORT, as in 10.0.0.1:2377")
    return host, int(port)


def explain(address: str, error: BaseException, timeout: float) -> WireError:
    """The sentence for an error met while dialling or talking to `address`."""
    if isinstance(error, TimeoutError):
        return WireError(
            f"{address} did not answer within {timeout:g} s: check the address, that its daemon runs, "
            "and that no firewall drops the port"
        )
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return WireError(f"{address}: no such host name; check the spelling or use an IP address")
    for found in _chain(error):
        sentence = _sentence(address, found)
        if sentence:
            return WireError(sentence)
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return WireError(f"{address} closed the connection before it answered")
    return WireError(f"the connection to {address} broke: {error or type(error).__name__}")


def explain_listen(listen: str, error: OSError) -> WireError:
    """The sentence for an address that cannot be listened on."""
    if error.errno == errno.EADDRINUSE:
        why = "the port is in use; stop the program that uses it or choose another with --listen-addr"
    elif error.errno == errno.EADDRNOTAVAIL:
        why = "no interface of this machine has that address"
    elif error.errno == errno.EACCES:
        why = "ports below 1024 need more rights"
    elif isinstance(error, socket.gaierror):
        why = "no such host name"
    else:
        why = error.strerror or str(error)
    return WireError(f"cannot listen on {listen}: {why}")


def _sentence(address: str, error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        # Our own check's sentence is the message; OpenSSL's stands in verify_message.
        why = getattr(error, "verify_message", "") or str(error.args[0] if error.args else error)
        return f"{address} is not a manager of this cluster: {why}"
    if isinstance(error, ssl.SSLError):
        text = str(error).upper().replace(" ", "_")
        for alert, why in _ALERTS:
            if alert in text:
                return f"{address} refused the connection: {why}"
        if any(sign in text for sign in _NO_TLS):
            return f"{address} does not speak TLS: is it the port of a swarmpy manager (2377)?"
        return f"the TLS connection to {address} failed: {error.reason or error}"
    if isinstance(error, OSError):
        if error.errno == errno.ECONNREFUSED:
            return f"nothing listens on {address}: check the address and that its daemon runs"
        if error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH):
            return f"{address} cannot be reached: no route to it from here"
        if error.errno in (errno.ECONNRESET, errno.EPIPE):
            return f"{address} broke off the connection; if it always does, it does not accept this node"
    return ""


def _chain(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    queue: list[BaseException | None] = [error]
    seen: list[BaseException] = []
    while queue and len(seen) < 16:
        one = queue.pop(0)
        if one is None or one in seen:
            continue
        # aiohttp's TLS errors are ssl's by inheritance, but their text is only a heap of parameters.
        if not isinstance(one, aiohttp.ClientSSLError):
            found.append(one)
        seen.append(one)
        queue += [one.__cause__, one.__context__, getattr(one, "os_error", None)]
        queue.append(getattr(one, "certificate_error", None))
    # The most particular word first: certificates, then TLS, then the socket.
    return sorted(found, key=_rank)


def _rank(error: BaseException) -> int:
    if isinstance(error, ssl.SSLCertVerificationError):
        return 0
    return 1 if isinstance(error, ssl.SSLError) else 2
