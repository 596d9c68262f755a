"""Power cuts: a log under load on a disk of its own, in a machine whose power goes at any moment.

python -m tests.uml.power --cuts 50 --seed 1         a campaign; prints a JSON object, or fails with an assertion
python -m tests.uml.power --unsynced                 the same with fdatasync turned off: has to fail

The manager's log (adapters/raft on adapters/disk) writes numbered entries to an ext4 file system on a block device of
User-mode Linux. Each number comes out through a serial line once `propose` returned. Then the kernel is killed with
SIGKILL: all that it had not written to its block device is gone, as with a power cut. The next boot on the same image
says what the log holds: every number that ever came out, each once, and nothing that was never sent.

What belongs here: both ends of that. What does not: the writing child and its check (tests/raft/killing.py), the
machine (machine.py).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.raft.killing import WRITERS, check, child, watch
from tests.uml import machine

OPENING = 90.0
"""Seconds for a boot."""
BOOT = 4.0
"""Seconds within which cuts during the boot and the log's start fall."""
MOST = 400
"""Acknowledgements before a cut, at most."""


def guest(first: int, *, bulk: bool, unsynced: bool) -> None:
    """What runs inside the machine. `unsynced`: fdatasync does nothing, as a bug would have it."""
    if unsynced:
        os.fdatasync = lambda file: None
    out = os.open(machine.VOICE, os.O_WRONLY | os.O_NOCTTY)
    tty.setraw(out)
    asyncio.run(child(machine.DISK, out, first, bulk=bulk))


@contextmanager
def _begun(image: Path, first: int, *, bulk: bool, unsynced: bool) -> Iterator[machine.Running]:
    words = [sys.executable, "-m", "tests.uml.power", "--guest", str(first)]
    words += ["--bulk"] * bulk + ["--unsynced"] * unsynced
    with machine.running(words, disk=image) as begun:
        yield begun


def cuts(number: int, seed: int, *, unsynced: bool = False) -> dict[str, Any]:
    """So many power cuts on one disk, then one more boot. Raises AssertionError for anything lost or made up."""
    chance = random.Random(seed)
    acked: set[int] = set()
    sent = opened = 0
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="swarmpy-power-") as place:
        image = Path(place) / "disk"
        machine.image(image)
        for turn in range(number + 1):
            last = turn == number
            early = not last and turn % 5 == 4
            acks = 2 if last else chance.randint(2, MOST)
            seconds = chance.uniform(0, BOOT) if early else OPENING
            with _begun(image, sent, bulk=turn % 2 == 1, unsynced=unsynced) as begun:
                lines = watch(begun.voice, 10**9 if early else acks, seconds, begun.cut)
            assert lines or early, f"the log did not open within {OPENING:g} s"
            if lines:
                opened += 1
                assert lines[0].startswith("held "), lines[0]
                check(json.loads(lines[0][5:]), acked, sent)
            said = [int(line) for line in lines[1:]]
            acked |= set(said)
            sent = max([sent, *said]) + WRITERS + 1 + 1000  # numbers in flight are never used again
    return {
        "cuts": number,
        "opened": opened,
        "acked": len(acked),
        "lost": 0,
        "seconds": round(time.monotonic() - began, 1),
    }


def main() -> None:
    """See the file's charter."""
    parser = argparse.ArgumentParser(prog="python -m tests.uml.power")
    parser.add_argument("--cuts", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--unsynced", action="store_true")
    parser.add_argument("--guest", type=int, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--bulk", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.guest is not None:
        guest(asked.guest, bulk=asked.bulk, unsynced=asked.unsynced)
    else:
        print(json.dumps(cuts(asked.cuts, asked.seed, unsynced=asked.unsynced)))


if __name__ == "__main__":
    main()
