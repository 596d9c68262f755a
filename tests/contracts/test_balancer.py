"""The contract of ports.Balancer, on the real kernel: a client and three backends in namespaces on one bridge.

One suite for every implementation: add a maker to MAKERS.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from swarmpy.adapters.ipvs import IpvsBalancer
from swarmpy.adapters.netns import inside
from swarmpy.adapters.nftables import NftBalancer, library
from swarmpy.ports import Balancer, FabricError, SandboxTable, VirtualService
from tests.contracts.netlab import Lab, call, connect, datagrams, hammer, ip, raw_sctp, say, sctp_init

VIP, VIP6 = "10.50.0.2", "fd50::2"
BACKENDS = ("10.50.0.11", "10.50.0.12", "10.50.0.13")
BACKENDS6 = ("fd50::11", "fd50::12", "fd50::13")
CLIENT, CLIENT6 = "10.50.0.21", "fd50::21"
MAKERS: dict[str, Callable[[], Balancer]] = {"nftables": NftBalancer, "ipvs": IpvsBalancer}
REAL = [os.environ.get("SWARMPY_BALANCER", "nftables")]
"""Which one this kernel has: tests/uml runs the suite once more, on a kernel with IPVS."""


def table(*backends: str, vip: str = VIP) -> SandboxTable:
    return SandboxTable(services=(VirtualService(vip, backends),))


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    made = Lab()
    try:
        made.bridge("br0")
        made.client = made.space("client")
        made.plug(made.client, "eth0", "br0", f"{CLIENT}/24", f"{CLIENT6}/64")
        made.backends = {}
        for number, (address, address6) in enumerate(zip(BACKENDS, BACKENDS6, strict=True), 1):
            space = made.space(f"b{number}")
            made.plug(space, "eth0", "br0", f"{address}/24", f"{address6}/64")
            made.backends[address] = space
            for port in (80, 8080):
                made.server.listen(space, address, port)
                made.server.listen(space, address6, port, family=socket.AF_INET6)
        yield made
    finally:
        made.close()


@pytest.fixture(params=REAL)
async def balancer(request: pytest.FixtureRequest, lab: Lab) -> AsyncIterator[Balancer]:
    made = MAKERS[request.param]()
    assert await made.probe()
    yield made
    for space in (lab.client, *lab.backends.values()):
        await made.clear(space)
        assert await made.observe(space) == ""
        assert "swarmpy" not in leftovers(request.param, space).lower()


def rules(space: str) -> str:
    return inside(space, library.run, "list ruleset\n")


def leftovers(name: str, space: str) -> str:
    return rules(space) if name == "nftables" else inside(space, ipvs_rules)


def ipvs_rules() -> str:
    """All rules of the namespace, without counters, and what IPVS has."""
    shown = ""
    for family in ("ip", "ip6"):
        if Path(f"/proc/thread-self/net/{family}_tables_names").read_text():
            program = f"{family}tables-legacy-save"
            shown += subprocess.run([program], capture_output=True, text=True, check=True).stdout
    lines = [re.sub(r"\[\d+:\d+\]", "", line) for line in shown.splitlines() if line[:1] != "#"]
    services = Path("/proc/thread-self/net/ip_vs").read_text().replace("FWM", "swarmpy")
    return "\n".join([*lines, *services.splitlines()])


def answers(space: str, vip: str, count: int = 6, port: int = 80) -> Counter[str]:
    return Counter(call(space, vip, port)[0] for _ in range(count))


async def test_round_robin_over_all_backends_and_the_source_is_kept(balancer: Balancer, lab: Lab) -> None:
    await balancer.apply(lab.client, table(*BACKENDS), None)
    seen = [call(lab.client, VIP, 80) for _ in range(9)]
    assert Counter(who for who, _ in seen) == dict.fromkeys(BACKENDS, 3)
    assert {source for _, source in seen} == {CLIENT}


async def test_every_port_of_both_protocols(balancer: Balancer, lab: Lab) -> None:
    await balancer.apply(lab.client, table(*BACKENDS), None)
    assert answers(lab.client, VIP, port=8080) == dict.fromkeys(BACKENDS, 2)
    seen = set()
    for _ in range(6):
        with datagrams(lab.client, VIP, 8080) as made:
            made.send(b"x")
            seen.add(tuple(made.recv(100).decode().split()))
    assert seen == {(address, CLIENT) for address in BACKENDS}


async def test_a_backend_that_calls_its_own_service_may_meet_itself(balancer: Balancer, lab: Lab) -> None:
    own = lab.backends[BACKENDS[0]]
    await balancer.apply(own, table(*BACKENDS), None)
    assert answers(own, VIP) == dict.fromkeys(BACKENDS, 2)


async def test_the_address_answers_ping(balancer: Balancer, lab: Lab) -> None:
    await balancer.apply(lab.client, table(*BACKENDS), None)
    done = inside(lab.client, ping, VIP)
    assert "1 packets received" in done


def ping(address: str) -> str:
    done = subprocess.run(
        ["busybox", "ping", "-c1", "-W3", address], capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


async def test_a_removed_backend_gets_nothing_new_and_keeps_its_connections(
    balancer: Balancer, lab: Lab
) -> None:
    first = table(*BACKENDS)
    await balancer.apply(lab.client, first, None)
    opened = [connect(lab.client, VIP, 80) for _ in range(3)]
    try:
        await balancer.apply(lab.client, table(*BACKENDS[1:]), first)
        assert answers(lab.client, VIP) == dict.fromkeys(BACKENDS[1:], 3)
        assert sorted(say(connection) for connection, *_ in opened) == sorted(BACKENDS)
        await balancer.apply(lab.client, table(), table(*BACKENDS[1:]))
        assert sorted(say(connection) for connection, *_ in opened) == sorted(BACKENDS)
        await balancer.apply(lab.client, SandboxTable(), table())
        assert sorted(say(connection) for connection, *_ in opened) == sorted(BACKENDS)
    finally:
        for connection, *_ in opened:
            connection.close()


async def test_a_udp_flow_moves_at_once_when_its_backend_goes(balancer: Balancer, lab: Lab) -> None:
    first = table(*BACKENDS[:2])
    await balancer.apply(lab.client, first, None)
    with datagrams(lab.client, VIP, 80) as made, datagrams(lab.client, VIP, 80) as other:
        flows = {}
        for one in (made, other):
            one.send(b"x")
            flows[one.recv(100).decode().split()[0]] = one
        assert set(flows) == set(BACKENDS[:2])
        await balancer.apply(lab.client, table(BACKENDS[1], BACKENDS[2]), first)
        flows[BACKENDS[0]].send(b"x")
        assert flows[BACKENDS[0]].recv(100).decode().split()[0] in BACKENDS[1:]
        flows[BACKENDS[1]].send(b"x")
        assert flows[BACKENDS[1]].recv(100).decode().split()[0] == BACKENDS[1]


async def test_a_udp_flow_that_was_begun_before_there_was_a_service_finds_it(
    balancer: Balancer, lab: Lab
) -> None:
    other = table(BACKENDS[1], vip="10.50.0.3")  # so that flows are tracked
    await balancer.apply(lab.client, other, None)
    with datagrams(lab.client, VIP, 80) as made:
        made.send(b"x")
        both = SandboxTable(services=(*table(BACKENDS[0]).services, *other.services))
        await balancer.apply(lab.client, both, other)
        made.send(b"x")
        assert made.recv(100).decode().split()[0] == BACKENDS[0]


@pytest.mark.parametrize("vip", [VIP, VIP6])
async def test_without_backends_connections_are_refused_at_once(
    balancer: Balancer, lab: Lab, vip: str
) -> None:
    await balancer.apply(lab.client, table(vip=vip), None)
    began = time.monotonic()
    with pytest.raises(ConnectionRefusedError):
        call(lab.client, vip, 80)
    with datagrams(lab.client, vip, 80) as made:
        with pytest.raises((ConnectionRefusedError, PermissionError)):
            made.send(b"x")
        with pytest.raises(ConnectionRefusedError):
            made.recv(100)
    assert time.monotonic() - began < 1


async def test_version_6(balancer: Balancer, lab: Lab) -> None:
    both = SandboxTable(services=(VirtualService(VIP, BACKENDS[:1]), VirtualService(VIP6, BACKENDS6)))
    await balancer.apply(lab.client, both, None)
    seen = [call(lab.client, VIP6, 80) for _ in range(6)]
    assert Counter(who for who, _ in seen) == dict.fromkeys(BACKENDS6, 2)
    assert {source for _, source in seen} == {CLIENT6}
    with datagrams(lab.client, VIP6, 80) as made:
        made.send(b"x")
        held = made.recv(100).decode().split()[0]
        left = tuple(one for one in BACKENDS6 if one != held)
        await balancer.apply(lab.client, table(*left, vip="fd50:0::2"), both)
        made.send(b"x")
        assert made.recv(100).decode().split()[0] in left


async def test_no_connection_fails_while_the_table_is_replaced(balancer: Balancer, lab: Lab) -> None:
    tables = [table(*BACKENDS), table(*BACKENDS[:1]), table(*BACKENDS[1:])]
    await balancer.apply(lab.client, tables[0], None)
    replaced = 0
    count = 2000 if balancer.name == "nftables" else 500  # a kernel in a process is slower
    loading = asyncio.create_task(asyncio.to_thread(hammer, lab.client, VIP, 80, count))
    while not loading.done():
        # now and then as after a restart, when what was applied last is not known
        before = tables[replaced % 3] if replaced % 5 else None
        await balancer.apply(lab.client, tables[(replaced + 1) % 3], before)
        replaced += 1
    made = await loading  # which raises what failed
    assert made.total() == count
    assert set(made) == set(BACKENDS)
    assert replaced > (10 if balancer.name == "nftables" else 3)


async def test_the_fingerprint_tells_what_others_did(balancer: Balancer, lab: Lab) -> None:
    wanted = table(*BACKENDS)
    assert await balancer.observe(lab.client) == ""
    print_of = await balancer.apply(lab.client, wanted, None)
    assert print_of
    assert await balancer.observe(lab.client) == print_of
    assert await balancer.apply(lab.client, wanted, wanted) == print_of
    restarted = type(balancer)()
    assert await restarted.observe(lab.client) == print_of
    assert await restarted.apply(lab.client, wanted, None) == print_of
    other = await balancer.apply(lab.client, table(*BACKENDS[1:]), wanted)
    assert await balancer.observe(lab.client) == other != print_of
    # `before` may be wrong or unknown: the result is the same
    assert await balancer.apply(lab.client, wanted, table("10.50.0.99", vip="10.50.0.98")) == print_of
    assert answers(lab.client, VIP) == dict.fromkeys(BACKENDS, 2)
    await balancer.clear(lab.client)
    assert await balancer.observe(lab.client) == ""
    with pytest.raises(FabricError, match="cannot be opened"):
        await balancer.observe("/run/netns/there-is-none")
    await balancer.clear("/run/netns/there-is-none")


DAMAGE = (
    "flush ruleset",
    "delete table inet swarmpy",
    "flush table inet swarmpy",
    "flush chain inet swarmpy v4.10.50.0.2",
    "flush map inet swarmpy vip4",
    "delete element inet swarmpy vip4 { 10.50.0.2 }",
    "add element inet swarmpy vip4 { 10.50.0.3 : drop }",
    "insert rule inet swarmpy out drop",
    "add chain inet swarmpy more",
    "add table inet swarmpy { flags dormant; }",
    "flush chain inet swarmpy out; delete chain inet swarmpy out",
)


@pytest.mark.parametrize("damage", DAMAGE)
async def test_damage_by_others_is_seen_and_mended(lab: Lab, damage: str) -> None:
    balancer, wanted = NftBalancer(), table(*BACKENDS)
    try:
        print_of = await balancer.apply(lab.client, wanted, None)
        inside(lab.client, library.run, "table ip other {}\n")
        assert await balancer.observe(lab.client) == print_of
        inside(
            lab.client, library.run, damage.replace("; ", "\n") + "\n" if "{" not in damage else damage + "\n"
        )
        assert await balancer.observe(lab.client) == ""
        assert await balancer.apply(lab.client, wanted, wanted) == print_of
        assert await balancer.observe(lab.client) == print_of
        assert answers(lab.client, VIP) == dict.fromkeys(BACKENDS, 2)
    finally:
        await balancer.clear(lab.client)
        inside(lab.client, library.run, "flush ruleset\n")


async def test_a_change_that_was_cut_short_is_done_again(lab: Lab) -> None:
    """As by a crash between the transaction and its seal."""
    first, second = table(*BACKENDS), table(*BACKENDS[1:])

    def short(commands: str) -> None:
        library.run(commands)
        raise FabricError("cut short")

    try:
        await NftBalancer().apply(lab.client, first, None)
        with pytest.raises(FabricError, match="cut short"):
            await NftBalancer(short).apply(lab.client, second, first)
        assert await NftBalancer().observe(lab.client) == ""
        print_of = await NftBalancer().apply(lab.client, second, first)
        assert await NftBalancer().observe(lab.client) == print_of
    finally:
        await NftBalancer().clear(lab.client)


async def test_a_missing_library_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(library, "SONAME", "libnftables-of-another-machine.so.1")
    library._library.cache_clear()
    try:
        assert not await NftBalancer().probe()
        assert "apt-get install libnftables1" in caplog.text
    finally:
        library._library.cache_clear()


async def test_a_kernel_that_refuses_a_rule_is_named(caplog: pytest.LogCaptureFixture) -> None:
    def refuse(commands: str) -> None:
        library.run(commands.replace("dnat ip to numgen", "dnat ip to nonsense"))

    assert not await NftBalancer(refuse).probe()
    assert "cannot be balanced with nftables here: nftables refused" in caplog.text


@pytest.mark.parametrize("bad", ["10.0.0.1; flush ruleset", "10.0.0.1 }", "", "web"])
async def test_only_addresses_get_into_a_rule_set(lab: Lab, bad: str) -> None:
    for wanted in (table(bad), table(*BACKENDS, vip=bad)):
        with pytest.raises(FabricError, match="cannot stand in a rule set"):
            await NftBalancer().apply(lab.client, wanted, None)
    assert rules(lab.client) == ""


async def test_every_protocol_goes_to_the_backends(balancer: Balancer, lab: Lab) -> None:
    """SCTP, by its first packet: not every kernel has sockets for it."""
    await balancer.apply(lab.client, table(*BACKENDS), None)
    with ExitStack() as opened:
        heard = [opened.enter_context(raw_sctp(space)) for space in lab.backends.values()]
        sender = opened.enter_context(raw_sctp(lab.client))
        for port in range(40001, 40007):
            sender.sendto(sctp_init(port, 80), (VIP, 0))
        for one in heard:
            for _ in range(2):
                packet = one.recv(2000)
                assert packet[12:16] == socket.inet_aton(CLIENT)
                assert packet[22:24] == (80).to_bytes(2)


async def test_the_rules_of_others_stay(balancer: Balancer, lab: Lab) -> None:
    def others(act: str) -> None:
        """As the Engine does for its name server."""
        if balancer.name == "nftables":
            dns = "{ chain DOCKER_OUTPUT { ip daddr 127.0.0.11 udp dport 53 dnat to 127.0.0.11:4053; }\n}"
            library.run(f"table ip nat {dns}\n" if act == "make" else "flush ruleset\n")
            return
        flush = "-F DOCKER_OUTPUT\n-X DOCKER_OUTPUT"
        rule = ":DOCKER_OUTPUT - [0:0]\n-A DOCKER_OUTPUT -d 127.0.0.11 -p udp -j DNAT --to 127.0.0.11:4053"
        text = f"*nat\n{rule if act == 'make' else flush}\nCOMMIT\n"
        subprocess.run(["iptables-legacy-restore", "--noflush"], input=text, text=True, check=True)

    inside(lab.client, others, "make")
    before = leftovers(balancer.name, lab.client)
    assert "127.0.0.11" in before
    await balancer.apply(lab.client, table(*BACKENDS), None)
    await balancer.apply(lab.client, table(*BACKENDS[1:]), None)
    await balancer.clear(lab.client)
    # tables that are used for the first time are shown from then on; they hold nothing of ours
    assert set(leftovers(balancer.name, lab.client).splitlines()) - set(before.splitlines()) <= EMPTY_TABLES
    assert "127.0.0.11" in leftovers(balancer.name, lab.client)
    inside(lab.client, others, "remove")


EMPTY_TABLES = {
    line
    for table in ("mangle", "nat", "filter")
    for chain in ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")
    for line in (f"*{table}", f":{chain} ACCEPT ", "COMMIT")
}


def big(changed: int = -1) -> SandboxTable:
    return SandboxTable(services=tuple(
        VirtualService(f"10.51.{number // 250}.{number % 250 + 1}",
                       tuple(f"10.52.{number % 250}.{slot + (number == changed)}" for slot in range(10)))
        for number in range(1000)
    ))  # fmt: skip


async def test_a_thousand_services_and_one_change_among_them(lab: Lab) -> None:
    sent: list[str] = []

    def run(commands: str) -> str:
        sent.append(commands)
        return library.run(commands)

    balancer = NftBalancer(run)
    try:
        first = await balancer.apply(lab.client, big(), None)
        assert len(sent) == 1, "one transaction"
        assert rules(lab.client).count("numgen inc mod 10") == 1000
        second = await balancer.apply(lab.client, big(changed=500), big())
        assert len(sent) == 2
        # the seal, the chain of one service emptied, its two rules
        assert len(sent[1].splitlines()) == 4
        assert await balancer.observe(lab.client) == second != first
        shown = inside(lab.client, library.run, "list chain inet swarmpy v4.10.51.2.1\n")
        assert "10.52.0.10" in shown
        assert "10.52.0.0" not in shown
    finally:
        await balancer.clear(lab.client)


async def test_two_sandboxes_do_not_begin_with_the_same_backend(lab: Lab) -> None:
    """Else a service's first backend got the first connection of every client in the cluster."""
    balancer = NftBalancer()
    spaces = [lab.space(f"many{number}") for number in range(12)]
    for number, space in enumerate(spaces):
        lab.plug(space, "eth0", "br0", f"10.50.0.{100 + number}/24")
        await balancer.apply(space, table(*BACKENDS), None)
    assert len({call(space, VIP, 80)[0] for space in spaces}) > 1


async def test_a_gone_sandbox_is_cleared_and_a_new_one_of_its_name_is_empty(balancer: Balancer) -> None:
    made = Lab()
    space = made.space("gone")
    print_of = await balancer.apply(space, table(*BACKENDS), None)
    ip(f"netns del {made.name(space)}")
    ip(f"netns add {made.name(space)}")
    assert await balancer.observe(space) == ""
    assert await balancer.apply(space, table(*BACKENDS), table(*BACKENDS)) == print_of
    made.close()
    await balancer.clear(space)
    with pytest.raises(FabricError):
        await balancer.apply(space, table(*BACKENDS), None)


def test_the_machine_itself_is_not_touched() -> None:
    before = library.run("list ruleset\n"), ip("link")
    made = Lab()
    made.bridge("br0")
    space = made.space("one")
    made.plug(space, "eth0", "br0", "10.50.0.99/24")
    asyncio.run(NftBalancer().apply(space, table(*BACKENDS), None))
    assert (library.run("list ruleset\n"), ip("link")) == before
    made.close()
    assert made.prefix not in ip("netns list")
