"""The unit file, and the daemon's own word about where it runs. What systemd makes of it: `python -m tests.qemu`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OWN_MOUNTS = {
    "BindPaths", "BindReadOnlyPaths", "DynamicUser", "ExecPaths", "ExtensionDirectories", "ExtensionImages",
    "InaccessiblePaths", "LogNamespace", "MountAPIVFS", "MountFlags", "MountImages", "NoExecPaths", "PrivateDevices",
    "PrivateIPC", "PrivateMounts", "PrivateNetwork", "PrivateTmp", "ProcSubset", "ProtectControlGroups", "ProtectHome",
    "ProtectHostname", "ProtectKernelLogs", "ProtectKernelModules", "ProtectKernelTunables", "ProtectProc",
    "ProtectSystem", "ReadOnlyPaths", "ReadWritePaths", "RootDirectory", "RootImage", "TemporaryFileSystem",
}  # fmt: skip
"""What gives a unit mounts of its own, or namespaces (systemd.exec)."""
ASK = "from swarmpy.adapters.netns import ends_with_us; print(ends_with_us())"


def test_nothing_gives_the_unit_mounts_of_its_own() -> None:
    lines = (ROOT / "deploy" / "swarmpy.service").read_text().splitlines()
    names = {line.partition("=")[0] for line in lines if "=" in line and not line.startswith("#")}
    assert "ExecStart" in names
    assert not names & OWN_MOUNTS


ALIKE = ("unshare", "-m", "--propagation", "shared")


@pytest.mark.parametrize(
    ("before", "said"),
    [
        (ALIKE, "False"),
        (("unshare", "-m", "--propagation", "private"), "False"),
        ((*ALIKE, "unshare", "-m", "--propagation", "slave"), "True"),
    ],
)
def test_the_daemon_knows_whether_its_mounts_end_with_it(before: tuple[str, ...], said: str) -> None:
    done = subprocess.run(
        [*before, sys.executable, "-c", ASK], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == said
