"""The little that the API itself asks of the Engine: ping, info, events, and posting a buffered request on.

What does not belong here: containers (the agent's), the tunnel for everything else (passthrough.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgspec

DEFAULT_API = "1.41"
DEFAULT_MIN_API = "1.12"
SHORT = 5.0
"""Seconds for which an answer is waited for; the Engine is on this machine."""
MAX_EVENT = 4 * 1024 * 1024

_PING_HEADERS = ("Api-Version", "Ostype", "Docker-Experimental", "Builder-Version", "Server")


class EngineAbsentError(Exception):
    """The Engine does not answer."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of the Engine, read whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True)
class EngineClient:
    """A client of the Engine's API on its unix socket."""

    path: str
    _session: aiohttp.ClientSession | None = None
    _api: str = DEFAULT_API
    _min_api: str = DEFAULT_MIN_API
    _asked: bool = False
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.UnixConnector(path=self.path, force_close=True)
            self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        return self._session

    async def close(self) -> None:
        """Drop all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        timeout: float = SHORT,
    ) -> Reply:
        """One request, answered within `timeout` seconds. Raises EngineAbsentError."""
        try:
            async with self._open().request(
                method,
                f"http://docker{path}",
                data=body or None,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=timeout),
            ) as reply:
                return Reply(reply.status, reply.headers, await reply.read())
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise EngineAbsentError(str(error) or "it did not answer in time") from None

    async def ping(self) -> dict[str, str]:
        """The headers of GET /_ping that describe the Engine. Raises EngineAbsentError."""
        reply = await self.request("GET", "/_ping")
        found = {name: reply.headers[name] for name in _PING_HEADERS if name in reply.headers}
        self._api = found.get("Api-Version", self._api)
        return found

    async def versions(self) -> tuple[str, str]:
        """(API version, oldest one supported) of the Engine; the last known or defaults while it is away."""
        async with self._lock:
            if not self._asked:
                try:
                    reply = await self.request("GET", "/version")
                    said = msgspec.json.decode(reply.body, type=dict[str, Any])
                except (EngineAbsentError, msgspec.DecodeError):
                    return self._api, self._min_api
                self._api = str(said.get("ApiVersion") or self._api)
                self._min_api = str(said.get("MinAPIVersion") or self._min_api)
                self._asked = True
        return self._api, self._min_api

    async def events(self, query: Mapping[str, str]) -> AsyncGenerator[bytes, None]:
        """Lines of the Engine's event stream with these parameters. Raises EngineAbsentError."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=SHORT)
        try:
            async with self._open().get(
                "http://docker/events", params=query, timeout=timeout, read_bufsize=MAX_EVENT
            ) as reply:
                async for line in reply.content:
                    if line.strip():
                        yield line
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise EngineAbsentError(str(error)) from None
