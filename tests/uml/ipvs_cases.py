"""What IPVS alone must do, beyond the contract of every balancer. Run inside User-mode Linux by test_ipvs.py."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from swarmpy.adapters.balancers import Successor
from swarmpy.adapters.ipvs import IpvsBalancer, kernel, steps, sweep
from swarmpy.adapters.ipvs.iptmarks import IptMarks
from swarmpy.adapters.ipvs.nftmarks import NftMarks
from swarmpy.adapters.ipvs.steps import MARK, Step, Verb
from swarmpy.adapters.netns import apart, inside
from swarmpy.adapters.nftables import NftBalancer, routes
from swarmpy.adapters.nftables.render import MARKING, TABLE
from swarmpy.ports import FabricError, Return, SandboxTable
from tests.contracts.netlab import Lab, call, connect, datagrams, dial, say
from tests.contracts.test_balancer import (  # noqa: F401  fixtures
    BACKENDS,
    VIP,
    answers,
    balancer,
    big,
    ipvs_rules,
    lab,
    table,
)


def services(space: str) -> dict[int, steps.Service]:
    return inside(space, kernel.services)


def connections(space: str) -> steps.Service:
    """The service for TCP of the only virtual address that has servers or drains."""
    (found,) = (one for mark, one in services(space).items() if not mark & 0x800000)
    return found


async def test_a_removed_server_drains_for_as_long_as_it_takes(balancer: IpvsBalancer, lab: Lab) -> None:  # noqa: F811
    first, second = table(*BACKENDS[:2]), table(BACKENDS[1])
    await balancer.apply(lab.client, first, None)
    opened = [connect(lab.client, VIP, 80) for _ in range(2)]
    held = {who: made for made, who, _ in opened}
    assert set(held) == set(BACKENDS[:2])
    print_of = await balancer.apply(lab.client, second, first)
    for _ in range(3):
        assert await balancer.observe(lab.client) == print_of, "what drains is no drift"
        assert connections(lab.client).servers[BACKENDS[0]].weight == 0
        assert say(held[BACKENDS[0]]) == BACKENDS[0]
    # back again while it drains: the same connection, and new ones
    await balancer.apply(lab.client, first, second)
    assert say(held[BACKENDS[0]]) == BACKENDS[0]
    assert set(answers(lab.client, VIP, count=4)) == set(BACKENDS[:2])
    await balancer.apply(lab.client, second, first)
    for made in held.values():
        made.close()
    until = time.monotonic() + 30
    while BACKENDS[0] in connections(lab.client).servers:  # the kernel remembers closed ones for 10 s
        assert time.monotonic() < until
        await asyncio.sleep(0.5)
        assert await balancer.observe(lab.client) == print_of
    # a whole service goes the same way, and at once where nothing is open
    await balancer.apply(lab.client, SandboxTable(), second)
    until = time.monotonic() + 30
    while services(lab.client):
        assert time.monotonic() < until
        await asyncio.sleep(0.5)
        assert await balancer.observe(lab.client)


async def test_idle_connections_are_kept_for_days(balancer: IpvsBalancer, lab: Lab) -> None:  # noqa: F811
    await balancer.apply(lab.client, table(*BACKENDS), None)
    made, _, _ = connect(lab.client, VIP, 80)
    shown = inside(lab.client, Path("/proc/thread-self/net/ip_vs_conn").read_text)
    left = {line.split()[7]: int(line.split()[8]) for line in shown.splitlines()[1:]}
    assert left["ESTABLISHED"] > 4 * 24 * 3600
    made.close()


async def test_who_comes_from_a_port_used_before_gets_a_server_that_serves(
    balancer: IpvsBalancer,  # noqa: F811
    lab: Lab,  # noqa: F811
) -> None:
    """With conn_reuse_mode 0 he would get the old one, which is leaving."""
    await balancer.apply(lab.client, table(BACKENDS[0]), None)
    source = ("10.50.0.21", 45678)
    assert call(lab.client, VIP, 80, source=source)[0] == BACKENDS[0]
    await balancer.apply(lab.client, table(BACKENDS[1]), table(BACKENDS[0]))
    began = time.monotonic()
    assert call(lab.client, VIP, 80, source=source)[0] == BACKENDS[1]
    assert time.monotonic() - began < 0.9, "nothing was dropped and sent again"


async def test_a_caller_who_waits_for_a_dead_server_gets_another(balancer: IpvsBalancer, lab: Lab) -> None:  # noqa: F811
    dead = table("10.50.0.99")
    inside(lab.client, ip, "neigh", "add", "10.50.0.99", "lladdr", "02:00:00:00:00:99", "dev", "eth0")
    await balancer.apply(lab.client, dead, None)
    waiting = asyncio.create_task(asyncio.to_thread(connect, lab.client, VIP, 80, timeout=20))
    until = time.monotonic() + 10
    while not connections(lab.client).servers["10.50.0.99"].busy:
        assert time.monotonic() < until
        await asyncio.sleep(0.01)
    await balancer.apply(lab.client, table(BACKENDS[2]), dead)
    made, who, _ = await waiting
    made.close()
    assert who == BACKENDS[2]


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def tables(*words: str) -> None:
    subprocess.run(["iptables-legacy", *words], check=True, capture_output=True)


def nft(command: str) -> None:
    subprocess.run(["nft", command], check=True, capture_output=True)


def told(*what: Step) -> None:
    kernel.carry_out(what)


def off_and_on() -> None:
    """As the Engine may do while it makes a container."""
    for value in ("1", "0"):
        routes.set_switch("ipv6/conf/lo/disable_ipv6", value)


TCP, UDP = steps.marks_of(VIP, 1)
DAMAGE = {
    "a service removed": lambda: told(Step(Verb.REMOVE_SERVICE, TCP)),
    "the service of datagrams removed": lambda: told(Step(Verb.REMOVE_SERVICE, UDP)),
    "a server removed": lambda: told(Step(Verb.REMOVE_SERVER, TCP, BACKENDS[0])),
    "a server drained": lambda: told(Step(Verb.SET_SERVER, TCP, BACKENDS[0], 0)),
    "a server preferred": lambda: told(Step(Verb.SET_SERVER, UDP, BACKENDS[0], 7)),
    "a server added": lambda: told(Step(Verb.ADD_SERVER, UDP, "10.50.0.77", 1)),
    "a setting": lambda: routes.set_switch("ipv4/vs/expire_nodest_conn", "0"),
    "the way": lambda: ip("rule", "del", "priority", "20001"),
    "the way of version 6": lambda: ip("-6", "rule", "del", "priority", "20001"),
    "where it goes": lambda: ip("route", "flush", "table", str(MARK)),
    "where it goes by version 6": lambda: ip("-6", "route", "flush", "table", str(MARK)),
    "version 6 switched off and on": off_and_on,
}
IPT_DAMAGE = {
    "rules flushed": lambda: tables("-t", "mangle", "-F"),
    "the chain emptied": lambda: tables("-t", "mangle", "-F", "SWARMPY"),
    "the jump": lambda: tables("-t", "filter", "-D", "OUTPUT", "-j", "SWARMPY"),
    "the jump twice": lambda: tables("-t", "mangle", "-A", "OUTPUT", "-j", "SWARMPY"),
    "a rule": lambda: tables("-t", "mangle", "-D", "SWARMPY", "2"),
}
NFT_DAMAGE = {
    "rules flushed": lambda: nft(f"flush table {TABLE}"),
    "everything flushed": lambda: nft("flush ruleset"),
    "the chain emptied": lambda: nft(f"flush chain {TABLE} {MARKING}"),
    "the map emptied": lambda: nft(f"flush map {TABLE} vip4"),
    "an element": lambda: nft(f"delete element {TABLE} vip4 {{ {VIP} }}"),
    "a rule added": lambda: nft(f"insert rule {TABLE} {MARKING} accept"),
}


def by_nftables() -> bool:
    """Whether marks are made by nftables on this kernel: what the balancer prefers."""
    try:
        apart(NftMarks().probe)
    except FabricError:
        return False
    return True


async def test_damage_by_others_is_seen_and_mended(balancer: IpvsBalancer, lab: Lab) -> None:  # noqa: F811
    wanted = table(*BACKENDS)
    print_of = await balancer.apply(lab.client, wanted, None)
    inside(lab.client, tables, "-t", "mangle", "-A", "INPUT", "-j", "ACCEPT")
    assert await balancer.observe(lab.client) == print_of, "others' own rules do not matter"
    for what, damage in (DAMAGE | (NFT_DAMAGE if by_nftables() else IPT_DAMAGE)).items():
        inside(lab.client, damage)
        assert await balancer.observe(lab.client) != print_of, what
        assert await balancer.apply(lab.client, wanted, wanted) == print_of, what
    assert await balancer.observe(lab.client) == print_of
    assert answers(lab.client, VIP) == dict.fromkeys(BACKENDS, 2)
    inside(lab.client, tables, "-t", "mangle", "-F", "INPUT")


async def test_a_change_that_was_cut_short_is_done_again(
    balancer: IpvsBalancer,  # noqa: F811
    lab: Lab,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After each step, as by a crash."""
    first, second = table(*BACKENDS[:2]), table(*BACKENDS[1:])
    whole = kernel.carry_out
    for cut in range(4):
        await balancer.apply(lab.client, first, None)
        left = [cut]

        def short(todo, left=left) -> int:
            todo = list(todo)
            for one in todo:
                if not left[0]:
                    raise FabricError("cut short")
                left[0] -= 1
                whole([one])
            return len(todo)

        monkeypatch.setattr(kernel, "carry_out", short)
        with pytest.raises(FabricError, match="cut short"):
            await balancer.apply(lab.client, second, first)
        monkeypatch.setattr(kernel, "carry_out", whole)
        assert set(answers(lab.client, VIP, count=4)) <= set(BACKENDS)
        print_of = await IpvsBalancer().apply(lab.client, second, first)
        assert await IpvsBalancer().observe(lab.client) == print_of
        assert answers(lab.client, VIP, count=4) == dict.fromkeys(BACKENDS[1:], 2)


async def test_a_thousand_services_and_one_change_among_them(
    balancer: IpvsBalancer,  # noqa: F811
    lab: Lab,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[Step] = []
    whole = kernel.carry_out

    def counted(todo) -> int:
        todo = list(todo)
        told.extend(todo)
        return whole(todo)

    monkeypatch.setattr(kernel, "carry_out", counted)
    # services of other namespaces: /proc/net/ip_vs leaves ours out then
    others = SandboxTable(services=big().services[:200])
    await balancer.apply(lab.backends[BACKENDS[1]], others, None)
    told.clear()
    began = time.monotonic()
    await balancer.apply(lab.client, big(), None)
    print(f"1,000 services of 10: {time.monotonic() - began:.2f} s")
    assert len(told) == 2 * 1000 * 11
    told.clear()
    began = time.monotonic()
    print_of = await balancer.apply(lab.client, big(changed=500), big())
    print(f"one of them changed: {time.monotonic() - began:.2f} s")
    assert Counter(one.verb for one in told) == {
        # ten addresses move by one: nine stay
        Verb.ADD_SERVER: 2, Verb.SET_SERVER: 1, Verb.REMOVE_SERVER: 1,
    }  # fmt: skip
    began = time.monotonic()
    assert await balancer.observe(lab.client) == print_of
    print(f"looked at: {time.monotonic() - began:.2f} s")
    assert len(services(lab.client)) == 2000


async def test_returns_need_nftables_and_services_work_without(balancer: IpvsBalancer, lab: Lab) -> None:  # noqa: F811
    wanted = SandboxTable(
        table(*BACKENDS).services, "10.50.0.21", (Return(1, "02:00:00:00:00:01", "10.50.0.6"),)
    )
    without = IpvsBalancer((IptMarks,))
    with pytest.raises(FabricError, match="containers on the ingress network need nftables"):
        await without.apply(lab.client, wanted, None)
    assert answers(lab.client, VIP) == dict.fromkeys(BACKENDS, 2)
    await without.clear(lab.client)


async def test_a_namespace_where_version_6_is_switched_off(balancer: IpvsBalancer, lab: Lab) -> None:  # noqa: F811
    """As the Engine does it in containers whose networks have none."""
    wanted = table(*BACKENDS)
    space = lab.space("four")
    lab.plug(space, "eth0", "br0", "10.50.0.31/24")
    inside(space, routes.set_switch, "ipv6/conf/all/disable_ipv6", "1")
    print_of = await balancer.apply(space, wanted, None)
    assert await balancer.observe(space) == print_of
    assert answers(space, VIP) == dict.fromkeys(BACKENDS, 2)
    inside(space, routes.set_switch, "ipv6/conf/all/disable_ipv6", "0")
    assert await balancer.observe(space) != print_of
    assert await balancer.apply(space, wanted, wanted) == print_of == await balancer.observe(space)
    await balancer.clear(space)


async def test_what_ipvs_does_not_balance_never_leaves(balancer: IpvsBalancer, lab: Lab) -> None:  # noqa: F811
    """A protocol that it does not know is answered, or not, by the client's own kernel."""
    await balancer.apply(lab.client, table(BACKENDS[0]), None)
    with inside(lab.backends[BACKENDS[0]], socket.socket, socket.AF_INET, socket.SOCK_RAW, 253) as heard:
        heard.setblocking(False)
        with inside(lab.client, socket.socket, socket.AF_INET, socket.SOCK_RAW, 253) as sender:
            sender.sendto(b"x", (VIP, 0))
        made, _, _ = inside(lab.client, dial, VIP, 80)  # which went the same way after it
        made.close()
        with pytest.raises(BlockingIOError):
            heard.recv(100)


class Other:
    """A balancer that leaves alone what is there: for a kernel without nftables."""

    name = "other"

    async def apply(self, sandbox: str, table: SandboxTable, before: SandboxTable | None) -> str:
        return "applied"

    async def observe(self, sandbox: str) -> str:
        return "applied"

    async def clear(self, sandbox: str) -> None:
        pass


async def test_another_balancer_takes_over_and_open_connections_go_on(
    balancer: IpvsBalancer,  # noqa: F811
    lab: Lab,  # noqa: F811
) -> None:
    wanted, nftables = table(*BACKENDS), by_nftables()
    await balancer.apply(lab.client, wanted, None)
    opened = [connect(lab.client, VIP, 80) for _ in range(2)]
    sender = datagrams(lab.client, VIP, 80)
    sender.send(b"x")
    assert sender.recv(100).split()[0].decode() in BACKENDS
    after = Successor(NftBalancer() if nftables else Other(), sweep)
    print_of = await after.apply(lab.client, wanted, None)
    assert not inside(lab.client, kernel.has_any_way)
    assert [mark for mark in services(lab.client) if mark & 0x800000] == []
    assert not any(one.weight for one in connections(lab.client).servers.values())
    assert nftables or not inside(lab.client, IptMarks().read, lab.client).numbers
    for _ in range(3):
        for made, who, _ in opened:
            assert say(made) == who
    if nftables:
        assert answers(lab.client, VIP) == dict.fromkeys(BACKENDS, 2)
        sender.send(b"x")
        assert sender.recv(100).split()[0].decode() in BACKENDS
    sender.close()
    for made, _, _ in opened:
        made.close()
    until = time.monotonic() + 30
    while services(lab.client):
        assert time.monotonic() < until
        await asyncio.sleep(0.5)
        assert await after.observe(lab.client) == print_of
    assert nftables or "swarmpy" not in inside(lab.client, ipvs_rules).lower()


async def test_a_balancer_that_took_over_clears_all(balancer: IpvsBalancer, lab: Lab) -> None:  # noqa: F811
    await balancer.apply(lab.client, table(*BACKENDS), None)
    made, _, _ = connect(lab.client, VIP, 80)
    after = Successor(NftBalancer() if by_nftables() else Other(), sweep)
    await after.apply(lab.client, table(*BACKENDS), None)
    assert services(lab.client)
    await after.clear(lab.client)
    made.close()
    assert not services(lab.client)
    assert not inside(lab.client, kernel.has_any_way)
    await after.clear("/run/netns/none-that-there-is")


async def test_a_sweep_that_was_cut_short_is_done_again(
    balancer: IpvsBalancer,  # noqa: F811
    lab: Lab,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await balancer.apply(lab.client, table(*BACKENDS), None)
    after = Successor(Other(), sweep)

    def refused() -> None:
        raise FabricError("cut short")

    with monkeypatch.context() as patched:
        patched.setattr(kernel, "clear_ways", refused)
        assert await after.apply(lab.client, table(*BACKENDS), None), "it is served all the same"
        assert inside(lab.client, kernel.has_any_way)
    await after.observe(lab.client)
    assert not services(lab.client)
    assert not inside(lab.client, kernel.has_any_way)
