"""The long campaign: all targets in turn, with fresh seeds, until the budget is spent or one of them fails.

python -m tests.fuzz --seconds 600 --seed 1          everything
python -m tests.fuzz --seconds 60 --only join        the targets whose name holds "join"
python -m tests.fuzz --replay 1017 --only wire_values --examples 2000    one round again

A failing round prints the smallest input found and how to play it again; the exit code is 1.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback

from tests.fuzz.run import play
from tests.fuzz.targets import TARGETS


def main() -> int:
    """Run the campaign."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--examples", type=int, default=2000, help="inputs per round")
    parser.add_argument("--only", default="", help="targets whose name contains this")
    parser.add_argument("--replay", type=int, help="one round with exactly this seed")
    asked = parser.parse_args()
    chosen = [target for target in TARGETS if asked.only in target.name]
    if not chosen:
        parser.error(f"no target's name contains {asked.only!r}: {', '.join(one.name for one in TARGETS)}")
    began, rounds = time.monotonic(), 0
    number = asked.seed * 1000 if asked.replay is None else asked.replay
    while True:
        for target in chosen:
            try:
                play(target, asked.examples, number)
            except BaseException as error:
                traceback.print_exc()
                if isinstance(error, KeyboardInterrupt):
                    return 130
                print(
                    f"\n{target.name} failed; again: python -m tests.fuzz --only {target.name} "
                    f"--replay {number} --examples {asked.examples}"
                )
                return 1
            rounds += 1
            spent = time.monotonic() - began
            if asked.replay is None and spent > asked.seconds:
                print(f"{rounds} rounds of {asked.examples} inputs, {spent:.0f} s: nothing found")
                return 0
        if asked.replay is not None:
            print("nothing found")
            return 0
        number += 1


if __name__ == "__main__":
    sys.exit(main())
