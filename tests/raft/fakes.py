"""Small fakes for the log's tests: virtual time, a disk that forgets what was not synced, a network.

Everything is deterministic from a seed.
"""

from __future__ import annotations

import asyncio
import errno
import random
import selectors
from collections.abc import Callable, Coroutine
from typing import Any

import msgpack

from swarmpy.ports import Body, Channel, ChannelHandler, Image, Peer, WireError


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time jumps to the next timer when nothing else is to do."""

    def __init__(self) -> None:
        self._virtual = 1000.0
        super().__init__(_NoSelector())

    def time(self) -> float:
        return self._virtual

    def jump(self, seconds: float) -> None:
        self._virtual += seconds


class _NoSelector(selectors.SelectSelector):
    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("everything waits for ever")
        if timeout > 0:
            _running().jump(timeout)
        return []


def _running() -> VirtualLoop:
    loop = asyncio._get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop


def run_virtual(main: Coroutine[Any, Any, Any]) -> Any:
    """Run in virtual time; everything left over is cancelled."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(main)
    finally:
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.close()


class FakeClock:
    def __init__(self) -> None:
        self.drift = 0.0

    def now(self) -> int:
        return int(self.monotonic() * 1e9)

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time() + self.drift


class FakeEntropy:
    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def token(self, size: int) -> bytes:
        return self._random.randbytes(size)

    def uniform(self, low: float, high: float) -> float:
        return self._random.uniform(low, high)


class CrashError(BaseException):
    """The machine loses power here."""


class MemDisk:
    """Files in memory with a durable and a volatile side. `crash` keeps the durable one.

    `fail_at` counts mutating operations down and raises `error` (CrashError: power loss) before the
    operation takes effect; `partial` lets an append write a part first.
    """

    def __init__(self, seed: int = 0) -> None:
        self.files: dict[str, bytes] = {}
        self.durable_data: dict[str, bytes] = {}
        self.durable_names: dict[str, str] = {}
        self.names: dict[str, str] = {}
        self.inode = 0
        self.operations = 0
        self.fail_at: int | None = None
        self.error: Callable[[], BaseException] = CrashError
        self.delay: Callable[[], float] = lambda: 0.0
        self.dead = False
        self.full = False
        self.random = random.Random(seed)
        self.lock = asyncio.Lock()

    # names -> inode; files: inode -> volatile content; durable_data: inode -> durable content

    def _operation(self) -> None:
        if self.dead:
            raise CrashError
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.operations += 1
        if self.fail_at is not None and self.operations >= self.fail_at:
            error = self.error()
            if isinstance(error, CrashError):
                self.dead = True
            raise error

    def crash(self, *, tear: bool = False) -> None:
        """Forget what was not synced; with `tear`, keep a random part of unsynced appends."""
        if tear:
            for inode, content in self.files.items():
                durable = self.durable_data.get(inode, b"")
                if content.startswith(durable) and len(content) > len(durable):
                    kept = self.random.randint(len(durable), len(content))
                    whole = self.random.random() < 0.3
                    padding = bytes(len(content) - kept) if whole and len(content) - kept > 600 else b""
                    self.durable_data[inode] = content[:kept] + padding
        self.names = dict(self.durable_names)
        self.files = {i: self.durable_data.get(i, b"") for i in self.names.values()}
        self.durable_data = dict(self.files)
        self.dead = False
        self.fail_at = None
        self.lock = asyncio.Lock()

    def list(self, folder: str) -> list[str]:
        prefix = folder.rstrip("/") + "/"
        return sorted({n[len(prefix) :].split("/")[0] for n in self.names if n.startswith(prefix)})

    def exists(self, path: str) -> bool:
        return path in self.names

    def read(self, path: str) -> bytes:
        if path not in self.names:
            raise FileNotFoundError(path)
        return self.files[self.names[path]]

    def _create(self, path: str) -> str:
        if path not in self.names:
            self.inode += 1
            self.names[path] = str(self.inode)
            self.files[str(self.inode)] = b""
        return self.names[path]

    def append(self, path: str, data: bytes) -> None:
        if self.full and not self.dead:
            inode = self._create(path)
            self.files[inode] += data[: len(data) // 2]
        self._operation()
        inode = self._create(path)
        self.files[inode] += data

    def write(self, path: str, data: bytes) -> None:
        self._operation()
        self.files[self._create(path)] = data

    def replace(self, path: str, data: bytes | bytearray) -> None:
        aside = path + ".tmp"
        self.names.pop(aside, None)
        self.write(aside, bytes(data))
        self.sync(aside)
        self.rename(aside, path)
        self.sync_dir(path.rsplit("/", 1)[0])

    def truncate(self, path: str, size: int) -> None:
        self._operation()
        self.files[self.names[path]] = self.files[self.names[path]][:size]

    def sync(self, path: str) -> None:
        self._operation()
        inode = self.names[path]
        self.durable_data[inode] = self.files[inode]

    def sync_dir(self, folder: str) -> None:
        self._operation()
        prefix = folder.rstrip("/") + "/"
        for name in [n for n in self.durable_names if n.startswith(prefix)]:
            del self.durable_names[name]
        self.durable_names.update({n: i for n, i in self.names.items() if n.startswith(prefix)})

    def rename(self, old: str, new: str) -> None:
        self._operation()
        self.names[new] = self.names.pop(old)

    def unlink(self, path: str) -> None:
        self._operation()
        self.names.pop(path, None)

    def mkdir(self, folder: str) -> None:
        pass

    async def work(self, job: Callable[[], Any]) -> Any:
        async with self.lock:
            delay = self.delay()
            if delay:
                await asyncio.sleep(delay)
            try:
                return job()
            except CrashError:
                # The process is gone: nobody hears of it.
                await asyncio.Event().wait()


class FakeChannel:
    """One end of a channel."""

    def __init__(self, net: Network, me: str, other: str) -> None:
        self.net = net
        self.me, self.other = me, other
        self.peer = Peer(other, "manager", "c", "s", net.address(other))
        self.inbox: list[Body] = []
        self.arrived = asyncio.Event()
        self.closed = False
        self.twin: FakeChannel
        self.last_delivery = 0.0

    async def send(self, body: Body) -> None:
        if self.closed:
            raise WireError("closed")
        packed = msgpack.packb(body)
        if self.net.tap is not None:
            self.net.tap(self.me, self.other, body)
        self.net.deliver(self, packed)

    async def recv(self) -> Body:
        while not self.inbox:
            if self.closed:
                raise WireError("closed")
            self.arrived.clear()
            await self.arrived.wait()
        return self.inbox.pop(0)

    async def close(self) -> None:
        self.net.sever(self)


class Network:
    """Channels between nodes with latency, cuts (per direction) and breaks. FIFO per channel."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.wires: dict[str, FakeWire] = {}
        self.blocked: set[tuple[str, str]] = set()
        self.channels: list[FakeChannel] = []
        self.latency: Callable[[str, str], float] = lambda _a, _b: 0.001
        self.tap: Callable[[str, str, Body], None] | None = None
        self.bandwidth: float | None = None

    @staticmethod
    def address(node: str) -> str:
        return f"{node}:2377"

    def can(self, source: str, target: str) -> bool:
        return (source, target) not in self.blocked and target in self.wires

    def deliver(self, channel: FakeChannel, packed: bytes) -> None:
        loop = asyncio.get_running_loop()
        delay = self.latency(channel.me, channel.other)
        if self.bandwidth is not None:
            delay += len(packed) / self.bandwidth
            start = max(loop.time(), channel.last_delivery)
        else:
            start = loop.time()
        at = max(start + delay, channel.last_delivery)
        channel.last_delivery = at
        loop.call_at(at, self._arrive, channel, packed)

    def _arrive(self, channel: FakeChannel, packed: bytes) -> None:
        twin = channel.twin
        if twin.closed or channel.closed:
            return
        if not self.can(channel.me, channel.other):
            return
        twin.inbox.append(msgpack.unpackb(packed))
        twin.arrived.set()

    def sever(self, channel: FakeChannel) -> None:
        for end in (channel, channel.twin):
            end.closed = True
            end.arrived.set()
        if channel in self.channels:
            self.channels.remove(channel)
        elif channel.twin in self.channels:
            self.channels.remove(channel.twin)

    def kill(self, node: str) -> None:
        """The node's process is gone: its channels break at once."""
        self.wires.pop(node, None)
        for channel in list(self.channels):
            if node in (channel.me, channel.other):
                self.sever(channel)

    def cut(self, sources: set[str], targets: set[str], *, one_way: bool = False) -> None:
        """Messages vanish silently; connections stay (as with a dropped cable)."""
        for a in sources:
            for b in targets:
                self.blocked.add((a, b))
                if not one_way:
                    self.blocked.add((b, a))

    def heal(self) -> None:
        """What was cut works again; connections over which messages were lost are broken."""
        for channel in list(self.channels):
            pair = (channel.me, channel.other)
            if pair in self.blocked or pair[::-1] in self.blocked:
                self.sever(channel)
        self.blocked.clear()


class FakeWire:
    def __init__(self, net: Network, node: str) -> None:
        self.net = net
        self.node = node
        self.handlers: dict[str, ChannelHandler] = {}
        self.tasks: set[asyncio.Task[Any]] = set()
        net.wires[node] = self

    def on_call(self, method: str, handler: Any) -> None:
        raise NotImplementedError

    def on_channel(self, method: str, handler: ChannelHandler) -> None:
        self.handlers[method] = handler

    async def call(self, *_: Any, **__: Any) -> Body:
        raise NotImplementedError

    async def open(self, address: str, method: str, hello: Body, *, timeout: float = 5.0) -> Channel:
        target = address.split(":", maxsplit=1)[0]
        await asyncio.sleep(self.net.latency(self.node, target))
        wire = self.net.wires.get(target)
        if not self.net.can(self.node, target) or not self.net.can(target, self.node):
            if wire is None:
                raise WireError("connection refused")
            await asyncio.sleep(timeout)
            raise WireError("timed out")
        if wire is None or method not in wire.handlers or self.net.wires.get(self.node) is not self:
            raise WireError("connection refused")
        mine = FakeChannel(self.net, self.node, target)
        theirs = FakeChannel(self.net, target, self.node)
        mine.twin, theirs.twin = theirs, mine
        self.net.channels.append(mine)
        task = asyncio.ensure_future(wire.handlers[method](theirs, hello))
        wire.tasks.add(task)

        def over(done: asyncio.Task[Any]) -> None:
            wire.tasks.discard(done)
            self.net.sever(theirs)

        task.add_done_callback(over)
        return mine

    async def start(self, listen: str) -> None:
        pass

    async def stop(self) -> None:
        pass


class ListMachine:
    """A machine that keeps what it applied."""

    def __init__(self) -> None:
        self.entries: list[tuple[int, bytes]] = []
        self.loads = 0

    def apply(self, index: int, entry: bytes) -> Any:
        self.entries.append((index, entry))
        if entry == b"raise":
            raise RuntimeError("poison")
        return len(self.entries)

    def save(self) -> Callable[[], bytes]:
        entries = list(self.entries)
        return lambda: msgpack.packb(entries)

    def load(self, image: Image) -> Callable[[], None]:
        try:
            entries = [(i, e) for i, e in msgpack.unpackb(image)]
        except Exception as error:
            raise ValueError("not an image") from error

        def take() -> None:
            self.entries = entries
            self.loads += 1

        return take

    def values(self) -> list[bytes]:
        return [entry for _, entry in self.entries]
