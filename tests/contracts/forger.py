"""Sends one UDP packet, for tests of the guard: with a forged sender's address, or as a process of another user.

`send` is for packets that come from elsewhere; where it counts whose process sends, `process` starts one.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys

NOBODY = 65534


def send(target: str, port: int, data: bytes, source: str = "") -> str:
    """From the thread's namespace; "sent", or what the kernel said."""
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    if source:  # a raw socket: what a container may open by default
        made = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
        udp = struct.pack("!HHHH", 40000, port, 8 + len(data), 0) + data
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0)
        data = head + socket.inet_aton(source) + socket.inet_aton(target) + udp
    else:
        made = socket.socket(family, socket.SOCK_DGRAM)
        made.setsockopt(socket.IPPROTO_IP, 10, 0)  # IP_MTU_DISCOVER off: what is too large goes in fragments
    with made:
        try:
            made.sendto(data, (target, port))
        except OSError as error:
            return str(error.strerror)
    return "sent"


def process(space: str, target: str, port: int, data: bytes, *, user: int = NOBODY) -> str:
    """As `send`, by a process of that user in the namespace."""
    command = [sys.executable, "-m", "tests.contracts.forger", target, str(port), data.hex(), str(user)]
    done = subprocess.run(["ip", "netns", "exec", space.rpartition("/")[2], *command], capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def main(target: str, port: str, payload: str, user: str) -> None:
    if int(user):
        os.setgroups([])
        os.setresuid(int(user), int(user), int(user))
        assert os.geteuid() == int(user)
    print(send(target, int(port), bytes.fromhex(payload)))


if __name__ == "__main__":
    main(*sys.argv[1:])
