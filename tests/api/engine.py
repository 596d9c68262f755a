"""A very small Engine on a unix socket, written on bare streams so that it can misbehave like a real one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path


class FakeEngine:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.heads: list[str] = []
        self.bodies: list[bytes] = []
        self.events: asyncio.Queue[bytes] = asyncio.Queue()
        self.hung_up = asyncio.Event()
        self.networks: dict[str, dict[str, object]] = {}
        """What it has of networks, by name."""
        self.refusing = False
        """Whether it makes no container."""
        self.connected: dict[str, object] = {}
        self.labels: dict[str, str] = {}
        """Of its one container."""
        self._server: asyncio.AbstractServer | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._accept, str(self.path))

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.path.unlink(missing_ok=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            self.hung_up.set()
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        method, target, _ = head.split("\r\n")[0].split(" ")
        path = target.split("?")[0]
        if path.startswith("/v1."):
            path = "/" + path.split("/", 2)[2]
        length = next(
            (
                int(line.split(":")[1])
                for line in head.split("\r\n")
                if line.lower().startswith("content-length:")
            ),
            0,
        )
        routes: dict[str, Callable[..., object]] = {
            "/containers/c1/attach": self._attach,
            "/containers/c1/wait": self._wait,
            "/images/load": self._load,
            "/events": self._events,
        }
        if path in routes:
            await routes[path](reader, writer, target, head)  # type: ignore[misc]
            return
        self.bodies.append(await reader.readexactly(length))
        answers = {
            "/_ping": "OK",
            "/version": {"ApiVersion": "1.41", "MinAPIVersion": "1.12", "Version": "20.10.24"},
            "/info": {"Name": "host1", "ServerVersion": "20.10.24", "Swarm": {"LocalNodeState": "inactive"},
                      "NCPU": 4, "Warnings": None, "Mine": "kept"},
            "/containers/json": [{"Id": "c1"}],
            "/networks/create": {"Id": "n1"},
        }  # fmt: skip
        if path == "/containers/create":
            answer(
                writer, *((404, {"message": "No such image"}) if self.refusing else (201, {"Id": "c" * 64}))
            )
        elif path == "/containers/c1/json":
            answer(writer, 200, {"Id": "c" * 64, "Name": "/one", "Config": {"Labels": self.labels, "Hostname": "h"},
                                 "NetworkSettings": {"Networks": self.connected}})  # fmt: skip
        elif path.startswith("/networks") and path not in answers:
            answer(writer, *self._network(method, path.strip("/").split("/")[1:]))
        elif path in answers:
            answer(
                writer,
                201 if method == "POST" else 200,
                answers[path],
                close="connection: close" in head.lower(),
            )
        elif path.startswith("/distribution/"):
            answer(writer, 404, {"message": "manifest unknown"})
        elif path.startswith("/images/create"):
            answer(writer, 200, {"X": [line for line in head.split("\r\n") if line.lower().startswith("x-")]})
        else:
            answer(writer, 404, {"message": f"engine: no {path}"})
        await writer.drain()

    def _network(self, method: str, words: list[str]) -> tuple[int, object]:
        if not words or words[0] == "":
            return 200, list(self.networks.values())
        if words == ["prune"]:
            return 200, {"NetworksDeleted": ["idle"]}
        found = [one for one in self.networks.values() if words[0] in (one["Id"], one["Name"])]
        if not found:
            return 404, {"message": f"network {words[0]} not found"}
        if method == "DELETE":
            del self.networks[str(found[0]["Name"])]
        return (200, found[0]) if method == "GET" else (204 if method == "DELETE" else 200, "")

    async def _attach(self, reader, writer, _target, _head) -> None:  # type: ignore[no-untyped-def]
        writer.write(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
        while data := await reader.read(65536):
            writer.write(data.upper())
            await writer.drain()
        writer.write(b"the end")  # after the client's half close
        await writer.drain()

    async def _wait(self, reader, writer, _target, _head) -> None:  # type: ignore[no-untyped-def]
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n")
        await writer.drain()
        for piece in (b"one\n", b"two\n"):
            await self.events.get()
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    async def _load(self, reader, writer, _target, head) -> None:  # type: ignore[no-untyped-def]
        length = int(head.lower().split("content-length:")[1].split("\r\n")[0])
        size = 0
        while size < length:
            size += len(await reader.read(65536))
        answer(writer, 200, {"size": size})
        await writer.drain()

    async def _events(self, reader, writer, target, _head) -> None:  # type: ignore[no-untyped-def]
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        await writer.drain()
        if "until=" in target:
            line = (
                json.dumps({"Type": "container", "Action": "die", "scope": "local", "timeNano": 5}).encode()
                + b"\n"
            )
            writer.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(line), line))
            return
        gone = asyncio.create_task(reader.read())
        while True:
            nxt = asyncio.create_task(self.events.get())
            done, _ = await asyncio.wait({gone, nxt}, return_when=asyncio.FIRST_COMPLETED)
            if gone in done:
                nxt.cancel()
                self.hung_up.set()
                return
            line = nxt.result()
            writer.write(b"%x\r\n%s\r\n" % (len(line), line))
            await writer.drain()


def answer(writer: asyncio.StreamWriter, status: int, value: object, *, close: bool = True) -> None:
    body = value.encode() if isinstance(value, str) else json.dumps(value).encode()
    head = f"HTTP/1.1 {status} X\r\nApi-Version: 1.41\r\nOstype: linux\r\nServer: Docker/20.10.24 (linux)\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    writer.write((head + ("Connection: close\r\n" if close else "") + "\r\n").encode() + body)
