"""The process that answers names while the daemon is away: a composition root of its own, as small as can be.

    python -m swarmpy.standin STATE_DIR        with the connection to the daemon as its standard input

What belongs here: joining the name servers to what the agent keeps on the disk, the process's beginning. What
does not: anything else. It is started by the daemon and outlives it; see adapters/dns/standin.py.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Collection
from pathlib import Path

from swarmpy import __version__
from swarmpy.adapters.disk import FileDisk
from swarmpy.adapters.dns.standin import StandIn
from swarmpy.agent import journal
from swarmpy.plan.names import Resolver, upstreams
from swarmpy.ports.fabric import Resolve

SOCKET = "names.sock"
"""In the state directory, which only root can enter."""
_BEGIN = 30.0
"""Seconds for a process to begin."""


def load(state_dir: Path) -> tuple[Resolve, Collection[str]]:
    """What the agent answered by when it last wrote it down, and the networks of which it knew."""
    disk = FileDisk(state_dir)
    kept, memory = journal.load_networks(disk), journal.load(disk)
    asked = upstreams(one.assigned for one in memory.tasks)
    return Resolver(kept.tables, asked | kept.upstreams).answer, kept.tables.keys()


def spawner(state_dir: Path) -> Callable[[socket.socket], None]:
    """Starts the process, with a session of its own and this one's log."""

    def spawn(connection: socket.socket) -> None:
        command = [sys.executable, "-m", "swarmpy.standin", str(state_dir)]
        subprocess.run(
            command, stdin=connection.fileno(), stdout=subprocess.DEVNULL, check=True, timeout=_BEGIN,
            start_new_session=True,
        )  # fmt: skip

    return spawn


def main(state_dir: Path) -> int:
    """Answer until nobody needs it."""
    if os.fork():
        os._exit(0)  # who started us need not wait for our end
    os.chdir("/")
    logging.raiseExceptions = False  # the log may end before us
    logging.basicConfig(
        level="INFO", format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    first = socket.socket(fileno=os.dup(0))
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    made = StandIn(str(state_dir / SOCKET), __version__, lambda: load(state_dir))
    asyncio.run(made.run(first))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
