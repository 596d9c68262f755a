"""The parts of IPVS's balancer that need no IPVS: what is done in which order, and the marks by nftables on the
real kernel. All of it together, on a kernel with IPVS: tests/uml."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmpy.adapters.balancers import FirstThatWorks, Successor
from swarmpy.adapters.ipvs import IpvsBalancer, kernel, steps, sweep
from swarmpy.adapters.ipvs.nftmarks import NftMarks
from swarmpy.adapters.ipvs.steps import EMPTY, MARK, Server, Service, Step, Verb
from swarmpy.adapters.netns import apart, inside
from swarmpy.adapters.nftables import NftBalancer, library, routes
from swarmpy.daemon import BALANCERS, parser
from swarmpy.ports import FabricError, Return, SandboxTable, VirtualService
from tests.contracts.netlab import Lab, call, datagrams

VIPS = ("10.50.0.2", "10.50.0.3", "fd50::2")
vips = st.dictionaries(st.sampled_from(VIPS), st.sets(st.integers(1, 4)), max_size=3).map(
    lambda found: {
        vip: tuple(f"fd50::1{one}" if ":" in vip else f"10.50.0.1{one}" for one in sorted(chosen))
        for vip, chosen in found.items()
    }
)


class Kernel:
    """IPVS as it takes commands: errors where the real one refuses."""

    def __init__(self) -> None:
        self.services: dict[int, dict[str, Server]] = {}

    def seen(self) -> dict[int, Service]:
        return {mark: Service(dict(servers)) for mark, servers in self.services.items()}

    def do(self, step: Step, busy: int = 0) -> None:
        match step.verb:
            case Verb.ADD_SERVICE:
                assert step.mark not in self.services
                self.services[step.mark] = {}
            case Verb.REMOVE_SERVICE:
                del self.services[step.mark]
            case Verb.ADD_SERVER:
                assert step.server not in self.services[step.mark]
                self.services[step.mark][step.server] = Server(step.weight, busy)
            case Verb.SET_SERVER:
                held = self.services[step.mark][step.server]
                self.services[step.mark][step.server] = Server(step.weight, held.busy)
            case Verb.REMOVE_SERVER:
                del self.services[step.mark][step.server]


@given(st.lists(vips, min_size=1, max_size=4), st.integers(0, 1))
def test_from_any_tables_to_any_other(tables: list[dict[str, tuple[str, ...]]], busy: int) -> None:
    world, numbers = Kernel(), dict[str, int]()
    for wanted in tables:
        numbers = steps.numbered(wanted, numbers, world.seen())
        assert len(set(numbers.values())) == len(numbers)
        before = {
            mark: {name for name, one in held.items() if one.weight} for mark, held in world.services.items()
        }
        for step in steps.changes(world.seen(), wanted, numbers, "place"):
            world.do(step, busy)
            for vip, backends in wanted.items():
                for mark in steps.marks_of(vip, numbers[vip]):
                    both = before.get(mark, set()) & set(backends)
                    serving = {name for name, one in world.services.get(mark, {}).items() if one.weight}
                    assert both <= serving, "who stays serves all the time"
                    assert serving or not (before.get(mark) and backends), "never is there nobody"
        assert steps.serving(world.seen(), numbers) == {vip: frozenset(one) for vip, one in wanted.items()}
        assert not list(steps.changes(world.seen(), wanted, numbers, "place")), "nothing is left to do"
        live = [mark for vip, one in numbers.items() for mark in steps.marks_of(vip, one)]
        for step in steps.drained(world.seen(), live):
            world.do(step)
        assert steps.serving(world.seen(), numbers) == {vip: frozenset(one) for vip, one in wanted.items()}
        if not busy:
            assert set(world.services) == set(live), "what is idle does not stay"
            assert all(one.weight for held in world.services.values() for one in held.values())


def test_what_has_connections_drains_and_datagrams_move_at_once() -> None:
    connections, datagrams = steps.marks_of(VIPS[0], 1)
    busy = {mark: Service({"10.50.0.11": Server(1, 3)}) for mark in (connections, datagrams)}
    assert list(steps.changes(busy, {VIPS[0]: ()}, {VIPS[0]: 1}, "")) == [
        Step(Verb.SET_SERVER, connections, "10.50.0.11", 0),
        Step(Verb.REMOVE_SERVER, datagrams, "10.50.0.11"),
    ]
    draining = {connections: Service({"10.50.0.11": Server(0, 1), "10.50.0.12": Server(0, 0)})}
    assert list(steps.drained(draining, ())) == [Step(Verb.REMOVE_SERVER, connections, "10.50.0.12")]
    assert steps.numbered((VIPS[1],), {}, draining) == {VIPS[1]: 2}, "its number is not given to another"


@pytest.mark.parametrize("bad", ["10.0.0.1; x", "", "web", "fd50::1"])
def test_only_addresses_of_one_version(bad: str) -> None:
    with pytest.raises(FabricError, match=r"no address that can be balanced|other IP version"):
        steps.backends_of(SandboxTable(services=(VirtualService("10.50.0.2", (bad,)),)))


# ---------------------------------------------------------------- the way of packets


def test_packets_find_their_way_where_version_6_is_switched_off() -> None:
    """As the Engine does it in containers whose networks have none. The kernel then refuses its routes."""

    def switch(value: str) -> None:
        routes.set_switch("ipv6/conf/all/disable_ipv6", value)

    def work() -> None:
        switch("1")
        kernel.set_ways()
        assert kernel.has_ways()
        switch("0")
        assert not kernel.has_ways(), "a network with version 6 came: that is drift"
        kernel.set_ways()
        assert kernel.has_ways()
        switch("1")
        assert kernel.has_ways()
        kernel.clear_ways()
        assert not kernel.has_ways()
        switch("0")
        kernel.set_ways()
        kernel.clear_ways()
        assert not kernel.has_ways()

    apart(work)


# ---------------------------------------------------------------- marks by nftables


@pytest.fixture
def lab() -> Iterator[Lab]:
    made = Lab()
    try:
        made.bridge("br0")
        made.client = made.space("client")
        made.plug(made.client, "eth0", "br0", "10.50.0.21/24", "fd50::21/64")
        made.other = made.space("other")
        made.plug(made.other, "eth0", "br0", "10.50.0.11/24", "10.50.0.2/24", "fd50::2/64")
        made.server.listen(made.other, "other", 80)
        yield made
    finally:
        made.close()


def table(*backends: str, vip: str = VIPS[0]) -> SandboxTable:
    return SandboxTable(services=(VirtualService(vip, backends),))


def write(space: str, wanted: SandboxTable, numbers: dict[str, int]) -> str:
    def work() -> str:
        marks = NftMarks()
        marks.write(space, wanted, numbers, marks.read(space))
        assert NftMarks().read(space).numbers == numbers
        return NftMarks().read(space).label

    return inside(space, work)


COUNTING = """table inet count {
 chain out { type filter hook output priority 10;
  meta mark 0x54000001 meta l4proto tcp counter
  meta mark 0x54800001 meta l4proto udp counter
  meta mark 0x54400002 meta l4proto tcp counter
  meta mark 0x54c00002 meta l4proto udp counter
 }
}
"""


def test_packets_to_a_virtual_address_get_its_mark_and_no_others(lab: Lab) -> None:
    wanted = SandboxTable(services=(*table("10.50.0.11").services, *table("fd50::11", vip=VIPS[2]).services))
    print_of = write(lab.client, wanted, {VIPS[0]: 1, VIPS[2]: 2})
    assert print_of == NftMarks().label(wanted)
    inside(lab.client, library.run, COUNTING)
    for address in ("10.50.0.2", "fd50::2", "10.50.0.11"):
        with datagrams(lab.client, address, 80) as made:
            made.send(b"x")
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with inside(lab.client, socket.socket, family, socket.SOCK_STREAM) as made:
            made.setblocking(False)
            made.connect_ex((address, 80))
    shown = inside(lab.client, library.run, "list table inet count\n")
    assert all(int(count) >= 1 for count in re.findall(r"packets (\d+)", shown)), shown
    assert len(re.findall(r"packets", shown)) == 4
    assert call(lab.client, "10.50.0.11", 80)[0] == "other"


def test_what_nobody_serves_is_refused_at_once_and_pings_are_answered(lab: Lab) -> None:
    wanted = SandboxTable(services=(*table().services, *table(vip=VIPS[2]).services))
    write(lab.client, wanted, {VIPS[0]: 1 | EMPTY, VIPS[2]: 2 | EMPTY})
    for vip in (VIPS[0], VIPS[2]):
        began = time.monotonic()
        with pytest.raises(ConnectionRefusedError):
            call(lab.client, vip, 80)
        with datagrams(lab.client, vip, 80) as made:
            with pytest.raises((ConnectionRefusedError, PermissionError)):
                made.send(b"x")
            with pytest.raises(ConnectionRefusedError):
                made.recv(100)
        assert time.monotonic() - began < 0.9
    write(lab.client, table("10.50.0.11", vip="10.50.0.3"), {"10.50.0.3": 1})
    ping = ["busybox", "ping", "-c1", "-W3", "10.50.0.3"]
    done = inside(lab.client, lambda: subprocess.run(ping, capture_output=True, text=True, check=False))
    assert "1 packets received" in done.stdout


def test_addresses_come_and_go_and_damage_is_seen(lab: Lab) -> None:
    first = write(lab.client, table("10.50.0.11"), {VIPS[0]: 1})
    both = SandboxTable(services=(*table("10.50.0.11").services, *table("fd50::11", vip=VIPS[2]).services))
    assert write(lab.client, both, {VIPS[0]: 1, VIPS[2]: 2}) != first
    assert write(lab.client, table("10.50.0.11"), {VIPS[0]: 1}) == first
    for damage in ("flush chain inet swarmpy marking", "flush map inet swarmpy vip4",
                   "add rule inet swarmpy m4.1.10.50.0.2 drop", "delete table inet swarmpy"):  # fmt: skip
        inside(lab.client, library.run, damage + "\n")
        assert inside(lab.client, lambda: NftMarks().read(lab.client).label) == ""
        assert write(lab.client, table("10.50.0.11"), {VIPS[0]: 1}) == first
    inside(lab.client, lambda: NftMarks().clear(lab.client))
    assert inside(lab.client, library.run, "list ruleset\n") == ""


def test_returns_stand_beside_the_marks(lab: Lab) -> None:
    wanted = SandboxTable(
        table("10.50.0.11").services, "10.50.0.21", (Return(1, "02:00:00:00:00:01", "10.50.0.6"),)
    )
    assert write(lab.client, wanted, {VIPS[0]: 1}) == NftMarks().label(wanted)
    shown = inside(lab.client, library.run, "list ruleset\n")
    assert "02:00:00:00:00:01" in shown
    assert "back_route" in shown
    write(lab.client, table("10.50.0.11"), {VIPS[0]: 1})
    assert "back_route" not in inside(lab.client, library.run, "list ruleset\n")


async def test_one_balancer_takes_over_from_the_other(lab: Lab) -> None:
    """Another choice at the daemon's next start. Open connections stay."""
    balancer, wanted = NftBalancer(), table("10.50.0.11", vip="10.50.0.3")
    print_of = await balancer.apply(lab.client, wanted, None)
    assert call(lab.client, "10.50.0.3", 80)[0] == "other"
    write(lab.client, wanted, {"10.50.0.3": 1})
    assert "dnat" not in inside(lab.client, library.run, "list ruleset\n")
    for before in (wanted, None):
        write(lab.client, wanted, {"10.50.0.3": 1})
        assert await NftBalancer().observe(lab.client) != print_of
        assert await NftBalancer().apply(lab.client, wanted, before) == print_of
        assert "marking" not in inside(lab.client, library.run, "list ruleset\n")
        assert call(lab.client, "10.50.0.3", 80)[0] == "other"


# ---------------------------------------------------------------- the choice


class Candidate(NftBalancer):
    def __init__(self, name: str, *answers: bool) -> None:
        super().__init__()
        self.name = name
        self.answers = list(answers)

    async def probe(self) -> bool:
        return self.answers.pop(0)


async def test_the_first_that_works_is_chosen_and_stays(lab: Lab) -> None:
    chosen = FirstThatWorks(Candidate("nftables", False), Candidate("ipvs", True))
    assert all(await asyncio.gather(chosen.probe(), chosen.probe()))
    assert chosen.name == "ipvs"
    await chosen.apply(lab.client, table("10.50.0.11"), None)
    assert await chosen.observe(lab.client)
    await chosen.clear(lab.client)
    assert await chosen.observe(lab.client) == ""


async def test_none_that_works_is_said_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    chosen = FirstThatWorks(Candidate("nftables", False, False, True), Candidate("ipvs", False, False))
    assert not await chosen.probe()
    assert "neither nftables nor ipvs works; why is in this node's log" in caplog.text
    with pytest.raises(FabricError, match="cannot be balanced here"):
        await chosen.observe("/run/netns/x")
    assert await chosen.probe()
    assert chosen.name == "nftables"


def test_the_daemons_option() -> None:
    assert parser().parse_args([]).balancer == "auto"
    assert [BALANCERS[name]().name for name in ("auto", "nftables", "ipvs")] == [
        "nftables",
        "nftables",
        "ipvs",
    ]


async def test_who_takes_over_looks_until_nothing_is_left_and_again_after_an_error(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    found: list[bool | str] = ["no answer", True, True, False]
    looks: list[tuple[str, ...]] = []

    def swept(vips=(), *, patient: bool = True) -> bool:
        looks.append(tuple(vips))
        said = found.pop(0)
        if isinstance(said, str):
            raise FabricError(said)
        return said

    made = Successor(NftBalancer(), swept)
    wanted = table("10.50.0.11")
    print_of = await made.apply(lab.client, wanted, None)
    assert "keeps what another balancer left there: no answer" in caplog.text
    for _ in range(4):
        assert await made.observe(lab.client) == print_of
    assert await made.apply(lab.client, wanted, wanted) == print_of
    assert looks == [(VIPS[0],), (), (), ()], "and never again"
    await made.clear(lab.client)
    assert await made.observe(lab.client) == ""


def test_nobody_loads_ipvs_to_find_that_it_left_nothing(lab: Lab) -> None:
    had = Path("/proc/net/ip_vs").exists()
    assert not inside(lab.client, sweep)
    assert Path("/proc/net/ip_vs").exists() == had


async def test_a_kernel_without_ipvs_is_named(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    monkeypatch.setattr(kernel, "_TABLE", tmp_path / "none")
    assert not await IpvsBalancer().probe()
    assert "the kernel has no IPVS" in caplog.text
    assert "--balancer nftables" in caplog.text


def test_the_marks_are_not_those_of_returns() -> None:
    from swarmpy.adapters.nftables import render

    assert render.MARK & render.MARKS != MARK & steps.MASK
