"""What balancing costs: programming many services, one change among them, and opening a connection. Needs root.

    python -m tests.bench.balancer [--services 1000] [--backends 10] [--rounds 5] [--connections 3000] [--json FILE]

Programming: both ways to speak to the kernel side by side, libnftables in this process, and the nft program
started for each transaction.

Opening: a connection is opened, greeted and closed, by way of each of WAYS in turn, again and again in an order
that is drawn anew. One thread is client and server at once, so that nothing is in it but the kernel's path and the
same few calls: nobody has to wake up, and every µs shows. (With a server in a process of its own:
`tests.bench.passing`.) The floor is what the kernel's translation costs with a single rule; what the Engine's own
rules cost (for its resolver, in each container on a network that users made) a container pays anyway.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import statistics
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from swarmpy.adapters.netns import inside
from swarmpy.adapters.nftables import NftBalancer, conntrack, library
from swarmpy.ports import SandboxTable, VirtualService
from tests.contracts.netlab import Lab

VIP, BACKENDS = "10.50.0.2", ("10.50.0.11", "10.50.0.12")
PORT = 80
BATCH = 100
"""Connections between two looks at the clock, where one thread does all."""
CUT = struct.pack("ii", 1, 0)
TRACKED = "table ip one { chain a { type filter hook output priority 0; ct state invalid accept; }; }\n"
ENGINE = """
table ip engine {
 chain out { type nat hook output priority -100; ip daddr 127.0.0.11 jump dns_out; }
 chain dns_out { tcp dport 53 dnat to 127.0.0.11:43053; udp dport 53 dnat to 127.0.0.11:43054; }
 chain post { type nat hook postrouting priority 100; ip daddr 127.0.0.11 jump dns_post; }
 chain dns_post { ip saddr 127.0.0.11 tcp sport 43053 snat to :53; ip saddr 127.0.0.11 udp sport 43054 snat to :53; }
}
"""
FLOOR = f"""
table ip one {{
 chain out {{ type nat hook output priority -100; ip daddr {VIP} dnat to {BACKENDS[0]}; }}
}}
"""
WAYS = {
    "direct, no rules": ("", False, BACKENDS[0]),
    "direct, connections tracked": (TRACKED, False, BACKENDS[0]),
    "direct, the Engine's rules": (ENGINE, False, BACKENDS[0]),
    "direct, the Engine's rules and ours": (ENGINE, True, BACKENDS[0]),
    "floor: one rule that translates": (FLOOR, False, VIP),
    "floor, and the Engine's rules": (ENGINE + FLOOR, False, VIP),
    "virtual address, our rules": ("", True, VIP),
    "virtual address, the Engine's rules and ours": (ENGINE, True, VIP),
}
"""Rules of others, whether ours are there, and where to."""
Figures = dict[str, list[float]]


def table(services: int, backends: int, changed: int = -1) -> SandboxTable:
    made = [VirtualService(VIP, BACKENDS)]
    for number in range(services):
        at = f"{number // 250}.{number % 250 + 1}"
        slots = tuple(f"10.{100 + slot}.{at}" for slot in range(backends + (number == changed)))
        made.append(VirtualService(f"10.51.{at}", slots))
    return SandboxTable(services=tuple(made))


def spawned(commands: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=commands, text=True, check=True)


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


def programming(space: str, options: argparse.Namespace) -> dict[str, float]:
    """The whole of `apply` (reading the seal, the transaction, flows cut, sealing), in both ways."""
    first, second = table(options.services, options.backends), table(options.services, options.backends, 7)
    found: dict[tuple[str, str], list[float]] = {}
    for _ in range(options.rounds):
        for way, run in (("libnftables", library.run), ("nft spawned", spawned)):
            balancer = NftBalancer(run)
            steps = (
                ("tiny transaction", lambda run=run: run("add table inet bench\ndelete table inet bench\n")),
                ("all from nothing", lambda one=balancer: one._apply(space, first, None)),
                ("one change", lambda one=balancer: one._apply(space, second, first)),
                ("one backend goes", lambda one=balancer: one._apply(space, first, second)),
                ("nothing changed", lambda one=balancer: one._apply(space, first, first)),
                ("all, nothing known", lambda one=balancer: one._apply(space, second, None)),
                ("all removed", balancer._clear),
            )
            for name, work in steps:
                found.setdefault((name, way), []).append(inside(space, timed, work))
    found["flows looked through", "libnftables"] = [
        inside(space, timed, lambda: conntrack.cut(lambda flow: False)) for _ in range(options.rounds)
    ]
    print(f"{options.services} services of {options.backends} backends, ms   libnftables   nft spawned")
    for name in dict.fromkeys(name for name, _ in found):
        cells = [found.get((name, way)) for way in ("libnftables", "nft spawned")]
        shown = [f"{statistics.median(cell):11.1f}" if cell else " " * 11 for cell in cells]
        print(f"  {name:<38}" + "   ".join(shown))
    return {f"{name}, {way}": statistics.median(cell) for (name, way), cell in found.items()}


def listening(space: str) -> socket.socket:
    made = inside(space, socket.socket)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("", PORT))
    made.listen(BATCH)
    made.setblocking(False)
    return made


def batch(address: str, servers: list[socket.socket]) -> float:
    """µs of one connection, opened, greeted and closed by the thread that serves it. `servers` take turns."""
    turn, count = 0, len(servers)
    began = time.perf_counter()
    for _ in range(BATCH):
        client = socket.socket()
        client.connect((address, PORT))
        while True:
            turn = (turn + 1) % count
            try:
                served, _ = servers[turn].accept()
            except BlockingIOError:
                continue
            break
        served.send(b"hello")
        client.recv(10)
        served.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, CUT)
        client.close()
        served.close()
    return (time.perf_counter() - began) / BATCH * 1e6


def in_turn(rounds: int, measure: Callable[[str], float]) -> Figures:
    """What `measure` finds for each of WAYS, in an order that is another one each time."""
    found: Figures = {name: [] for name in WAYS}
    for _ in range(rounds):
        for name in random.sample(list(WAYS), len(WAYS)):
            found[name].append(measure(name))
    return found


def opening(spaces: dict[str, str], homes: list[str], options: argparse.Namespace) -> Figures:
    """µs of a connection."""
    servers = [listening(home) for home in homes]

    def measure(name: str) -> float:
        address = WAYS[name][2]
        balanced = address == VIP and WAYS[name][1]
        return inside(spaces[name], batch, address, servers if balanced else servers[:1])

    in_turn(3, measure)
    found = in_turn(options.rounds * options.connections // BATCH, measure)
    for server in servers:
        server.close()
    base = statistics.median(found["direct, no rules"])
    print("opening a connection, µs")
    for name, values in found.items():
        median = statistics.median(values)
        print(f"  {name:<46}{median:8.1f}   {median / base:.3f}")
    return found


def pin(core: int | None) -> None:
    """This process and all that it begins, to one core."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores) if core is None else core})


def keep(path: str | None, figures: object) -> None:
    """Write the figures to the file."""
    if path:
        Path(path).write_text(json.dumps(figures, indent=1), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--backends", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=3000)
    parser.add_argument("--core", type=int, default=None, help="the core for all (the last)")
    parser.add_argument("--json", help="write the figures to this file")
    options = parser.parse_args()
    lab = Lab()
    try:
        lab.bridge("br0")
        homes = [lab.space(f"b{number}") for number in range(len(BACKENDS))]
        for home, address in zip(homes, BACKENDS, strict=True):
            lab.plug(home, "eth0", "br0", f"{address}/24")
        spaces = {}
        for number, (name, (others, ours, _)) in enumerate(WAYS.items(), 21):
            space = spaces[name] = lab.space(f"c{number}")
            lab.plug(space, "eth0", "br0", f"10.50.0.{number}/24")
            if others:
                inside(space, library.run, others)
            if ours:
                inside(space, NftBalancer()._apply, space, table(options.services, options.backends), None)
        scratch = lab.space("scratch")
        programmed = programming(scratch, options)
        pin(options.core)
        opened = opening(spaces, homes, options)
        keep(options.json, {"programming, ms": programmed, "opening, us": opened})
    finally:
        lab.close()


if __name__ == "__main__":
    main()
