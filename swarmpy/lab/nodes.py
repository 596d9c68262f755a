"""One node's life: booting it, its programs (Engine, swarmpy daemon, registry), killing and starting them.

What belongs here: what runs on a node and how. What does not: the lab as a whole (lab.py) and its cables
(network.py).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import swarmpy
from swarmpy.lab import cgroups, layout, unixhttp
from swarmpy.lab.errors import LabError
from swarmpy.lab.layout import Lab, Node
from swarmpy.lab.processes import Process, last_words, recall, remember, run, spawn, until

PROGRAMS = ("engine", "daemon")
MOUNT_POINTS = ("/var/lib/docker", "/var/lib/swarmpy")
_BCRYPT = "$2y$05$CCCCCCCCCCCCCCCCCCCCC..gW2XyDCKbuE5UXrgvB9KCQKDwf/Sui"
"""Of layout.LOCKED_REGISTRY_PASSWORD: the registry reads no other kind of hash."""


def init_of(lab: Lab, node: Node) -> Process | None:
    """The node's first process, if the node is up."""
    return recall(lab.home(node) / "pid")


def must_run(lab: Lab, node: Node) -> Process:
    """The node's first process. Raises LabError when the node is down."""
    init = init_of(lab, node)
    if init is None:
        raise LabError(
            f"node {node.name} of lab {lab.name} is down; "
            f"`swarmpy lab start {node.name} --name {lab.name}` starts it"
        )
    return init


def engine_socket(lab: Lab, node: Node) -> Path:
    """The node's Engine, as a socket that works from outside."""
    return lab.home(node) / "sockets" / "docker.sock"


def swarmpy_socket(lab: Lab, node: Node) -> Path:
    """The node's swarmpy daemon, as a socket that works from outside."""
    return lab.home(node) / "sockets" / "swarmpy" / "swarmpy.sock"


def log_of(lab: Lab, node: Node, what: str) -> Path:
    """Where a program of the node writes its output."""
    return lab.home(node) / "log" / f"{what}.log"


def environment() -> dict[str, str]:
    """For whatever runs in a node: swarmpy first on the path, nothing that points at another cluster."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SWARMPY_", "DOCKER_"))}
    system = env.get("PATH", "/usr/bin:/bin")
    env["PATH"] = f"{Path(sys.executable).parent}:{system}:/usr/sbin:/sbin"
    env["PYTHONPATH"] = str(Path(swarmpy.__file__).parent.parent)
    return env


# ---------------------------------------------------------------- the node


def prepare(lab: Lab, node: Node, *, driver: str) -> None:
    """Make the node's folder: its own /etc and data folders, and what its first process must know."""
    home = lab.home(node)
    for part in ("log", "sockets/swarmpy", "docker", "swarmpy"):
        (home / part).mkdir(parents=True, mode=0o700)
    run(["cp", "-a", "--reflink=auto", "/etc", str(home / "etc")])
    _write(home / "etc/resolv.conf", "nameserver 127.0.0.1\n")
    _write(home / "etc/hostname", f"{node.name}\n")
    names = [f"{other.address} {other.name}" for other in lab.nodes]
    names.append(f"{lab.node(layout.REGISTRY).address} registry")
    _write(home / "etc/hosts", "\n".join(["127.0.0.1 localhost", *names]) + "\n")
    if node.has_engine:
        _write(home / "etc/docker/daemon.json", json.dumps(_engine_settings(lab, driver), indent=1))
    binds = [
        [str(home / "etc"), "/etc"],
        [str(home / "docker"), "/var/lib/docker"],
        [str(home / "swarmpy"), "/var/lib/swarmpy"],
        [str(home / "sockets" / "swarmpy"), "/run/swarmpy"],
    ]
    boot = {"hostname": node.name, "cgroup": _group(lab, node), "binds": binds}
    _write(home / "boot.json", json.dumps(boot, indent=1))


def boot(lab: Lab, node: Node) -> Process:
    """Start the node's first process in fresh namespaces; as after power-on, nothing else runs yet."""
    if init_of(lab, node) is not None:
        raise LabError(f"node {node.name} of lab {lab.name} runs already")
    home = lab.home(node)
    until(lambda: cgroups.remove(_group(lab, node)), 10, f"groups of {node.name} are in use")
    for stale in (home / "sockets").rglob("*.sock"):
        stale.unlink()
    done = subprocess.run(
        [sys.executable, "-m", "swarmpy.lab.pid1", str(home)],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment(),
    )
    init = init_of(lab, node)
    if done.returncode or init is None:
        raise LabError(f"node {node.name} did not boot: {done.stderr.strip()}")
    return init


def kill(lab: Lab, node: Node) -> None:
    """Power off: kill -9 the first process, and with it all that runs in the node."""
    must_run(lab, node).end()


def _group(lab: Lab, node: Node) -> str:
    return f"{lab.cgroup}/{node.name}"


def _write(path: Path, text: str) -> None:
    if path.is_symlink():  # resolv.conf often is one, into a /run that the node does not have
        path.unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


# ---------------------------------------------------------------- its programs


def program(lab: Lab, node: Node, what: str) -> Process | None:
    """The node's running Engine, daemon or registry."""
    return recall(lab.home(node) / f"{what}.pid")


def start_engine(lab: Lab, node: Node) -> None:
    """Start the node's Docker Engine and wait until it answers."""
    socket = engine_socket(lab, node)
    command = ["dockerd", "-H", "unix:///run/docker.sock", "-H", f"unix://{socket}"]
    _start(lab, node, "engine", [*command, "--pidfile", "/run/docker.pid"], socket)


def start_daemon(lab: Lab, node: Node, *, under: Sequence[str] = ()) -> None:
    """Start the node's swarmpy daemon and wait until it answers. `under`: words before its command line."""
    command = [*under, sys.executable, "-m", "swarmpy", "daemon", "--state-dir", "/var/lib/swarmpy"]
    command += ["--socket", "/run/swarmpy/swarmpy.sock", "--engine", "unix:///run/docker.sock"]
    command += ["--balancer", lab.balancer]
    _start(lab, node, "daemon", command, swarmpy_socket(lab, node))


def start_registries(lab: Lab, node: Node) -> None:
    """Start the open registry and the one that asks for a password; both serve the same images."""
    home = lab.home(node)
    _write(home / "users", f"{layout.LOCKED_REGISTRY_USER}:{_BCRYPT}\n")
    for what, port, auth in (
        ("registry", layout.REGISTRY_PORT, None),
        ("locked-registry", layout.LOCKED_REGISTRY_PORT, home / "users"),
    ):
        settings = {
            "version": 0.1,
            "storage": {
                "filesystem": {"rootdirectory": str(home / "images")},
                "delete": {"enabled": True},
            },
            "http": {"addr": f"{node.address}:{port}"},
            "log": {"level": "warn"},
        }
        if auth is not None:
            settings["auth"] = {"htpasswd": {"realm": "lab", "path": str(auth)}}
        _write(home / f"{what}.yml", json.dumps(settings))  # JSON is YAML
        _start(lab, node, what, ["docker-registry", "serve", str(home / f"{what}.yml")], None)


def kill_program(lab: Lab, node: Node, what: str) -> None:
    """kill -9 one program of the node; what it had started lives on."""
    must_run(lab, node)
    process = program(lab, node, what)
    if process is None:
        raise LabError(f"the {what} of node {node.name} does not run")
    process.end()


def signal_program(lab: Lab, node: Node, what: str, number: signal.Signals) -> None:
    """Send one program of the node a signal. Raises LabError where it does not run."""
    process = program(lab, node, what)
    if process is None:
        raise LabError(f"the {what} of node {node.name} does not run")
    os.kill(process.pid, number)


def _start(lab: Lab, node: Node, what: str, command: list[str], socket: Path | None) -> None:
    init = must_run(lab, node)
    if program(lab, node, what) is not None:
        raise LabError(f"the {what} of node {node.name} runs already")
    log = log_of(lab, node, what)
    own_groups = cgroups.procs(_group(lab, node))
    process = spawn(init, command, log=log, procs=own_groups, env=environment())
    remember(lab.home(node) / f"{what}.pid", process)
    if socket is None:
        return
    trouble = f"the {what} of node {node.name} does not answer on its socket; see {log}"
    until(lambda: not process.alive() or unixhttp.answers(socket), 60, trouble)
    if not process.alive():
        raise LabError(f"the {what} of node {node.name} ended at once: {last_words(log)}")


def _engine_settings(lab: Lab, driver: str) -> Mapping[str, object]:
    registry = lab.node(layout.REGISTRY).address
    ports = (layout.REGISTRY_PORT, layout.LOCKED_REGISTRY_PORT)
    return {
        "data-root": "/var/lib/docker",
        "exec-root": "/run/docker",
        "exec-opts": ["native.cgroupdriver=cgroupfs"],
        "storage-driver": driver,
        "live-restore": True,
        "userland-proxy": False,
        # Plain names (web:1) are found in the lab's registry, as they would be on the public one.
        "registry-mirrors": [f"http://{lab.registry}"],
        "insecure-registries": [f"{host}:{port}" for host in (registry, "registry") for port in ports],
    }


def storage_driver(folder: Path) -> str:
    """overlay2 where the lab's file system can carry it, else vfs (slower, works everywhere)."""
    probe = folder / "probe"
    for part in ("lower", "upper", "work", "merged"):
        (probe / part).mkdir(parents=True)
    options = f"lowerdir={probe}/lower,upperdir={probe}/upper,workdir={probe}/work"
    line = ["unshare", "-m", "mount", "-t", "overlay", "overlay", "-o", options, f"{probe}/merged"]
    works = subprocess.run(line, check=False, capture_output=True).returncode == 0
    shutil.rmtree(probe)
    return "overlay2" if works else "vfs"
