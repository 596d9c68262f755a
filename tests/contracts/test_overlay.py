"""What every ports.Overlay does: one suite for the simulated kernel and for the real one.

The second half is about what only the real kernel can show: bytes on a wire, sizes, counters, threads.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from swarmpy.adapters.overlay import KernelOverlay, netns
from swarmpy.adapters.overlay.identity import Identity, read_network, read_plug, write_plug
from swarmpy.model.fabric import mac_of
from swarmpy.ports import FabricError, Link, LinkSeen, Neighbour, Plug
from tests.contracts.overlay_sites import (
    ADDRESSES,
    PATIENCE,
    UNDERLAY_MTU,
    RealNode,
    RealSite,
    SimNode,
    SimSite,
    Site,
    inside,
    real_nodes,
    run,
)

NET, OTHER = "net1" + "a" * 21, "net2" + "b" * 21
LINK = Link(NET, 4096, 1450, ADDRESSES[0], 4789, ("10.20.0.1/24", "fd20::1/64"))
PLUG = Plug("e1" * 32, NET, mac_of("task1"), 1450, "t1" + "a" * 23)
PEER = Neighbour(mac_of("peer"), ADDRESSES[1], ("10.20.0.9", "fd20::9"))


@pytest.fixture(scope="module")
def lab() -> Iterator[list[RealNode]]:
    if os.geteuid() != 0:
        pytest.fail("these tests make network namespaces: run them as root")
    with real_nodes() as nodes:
        yield nodes


@pytest.fixture
def real(lab: list[RealNode]) -> Iterator[RealSite]:
    for node in lab:
        node.renew()
    yield RealSite(lab)
    for node in lab:
        node.tidy()


@pytest.fixture(params=["simulated", "kernel"])
def site(request: pytest.FixtureRequest) -> Site:
    return SimSite() if request.param == "simulated" else request.getfixturevalue("real")


async def look(node: Any, network_id: str = NET) -> LinkSeen | None:
    return (await node.overlay.observe()).get(network_id)


async def settle(node: Any, link: Link = LINK) -> None:
    """Links, a peer, and a plug whose free end is in a sandbox."""
    await node.overlay.ensure(link)
    await node.overlay.forward(NET, [PEER], [])
    await node.overlay.plug(PLUG)


WHOLE = LinkSeen(NET, LINK, {PEER.mac: PEER}, {PLUG.endpoint_id: PLUG})


# ---------------------------------------------------------------- links


def test_a_kernel_that_can_says_so(site: Site) -> None:
    async def scenario() -> None:
        node = site.nodes[0]
        assert await node.overlay.probe() == {"overlay", "ipv6"}
        assert node.leftovers() == []
        assert node.overlay.underlay_mtu(ADDRESSES[0]) == UNDERLAY_MTU
        assert node.overlay.underlay_mtu(ADDRESSES[1]) == 0

    site.run(scenario())


LINKS = (
    LINK,
    replace(LINK, gateways=()),
    replace(LINK, local="fd99::1"),
    replace(LINK, bridge_mac="02:00:00:00:00:77", port=4790, vni=16777215, mtu=1400),
    replace(LINK, gateways=("10.21.0.1/24", "fd20::1/64", "10.3.0.1/16", "fd10::1/64", "10.21.0.2/24")),
)


@pytest.mark.parametrize("link", LINKS, ids=["usual", "bare", "over-ipv6", "ingress", "many-gateways"])
def test_what_is_ensured_is_observed_also_after_a_restart(site: Site, link: Link) -> None:
    async def scenario() -> None:
        node = site.nodes[0]
        assert await node.overlay.observe() == {}
        await node.overlay.ensure(link)
        assert await node.overlay.observe() == {NET: LinkSeen(NET, link)}
        node.renew()
        assert await node.overlay.observe() == {NET: LinkSeen(NET, link)}
        await node.overlay.ensure(link)
        assert node.steps == []

    site.run(scenario())


def test_addresses_written_in_another_way_are_no_drift(site: Site) -> None:
    link = replace(LINK, local="fd99::1", gateways=("fd20::a/64",), bridge_mac="02:00:00:00:00:ab")
    odd = replace(link, local="FD99:0::1", gateways=("FD20:0:0::A/64",), bridge_mac="02:00:00:00:00:AB")

    async def scenario() -> None:
        node = site.nodes[0]
        await node.overlay.ensure(odd)
        assert await look(node) == LinkSeen(NET, link)
        node.steps.clear()
        await node.overlay.ensure(odd)
        assert node.steps == []

    site.run(scenario())


def test_networks_do_not_touch_each_other(site: Site) -> None:
    async def scenario() -> None:
        node = site.nodes[0]
        other = Link(OTHER, 4097, 1450, ADDRESSES[0], 4789, ("10.20.0.1/24",))
        await settle(node)
        await node.overlay.ensure(other)
        assert await node.overlay.observe() == {NET: WHOLE, OTHER: LinkSeen(OTHER, other)}
        await node.overlay.remove(NET)
        assert await node.overlay.observe() == {OTHER: LinkSeen(OTHER, other)}
        await node.overlay.remove(NET)
        await node.overlay.remove(OTHER)
        assert node.leftovers() == []

    site.run(scenario())


DRIFTS = ["tunnel gone", "tunnel down", "tunnel mtu", "tunnel loose", "another tunnel", "bridge gone", "bridge down",
          "bridge mtu", "bridge mac", "gateway gone", "gateway surplus", "loopback down", "knob", "port down",
          "port loose", "port mtu", "port nameless"]  # fmt: skip


@pytest.mark.parametrize("what", DRIFTS)
def test_drift_is_seen_and_mended(site: Site, what: str) -> None:
    link = replace(LINK, bridge_mac="02:00:00:00:00:77")

    async def scenario() -> None:
        node = site.nodes[0]
        await settle(node, link)
        node.drift(NET, what)
        seen = await look(node)
        assert seen is not None
        assert seen.link != link
        await node.overlay.ensure(link)
        seen = await look(node)
        assert seen is not None
        assert seen.link == link
        assert seen.plugs == ({} if what == "port nameless" else WHOLE.plugs)
        lost: dict[str, Any] = {"tunnel gone": {}, "another tunnel": {}}
        lost["tunnel down"] = {PEER.mac: replace(PEER, addresses=())}  # so does the kernel
        assert seen.neighbours == lost.get(what, WHOLE.neighbours)
        node.steps.clear()
        await node.overlay.ensure(link)
        assert node.steps == []

    site.run(scenario())


def test_a_port_that_somebody_removed_is_missed_and_does_not_come_back_by_itself(site: Site) -> None:
    async def scenario() -> None:
        node = site.nodes[0]
        await settle(node)
        node.drift(NET, "port gone")
        assert await look(node) == replace(WHOLE, plugs={})
        await node.overlay.ensure(LINK)
        assert await look(node) == replace(WHOLE, plugs={})
        await node.overlay.plug(PLUG)
        assert await look(node) == WHOLE

    site.run(scenario())


@pytest.mark.parametrize(
    "change",
    [{"vni": 4099}, {"port": 4790}, {"local": "10.231.0.9"}, {"mtu": 1400}, {"bridge_mac": "02:00:00:00:00:78"},
     {"gateways": ()}, {"gateways": ("fd20::1/64", "10.20.0.1/24")}, {"gateways": ("10.20.0.2/24",)},
     {"gateways": ("10.20.0.2/24", "10.20.0.1/24", "fd20::1/64")}],
    ids=str,
)  # fmt: skip
def test_other_settings_leave_plugs_and_neighbours(site: Site, change: dict[str, Any]) -> None:
    async def scenario() -> None:
        node = site.nodes[0]
        await settle(node)
        wanted = replace(LINK, **change)
        await node.overlay.ensure(wanted)
        assert await look(node) == replace(WHOLE, link=wanted)
        await node.overlay.ensure(LINK)
        assert await look(node) == WHOLE

    site.run(scenario())


def test_an_address_does_not_take_others_with_it(site: Site) -> None:
    async def scenario() -> None:
        node = site.nodes[0]
        both = replace(LINK, gateways=("10.20.0.1/24", "10.20.0.2/24"))
        for link in (both, replace(both, gateways=both.gateways[1:])):
            await node.overlay.ensure(link)
            assert await look(node) == LinkSeen(NET, link)

    site.run(scenario())


def test_a_vni_or_port_in_use_is_refused_with_a_sentence(site: Site) -> None:
    async def scenario() -> None:
        node = site.nodes[0]
        node.strange_tunnel(LINK.vni, LINK.port)
        with pytest.raises(FabricError) as refused:
            await node.overlay.ensure(LINK)
        assert str(refused.value).startswith(
            f"cannot make the VXLAN device (VNI 4096, UDP port 4789) of network {NET}: File exists"
        )
        assert "give the network another VNI" in str(refused.value)
        assert (await look(node)) == LinkSeen(NET, None)
        node.remove_strange_tunnel()
        await node.overlay.ensure(LINK)
        assert (await look(node)) == LinkSeen(NET, LINK)

    site.run(scenario())


def test_gateways_that_are_no_addresses_are_refused(site: Site) -> None:
    async def scenario() -> None:
        with pytest.raises(FabricError, match=f"cannot read the addresses of network {NET}"):
            await site.nodes[0].overlay.ensure(replace(LINK, gateways=("nonsense",)))
        assert await look(site.nodes[0]) is None

    site.run(scenario())


def test_what_others_have_is_left_alone(site: Site) -> None:
    async def scenario() -> None:
        node = site.nodes[0]
        node.foreign(NET)
        assert await node.overlay.observe() == {}
        for call in (node.overlay.ensure(LINK), node.overlay.remove(NET), node.overlay.plug(PLUG),
                     node.overlay.forward(NET, [PEER], [])):  # fmt: skip
            with pytest.raises(FabricError, match="belongs to nobody we know"):
                await call
        await node.overlay.clear()
        assert Path(node.overlay.namespace(NET)).name in (
            os.listdir(node.folder) if site.kind == "kernel" else node.stack.rooms
        )

    site.run(scenario())
    if isinstance(site, RealSite):
        site.nodes[0].drop_foreign()


def test_without_links_there_is_a_sentence(site: Site) -> None:
    async def scenario() -> None:
        node = site.nodes[0]
        for call in (node.overlay.plug(PLUG), node.overlay.forward(NET, [PEER], [])):
            with pytest.raises(
                FabricError, match=f"of network {NET}: its namespace is not there on this node"
            ):
                await call
        await node.overlay.unplug(NET, PLUG.endpoint_id)
        await settle(node)
        node.drift(NET, "tunnel gone")
        with pytest.raises(FabricError, match="its VXLAN device is not there"):
            await node.overlay.forward(NET, [PEER], [])
        node.drift(NET, "bridge gone")
        with pytest.raises(FabricError, match="its bridge is not there"):
            await node.overlay.plug(PLUG)

    site.run(scenario())


# ---------------------------------------------------------------- forwarding


def test_forwarding_entries_come_and_go(site: Site) -> None:
    other = Neighbour(mac_of("other"), "10.231.0.3", ("10.20.0.10",))
    moved = replace(PEER, vtep="10.231.0.3")

    async def scenario() -> None:
        node = site.nodes[0]
        await node.overlay.ensure(LINK)

        async def then(add: list[Neighbour], remove: list[Neighbour], *wanted: Neighbour) -> None:
            await node.overlay.forward(NET, add, remove)
            seen = await look(node)
            assert seen is not None
            assert seen.neighbours == {one.mac: one for one in wanted}
            assert seen.link == LINK

        await then([PEER, other], [], PEER, other)
        await then([PEER], [], PEER, other)
        await then([moved], [PEER], moved, other)
        await then([PEER], [], PEER, other)
        # An address that goes to another station: removals come first.
        heir = replace(other, mac=mac_of("heir"))
        await then([heir], [other], PEER, heir)
        await then([], [other, heir], PEER)
        await then([], [PEER, other])
        await then([], [])

    site.run(scenario())


def test_forwarding_entries_over_ipv6(site: Site) -> None:
    peer = replace(PEER, vtep="fd99::2")

    async def scenario() -> None:
        node = site.nodes[0]
        await node.overlay.ensure(replace(LINK, local="fd99::1"))
        await node.overlay.forward(NET, [peer], [])
        assert (await node.overlay.observe())[NET].neighbours == {peer.mac: peer}
        await node.overlay.forward(NET, [], [peer])
        assert (await node.overlay.observe())[NET].neighbours == {}

    site.run(scenario())


def test_an_entry_that_others_doubled_is_seen_and_mended(site: Site) -> None:
    async def scenario() -> None:
        node = site.nodes[0]
        await settle(node)
        node.drift(NET, "two vteps")
        seen = await look(node)
        assert seen is not None
        assert seen.neighbours != WHOLE.neighbours
        await node.overlay.forward(NET, [PEER], list(seen.neighbours.values()))
        assert await look(node) == WHOLE

    site.run(scenario())


def test_thousands_of_entries(site: Site) -> None:
    """More than the 1,024 that the kernel's neighbour tables hold of entries it may throw away. The bound on
    time is far above what is needed, and far below what one message at a time through objects takes."""
    peers = [Neighbour(mac_of("peer", str(number)), f"10.231.{number >> 8}.{number & 255}",
                       (f"10.20.{number >> 8}.{number & 255}", f"fd20::{number:x}"))
             for number in range(1, 3001)]  # fmt: skip
    wanted = {one.mac: one for one in peers}

    async def scenario() -> None:
        node = site.nodes[0]
        await node.overlay.ensure(LINK)
        begin = time.process_time()
        await node.overlay.forward(NET, peers, [])
        assert time.process_time() - begin < 2
        seen = await look(node)
        assert seen is not None
        assert seen.neighbours == wanted
        await node.overlay.forward(NET, [], peers[:2999])
        seen = await look(node)
        assert seen is not None
        assert seen.neighbours == {peers[2999].mac: peers[2999]}

    site.run(scenario())


# ---------------------------------------------------------------- plugs


def test_plugs_come_and_go(site: Site) -> None:
    async def scenario() -> None:
        node = site.nodes[0]
        await node.overlay.ensure(LINK)
        name = await node.overlay.plug(PLUG)
        assert len(name) <= 15
        assert node.free_end(PLUG.endpoint_id) == (PLUG.mac, 1450)
        nobodys = Plug("e2" * 32, NET, mac_of("task2"), 1300)
        await node.overlay.plug(nobodys)
        seen = await look(node)
        assert seen == LinkSeen(NET, LINK, {}, {PLUG.endpoint_id: PLUG, nobodys.endpoint_id: nobodys})
        # Made anew: another task, the same name.
        again = replace(PLUG, task_id="t9", mac=mac_of("task9"))
        assert await node.overlay.plug(again) == name
        assert node.free_end(PLUG.endpoint_id) == (again.mac, 1450)
        for _ in range(2):
            await node.overlay.unplug(NET, nobodys.endpoint_id)
            assert await look(node) == LinkSeen(NET, LINK, {}, {PLUG.endpoint_id: again})
        assert node.free_end(nobodys.endpoint_id) is None

    site.run(scenario())


def test_a_pair_goes_wherever_its_free_end_is(site: Site) -> None:
    async def scenario() -> None:
        node = site.nodes[0]
        await node.overlay.ensure(LINK)
        second, third = replace(PLUG, endpoint_id="e2" * 32), replace(PLUG, endpoint_id="e3" * 32)
        for plug, sandbox in ((PLUG, "a"), (second, "b"), (third, "c")):
            await node.overlay.plug(plug)
            node.enter(NET, plug.endpoint_id, sandbox, ())
        await node.overlay.unplug(NET, PLUG.endpoint_id)
        node.end("b")
        seen = await look(node)
        assert seen is not None
        assert set(seen.plugs) == {third.endpoint_id}
        await node.overlay.remove(NET)
        assert node.leftovers() == []

    site.run(scenario())


def test_an_endpoint_has_one_plug_though_networks_be_mixed_up(site: Site) -> None:
    async def scenario() -> None:
        node = site.nodes[0]
        await settle(node)
        await node.overlay.ensure(replace(LINK, network_id=OTHER, vni=4097))
        moved = replace(PLUG, network_id=OTHER)
        await node.overlay.plug(moved)
        seen = await node.overlay.observe()
        assert seen[NET].plugs == {}
        assert seen[OTHER].plugs == {PLUG.endpoint_id: moved}

    site.run(scenario())


def test_ids_that_cannot_be_written_down_are_refused(site: Site) -> None:
    async def scenario() -> None:
        node = site.nodes[0]
        await node.overlay.ensure(LINK)
        for bad in ("with a space", "x" * 250):
            with pytest.raises(FabricError, match="spaces or is longer"):
                await node.overlay.plug(replace(PLUG, endpoint_id=bad))
        assert await look(node) == LinkSeen(NET, LINK)

    site.run(scenario())


# ---------------------------------------------------------------- crashes


def test_clear_leaves_nothing(site: Site) -> None:
    async def scenario() -> None:
        node = site.nodes[0]
        await settle(node)
        await node.overlay.ensure(replace(LINK, network_id=OTHER, vni=4097))
        node.drift(NET, "bridge gone")
        await node.overlay.clear()
        assert node.leftovers() == []
        await node.overlay.clear()

    site.run(scenario())


async def die_everywhere(
    node: Any,
    before: Callable[[], Awaitable[None]],
    call: tuple[Any, ...],
    after: Callable[[], Awaitable[None]],
) -> int:
    """The call made by a process that dies before its first step, its second, and so on until none is left."""
    for at in itertools.count():
        await before()
        died = await node.crash(call[0], call[1:], at)
        await after()
        if not died:
            return at
    raise AssertionError


@pytest.mark.parametrize("way", ["ensure", "remove", "clear"])
def test_death_while_links_are_made(site: Site, way: str) -> None:
    async def scenario() -> None:
        node = site.nodes[0]

        async def after() -> None:
            seen = await look(node)
            assert seen is None or seen.link in (None, LINK) or len(seen.link.gateways) < 2
            if seen is None:  # not even a name is left of one that nobody would ever ask for again
                assert node.leftovers() == []
            if way == "ensure":
                await node.overlay.ensure(LINK)
                assert await look(node) == LinkSeen(NET, LINK)
            if way == "remove":
                await node.overlay.remove(NET)
            else:
                await node.overlay.clear()
            assert node.leftovers() == []

        async def nothing() -> None:
            return None

        assert await die_everywhere(node, nothing, ("ensure", LINK), after) >= 5

    site.run(scenario())


def test_death_while_links_are_mended(site: Site) -> None:
    wanted = replace(LINK, vni=4099, mtu=1400, gateways=("10.20.0.2/24",), bridge_mac="02:00:00:00:00:77")

    async def scenario() -> None:
        node = site.nodes[0]

        async def before() -> None:
            await settle(node)
            node.drift(NET, "port down")

        async def after() -> None:
            await node.overlay.ensure(wanted)
            seen = await look(node)
            assert seen is not None
            assert (seen.link, seen.plugs) == (wanted, WHOLE.plugs)
            await node.overlay.forward(NET, [PEER], [])
            assert await look(node) == replace(WHOLE, link=wanted)

        assert await die_everywhere(node, before, ("ensure", wanted), after) >= 5

    site.run(scenario())


@pytest.mark.parametrize("first", [False, True], ids=["anew", "first"])
def test_death_while_plugging(site: Site, first: bool) -> None:
    async def scenario() -> None:
        node = site.nodes[0]

        async def before() -> None:
            await node.overlay.ensure(LINK)
            if not first:
                await node.overlay.plug(replace(PLUG, task_id="before"))

        async def after() -> None:
            seen = await look(node)
            assert seen is not None
            assert seen.link == LINK
            assert set(seen.plugs) <= {PLUG.endpoint_id}
            await node.overlay.plug(PLUG)
            assert await look(node) == replace(WHOLE, neighbours={})
            assert node.free_end(PLUG.endpoint_id) == (PLUG.mac, 1450)
            if first:
                await node.overlay.unplug(NET, PLUG.endpoint_id)

        assert await die_everywhere(node, before, ("plug", PLUG), after) >= 1

    site.run(scenario())


CALLS = (
    ("unplug", NET, PLUG.endpoint_id),
    ("forward", NET, (), (PEER,)),
    ("remove", NET),
    ("clear",),
)


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call[0])
def test_death_while_things_are_taken_away(site: Site, call: tuple[Any, ...]) -> None:
    async def scenario() -> None:
        node = site.nodes[0]
        wanted = {"unplug": replace(WHOLE, plugs={}), "forward": replace(WHOLE, neighbours={})}.get(call[0])

        async def before() -> None:
            await settle(node)

        async def after() -> None:
            await getattr(node.overlay, call[0])(*call[1:])
            assert await look(node) == wanted

        assert await die_everywhere(node, before, call, after) >= 1

    site.run(scenario())


# ---------------------------------------------------------------- frames


async def joined(site: Site) -> None:
    """A network on two nodes with one station on each, by IPv4 and IPv6."""
    for number, node in enumerate(site.nodes):
        await node.overlay.ensure(replace(LINK, local=node.address))
        plug = Plug(f"e{number}", NET, mac_of(f"task{number}"), 1450)
        await node.overlay.plug(plug)
        node.enter(NET, plug.endpoint_id, f"s{number}", (f"10.20.0.1{number}/24", f"fd20::1{number}/64"))
        other = 1 - number
        await node.overlay.forward(
            NET,
            [Neighbour(mac_of(f"task{other}"), ADDRESSES[other], (f"10.20.0.1{other}", f"fd20::1{other}"))],
            [],
        )


def test_frames_arrive_where_entries_say_so(site: Site) -> None:
    async def scenario() -> None:
        await joined(site)
        here, there = site.nodes
        assert site.delivered("s0", NET, "10.20.0.11") == "s1"
        assert site.delivered("s0", NET, "fd20::11") == "s1"
        assert site.delivered("s0", NET, "10.20.0.12", patience=0.3) == ""
        there.drift(NET, "port loose")
        assert site.delivered("s0", NET, "10.20.0.11", patience=0.3) == ""
        await there.overlay.ensure(replace(LINK, local=there.address))
        assert site.delivered("s0", NET, "10.20.0.11") == "s1"
        await here.overlay.ensure(replace(LINK, local=here.address, vni=4098))
        assert site.delivered("s0", NET, "10.20.0.11", patience=0.3) == ""
        await there.overlay.ensure(replace(LINK, local=there.address, vni=4098))
        assert site.delivered("s0", NET, "10.20.0.11") == "s1"
        station = Neighbour(mac_of("task1"), ADDRESSES[1], ("10.20.0.11", "fd20::11"))
        await here.overlay.forward(NET, [], [station])
        assert site.delivered("s0", NET, "fd20::11", patience=0.3) == ""

    site.run(scenario())


# ---------------------------------------------------------------- the real kernel alone


def counter(node: RealNode, word: str) -> int:
    path = node.overlay.namespace(NET)
    return int(json.loads(run(f"nsenter --net={path} ip -j -s link show vx0"))[0]["stats64"]["tx"][word])


def test_tcp_across_and_back(real: RealSite) -> None:
    real.run(joined(real))
    for family, address in ((socket.AF_INET, "10.20.0.11"), (socket.AF_INET6, "fd20::11")):
        with real.socket(real.nodes[1], "s1", family, socket.SOCK_STREAM) as server:
            server.bind((address, 7001))
            server.listen()
            with real.socket(real.nodes[0], "s0", family, socket.SOCK_STREAM) as client:
                client.connect((address, 7001))
                peer, (source, *_) = server.accept()
                with peer:
                    peer.settimeout(PATIENCE)
                    assert source == address[:-1] + "0"
                    # A megabyte, so that full-size segments have to get through.
                    sent = os.urandom(1 << 20)
                    writer = threading.Thread(target=client.sendall, args=(sent,))
                    writer.start()
                    got = bytearray()
                    while len(got) < len(sent):
                        got += peer.recv(1 << 16)
                    writer.join()
                    assert got == sent


@pytest.mark.parametrize(("family", "address", "most"),
                         [(socket.AF_INET, "10.20.0.11", 1422), (socket.AF_INET6, "fd20::11", 1402)])  # fmt: skip
def test_the_size_of_a_datagram_is_exact(real: RealSite, family: int, address: str, most: int) -> None:
    real.run(joined(real))
    with real.socket(real.nodes[1], "s1", family) as ear, real.socket(real.nodes[0], "s0", family) as mouth:
        ear.bind((address, 7002))
        # IP_MTU_DISCOVER and IPV6_MTU_DISCOVER, both: always set "do not fragment".
        mouth.setsockopt(
            *((socket.IPPROTO_IP, 10, 2) if family == socket.AF_INET else (socket.IPPROTO_IPV6, 23, 2))
        )
        mouth.sendto(b"x" * most, (address, 7002))
        assert len(ear.recv(2000)) == most
        with pytest.raises(OSError, match=os.strerror(errno.EMSGSIZE)):
            mouth.sendto(b"x" * (most + 1), (address, 7002))


def test_unknown_addresses_raise_no_packet(real: RealSite) -> None:
    real.run(joined(real))
    here = real.nodes[0]
    space = here.sandbox("s0")
    for family in ("ipv4", "ipv6"):
        knob = Path(f"/proc/sys/net/{family}/neigh/eth0/retrans_time_ms")
        inside(f"/run/netns/{space}", lambda knob=knob: knob.write_text("50"))
    before = counter(here, "packets")
    for family, address in ((socket.AF_INET, "10.20.0.99"), (socket.AF_INET6, "fd20::99")):
        with real.socket(here, "s0", family) as mouth:
            mouth.sendto(b"anybody?", (address, 7003))
            deadline = time.monotonic() + PATIENCE
            while "FAILED" not in run(f"ip -n {space} neigh show to {address}"):
                assert time.monotonic() < deadline, "the question was never given up, so perhaps never asked"
                time.sleep(0.02)
    assert counter(here, "packets") == before
    assert real.delivered("s0", NET, "10.20.0.11") == "s1"
    assert counter(here, "packets") > before


def test_names_are_those_of_ip_netns(real: RealSite) -> None:
    """In the usual folder, where `ip netns` looks."""
    network = f"{os.getpid():012d}" + "z" * 13

    async def scenario() -> None:
        overlay = KernelOverlay(home=real.nodes[0].home)
        try:
            assert overlay.namespace(network) == f"/run/netns/swp-{os.getpid():012d}"
            await overlay.ensure(replace(LINK, network_id=network))
            assert f"swp-{os.getpid():012d}" in run("ip netns list")
            assert "br0" in run(f"ip -n swp-{os.getpid():012d} link")
        finally:
            await overlay.remove(network)
            overlay.close()
        assert f"swp-{os.getpid():012d}" not in run("ip netns list")

    real.run(scenario())


def test_removal_is_over_when_it_returns(real: RealSite) -> None:
    """The kernel clears a namespace some time after its end; a network that is made again at once must not
    meet the VNI of its former life."""

    async def scenario() -> None:
        overlay = real.nodes[0].overlay
        for _ in range(5):
            await overlay.ensure(LINK)
            await overlay.plug(PLUG)
            await overlay.remove(NET)

    real.run(scenario())


def test_a_port_of_another_program_is_refused_with_a_sentence(real: RealSite) -> None:
    node = real.nodes[0]

    async def scenario() -> None:
        with inside(node.home, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as other:
            other.bind(("0.0.0.0", LINK.port))
            with pytest.raises(
                FabricError, match=r"Address already in use; UDP port 4789 is taken by another program"
            ):
                await node.overlay.ensure(LINK)
        await node.overlay.ensure(LINK)

    real.run(scenario())


def test_without_rights_there_is_a_sentence(tmp_path: Path) -> None:
    program = (
        "import asyncio, os\nfrom swarmpy.adapters.overlay import KernelOverlay\nos.setuid(65534)\n"
        "from swarmpy.ports import FabricError\n"
        "async def main():\n"
        "    try:\n        await KernelOverlay('/nowhere').probe()\n"
        "    except FabricError as error:\n        print(error)\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(
        "cannot try what the kernel can do: Operation not permitted; run the daemon as root"
    )


def test_threads_come_home(real: RealSite) -> None:
    """The loop's thread never leaves; the worker is back after each failure, wherever it was thrown."""
    here = "/proc/thread-self/ns/net"
    node = real.nodes[0]

    async def scenario() -> None:
        own = os.stat(here).st_ino
        with inside(node.home, lambda: open(here)) as place:
            home = os.fstat(place.fileno()).st_ino
        for at in itertools.count():
            taken = itertools.count()

            def step(word: str, at: int = at, taken: Iterator[int] = taken) -> None:
                if next(taken) == at:
                    raise ZeroDivisionError

            overlay = KernelOverlay(node.folder, node.home, step)
            assert await overlay._worker.run(lambda: os.stat(here).st_ino) == home
            try:
                await overlay.ensure(LINK)
                broken = False
            except ZeroDivisionError:
                broken = True
            assert await overlay._worker.run(lambda: os.stat(here).st_ino) == home
            # Even a job that leaves the thread elsewhere does no harm to the next one.
            await overlay._worker.run(lambda: netns._call("unshare", netns._NEWNET))
            assert await overlay._worker.run(lambda: os.stat(here).st_ino) == home
            overlay.close()
            await node.overlay.clear()
            assert os.stat(here).st_ino == own
            if not broken:
                assert at >= 5
                return

    real.run(scenario())


def test_bridge_filtering_is_off(real: RealSite) -> None:
    async def scenario() -> None:
        await real.nodes[0].overlay.ensure(LINK)

    real.run(scenario())
    knobs = ["net/ipv4/conf/br0/rp_filter", "net/ipv4/conf/vx0/rp_filter", "net/ipv4/conf/br0/send_redirects",
             "net/ipv6/conf/br0/accept_ra"]  # fmt: skip
    if Path("/proc/sys/net/bridge").exists():
        knobs += [f"net/bridge/bridge-nf-call-{word}" for word in ("iptables", "ip6tables", "arptables")]
    path = real.nodes[0].overlay.namespace(NET)
    for knob in knobs:
        assert inside(path, lambda knob=knob: Path("/proc/sys", knob).read_text().strip()) == "0", knob


def test_nothing_speaks_for_itself(real: RealSite) -> None:
    """No link-local address, so no router or group messages on anybody's wire."""

    async def scenario() -> None:
        await real.nodes[0].overlay.ensure(LINK)

    real.run(scenario())
    found = json.loads(run(f"nsenter --net={real.nodes[0].overlay.namespace(NET)} ip -j addr"))
    held = {one["local"]: one for link in found for one in link["addr_info"] if link["ifname"] != "lo"}
    assert set(held) == {"10.20.0.1", "fd20::1"}
    assert not held["fd20::1"].get("tentative")


# ---------------------------------------------------------------- the simulated kernel alone


def test_a_simulated_kernel_can_lack_and_refuse() -> None:
    site = SimSite()
    node = site.nodes[0]
    assert isinstance(node, SimNode)

    async def scenario() -> None:
        node.stack.lacks.add("ipv6")
        assert await node.overlay.probe() == {"overlay"}
        with pytest.raises(FabricError, match="IPv6 is off on this node"):
            await node.overlay.ensure(LINK)
        node.stack.lacks.add("overlay")
        with pytest.raises(FabricError, match="modprobe vxlan"):
            await node.overlay.ensure(replace(LINK, gateways=()))
        node.stack.lacks.clear()
        node.stack.refuse = 0.5
        refused: list[str] = []
        seen = None
        while seen != LinkSeen(NET, LINK):
            try:
                await node.overlay.ensure(LINK)
                seen = await look(node)
            except FabricError as error:
                refused.append(str(error))
        assert refused
        assert all("No buffer space" in text for text in refused)
        node.stack.hang()
        waiting = asyncio.create_task(node.overlay.plug(PLUG))
        await asyncio.sleep(5)
        assert not waiting.done()
        node.stack.heal()
        await waiting
        node.stack.reboot()
        assert await node.overlay.observe() == {}

    site.run(scenario())


# ---------------------------------------------------------------- identities


def test_identities_survive_being_written_down() -> None:
    gateways = ("10.0.0.1/8", "fd00::1/64", "10.0.0.2/8", "9.0.0.1/8")
    own = Identity.of("n1", "02:00:00:00:00:01", gateways)
    assert read_network(own.alias) == own
    assert own.gateways(sorted(gateways)) == gateways
    assert own.gateways(gateways[1:]) == ("9.0.0.1/8", "10.0.0.2/8", "fd00::1/64")
    assert read_plug(write_plug(PLUG)) == PLUG
    assert read_plug(write_plug(replace(PLUG, task_id=""))) == replace(PLUG, task_id="")
    for text in ("", "lo", "swarmpy-network", "swarmpy-plug endpoint=x", own.alias):
        assert read_plug(text) is None
    for text in ("", "lo", "swarmpy-network", write_plug(PLUG)):
        assert read_network(text) is None
