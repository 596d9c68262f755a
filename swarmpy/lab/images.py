"""The images of a lab, built from this machine's static busybox: nothing is fetched from anywhere.

What belongs here: the images' content. What does not: bringing them to engines and registries (nodes.py).

  busybox:latest   a shell and its tools
  sleeper:latest   sleeps for ever, and stops at once when told to
  web:1, web:2     answers every request on port 80 (PORT) with a line: its version, its hostname, and the
                   client's address; `/?delay=SECONDS` answers late. Stops by answering what it had accepted.

The same inputs give the same bytes, so the images have the same ids on all nodes.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

_PLATFORMS = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "riscv64": "riscv64"}

_SERVE = """#!/bin/sh
# Serves until told to stop; then takes no new connection, and ends when the last answer is out.
httpd -f -p "${PORT:-80}" -h /www &
server=$!
trap 'kill $server; while pidof httpd index.cgi >/dev/null; do usleep 20000; done; exit 0' TERM INT
wait $server
"""

_PAGE = """#!/bin/sh
case "$QUERY_STRING" in delay=*) sleep "${QUERY_STRING#delay=}";; esac
client=${REMOTE_ADDR#[}  # an IPv4 client of the IPv6 socket is [::ffff:ADDRESS]
client=${client%]}
printf 'Content-Type: text/plain\\r\\n\\r\\nversion=%s host=%s client=%s\\n' \
    "$VERSION" "$(hostname)" "${client#::ffff:}"
"""

_SLEEP = """#!/bin/sh
trap 'exit 0' TERM INT
sleep 1000000000 &
wait $!
"""


@dataclass(frozen=True, slots=True)
class Image:
    """An image to be: its reference, layers (uncompressed tar), and what it does by default."""

    reference: str
    layers: tuple[bytes, ...]
    command: tuple[str, ...]
    env: tuple[str, ...] = ()
    port: int = 0


def references() -> list[str]:
    """NAME:TAG of every image of a lab."""
    return ["busybox:latest", "sleeper:latest", "web:1", "web:2"]


def archive(busybox: Path) -> bytes:
    """All images in the form that `docker load` reads."""
    base = _base_layer(busybox)
    sleeper = _layer({"bin/sleeper": _SLEEP})
    web = _layer({"bin/serve": _SERVE, "www/cgi-bin/index.cgi": _PAGE})
    images = [
        Image("busybox:latest", (base,), ("sh",)),
        Image("sleeper:latest", (base, sleeper), ("/bin/sleeper",)),
        *(
            Image(f"web:{version}", (base, web), ("/bin/serve",), (f"VERSION={version}",), 80)
            for version in (1, 2)
        ),
    ]
    return _bundle(images)


def _bundle(images: list[Image]) -> bytes:
    files: dict[str, bytes] = {}
    manifest = []
    for image in images:
        config = json.dumps(_config(image), sort_keys=True).encode()
        name = f"{hashlib.sha256(config).hexdigest()}.json"
        files[name] = config
        layers = []
        for layer in image.layers:
            layers.append(f"{hashlib.sha256(layer).hexdigest()}/layer.tar")
            files[layers[-1]] = layer
        manifest.append({"Config": name, "RepoTags": [image.reference], "Layers": layers})
    files["manifest.json"] = json.dumps(manifest).encode()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            tar.addfile(_entry(name, size=len(data)), io.BytesIO(data))
    return out.getvalue()


def _config(image: Image) -> dict[str, object]:
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    run: dict[str, object] = {"Env": [path, *image.env], "Cmd": list(image.command)}
    if image.port:
        run["ExposedPorts"] = {f"{image.port}/tcp": {}}
    return {
        "architecture": _PLATFORMS.get(platform.machine(), platform.machine()),
        "os": "linux",
        "created": "2024-01-01T00:00:00Z",
        "config": run,
        "rootfs": {
            "type": "layers",
            "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in image.layers],
        },
        "history": [{"created": "2024-01-01T00:00:00Z"} for _ in image.layers],
    }


def _base_layer(busybox: Path) -> bytes:
    applets = subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True).stdout.split()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for folder in ("bin", "etc", "usr", "usr/bin", "sbin", "root", "proc", "sys", "dev", "var"):
            tar.addfile(_entry(folder, kind=tarfile.DIRTYPE))
        tmp = _entry("tmp", kind=tarfile.DIRTYPE)
        tmp.mode = 0o1777
        tar.addfile(tmp)
        program = busybox.read_bytes()
        tar.addfile(_entry("bin/busybox", size=len(program)), io.BytesIO(program))
        for applet in sorted(set(applets) - {"busybox"}):
            link = _entry(f"bin/{applet}", kind=tarfile.SYMTYPE)
            link.linkname = "busybox"
            tar.addfile(link)
        users = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
        tar.addfile(_entry("etc/passwd", size=len(users)), io.BytesIO(users))
        groups = b"root:x:0:\nnogroup:x:65534:\n"
        tar.addfile(_entry("etc/group", size=len(groups)), io.BytesIO(groups))
    return out.getvalue()


def _layer(scripts: dict[str, str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, text in scripts.items():
            data = text.encode()
            tar.addfile(_entry(name, size=len(data)), io.BytesIO(data))
    return out.getvalue()


def _entry(name: str, *, size: int = 0, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.type, entry.mode = size, kind, 0o755
    return entry
