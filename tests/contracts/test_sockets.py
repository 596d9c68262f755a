"""What programs listen on, as it is seen from outside: real processes in namespaces of their own, and simulated
containers, held to the same promises."""

from __future__ import annotations

import asyncio
import math
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from swarmpy.adapters import sockets
from swarmpy.adapters.sockets import ProcSockets
from swarmpy.ports import Sockets
from swarmpy.sim.clock import SimClock
from swarmpy.sim.dockerd import Dockerd
from swarmpy.sim.loop import SimLoop
from swarmpy.sim.sockets import SimSockets
from swarmpy.sim.trace import Trace

PROGRAM = """
import socket, subprocess, sys
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
kept = []
print("ready", flush=True)
for line in sys.stdin:
    what, address, port = line.split()
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_DGRAM if what == "udp" else socket.SOCK_STREAM)
    kept.append(made)
    if what == "fill":
        for _ in range(300):
            kept.append(socket.create_connection((address, int(port))))
            kept.append(kept[0].accept()[0])
    elif family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    if what != "fill":
        made.bind((address, int(port)))
    if what == "listen":
        made.listen(500)
    print("done", flush=True)
"""
"""A program of a container: does what it is told, one line at a time."""

ASKED = frozenset({80, 81})


class Program:
    """A real process in a network namespace of its own."""

    def __init__(self) -> None:
        command = ["unshare", "--net", sys.executable, "-c", PROGRAM]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"
        self.pid = self._process.pid

    def does(self, what: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n"

    def opens(self, port: int) -> None:
        self.does(f"listen 0.0.0.0 {port}")

    def end(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._process.kill()
        self._process.wait()


class Simulated:
    """A simulated container that listens when it is told to."""

    def __init__(self, daemon: Dockerd, name: str) -> None:
        self._daemon = daemon
        self._key = daemon.create(name, {"Image": "deaf:1"})
        daemon.begin(self._key)
        self._container = daemon.find(self._key)
        self.pid = self._container.pid

    def opens(self, port: int) -> None:
        self._container.late = {**self._container.late, port: self._daemon.loop.instant}

    def end(self) -> None:
        self._daemon.delete(self._key)


Any_ = Program | Simulated
Scenario = Callable[[Sockets, Any_, Any_], Coroutine[Any, Any, None]]


def play(world: str, scenario: Scenario) -> None:
    if world == "simulated":
        loop = SimLoop()
        daemon = Dockerd(loop, "w1", "seed", SimClock(loop.time), Trace(loop.time))
        daemon.images.add("deaf:1")
        loop.run(scenario(SimSockets(daemon), Simulated(daemon, "a"), Simulated(daemon, "b")))
        return
    one, other = Program(), Program()
    try:
        asyncio.run(scenario(ProcSockets(), one, other))
    finally:
        one.end()
        other.end()


@pytest.mark.parametrize("world", ["real", "simulated"])
def test_what_listens_is_seen_in_its_own_namespace(world: str) -> None:
    async def scenario(seen: Sockets, one: Any_, other: Any_) -> None:
        asked = {one.pid: ASKED, other.pid: ASKED}
        assert await seen.listening(asked) == {one.pid: frozenset(), other.pid: frozenset()}
        one.opens(80)
        one.opens(9999)
        assert await seen.listening(asked) == {one.pid: frozenset({80}), other.pid: frozenset()}
        other.opens(81)
        one.opens(81)
        assert await seen.listening(asked) == {one.pid: ASKED, other.pid: frozenset({81})}
        assert await seen.listening({}) == {}

    play(world, scenario)


@pytest.mark.parametrize("world", ["real", "simulated"])
def test_who_is_gone_is_not_in_the_answer(world: str) -> None:
    async def scenario(seen: Sockets, one: Any_, other: Any_) -> None:
        one.opens(80)
        other.end()
        assert await seen.listening({one.pid: ASKED, other.pid: ASKED, 0: ASKED}) == {
            one.pid: frozenset({80})
        }

    play(world, scenario)


# ------------------------------------------------------------ the kernel's own ways


@pytest.fixture
def program() -> Iterator[Program]:
    made = Program()
    yield made
    made.end()


async def _open(pid: int, *ports: int) -> frozenset[int]:
    return (await ProcSockets().listening({pid: frozenset(ports or ASKED)}))[pid]


async def test_what_only_the_program_itself_can_reach_does_not_count(program: Program) -> None:
    for address in ("127.0.0.1", "127.0.0.53", "::1", "::ffff:127.0.0.2"):
        program.does(f"listen {address} 80")
        assert await _open(program.pid) == frozenset(), address
    program.does("listen :: 81")
    assert await _open(program.pid) == frozenset({81}), "IPv6, and by it IPv4 too"


async def test_udp_and_sockets_that_are_only_bound_do_not_count(program: Program) -> None:
    program.does("udp 0.0.0.0 80")
    program.does("bind 0.0.0.0 81")
    assert await _open(program.pid) == frozenset()


async def test_connections_are_not_read_through(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    program.opens(80)
    program.does("fill 127.0.0.1 80")
    program.opens(81)
    program.does("listen :: 65535")
    assert await _open(program.pid, 80, 81, 65535) == frozenset({80, 81, 65535})
    read = 0
    right = sockets._listeners

    def counting(lines: Iterator[bytes]) -> Iterator[int]:
        def counted() -> Iterator[bytes]:
            nonlocal read
            for line in lines:
                read += 1
                yield line

        return right(counted())

    monkeypatch.setattr(sockets, "_listeners", counting)
    assert await _open(program.pid, 80, 81, 65535) == frozenset({80, 81, 65535})
    assert read <= 4, "three that listen, and the first of 600 connections"


async def test_a_process_in_the_namespace_of_another_sees_what_listens_there(program: Program) -> None:
    """As a container on the host network does."""
    program.opens(80)
    guest = subprocess.Popen(["nsenter", "-t", str(program.pid), "-n", "sleep", "1000"])
    try:
        async with asyncio.timeout(10):
            while await _open(guest.pid) != frozenset({80}):  # nsenter is on its way there
                await asyncio.sleep(0.01)
    finally:
        guest.kill()
        guest.wait()


async def test_a_kernel_without_ipv6_is_read_as_well(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    program.opens(80)
    monkeypatch.setattr(sockets, "TABLES", ("tcp", "tcp-that-is-not-there"))
    assert await _open(program.pid) == frozenset({80})


def test_a_simulated_container_that_is_deaf_never_listens() -> None:
    loop = SimLoop()
    try:
        daemon = Dockerd(loop, "w1", "seed", SimClock(loop.time), Trace(loop.time))
        daemon.images.add("deaf:1")
        made = Simulated(daemon, "a")
        assert daemon.find(made._key).opens == math.inf
    finally:
        loop.dispose()
