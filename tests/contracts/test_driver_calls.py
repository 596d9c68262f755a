"""The network driver's calls as libnetwork makes them, without an Engine: what no Engine can be made to do."""

from __future__ import annotations

import asyncio
import io
import json
import os
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from swarmpy.adapters.driver import NetworkDriver, server
from swarmpy.ports.fabric import FabricError, Joined, Plugged

MAC = "02:00:00:00:00:01"


class Plumber:
    """Answers at once, unless told otherwise; remembers what it was asked."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.stubborn = False
        self.failing: Exception | None = None

    async def _work(self, *call: Any) -> None:
        self.calls.append(call)
        while not self.gate.is_set():
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                if not self.stubborn:
                    raise
        if self.failing:
            raise self.failing
        self.calls.append(("done", *call))

    async def create(self, endpoint: Plugged) -> tuple[tuple[str, ...], str]:
        await self._work("create", endpoint)
        return ("10.1.0.5/24", "fd00::5/64"), MAC

    async def join(self, endpoint: Plugged) -> Joined:
        await self._work("join", endpoint)
        return Joined("v1", "eth", "io.swarmpy.isolated" in endpoint.options)

    async def leave(self, endpoint_id: str) -> None:
        await self._work("leave", endpoint_id)


@pytest.fixture
def plumber() -> Plumber:
    return Plumber()


@pytest.fixture
async def driver(tmp_path: Path, plumber: Plumber) -> AsyncIterator[NetworkDriver]:
    driver = NetworkDriver(tmp_path / "plugins" / "d.sock", deadline=0.3)
    await driver.start(plumber)
    yield driver
    plumber.gate.set()
    await driver.stop()


class Client:
    """Posts calls."""

    def __init__(self, path: Path) -> None:
        self.session = aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path)))

    async def raw(self, method: str, body: bytes, verb: str = "POST") -> tuple[int, Any]:
        async with self.session.request(verb, f"http://d/{method}", data=io.BytesIO(body)) as answer:
            return answer.status, json.loads(await answer.text())

    async def call(self, method: str, **body: Any) -> Any:
        status, answer = await self.raw(f"NetworkDriver.{method}", json.dumps(body).encode())
        assert status == 200
        return answer

    async def create(self, key: str = "e1", **options: Any) -> Any:
        empty = {"Address": "", "AddressIPv6": "", "MacAddress": ""}
        return await self.call(
            "CreateEndpoint", NetworkID="n", EndpointID=key, Interface=empty, Options=options
        )

    async def join(self, key: str = "e1") -> Any:
        return await self.call("Join", NetworkID="n", EndpointID=key, SandboxKey="/s", Options={})


@pytest.fixture
async def client(driver: NetworkDriver, tmp_path: Path) -> AsyncIterator[Client]:
    client = Client(tmp_path / "plugins" / "d.sock")
    yield client
    await client.session.close()


async def test_a_whole_life(client: Client, plumber: Plumber) -> None:
    assert await client.raw("Plugin.Activate", b"") == (200, {"Implements": ["NetworkDriver"]})
    local = {"Scope": "local", "ConnectivityScope": "local"}
    assert await client.raw("NetworkDriver.GetCapabilities", b"") == (200, local)
    assert await client.call("CreateNetwork", NetworkID="n", Options={}, IPv4Data=None) == {}
    answer = await client.create(**{"io.swarmpy.task": "t1", "com.docker.network.portmap": [{"Port": 80}]})
    interface = {"Address": "10.1.0.5/24", "AddressIPv6": "fd00::5/64", "MacAddress": MAC}
    assert answer == {"Interface": interface}
    assert await client.join() == {"InterfaceName": {"SrcName": "v1", "DstPrefix": "eth"}}
    assert await client.call("EndpointOperInfo", NetworkID="n", EndpointID="e1") == {"Value": {}}
    for word in ("Leave", "Leave", "DeleteEndpoint", "DeleteEndpoint"):
        assert await client.call(word, NetworkID="n", EndpointID="e1") == {}
    opts = {"io.swarmpy.task": "t1"}
    asked = [call for call in plumber.calls if call[0] != "done"]
    assert asked[0] == ("create", Plugged("e1", opts))
    assert asked[1] == ("join", Plugged("e1", opts, "/s"))
    assert asked[2:] == [("leave", "e1")] * 4


async def test_isolated_means_no_way_out(client: Client) -> None:
    await client.create(**{"io.swarmpy.isolated": "1"})
    assert (await client.join())["DisableGatewayService"] is True


async def test_joining_what_was_never_created_is_a_sentence(client: Client, plumber: Plumber) -> None:
    assert "start the container again" in (await client.join("lost"))["Err"]
    await client.create("e1")
    await client.call("DeleteEndpoint", NetworkID="n", EndpointID="e1")
    assert "not known" in (await client.join("e1"))["Err"]
    assert not [call for call in plumber.calls if call[0] == "join"]


async def test_unknown_methods_and_verbs(client: Client) -> None:
    status, answer = await client.raw("NetworkDriver.Surprise", b"{}")
    assert (status, answer["Err"]) == (404, "NetworkDriver.Surprise is not implemented")
    status, _ = await client.raw("NetworkDriver.Join", b"", "GET")
    assert status == 405


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"EndpointID": 5}',
        b'{"EndpointID": ""}',
        b"{}",
        b'{"EndpointID": "e", "SandboxKey": [], "Options": 7, "Interface": "x"}',
        b"[" * 100_000,
        b'{"EndpointID": "' + b"x" * 2_000_000 + b'"}',
    ],
    ids=lambda body: f"{body[:12]!r}*{len(body)}",
)
@pytest.mark.parametrize("method", ["CreateEndpoint", "Join"])
async def test_malformed_bodies(client: Client, caplog: pytest.LogCaptureFixture, method: str, body) -> None:
    status, answer = await client.raw(f"NetworkDriver.{method}", body)
    assert status == 200
    assert answer["Err"]
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    assert "Err" not in await client.create()


async def test_what_the_engine_chose_must_agree(client: Client) -> None:
    async def created(**given: str) -> Any:
        return await client.call("CreateEndpoint", EndpointID="e1", Interface=given)

    assert await created(Address="10.1.0.5/24", MacAddress=MAC.upper()) == {
        "Interface": {"AddressIPv6": "fd00::5/64"}
    }
    for wrong in ({"Address": "10.1.0.9/24"}, {"MacAddress": "02:00:00:00:00:09"}, {"AddressIPv6": "junk"}):
        assert "IPAM driver 'null'" in (await created(**wrong))["Err"]
    assert "Err" in await client.join()


async def test_failures_of_the_plumber(client: Client, plumber: Plumber, caplog) -> None:
    plumber.failing = FabricError("there is no room")
    assert await client.create() == {"Err": "there is no room"}
    plumber.failing = RuntimeError("a bug with a secret in it")
    answer = await client.create()
    assert "RuntimeError" in answer["Err"]
    assert "secret" not in answer["Err"]
    assert "a bug with a secret in it" in caplog.text


async def test_a_hung_plumber_delays_that_call_only(client: Client, driver, plumber: Plumber) -> None:
    driver._deadline = 60
    await client.create("e1")
    plumber.gate.clear()
    hung = asyncio.create_task(client.join("e1"))
    while ("join", Plugged("e1", {}, "/s")) not in plumber.calls:
        await asyncio.sleep(0)
    assert await client.raw("NetworkDriver.GetCapabilities", b"")
    assert not hung.done()
    plumber.gate.set()
    assert "Err" not in await hung


async def test_a_call_that_hangs_fails_at_its_deadline(client: Client, plumber: Plumber) -> None:
    await client.create("e1")
    plumber.gate.clear()
    assert "within 0.3 s" in (await client.join("e1"))["Err"]
    plumber.gate.set()
    assert await client.call("DeleteEndpoint", EndpointID="e1") == {}


async def test_a_plug_made_after_its_deadline_is_pulled(client: Client, plumber: Plumber) -> None:
    await client.create("e1")
    plumber.gate.clear()
    plumber.stubborn = True
    assert "within" in (await client.join("e1"))["Err"]
    plumber.gate.set()
    async with asyncio.timeout(5):
        while ("done", "leave", "e1") not in plumber.calls:
            await asyncio.sleep(0.01)


async def test_calls_for_one_endpoint_keep_their_order(client: Client, driver, plumber: Plumber) -> None:
    driver._deadline = 60
    await client.create("e1")
    plumber.gate.clear()
    join = asyncio.create_task(client.join("e1"))
    while plumber.calls[-1][0] != "join":
        await asyncio.sleep(0)
    leaves = [asyncio.create_task(client.call("Leave", EndpointID="e1")) for _ in range(3)]
    await client.raw("Plugin.Activate", b"")
    plumber.gate.set()
    await asyncio.gather(join, *leaves)
    words = [call[:2] if call[0] == "done" else call[:1] for call in plumber.calls[2:]]
    assert words == [("join",), ("done", "join"), *[("leave",), ("done", "leave")] * 3]


async def test_a_body_that_never_ends_is_given_up(driver: NetworkDriver, tmp_path: Path) -> None:
    reader, writer = await asyncio.open_unix_connection(tmp_path / "plugins" / "d.sock")
    writer.write(b"POST /NetworkDriver.Join HTTP/1.1\r\nHost: d\r\nContent-Length: 100\r\n\r\n{")
    answer = await asyncio.wait_for(reader.readuntil(b"}"), 5)
    assert b"did not arrive in time" in answer
    writer.close()


async def test_what_is_remembered_is_bounded(client: Client, monkeypatch) -> None:
    monkeypatch.setattr(server, "REMEMBERED", 3)
    for number in range(5):
        await client.create(f"e{number}")
    assert "Err" in await client.join("e1")
    assert "Err" not in await client.join("e2")


async def test_the_socket(tmp_path: Path) -> None:
    path = tmp_path / "new" / "d.sock"
    driver = NetworkDriver(path)
    await driver.start(Plumber())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(OSError, match="another swarmpy serves it"):
        await NetworkDriver(path).start(Plumber())
    assert os.listdir(path.parent) == ["d.sock"]
    await driver.stop()
    await driver.stop()
    assert os.listdir(path.parent) == []


async def test_a_stale_socket_is_replaced_and_a_file_is_not(tmp_path: Path) -> None:
    path = tmp_path / "d.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    first = NetworkDriver(path)
    await first.start(Plumber())
    path.unlink()
    second = NetworkDriver(path)
    await second.start(Plumber())
    await first.stop()
    assert path.is_socket()  # the successor's
    await second.stop()
    path.write_text("precious")
    with pytest.raises(FileExistsError):
        await NetworkDriver(path).start(Plumber())
    assert path.read_text() == "precious"


async def test_stopping_gives_up_what_hangs(tmp_path: Path) -> None:
    plumber = Plumber()
    plumber.gate.clear()
    driver = NetworkDriver(tmp_path / "d.sock")
    await driver.start(plumber)
    client = Client(tmp_path / "d.sock")
    hung = asyncio.create_task(client.create())
    while not plumber.calls:
        await asyncio.sleep(0)
    await asyncio.wait_for(driver.stop(), 5)
    assert "swarmpy is stopping" in (await hung)["Err"]
    await client.session.close()
