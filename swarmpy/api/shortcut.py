"""The short way: plain reads and removals that are whole in hand are answered without the HTTP server.

What belongs here: telling such requests from others, strictly, and writing their answers as the server would.
What does not: what handlers do, which is the same for requests of either way. Whatever is not quite plain (a
body, an escape, an unusual header) is the HTTP server's, which knows all of HTTP and takes longer for it than
a read does.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Iterable
from email.utils import formatdate
from typing import cast
from urllib.parse import parse_qsl

from aiohttp import web
from aiohttp.http import SERVER_SOFTWARE
from multidict import CIMultiDict, MultiDict

from swarmpy.api.errors import refusals
from swarmpy.api.site import Handler, Route

_PLAIN = re.compile(
    rb"(GET|DELETE) ((?:/[\w-][\w.-]*)+)(?:\?([\w.=&-]*))? HTTP/1\.1\r\n"
    rb"((?:[\w-]+:[ \t]*[!-~][ -~]*\r\n){1,64})\r\n\Z"
)
_MOST = 8190
"""Bytes of a plain head at most, which is what other HTTP servers take of one line."""
_NOT_PLAIN = re.compile(
    rb"(?mi)^(?:content-length|transfer-encoding|content-encoding|expect|upgrade|connection:.*upgrade|host:.*\r\n"
    rb"(?:.*\r\n)*host)[: \t\r]"
)
_VERSION = re.compile(r"v([0-9.]+)\Z")


class Asked:
    """What handlers use of a request: see aiohttp's web.Request."""

    def __init__(self, method: str, path: str, query: str, fields: bytes) -> None:
        self.method, self.path = method, path
        self.raw_path = f"{path}?{query}" if query else path
        self.query = MultiDict(parse_qsl(query, keep_blank_values=True))
        self.match_info: dict[str, str] = {}
        self.headers: CIMultiDict[str] = CIMultiDict(
            (name, value.strip(" \t"))
            for name, _, value in (line.partition(":") for line in fields.decode("ascii").splitlines())
        )

    async def read(self) -> bytes:
        """There is no body."""
        return b""


class Shortcut:
    """The routes that can be taken; their handlers stream nothing."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes: dict[tuple[str, int], list[tuple[list[str], Handler]]] = {}
        for method, path, handler in routes:
            words = path.split("/")[1:]
            self._routes.setdefault((method, len(words)), []).append((words, handler))

    def find(self, head: bytes) -> Callable[[], Awaitable[bytes]] | None:
        """What answers the request with this head (the empty line included) and no body; None where it has to
        take the long way."""
        plain = _PLAIN.match(head) if len(head) <= _MOST else None
        if plain is None or _NOT_PLAIN.search(head):
            return None
        method, path = plain[1].decode("ascii"), plain[2].decode("ascii")
        words = path.split("/")[1:]
        version = _VERSION.match(words[0])
        if version is not None:
            del words[0]
        for pattern, handler in self._routes.get((method, len(words)), ()):
            if all(one == word or one[0] == "{" for one, word in zip(pattern, words, strict=True)):
                asked = Asked(method, path, (plain[3] or b"").decode("ascii"), plain[4])
                asked.match_info = {
                    one[1:-1]: word for one, word in zip(pattern, words, strict=True) if one[0] == "{"
                }
                if version is not None:
                    asked.match_info["version"] = version[1]
                # Handlers use no more of a request than there is here; a test sends all of them both ways.
                return lambda: _answer(cast(web.Request, asked), handler)
        return None


async def _answer(asked: web.Request, handler: Handler) -> bytes:
    """The answer as it goes out."""
    response = await refusals(asked, handler)
    assert isinstance(response, web.Response), "routes of the short way stream nothing"
    body = response.body
    assert body is None or isinstance(body, bytes)
    fields = "".join(f"{name}: {value}\r\n" for name, value in response.headers.items())
    return (
        f"HTTP/1.1 {response.status} {response.reason}\r\n{fields}Content-Length: {len(body or b'')}\r\n"
        f"Date: {_date()}\r\nServer: {SERVER_SOFTWARE}\r\nConnection: close\r\n\r\n"
    ).encode() + (body or b"")


_last_date = (0, "")


def _date() -> str:
    """The Date header's value; it is the same for a second."""
    global _last_date  # noqa: PLW0603  a memory of one value
    now = int(time.time())
    if _last_date[0] != now:
        _last_date = (now, formatdate(now, usegmt=True))
    return _last_date[1]
