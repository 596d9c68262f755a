"""The disk of the machine: found in the cache, or made by recipe.sh.

What belongs here: when the disk is made anew, from which source, and where it lies. What does not: what is on it
(recipe.sh) and running it (machine.py).

The cache is $SWARMPY_QEMU_CACHE or ~/.cache/swarmpy-qemu: one folder, named by a digest of all that the disk is
made of. Removing it is always fine; the next run makes it again (about four minutes).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.qemu.errors import MachineError

ROOT = Path(__file__).resolve().parent.parent.parent
RECIPE = Path(__file__).with_name("recipe.sh")
LOCK = ROOT / "requirements.lock"
SUITE = "bookworm"
"""Its Python is 3.11, as `_PYTHON` says."""
_PYTHON = (3, 11)
_SOURCES = Path("/etc/apt")


@dataclass(frozen=True, slots=True)
class Image:
    """A folder with a disk, its kernel and initial file system, and the key that opens the machine."""

    folder: Path

    @property
    def disk(self) -> Path:
        return self.folder / "disk"

    @property
    def kernel(self) -> Path:
        return self.folder / "kernel"

    @property
    def initrd(self) -> Path:
        return self.folder / "initrd"

    @property
    def key(self) -> Path:
        return self.folder / "key"


def cache() -> Path:
    """Where disks are kept."""
    given = os.environ.get("SWARMPY_QEMU_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "swarmpy-qemu"


def ensure(tell: Callable[[str], None]) -> Image:
    """The disk that the recipe makes, made now if it is not in the cache. Raises MachineError."""
    wanted = cache() / _digest()
    if not wanted.is_dir():
        tell(f"no disk in {cache()}: making one, which takes some minutes")
        _make(wanted, tell)
    return Image(wanted)


def _digest() -> str:
    whole = hashlib.sha256()
    for part in (RECIPE.read_bytes(), LOCK.read_bytes(), SUITE.encode()):
        whole.update(hashlib.sha256(part).digest())
    return whole.hexdigest()[:16]


def _make(wanted: Path, tell: Callable[[str], None]) -> None:
    if os.geteuid() != 0:
        raise MachineError(
            "making the machine's disk needs root (debootstrap); run the same command with sudo"
        )
    if sys.version_info[:2] != _PYTHON:
        raise MachineError("the disk needs packages for Python 3.11; run the same command with that Python")
    mirror = _mirror()
    cache().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="making-", dir=cache()) as place:
        wheels, new = Path(place) / "wheels", Path(place) / "new"
        wheels.mkdir()
        new.mkdir(mode=0o700)
        tell("fetching the locked Python packages")
        fetch = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-input", "--disable-pip-version-check"]
        _run([*fetch, "--require-hashes", "-r", str(LOCK), "-w", str(wheels)], "fetching the Python packages")
        # A namespace of its own: whatever happens, no mount and no process of the recipe stays.
        alone = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]
        words = ["sh", str(RECIPE), str(new), mirror, SUITE, str(wheels)]
        _run([*alone, *words], "making the disk", shown=True)
        for older in cache().iterdir():
            if older != Path(place) and not older.name.startswith("making-"):
                shutil.rmtree(older)
        new.rename(wanted)


def _run(command: list[str], what: str, *, shown: bool = False) -> None:
    output = None if shown else subprocess.PIPE
    done = subprocess.run(
        command, check=False, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        words = "its words are above" if shown else (done.stdout or "").strip()[-2000:]
        raise MachineError(f"{what} failed (exit status {done.returncode}): {words}")


def _mirror() -> str:
    """The first source of Debian's packages that this machine itself is set to use. Raises MachineError."""
    files = sorted([*_SOURCES.glob("sources.list.d/*.sources"), *_SOURCES.glob("sources.list.d/*.list")])
    for path in [_SOURCES / "sources.list", *files]:
        for line in path.read_text().splitlines() if path.exists() else ():
            words = line.split()
            if words[:1] == ["URIs:"] and words[1].rstrip("/").endswith("/debian"):
                return words[1]
            if words[:1] == ["deb"]:
                found = [word for word in words if "://" in word]
                if found and found[0].rstrip("/").endswith("/debian"):
                    return found[0]
    raise MachineError(
        f"the disk is made of Debian's packages, and {_SOURCES} names no source of them (an address that ends "
        "in /debian)"
    )
