"""ports.Engine over a simulated daemon: one client of it.

What belongs here: requests and streams. What does not: what the daemon does with them (dockerd.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from swarmpy.ports import ContainerSeen, EngineError, EngineEvent, LogFrame, LogQuery
from swarmpy.sim.containers import Container
from swarmpy.sim.dockerd import Dockerd
from swarmpy.sim.loop import Process


class SimEngine:
    """ports.Engine: one client of a Dockerd."""

    def __init__(self, daemon: Dockerd, process: Process | None = None) -> None:
        self.daemon = daemon
        self._process = process

    async def info(self) -> Mapping[str, Any]:
        """Docker's GET /info, the part that is used."""
        daemon = self.daemon
        return await daemon.ask(lambda: {
            "ID": daemon.name, "Name": daemon.name, "NCPU": daemon.cpus, "MemTotal": daemon.memory,
            "OSType": "linux", "Architecture": "x86_64", "ServerVersion": "28.0.0", "Labels": [],
            "Plugins": {"Volume": ["local"], "Network": ["bridge"], "Log": ["json-file"]},
            "LiveRestoreEnabled": daemon.live_restore,
        })  # fmt: skip

    async def version(self) -> Mapping[str, Any]:
        """Docker's GET /version."""
        return await self.daemon.ask(lambda: {"Version": "28.0.0", "ApiVersion": "1.48", "Os": "linux"})

    async def containers(self, labels: Iterable[str]) -> list[ContainerSeen]:
        """All containers that carry every label."""
        wanted = [label.partition("=") for label in labels]

        def select() -> list[ContainerSeen]:
            return [container.seen() for container in self.daemon._sorted()
                    if all(key in container.labels and (not sign or container.labels[key] == value)
                           for key, sign, value in wanted)]  # fmt: skip

        return await self.daemon.ask(select)

    async def inspect(self, container_id: str) -> ContainerSeen:
        """One container."""
        return await self.daemon.ask(lambda: self.daemon.find(container_id).seen())

    async def has_image(self, image: str) -> bool:
        """Whether the image is here."""
        return await self.daemon.ask(lambda: image in self.daemon.images)

    async def pull(self, image: str, auth: str = "") -> None:
        """Pull the image; a cancelled pull is ended at the daemon too."""
        given_up: list[bool] = []
        try:
            await self.daemon.ask(
                lambda: None if given_up else self.daemon.fetch(image), *self.daemon.pull_time
            )
        except asyncio.CancelledError:
            given_up.append(True)
            raise

    async def create(self, name: str, config: Mapping[str, Any]) -> str:
        """Create a container."""
        return await self.daemon.ask(lambda: self.daemon.create(name, config))

    async def ensure_network(self, name: str, network_id: str) -> None:
        """A network of ours."""

        def ensure() -> None:
            if self.daemon.networks.get(name, network_id) != network_id:
                try:
                    self.daemon.drop_network(name)  # of a network that is gone
                except EngineError as error:
                    raise EngineError(str(error), conflict=True) from None
            self.daemon.networks[name] = network_id

        await self.daemon.ask(ensure)

    async def networks(self) -> Mapping[str, str]:
        """Networks of ours."""
        return await self.daemon.ask(lambda: dict(self.daemon.networks))

    async def remove_network(self, name: str) -> None:
        """Remove it."""
        await self.daemon.ask(lambda: self.daemon.drop_network(name))

    async def connect(self, container_id: str, network: str, options: Mapping[str, str]) -> None:
        """One more network."""
        await self.daemon.ask(lambda: self.daemon.find(container_id).connect(network, options))

    async def disconnect(self, container_id: str, network: str) -> None:
        """One network less."""

        def cut() -> None:
            container = self.daemon.containers.get(container_id)
            if container is not None:
                container.places.pop(network, None)

        await self.daemon.ask(cut)

    async def connected(self, *, without: str) -> list[ContainerSeen]:
        """Containers on networks of ours."""
        daemon = self.daemon
        return await daemon.ask(lambda: [
            one.seen() for one in daemon._sorted()
            if without not in one.labels and not daemon.networks.keys().isdisjoint(one.places)
        ])  # fmt: skip

    async def start(self, container_id: str) -> None:
        """Start it."""
        await self.daemon.ask(lambda: self.daemon.begin(container_id), *self.daemon.start_time)

    async def stop(self, container_id: str, grace_seconds: float) -> None:
        """Ask it to stop; kill it after the grace period."""
        daemon = self.daemon

        def term() -> float:
            container = daemon.find(container_id)
            if container.state != "running":
                return 0.0
            if daemon.on_signal is not None:
                daemon.on_signal(container)
            behaviour = daemon.behaviour(container.image)
            needed = daemon.chance.uniform(*behaviour.stop_time)
            code = behaviour.stop_code if needed <= grace_seconds else 137
            wait = min(needed, grace_seconds)
            daemon.later(wait, _stopped, daemon, container, container.life, code)
            return wait

        wait = await daemon.ask(term)
        await daemon.ask(lambda: None, wait, wait)

    async def remove(self, container_id: str) -> None:
        """Remove it by force."""
        await self.daemon.ask(lambda: self.daemon.delete(container_id))

    async def events(self) -> AsyncIterator[EngineEvent]:
        """Events from now on."""
        number, queue = self.daemon.listen()
        try:
            while True:
                event = await queue.get()
                if event is None:
                    raise self.daemon.absent()
                yield event
        finally:
            self.daemon.unlisten(number)

    async def logs(self, container_id: str, query: LogQuery) -> AsyncIterator[LogFrame]:
        """What the container printed, and with `follow` what it prints until it stops."""
        daemon = self.daemon
        container = await daemon.ask(lambda: daemon.find(container_id))
        life = daemon.life
        place = max(0, len(container.output) - query.tail) if query.tail >= 0 else 0
        while True:
            while place < len(container.output):
                at, stream, data = container.output[place]
                place += 1
                wanted = query.stdout if stream == "stdout" else query.stderr
                if wanted and at >= query.since:
                    yield LogFrame(stream, data, _stamp(at) if query.timestamps else "")
            if not query.follow or container.state != "running":
                return
            await container.changed()
            if daemon.life != life:
                raise daemon.absent()


def _stamp(instant: int) -> str:
    """Docker's time stamp of a line."""
    seconds, rest = divmod(instant, 1_000_000_000)
    whole = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{whole}.{rest:09d}Z"


def _stopped(daemon: Dockerd, container: Container, life: int, code: int) -> None:
    if container.life == life and container.state == "running":
        daemon.finish(container, code)
