"""What passes by a virtual address and by the routing mesh, beside the same without them. Needs root.

    python -m tests.bench.passing [--rounds 30] [--seconds 0.3] [--requests 1000] [--services 1000] [--json FILE]

Two nodes and an outside client in namespaces, the real overlay between them, a backend on the second node, and
that many services in the containers of client and backend. The ways, in an order that is drawn anew each round:
by the nodes' own link (veth) to the second node; over VXLAN from a container without any rules on the first node
to the backend, from one with our rules, and from that to the virtual address; from outside to the port published
on the second node, where the backend is; and on the first, where it is not.

For each: bytes a second of one stream (a sender of our own, 256 KiB at a time, counted by who received them),
round trips on a kept connection (100 bytes there, 1,000 back; the median of a batch), and connections opened,
used for one such request and closed. The server is a process of its own, on the same core as the client: what
differs is work, then, and not on which cores the two happened to be. It does nothing with what it gets, so every
microsecond shows. Printed: medians over the rounds, and of the ratio to the way named, formed within each round:
what else the machine does then hits both alike.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from swarmpy.adapters.netns import inside
from swarmpy.adapters.nftables import NftBalancer
from swarmpy.ports import MeshPort, Neighbour, Plug, Return, SandboxTable
from tests.bench.balancer import keep, pin, table
from tests.contracts.netlab import Lab, ip
from tests.contracts.test_mesh_overlay import (
    BACKEND,
    BACKEND6,
    MTU,
    NETWORK,
    OUTSIDE,
    OUTSIDE6,
    Node,
    begin,
)

VIP = "10.60.0.2"
CLIENTS = {"client": ("10.60.0.21", "02:00:00:00:01:21"), "plain": ("10.60.0.22", "02:00:00:00:01:22")}
PORT, PUBLISHED = 90, 8090
CHUNK, ASKED, ANSWERED = bytes(1 << 18), bytes(100), bytes(1000)
STREAM, REQUESTS, ONE = b"s", b"r", b"o"
CUT = struct.pack("ii", 1, 0)
Figures = dict[str, dict[str, list[float]]]


# ------------------------------------------------------------------ the server


def serve(port: int) -> None:
    """Until the one who began us goes. The first byte of a connection says what it is for."""
    with socket.create_server(("", port), backlog=1024) as server:
        print("ready", flush=True)
        threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
        while True:
            connection, _ = server.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            kind = connection.recv(1)
            if kind == ONE:
                _served(connection, kind)
            else:
                threading.Thread(target=_served, args=(connection, kind), daemon=True).start()


def _served(connection: socket.socket, kind: bytes) -> None:
    with connection, contextlib.suppress(OSError):
        room = bytearray(1 << 20 if kind == STREAM else len(ASKED))
        if kind == STREAM:
            received = 0
            while count := connection.recv_into(room):
                received += count
            connection.send(received.to_bytes(8))
        while kind != STREAM and connection.recv_into(room, len(ASKED), socket.MSG_WAITALL):
            connection.send(ANSWERED)


# ------------------------------------------------------------------ the client


def begun(address: str, port: int, kind: bytes) -> socket.socket:
    made = socket.create_connection((address, port), timeout=10)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    made.send(kind)
    return made


def ask(connection: socket.socket) -> None:
    connection.send(ASKED)
    answer = connection.recv(len(ANSWERED), socket.MSG_WAITALL)
    assert len(answer) == len(ANSWERED)


def stream(address: str, port: int, options: argparse.Namespace) -> float:
    """Bytes a second."""
    with begun(address, port, STREAM) as connection:
        began = time.perf_counter()
        while time.perf_counter() - began < options.seconds:
            connection.sendall(CHUNK)
        connection.shutdown(socket.SHUT_WR)
        return int.from_bytes(connection.recv(8, socket.MSG_WAITALL)) / (time.perf_counter() - began)


def kept(address: str, port: int, options: argparse.Namespace) -> float:
    """µs of a round trip, the median of a batch."""
    found = []
    with begun(address, port, REQUESTS) as connection:
        for _ in range(options.requests):
            began = time.perf_counter()
            ask(connection)
            found.append(time.perf_counter() - began)
    return statistics.median(found) * 1e6


def opened(address: str, port: int, options: argparse.Namespace) -> float:
    """µs of a request with a connection of its own, the median of a batch."""
    found = []
    for _ in range(options.requests // 4):
        began = time.perf_counter()
        with begun(address, port, ONE) as connection:
            ask(connection)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, CUT)
        found.append(time.perf_counter() - began)
    return statistics.median(found) * 1e6


MEASURES: dict[str, Callable[[str, int, argparse.Namespace], float]] = {
    "stream, bytes/s": stream,
    "kept connection, us a request": kept,
    "new connection, us a request": opened,
}


# ------------------------------------------------------------------ what is measured


@dataclass(frozen=True, slots=True)
class Way:
    """From a namespace to an address; `beside` is the way that it is compared with."""

    space: str
    address: str
    port: int
    beside: str


async def build(lab: Lab, folder: Path, services: int) -> dict[str, Way]:
    lab.bridge("under")
    lab.outside = lab.space("outside")
    lab.plug(lab.outside, "eth0", "under", f"{OUTSIDE}/24", f"{OUTSIDE6}/64")
    lab.nodes = [Node(lab, number, folder / str(number)) for number in (1, 2)]
    first, second = lab.nodes
    backend = await begin(lab)
    client, plain = [await container(lab, first, name, *about) for name, about in CLIENTS.items()]
    stations = [Neighbour(mac, first.address, (address,)) for address, mac in CLIENTS.values()]
    await second.overlay.forward(NETWORK, stations, [])
    many = replace(table(services, 10), services=(replace(table(0, 1).services[0], vip=VIP, backends=(BACKEND,)),
                                                  *table(services, 10).services[1:]))  # fmt: skip
    balancer = NftBalancer()
    await balancer.apply(client, many, None)
    returns = tuple(Return(number, node.mac, node.own, node.own6) for number, node in enumerate(lab.nodes, 1))
    await balancer.apply(backend, SandboxTable(many.services, BACKEND, returns, BACKEND6), None)
    for node in lab.nodes:
        ports = (MeshPort("tcp", PUBLISHED, PORT, (BACKEND,)),)
        await node.mesh.apply(replace(node.table, ports=ports, hosts=(("tcp", PUBLISHED, ""),)), None)
    direct = "direct over VXLAN"
    return {
        "veth between the nodes": Way(first.space, second.address, PORT, "veth between the nodes"),
        direct: Way(plain, BACKEND, PORT, direct),
        "direct over VXLAN, past our rules": Way(client, BACKEND, PORT, direct),
        "virtual address over VXLAN": Way(client, VIP, PORT, direct),
        "mesh, by the backend's node": Way(lab.outside, second.address, PUBLISHED, direct),
        "mesh, by the other node, over VXLAN": Way(lab.outside, first.address, PUBLISHED, direct),
    }


async def container(lab: Lab, node: Node, name: str, address: str, mac: str) -> str:
    """A namespace that is plugged into the node's overlay."""
    end = await node.overlay.plug(Plug(name, NETWORK, mac, MTU))
    space = lab.space(name)
    ip(f"-n {lab.name(node.space)} link set {end} netns {lab.name(space)} name eth0")
    ip(f"-n {lab.name(space)} address add {address}/24 dev eth0")
    ip(f"-n {lab.name(space)} link set eth0 up")
    return space


async def unbuild(lab: Lab) -> None:
    for node in getattr(lab, "nodes", ()):
        await node.mesh.clear()
        await node.overlay.clear()
        node.overlay.close()
        subprocess.run(["umount", str(node.folder)], capture_output=True, check=False)


@contextlib.contextmanager
def server(space: str):
    command = [
        "ip",
        "netns",
        "exec",
        Lab.name(space),
        sys.executable,
        "-m",
        "tests.bench.passing",
        "--serve",
        str(PORT),
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        try:
            yield
        finally:
            process.stdin.close()


def measured(ways: dict[str, Way], options: argparse.Namespace) -> Figures:
    found: Figures = {what: {name: [] for name in ways} for what in MEASURES}
    for turn in range(options.rounds + 1):
        for what, measure in MEASURES.items():
            for name in random.sample(list(ways), len(ways)):
                way = ways[name]
                value = inside(way.space, measure, way.address, way.port, options)
                if turn:  # the first round is to get warm
                    found[what][name].append(value)
    return found


def shown(ways: dict[str, Way], figures: Figures) -> None:
    for what, found in figures.items():
        print(what)
        for name, values in found.items():
            beside = found[ways[name].beside]
            ratio = statistics.median(one / other for one, other in zip(values, beside, strict=True))
            print(f"  {name:<38}{statistics.median(values):16,.1f}   {ratio:.3f} of {ways[name].beside}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=0.3, help="of each stream")
    parser.add_argument("--requests", type=int, default=1000, help="of each batch")
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--core", type=int, default=None, help="the core for all (the last)")
    parser.add_argument("--json", help="write the figures to this file")
    parser.add_argument("--serve", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
    pin(options.core)
    lab = Lab()
    with tempfile.TemporaryDirectory() as folder:
        try:
            ways = asyncio.run(build(lab, Path(folder), options.services))
            backend = next(space for space in lab.spaces if space.endswith("backend"))
            with server(backend), server(lab.nodes[1].space):
                figures = measured(ways, options)
            shown(ways, figures)
            keep(options.json, figures)
        finally:
            asyncio.run(unbuild(lab))
            lab.close()


if __name__ == "__main__":
    main()
