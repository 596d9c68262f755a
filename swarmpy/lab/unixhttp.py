"""A Docker Engine's API over its unix socket, with the standard library: what the lab itself needs of it.

What belongs here: requests and their errors. What does not: which images or containers a lab wants.
"""

from __future__ import annotations

import base64
import http.client
import json
import socket
from pathlib import Path
from typing import IO
from urllib.parse import quote

from swarmpy.lab.errors import LabError
from swarmpy.lab.processes import patience

NO_AUTH = base64.urlsafe_b64encode(b"{}").decode()


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def answers(path: Path) -> bool:
    """Whether something on the socket answers GET /_ping with 200."""
    try:
        return request(path, "GET", "/_ping", timeout=5)[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def request(
    path: Path,
    method: str,
    target: str,
    body: bytes | IO[bytes] | None = None,
    *,
    headers: dict[str, str] | None = None,
    timeout: float = 60,
) -> tuple[int, bytes]:
    """One request; (status, body). `timeout` in seconds, times `patience`. Raises OSError or
    http.client.HTTPException."""
    connection = _Connection(path, timeout * patience())
    try:
        connection.request(method, target, body=body, headers=headers or {})
        reply = connection.getresponse()
        return reply.status, reply.read()
    finally:
        connection.close()


def command(path: Path, method: str, target: str, body: bytes | None = None, *, kind: str = "json") -> None:
    """One request that must succeed, also where the failure is told in the stream. Raises LabError."""
    headers = {"X-Registry-Auth": NO_AUTH, "Content-Type": f"application/{kind}"}
    status, reply = request(path, method, target, body, headers=headers)
    said = reply.decode(errors="replace").strip()
    trouble = status >= 400
    for line in said.splitlines():
        if line.startswith("{") and "error" in json.loads(line):
            trouble = True
    if trouble:
        raise LabError(f"the Engine refused {method} {target}: {said.splitlines()[-1:]}")


def load(path: Path, archive: bytes) -> None:
    """Load an image archive into the Engine."""
    command(path, "POST", "/images/load?quiet=1", archive, kind="x-tar")


def push(path: Path, image: str, repository: str) -> None:
    """Push `image` (NAME:TAG) under another repository name, without leaving that name in the Engine."""
    name, _, tag = image.rpartition(":")
    where = f"{repository}/{name}"
    command(path, "POST", f"/images/{quote(image)}/tag?repo={quote(where)}&tag={tag}")
    command(path, "POST", f"/images/{quote(where)}/push?tag={tag}")
    command(path, "DELETE", f"/images/{quote(where)}:{tag}?noprune=1")


def pull(path: Path, image: str) -> None:
    """Pull NAME:TAG from where the Engine is told to look."""
    name, _, tag = image.rpartition(":")
    command(path, "POST", f"/images/create?fromImage={quote(name)}&tag={tag}")
