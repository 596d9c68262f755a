"""The network driver against a real Engine, asked as docs/design/network-driver.md says."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import docker
import docker.errors
import pytest

from swarmpy.adapters.dns import NameServers
from swarmpy.adapters.docker import DockerEngine
from swarmpy.adapters.docker.nets import NETWORK_DRIVER, NETWORK_LABEL
from swarmpy.adapters.driver import NetworkDriver
from swarmpy.model.links import Answer, Question
from swarmpy.ports import EngineError
from tests.contracts.netengine import DRIVER, NetEngine, VethPlumber, create, options

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120)]

WHOLE = "busybox ip -o addr; busybox ip -o link; busybox ip route; cat /etc/resolv.conf"
A = options("10.77.0.5/24 fd77::5/64", "02:00:00:00:77:05", "ova")
B = options("10.78.0.6/24", "02:00:00:00:78:06", "ovb")


@pytest.fixture(scope="module")
def engine() -> Iterator[NetEngine]:
    engine = NetEngine()
    try:
        engine.start()
        engine.load_image()
        yield engine
    finally:
        engine.stop()


@pytest.fixture
def plumber(engine: NetEngine) -> VethPlumber:
    return VethPlumber(engine)


@pytest.fixture
async def driver(engine: NetEngine, plumber: VethPlumber) -> AsyncIterator[NetworkDriver]:
    driver = NetworkDriver(engine.socket)
    await driver.start(plumber)
    yield driver
    await driver.stop()


@pytest.fixture
async def client(engine: NetEngine, driver: NetworkDriver) -> AsyncIterator[docker.APIClient]:
    client = engine.client()
    await asyncio.to_thread(networks, client)
    yield client
    for container in client.containers(all=True):
        await asyncio.to_thread(client.remove_container, container["Id"], force=True)
    client.close()
    assert engine.ports() == set()


def networks(client: docker.APIClient) -> None:
    have = {network["Name"] for network in client.networks()}
    for name in {"ova", "ovb"} - have:
        client.create_network(name, driver=DRIVER, ipam={"Driver": "null"}, check_duplicate=True)


async def started(client: docker.APIClient, container: str) -> int:
    await asyncio.to_thread(client.start, container)
    return int(client.inspect_container(container)["State"]["Pid"])


async def output(client: docker.APIClient, container: str) -> str:
    await asyncio.to_thread(client.start, container)
    await asyncio.to_thread(client.wait, container)
    return (await asyncio.to_thread(client.logs, container)).decode()


def inside(engine: NetEngine, pid: int) -> str:
    return engine.run("nsenter", "-t", str(pid), "--net", "ip", "-o", "addr")


async def test_two_networks_are_there_at_the_first_instruction(client, plumber) -> None:
    text = await output(client, create(client, {"ova": A, "ovb": B}, WHOLE))
    for word in ("10.77.0.5/24", "fd77::5/64", "02:00:00:00:77:05", "10.78.0.6/24", "02:00:00:00:78:06"):
        assert word in text
    lines = text.splitlines()
    assert any("ova" in line and "10.77.0.5/24" in line for line in lines)
    assert any("ovb" in line and "mtu 1450" in line and ",UP" in line for line in lines), text
    assert "nameserver 127.0.0.11" in text
    assert len(plumber.said("create")) == len(plumber.said("join")) == 2


async def test_a_network_gives_way_to_its_namesake(client, engine) -> None:
    """A network that was removed and made again has another id: its counterpart here is made anew."""
    ours = NetworkDriver(engine.root / "plugins" / f"{NETWORK_DRIVER}.sock")
    await ours.start(VethPlumber(engine))
    port = DockerEngine(engine.url)
    try:
        for network_id in ("first", "first", "second"):
            await port.ensure_network("back", network_id)
            assert await port.networks() == {"back": network_id}
        container = create(client, {"back": A}, "sleep 60")
        await started(client, container)
        with pytest.raises(EngineError, match="containers of a network back that is gone") as refused:
            await port.ensure_network("back", "third")
        assert refused.value.conflict
        assert await port.networks() == {"back": "second"}
        await asyncio.to_thread(client.remove_container, container, force=True)
        await port.ensure_network("back", "third")
        assert await port.networks() == {"back": "third"}
        with pytest.raises(EngineError, match="has a network ova of its own") as refused:
            await port.ensure_network("ova", "fourth")
        assert refused.value.conflict
        await port.remove_network("back")
    finally:
        port.close()
        await ours.stop()


async def test_the_way_out_is_the_engines_link_unless_isolated(client) -> None:
    text = await output(client, create(client, {"ova": A}, WHOLE))
    assert "default via" in text
    text = await output(client, create(client, {"ova": {**A, "io.swarmpy.isolated": "1"}}, WHOLE))
    assert "10.77.0.0/24 dev ova" in text
    assert "default" not in text
    assert "eth" not in text.replace("link/ether", "").replace("ethernet", "")


async def test_names_are_asked_through_the_engines_resolver(client, engine, tmp_path) -> None:
    """The one server of HostConfig.Dns sees the container's own address in that network."""
    asked: list[Question] = []

    def resolve(question: Question) -> Answer:
        asked.append(question)
        known = {"web": Answer(addresses=("10.77.0.99",)), "tasks.web": Answer(addresses=("10.77.0.98",))}
        return known.get(question.name, Answer(refused=True))

    names = NameServers(resolve, resolv_conf=tmp_path / "none")
    engine.run("ip", "addr", "replace", "10.77.0.1/24", "dev", "swbr")
    await names.serve("net", engine.namespace, ["10.77.0.1"])
    script = (
        "for name in web tasks.web; do busybox nslookup $name; done; busybox nslookup missing || echo none"
    )
    text = await output(client, create(client, {"ova": A, "ovb": B}, script))
    await names.stop()
    assert "10.77.0.99" in text
    assert "10.77.0.98" in text
    assert text.rstrip().endswith("none")
    assert {(question.network_id, question.client) for question in asked} == {("net", "10.77.0.5")}
    assert {question.name for question in asked} == {"web", "tasks.web", "missing"}


async def test_a_container_that_starts_again_has_its_addresses(client, engine, plumber) -> None:
    container = create(client, {"ova": A})
    await started(client, container)
    await asyncio.to_thread(client.restart, container, 0)
    pid = int(client.inspect_container(container)["State"]["Pid"])
    assert "10.77.0.5/24" in inside(engine, pid)
    first, second = plumber.said("join")
    assert first != second
    assert first in plumber.said("leave")
    assert len(engine.ports()) == 1


async def test_a_container_outlives_the_driver_and_is_left_by_its_successor(
    client, engine, driver, plumber
) -> None:
    container = create(client, {"ova": A})
    pid = await started(client, container)
    await driver.stop()
    assert not engine.socket.exists()
    removal = asyncio.create_task(asyncio.to_thread(client.remove_container, container, force=True))
    while Path(f"/proc/{pid}").exists():
        await asyncio.sleep(0.05)
    assert len(engine.ports()) == 1  # the process is gone, and the driver away
    successor = VethPlumber(engine)
    again = NetworkDriver(engine.socket)
    await again.start(successor)
    await removal
    assert successor.said("create") == successor.said("join") == []
    assert set(successor.said("leave")) == set(plumber.said("join"))
    assert engine.ports() == set()
    await again.stop()
    await driver.start(plumber)


@pytest.mark.parametrize("away", [False, True], ids=["driver there", "driver away"])
async def test_a_container_outlives_the_engine(client, engine, driver, plumber, away) -> None:
    container = create(client, {"ova": A, "ovb": B})
    pid = await started(client, container)
    calls = list(plumber.calls)
    await asyncio.to_thread(engine.kill_dockerd)
    if away:
        await driver.stop()
    began = time.monotonic()
    await asyncio.to_thread(engine.start_dockerd)
    assert time.monotonic() - began < 15  # it does not wait for the driver
    if away:
        await driver.start(plumber)
    assert int(client.inspect_container(container)["State"]["Pid"]) == pid
    assert plumber.calls == calls  # nothing was asked again
    assert "10.77.0.5/24" in inside(engine, pid)
    assert "10.78.0.6/24" in inside(engine, pid)
    await asyncio.to_thread(client.remove_container, container, force=True)
    assert set(plumber.said("leave")) == set(plumber.said("join"))
    # The Engine that came back has its networks still.
    text = await output(client, create(client, {"ova": A}, WHOLE))
    assert "10.77.0.5/24" in text


async def test_hanging_in_join_delays_only_that_container(client, engine, plumber) -> None:
    stuck = create(client, {"ova": {**A, "io.swarmpy.hang": "1"}})
    fine = create(client, {"ova": B})
    other = engine.client()
    start = asyncio.create_task(asyncio.to_thread(other.start, stuck))
    await asyncio.to_thread(plumber.hanging.wait, 10)
    await started(client, fine)
    assert len(client.containers()) == 1
    assert not start.done()
    plumber.release.set()
    await start
    assert len(client.containers()) == 2
    other.close()


async def test_hanging_in_join_ends_at_the_deadline(client, driver) -> None:
    driver._deadline = 1
    with pytest.raises(docker.errors.APIError, match="could not plug it in within 1 s"):
        await asyncio.to_thread(client.start, create(client, {"ova": {**A, "io.swarmpy.hang": "1"}}))
    driver._deadline = 20


async def test_a_refusal_reaches_the_user(client, engine, plumber) -> None:
    container = create(client, {"ova": A, "ovb": {}})
    for _ in range(20):
        with pytest.raises(docker.errors.APIError, match="this container is nobody's: attach it"):
            await asyncio.to_thread(client.start, container)
        assert engine.ports() == set()  # what was plugged in already is unplugged
        if plumber.said("join"):
            return  # the Engine joins networks in any order: this time, the good one was the first
    pytest.fail("the Engine never joined the good network first")


async def test_an_address_that_the_engine_chose_is_refused(client, engine) -> None:
    given = {"Subnet": "10.77.0.0/24", "Gateway": "10.77.0.1"}
    ipam = {"Driver": "default", "Config": [given]}
    await asyncio.to_thread(client.create_network, "chosen", driver=DRIVER, ipam=ipam)
    # The Engine's first free address is 10.77.0.2.
    with pytest.raises(docker.errors.APIError, match="IPAM driver 'null'"):
        await asyncio.to_thread(client.start, create(client, {"chosen": A}))
    same = options("10.77.0.2/24", "02:00:00:00:77:02")
    seen = create(client, {"chosen": same})
    await started(client, seen)
    shown = client.inspect_container(seen)["NetworkSettings"]["Networks"]["chosen"]
    assert (shown["IPAddress"], shown["MacAddress"]) == ("10.77.0.2", "02:00:00:00:77:02"), json.dumps(shown)
    await asyncio.to_thread(client.remove_container, seen, force=True)
    for left in client.containers(all=True):
        client.remove_container(left["Id"])
    await asyncio.to_thread(client.remove_network, "chosen")


# ---------------------------------------------------------------- our networks in the Engine


@pytest.fixture
async def ours(
    engine: NetEngine, client: docker.APIClient, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[DockerEngine]:
    """The Engine port, making networks of the driver under test."""
    monkeypatch.setattr("swarmpy.adapters.docker.nets.NETWORK_DRIVER", DRIVER)
    made = DockerEngine(engine.url)
    yield made
    for one in client.networks(filters={"label": [NETWORK_LABEL]}):
        await asyncio.to_thread(client.remove_network, one["Id"])
    made.close()


async def test_a_network_that_is_asked_for_many_times_at_once_is_made_once(
    client: docker.APIClient, ours: DockerEngine
) -> None:
    for number in range(4):  # the Engine's own check for duplicates is a matter of luck
        name = f"front{number}"
        await asyncio.gather(*(ours.ensure_network(name, f"id{number}") for _ in range(8)))
        assert len(await asyncio.to_thread(client.networks, [name])) == 1
        assert (await ours.networks())[name] == f"id{number}"


async def test_a_network_that_is_there_twice_is_there_once_again_and_the_used_one_stays(
    client: docker.APIClient, ours: DockerEngine
) -> None:
    def make() -> str:
        answer = client.create_network(
            "front",
            driver=DRIVER,
            ipam={"Driver": "null"},
            labels={NETWORK_LABEL: "id"},
            check_duplicate=False,
        )
        return str(answer["Id"])

    used = await asyncio.to_thread(make)
    container = create(client, {used: A})
    await started(client, container)
    others = [await asyncio.to_thread(make) for _ in range(2)]
    assert len({used, *others}) == 3
    await ours.ensure_network("front", "id")
    assert [one["Id"] for one in await asyncio.to_thread(client.networks, ["front"])] == [used]
    await asyncio.to_thread(client.remove_container, container, force=True)
