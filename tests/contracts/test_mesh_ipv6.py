"""The contract of ports.Mesh, and of the returns in ports.Balancer, over IPv6 on the real kernel.

As test_mesh.py: three nodes in namespaces on one underlay bridge, each with an ingress namespace; a bridge stands
for the overlay. Of two backends one has a way out over IPv6, and one has none, as most containers. A router leads
to a client far away, behind a narrow link.
"""

from __future__ import annotations

import errno
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from swarmpy.adapters.ipvs.nftmarks import NftMarks
from swarmpy.adapters.netns import inside
from swarmpy.adapters.nftables import NftBalancer, NftMesh, library
from swarmpy.ports import MeshPort, MeshTable, Return, SandboxTable
from tests.contracts.netlab import Lab, call, connect, datagrams, ip, say

OUTSIDE, FAR, ROUTER = "2001:db8::200", "2001:db8:f::2", "2001:db8::fe"
OLD = ("10.60.0.11", "10.60.0.12")
BACKENDS = ("fd60::11", "fd60::12")
PORT, SNAT, ONE, LOOP, NOBODY = 8080, 8081, 8082, 8083, 8084
"""Published: plainly; with the node's own address; at one address; at ::1; without a backend over IPv6."""
SECOND = "2001:db8::101"
LONG = "x" * 20_000


class Node:
    def __init__(self, lab: Lab, number: int) -> None:
        self.address, self.own, self.old = f"2001:db8::{number}", f"fd60::10{number}", f"10.60.0.10{number}"
        self.mac = f"02:42:0a:3c:00:{number:02x}"
        self.space, self.ingress = lab.space(f"n{number}"), lab.space(f"i{number}")
        lab.plug(self.space, "eth0", "under", f"10.99.0.{number}/24", f"{self.address}/64")
        lab.plug(self.ingress, "vx0", "over")
        self.name = lab.name(self.space)
        name = lab.name(self.ingress)
        ip(f"-n {name} link add br0 address {self.mac} mtu 1450 type bridge")
        ip(f"-n {name} address add {self.old}/24 dev br0")
        ip(f"-n {name} address add {self.own}/64 dev br0 nodad")
        ip(f"-n {name} link set br0 up")
        ip(f"-n {name} link set vx0 mtu 1450 master br0")
        self.mesh = NftMesh(lambda network_id: self.ingress, self.space)
        both = (*OLD, *BACKENDS)
        self.table = MeshTable(
            network_id="ingress", addresses=(self.old, self.own),
            ports=(
                MeshPort("tcp", PORT, 80, both), MeshPort("udp", PORT, 80, both), MeshPort("sctp", PORT, 80, both),
                MeshPort("tcp", SNAT, 80, both, snat=True), MeshPort("tcp", ONE, 80, both),
                MeshPort("tcp", LOOP, 80, both), MeshPort("tcp", NOBODY, 80, OLD),
            ),
            hosts=(*((protocol, PORT, "") for protocol in ("tcp", "udp", "sctp")), ("tcp", SNAT, ""),
                   ("tcp", NOBODY, ""), ("tcp", ONE, SECOND), ("tcp", LOOP, "::1")),
        )  # fmt: skip


@contextmanager
def whole() -> Iterator[Lab]:
    """Nodes, backends and clients."""
    made = Lab()
    try:
        for bridge in ("under", "over", "out", "beyond"):
            made.bridge(bridge)
        made.outside = made.space("outside")
        made.plug(made.outside, "eth0", "under", "10.99.0.200/24", f"{OUTSIDE}/64")
        made.nodes = [Node(made, number) for number in (1, 2, 3)]
        ip(f"-n {made.nodes[0].name} address add {SECOND}/64 dev eth0 nodad")
        router, made.far = made.space("router"), made.space("far")
        made.plug(router, "eth0", "under", f"{ROUTER}/64")
        made.plug(router, "eth1", "beyond", "2001:db8:f::1/64")
        made.plug(made.far, "eth0", "beyond", f"{FAR}/64")
        ip(f"-n {made.name(router)} link set eth1 mtu 1280")
        run_in(made, router, "sysctl -qw net.ipv6.conf.all.forwarding=1")
        ip(f"-n {made.name(made.far)} route add default via 2001:db8:f::1")
        for node in made.nodes:
            ip(f"-n {node.name} route add 2001:db8:f::/64 via {ROUTER}")
        made.backends = [_backend(made, number) for number in (1, 2)]
        ip(f"-n {made.name(made.backends[1])} address add fd18::3/64 dev eth1 nodad")
        ip(f"-n {made.name(made.backends[1])} route add default via fd18::1")
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with whole() as made:
        yield made


def _backend(lab: Lab, number: int) -> str:
    space, address = lab.space(f"b{number}"), BACKENDS[number - 1]
    lab.plug(space, "eth1", "out", f"172.18.0.{number + 1}/16")
    lab.plug(space, "ing0", "over", f"{OLD[number - 1]}/24", f"{address}/64")
    ip(f"-n {lab.name(space)} link set ing0 mtu 1450")
    ip(f"-n {lab.name(space)} route add default via 172.18.0.1")
    lab.server.listen(space, address, 80, family=socket.AF_INET6)
    lab.server.listen(space, OLD[number - 1], 80)
    lab.server.listen(space, LONG, 81, family=socket.AF_INET6)
    return space


def returns(lab: Lab, number: int) -> SandboxTable:
    ways = tuple(Return(number, node.mac, node.old, node.own) for number, node in enumerate(lab.nodes, 1))
    return SandboxTable((), OLD[number], ways, BACKENDS[number])


async def mend(lab: Lab) -> None:
    """All as it should be; what a test changed is made good."""
    for node in lab.nodes:
        await node.mesh.apply(node.table, None)
    for number, space in enumerate(lab.backends):
        await NftBalancer().apply(space, returns(lab, number), None)


@pytest.fixture
async def mesh(lab: Lab) -> Lab:
    await mend(lab)
    return lab


def answers(lab: Lab, space: str, address: str, port: int = PORT) -> None:
    """Every backend answers, once in turn."""
    seen = [call(space, address, port) for _ in range(4)]
    assert Counter(who for who, _ in seen) == dict.fromkeys(BACKENDS, 2)


def asked_by_datagram(space: str, address: str) -> tuple[str, ...]:
    with datagrams(space, address, PORT) as made:
        made.send(b"x")
        return tuple(made.recv(100).decode().split())


async def test_every_node_answers_and_the_client_is_seen(mesh: Lab) -> None:
    for node in mesh.nodes:
        seen = [call(mesh.outside, node.address, PORT) for _ in range(4)]
        assert Counter(seen) == dict.fromkeys(((one, OUTSIDE) for one in BACKENDS), 2)
        assert {asked_by_datagram(mesh.outside, node.address) for _ in range(4)} == {
            (one, OUTSIDE) for one in BACKENDS
        }
        old = [call(mesh.outside, node.address.replace("2001:db8::", "10.99.0."), PORT) for _ in range(2)]
        assert {who for who, _ in old} == set(OLD)


async def test_from_the_node_itself(mesh: Lab) -> None:
    for node in mesh.nodes:
        for address in ("::1", node.address):
            seen = [call(node.space, address, PORT) for _ in range(2)]
            assert {who for who, _ in seen} == set(BACKENDS)
            assert {source for _, source in seen} == {node.own}
            assert asked_by_datagram(node.space, address)[1] == node.own


async def test_from_one_node_to_another(mesh: Lab) -> None:
    _, one, other = mesh.nodes
    assert {call(one.space, other.address, PORT)[1] for _ in range(2)} == {one.address}


async def test_from_a_container_of_the_node(mesh: Lab) -> None:
    """One that has a way out over IPv6, through the node: by the node's own address and by another's."""
    node, other = mesh.nodes[0], mesh.nodes[1]
    space = mesh.space("client")
    ip(f"-n {node.name} link add br-c type bridge")
    ip(f"-n {node.name} link set br-c up")
    ip(f"-n {node.name} address add fd77::1/64 dev br-c nodad")
    ip(f"-n {node.name} link add c0 type veth peer name eth0 netns {mesh.name(space)}")
    ip(f"-n {node.name} link set c0 master br-c up")
    ip(f"-n {mesh.name(space)} address add fd77::2/64 dev eth0 nodad")
    ip(f"-n {mesh.name(space)} link set eth0 up")
    ip(f"-n {mesh.name(space)} route add default via fd77::1")
    try:
        await node.mesh.apply(node.table, None)
        assert {call(space, node.address, PORT) for _ in range(2)} == {(one, "fd77::2") for one in BACKENDS}
        # Nobody who comes later is listened to for routes.
        assert inside(node.space, read, "/proc/sys/net/ipv6/conf/br-c/accept_ra") == "1"
        with pytest.raises(TimeoutError):
            call(space, other.address, PORT, timeout=1)  # the node does not forward for it
    finally:
        ip(f"-n {node.name} link del c0")
        ip(f"-n {node.name} link del br-c")


async def test_one_address_and_port_of_a_client_through_every_node(mesh: Lab) -> None:
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


async def test_where_a_port_is_published(mesh: Lab) -> None:
    first = mesh.nodes[0]
    assert call(mesh.outside, first.address, SNAT)[1] == first.own
    assert call(mesh.outside, SECOND, ONE)[1] == OUTSIDE
    assert call(first.space, "::1", LOOP)[1] == first.own
    for space, address, port in (
        (mesh.outside, first.address, ONE), (first.space, "::1", ONE), (mesh.outside, first.address, LOOP),
        (mesh.outside, first.address, NOBODY), (mesh.outside, first.address, PORT + 99),
    ):  # fmt: skip
        with pytest.raises(ConnectionRefusedError):
            call(space, address, port, timeout=1)
    assert call(mesh.outside, "10.99.0.1", NOBODY)[0] in OLD


async def test_the_marks_of_ipvs_lead_replies_back_too(mesh: Lab) -> None:
    for number, space in enumerate(mesh.backends):
        await NftBalancer().clear(space)
        marks, table = NftMarks(), returns(mesh, number)
        inside(space, lambda: marks.write(space, table, {}, marks.read(space)))  # noqa: B023  done at once
    for node in mesh.nodes:
        answers(mesh, mesh.outside, node.address)
        assert asked_by_datagram(mesh.outside, node.address)[1] == OUTSIDE
    for space in mesh.backends:
        inside(space, NftMarks().clear, space)


async def test_a_narrow_link_far_away_is_learned_of_through_the_mesh(mesh: Lab) -> None:
    """The router's packet-too-big finds the backend; and that of the ingress network the client."""
    node = mesh.nodes[1]
    wide = (*node.table.ports[:-1], MeshPort("tcp", NOBODY, 81, BACKENDS))
    await node.mesh.apply(replace(node.table, ports=wide), node.table)
    for _ in BACKENDS:
        assert inside(mesh.far, read_all, node.address, NOBODY) == len(f"{LONG} {FAR}\n")
    with datagrams(mesh.outside, node.address, PORT) as made:
        assert made.getsockopt(socket.IPPROTO_IPV6, 24) == 1500  # IPV6_MTU
        made.setsockopt(socket.IPPROTO_IPV6, 62, 1)  # IPV6_DONTFRAG
        made.send(b"x" * 1452)
        with pytest.raises(OSError, match="too long"):
            made.recv(100)
        made.setsockopt(socket.IPPROTO_IPV6, 62, 0)
        assert made.getsockopt(socket.IPPROTO_IPV6, 24) == 1450
        made.send(b"x" * 1452)
        assert made.recv(100).decode().split()[1] == OUTSIDE


def read_all(address: str, port: int) -> int:
    with socket.create_connection((address, port), timeout=5) as made:
        count = 0
        while count < len(LONG):
            count += len(made.recv(1 << 16))
        return count


# ---------------------------------------------------------------- the way by some node is for replies


async def test_a_container_without_a_way_out_is_told_so_at_once(mesh: Lab) -> None:
    alone, served = mesh.backends
    with pytest.raises(OSError, match="unreachable") as refused:
        call(alone, OUTSIDE, 9000, timeout=5)
    assert refused.value.errno == errno.ENETUNREACH
    with datagrams(alone, OUTSIDE, 9000) as made, pytest.raises(PermissionError):
        made.send(b"x")
    # Who has one is not kept from it.
    mesh.plug(space := mesh.space("gate"), "eth0", "out", "fd18::1/64", "2001:db8:99::1/64")
    mesh.server.listen(space, "gate", 9000, family=socket.AF_INET6)
    assert call(served, "2001:db8:99::1", 9000) == ("gate", "fd18::3")


async def test_a_container_cannot_leave_through_a_node(mesh: Lab) -> None:
    node, backend = mesh.nodes[0], mesh.backends[0]
    mesh.server.listen(mesh.outside, "outside", 9000, family=socket.AF_INET6)
    ip(f"-n {mesh.name(backend)} route add {OUTSIDE}/128 via {node.own}")
    try:
        with pytest.raises(TimeoutError):
            call(backend, OUTSIDE, 9000, timeout=1)
    finally:
        ip(f"-n {mesh.name(backend)} route del {OUTSIDE}/128")


async def test_a_container_in_which_ipv6_was_switched_off_goes_on_with_ipv4(mesh: Lab) -> None:
    balancer, backend, wanted = NftBalancer(), mesh.backends[0], returns(mesh, 0)
    run_in(mesh, backend, "sysctl -qw net.ipv6.conf.ing0.disable_ipv6=1")
    try:
        assert await balancer.observe(backend) == ""
        print_of = await balancer.apply(backend, wanted, wanted)
        assert await balancer.observe(backend) == print_of
        assert {call(mesh.outside, "10.99.0.1", PORT)[0] for _ in range(2)} == set(OLD)
    finally:
        run_in(mesh, backend, "sysctl -qw net.ipv6.conf.ing0.disable_ipv6=0")
        ip(f"-n {mesh.name(backend)} address add {BACKENDS[0]}/64 dev ing0 nodad")
    assert await balancer.observe(backend) == ""
    await balancer.apply(backend, wanted, wanted)
    answers(mesh, mesh.outside, mesh.nodes[0].address)


# ---------------------------------------------------------------- the host


async def test_without_ipv6_in_the_network_nothing_of_it_is_touched(mesh: Lab) -> None:
    node = mesh.nodes[0]
    await node.mesh.clear()
    ports = tuple(replace(port, backends=OLD) for port in node.table.ports)
    await node.mesh.apply(replace(node.table, addresses=(node.old,), ports=ports), None)
    for space, address in ((mesh.outside, node.address), (node.space, "::1")):
        with pytest.raises(ConnectionRefusedError):
            call(space, address, PORT, timeout=1)
    assert call(mesh.outside, "10.99.0.1", PORT)[0] in OLD
    assert forwarding(mesh, node) == "0"
    assert "fd" not in ip(f"-n {node.name} -6 address show dev gwi")


async def test_a_host_without_ipv6_publishes_over_it_once_it_has_an_address(mesh: Lab) -> None:
    node = mesh.nodes[0]
    await node.mesh.clear()
    for address in (node.address, SECOND):
        ip(f"-n {node.name} address del {address}/64 dev eth0")
    try:
        print_of = await node.mesh.apply(node.table, None)
        assert forwarding(mesh, node) == "0"
        assert await node.mesh.observe() == print_of
        assert call(mesh.outside, "10.99.0.1", PORT)[0] in OLD
    finally:
        for address in (node.address, SECOND):
            ip(f"-n {node.name} address add {address}/64 dev eth0 nodad")
        ip(f"-n {node.name} route replace 2001:db8:f::/64 via {ROUTER}")
    assert await node.mesh.observe() == ""
    await node.mesh.apply(node.table, node.table)
    answers(mesh, mesh.outside, node.address)


async def test_a_host_that_forwarded_nothing_forwards_for_the_mesh_only(mesh: Lab) -> None:
    node = mesh.nodes[0]
    ip(f"-n {mesh.name(mesh.outside)} route add 2001:db8:f::/64 via {node.address}")
    mesh.server.listen(mesh.far, "far", 9001, family=socket.AF_INET6)
    run_in(mesh, mesh.far, "ip route add 2001:db8::200/128 via 2001:db8:f::1")
    try:
        assert forwarding(mesh, node) == "1"
        with pytest.raises(TimeoutError):
            call(mesh.outside, FAR, 9001, timeout=1)
        # As another process finds it, and after somebody flushed all rules.
        node.mesh = NftMesh(lambda network_id: node.ingress, node.space)
        await node.mesh.apply(node.table, None)
        run_in(mesh, node.space, "nft flush ruleset")
        await node.mesh.apply(node.table, node.table)
        with pytest.raises(TimeoutError):
            call(mesh.outside, FAR, 9001, timeout=1)
        await node.mesh.clear()
        assert forwarding(mesh, node) == "0"
        # Who forwarded before goes on with it, also afterwards.
        run_in(mesh, node.space, "sysctl -qw net.ipv6.conf.all.forwarding=1")
        await node.mesh.apply(node.table, None)
        assert call(mesh.outside, FAR, 9001) == ("far", OUTSIDE)
        await node.mesh.clear()
        assert forwarding(mesh, node) == "1"
    finally:
        ip(f"-n {mesh.name(mesh.outside)} route del 2001:db8:f::/64")
        run_in(mesh, node.space, "sysctl -qw net.ipv6.conf.all.forwarding=0")


async def test_a_default_route_from_router_advertisements_stays(mesh: Lab) -> None:
    node = mesh.nodes[2]
    await node.mesh.clear()
    setting = "/proc/sys/net/ipv6/conf/eth0/accept_ra"
    run_in(mesh, node.space, "sysctl -qw net.ipv6.conf.eth0.accept_ra=1")
    ip(f"-n {node.name} route add default via {ROUTER} proto ra")
    ip(f"-n {node.name} link add idle type bridge")
    try:
        await node.mesh.apply(node.table, None)
        assert inside(node.space, read, setting) == "2"
        assert "default via" in ip(f"-n {node.name} -6 route")
        assert inside(node.space, read, setting.replace("eth0", "gwi")) == "0"
        assert inside(node.space, read, setting.replace("eth0", "idle")) == "1"
        answers(mesh, mesh.far, node.address)
    finally:
        ip(f"-n {node.name} route del default via {ROUTER}")
        ip(f"-n {node.name} link del idle")
        run_in(mesh, node.space, "sysctl -qw net.ipv6.conf.eth0.accept_ra=1")


def forwarding(lab: Lab, node: Node) -> str:
    return inside(node.space, read, "/proc/sys/net/ipv6/conf/all/forwarding")


def read(path: str) -> str:
    with open(path) as file:
        return file.read().strip()


HOST_DAMAGE = (
    "nft delete element inet swarmpy_mesh pubat6 { 2001:db8::101 . tcp . 8082 }",
    "nft flush chain inet swarmpy_mesh shut",
    "ip -6 address flush dev gwi scope global",
    "ip -6 route del local ::1 dev gwi table local",
    "sysctl -qw net.ipv6.conf.all.forwarding=0",
)
INNER_DAMAGE = (
    "ip -6 route del default",
    "ip -6 address flush dev gw0 scope global",
    "sysctl -qw net.ipv6.conf.all.forwarding=0",
)


@pytest.mark.parametrize(
    ("place", "damage"),
    [*(("space", one) for one in HOST_DAMAGE), *(("ingress", one) for one in INNER_DAMAGE)],
)
async def test_damage_by_others_is_seen_and_mended(mesh: Lab, place: str, damage: str) -> None:
    node = mesh.nodes[0]
    print_of = await node.mesh.observe()
    assert print_of
    run_in(mesh, getattr(node, place), damage)
    assert await node.mesh.observe() == ""
    assert await node.mesh.apply(node.table, node.table) == print_of
    assert await node.mesh.observe() == print_of
    answers(mesh, mesh.outside, node.address)
    assert call(mesh.outside, SECOND, ONE)[1] == OUTSIDE
    assert call(node.space, "::1", PORT)[1] == node.own


RETURN_DAMAGE: tuple[Callable[[str], str], ...] = (
    lambda name: "nft flush chain inet swarmpy back_only",
    lambda name: "ip -6 rule del pref 20000",
    lambda name: "ip -6 rule del pref 32800",
    lambda name: "ip -6 route flush table 1392508928",
    lambda name: "ip -6 route flush table 1392508929",
)


@pytest.mark.parametrize("damage", RETURN_DAMAGE, ids=["rules", "marks", "rest", "any", "first"])
async def test_damaged_returns_are_seen_and_mended(mesh: Lab, damage: Callable[[str], str]) -> None:
    balancer, backend, wanted = NftBalancer(), mesh.backends[0], returns(mesh, 0)
    print_of = await balancer.observe(backend)
    assert print_of
    run_in(mesh, backend, damage(backend))
    assert await balancer.observe(backend) == ""
    assert await balancer.apply(backend, wanted, wanted) == print_of
    assert await balancer.observe(backend) == print_of
    for node in mesh.nodes:
        answers(mesh, mesh.outside, node.address)


async def test_dockers_filter_lets_the_mesh_pass(mesh: Lab) -> None:
    node = mesh.nodes[0]
    for rule in (
        "-N DOCKER-USER",
        "-A DOCKER-USER -j RETURN",
        "-A FORWARD -j DOCKER-USER",
        "-P FORWARD DROP",
    ):
        run_in(mesh, node.space, f"ip6tables {rule}")
    try:
        with pytest.raises(TimeoutError):
            call(mesh.outside, node.address, PORT, timeout=1)
        assert await node.mesh.observe() == ""
        print_of = await node.mesh.apply(node.table, node.table)
        assert await node.mesh.observe() == print_of
        assert call(mesh.outside, node.address, PORT)[1] == OUTSIDE
        await node.mesh.clear()
        assert "gwi" not in run_in(mesh, node.space, "ip6tables -S DOCKER-USER")
    finally:
        run_in(mesh, node.space, "nft flush ruleset")


async def test_nothing_is_left_when_it_is_cleared(mesh: Lab) -> None:
    node = mesh.nodes[0]
    await node.mesh.clear()
    assert await node.mesh.observe() == ""
    assert "swarmpy" not in inside(node.space, library.run, "list ruleset\n")
    assert "gwi" not in ip(f"-n {node.name} -6 route show table all")
    assert forwarding(mesh, node) == "0"
    for space in mesh.backends:
        await NftBalancer().clear(space)
        assert "swarmpy" not in inside(space, library.run, "list ruleset\n")
        assert len(ip(f"-n {mesh.name(space)} -6 rule").splitlines()) == 2
        assert "fd60::10" not in ip(f"-n {mesh.name(space)} -6 route show table all")


def run_in(lab: Lab, space: str, command: str) -> str:
    return ip(f"netns exec {lab.name(space)} {command}")
