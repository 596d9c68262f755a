"""A machine with a stock kernel, by emulation: QEMU without any hardware's help, from the disk of image.py.

What belongs here: starting it, files into it, commands in it, its end. What does not: what is tested there.

The disk is never written to: what the machine writes goes to a file without a name, which ends with it. The
only way in or out is ssh on a port of 127.0.0.1; the machine itself reaches nothing outside. It leaves no
process and no file behind, whatever happens to it.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.qemu.errors import MachineError
from tests.qemu.image import Image

PLACE = "/srv/swarmpy"
"""The project, in the machine."""
PYTHON = "/opt/venv/bin/python"
_EMULATOR = "qemu-system-x86_64"
_NEEDED = (_EMULATOR, "debootstrap", "mke2fs", "ssh", "ssh-keygen", "unshare", "setpriv", "tar")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_BOOT_SECONDS = 300.0
_ARGUMENTS = "root=/dev/vda rw console=ttyS0 quiet panic=-1 net.ifnames=0 mitigations=off apparmor=0"
# Emulated, each look at another clock stops all processors, and grace periods take seconds. What was translated
# of a program is used again only at the same addresses.
_ARGUMENTS += " tsc=reliable clocksource=tsc rcupdate.rcu_expedited=1 norandmaps"


_KIND = ("nice", "-n", "10", "setpriv", "--pdeathsig", "KILL")
"""Others go first, and the machine ends with the one who started it, even if that one is killed."""


def missing() -> list[str]:
    """Programs that are not installed here."""
    return [program for program in _NEEDED if shutil.which(program, path=_PATH) is None]


class Machine:
    """A machine that runs; see `running`."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, key: Path, console: Path) -> None:
        self._process, self._port, self._key, self._console = process, port, key, console

    def run(self, *words: str, deadline: float = 300, text: str | None = None) -> str:
        """What a shell command there printed. Raises MachineError when it fails or does not end."""
        try:
            done = subprocess.run(
                self.line(" ".join(words)), check=False, capture_output=True, text=True, input=text,
                stdin=subprocess.DEVNULL if text is None else None, timeout=deadline,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise MachineError(f"`{' '.join(words)}` did not end within {deadline:g} s") from None
        if done.returncode:
            raise MachineError(f"`{' '.join(words)}` failed: {(done.stderr or done.stdout).strip()[-2000:]}")
        return done.stdout

    def follow(self, command: str, *, deadline: float) -> int:
        """The exit status of a shell command there, whose output goes to ours as it comes."""
        process = subprocess.Popen(self.line(command), stdin=subprocess.DEVNULL)
        try:
            return process.wait(deadline)
        except subprocess.TimeoutExpired:
            raise MachineError(f"the command in the machine did not end within {deadline:g} s") from None
        finally:
            process.kill()
            process.wait()

    def line(self, command: str) -> list[str]:
        """The command line that runs a shell command there."""
        return [
            "ssh", "-i", str(self._key), "-p", str(self._port), "-F", "none", "-o", "BatchMode=yes",
            "-o", "IdentitiesOnly=yes", "-o", "LogLevel=ERROR", "-o", "StrictHostKeyChecking=no",
            "-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=20", "-o", "ServerAliveInterval=60",
            "-o", "ServerAliveCountMax=10", "root@127.0.0.1", command,
        ]  # fmt: skip

    def bring(self, folder: Path, names: Iterable[str]) -> None:
        """Copy files of `folder`, with their paths below it, to PLACE."""
        pack = subprocess.Popen(
            ["tar", "-C", str(folder), "--null", "-T", "-", "-cf", "-"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert pack.stdin is not None
        unpack = subprocess.Popen(self.line(f"mkdir -p {PLACE} && tar -C {PLACE} -xf -"), stdin=pack.stdout)
        pack.stdin.write("\0".join(names).encode())
        pack.stdin.close()
        if unpack.wait(300) or pack.wait(10):
            raise MachineError("the project's files could not be copied into the machine")

    def await_boot(self) -> float:
        """Wait until commands can be run; seconds since the start. Raises MachineError with the console's
        last words."""
        began = time.monotonic()
        while True:
            if self._process.poll() is not None:
                raise MachineError(f"the machine ended while it booted: {self._last_words()}")
            try:
                self.run("true", deadline=60)
            except MachineError:
                if time.monotonic() - began > _BOOT_SECONDS:
                    raise MachineError(
                        f"the machine did not boot within {_BOOT_SECONDS:g} s: {self._last_words()}"
                    ) from None
                time.sleep(0.5)
            else:
                return time.monotonic() - began

    def _last_words(self) -> str:
        return self._console.read_text(errors="replace").strip()[-2000:] or "(nothing on its console)"


@contextmanager
def running(image: Image, *, processors: int = 2, memory: int = 3072) -> Iterator[Machine]:
    """A machine that has booted, for the length of the block; `memory` in MiB. Raises MachineError."""
    with tempfile.TemporaryDirectory(prefix="swarmpy-qemu-") as place:
        console, port = Path(place) / "console", _free_port()
        with (Path(place) / "words").open("w+b") as words:
            process = subprocess.Popen(
                [*_KIND, *_command(image, console, port, processors, memory)],
                stdin=subprocess.DEVNULL, stdout=words, stderr=words, start_new_session=True,
                env={"PATH": _PATH, "TMPDIR": place},
            )  # fmt: skip
            machine = Machine(process, port, image.key, console)
            console.touch()
            try:
                machine.await_boot()
                yield machine
            except MachineError as error:
                words.seek(0)
                said = words.read().decode(errors="replace").strip()
                raise MachineError(f"{error}\n{said}".rstrip()) from None
            finally:
                _end(process)


def _command(image: Image, console: Path, port: int, processors: int, memory: int) -> Sequence[str]:
    return [
        _EMULATOR, "-accel", "tcg,thread=multi", "-cpu", "max,la57=off", "-smp", str(processors), "-m", str(memory),
        "-nodefaults", "-display", "none", "-no-reboot",
        "-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", _ARGUMENTS,
        "-drive", f"file={image.disk},if=virtio,format=raw,snapshot=on,cache=unsafe",
        "-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22",
        "-device", "virtio-net-pci,netdev=net", "-device", "virtio-rng-pci", "-serial", f"file:{console}",
    ]  # fmt: skip


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end(process: subprocess.Popen[bytes]) -> None:
    """Pull the plug: nothing in the machine is kept."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
