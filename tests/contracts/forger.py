"""A process that sends one UDP packet, for tests/contracts: as another user, or with a forged sender's address.

Not a server's socket but a process of its own, because what counts is whose process it is.
"""

from __future__ import annotations

import os
import socket
import struct
import sys


def main(target: str, port: str, payload: str, user: str, source: str) -> None:
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    data = bytes.fromhex(payload)
    if source:  # a raw socket: what a container may open by default
        made = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
        udp = struct.pack("!HHHH", 40000, int(port), 8 + len(data), 0) + data
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0)
        data = head + socket.inet_aton(source) + socket.inet_aton(target) + udp
    else:
        made = socket.socket(family, socket.SOCK_DGRAM)
        made.setsockopt(socket.IPPROTO_IP, 10, 0)  # IP_MTU_DISCOVER off: what is too large goes in fragments
    if int(user):
        os.setgroups([])
        os.setresuid(int(user), int(user), int(user))
    try:
        made.sendto(data, (target, int(port)))
    except OSError as error:
        print(error.strerror)
    else:
        print("sent")


if __name__ == "__main__":
    main(*sys.argv[1:])
