"""A whole lab: bringing it up, taking it down, and every verb in between. Tests may use this directly.

What belongs here: the order of things over all nodes. What does not: one node (nodes.py), the cluster that
swarmpy makes of them (cluster.py), words for the terminal (main.py).
"""

from __future__ import annotations

import errno
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from swarmpy.lab import cgroups, cluster, images, layout, machine, network, nodes, unixhttp
from swarmpy.lab.errors import LabError
from swarmpy.lab.layout import CLIENT, REGISTRY, SWITCH, Lab, Node
from swarmpy.lab.processes import Process, entering, find, patience, until

T = TypeVar("T")
Tell = Callable[[str], None]
"""Where progress goes: one line at a time."""


def up(
    name: str,
    tell: Tell,
    *,
    managers: int = 3,
    workers: int = 2,
    with_cluster: bool = True,
    host_link: bool = False,
    balancer: str = "auto",
) -> Lab:
    """Make a lab; returns when every node is Ready. Whatever goes wrong, nothing of it is left.

    Raises LabError, or KeyboardInterrupt when interrupted.
    """
    machine.require()
    if balancer == "ipvs":
        machine.require_ipvs()
    lab = layout.create(name, managers, workers, cluster=with_cluster, balancer=balancer)
    try:
        with layout.locked(lab.folder / "lab.json"):
            _raise(lab, tell, host_link=host_link)
        if with_cluster:
            cluster.form(lab, tell)
    except BaseException:
        tell("that did not work out: removing what was begun")
        down(name, tell)
        raise
    return lab


def _raise(lab: Lab, tell: Tell, *, host_link: bool) -> None:
    layout.borrow(nodes.MOUNT_POINTS)
    driver = nodes.storage_driver(lab.folder)
    switch_node = lab.node(SWITCH)
    nodes.prepare(lab, switch_node, driver=driver)
    switch = nodes.boot(lab, switch_node)
    network.raise_switch(switch, switch_node)
    if host_link:
        tell(f"this machine reaches the nodes through {network.host_link(lab, switch)}")
    archive = images.archive(machine.busybox())

    def bring(node: Node) -> None:
        nodes.prepare(lab, node, driver=driver)
        network.plug(lab, node, nodes.boot(lab, node), switch)
        if node.name == REGISTRY:
            nodes.start_registries(lab, node)
        if node.has_engine:
            nodes.start_engine(lab, node)
            unixhttp.load(nodes.engine_socket(lab, node), archive)
        tell(f"{node.name:4} {node.address:12} {_what_runs(node)}")

    _at_once(bring, [node for node in lab.nodes if node.name != SWITCH])
    engines = [nodes.engine_socket(lab, node) for node in lab.members]
    # Under the plain name for people, and where the Engines look for a name without a registry.
    for place in ("registry:5000", "registry:5000/library"):
        _at_once(partial(unixhttp.push, engines[0], repository=place), images.references())
    # A pull gives each Engine the digest it needs to know `web:1@sha256:...` as the same image.
    _at_once(_pull_all, engines)
    tell(f"images in every engine and at registry:5000: {' '.join(images.references())}")


def _pull_all(engine: Path) -> None:
    for image in images.references():
        unixhttp.pull(engine, image)


def _what_runs(node: Node) -> str:
    if node.has_engine:
        return "its Docker Engine answers"
    return {REGISTRY: "registries on ports 5000 and 5001 (with password)", CLIENT: "outside client"}[
        node.name
    ]


def _at_once(work: Callable[[T], None], items: Iterable[T]) -> None:
    """Do it for all items at the same time; of several failures, the first item's is raised."""
    with ThreadPoolExecutor(max_workers=16) as pool:
        for job in [pool.submit(work, item) for item in items]:
            job.result()


def down(name: str, tell: Tell) -> None:
    """Remove a lab, whole or half-built, with everything it ever made. Raises LabError when there is none."""
    folder = layout.folder_of(name)
    if not folder.is_dir():
        layout.load(name)  # raises the sentence for it
    # Twice, since a node may have been on its way up at the first look.
    for _ in range(2):
        for home in sorted(path for path in folder.iterdir() if path.is_dir()):
            for process in find(["-m", "swarmpy.lab.pid1", str(home)]):
                process.end()
    group = f"swarmpy-lab/{name}"
    until(lambda: cgroups.remove(group), 20, f"control groups of lab {name} stay in use")
    cgroups.remove_parent(group)
    until(lambda: _remove(folder), 20, f"{folder} cannot be removed: something still writes to it")
    layout.leave_root()
    tell(f"lab {name} is gone")


def _remove(folder: Path) -> bool:
    """Remove a folder; False when the last gasp of an Engine made or removed files in it meanwhile."""
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return not folder.exists()
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EBUSY):
            raise
        return False
    return True


def kill(lab: Lab, node: Node, what: str) -> None:
    """kill -9 a node ("node"), or its "engine" or "daemon"."""
    if what == "node":
        nodes.must_run(lab, node)
        switch = nodes.must_run(lab, lab.node(SWITCH))
        if node.name == SWITCH:
            raise LabError("the switch holds the lab together; kill nodes, or take the lab down")
        network.pull(node, switch)
        nodes.kill(lab, node)
        network.remove_cable(node, switch)
    else:
        _need_engine_node(node, what)
        nodes.kill_program(lab, node, what)


def start(lab: Lab, node: Node, what: str, *, under: Sequence[str] = ()) -> None:
    """Start a node with all that belongs on it, or its Engine or its daemon. `under`: words before the
    daemon's command line, such as `env NAME=VALUE`."""
    if what == "node":
        switch = nodes.must_run(lab, lab.node(SWITCH))
        network.plug(lab, node, nodes.boot(lab, node), switch)
        if node.name == REGISTRY:
            nodes.start_registries(lab, node)
    else:
        _need_engine_node(node, what)
    if node.has_engine and what in ("node", "engine"):
        nodes.start_engine(lab, node)
    if node.has_engine and (what == "daemon" or (what == "node" and lab.cluster)):
        nodes.start_daemon(lab, node, under=under)


def _need_engine_node(node: Node, what: str) -> None:
    if not node.has_engine:
        raise LabError(f"node {node.name} is the lab's {node.role}: it has no {what}")


def partition(lab: Lab, names: Sequence[str], others: Sequence[str], *, one_way: bool) -> list[network.Cut]:
    """Cut nodes off from others (all other managers and workers where none are named)."""
    near = [lab.node(name).name for name in names]
    far = [lab.node(name).name for name in others] or [
        node.name for node in lab.members if node.name not in near
    ]
    if set(near) & set(far):
        raise LabError("a node cannot be cut off from itself; name different nodes after --from")
    if not far:
        raise LabError("there is no other node to cut off from; name some with --from")
    switch = nodes.must_run(lab, lab.node(SWITCH))
    return network.cut(lab, switch, near, far, one_way=one_way)


def lose(lab: Lab, names: Sequence[str], percent: float) -> None:
    """Lose so many per cent of the frames to and from the nodes, by chance, until `heal`."""
    network.lose(lab, nodes.must_run(lab, lab.node(SWITCH)), [lab.node(name).name for name in names], percent)


def freeze(lab: Lab, node: Node, what: str) -> None:
    """Stop a node's "engine" or "daemon" where it is (SIGSTOP), until `thaw`."""
    _need_engine_node(node, what)
    nodes.signal_program(lab, node, what, signal.SIGSTOP)


def thaw(lab: Lab, node: Node, what: str) -> None:
    """Let it go on."""
    _need_engine_node(node, what)
    nodes.signal_program(lab, node, what, signal.SIGCONT)


def heal(lab: Lab) -> None:
    """Mend all cables."""
    network.mend(lab, nodes.must_run(lab, lab.node(SWITCH)))


def command_in(lab: Lab, node: Node, command: Sequence[str]) -> list[str]:
    """The command line that runs `command` inside the node; run it with nodes.environment()."""
    return entering(nodes.must_run(lab, node), command)


def run_in(
    lab: Lab, node: str, command: Sequence[str], *, timeout: float = 60, text: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command inside a node and return what it said; never raises for its exit status."""
    return subprocess.run(
        command_in(lab, lab.node(node), command),
        check=False,
        capture_output=True,
        text=True,
        timeout=timeout * patience(),
        input=text,
        env=nodes.environment(),
    )


def exports(lab: Lab, node: Node) -> dict[str, str]:
    """How to talk to a node from outside: variables for the shell."""
    env = {"NODE_ADDR": node.address, "REGISTRY_ADDR": lab.registry}
    if node.has_engine:
        env["ENGINE_HOST"] = f"unix://{nodes.engine_socket(lab, node)}"
        env["SWARMPY_HOST"] = f"unix://{nodes.swarmpy_socket(lab, node)}"
    return env


def status(lab: Lab) -> list[dict[str, str]]:
    """One row per node: name, role, address, and what of it runs ("up", "down" or "-")."""

    def word(there: Process | Path | None) -> str:
        return "up" if there else "down"

    rows = []
    for node in lab.nodes:
        row = {"node": node.name, "role": node.role, "address": node.address}
        row["state"] = word(nodes.init_of(lab, node))
        for what in nodes.PROGRAMS:
            row[what] = word(nodes.program(lab, node, what)) if node.has_engine else "-"
        rows.append(row)
    return rows
