"""Starting a daemon for `init` and `join` where none answers.

Where systemd runs and has our unit, systemd starts it; elsewhere `swarmpy daemon` is started detached, with
its output in a log file. Only root may: the daemon programs the machine's network. What does not belong
here: the daemon itself.
"""

from __future__ import annotations

import os
import sys
import time

from swarmpy.cli.client import DEFAULT_HOST, Client, Unreachable, socket_path
from swarmpy.cli.output import warn
from swarmpy.cli.tables import CommandError

UNIT = "swarmpy.service"
SYSTEMD = "/run/systemd/system"
LOG = "/var/log/swarmpy/daemon.log"
PATIENCE = 30.0
"""Seconds that a new daemon has until its socket answers."""
PAUSE = 0.05
COMMAND = (sys.executable, "-m", "swarmpy", "daemon")
"""What is started; `--socket PATH` is added."""


def start_daemon(host: str) -> None:
    """Start a daemon that serves this address and return once it answers. Raises CommandError."""
    if os.geteuid() != 0:
        raise CommandError(
            f"no swarmpy daemon answers at {host}, and only root can start one: run the command as root, or "
            "have the daemon started with systemctl start swarmpy"
        )
    if host == DEFAULT_HOST and _unit_installed():
        _start_unit(host)
    else:
        _spawn(host)


def _unit_installed() -> bool:
    import subprocess

    if not os.path.isdir(SYSTEMD):
        return False
    found = subprocess.run(["systemctl", "cat", UNIT], capture_output=True, check=False)
    return found.returncode == 0


def _start_unit(host: str) -> None:
    import subprocess

    done = subprocess.run(["systemctl", "start", UNIT], capture_output=True, text=True, check=False)
    if done.returncode:
        raise CommandError(
            f"systemd could not start {UNIT}: {done.stderr.strip() or 'no reason given'}; "
            f"`journalctl -u {UNIT}` has the daemon's log"
        )
    until = time.monotonic() + PATIENCE
    while not _answers(host):
        if time.monotonic() > until:
            raise CommandError(
                f"systemd started {UNIT}, but nothing answers at {host} after {PATIENCE:.0f} seconds; "
                f"`journalctl -u {UNIT}` has the daemon's log"
            )
        time.sleep(PAUSE)


def log_path(host: str) -> str:
    """Where the output of a daemon that we start goes: next to its socket, unless that is the default."""
    return LOG if host == DEFAULT_HOST else os.path.join(os.path.dirname(socket_path(host)), "daemon.log")


def _spawn(host: str) -> None:
    """Start `swarmpy daemon` in a session of its own."""
    import subprocess

    path = log_path(host)
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    begin = os.fstat(descriptor).st_size
    try:
        child = subprocess.Popen(
            [*COMMAND, "--socket", socket_path(host)],
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            start_new_session=True,
            cwd="/",
        )
    finally:
        os.close(descriptor)
    until = time.monotonic() + PATIENCE
    while not _answers(host):
        try:
            code = child.wait(PAUSE)
        except subprocess.TimeoutExpired:
            if time.monotonic() < until:
                continue
            child.kill()
            child.wait()
            raise CommandError(
                f"the swarmpy daemon was started, but did not answer at {host} within "
                f"{PATIENCE:.0f} seconds and was stopped; {_last_words(path, begin)}"
            ) from None
        raise CommandError(
            f"the swarmpy daemon ended with exit code {code} instead of answering at {host}; "
            f"{_last_words(path, begin)}"
        )
    # The daemon outlives this command; its handle would warn about that when it is collected.
    child.returncode = 0
    warn(f"Started the swarmpy daemon (process {child.pid}); its log is {path}")


def _answers(host: str) -> bool:
    client = Client(host)
    try:
        client.ping()
    except Unreachable:
        return False
    except CommandError:
        return False  # the socket is there, but its owner is still starting
    finally:
        client.close()
    return True


def _last_words(path: str, begin: int) -> str:
    """The last line that the daemon logged since `begin`, as the end of a sentence."""
    with open(path, "rb") as file:
        file.seek(begin)
        lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    return f"its last words in {path}: {lines[-1].strip()}" if lines else f"it left no word in {path}"
