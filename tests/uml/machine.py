"""Another kernel, as a process: Debian's User-mode Linux, which has what this machine's kernel may lack (IPVS,
VXLAN, netem), with this machine's files read-only as its root.

What belongs here: booting it, running one command in it, its output and status, its end, and a disk of its own that
outlives it (`running`). What does not: what is tested there. A machine lives as long as one command. Where it cannot run, MachineError says what is
missing; nothing is skipped. It leaves no process and no file behind, whatever happens to it.

Where SWARMPY_KERNEL is `here` no machine is started: the command runs on this kernel, which then is one of
`python -m tests.qemu`.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from swarmpy.lab.processes import patience

ROOT = Path(__file__).resolve().parent.parent.parent
KERNEL = "linux.uml"
MODULES = Path("/usr/lib/uml/modules")
REGISTERS = Path(__file__).with_name("registers.c")
VOICE = "/dev/ttyS0"
"""In a machine: where its command speaks to the outside (see `running`)."""
DISK = "/run/disk"
"""In a machine: its own disk."""
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_INIT = """#!/bin/sh
# The kernel's helper and modprobe look below a place of ours: nothing is written to the machine's files.
export PATH={path}
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mkdir -p /dev/shm
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/uml/lib/modules /run/out /run/tmp
ln -s {modules}/$(uname -r) /run/uml/lib/modules/
printf '#!/bin/sh\\nexec {modprobe} -d /run/uml "$@"\\n' > /run/uml/modprobe
chmod 755 /run/uml/modprobe
echo /run/uml/modprobe > /proc/sys/kernel/modprobe
mount -t hostfs none /run/out -o {out}
ip link set lo up
{disk}
{work}
echo $? > /run/out/status
sync
{busybox} poweroff -f
"""


class MachineError(Exception):
    """The machine could not be started, or did not come to its end."""


@dataclass(frozen=True, slots=True)
class Done:
    """What the command left: its exit status, all that it and the kernel printed, and its files by name."""

    status: int
    output: str
    files: Mapping[str, str]
    seconds: float


def missing() -> list[str]:
    """What is not installed, as sentences."""
    found = []
    for program, package in ((KERNEL, "user-mode-linux"), ("modprobe", "kmod"), ("busybox", "busybox-static"),
                             ("ip", "iproute2"), ("iptables-legacy-restore", "iptables")):  # fmt: skip
        if shutil.which(program, path=_PATH) is None:
            found.append(f"{program} is not installed: apt-get install {package}")
    if not MODULES.is_dir():
        found.append(f"{MODULES} is not there: apt-get install user-mode-linux")
    if _wide() and shutil.which("cc") is None:
        found.append("cc is not installed, and this processor has AMX: apt-get install gcc libc6-dev")
    return found


def run(
    command: Sequence[str],
    *,
    modules: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    deadline: float = 90,
    memory: str = "512M",
) -> Done:
    """Boot, load the kernel's modules, run the command in the project's folder, power off.

    What the command writes to /run/out is found in `files`. Raises MachineError, also when the deadline passes.
    """
    if os.environ.get("SWARMPY_KERNEL") == "here":
        return _here(command, modules, environment or {}, deadline * patience())
    if lacks := missing():
        raise MachineError("User-mode Linux cannot run: " + "; ".join(lacks))
    with tempfile.TemporaryDirectory(prefix="swarmpy-uml-") as place:
        return _boot(Path(place), _work(command, modules, environment or {}), deadline, memory)


def _here(
    command: Sequence[str], modules: Sequence[str], environment: Mapping[str, str], deadline: float
) -> Done:
    out = Path("/run/out")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    began = time.monotonic()
    line = [*(["modprobe", "-a", *modules, "&&"] if modules else []), shlex.join(command)]
    process = subprocess.Popen(
        ["sh", "-c", " ".join(line)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True, cwd=ROOT,
        env={**os.environ, "PATH": _PATH, "PYTHONPATH": str(ROOT), **environment},
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=deadline)
    except subprocess.TimeoutExpired:
        raise MachineError(f"the command did not end within {deadline:.0f} s") from None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    files = {one.name: one.read_text(errors="replace") for one in out.iterdir()}
    shutil.rmtree(out)
    return Done(process.returncode, output, files, time.monotonic() - began)


def python(code: str, **more) -> Done:
    """`run` of a Python program, with this Python."""
    return run([sys.executable, "-c", code], **more)


class Running:
    """A machine under way. `voice`: the end of a pipe (to be closed by whoever reads it) where that arrives which its
    command writes to VOICE, at once."""

    def __init__(self, process: subprocess.Popen[bytes], voice: int) -> None:
        self._process = process
        self.voice = voice

    def cut(self) -> None:
        """The power is gone: kill -9 the kernel. What it had not yet written to its disk is lost with it."""
        _end(self._process)


@contextmanager
def running(command: Sequence[str], *, disk: Path, memory: str = "512M") -> Iterator[Running]:
    """Boot with the image of an ext4 file system mounted on DISK, begin the command in the project's folder, and do
    not wait for it. The machine ends with the block. What is written to the image stays, as far as the machine's
    kernel wrote it: this machine's page cache survives. Raises MachineError."""
    if lacks := missing():
        raise MachineError("User-mode Linux cannot run: " + "; ".join(lacks))
    with tempfile.TemporaryDirectory(prefix="swarmpy-uml-") as place:
        voice, speaks = os.pipe()
        mount = f"mkdir {DISK} && mount -t ext4 /dev/ubda {DISK}"
        line, environment = _prepare(Path(place), _work(command, (), {}), memory, mount)
        with (Path(place) / "console").open("wb") as printed:
            process = subprocess.Popen(
                [*line, f"ubd0={disk}", f"ssl0=null,fd:{speaks}"], stdin=subprocess.DEVNULL, stdout=printed,
                stderr=subprocess.STDOUT, start_new_session=True, env=environment, pass_fds=(speaks,),
            )  # fmt: skip
        os.close(speaks)
        try:
            yield Running(process, voice)
        except BaseException:
            print(_shown(Path(place) / "out", Path(place) / "console"), file=sys.stderr)
            raise
        finally:
            _end(process)


def image(path: Path, megabytes: int = 64) -> None:
    """Make the image of an empty ext4 file system."""
    program = shutil.which("mkfs.ext4", path=_PATH)
    if program is None:
        raise MachineError("mkfs.ext4 is not installed: apt-get install e2fsprogs")
    done = subprocess.run(
        [program, "-q", "-F", str(path), f"{megabytes}M"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise MachineError(f"mkfs.ext4 failed: {done.stderr}")


def _work(command: Sequence[str], modules: Sequence[str], environment: Mapping[str, str]) -> str:
    given = {
        "HOME": "/run",
        "TMPDIR": "/run/tmp",
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        **environment,
    }
    settings = " ".join(f"{name}={shlex.quote(value)}" for name, value in given.items())
    load = (
        f"{shutil.which('modprobe', path=_PATH)} -d /run/uml -a {shlex.join(modules)} && " if modules else ""
    )
    return f"cd {shlex.quote(str(ROOT))} && {load}env {settings} {shlex.join(command)} > /run/out/output 2>&1"


def _prepare(place: Path, work: str, memory: str, disk: str = "") -> tuple[list[str], dict[str, str]]:
    """The first program of a machine whose files are at `place`; the command line that boots it, its environment."""
    out, init = place / "out", place / "init"
    out.mkdir()
    init.write_text(_INIT.format(
        path=_PATH, modules=MODULES, out=out, work=work, disk=disk,
        modprobe=shutil.which("modprobe", path=_PATH), busybox=shutil.which("busybox", path=_PATH),
    ))  # fmt: skip
    init.chmod(0o755)
    command = [
        str(shutil.which(KERNEL, path=_PATH)), f"mem={memory}", "rootfstype=hostfs", "rootflags=/", "ro", "quiet",
        f"init={init}", "con=null", "con0=null,fd:1", f"uml_dir={place}/", "umid=machine", "panic=-1",
    ]  # fmt: skip
    return command, {"PATH": _PATH, "TMPDIR": "/dev/shm", **_wider(place)}


def _boot(place: Path, work: str, deadline: float, memory: str) -> Done:
    command, environment = _prepare(place, work, memory)
    out, console = place / "out", place / "console"
    began = time.monotonic()
    with console.open("wb") as printed:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=printed, stderr=subprocess.STDOUT, start_new_session=True,
            env=environment,
        )  # fmt: skip
        try:
            process.wait(deadline)
        except subprocess.TimeoutExpired:
            raise MachineError(
                f"User-mode Linux did not end within {deadline:.0f} s; so far:\n{_shown(out, console)}"
            ) from None
        finally:
            _end(process)
    files = {one.name: one.read_text(errors="replace") for one in out.iterdir()}
    if "status" not in files:
        raise MachineError(f"User-mode Linux ended before its command did:\n{_shown(out, console)}")
    return Done(int(files["status"]), _shown(out, console), files, time.monotonic() - began)


def _wide() -> bool:
    """Whether the processor has registers that User-mode Linux does not know of (see registers.c)."""
    return "amx_tile" in Path("/proc/cpuinfo").read_text().split()


def _wider(place: Path) -> dict[str, str]:
    """What makes it run with them. Raises MachineError where that cannot be compiled."""
    if not _wide():
        return {}
    library = place / "registers.so"
    command = [
        "cc",
        "-shared",
        "-fPIC",
        "-O2",
        "-Wall",
        "-Werror",
        "-o",
        str(library),
        str(REGISTERS),
        "-ldl",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise MachineError(f"{REGISTERS.name} cannot be compiled: {done.stderr}")
    return {"LD_PRELOAD": str(library)}


def _shown(out: Path, console: Path) -> str:
    parts = [one.read_text(errors="replace") for one in (console, out / "output") if one.exists()]
    return "\n".join(part.strip() for part in parts)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill it with all its processes, and see them gone."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    until = time.monotonic() + 10
    while True:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        if time.monotonic() > until:
            raise MachineError(f"processes of group {process.pid} outlive their machine")
        time.sleep(0.01)
