"""Serving inside networks' namespaces: real ones, with the client in another one behind a bridge."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarmpy.adapters.dns import NameServers
from swarmpy.adapters.dns.sockets import identity
from swarmpy.model.links import Answer
from swarmpy.ports.fabric import FabricError
from tests.dns.servers import OWN, PORT, Table, address, ask, texts

lab = pytest.mark.lab

ASK = """
import socket, sys
import dns.message, dns.query, dns.rcode
for server in sys.argv[2:]:
    for how in (dns.query.udp, dns.query.tcp):
        reply = how(dns.message.make_query(sys.argv[1], "A"), server, timeout=5)
        print([str(data) for rrset in reply.answer for data in rrset])
"""


def run(*command: str) -> str:
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, f"{command}: {done.stdout}"
    return done.stdout


class Net:
    """A network's namespace with a bridge, and a client's behind it."""

    def __init__(self, tag: str) -> None:
        self.name, self.client = f"swdns{tag}", f"swdnsc{tag}"
        for name in (self.name, self.client):
            run("ip", "netns", "add", name)
        run("ip", "-n", self.name, "link", "add", "br0", "type", "bridge")
        run("ip", "-n", self.name, "addr", "add", "10.66.0.1/24", "dev", "br0")
        peer = ["peer", "name", "eth0", "netns", self.client]
        run("ip", "-n", self.name, "link", "add", "v0", "type", "veth", *peer)
        run("ip", "-n", self.name, "link", "set", "v0", "master", "br0", "up")
        run("ip", "-n", self.name, "link", "set", "br0", "up")
        run("ip", "-n", self.client, "addr", "add", "10.66.0.9/24", "dev", "eth0")
        run("ip", "-n", self.client, "addr", "add", "fd66::9/64", "dev", "eth0", "nodad")
        run("ip", "-n", self.client, "link", "set", "eth0", "up")

    @property
    def path(self) -> str:
        return f"/run/netns/{self.name}"

    async def ask(self, name: str, *servers: str) -> list[str]:
        command = ["ip", "netns", "exec", self.client, sys.executable, "-c", ASK, name, *servers]
        return (await asyncio.to_thread(run, *command)).splitlines()

    def remove(self) -> None:
        for name in (self.name, self.client):
            run("ip", "netns", "del", name)


@pytest.fixture
def nets() -> Iterator[list[Net]]:
    made = [Net(f"{os.getpid()}{letter}") for letter in "ab"]
    yield made
    for net in made:
        net.remove()


@lab
async def test_two_networks_with_the_same_addresses(nets, table) -> None:
    one, two = nets
    own = identity("/proc/thread-self/ns/net")
    names = NameServers(table)
    # The IPv6 address comes after the server: it may be bound before it is there.
    for net in nets:
        await names.serve(net.name, net.path, ["10.66.0.1", "fd66::1"])
        run("ip", "-n", net.name, "addr", "add", "fd66::1/64", "dev", "br0", "nodad")
    assert await one.ask("web", "10.66.0.1", "fd66::1") == ["['10.0.1.2']"] * 4
    assert await two.ask("web", "10.66.0.1") == ["['10.0.1.2']"] * 2
    asked = {(question.network_id, question.client) for question in table.asked}
    assert asked == {(one.name, "10.66.0.9"), (one.name, "fd66::9"), (two.name, "10.66.0.9")}
    await names.withdraw(one.name)
    await names.withdraw(one.name)
    await names.serve(one.name, one.path, ["10.66.0.1"])
    assert await one.ask("web", "10.66.0.1") == ["['10.0.1.2']"] * 2
    # No thread of the process was left behind in a foreign namespace.
    tasks = [f"/proc/self/task/{thread.native_id}/ns/net" for thread in threading.enumerate()]
    assert {identity(path) for path in tasks} == {own}
    assert not [thread for thread in threading.enumerate() if thread.name == "namespace"]
    await names.stop()


@lab
async def test_a_namespace_that_was_made_again_is_served_again(nets, table) -> None:
    one, two = nets
    names = NameServers(table)
    path = Path(f"/run/netns/{one.name}x")
    path.touch()
    run("mount", "--bind", one.path, str(path))
    try:
        await names.serve("n", str(path), ["10.66.0.1"])
        run("umount", str(path))
        run("mount", "--bind", two.path, str(path))
        await names.serve("n", str(path), ["10.66.0.1"])
        assert await two.ask("web", "10.66.0.1") == ["['10.0.1.2']"] * 2
    finally:
        run("umount", str(path))
        path.unlink()
        await names.stop()


async def test_serving_again_at_the_same_place_changes_nothing(names, server, table) -> None:
    await ask(server, "web")
    zone = names._served["net1"].zone
    await names.serve("net1", OWN, [server])
    assert names._served["net1"].zone is zone
    other = address()
    await names.serve("net1", OWN, [other])
    assert texts(await ask(other, "web")) == ["10.0.1.2"]
    with pytest.raises(ConnectionRefusedError):
        await ask(server, "web", tcp=True)


async def test_what_cannot_be_served_is_a_sentence(names, server, table) -> None:
    second = NameServers(table, port=PORT)
    with pytest.raises(FabricError, match=f"no name server at {server} port {PORT} .*another server listens"):
        await second.serve("n", OWN, [address(), server])
    with pytest.raises(FabricError, match="No such file"):
        await second.serve("n", "/run/netns/there-is-none", ["10.0.0.1"])
    with pytest.raises(FabricError, match="does not appear to be an IPv4 or IPv6 address"):
        await second.serve("n", OWN, ["nonsense"])
    with pytest.raises(FabricError, match="cannot be entered"):
        await second.serve("n", "/etc/passwd", [address()])
    assert not second._served
    # The failure left nothing bound, and the place can be had by who comes next.
    await names.stop()
    await second.serve("n", OWN, [server])
    assert texts(await ask(server, "web")) == ["10.0.1.2"]
    await second.stop()


async def test_a_namespace_that_went_is_no_longer_served(names, server, tmp_path) -> None:
    with pytest.raises(FabricError):
        await names.serve("net1", str(tmp_path / "gone"), [server])
    with pytest.raises(ConnectionRefusedError):
        await ask(server, "web", tcp=True)


async def test_who_gives_up_binding_leaves_nothing_bound(table) -> None:
    where = address()
    for turns in range(4):  # before, while and after the thread works
        names = NameServers(table, port=PORT)
        serving = asyncio.create_task(names.serve("n", OWN, [where]))
        for _ in range(turns):
            await asyncio.sleep(0)
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        await names.stop()
    again = NameServers(table, port=PORT)
    async with asyncio.timeout(10):
        while True:
            try:
                await again.serve("n", OWN, [where])
            except FabricError:
                await asyncio.sleep(0.01)  # the thread that nobody waits for is about to end
            else:
                break
    assert texts(await ask(where, "web")) == ["10.0.1.2"]
    await again.stop()


async def test_after_stop_nothing_is_open(table, resolv_conf) -> None:
    def fds() -> int:
        return len(os.listdir("/proc/self/fd"))

    await asyncio.sleep(0)
    before = fds()
    names = NameServers(Table(web=Answer(addresses=("10.0.0.1",))), resolv_conf=resolv_conf, port=PORT)
    for number in range(10):
        where = address()
        await names.serve(f"n{number}", OWN, [where])
        assert texts(await ask(where, "web")) == ["10.0.0.1"]
    async with asyncio.timeout(5):
        while fds() != before + 20:  # the clients' sockets close in their own time
            await asyncio.sleep(0.01)
        await names.stop()
        while fds() != before:
            await asyncio.sleep(0.01)
