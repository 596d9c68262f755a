"""What only the real adapter must bear: an Engine that breaks off in the middle of a line, and its own sockets."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from swarmpy.adapters.docker import DockerEngine
from swarmpy.adapters.docker.seen import container_seen
from swarmpy.ports import EngineError, EngineGoneError

VERSION = b'{"ApiVersion":"1.41"}'


class Script:
    """A unix socket that answers GET /version, and everything else with the bytes given."""

    def __init__(self, path: Path, answer: bytes) -> None:
        self.path, self.answer = path, answer
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._server.accept()
            with connection:
                head = b""
                while b"\r\n\r\n" not in head:
                    piece = connection.recv(65536)
                    if not piece:
                        break
                    head += piece
                if not head:
                    return
                if b" /version" in head or b"/version HTTP" in head:
                    length = str(len(VERSION)).encode()
                    connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: " + length)
                    connection.sendall(b"\r\n\r\n" + VERSION)
                else:
                    connection.sendall(self.answer)

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX) as last:
            last.connect(str(self.path))
        self._thread.join()
        self._server.close()


@pytest.fixture
def scripted(tmp_path: Path) -> Iterator[Callable[[bytes], DockerEngine]]:
    made: list[Any] = []

    def start(answer: bytes) -> DockerEngine:
        path = Path(os.path.relpath(tmp_path)) / "s"
        made.append(Script(path, answer))
        made.append(DockerEngine(f"unix://{path.resolve()}"))
        return made[-1]

    yield start
    for one in reversed(made):
        one.close()


def chunked(*pieces: bytes) -> bytes:
    body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n"


async def test_half_an_event_is_the_end_of_the_engine(scripted: Callable[[bytes], DockerEngine]) -> None:
    whole = b'{"Action":"start","Actor":{"ID":"c","Attributes":{"k":"v"}}}\n'
    engine = scripted(chunked(whole, b'{"Action":"di'))
    seen: list[str] = []

    async def watch() -> None:
        async for event in engine.events():
            seen.append(event.action)  # noqa: PERF401  what came before the end counts

    with pytest.raises(EngineGoneError, match="broke off after"):
        await watch()
    assert seen == ["start"]


async def test_half_a_line_of_a_pull_is_the_end_of_the_engine(
    scripted: Callable[[bytes], DockerEngine],
) -> None:
    engine = scripted(chunked(b'{"status":"Pulling"}\r\n', b'{"status":"Pul'))
    with pytest.raises(EngineGoneError, match="broke off after"):
        await engine.pull("web:1")


async def test_what_a_registry_says_names_the_image(scripted: Callable[[bytes], DockerEngine]) -> None:
    engine = scripted(chunked(b'{"error":"toomanyrequests: slow down"}\r\n'))
    with pytest.raises(EngineError, match=r"^web:1 cannot be pulled: toomanyrequests: slow down$") as refused:
        await engine.pull("web:1")
    assert not isinstance(refused.value, EngineGoneError)


async def test_an_answer_that_is_no_json_is_an_error_of_the_port(
    scripted: Callable[[bytes], DockerEngine],
) -> None:
    engine = scripted(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\noops")
    with pytest.raises(EngineError):
        await engine.info()
    with pytest.raises(EngineError):
        await engine.containers([])


async def test_an_answer_of_another_shape_is_an_error_of_the_port(
    scripted: Callable[[bytes], DockerEngine],
) -> None:
    engine = scripted(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
    with pytest.raises(EngineError):
        await engine.inspect("c")


async def test_an_absent_engine_costs_no_sockets(tmp_path: Path) -> None:
    """Sockets that are forgotten open make this run fail by their warnings."""
    engine = DockerEngine(f"unix://{tmp_path}/none")
    for _ in range(20):
        with pytest.raises(EngineGoneError, match=f"unix://{tmp_path}/none does not answer"):
            await engine.info()
    gc.collect()


def test_the_health_of_what_does_not_run_is_not_told() -> None:
    """An Engine calls every stopped container with a probe unhealthy."""
    state = {"Status": "exited", "Running": False, "Health": {"Status": "unhealthy", "FailingStreak": 3}}
    assert container_seen({"Id": "c", "State": state}).health == ""
    state = {**state, "Status": "running", "Running": True}
    assert container_seen({"Id": "c", "State": state}).health == "unhealthy"


async def test_cancelled_calls_stay_bounded(scripted: Callable[[bytes], DockerEngine]) -> None:
    """A thread whose caller has gone still counts, so that a hanging Engine cannot be given threads for ever."""
    from swarmpy.adapters.docker.threads import Calls

    calls, go = Calls(limit=2), threading.Event()
    began: list[int] = []

    def job() -> None:
        began.append(1)
        go.wait()

    for _ in range(5):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(calls.run(job), 0.05)
    assert len(began) == 2
    go.set()
    await asyncio.wait_for(calls.run(job), 5)
