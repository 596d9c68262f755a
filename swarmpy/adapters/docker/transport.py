"""The SDK's way to a unix socket, mended: nothing leaks, and a reader that waits for an answer can be cut.

What belongs here: connections. What does not: what is asked on them (engine.py), threads (threads.py).
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import docker
from docker.transport import UnixHTTPAdapter
from docker.transport.unixconn import UnixHTTPConnection, UnixHTTPConnectionPool

from swarmpy.adapters.docker.threads import Cut

_THREAD = threading.local()


@contextmanager
def cut_by(cut: Cut) -> Generator[None, None, None]:
    """While this thread waits for the head of an answer, `cut` can end its waiting."""
    _THREAD.cut = cut
    try:
        yield
    finally:
        _THREAD.cut = None


class _Connection(UnixHTTPConnection):  # type: ignore[misc]  # the SDK has no types
    def connect(self) -> None:
        """The SDK's forgets its socket where connecting fails."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(self.timeout)
            sock.connect(self.unix_socket)
        except BaseException:
            sock.close()
            raise
        self.sock = sock

    def getresponse(self) -> Any:
        """The head of the answer, which a pull's registry may delay for ever."""
        cut: Cut | None = getattr(_THREAD, "cut", None)
        if cut is None:
            return super().getresponse()
        with cut.holding(self.sock):
            return super().getresponse()


class _Pool(UnixHTTPConnectionPool):  # type: ignore[misc]  # the SDK has no types
    def _new_conn(self) -> _Connection:
        return _Connection(self.base_url, self.socket_path, self.timeout)


class _Adapter(UnixHTTPAdapter):  # type: ignore[misc]  # the SDK has no types
    def get_connection(self, url: str, proxies: Any = None) -> _Pool:
        """The pool of this adapter's one socket."""
        with self.pools.lock:
            pool: _Pool | None = self.pools.get(url)
            if pool is None:
                pool = _Pool(url, self.socket_path, self.timeout, maxsize=self.max_pool_size)
                self.pools[url] = pool
        return pool


def dial(url: str, version: str, timeout: float) -> docker.APIClient:
    """A client speaking the Engine's own API version; `version` until it has said which that is."""
    client = docker.APIClient(base_url=url, version=version, timeout=timeout)
    try:
        if url.startswith("unix://"):
            client._custom_adapter.close()
            client._custom_adapter = _Adapter(f"http+{url}", timeout)
            client.mount("http+docker://", client._custom_adapter)
        client._version = client._retrieve_server_version()
    except BaseException:
        client.close()
        raise
    return client
