"""What balancing costs: programming many services, one change among them, and each connection. Needs root.

    python -m tests.bench.balancer [--services 1000] [--backends 10] [--rounds 5] [--connections 3000]

Both ways to speak to the kernel side by side: libnftables in this process, and the nft program started for each
transaction. Then connections per second (opened, greeted, closed; one after the other, from a process of its
own): to a backend without any rule set, to a backend past the rules, and to the virtual address, with that many
services loaded. Medians of the rounds, which alternate; other load on the machine counts, so read ratios.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import time
from collections.abc import Callable

from swarmpy.adapters.netns import inside
from swarmpy.adapters.nftables import NftBalancer, conntrack, library
from swarmpy.ports import SandboxTable, VirtualService
from tests.contracts.netlab import Lab, hammer

VIP, BACKENDS = "10.50.0.2", ("10.50.0.11", "10.50.0.12")


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


def programming(space: str, options: argparse.Namespace) -> None:
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


def connecting(lab: Lab, plain: str, balanced: str, options: argparse.Namespace) -> None:
    """Connections per second, three ways in turn."""
    inside(balanced, NftBalancer()._apply, balanced, table(options.services, options.backends), None)
    ways = {"no rules, a backend": (plain, BACKENDS[0]), "rules, a backend": (balanced, BACKENDS[0]),
            "rules, the virtual address": (balanced, VIP)}  # fmt: skip
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, (space, address) in ways.items():
            empty = timed(lambda space=space, address=address: hammer(space, address, 80, 0))
            spent = timed(
                lambda space=space, address=address: hammer(space, address, 80, options.connections)
            )
            rates[name].append(options.connections / (spent - empty) * 1000)
    base = statistics.median(rates["no rules, a backend"])
    print("connections per second")
    for name, rate in rates.items():
        median = statistics.median(rate)
        print(f"  {name:<38}{median:11.0f}   {median / base:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--backends", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=3000)
    options = parser.parse_args()
    lab = Lab()
    try:
        lab.bridge("br0")
        for number, address in enumerate(BACKENDS):
            space = lab.space(f"b{number}")
            lab.plug(space, "eth0", "br0", f"{address}/24")
            lab.server.listen(space, address, 80)
        spaces = [lab.space("plain"), lab.space("balanced")]
        for number, space in enumerate(spaces, 21):
            lab.plug(space, "eth0", "br0", f"10.50.0.{number}/24")
        programming(spaces[1], options)
        connecting(lab, *spaces, options)
    finally:
        lab.close()


if __name__ == "__main__":
    main()
