"""A machine with a kernel of its own: User-mode Linux on this machine's files, which it can only read.

It has what the host's kernel may lack (ESP with AES-GCM) and lacks nftables' families ip and inet. A module of
`tests.uml` is run in it; what that prints after RESULT, as JSON, comes back. Killed after its time.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MODULES = Path("/usr/lib/uml/modules")
_INIT = """#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin PYTHONPATH={root} PYTHONDONTWRITEBYTECODE=1
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t tmpfs tmp /run; mount -t tmpfs tmp /mnt
mkdir -p /mnt/lib /run/netns
ln -s {modules} /mnt/lib/modules
printf '#!/bin/sh\\nexec modprobe -d /mnt "$@"\\n' > /run/modprobe; chmod 755 /run/modprobe
echo /run/modprobe > /proc/sys/kernel/modprobe
ip link set lo up
cd {root}
{python} -m {module}
busybox poweroff -f
"""


def run(module: str, *, seconds: float) -> dict[str, Any]:
    """What the module found."""
    assert MODULES.is_dir(), f"{MODULES} is not there: install the package user-mode-linux"
    with tempfile.TemporaryDirectory(prefix="swarmpy-uml-") as folder:
        init = Path(folder, "init")
        init.write_text(_INIT.format(root=ROOT, modules=MODULES, python=sys.executable, module=module))
        init.chmod(0o755)
        machine = subprocess.Popen(
            ["linux.uml", "mem=384M", "rootfstype=hostfs", "rootflags=/", "ro", "con=null", "con0=null,fd:1",
             "quiet", f"uml_dir={folder}", f"init={init}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            env={**os.environ, "TMPDIR": folder}, start_new_session=True,
        )  # fmt: skip
        try:
            shown, _ = machine.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(machine.pid, signal.SIGKILL)
            shown, _ = machine.communicate()
            raise AssertionError(f"{module} did not end in {seconds} s:\n{shown}") from None
    found = [line.partition("RESULT ")[2] for line in shown.splitlines() if "RESULT " in line]
    assert found, f"{module} found nothing:\n{shown}"
    return dict(json.loads(found[-1]))
