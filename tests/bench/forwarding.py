"""How fast forwarding entries reach the kernel: our raw netlink, pyroute2's objects, and `bridge` with a batch.

    python -m tests.bench.forwarding [--peers 1000] [--without-objects]        (as root)

Each peer is one forwarding and one neighbour entry of a VXLAN device in a namespace made for this. Wall time, in
milliseconds; the batch's includes making its text and starting the two programs. Plugging is timed too: the
median of 20 pairs of links made and removed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

from pyroute2 import IPRoute

from swarmpy.adapters.overlay import KernelOverlay, netns
from swarmpy.model.fabric import mac_of
from swarmpy.ports import Link, Neighbour, Plug

NET = "bench" + "x" * 20
LINK = Link(NET, 4096, 1450, "10.231.0.1", 4789, ("10.20.0.1/16",))
PERMANENT = 0x80


@contextlib.contextmanager
def place() -> Iterator[KernelOverlay]:
    """An overlay in a namespace and a folder of its own; nothing is left."""
    name = f"swb{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    with tempfile.TemporaryDirectory() as folder:
        overlay = KernelOverlay(f"{folder}/netns", f"/run/netns/{name}")
        try:
            yield overlay
        finally:
            asyncio.run(overlay.clear())
            overlay.close()
            subprocess.run(["umount", f"{folder}/netns"], check=True)
            subprocess.run(["ip", "netns", "del", name], check=True)


def timed(job: Callable[[], Any]) -> float:
    start = time.perf_counter()
    job()
    return (time.perf_counter() - start) * 1000


def raw(overlay: KernelOverlay, peers: list[Neighbour]) -> tuple[float, float, float]:
    add = timed(lambda: asyncio.run(overlay.forward(NET, peers, [])))
    dump = timed(lambda: asyncio.run(overlay.observe()))
    remove = timed(lambda: asyncio.run(overlay.forward(NET, [], peers)))
    return add, dump, remove


def objects(overlay: KernelOverlay, peers: list[Neighbour]) -> tuple[float, float, float]:
    """In the namespace, one object and one acknowledgement at a time."""

    def job() -> tuple[float, float, float]:
        with IPRoute() as netlink:
            index = netlink.link_lookup(ifname="vx0")[0]

            def each(fdb: str, neigh: str) -> None:
                for one in peers:
                    netlink.fdb(fdb, ifindex=index, lladdr=one.mac, dst=one.vtep, state=PERMANENT)
                    netlink.neigh(neigh, ifindex=index, dst=one.addresses[0], lladdr=one.mac, state=PERMANENT)

            add = timed(lambda: each("append", "add"))
            dump = timed(
                lambda: (list(netlink.fdb("dump", ifindex=index)), list(netlink.neigh("dump", ifindex=index)))
            )
            return add, dump, timed(lambda: each("del", "del"))

    home = os.open(overlay.namespace(NET), os.O_RDONLY)
    try:
        return netns.aside(home, job)
    finally:
        os.close(home)


def batch(overlay: KernelOverlay, peers: list[Neighbour]) -> tuple[float, float, float]:
    enter = ["nsenter", f"--net={overlay.namespace(NET)}"]

    def each(fdb: str, neigh: str) -> None:
        forwards = "".join(f"fdb {fdb} {one.mac} dev vx0 dst {one.vtep} self permanent\n" for one in peers)
        answers = "".join(
            f"neigh {neigh} {one.addresses[0]} dev vx0 lladdr {one.mac} nud permanent\n" for one in peers
        )
        for program, text in (("bridge", forwards), ("ip", answers)):
            subprocess.run([*enter, program, "-force", "-batch", "-"], input=text, text=True, check=True)

    def dump() -> None:
        for words in (["bridge", "fdb", "show", "dev", "vx0"], ["ip", "neigh", "show", "dev", "vx0"]):
            subprocess.run([*enter, *words], stdout=subprocess.DEVNULL, check=True)

    return timed(lambda: each("append", "add")), timed(dump), timed(lambda: each("del", "del"))


async def plugging(overlay: KernelOverlay) -> tuple[float, float]:
    made: list[float] = []
    gone: list[float] = []
    for number in range(20):
        start = time.perf_counter()
        await overlay.plug(Plug(f"e{number}", NET, mac_of(str(number)), 1450))
        made.append((time.perf_counter() - start) * 1000)
    for number in range(20):
        start = time.perf_counter()
        await overlay.unplug(NET, f"e{number}")
        gone.append((time.perf_counter() - start) * 1000)
    return statistics.median(made), statistics.median(gone)


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    words.add_argument("--peers", type=int, default=1000)
    words.add_argument("--without-objects", action="store_true")
    told = words.parse_args()
    peers = [Neighbour(mac_of("peer", str(number)), f"10.231.{number >> 8}.{number & 255}",
                       (f"10.20.{number >> 8}.{number & 255}",))
             for number in range(2, told.peers + 2)]  # fmt: skip
    ways = {"raw netlink": raw, "bridge -batch": batch}
    if not told.without_objects:
        ways["pyroute2 objects"] = objects
    with place() as overlay:
        asyncio.run(overlay.ensure(LINK))
        print(f"{told.peers} peers, ms        add      dump    remove")
        for name, way in ways.items():
            print(f"{name:18}" + "".join(f"{value:10.1f}" for value in way(overlay, peers)))
        made, gone = asyncio.run(plugging(overlay))
        print(f"plug {made:.1f} ms, unplug {gone:.1f} ms (medians of 20)")


if __name__ == "__main__":
    main()
