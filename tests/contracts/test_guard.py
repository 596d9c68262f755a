"""The contract of ports.Guard: on the real kernel with namespaces as nodes, and on the simulated one.

Two members, and a stranger who sits on the same underlay; the first member is guarded. Members have VXLAN devices
as they are in life: made on the underlay, then moved into the network's own namespace. A process "behind" the
first member is a container on a bridge that masquerades. Frames are seen where the device hands them on.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import replace

import pytest

from swarmpy.adapters.netns import inside
from swarmpy.adapters.nftables import NftGuard, library
from swarmpy.ports import FabricError, GuardTable
from tests.contracts.forger import NOBODY, process, send
from tests.contracts.netlab import Lab, ip

VNI, PORT, SEALED = 4097, 4789, 4790
ONE, TWO, STRANGER = ("10.99.0.1", "fd99::1"), ("10.99.0.2", "fd99::2"), ("10.99.0.66", "fd99::66")
INSIDE = "172.31.7.2"
OTHERS = """
table ip filter {
 chain DOCKER-USER { type filter hook forward priority 0; policy accept; counter; }
}
table inet admin {
 chain input { type filter hook input priority 0; udp dport 4789 counter accept; }
}
table ip nat {
 chain post { type nat hook postrouting priority 100; ip saddr 172.31.7.0/24 oifname eth0 masquerade; }
}
"""


def frame(word: bytes, vni: int = VNI) -> bytes:
    """A VXLAN packet whose frame says a word to everybody."""
    return struct.pack("!II", 0x08000000, vni << 8) + b"\xff" * 6 + bytes.fromhex("020000000099") + b"\x88\xb5" + word.ljust(46, b".")  # fmt: skip


class Member:
    """A node: its underlay, and its end of one network over each IP version."""

    def __init__(self, lab: Lab, name: str, addresses: tuple[str, str], other: tuple[str, str]) -> None:
        self.space, self.lab = lab.space(name), lab
        self.addresses = addresses
        lab.plug(self.space, "eth0", "under", f"{addresses[0]}/24", f"{addresses[1]}/64")
        self.networks = []
        for version, own, peer in zip((4, 6), addresses, other, strict=True):
            network = lab.space(f"{name}v{version}")
            ip(
                f"-n {lab.name(self.space)} link add vx{version} type vxlan id {VNI + version} dstport {PORT}"
                f" local {own} remote {peer} nolearning{' udp6zerocsumrx' if version == 6 else ''}"
            )
            ip(f"-n {lab.name(self.space)} link set vx{version} netns {lab.name(network)}")
            ip(f"-n {lab.name(network)} link set vx{version} up")
            self.networks.append(network)

    def send(self, number: int, word: bytes) -> None:
        """The member's own VXLAN device sends."""
        with inside(self.networks[number], socket.socket, socket.AF_PACKET, socket.SOCK_RAW) as made:
            made.bind((f"vx{(4, 6)[number]}", 0))
            made.send(frame(word)[8:])


class Ear:
    """Everything that a member's devices hand on."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self.sockets = []
        for number, network in enumerate(member.networks):
            made = inside(network, socket.socket, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88B5))
            made.bind((f"vx{(4, 6)[number]}", 0x88B5))
            made.settimeout(10)
            self.sockets.append(made)

    def heard(self, number: int, sender: Member, last: bytes) -> list[bytes]:
        """The words up to `last`, which the sender says now: what came before it has been here, or never
        comes, as the underlay keeps the order."""
        sender.send(number, last)
        words = []
        while last not in words:
            words.append(self.sockets[number].recv(2000)[14:].rstrip(b"."))
        return words[:-1]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    made = Lab()
    try:
        made.bridge("under")
        made.one, made.two = Member(made, "one", ONE, TWO), Member(made, "two", TWO, ONE)
        made.stranger = made.space("stranger")
        made.plug(made.stranger, "eth0", "under", f"{STRANGER[0]}/24", f"{STRANGER[1]}/64")
        made.behind = made.space("behind")
        one, behind = made.name(made.one.space), made.name(made.behind)
        ip(f"-n {one} link add docker0 type veth peer name eth0 netns {behind}")
        ip(f"-n {one} address add 172.31.7.1/24 dev docker0")
        ip(f"-n {one} link set docker0 up")
        ip(f"-n {behind} address add {INSIDE}/24 dev eth0")
        ip(f"-n {behind} link set eth0 up")
        ip(f"-n {behind} route add default via 172.31.7.1")
        inside(made.one.space, open_forwarding)
        made.ears = {"one": Ear(made.one), "two": Ear(made.two)}
        yield made
        for ear in made.ears.values():
            for one in ear.sockets:
                one.close()
    finally:
        made.close()


def open_forwarding() -> None:
    for path in ("ip_forward", "conf/all/rp_filter", "conf/eth0/rp_filter", "conf/docker0/rp_filter"):
        with open(f"/proc/sys/net/ipv4/{path}", "w") as file:
            file.write("1" if path == "ip_forward" else "0")
    library.run(OTHERS)


@pytest.fixture
async def guard(lab: Lab) -> NftGuard:
    made = NftGuard(lab.one.space)
    await made.clear()
    assert await made.observe() == ""
    return made


TABLE = GuardTable(local=ONE[0], port=PORT, peers=TWO)
BOTH = replace(TABLE, local=ONE[0], peers=(TWO[0], TWO[1]))


def rules(space: str) -> str:
    return inside(space, library.run, "list ruleset\n")


def forge(space: str, target: str, data: bytes, *, port: int = PORT, source: str = "") -> str:
    """From another machine, or from a container."""
    return inside(space, send, target, port, data, source)


@pytest.mark.parametrize("version", [4, 6])
async def test_a_members_frames_pass_and_a_strangers_are_dropped(
    guard: NftGuard, lab: Lab, version: int
) -> None:
    number = (4, 6).index(version)
    vni = VNI + version
    forge(lab.stranger, ONE[number], frame(b"before", vni))
    assert lab.ears["one"].heard(number, lab.two, b"first") == [b"before"], "nothing to guard against"
    await guard.apply(BOTH)
    forge(lab.stranger, ONE[number], frame(b"forged", vni))
    assert lab.ears["one"].heard(number, lab.two, b"second") == []


async def test_a_strangers_fragments_are_dropped(guard: NftGuard, lab: Lab) -> None:
    big = frame(b"x" * 3000, VNI + 4)
    forge(lab.stranger, ONE[0], big)
    assert lab.ears["one"].heard(0, lab.two, b"first") == [b"x" * 1986], "fragments do not arrive at all"
    await guard.apply(BOTH)
    forge(lab.stranger, ONE[0], big)
    assert lab.ears["one"].heard(0, lab.two, b"second") == []


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("user", [0, NOBODY])
async def test_a_process_cannot_speak_in_the_nodes_name(
    guard: NftGuard, lab: Lab, user: int, version: int
) -> None:
    """The node's VXLAN device itself goes on sending."""
    number = (4, 6).index(version)
    vni = VNI + version
    assert process(lab.one.space, TWO[number], PORT, frame(b"before", vni), user=user) == "sent"
    assert lab.ears["two"].heard(number, lab.one, b"first") == [b"before"], "nothing to guard against"
    await guard.apply(BOTH)
    assert (
        process(lab.one.space, TWO[number], PORT, frame(b"forged", vni), user=user)
        == "Operation not permitted"
    )
    assert lab.ears["two"].heard(number, lab.one, b"second") == []


async def test_a_process_cannot_speak_to_its_own_node(guard: NftGuard, lab: Lab) -> None:
    process(lab.one.space, ONE[0], PORT, frame(b"before", VNI + 4))
    process(lab.one.space, "127.0.0.1", PORT, frame(b"again", VNI + 4))
    assert lab.ears["one"].heard(0, lab.two, b"first") == [b"before", b"again"]
    await guard.apply(BOTH)
    for address in (ONE[0], "127.0.0.1"):
        process(lab.one.space, address, PORT, frame(b"forged", VNI + 4))
    assert lab.ears["one"].heard(0, lab.two, b"second") == []


async def test_a_container_cannot_speak_to_members(guard: NftGuard, lab: Lab) -> None:
    """Masqueraded, it would have the node's address."""
    forge(lab.behind, TWO[0], frame(b"before", VNI + 4))
    assert lab.ears["two"].heard(0, lab.one, b"first") == [b"before"], "nothing to guard against"
    await guard.apply(BOTH)
    forge(lab.behind, TWO[0], frame(b"forged", VNI + 4))
    assert lab.ears["two"].heard(0, lab.one, b"second") == []


async def test_a_container_cannot_pose_as_a_member(guard: NftGuard, lab: Lab) -> None:
    """Containers may send raw packets by default: with a member's address, to their own node or through it."""
    forge(lab.behind, ONE[0], frame(b"before", VNI + 4), source=TWO[0])
    assert lab.ears["one"].heard(0, lab.two, b"first") == [b"before"], "nothing to guard against"
    await guard.apply(BOTH)
    forge(lab.behind, ONE[0], frame(b"forged", VNI + 4), source=TWO[0])
    assert lab.ears["one"].heard(0, lab.two, b"second") == []


async def test_the_port_of_encrypted_networks_takes_nothing_in_the_clear(guard: NftGuard, lab: Lab) -> None:
    """Not even of a member. (That what came encrypted passes takes a kernel with IPsec: tests/uml.)"""
    with inside(lab.one.space, socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as ear:
        ear.bind(("", SEALED))
        ear.settimeout(10)
        await guard.apply(BOTH)
        forge(lab.two.space, ONE[0], b"plain", port=SEALED)
        assert ear.recv(100) == b"plain", "it is no port of ours on a node without encrypted networks"
        await guard.apply(replace(BOTH, sealed=SEALED))
        forge(lab.two.space, ONE[0], b"forged", port=SEALED)
        assert process(lab.one.space, TWO[0], SEALED, b"x") == "Operation not permitted"
        await guard.apply(BOTH)
        forge(lab.two.space, ONE[0], b"last", port=SEALED)
        assert ear.recv(100) == b"last"


async def test_nothing_leaves_in_the_clear_for_the_port_of_encrypted_networks(
    guard: NftGuard, lab: Lab
) -> None:
    """As when somebody flushed IPsec's policies: not even the VXLAN device may."""
    one, network = lab.name(lab.one.space), lab.name(lab.one.networks[0])
    ip(f"-n {one} link add vxs type vxlan id 9 dstport {SEALED} local {ONE[0]} remote {TWO[0]} nolearning")
    ip(f"-n {one} link set vxs netns {network}")
    ip(f"-n {network} link set vxs up")
    try:
        with (
            inside(lab.two.space, socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as ear,
            inside(lab.one.networks[0], socket.socket, socket.AF_PACKET, socket.SOCK_RAW) as device,
        ):
            ear.bind(("", SEALED))
            ear.settimeout(10)
            device.bind(("vxs", 0))
            device.send(frame(b"before")[8:])
            assert words(ear, b"before") == [], "nothing to guard against"
            await guard.apply(replace(BOTH, sealed=SEALED))
            device.send(frame(b"leaked")[8:])
            await guard.apply(BOTH)
            device.send(frame(b"last")[8:])
            assert words(ear, b"last") == []
    finally:
        ip(f"-n {network} link del vxs")


def words(ear: socket.socket, last: bytes) -> list[bytes]:
    """What VXLAN packets said up to `last`; IPv6 says things of its own on every new link."""
    found: list[bytes] = []
    while last not in found:
        packet = ear.recv(2000)
        if packet[20:22] == b"\x88\xb5":
            found.append(packet[22:].rstrip(b"."))
    return found[:-1]


async def test_other_ports_and_other_machines_are_none_of_its_business(guard: NftGuard, lab: Lab) -> None:
    await guard.apply(BOTH)
    with inside(lab.stranger, socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as ear:
        ear.bind(("", PORT))
        ear.settimeout(10)
        assert process(lab.one.space, STRANGER[0], PORT, b"own") == "sent"
        assert ear.recv(100) == b"own"
        forge(lab.behind, STRANGER[0], b"behind")
        assert ear.recv(100) == b"behind"
    with inside(lab.one.space, socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as ear:
        ear.bind(("", 4000))
        ear.settimeout(10)
        forge(lab.stranger, ONE[0], b"other", port=4000)
        assert ear.recv(100) == b"other"


async def test_members_come_and_go(guard: NftGuard, lab: Lab) -> None:
    await guard.apply(replace(BOTH, peers=(*TWO, STRANGER[0])))
    forge(lab.stranger, ONE[0], frame(b"welcome", VNI + 4))
    assert lab.ears["one"].heard(0, lab.two, b"first") == [b"welcome"]
    await guard.apply(BOTH)
    forge(lab.stranger, ONE[0], frame(b"farewell", VNI + 4))
    assert lab.ears["one"].heard(0, lab.two, b"second") == []


MEDDLERS = {
    "flushed": "flush ruleset", "deleted": "delete table inet swarmpy_guard",
    "emptied": "flush chain inet swarmpy_guard arriving",
    "let in": f"add element inet swarmpy_guard peers4 {{ {STRANGER[0]} }}",
    "locked out": f"delete element inet swarmpy_guard peers4 {{ {TWO[0]} }}",
    "overruled": "insert rule inet swarmpy_guard leaving accept",
    "asleep": "add table inet swarmpy_guard { flags dormant; }",
}  # fmt: skip


@pytest.mark.parametrize("how", MEDDLERS)
async def test_what_others_did_is_seen_and_mended(guard: NftGuard, lab: Lab, how: str) -> None:
    mark = await guard.apply(BOTH)
    assert await guard.observe() == mark
    inside(lab.one.space, library.run, MEDDLERS[how] + "\n")
    assert await guard.observe() != mark
    assert await guard.apply(BOTH) == mark == await guard.observe()
    assert await NftGuard(lab.one.space).observe() == mark, "an agent that starts anew knows its own"
    forge(lab.stranger, ONE[0], frame(b"forged", VNI + 4))
    assert lab.ears["one"].heard(0, lab.two, b"last") == []
    if how == "flushed":
        inside(lab.one.space, open_forwarding)


async def test_others_tables_stay_as_they_are_and_clear_leaves_nothing(guard: NftGuard, lab: Lab) -> None:
    before = quiet(rules(lab.one.space))
    assert "DOCKER-USER" in before
    assert "table inet admin" in before
    await guard.apply(BOTH)
    held = quiet(rules(lab.one.space))
    assert held.startswith(before)
    assert "swarmpy_guard" in held.removeprefix(before)
    forge(lab.stranger, ONE[0], frame(b"forged", VNI + 4))
    assert lab.ears["one"].heard(0, lab.two, b"last") == [], "the admin's accept does not overrule it"
    await guard.clear()
    await guard.clear()
    assert await guard.observe() == ""
    assert quiet(rules(lab.one.space)) == before


def quiet(text: str) -> str:
    """Rules without what counts."""
    return "\n".join(line.partition("counter packets")[0] for line in text.splitlines())


async def test_nothing_but_addresses_gets_into_a_rule(guard: NftGuard, lab: Lab) -> None:
    before = quiet(rules(lab.one.space))
    for wrong in (
        replace(BOTH, peers=("10.0.0.1 }; flush ruleset; #",)), replace(BOTH, port=1 << 16),
        replace(BOTH, local="everybody"),
    ):  # fmt: skip
        with pytest.raises(FabricError):
            await guard.apply(wrong)
    assert quiet(rules(lab.one.space)) == before


async def test_a_thousand_members_cost_no_second(guard: NftGuard, lab: Lab) -> None:
    crowd = tuple(f"10.98.{number >> 8}.{number & 255}" for number in range(1000))
    mark = await guard.apply(replace(BOTH, peers=(*crowd, *TWO)))
    assert await guard.observe() == mark
    forge(lab.stranger, ONE[0], frame(b"forged", VNI + 4))
    assert lab.ears["one"].heard(0, lab.two, b"last") == []
