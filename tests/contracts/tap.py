"""A tap on a wire: what protocols, ports and words pass there.

What belongs here: listening and counting. What does not: what should pass.
"""

from __future__ import annotations

import errno
import socket
import struct
import threading
from typing import Any

from swarmpy.adapters.netns import inside


class Tap(threading.Thread):
    """Everything that passes a link, which is a port of a bridge or an end of a cable, in the namespace `space`.
    `canary` is what is looked for in it."""

    def __init__(self, space: str, port: str, canary: bytes) -> None:
        super().__init__(daemon=True)
        self.canary = canary
        self.socket = inside(space, socket.socket, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.socket.bind((port, 3))
        self.socket.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)
        self.packets: list[bytes] = []
        self.marker = inside(space, socket.socket, socket.AF_PACKET, socket.SOCK_RAW)
        self.marker.bind((port, 0))
        self.seen = threading.Event()
        self.start()

    def run(self) -> None:
        while True:
            try:
                packet = self.socket.recv(4000)
            except OSError as error:
                if error.errno != errno.ENETDOWN:
                    raise
                return  # the link went, with the lab: who takes from now on waits in vain, and says so
            if packet[12:14] == b"\x88\xb5":
                self.seen.set()
            else:
                self.packets.append(packet)

    def take(self) -> dict[str, Any]:
        """What came since the last time: protocols of IPv4, UDP's ports, fragments, canaries."""
        self.seen.clear()
        self.marker.send(b"\xff" * 6 + bytes(6) + b"\x88\xb5" + bytes(46))
        assert self.seen.wait(30)
        packets, self.packets = self.packets, []
        found: dict[str, Any] = {
            "protocols": set(),
            "ports": set(),
            "fragments": 0,
            "canaries": 0,
            "longest": 0,
        }
        for packet in packets:
            if packet[12:14] != b"\x08\x00":
                continue
            found["protocols"].add(packet[23])
            found["longest"] = max(found["longest"], len(packet) - 14)
            found["fragments"] += bool(struct.unpack_from("!H", packet, 20)[0] & 0x3FFF)
            found["canaries"] += self.canary in packet
            if packet[23] == 17:
                found["ports"].add(struct.unpack_from("!H", packet, 36)[0])
        return {key: sorted(one) if isinstance(one, set) else one for key, one in found.items()}
