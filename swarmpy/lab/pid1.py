"""The first process of a node: makes the node's namespaces and its private view of the machine, then reaps.

What belongs here: what must happen from inside, before anything else runs in the node. What does not: wiring
and programs, which are brought in from outside (network.py, nodes.py).

Run as `python -m swarmpy.lab.pid1 FOLDER`; FOLDER/boot.json says hostname, control group and binds
([source, target] pairs). Returns as soon as the node is ready: then its identity is in FOLDER/pid, and the
node lives until that process is killed, which takes everything in it along.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import NoReturn

from swarmpy.lab import cgroups
from swarmpy.lab.errors import LabError
from swarmpy.lab.processes import identify, remember

_LIBC = ctypes.CDLL(None, use_errno=True)
_SPACES = {
    "mount": 0x00020000,
    "cgroup": 0x02000000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "pid": 0x20000000,
    "net": 0x40000000,
}
_BIND, _REC, _PRIVATE = 0x1000, 0x4000, 0x40000


def main(folder: Path) -> int:
    """Become the parent of a node. Returns 0 once the node is ready."""
    boot = json.loads((folder / "boot.json").read_text())
    cgroups.make(boot["cgroup"])
    cgroups.enter(boot["cgroup"])
    for name, flag in _SPACES.items():
        if _LIBC.unshare(flag) != 0:
            reason = os.strerror(ctypes.get_errno())
            raise LabError(f"the kernel refuses a new {name} namespace ({reason}); the lab needs one")
    cgroups.settle(boot["cgroup"])
    go_read, go_write = os.pipe()
    ready_read, ready_write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(go_write)
        os.close(ready_read)
        if os.read(go_read, 1) != b"g":  # the parent died before it wrote down who we are
            os._exit(1)
        _begin(boot, ready_write)
    os.close(go_read)
    os.close(ready_write)
    remember(folder / "pid", identify(child))
    os.write(go_write, b"g")
    answer = b"".join(iter(lambda: os.read(ready_read, 4096), b""))
    if answer != b"ready":
        raise LabError(answer.decode() or "the node's first process died while it set the node up")
    return 0


def _begin(boot: dict[str, object], ready: int) -> NoReturn:
    """Set the node up, say so, and reap for ever. Any failure is said through `ready`, and ends the node."""
    os.setsid()
    try:
        _mounts(boot)
        socket.sethostname(str(boot["hostname"]))
    except (LabError, OSError) as error:
        os.write(ready, str(error).encode())
        os._exit(1)
    os.chdir("/")
    _let_go_of_the_caller()
    os.write(ready, b"ready")
    os.close(ready)
    _reap()


def _let_go_of_the_caller() -> None:
    """Whoever reads our parent's output must see its end when the parent returns, not when the node dies."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)


def _reap() -> NoReturn:
    """Collect every orphan. Signals have no default effect on a namespace's first process."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            signal.sigwait({signal.SIGCHLD})


def _mounts(boot: dict[str, object]) -> None:
    """The node's own /proc, /run, /sys, /etc and data folders, over what it shares with the machine."""
    trees = cgroups.hierarchies()
    _mount("none", "/", "", _REC | _PRIVATE)
    _mount("proc", "/proc", "proc")
    binds = boot["binds"]
    assert isinstance(binds, list)
    for source, target in binds:
        if not target.startswith("/run/"):
            _mount(source, target, "", _BIND)
    # Binds into /run need their sources before the new /run hides nothing of theirs: layout.plan sees to it
    # that no lab lives below /run.
    _mount("tmpfs", "/run", "tmpfs", data="mode=755")
    Path("/run/lock").mkdir(mode=0o1777)
    for source, target in binds:
        if target.startswith("/run/"):
            Path(target).mkdir(parents=True, exist_ok=True)
            _mount(source, target, "", _BIND)
    _mount("sysfs", "/sys", "sysfs")  # /sys/class/net follows the network namespace it was mounted in
    if trees[0].mount != cgroups.TREE:
        _mount("tmpfs", str(cgroups.TREE), "tmpfs", data="mode=755")
    for tree in trees:
        tree.mount.mkdir(exist_ok=True)
        kind = "cgroup2" if tree.version == 2 else "cgroup"
        _mount("cgroup", str(tree.mount), kind, data=tree.options)
        for controller in tree.options.split(","):  # cpu,cpuacct is also known as cpu and as cpuacct
            alias = tree.mount.parent / controller
            if "," in tree.mount.name and "=" not in controller and not alias.exists():
                alias.symlink_to(tree.mount.name)


def _mount(source: str, target: str, kind: str, flags: int = 0, data: str = "") -> None:
    args = [value.encode() or None for value in (source, target, kind)]
    if _LIBC.mount(*args, ctypes.c_ulong(flags), data.encode() or None) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise LabError(f"cannot mount {kind or source} on {target}: {reason}")


if __name__ == "__main__":
    try:
        sys.exit(main(Path(sys.argv[1])))
    except (LabError, OSError) as problem:
        sys.exit(str(problem))
