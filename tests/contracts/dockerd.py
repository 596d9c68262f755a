"""A private dockerd with its own containerd, for tests: no way out, nothing shared, nothing left behind.

What belongs here: starting it in a temporary directory, giving it an image made of the system's static
busybox, killing it like a crash would, stopping its clock, and taking it down. What does not: any test.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path

import docker
import docker.errors
import requests.exceptions

IMAGE = "127.0.0.1:1/probe:1"
"""A registry that refuses connections at once: pulling it fails quickly and reaches nobody."""
ADDRESSLESS = [
    "--bridge=none",
    "--iptables=false",
    "--ip-forward=false",
    "--ip-masq=false",
    "--userland-proxy=false",
]
OWN_NETWORK = ["unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]


class PrivateEngine:
    """dockerd and containerd of our own, addressed by `url`."""

    network = ADDRESSLESS

    def __init__(self) -> None:
        # The path is short because socket paths are limited to 108 bytes.
        self.root = Path(tempfile.mkdtemp(prefix="pe-", dir="/tmp"))
        self.url = f"unix://{self.root}/d.sock"
        self._containerd: subprocess.Popen[bytes] | None = None
        self._dockerd: subprocess.Popen[bytes] | None = None
        self._logs = (self.root / "log").open("ab")

    def start(self) -> None:
        """Start both and wait until the socket answers."""
        self._start_containerd()
        self.start_dockerd()

    def _start_containerd(self) -> None:
        sock = self.root / "c.sock"
        command = ["containerd", "--address", str(sock), "--root", str(self.root / "c-root")]
        command += ["--state", str(self.root / "c-state"), "--log-level", "warn"]
        config = self.root / "c.toml"
        config.write_text('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
        command += ["--config", str(config)]
        self._containerd = self._spawn(command)
        self._until(sock.exists, self._containerd)

    def start_dockerd(self) -> None:
        """Start dockerd alone (after `kill_dockerd`)."""
        command = ["dockerd", "-H", self.url, "--containerd", str(self.root / "c.sock")]
        command += ["--data-root", str(self.root / "data"), "--exec-root", str(self.root / "x")]
        command += ["--pidfile", str(self.root / "pid"), "--config-file", self._empty_config()]
        command += ["--live-restore", "--cgroup-parent", f"/{self.root.name}", "--storage-driver", "vfs"]
        command += ["--log-level", "warn", *self.network]
        self._dockerd = self._spawn(command)
        self._until(self._answers, self._dockerd)

    def _empty_config(self) -> str:
        path = self.root / "empty.json"
        path.write_text("{}")
        return str(path)

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self._logs, stderr=self._logs, start_new_session=True
        )

    def _until(self, condition, process: subprocess.Popen[bytes], seconds: float = 40) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.root / "log").read_text(errors="replace")[-3000:])
            time.sleep(0.05)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(self.root / "d.sock")):
                return False
        client = docker.APIClient(self.url, version="1.41", timeout=5)
        try:
            return bool(client.ping())
        except (docker.errors.DockerException, requests.exceptions.RequestException):
            return False
        finally:
            client.close()

    def load_image(self, name: str = IMAGE) -> None:
        """Import an image that holds nothing but busybox and links to it."""
        client = docker.APIClient(self.url, version="auto", timeout=60)
        try:
            client.import_image_from_data(_busybox_tar(), repository=name.rpartition(":")[0], tag="1")
        finally:
            client.close()

    def kill_dockerd(self) -> None:
        """As a crash would: no goodbye. Containers live on."""
        assert self._dockerd is not None
        self._dockerd.kill()
        self._dockerd.wait()

    def freeze(self) -> None:
        """Stop dockerd's clock: it takes connections and answers nothing."""
        assert self._dockerd is not None
        self._dockerd.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._dockerd is not None
        self._dockerd.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Remove every container, end both daemons, unmount and delete everything."""
        if self._dockerd is not None and self._dockerd.poll() is None:
            self._remove_containers()
            self._end(self._dockerd)
        if self._containerd is not None:
            self._end(self._containerd)
        self._kill_leftovers()
        self._logs.close()
        for mount in sorted(self._mounts(), key=len, reverse=True):
            subprocess.run(["umount", "-l", mount], check=False)
        shutil.rmtree(self.root, ignore_errors=True)
        self._remove_cgroups()

    def _remove_containers(self) -> None:
        client = docker.APIClient(self.url, version="auto", timeout=60)
        try:
            for container in client.containers(all=True):
                client.remove_container(container["Id"], force=True)
        finally:
            client.close()

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _kill_leftovers(self) -> None:
        """Shims name our directory on their command line; each is ended by its pid."""
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"containerd-shim" in words and str(self.root).encode() in words:
                os.kill(int(entry.name), signal.SIGKILL)

    def _mounts(self) -> list[str]:
        text = Path("/proc/self/mountinfo").read_text()
        return re.findall(rf" ({re.escape(str(self.root))}\S*) ", text)

    def _remove_cgroups(self) -> None:
        for folder in sorted(Path("/sys/fs/cgroup").glob(f"*/{self.root.name}")):
            for inner in sorted(folder.rglob("*/"), key=lambda path: len(str(path)), reverse=True):
                if inner.is_dir():
                    inner.rmdir()
            folder.rmdir()


class BridgedEngine(PrivateEngine):
    """In a network namespace of its own with a loopback and a bridge, so that ports can be published."""

    network = ("--bip=172.31.250.1/24", *ADDRESSLESS[1:])

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        # The namespace is containerd's, which comes first and outlives dockerd.
        return super()._spawn([*(self.inside() if self._containerd else OWN_NETWORK), *command])

    def inside(self) -> list[str]:
        """What to put before a command to run it in the Engine's network."""
        assert self._containerd is not None
        return ["nsenter", "-t", str(self._containerd.pid), "-n"]


def _busybox_tar() -> bytes:
    """A root file system: /bin/busybox, links to it, /tmp and /etc."""
    binary = Path("/bin/busybox").resolve().read_bytes()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for folder in ("bin", "tmp", "etc", "data"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777
            tar.addfile(entry)
        entry = tarfile.TarInfo("bin/busybox")
        entry.size, entry.mode = len(binary), 0o755
        tar.addfile(entry, io.BytesIO(binary))
        for name in ("sh", "sleep", "echo", "cat", "true", "false", "test", "kill", "touch", "rm"):
            entry = tarfile.TarInfo(f"bin/{name}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
    return buffer.getvalue()
