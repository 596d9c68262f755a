"""What a lab consists of, and where its files lie: names, roles, addresses, folders.

What belongs here: the plan of a lab, made once by `lab up` and read by every other verb. What does not:
anything about running processes (see processes.py).

A lab NAME with subnet number N lives in ROOT/NAME and uses 10.99.N.0/24 and, with the same last numbers,
fd99:0:0:N::/64 (a unique local prefix, as easy to tell as the other):
managers m1.. are .1 to .49, workers w1.. are .51 to .199, the registry r1 is .250, the outside client c1 is
.251, and the switch that joins them all is .254 (everybody's default route, which leads nowhere).
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from ipaddress import IPv6Address
from pathlib import Path

from swarmpy.lab.errors import LabError

DEFAULT_NAME = "lab"
REGISTRY_PORT = 5000
LOCKED_REGISTRY_PORT = 5001
LOCKED_REGISTRY_USER = "lab"
LOCKED_REGISTRY_PASSWORD = "lab-password"  # noqa: S105 - a lab's credential, meant to be known
BALANCERS = ("auto", "nftables", "ipvs")
"""As `swarmpy daemon --balancer` takes them."""
SWITCH = "switch"
REGISTRY = "r1"
CLIENT = "c1"
MOST_MANAGERS = 49
MOST_WORKERS = 149
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Node:
    """One machine of the lab. `role`: manager, worker, registry, client or switch."""

    name: str
    role: str
    address: str
    mac: str

    @property
    def address6(self) -> str:
        """Its IPv6 address."""
        subnet, host = self.address.split(".")[2:]
        return str(IPv6Address(f"fd99:0:0:{int(subnet):x}::{int(host):x}"))

    @property
    def has_engine(self) -> bool:
        """Whether a Docker Engine and a swarmpy daemon belong on it."""
        return self.role in ("manager", "worker")


@dataclass(frozen=True, slots=True)
class Lab:
    """A lab's plan. Nothing in it changes while the lab lives."""

    name: str
    folder: Path
    subnet: int
    nodes: tuple[Node, ...]
    cluster: bool
    balancer: str = "auto"
    """What the daemons balance with: see `swarmpy daemon --balancer`."""

    def node(self, name: str) -> Node:
        """The node called `name`. Raises LabError."""
        for node in self.nodes:
            if node.name == name:
                return node
        known = ", ".join(node.name for node in self.nodes)
        raise LabError(f"lab {self.name} has no node {name!r}; it has {known}")

    def home(self, node: Node) -> Path:
        """The node's folder on this machine."""
        return self.folder / node.name

    @property
    def members(self) -> tuple[Node, ...]:
        """Managers and workers, in order."""
        return tuple(node for node in self.nodes if node.has_engine)

    @property
    def registry(self) -> str:
        """HOST:PORT under which nodes reach the open registry."""
        return f"{self.node(REGISTRY).address}:{REGISTRY_PORT}"

    @property
    def cgroup(self) -> str:
        """The lab's cgroup, relative to the root of each hierarchy."""
        return f"swarmpy-lab/{self.name}"


def root() -> Path:
    """Where labs live: $SWARMPY_LAB_DIR, or /var/lib/swarmpy-lab."""
    return Path(os.environ.get("SWARMPY_LAB_DIR") or "/var/lib/swarmpy-lab").absolute()


def folder_of(name: str) -> Path:
    """Where the lab `name` lives or would live. Raises LabError for what cannot name one: `..` above all."""
    if not _NAME.fullmatch(name):
        raise LabError(f"{name!r} cannot name a lab: use 1 to 20 lower-case letters, digits and inner dashes")
    return root() / name


def plan(
    name: str, managers: int, workers: int, *, subnet: int, cluster: bool, balancer: str = "auto"
) -> Lab:
    """The plan of a new lab. Raises LabError for a name or a size that cannot be."""
    if not _NAME.fullmatch(name):
        raise LabError(f"{name!r} cannot name a lab: use 1 to 20 lower-case letters, digits and inner dashes")
    if not 1 <= managers <= MOST_MANAGERS:
        raise LabError(f"a lab has 1 to {MOST_MANAGERS} managers, not {managers}")
    if not 0 <= workers <= MOST_WORKERS:
        raise LabError(f"a lab has 0 to {MOST_WORKERS} workers, not {workers}")
    places = [(SWITCH, "switch", 254), (REGISTRY, "registry", 250), (CLIENT, "client", 251)]
    places += [(f"m{i}", "manager", i) for i in range(1, managers + 1)]
    places += [(f"w{i}", "worker", 50 + i) for i in range(1, workers + 1)]
    nodes = tuple(
        # A fixed MAC, so that a node which comes back is found under its old ARP entries.
        Node(label, role, f"10.99.{subnet}.{host}", f"02:99:00:00:{subnet:02x}:{host:02x}")
        for label, role, host in places
    )
    lab = Lab(name, root() / name, subnet, nodes, cluster, balancer)
    longest = max(len(str(lab.home(node))) for node in nodes) + len("/sockets/swarmpy/swarmpy.sock")
    if longest > 107:  # sizeof(sun_path) - 1
        raise LabError(
            f"the folder {lab.folder} is too long for unix sockets inside it; "
            "set SWARMPY_LAB_DIR to a shorter path"
        )
    if str(lab.folder).startswith(("/run/", "/var/run/", "/proc/", "/sys/")):
        raise LabError(
            f"a lab cannot live in {lab.folder}: its nodes have their own /run, /proc and /sys; "
            "set SWARMPY_LAB_DIR to another place"
        )
    return lab


def create(name: str, managers: int, workers: int, *, cluster: bool, balancer: str = "auto") -> Lab:
    """Plan a lab, take its name and a free subnet, and save it. Raises LabError when the name is taken."""
    plan(name, managers, workers, subnet=0, cluster=cluster)
    with _whole_root() as base:
        if (base / name).exists():
            raise LabError(
                f"there is a lab {name} already: see `swarmpy lab status --name {name}`, remove it "
                f"with `swarmpy lab down --name {name}`, or choose another --name"
            )
        taken = {lab.subnet for lab in everyone()}
        free = [number for number in range(256) if number not in taken]
        if not free:
            raise LabError("256 labs are up already; take one down first")
        lab = plan(name, managers, workers, subnet=free[0], cluster=cluster, balancer=balancer)
        lab.folder.mkdir(mode=0o700)
        record = asdict(lab) | {"folder": str(lab.folder)}
        (lab.folder / "lab.json.new").write_text(json.dumps(record, indent=1))
        (lab.folder / "lab.json.new").rename(lab.folder / "lab.json")
    return lab


def load(name: str) -> Lab:
    """The lab called `name`. Raises LabError when there is none, or only the ruins of one."""
    path = folder_of(name) / "lab.json"
    try:
        return _decode(path.read_text())
    except FileNotFoundError:
        if path.parent.exists():
            raise LabError(
                f"lab {name} is only half there; remove it with `swarmpy lab down --name {name}`"
            ) from None
        others = ", ".join(lab.name for lab in everyone()) or "none"
        raise LabError(
            f"there is no lab {name} (there are: {others}); make one with `swarmpy lab up --name {name}`"
        ) from None


def everyone() -> list[Lab]:
    """All labs on this machine, by name."""
    return [_decode(path.read_text()) for path in sorted(root().glob("*/lab.json"))]


def _decode(text: str) -> Lab:
    record = json.loads(text)
    nodes = tuple(Node(**node) for node in record.pop("nodes"))
    return Lab(**(record | {"nodes": nodes, "folder": Path(record["folder"])}))


def borrow(points: Sequence[str]) -> None:
    """Make the mount points that this machine lacks, and note them for `leave_root`."""
    with _whole_root() as base:
        note = base / "made"
        made = note.read_text().split() if note.exists() else []
        for point in points:
            if not Path(point).exists():
                Path(point).mkdir(parents=True, mode=0o711)
                made.append(point)
        note.write_text("\n".join(made))


def leave_root() -> None:
    """After a lab is gone: where it was the last one, remove what all of them shared on this machine."""
    with _whole_root() as base:
        if any(entry.is_dir() for entry in base.iterdir()):
            return
        note = base / "made"
        for point in note.read_text().split() if note.exists() else []:
            try:
                Path(point).rmdir()
            except OSError:
                continue  # in use by now, so it is not ours any more
        note.unlink(missing_ok=True)
        base.rmdir()


@contextmanager
def _whole_root() -> Iterator[Path]:
    """The folder of all labs, made where missing, locked against other `lab up`s."""
    base = root()
    while True:
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(base):
            if base.exists():  # not removed between making and locking it
                yield base
                return


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file or folder, waiting for it. Released when the process dies."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
