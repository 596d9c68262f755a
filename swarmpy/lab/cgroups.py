"""Control groups of the nodes: version 1, version 2 and the mixture of both.

What belongs here: finding the hierarchies this machine has, making a node's own group in each, showing the
node those groups as its whole tree, removing them. What does not: limits; the node's Engine sets those.

A node's first process enters its groups before it makes its cgroup namespace, so the node sees them as the
root, and nothing that its Engine does can meet another node's groups.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from swarmpy.lab.errors import LabError

TREE = Path("/sys/fs/cgroup")
LEAF = "init"
"""Version 2 only: a group with children holds no process, so the node's own processes live in this leaf."""


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One mounted tree: where, of which version, and (version 1) the mount options that name it."""

    mount: Path
    version: int
    options: str

    def home(self, group: str) -> Path:
        """Where the group's own processes are listed."""
        return self.mount / group / LEAF if self.version == 2 else self.mount / group


def hierarchies() -> list[Hierarchy]:
    """What this machine has mounted under /sys/fs/cgroup."""
    found = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        where = Path(left.split()[4])
        kind, _, options = right.split(" ", 2)
        if where != TREE and TREE not in where.parents:
            continue
        if kind == "cgroup2":
            found[where] = Hierarchy(where, 2, "")
        elif kind == "cgroup":
            found[where] = Hierarchy(where, 1, _naming_options(options))
    if not found:
        raise LabError(
            f"no control groups are mounted under {TREE}, and Docker cannot run without them; "
            "on a machine without systemd, the package cgroupfs-mount mounts them"
        )
    return list(found.values())


def _naming_options(options: str) -> str:
    """Of a version 1 mount's options, those that say which hierarchy it is."""
    words = options.split(",")
    name = [word for word in words if word.startswith("name=")]
    if name:
        return f"none,{name[0]}"
    known = {line.split()[0] for line in Path("/proc/cgroups").read_text().splitlines()[1:]}
    return ",".join(word for word in words if word in known)


def make(group: str) -> None:
    """Make a node's group in every hierarchy, with all controllers delegated to it. Existing is fine."""
    for hierarchy in hierarchies():
        path = hierarchy.mount
        for part in group.split("/"):
            if hierarchy.version == 2:
                _delegate(path)
            path /= part
            path.mkdir(exist_ok=True)
            if hierarchy.version == 1:
                _inherit_cpuset(path)
        hierarchy.home(group).mkdir(exist_ok=True)


def enter(group: str) -> None:
    """Move the calling process into the node's group itself (not yet the leaf): see `settle`."""
    for hierarchy in hierarchies():
        (hierarchy.mount / group / "cgroup.procs").write_text("0")


def settle(group: str) -> None:
    """After the cgroup namespace was made: move on into the leaf, and let children have controllers."""
    for hierarchy in hierarchies():
        if hierarchy.version == 2:
            (hierarchy.home(group) / "cgroup.procs").write_text("0")
            _delegate(hierarchy.mount / group)


def procs(group: str) -> list[Path]:
    """The files to write 0 to, for a process of this machine that is about to run inside the node."""
    return [hierarchy.home(group) / "cgroup.procs" for hierarchy in hierarchies()]


def remove(group: str) -> bool:
    """Remove the group and all below it, everywhere; whether nothing is left of it."""
    clean = True
    for hierarchy in hierarchies():
        for folder, _, _ in os.walk(hierarchy.mount / group, topdown=False):
            try:
                Path(folder).rmdir()
            except FileNotFoundError:
                continue
            except OSError:  # EBUSY: a dying process is still in it
                clean = False
    return clean


def remove_parent(group: str) -> None:
    """Remove the group that held all labs, where it is empty."""
    for hierarchy in hierarchies():
        try:
            (hierarchy.mount / group).parent.rmdir()
        except OSError:
            continue  # another lab is in it, or it is gone


def _delegate(path: Path) -> None:
    """Version 2: hand every controller that `path` has to its children."""
    offered = (path / "cgroup.controllers").read_text().split()
    given = (path / "cgroup.subtree_control").read_text().split()
    for controller in offered:
        if controller in given:
            continue
        try:
            (path / "cgroup.subtree_control").write_text(f"+{controller}")
        except OSError as error:
            raise LabError(
                f"the kernel refuses to delegate the {controller} controller below {path} "
                f"({error.strerror}); inside a container, run the lab where the container's own "
                "processes are in a child of its root control group"
            ) from None


def _inherit_cpuset(path: Path) -> None:
    """Version 1: a new cpuset is empty and admits no process until it is given processors and memory."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        own = path / name
        if own.exists() and not own.read_text().strip():
            own.write_text((path.parent / name).read_text())
