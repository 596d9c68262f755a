"""A process whose children carry out one call of the kernel's overlay each, and die before a given step.

    python -m tests.contracts.overlay_crash FOLDER HOME

A line of JSON in ([call, arguments, step]), the child's exit status out. Forked from a process of one thread,
so that a death costs milliseconds.
"""

from __future__ import annotations

import asyncio
import os
import sys
import traceback
from typing import Any

import msgspec

from swarmpy.adapters.overlay import KernelOverlay
from swarmpy.ports import Link, Neighbour, Plug

DIED = 137
TYPES: dict[str, Any] = {
    "ensure": tuple[Link],
    "forward": tuple[str, tuple[Neighbour, ...], tuple[Neighbour, ...]],
    "plug": tuple[Plug],
    "unplug": tuple[str, str],
    "remove": tuple[str],
    "clear": tuple[()],
}


def child(folder: str, home: str, name: str, arguments: Any, at: int) -> None:
    taken = 0

    def step(word: str) -> None:
        nonlocal taken
        if taken == at:
            os._exit(DIED)
        taken += 1

    async def call() -> None:
        await getattr(KernelOverlay(folder, home, step), name)(*msgspec.convert(arguments, TYPES[name]))

    try:
        asyncio.run(call())
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def main() -> None:
    folder, home = sys.argv[1:]
    for line in sys.stdin:
        name, arguments, at = msgspec.json.decode(line)
        pid = os.fork()
        if pid == 0:
            child(folder, home, name, arguments, at)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
