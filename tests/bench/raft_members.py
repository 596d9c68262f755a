"""Three members of our log on loopback: real processes, files, fdatasync and mutual TLS, as the daemon has them.

    python -m tests.bench.raft_members FOLDER NAME     (one member; made by `Ours`)

What belongs here: making members and asking them, and what a member is. What does not: the load (puts.py), what is
measured (raft.py, raft_state.py).

A member has a door for writes beside its log: the least that lets another process propose, so that our client costs
what etcd's does. It takes lines of JSON on its standard input, answers each with one, and ends with the input.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from swarmpy.adapters.clock import SystemClock, SystemEntropy
from swarmpy.adapters.disk import FileDisk
from swarmpy.adapters.raft import RaftLog
from swarmpy.adapters.wire import TlsWire
from swarmpy.model import codec
from swarmpy.pki.ca import Authority
from swarmpy.pki.identity import Identity, NodeIdentity, make_key_and_csr
from swarmpy.pki.rpc import Revoked
from swarmpy.pki.seal import KEY_FILE, DataKeys
from swarmpy.ports import Image, LogError, Machine, Member
from tests.bench.puts import DoorClient

NAMES = ("m0", "m1", "m2")
ENOUGH = 60.0


def free_ports(count: int) -> list[int]:
    """TCP ports of loopback that nobody has at the moment."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    found = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return found


def stop(running: list[subprocess.Popen[bytes]]) -> None:
    """End these processes and see them gone."""
    for process in running:
        process.send_signal(signal.SIGTERM)
    for process in running:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


# ------------------------------------------------------------ from outside


class Ours:
    """A cluster in `folder`, each member a process of `module`. Use as a context."""

    name, client = "swarmpy", DoorClient

    def __init__(self, folder: Path, module: str = "tests.bench.raft_members") -> None:
        self._folder, self._module = folder, module
        self._members: dict[str, subprocess.Popen[bytes]] = {}
        self._doors: dict[str, int] = {}

    def __enter__(self) -> Ours:
        self._folder.mkdir()
        authority = Authority.create(time.time_ns())
        wires, doors = free_ports(len(NAMES)), free_ports(len(NAMES))
        for name, wire, door in zip(NAMES, wires, doors, strict=True):
            key, csr = make_key_and_csr()
            cert = authority.issue(csr, name, "manager", "bench", time.time_ns())
            about = {"cert": cert.decode(), "key": key.decode(), "bundle": authority.cert_pem.decode(), "door": door,
                     "addresses": [f"127.0.0.1:{port}" for port in wires], "address": f"127.0.0.1:{wire}"}  # fmt: skip
            (self._folder / f"{name}.json").write_text(json.dumps(about))
            self._doors[name] = door
        for name in NAMES:
            self.start(name)
        return self

    def __exit__(self, *_: object) -> None:
        stop(list(self._members.values()))

    def start(self, name: str) -> None:
        """Start a member; it begins at once."""
        command = [sys.executable, "-m", self._module, str(self._folder), name]
        self._members[name] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def end(self, name: str) -> None:
        """Stop a member."""
        stop([self._members.pop(name)])

    def ask(self, name: str, do: str, **about: Any) -> Any:
        """One line said, and the answer."""
        process = self._members[name]
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({"do": do, **about}).encode() + b"\n")
        process.stdin.flush()
        said = process.stdout.readline()
        if not said:
            raise SystemExit(f"the member {name} of our log ended; what it said is above")
        return json.loads(said)

    def leading(self) -> str:
        """Who leads. Raises TimeoutError."""
        end = time.monotonic() + ENOUGH
        while time.monotonic() < end:
            for name in self._members:
                if self.ask(name, "status")["role"] == "leader":
                    return name
            time.sleep(0.1)
        raise TimeoutError("no leader of our log")

    def leader(self) -> int:
        """The port of the door of the one that leads."""
        return self._doors[self.leading()]


# ------------------------------------------------------------ inside


class Keys:
    """The machine of the plain log: values by key, as etcd keeps them, but without their past."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}

    def apply(self, index: int, entry: bytes) -> int:
        key, _, value = entry.partition(b"\0")
        self.values[key] = value
        return index

    def save(self) -> Callable[[], bytes]:
        values = dict(self.values)
        return lambda: codec.encode(values)

    def load(self, image: Image) -> Callable[[], None]:
        values = codec.decode_any(dict[bytes, bytes], memoryview(image))

        def take() -> None:
            self.values = values

        return take


class Door(asyncio.Protocol):
    """Proposes what arrives, each write in a task of its own, as the manager's callers are."""

    def __init__(self, log: RaftLog) -> None:
        self._log = log
        self._in = b""
        self._out: list[bytes] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        data, at = self._in + data, 0
        while at + 8 <= len(data):
            size, number = struct.unpack_from(">II", data, at)
            if at + 8 + size > len(data):
                break
            task = asyncio.create_task(self._propose(number, data[at + 8 : at + 8 + size]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            at += 8 + size
        self._in = data[at:]

    async def _propose(self, number: int, entry: bytes) -> None:
        status = 0
        try:
            await self._log.propose(entry)
        except LogError:
            status = 1
        if not self._out:
            asyncio.get_running_loop().call_soon(self._flush)
        self._out.append(struct.pack(">IB", number, status))

    def _flush(self) -> None:
        self._transport.write(b"".join(self._out))
        self._out.clear()


class Child:
    """One member; see the file's charter. Methods named do_X answer X."""

    def __init__(self, folder: Path, name: str, machine: Machine) -> None:
        about = json.loads((folder / f"{name}.json").read_text())
        clock, entropy = SystemClock(), SystemEntropy()
        identity = NodeIdentity(*(about[part].encode() for part in ("cert", "key", "bundle")))
        home = folder / name
        disk = FileDisk(home)
        keys = DataKeys.load(disk) if disk.exists(KEY_FILE) else DataKeys.create(disk)
        members = [Member(*pair) for pair in zip(NAMES, about["addresses"], strict=True)]
        self.wire = TlsWire(Identity(identity), clock, Revoked())
        self.address, self.door = about["address"], about["door"]
        self.log = RaftLog(
            name, self.address, FileDisk(home), self.wire, clock, entropy, machine, keys.sealer(),
            bootstrap_members=members, bulk=FileDisk(home),
        )  # fmt: skip
        self.begun = time.monotonic()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        over = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, over.set)
        await self.wire.start(self.address)
        self.begun = time.monotonic()
        await self.log.start()
        await loop.create_server(lambda: Door(self.log), "127.0.0.1", self.door)
        lines = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        answering = asyncio.create_task(self._answer(lines))
        answering.add_done_callback(lambda _: over.set())
        await over.wait()
        await self.log.stop()
        await self.wire.stop()
        if answering.done():
            answering.result()
        answering.cancel()

    async def _answer(self, lines: asyncio.StreamReader) -> None:
        while line := await lines.readline():
            said = json.loads(line)
            answer = await getattr(self, "do_" + said.pop("do"))(**said)
            print(json.dumps(answer), flush=True)

    async def do_status(self) -> dict[str, Any]:
        status = self.log.status()
        return {"role": status.role.value, "commit": status.commit_index}


def main() -> None:
    folder, name = sys.argv[1:]
    asyncio.run(Child(Path(folder), name, Keys()).run())


if __name__ == "__main__":
    main()
