"""A simulated Engine's networking of containers, as libnetwork does it with a remote driver.

At a start: CreateEndpoint and Join for each network, then the namespace appears and the free ends are moved
into it, then the process runs. At an end: Leave and DeleteEndpoint. A driver that is away is asked again for
15 s; then the start fails, or the endpoint is given up and its links are left behind.
What does not belong here: containers (dockerd.py), links (netstack.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from swarmpy.ports import EngineError
from swarmpy.sim.containers import Container
from swarmpy.sim.dockerd import Dockerd
from swarmpy.sim.kernel import DriverAway, Kernel

PAUSES = (0.0, 1.0, 2.0, 4.0, 8.0)
"""Seconds before each attempt to reach the driver."""
HOOK = (0.02, 0.25)
"""Seconds between the last Join and the namespace, and between that and the process."""


class _Interrupted(Exception):
    """The Engine died meanwhile."""


class Libnetwork:
    """One Engine's. What it was about when its Engine died it cleans up when that is back."""

    def __init__(self, daemon: Dockerd, kernel: Kernel) -> None:
        self._daemon, self._kernel = daemon, kernel
        self._attached: dict[str, list[tuple[str, str]]] = {}
        """(endpoint, link) by namespace: what has to be given back."""
        self._starting: dict[str, asyncio.Future[None]] = {}
        self._owed: list[str] = []
        """Namespaces of containers that ended while the Engine was dead."""
        daemon.plumbing = self

    # ------------------------------------------------------------ a start

    def busy(self, network: str) -> bool:
        """Whether a container that is being started is on the network."""
        found = (self._daemon.containers.get(key) for key in self._starting)
        return any(one is not None and network in one.places for one in found)

    async def start(self, container: Container, run: Callable[[], None]) -> None:
        """Connect it, then `run` it. Raises EngineError."""
        under_way = self._starting.get(container.id)
        if under_way is not None:
            await asyncio.wait({under_way})
            if container.state != "running":
                raise EngineError(f"cannot start container {container.name}: {container.error}")
            return
        done = self._starting[container.id] = self._daemon.loop.create_future()
        life, path = self._daemon.life, container.sandbox_of(container.life + 1)
        try:
            await self._connect(container, path, life)
            await self._pause(life, HOOK)
            self._kernel.open(path)
            for _, link in self._attached.get(path, ()):
                self._take(link, path)
            await self._pause(life, HOOK)
            if self._daemon.containers.get(container.id) is not container:
                raise EngineError(f"No such container: {container.id}", missing=True)
            run()
        except _Interrupted:
            self._owe(path)
            raise self._daemon.absent() from None
        except EngineError as error:
            container.error, container.exit_code = str(error), 128
            self._daemon.loop.spawn(None, self._release(path))
            raise
        finally:
            self._starting.pop(container.id, None)
            if not done.done():
                done.set_result(None)

    async def _connect(self, container: Container, path: str, life: int) -> None:
        attached = self._attached[path] = []
        for network in sorted(container.places):
            if network not in self._daemon.networks:
                raise EngineError(f"network {network} not found", missing=True)
            endpoint = container.endpoint_of(container.life + 1, network)
            options = dict(container.places[network])
            attached.append((endpoint, ""))
            await self._ask(life, "CreateEndpoint", {"EndpointID": endpoint, "Options": options})
            reply = await self._ask(life, "Join", {"EndpointID": endpoint, "SandboxKey": path})
            attached[-1] = (endpoint, str(reply["InterfaceName"]["SrcName"]))

    def _take(self, link: str, path: str) -> None:
        try:
            self._kernel.stack.take(link, path)
        except OSError as error:
            raise EngineError(f"failed to create task for container: error moving {link}: {error}") from None

    async def _pause(self, life: int, spread: tuple[float, float]) -> None:
        await asyncio.sleep(self._daemon.chance.uniform(*spread))
        if self._daemon.life != life or not self._daemon.up:
            raise _Interrupted

    async def _ask(self, life: int, method: str, body: dict[str, Any]) -> dict[str, Any]:
        for pause in PAUSES:
            await self._pause(life, (pause, pause))
            try:
                reply = await self._kernel.call(f"/NetworkDriver.{method}", body)
            except DriverAway:
                continue
            if self._daemon.life != life:
                raise _Interrupted
            if reply.get("Err"):
                raise EngineError(f"NetworkDriver.{method}: {reply['Err']}")
            return reply
        raise EngineError(f'NetworkDriver.{method}: plugin "swarmpy" not found: connection refused')

    # ------------------------------------------------------------ an end

    def ended(self, container: Container) -> None:
        """The container's process ended."""
        path = container.sandbox_of(container.life)
        if path not in self._attached:
            return
        if self._daemon.up:
            self._daemon.loop.spawn(None, self._release(path))
        else:
            self._owe(path)

    def _owe(self, path: str) -> None:
        if path in self._attached:
            self._owed.append(path)

    async def _release(self, path: str) -> None:
        """Give everything back; what the driver does not take is left in the machine's own namespace."""
        life = self._daemon.life
        for endpoint, link in self._attached.get(path, []):
            for method in ("Leave", "DeleteEndpoint"):
                try:
                    await self._ask(life, method, {"EndpointID": endpoint})
                except _Interrupted:
                    self._owe(path)
                    return
                except EngineError:
                    if link:
                        self._kernel.stack.give_back(link, path)
        self._attached.pop(path, None)
        self._kernel.close(path)

    def revive(self) -> None:
        """The Engine is back: it cleans up."""
        owed, self._owed = self._owed, []
        for path in owed:
            self._daemon.loop.spawn(None, self._release(path))

    def power_cut(self) -> None:
        """The machine goes down: nothing is left to give back."""
        self._attached, self._owed = {}, []

    def work(self, container: Container, run: Callable[[], None]) -> Coroutine[Any, Any, None] | None:
        """What starting the container takes; None where it has no networks of ours."""
        return self.start(container, run) if container.places else None
