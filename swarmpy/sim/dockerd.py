"""A simulated container Engine: the daemon, which outlives its clients.

What belongs here: containers, images, events, and the ways in which an Engine misbehaves. What does not:
deciding when it does (faults.py), ports.Engine for a client (engine.py).

A request reaches the daemon after a while and is carried out there even when the client has died meanwhile;
its answer comes a while later. What a container does is decided by its image (see Behaviour).
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from swarmpy.ports import EngineError, EngineEvent, EngineGoneError
from swarmpy.sim.clock import SimClock
from swarmpy.sim.containers import Behaviour, Container, published
from swarmpy.sim.loop import NEUTRAL, SimLoop
from swarmpy.sim.trace import Trace

if TYPE_CHECKING:
    from swarmpy.sim.libnetwork import Libnetwork

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
        self.on_start: Callable[[Container], None] | None = None
        """Told of every container that starts."""
        self.plumbing: Libnetwork | None = None
        """How containers get their networks; without it they only know their names."""
        self.on_signal: Callable[[Container], None] | None = None
        """Told of every container that is asked to stop, before it is."""
        self.cpus, self.memory = 4, 8 << 30
        self._listeners: dict[int, asyncio.Queue[EngineEvent | None]] = {}
        self._numbers = 0
        self._stuck: list[Callable[[], None]] = []
        self.life = 0
        """How often the daemon died: what a dead daemon was asked is never done."""
        self._unanswered: dict[int, asyncio.Future[Any]] = {}

    # ------------------------------------------------------------ requests

    async def ask(self, action: Callable[[], T], low: float = 0.0, high: float = 0.0) -> T:
        """Have the daemon do something that takes between `low` and `high` seconds more than an answer."""
        answer: asyncio.Future[T] = self.loop.create_future()
        work = self.chance.uniform(low, high) if high else 0.0
        self._numbers += 1
        number = self._numbers
        if self.up:
            self._unanswered[number] = answer
        self.later(self._half(), self._begin, action, answer, work, self.life)
        try:
            return await answer
        finally:
            self._unanswered.pop(number, None)

    def _half(self) -> float:
        return self.chance.uniform(*self.latency) / 2

    def later(self, delay: float, action: Callable[..., None], *args: Any) -> None:
        """Do something in the daemon, outside every simulated process."""
        self.loop.call_at(self.loop.instant + delay, action, *args, context=NEUTRAL)

    def _begin(self, action: Callable[[], T], answer: asyncio.Future[T], work: float, life: int) -> None:
        if life != self.life:
            return
        if work:
            self.later(work, self._begin, action, answer, 0.0, life)
            return
        if self.hanging:
            self._stuck.append(lambda: self._begin(action, answer, 0.0, life))
            return
        result: Any = None
        error: Exception | None = None
        try:
            if not self.up:
                raise self.absent()
            result = action()
        except EngineError as refused:
            error = refused
        if asyncio.iscoroutine(result):
            self.loop.spawn(None, self._finish(result, answer))
            return
        self.later(self._half(), _settle, answer, result, error)

    async def _finish(self, work: Coroutine[Any, Any, Any], answer: asyncio.Future[Any]) -> None:
        result: Any = None
        error: Exception | None = None
        try:
            result = await work
        except EngineError as refused:
            error = refused
        self.later(self._half(), _settle, answer, result, error)

    def absent(self) -> EngineGoneError:
        """What a client is told that cannot reach the daemon."""
        return EngineGoneError(f"the container engine of {self.name} does not answer")

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
        """The daemon is killed, and every connection to it breaks. With live-restore its containers run on;
        else they are killed too."""
        self.up = False
        self.life += 1
        unanswered, self._unanswered = self._unanswered, {}
        for number in sorted(unanswered):
            _settle(unanswered[number], None, self.absent())
        self.trace.emit(self.name, "engine dies")
        if not self.live_restore:
            for container in self._sorted():
                if container.state == "running":
                    self.finish(container, 137, quiet=True)
        listeners, self._listeners = self._listeners, {}
        for queue in listeners.values():
            queue.put_nowait(None)
        for container in self._sorted():
            container.stir()

    def revive(self) -> None:
        """The daemon is started again."""
        self.up = True
        self.trace.emit(self.name, "engine is back")
        if self.plumbing is not None:
            self.plumbing.revive()

    def power_cut(self) -> None:
        """The machine goes down: containers stop, what was asked is not done; nobody sees events."""
        self.life += 1
        self._unanswered = {}
        for container in self._sorted():
            if container.state == "running":
                self.finish(container, 255, quiet=True)
        self._listeners = {}
        self._stuck = []
        self.hanging = False
        if self.plumbing is not None:
            self.plumbing.power_cut()

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
            raise EngineError(f'Conflict. The container name "/{name}" is already in use', conflict=True)
        image = str(config.get("Image", ""))
        if image not in self.images:
            raise EngineError(f"No such image: {image}", missing=True)
        self._numbers += 1
        key = f"{self.chance.getrandbits(48):012x}{self._numbers:052x}"
        labels = {str(k): str(v) for k, v in (config.get("Labels") or {}).items()}
        endpoints = (config.get("NetworkingConfig") or {}).get("EndpointsConfig") or {}
        for network in endpoints:
            if network not in self.networks:
                raise EngineError(f"network {network} not found", missing=True)
        made = self.containers[key] = Container(key, name, labels, image, dict(config))
        made.volumes = len(config.get("Volumes") or {})
        for network, endpoint in endpoints.items():
            made.connect(network, endpoint.get("DriverOpts") or {})
        self.event("create", self.containers[key])
        return key

    def drop_network(self, name: str) -> None:
        """DELETE /networks/{name}."""
        alive = [one for one in self.containers.values() if one.state == "running" and name in one.places]
        if alive or (self.plumbing is not None and self.plumbing.busy(name)):
            raise EngineError(f"network {name} has active endpoints")
        self.networks.pop(name, None)

    def begin(self, key: str) -> Coroutine[Any, Any, None] | None:
        """POST /containers/{id}/start; returns what is still to be awaited."""
        container = self.find(key)
        if container.state == "running":
            return None
        ports = self._startable(container)
        work = self.plumbing.work(container, lambda: self._run(container, ports)) if self.plumbing else None
        if work is None:
            self._run(container, ports)
        return work

    def _startable(self, container: Container) -> tuple[tuple[str, int, int], ...]:
        """Its host ports. Raises EngineError where it cannot be started."""
        behaviour = self.behaviour(container.image)
        taken = {(p[0], p[2]) for other in self._sorted() if other.state == "running" for p in other.ports}
        ports = published(container.config)
        clash = [port for port in ports if (port[0], port[2]) in taken]
        if (
            clash
            or not behaviour.startable
            or (self.refuse_start and self.chance.random() < self.refuse_start)
        ):
            why = f"port {clash[0][2]} is already allocated" if clash else "OCI runtime create failed"
            container.error, container.exit_code = why, 128 if clash else 127
            raise EngineError(f"cannot start container {container.name}: {why}")
        return ports

    def _run(self, container: Container, ports: tuple[tuple[str, int, int], ...]) -> None:
        behaviour = self.behaviour(container.image)
        container.run(self.clock.now(), ports, self._new_pid())
        self._open(container, behaviour)
        container.health = "starting" if behaviour.has_health(container.config) else ""
        self.starts.append((self.loop.instant, container.id, container.labels))
        self.trace.emit(self.name, f"container {container.name} starts")
        if self.on_start is not None:
            self.on_start(container)
        self.event("start", container)
        life = container.life
        for delay, stream, line in behaviour.prints:
            if delay:
                self.later(delay, self._print, container, life, stream, line)
            else:
                container.print(self.clock.now(), stream, line)
        if behaviour.runs_for is not None:
            self.later(self.chance.uniform(*behaviour.runs_for), self._by_itself, container, life)
        if container.health:
            self.later(self.chance.uniform(0.1, 0.5), self._probe, container, life)

    def _new_pid(self) -> int:
        taken = {other.pid for other in self.containers.values()}
        while (pid := self.chance.randint(1000, 60_000)) in taken:
            pass
        return pid

    def _open(self, container: Container, behaviour: Behaviour) -> None:
        """When its program will listen. Its own dice: what else happens does not depend on it."""
        now = container.began = self.loop.instant
        dice = random.Random(f"{container.id} {container.life} listens")  # noqa: S311  repeatable
        wait = math.inf if behaviour.listens is None else dice.uniform(*behaviour.listens)
        container.opens = now + wait
        container.late = {port: now + seconds for port, seconds in behaviour.late.items()}

    def _by_itself(self, container: Container, life: int) -> None:
        if container.life == life and container.state == "running":
            behaviour = self.behaviour(container.image)
            self.finish(container, behaviour.exit_code, oom=behaviour.oom)

    def _print(self, container: Container, life: int, stream: str, line: str) -> None:
        if container.life == life and container.state == "running":
            container.print(self.clock.now(), stream, line)

    def _probe(self, container: Container, life: int) -> None:
        if container.life != life or container.state != "running":
            return
        healthy = self.behaviour(container.image).healthy
        container.health = "healthy" if healthy else "unhealthy"
        container.health_log = "fine" if healthy else "not well"
        self.event("health_status", container)

    def finish(self, container: Container, code: int, *, quiet: bool = False, oom: bool = False) -> None:
        """The container's process ended. `quiet`: nobody is told."""
        container.end(self.clock.now(), code, oom)
        if self.plumbing is not None:
            self.plumbing.ended(container)
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
            raise EngineError(f"No such container: {key}", missing=True)
        return container

    def fetch(self, image: str) -> None:
        """The end of a pull."""
        registry = image.partition("/")[0]
        if not self.behaviour(image).reachable:
            why = f'Get "https://{registry}/v2/": dial tcp: connect: connection refused'
            raise EngineError(f"{image} cannot be pulled: {why}")
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
            raise self.absent()
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
