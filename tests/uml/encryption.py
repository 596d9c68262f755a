"""Runs in a machine of its own (machine.py): two nodes and a stranger on one underlay, an encrypted network and a
plain one beside it, by the real adapters. Writes down what it saw; test_encryption.py says what it should be.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from swarmpy.adapters.netns import inside
from swarmpy.adapters.overlay import KernelOverlay
from swarmpy.adapters.xfrm import KernelCipher
from swarmpy.lab.processes import patience
from swarmpy.ports import CipherTable, Link, Neighbour, Secret
from tests.contracts.forger import process, send
from tests.contracts.netlab import Lab, ip
from tests.contracts.tap import Tap

PLAIN, SEALED = 4789, 4790
SECRET, OPEN = 5000, 5001
"""VXLAN ids."""
MTU = 1500 - 50 - 34
CANARY = b"canary-that-nobody-may-see"
NODES = ("10.99.0.1", "10.99.0.2")
STRANGER = "10.99.0.66"
INSIDE = {SECRET: ("10.8.0.1", "10.8.0.2"), OPEN: ("10.9.0.1", "10.9.0.2")}


class Node:
    def __init__(self, lab: Lab, number: int) -> None:
        self.number, self.address, self.peer = number, NODES[number], NODES[1 - number]
        self.space = lab.space(f"n{number}")
        lab.plug(self.space, "eth0", "under", f"{self.address}/24")
        self.overlay = KernelOverlay(f"/run/netns{number}", self.space)
        self.cipher = KernelCipher(self.space)

    def mac(self, vni: int, number: int) -> str:
        return f"02:00:00:00:{vni & 255:02x}:{number + 1:02x}"

    async def weave(self) -> None:
        for vni, port in ((SECRET, SEALED), (OPEN, PLAIN)):
            await self.overlay.ensure(Link(
                network_id=f"net{vni}", vni=vni, mtu=MTU, local=self.address, port=port,
                gateways=(f"{INSIDE[vni][self.number]}/24",), bridge_mac=self.mac(vni, self.number),
            ))  # fmt: skip
            other = 1 - self.number
            await self.overlay.forward(
                f"net{vni}", [Neighbour(self.mac(vni, other), self.peer, (INSIDE[vni][other],))], []
            )

    def room(self, vni: int) -> str:
        return self.overlay.namespace(f"net{vni}")

    def table(self, *numbers: int, sending: int = 0) -> CipherTable:
        secrets = tuple(Secret(number, bytes([number]) * 32) for number in numbers)
        return CipherTable(self.address, SEALED, (self.peer,), sending, secrets)


def udp(space: str, address: str, port: int = 7000) -> socket.socket:
    made = inside(space, socket.socket, socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((address, port))
    made.settimeout(5)
    return made


class Echo(threading.Thread):
    """Sends back what comes to a node's end of a network."""

    def __init__(self, node: Node, vni: int) -> None:
        super().__init__(daemon=True)
        self.socket = udp(node.room(vni), INSIDE[vni][node.number], 7001)
        self.socket.settimeout(None)
        self.heard: list[bytes] = []
        self.start()

    def run(self) -> None:
        while True:
            data, peer = self.socket.recvfrom(4000)
            self.heard.append(data)
            with suppress(OSError):
                self.socket.sendto(data, peer)


def asked(node: Node, vni: int, data: bytes = CANARY, wait: float = 5) -> bool:
    """Whether the other node's echo answers."""
    with udp(node.room(vni), INSIDE[vni][node.number]) as made:
        made.setsockopt(socket.IPPROTO_IP, 10, 2)  # never in fragments
        made.settimeout(wait)
        try:
            made.sendto(data, (INSIDE[vni][1 - node.number], 7001))
            return made.recv(4000) == data
        except OSError:
            return False


def frame(node: Node, word: bytes) -> bytes:
    """A VXLAN packet that brings the node's echo a datagram, as if the other node had sent it."""
    source, target = (socket.inet_aton(INSIDE[SECRET][one]) for one in (1 - node.number, node.number))
    datagram = struct.pack("!HHHH", 7000, 7001, 8 + len(word), 0) + word
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(datagram), 1, 0, 64, 17, 0, source, target)
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    head = head[:10] + struct.pack("!H", 0xFFFF - ((total & 0xFFFF) + (total >> 16))) + head[12:]
    macs = b"".join(
        bytes.fromhex(node.mac(SECRET, one).replace(":", "")) for one in (node.number, 1 - node.number)
    )
    return struct.pack("!II", 0x08000000, SECRET << 8) + macs + b"\x08\x00" + head + datagram


def raw_esp(space: str, target: str, source: str, payload: bytes) -> None:
    """An ESP packet of anybody's."""
    with inside(space, socket.socket, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as made:
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, 64, 50, 0)
        made.sendto(head + socket.inet_aton(source) + socket.inet_aton(target) + payload, (target, 0))


def statistics(space: str) -> dict[str, int]:
    def read() -> str:
        with open("/proc/thread-self/net/xfrm_stat") as file:
            return file.read()

    return {name: int(count) for name, count in map(str.split, inside(space, read).splitlines())}


def shell(space: str, command: str) -> str:
    done = subprocess.run(["ip", "netns", "exec", Lab.name(space), "sh", "-c", command], capture_output=True, text=True, check=False)  # fmt: skip
    return done.stdout + done.stderr


class Stream(threading.Thread):
    """Numbered datagrams to and fro, as long as it runs."""

    def __init__(self, node: Node) -> None:
        super().__init__(daemon=True)
        self.socket, self.node = udp(node.room(SECRET), INSIDE[SECRET][node.number], 7002), node
        self.sent, self.back = 0, 0
        self.ending = threading.Event()
        self.start()

    def run(self) -> None:
        target = (INSIDE[SECRET][1 - self.node.number], 7001)
        while not self.ending.is_set():
            self.socket.sendto(struct.pack("!I", self.sent) + CANARY, target)
            self.sent += 1
            if self.sent % 8 == 0:
                self.drain(0.001)
        self.drain(patience())

    def drain(self, wait: float) -> None:
        self.socket.settimeout(wait)
        with suppress(TimeoutError):
            while self.back < self.sent:
                self.socket.recv(4000)
                self.back += 1


async def rotations(one: Node, two: Node, tap: Tap) -> dict[str, Any]:
    """Turns of the ring under traffic, each node hearing of them at another time, in both orders."""
    stream = Stream(one)
    marks = []
    for turn in range(1, 7):
        for node in (one, two) if turn % 2 else (two, one):
            marks.append(await node.cipher.apply(node.table(turn + 1, turn + 2, turn + 3, sending=turn + 2)))
            await asyncio.sleep(0.15)
    stream.ending.set()
    await asyncio.to_thread(stream.join)
    spis = shell(one.space, "ip xfrm state | grep -c spi")
    return {"sent": stream.sent, "back": stream.back, "marks": len(set(marks)), "states": int(spis),
            "wire": tap.take()}  # fmt: skip


async def attacks(one: Node, two: Node, stranger: str, echo: Echo, tap: Tap) -> dict[str, Any]:
    """What others try against the first node; words that its echo hears."""
    echo.heard.clear()
    before = statistics(one.space)
    inside(stranger, send, one.address, SEALED, frame(one, b"stranger"))
    inside(stranger, send, one.address, SEALED, frame(one, b"posing"), two.address)
    inside(stranger, send, one.address, PLAIN, frame(one, b"other port"))
    spi = bytes.fromhex(shell(one.space, f"ip xfrm state list dst {one.address}").split("spi 0x")[1][:8])
    for source in (STRANGER, two.address):
        raw_esp(stranger, one.address, source, spi + struct.pack("!I", 7) + frame(one, b"esp") + bytes(18))
    asked(two, SECRET)
    after = statistics(one.space)
    heard = [word.decode() for word in echo.heard if word != CANARY]
    found = {
        "heard": heard,
        "refused": {key: after[key] - before[key] for key in after if after[key] != before[key]},
    }
    echo.heard.clear()
    process(two.space, one.address, SEALED, frame(one, b"local process"))
    asked(two, SECRET)
    found["unguarded process"] = [word.decode() for word in echo.heard if word != CANARY]
    echo.heard.clear()
    drop = f"iptables-legacy -t raw -{{}} OUTPUT -p udp --dport {SEALED} -m owner --socket-exists -j DROP"
    shell(two.space, drop.format("A"))
    process(two.space, one.address, SEALED, frame(one, b"local process"))
    found["guarded answers"] = asked(two, SECRET)
    found["guarded process"] = [word.decode() for word in echo.heard if word != CANARY]
    shell(two.space, drop.format("D"))
    came = (
        f"iptables-legacy -t mangle -{{}} INPUT -p udp --dport {SEALED} -m policy --dir in --pol none -j DROP"
    )
    shell(one.space, came.format("A"))
    found["decrypted is known as such"] = asked(two, SECRET)
    shell(one.space, came.format("D"))
    goes = f"iptables-legacy -t mangle -{{}} OUTPUT -p udp --dport {SEALED} -m policy --dir out --pol none -j DROP"
    shell(one.space, goes.format("A"))
    found["to be encrypted is known as such"] = asked(two, SECRET)
    shell(one.space, "ip xfrm policy flush")
    tap.take()
    found["without policies"] = asked(one, SECRET, CANARY, 0.3)
    found["without policies, on the wire"] = tap.take()["canaries"]
    await one.cipher.apply(one.table(1, 2, 3, sending=2))
    found["mended"] = asked(one, SECRET)
    shell(one.space, goes.format("D"))
    return found


async def meddling(one: Node, two: Node, tap: Tap) -> dict[str, Any]:
    """What others remove, or change, is seen and mended."""
    found: dict[str, Any] = {}
    table = one.table(7, 8, 9, sending=8)
    spi = "$(ip xfrm state list src {0} | grep -o 'spi 0x[0-9a-f]*' | head -1)"
    deeds = {
        "states flushed": "ip xfrm state flush",
        "policies flushed": "ip xfrm policy flush",
        "a state removed": f"ip xfrm state delete src {one.address} dst {one.peer} proto esp {spi.format(one.address)}",
        "a policy removed": f"ip xfrm policy delete src {one.address} dst {one.peer} proto udp dport {SEALED} dir out",
        "a block removed": f"ip xfrm policy delete src 0.0.0.0/0 dst 0.0.0.0/0 proto udp dport {SEALED} dir in",
        "a policy made optional": f"ip xfrm policy update src {one.peer} dst {one.address} proto udp dport {SEALED}"
        f" dir in priority {0x53570001} tmpl src {one.peer} dst {one.address} proto esp reqid {0x53574D50} mode transport level use",
    }  # fmt: skip
    mark = await one.cipher.apply(table)
    for name, deed in deeds.items():
        said = shell(one.space, deed)
        seen = await one.cipher.observe() != mark
        tap.take()
        await asyncio.to_thread(asked, one, SECRET, CANARY, 0.2)
        wire = tap.take()
        mended = await one.cipher.apply(table) == mark == await one.cipher.observe()
        found[name] = {"said": said, "seen": seen, "wire": wire, "mended": mended,
                       "answers": await asyncio.to_thread(asked, one, SECRET)}  # fmt: skip
    return found


async def life(lab: Lab, found: dict[str, Any]) -> None:
    one, two = (Node(lab, number) for number in range(2))
    stranger = lab.space("stranger")
    lab.plug(stranger, "eth0", "under", f"{STRANGER}/24")
    tap = Tap(lab.hub, port_of(lab, 0), CANARY)
    nodes = (one, two)
    found["probe"] = await one.cipher.probe()
    for node in nodes:
        await node.weave()
    echoes = {vni: [Echo(node, vni) for node in nodes] for vni in (SECRET, OPEN)}
    ask = lambda *rest: asyncio.to_thread(asked, *rest)  # noqa: E731
    found["clear"] = {"answers": await ask(one, SECRET), "wire": tap.take()}
    for node in nodes:
        await node.cipher.apply(node.table())
    found["blocked"] = {
        "answers": await ask(one, SECRET, CANARY, 0.5),
        "wire": tap.take(),
        "open": await ask(one, OPEN),
    }
    tap.take()
    marks = [await node.cipher.apply(node.table(1, 2, 3, sending=2)) for node in nodes]
    found["marks"] = [await node.cipher.observe() == mark for node, mark in zip(nodes, marks, strict=True)]
    found["sealed"] = {"answers": await ask(one, SECRET) and await ask(two, SECRET), "wire": tap.take()}
    found["largest"] = {
        "fits": await ask(one, SECRET, CANARY.ljust(MTU - 28, b"x")),
        "too large": await ask(one, SECRET, CANARY.ljust(MTU - 27, b"x"), 0.5), "wire": tap.take(),
    }  # fmt: skip
    found["open"] = {"answers": await ask(one, OPEN), "wire": tap.take()}
    found["attacks"] = await attacks(one, two, stranger, echoes[SECRET][0], tap)
    tap.take()
    found["rotations"] = await rotations(one, two, tap)
    found["restart"] = await restart(one, ask)
    for node in nodes:
        await node.cipher.apply(node.table(7, 8, 9, sending=8))
    found["meddling"] = await meddling(one, two, tap)
    found["alone"] = await alone(one, two, ask)
    found["cleared"] = await cleared(one)


ADMIN = f"""
ip xfrm state add src 10.1.1.1 dst 10.1.1.2 proto esp spi 9 aead 'rfc4106(gcm(aes))' 0x{"11" * 20} 128
ip xfrm policy add src 10.1.1.1 dst 10.1.1.2 dir out tmpl src 10.1.1.1 dst 10.1.1.2 proto esp
"""


async def cleared(one: Node) -> dict[str, Any]:
    """What is left is the administrator's, all of it."""
    look = "ip xfrm state; ip xfrm policy"
    await one.cipher.clear()
    nothing = shell(one.space, look)
    said = shell(one.space, ADMIN)
    theirs = shell(one.space, look)
    await one.cipher.apply(one.table(8, 9, 10, sending=9))
    both = shell(one.space, look)
    await one.cipher.clear()
    await one.cipher.clear()
    return {"nothing": nothing, "said": said, "theirs": "10.1.1.1" in theirs, "both": len(both) > len(theirs),
            "left": shell(one.space, look) == theirs, "mark": await one.cipher.observe()}  # fmt: skip


async def restart(one: Node, ask: Callable[..., Any]) -> dict[str, Any]:
    """An agent that starts anew and knows no secrets yet takes away none."""
    new = KernelCipher(one.space)
    held = await one.cipher.observe()
    mark = await new.apply(one.table())
    return {"same": mark == held == await new.observe(), "answers": await ask(one, SECRET)}


async def alone(one: Node, two: Node, ask: Callable[..., Any]) -> dict[str, Any]:
    """A node that missed two turns can read nobody and be read by nobody; one turn is enough to come back."""
    await two.cipher.apply(two.table(9, 10, 11, sending=10))
    apart = await ask(one, SECRET, CANARY, 0.5)
    await two.cipher.apply(replace(two.table(8, 9, 10, sending=9)))
    return {"two turns": apart, "one turn": await ask(one, SECRET)}


def port_of(lab: Lab, number: int) -> str:
    """The hub's port of the node that was plugged in so many after the first."""
    ports = [line.split(": ")[1].split("@")[0] for line in ip(f"-n {Lab.name(lab.hub)} -o link show master under").splitlines()]  # fmt: skip
    return sorted(ports, key=lambda name: int(name[1:]))[number]


def main() -> None:
    lab = Lab()
    lab.bridge("under")
    found: dict[str, Any] = {}
    try:
        asyncio.run(life(lab, found))
    finally:
        Path("/run/out/found").write_text(json.dumps(found))
        lab.close()


if __name__ == "__main__":
    main()
