"""Namespaces on a bridge, servers and clients in them: what the contracts of the network are held against.

Everything is made of plain `ip` commands and is removed by `close`. Names carry the process id. The bridge has
a namespace of its own, so that the machine's own links and rules see nothing of it. Servers are sockets that
were opened inside a namespace and are served by one thread of this process.
"""

from __future__ import annotations

import itertools
import json
import os
import selectors
import socket
import struct
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import google_crc32c

from swarmpy.adapters.netns import inside

_numbers = itertools.count(1)


def ip(command: str) -> str:
    done = subprocess.run(["ip", *command.split()], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {command}: {done.stderr}"
    return done.stdout


class Lab:
    """Namespaces, and bridges to join them."""

    def __init__(self) -> None:
        self.prefix = f"sw{os.getpid()}x{next(_numbers)}"
        self.spaces: list[str] = []
        self.hub = self.space("hub")
        self.server = Server()

    def space(self, name: str) -> str:
        full = f"{self.prefix}{name}"
        ip(f"netns add {full}")
        self.spaces.append(full)
        ip(f"-n {full} link set lo up")
        return f"/run/netns/{full}"

    def bridge(self, name: str) -> None:
        ip(f"-n {self.name(self.hub)} link add {name} type bridge")
        ip(f"-n {self.name(self.hub)} link set {name} up")
        inside(self.hub, _write, "/proc/sys/net/bridge/bridge-nf-call-iptables", "0")
        inside(self.hub, _write, "/proc/sys/net/bridge/bridge-nf-call-ip6tables", "0")

    def plug(self, space: str, link: str, bridge: str, *addresses: str, mac: str = "") -> None:
        """A link of the space to the bridge."""
        port, hub, own = f"p{next(_numbers)}", self.name(self.hub), self.name(space)
        ip(f"-n {hub} link add {port} type veth peer name {link} netns {own}")
        ip(f"-n {hub} link set {port} master {bridge} up")
        if mac:
            ip(f"-n {own} link set {link} address {mac}")
        for address in addresses:
            ip(f"-n {own} address add {address} dev {link}" + (" nodad" if ":" in address else ""))
        ip(f"-n {own} link set {link} up")

    @staticmethod
    def name(space: str) -> str:
        return space.rpartition("/")[2]

    def close(self) -> None:
        self.server.close()
        for space in reversed(self.spaces):
            subprocess.run(["ip", "netns", "del", space], capture_output=True, check=False)


def _write(path: str, value: str) -> None:
    with suppress(FileNotFoundError), open(path, "w") as file:
        file.write(value)


class Server:
    """One thread that serves all backends: whoever connects or sends is told the backend's name and his own
    address, and again for everything he sends."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake, other = socket.socketpair()
        self._selector.register(other, selectors.EVENT_READ, None)
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        self._sockets = [self._wake, other]

    def listen(self, space: str, name: str, port: int, *, family: int = socket.AF_INET) -> None:
        """TCP and UDP at this port of all addresses of the namespace."""

        def make(kind: int) -> socket.socket:
            made = socket.socket(family, kind)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.bind(("", port))
            return made

        stream, datagram = inside(space, make, socket.SOCK_STREAM), inside(space, make, socket.SOCK_DGRAM)
        stream.listen(1024)
        self._add(stream, lambda: self._accept(stream, name))
        self._add(datagram, lambda: self._datagram(datagram, name))

    def _add(self, one: socket.socket, ready: Callable[[], None]) -> None:
        self._sockets.append(one)
        with self._lock:
            self._selector.register(one, selectors.EVENT_READ, ready)
        self._wake.send(b"x")

    def _accept(self, stream: socket.socket, name: str) -> None:
        connection, peer = stream.accept()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.send(f"{name} {peer[0]}\n".encode())
        with self._lock:
            self._selector.register(connection, selectors.EVENT_READ, lambda: self._answer(connection, name))

    def _answer(self, connection: socket.socket, name: str) -> None:
        data = b""
        with suppress(OSError):
            data = connection.recv(4096)
        if data:
            connection.send(f"{name}\n".encode())
            return
        with self._lock:
            self._selector.unregister(connection)
        connection.close()

    @staticmethod
    def _datagram(datagram: socket.socket, name: str) -> None:
        with suppress(OSError):
            _, peer = datagram.recvfrom(4096)
            datagram.sendto(f"{name} {peer[0]}\n".encode(), peer)

    def _serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    if not key.fileobj.recv(64):
                        return
                else:
                    key.data()

    def close(self) -> None:
        self._wake.close()
        self._thread.join(10)
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()
        self._selector.close()
        for one in self._sockets:
            one.close()


def dial(address: str, port: int, *, source: tuple[str, int] | None = None,
         timeout: float = 5) -> tuple[socket.socket, str, str]:  # fmt: skip
    """A TCP connection out of the thread's namespace: the socket, who answers, and from where he sees us."""
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.settimeout(timeout)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if source:
            made.bind(source)
        made.connect((address, port))
        who, seen = made.recv(100).decode().split()
    except BaseException:
        made.close()
        raise
    return made, who, seen


def connect(space: str, address: str, port: int, **more) -> tuple[socket.socket, str, str]:
    """`dial` in a namespace."""
    return inside(space, lambda: dial(address, port, **more))


def call(space: str, address: str, port: int, **more) -> tuple[str, str]:
    """One TCP connection, closed again: who answers, and from where he sees us."""
    made, who, seen = connect(space, address, port, **more)
    made.close()
    return who, seen


def hammer(space: str, address: str, port: int, count: int) -> Counter[str]:
    """So many connections, one after the other, from a process of its own; who answered how often."""
    command = [sys.executable, "-m", "tests.contracts.netlab", address, str(port), str(count)]
    done = subprocess.run(
        ["ip", "netns", "exec", Lab.name(space), *command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return Counter(json.loads(done.stdout))


def say(connection: socket.socket) -> str:
    """Send on an open connection; who answers."""
    connection.send(b"x\n")
    return connection.recv(100).decode().split()[0]


def datagrams(space: str, address: str, port: int) -> socket.socket:
    """A connected UDP socket."""
    made = inside(
        space, socket.socket, socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM
    )
    made.settimeout(5)
    made.connect((address, port))
    return made


def raw_sctp(space: str) -> socket.socket:
    """A socket for SCTP packets, which no kernel refuses."""
    made = inside(space, socket.socket, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_SCTP)
    made.settimeout(5)
    return made


def sctp_init(source: int, target: int) -> bytes:
    """The packet that opens an association."""
    chunk = struct.pack("!BBHIIHHI", 1, 0, 20, source, 1 << 16, 1, 1, 1)
    head = struct.pack("!HHI", source, target, 0)
    return head + google_crc32c.value(head + b"\0" * 4 + chunk).to_bytes(4, "little") + chunk


if __name__ == "__main__":
    answered = Counter[str]()
    for _ in range(int(sys.argv[3])):
        opened, answering, _ = dial(sys.argv[1], int(sys.argv[2]), timeout=3)
        opened.close()
        answered[answering] += 1
    print(json.dumps(answered))
