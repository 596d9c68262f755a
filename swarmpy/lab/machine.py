"""Can this machine carry a lab? Asked before anything is begun, answered in sentences.

What belongs here: checks without lasting effect. What does not: installing what is missing (tools/setup.sh).
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

from swarmpy.adapters.ipvs import kernel
from swarmpy.lab.errors import LabError
from swarmpy.ports import FabricError

_PROGRAMS = {
    "dockerd": "docker.io",
    "containerd": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "docker-registry": "docker-registry",
    "busybox": "busybox-static",
    "ip": "iproute2",
    "nft": "nftables",
    "nsenter": "util-linux",
    "setsid": "util-linux",
    "sysctl": "procps",
}
_SYSTEM = "/usr/sbin:/sbin:/usr/bin:/bin"


def require() -> None:
    """Raise LabError with everything that stands in the way of a lab here."""
    if os.geteuid() != 0:
        raise LabError(
            "the lab makes namespaces and network links, so it needs root; run the same command with sudo"
        )
    os.environ["PATH"] = f"{os.environ.get('PATH', '')}:{_SYSTEM}"  # sudo and cron give short ones
    missing = sorted({pkg for name, pkg in _PROGRAMS.items() if shutil.which(name) is None})
    if "busybox-static" not in missing and not is_static(busybox()):
        missing.append("busybox-static")
    if missing:
        raise LabError(
            f"the lab needs what these packages bring: {' '.join(missing)}; "
            f"`make setup` installs them, or: apt-get install {' '.join(missing)}"
        )
    for kind, what in (("bridge", "bridges"), ("veth", "virtual cables"), ("vxlan", "VXLAN")):
        _try_link(kind, what)


def require_ipvs() -> None:
    """Load IPVS for all nodes. Raises LabError where this machine's kernel has none."""
    try:
        kernel.load()
    except FabricError as error:
        raise LabError(f"--balancer ipvs cannot be: {error}") from None


def busybox() -> Path:
    """This machine's busybox."""
    found = shutil.which("busybox")
    if found is None:
        raise LabError("the lab builds its images from busybox: apt-get install busybox-static")
    return Path(found)


def is_static(program: Path) -> bool:
    """Whether an ELF program needs no loader, so that it runs in an image that holds nothing else."""
    head = program.read_bytes()[:4096]
    if head[:4] != b"\x7fELF":
        return False
    wide, order = head[4] == 2, "<" if head[5] == 1 else ">"
    offset = struct.unpack_from(order + ("Q" if wide else "I"), head, 32 if wide else 28)[0]
    size, count = struct.unpack_from(order + "HH", head, 54 if wide else 42)
    kinds = [struct.unpack_from(order + "I", head, offset + i * size)[0] for i in range(count)]
    return 3 not in kinds  # PT_INTERP


def _try_link(kind: str, what: str) -> None:
    """Make a link of this kind in a namespace that is gone at once."""
    extra = ["id", "1", "dstport", "4789"] if kind == "vxlan" else []
    line = ["unshare", "-n", "ip", "link", "add", "probe0", "type", kind, *extra]
    done = subprocess.run(line, check=False, capture_output=True, text=True)
    if done.returncode:
        raise LabError(
            f"this kernel gives the lab no {what} (`ip link add type {kind}`: {done.stderr.strip()}); "
            f"load the module {kind}, or use a kernel that has it"
        )
