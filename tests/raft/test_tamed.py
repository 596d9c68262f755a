"""The library leaves the process as it found it."""

from __future__ import annotations

import socket
import subprocess
import sys

CHECK = """
import socket
import {module}
print(socket.inet_ntop(socket.AF_INET6, bytes(15) + b"\\x01"), socket.inet_ntop(socket.AF_INET, bytes([10, 9, 8, 7])))
"""


def printed(module: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CHECK.format(module=module)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_addresses_are_printed_as_before_although_the_library_breaks_that() -> None:
    assert "TypeError" in printed("pysyncobj").stderr
    assert printed("swarmpy.adapters.raft.core").stdout == "::1 10.9.8.7\n"
    assert socket.inet_ntop(socket.AF_INET, bytes([10, 9, 8, 7])) == "10.9.8.7"
