"""A simulated container Engine: the daemon that outlives its clients, and ports.Engine for one client.

What belongs here: containers, images, events, and the ways in which an Engine misbehaves. What does not:
deciding when it does (faults.py).

A request reaches the daemon after a while and is carried out there even when the client has died meanwhile;
its answer comes a while later. What a container does is decided by its image (see Behaviour).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any, TypeVar

from swarmpy.ports import ContainerSeen, EngineError, EngineEvent, EngineGoneError, LogFrame, LogQuery
from swarmpy.sim.clock import SimClock
from swarmpy.sim.containers import Behaviour, Container, published
from swarmpy.sim.loop import NEUTRAL, Process, SimLoop
from swarmpy.sim.trace import Trace

T = TypeVar("T")


class Dockerd:
    """One machine's Engine: it and its containers live on when the agent dies."""

    def __init__(self, loop: SimLoop, name: str, seed: str, clock: SimClock, trace: Trace) -> None:
        self.loop = loop
        self.name = name
        self.chance = random.Random(seed)  # noqa: S311  a simulation must be repeatable
        self.clock = clock
        self.trace = trace
        self.up = True
        self.hanging = False
        self.deaf = 0.0
        """Chance that an event is lost."""
        self.live_restore = True
        self.latency = (0.001, 0.01)
        self.start_time = (0.05, 0.3)
        self.pull_time = (0.1, 1.0)
        self.refuse_start = 0.0
        """Chance that starting a container fails."""
        self.images: set[str] = set()
        self.behaviours: dict[str, Behaviour] = {}
        self.containers: dict[str, Container] = {}
        self.networks: dict[str, str] = {}
        """Networks of our driver: cluster-wide id by name."""
        self.starts: list[tuple[float, str, Mapping[str, str]]] = []
        """Every start of a container: (virtual time, container id, labels)."""
        self.cpus, self.memory = 4, 8 << 30
        self._listeners: dict[int, asyncio.Queue[EngineEvent | None]] = {}
        self._numbers = 0
        self._stuck: list[Callable[[], None]] = []

    # ------------------------------------------------------------ requests

    async def ask(self, action: Callable[[], T], low: float = 0.0, high: float = 0.0) -> T:
        """Have the daemon do something that takes between `low` and `high` seconds more than an answer."""
        answer: asyncio.Future[T] = self.loop.create_future()
        work = self.chance.uniform(low, high) if high else 0.0
        self.later(self._half(), self._begin, action, answer, work)
        return await answer

    def _half(self) -> float:
        return self.chance.uniform(*self.latency) / 2

    def later(self, delay: float, action: Callable[..., None], *args: Any) -> None:
        """Do something in the daemon, outside every simulated process."""
        self.loop.call_at(self.loop.instant + delay, action, *args, context=NEUTRAL)

    def _begin(self, action: Callable[[], T], answer: asyncio.Future[T], work: float) -> None:
        if work:
            self.later(work, self._begin, action, answer, 0.0)
            return
        if self.hanging:
            self._stuck.append(lambda: self._begin(action, answer, 0.0))
            return
        result: Any = None
        error: Exception | None = None
        try:
            if not self.up:
                raise EngineGoneError(f"the Engine of {self.name} does not answer")
            result = action()
        except EngineError as refused:
            error = refused
        self.later(self._half(), _settle, answer, result, error)

    # ------------------------------------------------------------ what befalls it

    def hang(self) -> None:
        """Accept requests, answer none."""
        self.hanging = True

    def unhang(self) -> None:
        """Answer again, first what waited."""
        self.hanging = False
        stuck, self._stuck = self._stuck, []
        for begin in stuck:
            begin()

    def die(self) -> None:
        """The daemon is killed. With live-restore its containers run on; else they are killed too."""
        self.up = False
        self.trace.emit(self.name, "engine dies")
        if not self.live_restore:
            for container in self._sorted():
                if container.state == "running":
                    self.finish(container, 137, quiet=True)
        listeners, self._listeners = self._listeners, {}
        for queue in listeners.values():
            queue.put_nowait(None)

    def revive(self) -> None:
        """The daemon is started again."""
        self.up = True
        self.trace.emit(self.name, "engine is back")

    def power_cut(self) -> None:
        """The machine goes down: every container stops; nobody sees events."""
        for container in self._sorted():
            if container.state == "running":
                self.finish(container, 255, quiet=True)
        self._listeners = {}
        self._stuck = []
        self.hanging = False

    def heal(self) -> None:
        """Behave well from now on."""
        self.deaf = self.refuse_start = 0.0
        self.pull_time = (0.1, 1.0)
        if self.hanging:
            self.unhang()
        if not self.up:
            self.revive()

    @property
    def listed(self) -> list[Container]:
        """All containers, by id."""
        return self._sorted()

    def _sorted(self) -> list[Container]:
        return [self.containers[key] for key in sorted(self.containers)]

    # ------------------------------------------------------------ containers

    def behaviour(self, image: str) -> Behaviour:
        """How containers of that image behave."""
        return self.behaviours.get(image) or Behaviour.of(image)

    def create(self, name: str, config: Mapping[str, Any]) -> str:
        """POST /containers/create."""
        if any(other.name == name for other in self.containers.values()):
            raise EngineError(f"the container name {name!r} is already in use", conflict=True)
        image = str(config.get("Image", ""))
        if image not in self.images:
            raise EngineError(f"no such image: {image}", missing=True)
        self._numbers += 1
        key = f"{self.chance.getrandbits(48):012x}{self._numbers:052x}"
        labels = {str(k): str(v) for k, v in (config.get("Labels") or {}).items()}
        endpoints = (config.get("NetworkingConfig") or {}).get("EndpointsConfig") or {}
        for network in endpoints:
            if network not in self.networks:
                raise EngineError(f"network {network} not found", missing=True)
        made = self.containers[key] = Container(key, name, labels, image, dict(config))
        for network, endpoint in endpoints.items():
            made.connect(network, endpoint.get("DriverOpts") or {})
        self.event("create", self.containers[key])
        return key

    def drop_network(self, name: str) -> None:
        """DELETE /networks/{name}."""
        if any(name in container.places for container in self.containers.values()):
            raise EngineError(f"network {name} has active endpoints")
        self.networks.pop(name, None)

    def begin(self, key: str) -> None:
        """POST /containers/{id}/start."""
        container = self.find(key)
        if container.state == "running":
            return
        behaviour = self.behaviour(container.image)
        taken = {(p[0], p[2]) for other in self._sorted() if other.state == "running" for p in other.ports}
        ports = published(container.config)
        clash = [port for port in ports if (port[0], port[2]) in taken]
        if clash or (self.refuse_start and self.chance.random() < self.refuse_start):
            why = f"port {clash[0][2]} is already allocated" if clash else "OCI runtime create failed"
            container.error = why
            raise EngineError(f"cannot start container {container.name}: {why}")
        container.run(self.clock.now(), ports, self.chance.randint(1000, 60_000))
        container.health = "starting" if behaviour.has_health(container.config) else ""
        self.starts.append((self.loop.instant, key, container.labels))
        self.trace.emit(self.name, f"container {container.name} starts")
        self.event("start", container)
        life = container.life
        if behaviour.runs_for is not None:
            self.later(self.chance.uniform(*behaviour.runs_for), self._by_itself, container, life)
        if container.health:
            self.later(self.chance.uniform(0.1, 0.5), self._probe, container, life)

    def _by_itself(self, container: Container, life: int) -> None:
        if container.life == life and container.state == "running":
            self.finish(container, self.behaviour(container.image).exit_code)

    def _probe(self, container: Container, life: int) -> None:
        if container.life != life or container.state != "running":
            return
        healthy = self.behaviour(container.image).healthy
        container.health = "healthy" if healthy else "unhealthy"
        self.event("health_status", container)

    def finish(self, container: Container, code: int, *, quiet: bool = False, oom: bool = False) -> None:
        """The container's process ended. `quiet`: nobody is told."""
        container.end(self.clock.now(), code, oom)
        self.trace.emit(self.name, f"container {container.name} exits with {code}")
        if not quiet:
            self.event("die", container)

    def delete(self, key: str) -> None:
        """DELETE /containers/{id}?force=1."""
        container = self.containers.get(key)
        if container is None:
            return
        if container.state == "running":
            self.finish(container, 137)
        self.containers.pop(key, None)
        self.event("destroy", container)

    def find(self, key: str) -> Container:
        """The container. Raises EngineError(missing)."""
        container = self.containers.get(key)
        if container is None:
            raise EngineError(f"no such container: {key}", missing=True)
        return container

    def fetch(self, image: str) -> None:
        """The end of a pull."""
        if not self.behaviour(image).exists:
            raise EngineError(f"pull access denied for {image}: repository does not exist", missing=True)
        self.images.add(image)

    # ------------------------------------------------------------ events

    def event(self, action: str, container: Container) -> None:
        """Tell the listeners, unless the event is lost."""
        if self.deaf and self.chance.random() < self.deaf:
            return
        told = EngineEvent(action, container.id, container.labels)
        for number in sorted(self._listeners):
            self._listeners[number].put_nowait(told)

    def listen(self) -> tuple[int, asyncio.Queue[EngineEvent | None]]:
        """A new listener. Raises EngineGoneError."""
        if not self.up:
            raise EngineGoneError(f"the Engine of {self.name} does not answer")
        self._numbers += 1
        queue: asyncio.Queue[EngineEvent | None] = asyncio.Queue()
        self._listeners[self._numbers] = queue
        return self._numbers, queue

    def unlisten(self, number: int) -> None:
        """Forget a listener."""
        self._listeners.pop(number, None)


def _settle(answer: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if answer.done():
        return
    if error is None:
        answer.set_result(result)
    else:
        answer.set_exception(error)
        answer.exception()  # seen, even when the client has gone


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
        """Pull the image."""
        await self.daemon.ask(lambda: self.daemon.fetch(image), *self.daemon.pull_time)

    async def create(self, name: str, config: Mapping[str, Any]) -> str:
        """Create a container."""
        return await self.daemon.ask(lambda: self.daemon.create(name, config))

    async def ensure_network(self, name: str, network_id: str) -> None:
        """A network of ours."""

        def ensure() -> None:
            if self.daemon.networks.setdefault(name, network_id) != network_id:
                raise EngineError(f"this node's Engine has a network {name} of its own", conflict=True)

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
                    raise EngineGoneError(f"the Engine of {self.daemon.name} went away")
                yield event
        finally:
            self.daemon.unlisten(number)

    async def logs(self, container_id: str, query: LogQuery) -> AsyncIterator[LogFrame]:
        """What the container printed: one line, and with `follow` its silence until it stops."""
        container = await self.daemon.ask(lambda: self.daemon.find(container_id))
        if query.stdout:
            yield LogFrame("stdout", f"hello from {container.name}\n".encode())
        if query.follow:
            await container.stopped()


def _stopped(daemon: Dockerd, container: Container, life: int, code: int) -> None:
    if container.life == life and container.state == "running":
        daemon.finish(container, code)
