"""`swarmpy sim`: play seeds, print what happened, say how to replay what went wrong.

What belongs here: options, printing, exit codes. What does not: the simulation.

Exit codes: 0 nothing wrong, 1 an invariant was broken or arguments are wrong, 125 a flag or its value is
wrong.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from swarmpy.cli.usage import WRONG_FLAG, Parser
from swarmpy.sim.bugs import planted
from swarmpy.sim.clusterbugs import ALL_BUGS
from swarmpy.sim.nemesis import REGISTRY
from swarmpy.sim.runs import WORLDS, run_seed

if TYPE_CHECKING:
    from swarmpy.sim.consensus import Outcome


def parser() -> Parser:
    """Options of `swarmpy sim`."""
    made = Parser(
        prog="swarmpy sim",
        description="Play a cluster in virtual time from a seed, with faults, and check that nothing breaks.",
    )
    made.add_argument("--world", choices=WORLDS, default=WORLDS[0], help="what is simulated (%(default)s)")
    made.add_argument("--seed", type=int, default=None, help="one seed (default 0)")
    made.add_argument("--seeds", metavar="A..B", default="", help="all seeds from A to B, B included")
    made.add_argument("--managers", type=int, default=None, help="number of managers (default: by the seed)")
    made.add_argument("--workers", type=int, default=None, help="number of workers (default: by the seed)")
    made.add_argument("--duration", type=float, default=None, help="virtual seconds of faults")
    made.add_argument(
        "--faults", default=None, metavar="A,B,…", help='fault kinds (default: by the seed; "" for none)'
    )
    made.add_argument("--bug", default="", help="plant a known mistake (see --list)")
    made.add_argument("--transcript", action="store_true", help="print every event as it happens")
    made.add_argument("--list", action="store_true", help="list fault kinds and planted bugs")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    options = parser().parse_args(argv)
    if options.list:
        _list()
        return 0
    faults = None if options.faults is None else [name for name in options.faults.split(",") if name]
    problem = _wrong(options, faults)
    if problem:
        print(f"swarmpy sim: {problem}", file=sys.stderr)  # noqa: T201  the sentence for the user
        return WRONG_FLAG
    bad = 0
    for seed in _seeds(options):
        with planted(options.bug):
            outcome = run_seed(
                options.world, seed, managers=options.managers, workers=options.workers,
                duration=options.duration, faults=faults, sink=_printer(enabled=options.transcript),
            )  # fmt: skip
        _report(outcome, options)
        bad += outcome.violation is not None
    return 1 if bad else 0


def _wrong(options: argparse.Namespace, faults: Sequence[str] | None) -> str:
    unknown = [name for name in faults or () if name not in REGISTRY]
    if unknown:
        return f"there is no fault kind {unknown[0]!r}; --list shows them"
    if options.bug and options.bug not in ALL_BUGS:
        return f"there is no planted bug {options.bug!r}; --list shows them"
    first, dots, last = options.seeds.partition("..")
    if options.seeds and not (dots and first.isdigit() and last.isdigit()):
        return f"--seeds takes a range such as 0..99, not {options.seeds!r}"
    if options.seeds and int(first) > int(last):
        return f"--seeds {options.seeds} holds no seed: it goes from the smaller one to the larger one"
    for name, least in (("managers", 1), ("workers", 0)):
        number = getattr(options, name)
        if number is not None and number < least:
            return f"--{name} {number} cannot be: {least} at least"
    if options.duration is not None and not 0 <= options.duration < math.inf:
        return f"--duration {options.duration:g} cannot be: it is a number of virtual seconds"
    return ""


def _seeds(options: argparse.Namespace) -> range:
    if not options.seeds:
        seed = options.seed or 0
        return range(seed, seed + 1)
    first, _, last = options.seeds.partition("..")
    return range(int(first), int(last) + 1)


def _printer(*, enabled: bool) -> Callable[[str], None] | None:
    return print if enabled else None


def _report(outcome: Outcome, options: argparse.Namespace) -> None:
    say = print
    faults = " ".join(f"{name}×{count}" for name, count in sorted(outcome.faults.items())) or "none"
    state = "BROKEN" if outcome.violation else "ok"
    say(f"seed {outcome.seed}: {state}  hash {outcome.hash}  {outcome.time:.1f} s virtual, "
        f"{outcome.steps} steps, {outcome.acked} acknowledged, faults: {faults}")  # fmt: skip
    if outcome.violation is None:
        return
    say(f"\n{outcome.violation}\n\nthe last events:")
    if not options.transcript:
        for line in outcome.lines[-40:]:
            say(f"  {line}")
    say(f"\nreplay: {_command(outcome, options)}\n")


def _command(outcome: Outcome, options: argparse.Namespace) -> str:
    parts = ["swarmpy sim", f"--world {options.world}", f"--seed {outcome.seed}"]
    for name in ("managers", "workers", "duration"):
        value = getattr(options, name)
        if value is not None:
            parts.append(f"--{name} {value:g}")
    if options.faults is not None:
        parts.append(f"--faults '{options.faults}'")
    if options.bug:
        parts.append(f"--bug {options.bug}")
    return " ".join([*parts, "--transcript"])


def _list() -> None:
    say = print
    say("fault kinds:")
    for fault in REGISTRY.values():
        say(f"  {fault.name:18} {fault.group:8} {fault.what}")
    say("\nplanted bugs:")
    for bug in ALL_BUGS.values():
        say(f"  {bug.name:22} {bug.world:10} {bug.what}")


if __name__ == "__main__":
    sys.exit(main())
