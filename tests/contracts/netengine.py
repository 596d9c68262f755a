"""A private Engine in a network and mount namespace of its own, with a plugin folder of its own, and a Plumber
that makes its links with `ip`.

What belongs here: the namespaces and the links. What does not: any test.
"""

from __future__ import annotations

import asyncio
import subprocess
import threading
from collections.abc import Mapping
from typing import Any

import docker

from swarmpy.ports.fabric import FabricError, Joined, Plugged
from tests.contracts.dockerd import IMAGE, PrivateEngine

DRIVER = "swpt"
HOLD = """
mount -t tmpfs none /run && mkdir -p /run/docker/plugins && mount --bind "$0/plugins" /run/docker/plugins &&
ip link set lo up && ip link add swbr type bridge && ip link set swbr up && echo ready && exec sleep infinity
"""


class NetEngine(PrivateEngine):
    """What it does to the host's network it does to a namespace. A driver on `socket` is found as `swpt`."""

    def __init__(self) -> None:
        super().__init__()
        (self.root / "plugins").mkdir()
        self.socket = self.root / "plugins" / f"{DRIVER}.sock"
        self._holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", HOLD, str(self.root)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._logs,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"ready\n"

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        return super()._spawn(self.inside("--mount", *command))

    @property
    def namespace(self) -> str:
        """Path of its network namespace."""
        return f"/proc/{self._holder.pid}/ns/net"

    def inside(self, *command: str) -> list[str]:
        """The command line that runs the command in the namespace; start it with --mount for both."""
        return ["nsenter", "-t", str(self._holder.pid), "--net", *command]

    def run(self, *command: str) -> str:
        """Its output. Raises CalledProcessError."""
        done = subprocess.run(
            self.inside(*command), check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        return done.stdout

    def client(self) -> docker.APIClient:
        return docker.APIClient(self.url, version="1.41", timeout=55)

    def ports(self) -> set[str]:
        """The ends of plugs in the bridge."""
        lines = self.run("ip", "-o", "link", "show", "master", "swbr").splitlines()
        return {line.split(": ")[1].partition("@")[0] for line in lines}

    def stop(self) -> None:
        super().stop()
        self._holder.kill()
        self._holder.wait()
        assert self._holder.stdout is not None
        self._holder.stdout.close()


class VethPlumber:
    """Plugs into the bridge of the engine's namespace. An option io.swarmpy.hang makes Join hang until released."""

    def __init__(self, engine: NetEngine) -> None:
        self._engine = engine
        self.calls: list[tuple[str, str]] = []
        self.hanging, self.release = threading.Event(), asyncio.Event()

    def said(self, word: str) -> list[str]:
        """Endpoint ids of the calls of that name."""
        return [endpoint for name, endpoint in self.calls if name == word]

    async def create(self, endpoint: Plugged) -> tuple[tuple[str, ...], str]:
        self.calls.append(("create", endpoint.endpoint_id))
        if "io.swarmpy.addresses" not in endpoint.options:
            raise FabricError("this container is nobody's: attach it to the network with swarmpy")
        return tuple(endpoint.options["io.swarmpy.addresses"].split()), endpoint.options["io.swarmpy.mac"]

    async def join(self, endpoint: Plugged) -> Joined:
        self.calls.append(("join", endpoint.endpoint_id))
        if "io.swarmpy.hang" in endpoint.options:
            self.hanging.set()
            await self.release.wait()
        assert endpoint.sandbox
        inner, outer = f"c{endpoint.endpoint_id[:10]}", f"p{endpoint.endpoint_id[:10]}"
        peer = ("peer", inner, "mtu", "1450", "address", endpoint.options["io.swarmpy.mac"])
        await self._ip("link", "add", outer, "mtu", "1450", "type", "veth", *peer)
        await self._ip("link", "set", outer, "master", "swbr", "up")
        return Joined(inner, endpoint.options["io.swarmpy.prefix"], "io.swarmpy.isolated" in endpoint.options)

    async def leave(self, endpoint_id: str) -> None:
        self.calls.append(("leave", endpoint_id))
        if f"p{endpoint_id[:10]}" in await asyncio.to_thread(self._engine.ports):
            await self._ip("link", "del", f"p{endpoint_id[:10]}")

    async def _ip(self, *words: str) -> None:
        try:
            await asyncio.to_thread(self._engine.run, "ip", *words)
        except subprocess.CalledProcessError as error:
            raise FabricError(f"ip {words}: {error.output}") from error


def options(addresses: str, mac: str, prefix: str = "ov", **others: str) -> dict[str, str]:
    """DriverOpts of an endpoint."""
    given = {"addresses": addresses, "mac": mac, "prefix": prefix, **others}
    return {f"io.swarmpy.{key}": value for key, value in given.items()}


def create(
    client: docker.APIClient,
    networks: Mapping[str, Mapping[str, str]],
    command: str = "sleep 1000",
    **config: Any,
) -> str:
    """A container on the networks (name to DriverOpts), made as docs/design/network-driver.md says."""
    first, *others = networks
    host = {"NetworkMode": first, "Dns": ["10.77.0.1"], **config}
    body = {
        "Image": IMAGE,
        "Cmd": ["sh", "-c", command],
        "StopSignal": "SIGKILL",
        "HostConfig": host,
        "NetworkingConfig": {"EndpointsConfig": {first: {"DriverOpts": dict(networks[first])}}},
    }
    answer = client._post_json(client._url("/containers/create"), data=body)
    container = str(client._result(answer, True)["Id"])
    for other in others:
        connect = {"Container": container, "EndpointConfig": {"DriverOpts": dict(networks[other])}}
        client._raise_for_status(client._post_json(client._url("/networks/{0}/connect", other), data=connect))
    return container
