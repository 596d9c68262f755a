"""Runs a Python program so that it can be profiled from outside while it runs.

    python -m tests.bench.profiled FOLDER python -m MODULE ARGUMENTS...

SIGUSR1 begins a profile of the main thread, SIGUSR2 ends it and writes it to FOLDER. What belongs here: that. What does
not: what is profiled, and what is read off it.
"""

from __future__ import annotations

import cProfile
import runpy
import signal
import socket
import sys
from pathlib import Path
from types import FrameType

PROFILE = "{}.prof"
DUMPED = "{}.done"
"""Names of files in the folder, by the host name: a node of a lab knows no other name that is known outside."""


def main() -> None:
    """See the file's charter."""
    folder, host = Path(sys.argv[1]), socket.gethostname()
    profile = cProfile.Profile()

    def begin(_number: int, _frame: FrameType | None) -> None:
        profile.clear()
        profile.enable()

    def end(_number: int, _frame: FrameType | None) -> None:
        profile.disable()
        profile.dump_stats(folder / PROFILE.format(host))
        (folder / DUMPED.format(host)).touch()

    signal.signal(signal.SIGUSR1, begin)
    signal.signal(signal.SIGUSR2, end)
    module, arguments = sys.argv[4], sys.argv[5:]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
