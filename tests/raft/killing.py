"""A process that acknowledges numbered writes and is killed, again and again: `python -m tests.raft.killing`.

Each round is a child made by fork (so that Python starts only once) that opens the log, says what it holds,
and writes with several proposals at a time; every word it says goes through a pipe after `propose` returned.
It is killed with SIGKILL after a number of acknowledgements or some milliseconds, both drawn from the seed.
Prints a JSON object, or fails with an assertion.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import select
import signal
import sys
import time
from collections.abc import Callable
from functools import partial

from tests.raft.one_member import leading, make

WRITERS = 8


async def child(folder: str, out: int, first: int, *, bulk: bool) -> None:
    """Open the log, say what it holds, and write for ever."""
    log, machine = make(folder, bulk=bulk)
    await log.start()
    await leading(log)
    held = [int(word) for word in machine.values()]
    os.write(out, f"held {json.dumps(held)}\n".encode())
    numbers = iter(range(first, 1 << 30))

    async def write() -> None:
        for number in numbers:
            await log.propose(b"%d" % number)
            os.write(out, b"%d\n" % number)

    await asyncio.gather(*(write() for _ in range(WRITERS)))


def spawn(folder: str, first: int, *, bulk: bool) -> tuple[int, int]:
    """(process id, the pipe to read from)."""
    back, out = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(back)
        try:
            asyncio.run(child(folder, out, first, bulk=bulk))
        finally:
            os._exit(1)
    os.close(out)
    return process, back


def watch(back: int, acks: int, seconds: float, kill: Callable[[], None]) -> list[str]:
    """Listen until so many lines came or the time is over; then kill, and read what was still said."""
    said = b""
    until = time.monotonic() + seconds
    while said.count(b"\n") < acks and (left := until - time.monotonic()) > 0:
        if select.select([back], [], [], left)[0]:
            piece = os.read(back, 65536)
            assert piece, "the child ended by itself"
            said += piece
    kill()
    while piece := os.read(back, 65536):
        said += piece
    os.close(back)
    return said[: said.rfind(b"\n") + 1].decode().splitlines()


def slay(process: int) -> None:
    """kill -9, and see it gone."""
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)


def check(held: list[int], acked: set[int], sent: int) -> None:
    """All that was acknowledged is held, once; nothing that nobody sent."""
    assert acked <= set(held), f"lost: {sorted(acked - set(held))[:10]}"
    assert len(held) == len(set(held)), "something was applied twice"
    assert not held or max(held) < sent


def main(folder: str, seed: int, rounds: int) -> None:
    chance = random.Random(seed)
    acked: set[int] = set()
    sent = opened = 0
    for number in range(rounds):
        early = number % 4 == 3
        acks = chance.randint(1, 250)
        process, back = spawn(folder, sent, bulk=number % 2 == 1)
        moment = chance.uniform(0.0, 0.05) if early else 30.0
        lines = watch(back, 10**9 if early else acks, moment, partial(slay, process))
        if lines:
            opened += 1
            assert lines[0].startswith("held ")
            check(json.loads(lines[0][5:]), acked, sent)
        said = [int(line) for line in lines[1:]]
        acked |= set(said)
        sent = max([sent, *said]) + WRITERS + 1 + 1000  # numbers in flight are never used again
    process, back = spawn(folder, sent, bulk=False)
    lines = watch(back, 2, 30.0, partial(slay, process))
    check(json.loads(lines[0][5:]), acked, sent)
    snapshots = len(os.listdir(os.path.join(folder, "raft/snapshot")))
    print(json.dumps({"acked": len(acked), "opened": opened, "snapshots": snapshots}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
