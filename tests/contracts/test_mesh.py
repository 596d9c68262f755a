"""The contract of ports.Mesh, and of the returns in ports.Balancer, on the real kernel.

Three nodes in namespaces on one underlay bridge, each with an ingress namespace; a bridge stands for the overlay
between these and two backends. A backend has a second link, by which its default route leaves, as the Engine
gives it. An outside client is on the underlay.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest

from swarmpy.adapters.netns import inside
from swarmpy.adapters.nftables import NftBalancer, NftMesh, library
from swarmpy.adapters.nftables.meshrender import INNER
from swarmpy.ports import FabricError, MeshPort, MeshTable, Return, SandboxTable
from tests.contracts.netlab import Lab, call, connect, datagrams, ip, raw_sctp, say, sctp_init

OUTSIDE = "10.99.0.200"
BACKENDS = ("10.60.0.11", "10.60.0.12")
PORT, SNAT, ONE, NOBODY = 8080, 8081, 8082, 8083
"""Published: plainly; with the node's own address; at one address of the node; without backends."""
SECOND = "10.99.0.101"
"""Another address of the first node."""


class Node:
    def __init__(self, lab: Lab, number: int) -> None:
        self.address, self.own = f"10.99.0.{number}", f"10.60.0.10{number}"
        self.mac = f"02:42:0a:3c:00:{number:02x}"
        self.space, self.ingress = lab.space(f"n{number}"), lab.space(f"i{number}")
        lab.plug(self.space, "eth0", "under", f"{self.address}/24")
        lab.plug(self.ingress, "vx0", "over")
        name = lab.name(self.ingress)
        ip(f"-n {name} link add br0 address {self.mac} type bridge")
        ip(f"-n {name} address add {self.own}/24 dev br0")
        ip(f"-n {name} link set br0 up")
        ip(f"-n {name} link set vx0 master br0")
        self.mesh = NftMesh(lambda network_id: self.ingress, self.space)
        self.table = MeshTable(
            network_id="ingress", addresses=(self.own,),
            ports=(
                MeshPort("tcp", PORT, 80, BACKENDS), MeshPort("udp", PORT, 80, BACKENDS),
                MeshPort("tcp", SNAT, 80, BACKENDS, snat=True), MeshPort("tcp", ONE, 80, BACKENDS),
                MeshPort("tcp", NOBODY, 80, ()), MeshPort("sctp", PORT, 80, BACKENDS),
            ),
            hosts=(("tcp", PORT, ""), ("udp", PORT, ""), ("tcp", SNAT, ""), ("tcp", NOBODY, ""), ("sctp", PORT, ""),
                   ("tcp", ONE, SECOND)),
        )  # fmt: skip


@contextmanager
def whole() -> Iterator[Lab]:
    """Nodes, backends and clients."""
    made = Lab()
    try:
        for bridge in ("under", "over", "out"):
            made.bridge(bridge)
        made.outside = made.space("outside")
        made.plug(made.outside, "eth0", "under", f"{OUTSIDE}/24")
        made.nodes = [Node(made, number) for number in (1, 2, 3)]
        ip(f"-n {made.name(made.nodes[0].space)} address add {SECOND}/24 dev eth0")
        made.backends = []
        for number, address in enumerate(BACKENDS, 1):
            space = made.space(f"b{number}")
            made.plug(space, "eth1", "out", f"172.18.0.{number + 1}/16")
            made.plug(space, "ing0", "over", f"{address}/24")
            ip(f"-n {made.name(space)} route add default via 172.18.0.1")
            made.server.listen(space, address, 80)
            made.backends.append(space)
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with whole() as made:
        yield made


def returns(lab: Lab, address: str) -> SandboxTable:
    return SandboxTable(
        ingress_address=address,
        returns=tuple(Return(number, node.mac, node.own) for number, node in enumerate(lab.nodes, 1)),
    )


async def mend(lab: Lab) -> None:
    """All as it should be; what a test changed is made good."""
    balancer = NftBalancer()
    for node in lab.nodes:
        await node.mesh.apply(node.table, None)
    for space, address in zip(lab.backends, BACKENDS, strict=True):
        await balancer.apply(space, returns(lab, address), None)


@pytest.fixture
async def mesh(lab: Lab) -> Lab:
    await mend(lab)
    return lab


async def test_every_node_answers_from_every_backend_and_the_client_is_seen(mesh: Lab) -> None:
    for node in mesh.nodes:
        seen = [call(mesh.outside, node.address, PORT) for _ in range(4)]
        assert Counter(who for who, _ in seen) == dict.fromkeys(BACKENDS, 2)
        assert {source for _, source in seen} == {OUTSIDE}


async def test_udp(mesh: Lab) -> None:
    for node in mesh.nodes:
        seen = set()
        for _ in range(4):
            with datagrams(mesh.outside, node.address, PORT) as made:
                made.send(b"x")
                seen.add(tuple(made.recv(100).decode().split()))
        assert seen == {(address, OUTSIDE) for address in BACKENDS}


async def test_sctp_by_its_first_packet(mesh: Lab) -> None:
    with ExitStack() as opened:
        heard = [opened.enter_context(raw_sctp(space)) for space in mesh.backends]
        sender = opened.enter_context(raw_sctp(mesh.outside))
        for port in (40001, 40002):
            sender.sendto(sctp_init(port, PORT), (mesh.nodes[2].address, 0))
        for one in heard:
            packet = one.recv(2000)
            assert packet[12:16] == socket.inet_aton(OUTSIDE)
            assert packet[22:24] == (80).to_bytes(2)


async def test_from_the_node_itself(mesh: Lab) -> None:
    for node in mesh.nodes:
        for address in ("127.0.0.1", node.address):
            seen = [call(node.space, address, PORT) for _ in range(2)]
            assert {who for who, _ in seen} == set(BACKENDS)
            assert {source for _, source in seen} == {node.own}


async def test_from_one_node_to_another(mesh: Lab) -> None:
    one, other, _ = mesh.nodes
    assert {call(one.space, other.address, PORT)[1] for _ in range(2)} == {one.address}


async def test_one_address_and_port_of_a_client_through_two_nodes(mesh: Lab) -> None:
    """The backend sees two connections that look the same but for the node that they came through."""
    for node in mesh.nodes:
        ports = tuple(replace(port, backends=BACKENDS[:1]) for port in node.table.ports)
        await node.mesh.apply(replace(node.table, ports=ports), node.table)
    opened = [connect(mesh.outside, node.address, PORT, source=(OUTSIDE, 45557)) for node in mesh.nodes]
    try:
        assert [(who, seen) for _, who, seen in opened] == [(BACKENDS[0], OUTSIDE)] * 3
        assert [say(connection) for connection, *_ in opened] == [BACKENDS[0]] * 3
    finally:
        for connection, *_ in opened:
            connection.close()


async def test_a_port_may_hide_the_client(mesh: Lab) -> None:
    for node in mesh.nodes:
        assert call(mesh.outside, node.address, SNAT)[1] == node.own
    assert call(mesh.outside, mesh.nodes[0].address, PORT)[1] == OUTSIDE


async def test_hiding_needs_nothing_in_the_backend(mesh: Lab) -> None:
    for space in mesh.backends:
        await NftBalancer().clear(space)
    assert call(mesh.outside, mesh.nodes[0].address, SNAT)[1] == mesh.nodes[0].own
    with pytest.raises(TimeoutError):
        call(mesh.outside, mesh.nodes[0].address, PORT, timeout=1)


async def test_a_port_at_one_address_only(mesh: Lab) -> None:
    first = mesh.nodes[0]
    assert call(mesh.outside, SECOND, ONE)[1] == OUTSIDE
    for space, address in ((mesh.outside, first.address), (first.space, "127.0.0.1")):
        with pytest.raises(ConnectionRefusedError):
            call(space, address, ONE)


async def test_refused_at_once(mesh: Lab) -> None:
    for port in (NOBODY, PORT + 99):
        with pytest.raises(ConnectionRefusedError):
            call(mesh.outside, mesh.nodes[2].address, port, timeout=1)


async def test_backends_come_and_go_without_a_failure(mesh: Lab) -> None:
    node = mesh.nodes[0]
    opened = connect(mesh.outside, node.address, PORT)[0]
    flow = datagrams(mesh.outside, node.address, PORT)
    with opened, flow:
        flow.send(b"x")
        held, had = say(opened), flow.recv(100).decode().split()[0]
        table = node.table
        for wanted in (
            (BACKENDS[0],),
            (BACKENDS[1],),
            BACKENDS,
            tuple(one for one in BACKENDS if one != had),
        ):
            ports = tuple(replace(port, backends=wanted) for port in node.table.ports)
            changed = replace(node.table, ports=ports)
            print_of = await node.mesh.apply(changed, table)
            assert await node.mesh.observe() == print_of
            assert {call(mesh.outside, node.address, PORT)[0] for _ in range(2)} == set(wanted)
            assert say(opened) == held
            flow.send(b"x")
            assert flow.recv(100).decode().split()[0] in wanted
            table = changed


async def test_a_port_is_published_and_withdrawn(mesh: Lab) -> None:
    node = mesh.nodes[0]
    less = replace(node.table, ports=node.table.ports[1:], hosts=node.table.hosts[1:])
    await node.mesh.apply(less, node.table)
    with pytest.raises(ConnectionRefusedError):
        call(mesh.outside, node.address, PORT)
    with datagrams(mesh.outside, node.address, PORT) as made:
        made.send(b"x")
        assert made.recv(100)
        without = replace(less, ports=less.ports[1:], hosts=less.hosts[1:])
        await node.mesh.apply(without, less)
        made.send(b"x")
        with pytest.raises(ConnectionRefusedError):
            made.recv(100)
        await node.mesh.apply(node.table, None)
        made.send(b"x")
        assert made.recv(100)
    assert call(mesh.outside, node.address, PORT)[1] == OUTSIDE


async def test_a_container_cannot_leave_through_a_node(mesh: Lab) -> None:
    """The way through the ingress network is for replies."""
    node, backend = mesh.nodes[0], mesh.backends[0]
    mesh.server.listen(mesh.outside, "outside", 9000)
    ip(f"-n {mesh.name(backend)} route add {OUTSIDE}/32 via {node.own}")
    try:
        with pytest.raises(TimeoutError):
            call(backend, OUTSIDE, 9000, timeout=1)
    finally:
        ip(f"-n {mesh.name(backend)} route del {OUTSIDE}/32")


HOST_DAMAGE = (
    "nft flush ruleset",
    "nft delete element inet swarmpy_mesh pub { tcp . 8080 }",
    "nft flush chain inet swarmpy_mesh enter",
    "ip link del gwi",
    "ip link set gwi down",
    "sysctl -qw net.ipv4.conf.gwi.route_localnet=0",
)
INNER_DAMAGE = (
    "nft flush ruleset",
    "nft flush chain inet swarmpy_mesh tcp_8080",
    "ip route del default",
    "ip address flush dev gw0",
    "sysctl -qw net.ipv4.ip_forward=0",
)


@pytest.mark.parametrize(
    ("place", "damage"),
    [*(("space", one) for one in HOST_DAMAGE), *(("ingress", one) for one in INNER_DAMAGE)],
)
async def test_damage_by_others_is_seen_and_mended(mesh: Lab, place: str, damage: str) -> None:
    node = mesh.nodes[0]
    print_of = await node.mesh.observe()
    assert print_of
    assert await node.mesh.apply(node.table, node.table) == print_of
    run_in(mesh, getattr(node, place), damage)
    assert await node.mesh.observe() == ""
    assert await node.mesh.apply(node.table, node.table) == print_of
    assert await node.mesh.observe() == print_of
    assert call(mesh.outside, node.address, PORT)[1] == OUTSIDE
    assert call(node.space, "127.0.0.1", PORT)[1] == node.own


RETURN_DAMAGE = (
    "nft flush ruleset",
    "ip rule del pref 20000",
    "ip route flush table 1392508929",
    "sysctl -qw net.ipv4.conf.ing0.rp_filter=1",
)


async def test_an_address_that_the_kernel_gives_the_link_later_is_no_damage(mesh: Lab) -> None:
    node = mesh.nodes[0]
    print_of = await node.mesh.observe()
    name = mesh.name(node.ingress)
    ip(f"-n {name} -6 address flush dev {INNER} scope link")
    assert await node.mesh.observe() == print_of
    ip(f"-n {name} -6 address add fe80::1/64 dev {INNER} nodad")
    assert await node.mesh.observe() == print_of


async def test_a_container_that_is_plugged_in_is_no_damage(mesh: Lab) -> None:
    node = mesh.nodes[0]
    print_of, name = await node.mesh.observe(), mesh.name(node.ingress)
    assert print_of
    ip(f"-n {name} link add plugged type veth peer name other")
    try:
        for link in ("plugged", "other"):
            ip(f"-n {name} link set {link} up")
        ip(f"-n {name} link set plugged master br0")
        assert await node.mesh.observe() == print_of
    finally:
        ip(f"-n {name} link delete plugged")
    assert await node.mesh.observe() == print_of


@pytest.mark.parametrize("damage", RETURN_DAMAGE)
async def test_damaged_returns_are_seen_and_mended(mesh: Lab, damage: str) -> None:
    balancer, backend, wanted = NftBalancer(), mesh.backends[0], returns(mesh, BACKENDS[0])
    print_of = await balancer.observe(backend)
    assert print_of
    run_in(mesh, backend, damage)
    assert await balancer.observe(backend) == ""
    assert await balancer.apply(backend, wanted, wanted) == print_of
    assert await balancer.observe(backend) == print_of
    for node in mesh.nodes:
        assert {call(mesh.outside, node.address, PORT)[0] for _ in range(2)} == set(BACKENDS)


async def test_a_node_that_is_no_ingress_node_any_more(mesh: Lab) -> None:
    balancer, backend, wanted = NftBalancer(), mesh.backends[0], returns(mesh, BACKENDS[0])
    less = replace(wanted, returns=wanted.returns[1:])
    await balancer.apply(backend, less, wanted)
    assert ip(f"-n {mesh.name(backend)} rule").count("20000:") == 2
    await balancer.apply(backend, SandboxTable(), less)
    assert "20000:" not in ip(f"-n {mesh.name(backend)} rule")
    assert "back_zone" not in inside(backend, library.run, "list ruleset\n")


async def test_without_its_link_a_sandbox_is_told_to_wait(mesh: Lab) -> None:
    with pytest.raises(FabricError, match=r"no link has the ingress address 10\.60\.0\.77"):
        await NftBalancer().apply(mesh.backends[0], returns(mesh, "10.60.0.77"), None)


async def test_the_pair_of_links_keeps_out_of_the_way(mesh: Lab) -> None:
    node = mesh.nodes[0]
    await node.mesh.clear()
    name = mesh.name(node.space)
    ip(f"-n {name} link add other type bridge")
    ip(f"-n {name} address add 172.30.0.1/16 dev other")
    ip(f"-n {name} link set other up")
    try:
        await node.mesh.apply(node.table, None)
        assert "172.31.255.253/30" in ip(f"-n {name} address show dev gwi")
        assert call(mesh.outside, node.address, PORT)[1] == OUTSIDE
        assert call(node.space, "127.0.0.1", PORT)[1] == node.own
    finally:
        ip(f"-n {name} link del other")


async def test_dockers_filter_lets_the_mesh_pass(mesh: Lab) -> None:
    node = mesh.nodes[0]
    for rule in (
        "-N DOCKER-USER",
        "-A DOCKER-USER -j RETURN",
        "-A FORWARD -j DOCKER-USER",
        "-P FORWARD DROP",
    ):
        run_in(mesh, node.space, f"iptables {rule}")
    try:
        with pytest.raises(TimeoutError):
            call(mesh.outside, node.address, PORT, timeout=1)
        assert await node.mesh.observe() == ""
        print_of = await node.mesh.apply(node.table, node.table)
        assert await node.mesh.observe() == print_of
        assert call(mesh.outside, node.address, PORT)[1] == OUTSIDE
        run_in(mesh, node.space, "iptables -F DOCKER-USER")
        assert await node.mesh.observe() == ""
        await node.mesh.apply(node.table, node.table)
        assert call(mesh.outside, node.address, PORT)[1] == OUTSIDE
        await node.mesh.clear()
        assert "gwi" not in run_in(mesh, node.space, "iptables -S DOCKER-USER")
    finally:
        run_in(mesh, node.space, "nft flush ruleset")


async def test_nothing_is_left_when_it_is_cleared(mesh: Lab) -> None:
    node = mesh.nodes[0]
    await node.mesh.clear()
    assert await node.mesh.observe() == ""
    for space in (node.space, node.ingress):
        assert "swarmpy" not in inside(space, library.run, "list ruleset\n")
    assert "gwi" not in ip(f"-n {mesh.name(node.space)} link")
    await node.mesh.clear()
    for space in mesh.backends:
        await NftBalancer().clear(space)
        assert "swarmpy" not in inside(space, library.run, "list ruleset\n")
        assert len(ip(f"-n {mesh.name(space)} rule").splitlines()) == 3
        assert ip(f"-n {mesh.name(space)} route show table all").count("via") == 1


async def test_a_foreign_link_of_that_name_is_left_alone(mesh: Lab) -> None:
    node = mesh.nodes[0]
    await node.mesh.clear()
    ip(f"-n {mesh.name(node.space)} link add gwi type bridge")
    try:
        with pytest.raises(FabricError, match="is not ours"):
            await node.mesh.apply(node.table, None)
        await node.mesh.clear()
        assert "gwi" in ip(f"-n {mesh.name(node.space)} link")
    finally:
        ip(f"-n {mesh.name(node.space)} link del gwi")


def run_in(lab: Lab, space: str, command: str) -> str:
    return ip(f"netns exec {lab.name(space)} {command}")
