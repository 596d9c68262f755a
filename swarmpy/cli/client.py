"""Talking to the daemon: HTTP over its unix socket.

What belongs here: where the daemon is, one call after the other on one connection, streams, and how a
failure is worded. What does not: what the calls mean (a file per noun).
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any
from urllib.parse import quote, urlencode

from swarmpy.cli.tables import CommandError
from swarmpy.cli.words import own

DEFAULT_HOST = "unix:///run/swarmpy/swarmpy.sock"
TIMEOUT = 60.0
"""Seconds to wait for an answer; the daemon itself gives up after 20 (a join may take the whole of it)."""
START_HINT = "systemctl start swarmpy, or `swarmpy daemon` as root"


class ApiError(CommandError):
    """The daemon refused: its HTTP status and its sentence (`text` as it was sent)."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"Error response from daemon: {own(text)}")
        self.status = status
        self.text = text


class Unreachable(CommandError):
    """No daemon answers at that address."""

    def __init__(self, host: str) -> None:
        super().__init__(
            f"Cannot connect to the swarmpy daemon at {host}. Is it running? Start it with {START_HINT}."
        )


def daemon_host(flag: str) -> str:
    """The daemon's address: the flag, else SWARMPY_HOST, else the default."""
    return flag or os.environ.get("SWARMPY_HOST", "") or DEFAULT_HOST


def socket_path(host: str) -> str:
    """The path in `unix://PATH`. Raises CommandError for any other scheme."""
    scheme, separator, path = host.partition("://")
    if not separator and host.startswith("/"):
        return host
    if scheme != "unix" or not path:
        raise CommandError(
            f'cannot use "{host}" as the daemon\'s address: this version of swarmpy talks to its daemon only '
            f"over a unix socket; use unix:///path/to/swarmpy.sock"
        )
    return path


class _UnixConnection(HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("swarmpy", timeout=TIMEOUT)
        self.path = path
        self.link: socket.socket | None = None
        """The socket, which `sock` does not tell any more once the daemon said that it will close it."""

    def connect(self) -> None:
        """Connect to the socket."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(self.timeout)
        try:
            sock.connect(self.path)
        except OSError:
            sock.close()
            raise
        self.sock = self.link = sock


class Client:
    """The daemon at an address. Not for use by several threads."""

    def __init__(self, host: str = "") -> None:
        self.host = daemon_host(host)
        self._connection = _UnixConnection(socket_path(self.host))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def __del__(self) -> None:
        # A command uses its client until it ends; this closes the socket then, whichever way it ended.
        connection = getattr(self, "_connection", None)
        if connection is not None:
            connection.close()

    def ping(self) -> None:
        """Return if a daemon answers at all. Raises Unreachable, or CommandError where
        the socket does not speak HTTP."""
        self._read(self._open("GET", "/_ping", None, None, None))

    def get(self, path: str, **query: str) -> Any:
        """GET and decode JSON."""
        return self.call("GET", path, query=query)

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Any:
        """One call. Returns the decoded JSON, or None for an empty answer. Raises ApiError, Unreachable."""
        response = self._open(method, path, body, query, headers)
        data = self._read(response)
        if response.status >= 400:
            raise ApiError(response.status, _sentence(data, response))
        if not data.strip():
            return None
        try:
            return json.loads(data)
        except ValueError:
            raise CommandError(
                f"the daemon at {self.host} answered {method} {path} with something that is "
                "not JSON; is it really swarmpy's daemon?"
            ) from None

    def stream(self, path: str, query: dict[str, str]) -> Iterator[bytes]:
        """The pieces of an endless answer, as they come."""
        response = self._open("GET", path, None, query, None)
        if response.status >= 400:
            raise ApiError(response.status, _sentence(self._read(response), response))
        if self._connection.link is not None:
            self._connection.link.settimeout(None)
        while True:
            try:
                piece = response.read1(65536)
            except (OSError, HTTPException) as error:
                raise CommandError(
                    f"the daemon at {self.host} broke off: {error or type(error).__name__}"
                ) from None
            if not piece:
                return
            yield piece

    def _open(
        self, method: str, path: str, body: Any, query: dict[str, str] | None, headers: dict[str, str] | None
    ) -> HTTPResponse:
        target = path + ("?" + urlencode(query) if query else "")
        data = None if body is None else json.dumps(body).encode()
        sent = {"Content-Type": "application/json"} if data is not None else {}
        sent.update(headers or {})
        fresh = self._connection.sock is None
        try:
            self._connection.request(method, target, data, sent)
            return self._connection.getresponse()
        except (FileNotFoundError, ConnectionRefusedError):
            self._connection.close()
            raise Unreachable(self.host) from None
        except PermissionError:
            raise CommandError(
                f"permission denied while connecting to the swarmpy daemon at {self.host}: "
                "run the command as root, or join the group that owns the socket"
            ) from None
        except TimeoutError:
            self._connection.close()
            raise CommandError(
                f"the daemon at {self.host} did not answer {method} {path} within {TIMEOUT:.0f} "
                "seconds; the request may still be carried out"
            ) from None
        except (OSError, HTTPException) as error:
            self._connection.close()
            if not fresh and method in ("GET", "HEAD"):
                # The daemon closed the idle connection between two calls; reading again is harmless.
                return self._open(method, path, body, query, headers)
            raise CommandError(
                f"the daemon at {self.host} broke off {method} {path}: {error or type(error).__name__}"
            ) from None

    def _read(self, response: HTTPResponse) -> bytes:
        try:
            return response.read()
        except (OSError, HTTPException) as error:
            self._connection.close()
            raise CommandError(
                f"the daemon at {self.host} broke off: {error or type(error).__name__}"
            ) from None


def _sentence(data: bytes, response: HTTPResponse) -> str:
    """The message in an error answer."""
    try:
        message = json.loads(data)["message"]
    except (ValueError, KeyError, TypeError):
        message = data.decode(errors="replace")
    return str(message).strip() or f"{response.status} {response.reason}"


def segment(reference: str) -> str:
    """A user's reference as one part of a path. Raises CommandError for an empty one, which would be another
    path."""
    if not reference:
        raise CommandError("invalid name or ID: value is empty")
    return quote(reference, safe="")


def filters(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """The query that carries --filter flags; empty without any."""
    if not pairs:
        return {}
    table: dict[str, dict[str, bool]] = {}
    for key, value in pairs:
        table.setdefault(key, {})[value] = True
    return {"filters": json.dumps(table)}
