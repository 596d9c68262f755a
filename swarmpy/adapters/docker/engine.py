"""ports.Engine over a Docker Engine's socket (API 1.41, Engine 20.10, to current).

What belongs here: requests, through the SDK's low-level client, because our bodies are Docker's own JSON.
What does not belong here: what is run when (plan/engine, agent/worker), translation (seen.py).
"""

from __future__ import annotations

import json
import math
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import aclosing
from typing import Any, TypeVar

import docker
import docker.errors
import docker.utils

from swarmpy.adapters.docker import nets
from swarmpy.adapters.docker.seen import (
    GONE,
    container_seen,
    demultiplexed,
    engine_error,
    lines,
    parsed,
    split_lines,
)
from swarmpy.adapters.docker.threads import Calls, Cut, Stream
from swarmpy.adapters.docker.transport import cut_by, dial
from swarmpy.ports import ContainerSeen, EngineError, EngineEvent, EngineGoneError, LogFrame, LogQuery

T = TypeVar("T")

ANSWER = 120.0
"""Seconds without a byte after which the Engine counts as gone; a start on a loaded machine takes long."""
ACTIONS = ("create", "start", "die", "destroy", "oom", "pause", "unpause", "health_status")
"""Events that change what ContainerSeen shows; the rest (exec_…, attach, top) is noise."""
_CHUNK = 65536
_OLDEST_API = "1.41"
"""Engine 20.10's; only spoken until the Engine has said what it speaks."""


class DockerEngine:
    """A Docker Engine at `url` (unix:///path or tcp://host:port)."""

    def __init__(self, url: str = "unix:///var/run/docker.sock") -> None:
        self.url = url
        self._calls = Calls()
        self._lock = threading.Lock()
        self._making = threading.Lock()
        self._client: docker.APIClient | None = None
        self._watchers = 0
        self._cache: dict[str, tuple[tuple[str, ...], ContainerSeen]] = {}
        self._touched: dict[str, int] = {}

    def close(self) -> None:
        """Close idle connections; the engine connects again when it is used again."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    # ------------------------------------------------------------ calling

    def _connected(self) -> docker.APIClient:
        """The client, its API version negotiated anew after the Engine was away (it may be another one)."""
        with self._lock:
            if self._client is None:
                self._client = dial(self.url, _OLDEST_API, ANSWER)
            return self._client

    def _guarded(self, job: Callable[[docker.APIClient], T]) -> T:
        try:
            return job(self._connected())
        except GONE as error:
            translated = engine_error(error, self.url)
            if not isinstance(error, docker.errors.APIError):
                self.close()
            raise translated from error
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            said = f"{type(error).__name__}: {error}"
            raise EngineError(
                f"the container engine at {self.url} gave an answer that cannot be understood ({said})"
            ) from error

    def _streaming(self, cut: Cut, job: Callable[[docker.APIClient], None]) -> None:
        """Run a job that reads until its stream ends; what breaks because we cut it is no error."""

        def read(client: docker.APIClient) -> None:
            try:
                with cut_by(cut):
                    job(client)
            except GONE:
                if not cut.done:
                    raise

        self._guarded(read)

    async def _call(self, job: Callable[[docker.APIClient], T]) -> T:
        return await self._calls.run(lambda: self._guarded(job))

    # ------------------------------------------------------------ looking

    async def info(self) -> Mapping[str, Any]:
        """GET /info."""
        result: Mapping[str, Any] = await self._call(lambda client: client.info())
        return result

    async def version(self) -> Mapping[str, Any]:
        """GET /version."""
        result: Mapping[str, Any] = await self._call(lambda client: client.version())
        return result

    async def containers(self, labels: Iterable[str]) -> list[ContainerSeen]:
        """Containers that carry every label, running or not."""
        wanted = list(labels)
        return await self._call(lambda client: self._containers(client, wanted))

    def _containers(self, client: docker.APIClient, labels: list[str]) -> list[ContainerSeen]:
        listed = client.containers(all=True, filters={"label": labels} if labels else {})
        found: list[ContainerSeen] = []
        for entry in listed:
            try:
                found.append(self._look(client, str(entry["Id"]), _signature(entry)))
            except docker.errors.NotFound:
                continue
        kept = {seen.id for seen in found}
        for gone in [key for key in self._cache if key not in kept]:
            self._cache.pop(gone, None)
        return found

    def _look(
        self, client: docker.APIClient, container_id: str, signature: tuple[str, ...] | None = None
    ) -> ContainerSeen:
        """Inspect, or what was seen last, if the listing and the event stream both say that nothing
        changed: a node with hundreds of containers is listed every few seconds."""
        known = self._cache.get(container_id)
        if known is not None and self._watchers and known[0] == signature:
            return known[1]
        touched = self._touched.get(container_id, 0)
        seen = container_seen(client.inspect_container(container_id))
        if signature is not None and self._watchers and self._touched.get(container_id, 0) == touched:
            self._cache[container_id] = (signature, seen)
        return seen

    def _touch(self, container_id: str) -> None:
        """What was seen of it is out of date."""
        self._touched[container_id] = self._touched.get(container_id, 0) + 1
        self._cache.pop(container_id, None)

    async def inspect(self, container_id: str) -> ContainerSeen:
        """One container. Raises EngineError(missing=True)."""
        return await self._call(lambda client: container_seen(client.inspect_container(container_id)))

    async def has_image(self, image: str) -> bool:
        """Whether the reference resolves locally."""

        def look(client: docker.APIClient) -> bool:
            try:
                client.inspect_image(image)
            except docker.errors.ImageNotFound:
                return False
            return True

        return await self._call(look)

    # ------------------------------------------------------------ acting

    async def pull(self, image: str, auth: str = "") -> None:
        """Pull. A cancelled pull is ended at the Engine too."""
        async with aclosing(Stream[None](lambda cut, _emit: self._pull(cut, image, auth)).items()) as ends:
            async for _ in ends:
                continue

    def _pull(self, cut: Cut, image: str, auth: str) -> None:
        name, tag = docker.utils.parse_repository_tag(image)

        def ask(client: docker.APIClient) -> None:
            response = client._post(
                client._url("/images/create"),
                params={"fromImage": name, "tag": tag or "latest"},
                headers={"X-Registry-Auth": auth} if auth else {},
                stream=True,
                timeout=None,
            )
            cut.attach(response)
            client._raise_for_status(response)
            for line in response.iter_lines():
                progress = parsed(line) if line else {}
                if "error" in progress:
                    raise EngineError(str(progress["error"]))

        try:
            self._streaming(cut, ask)
        except EngineGoneError:
            raise
        except EngineError as error:
            if name in str(error):
                raise
            raise EngineError(f"{image} cannot be pulled: {error}", missing=error.missing) from error

    async def create(self, name: str, config: Mapping[str, Any]) -> str:
        """POST /containers/create. Raises EngineError(conflict=True) when the name is taken."""
        body = dict(config)
        made = await self._call(lambda client: client.create_container_from_config(body, name))
        return str(made["Id"])

    # ------------------------------------------------------------ networks

    async def ensure_network(self, name: str, network_id: str) -> None:
        """A local network of our driver: addresses are ours (null IPAM), and arrive with each endpoint."""
        await self._call(lambda client: self._ensure_network(client, name, network_id))

    def _ensure_network(self, client: docker.APIClient, name: str, network_id: str) -> None:
        # The Engine makes two of one name for two who ask at once, and then accepts that name from nobody.
        with self._making:
            nets.ensure(client, name, network_id)

    async def networks(self) -> Mapping[str, str]:
        """Networks of ours: cluster-wide id by name."""

        def look(client: docker.APIClient) -> dict[str, str]:
            found = client.networks(filters={"label": [nets.NETWORK_LABEL]})
            return {str(one["Name"]): str(one["Labels"][nets.NETWORK_LABEL]) for one in found}

        return await self._call(look)

    async def remove_network(self, name: str) -> None:
        """Remove it; missing is fine."""
        try:
            await self._call(lambda client: client.remove_network(name))
        except EngineError as error:
            if not error.missing:
                raise

    async def connect(self, container_id: str, network: str, options: Mapping[str, str]) -> None:
        """One more network for a container that does not run yet."""
        try:
            await self._call(
                lambda client: client.connect_container_to_network(
                    container_id, network, driver_opt=dict(options)
                )
            )
        finally:
            self._touch(container_id)

    async def disconnect(self, container_id: str, network: str) -> None:
        """Disconnect by force; not connected, or gone, is fine."""
        try:
            await self._call(
                lambda client: client.disconnect_container_from_network(container_id, network, force=True)
            )
        except EngineError as error:
            if not error.missing and "is not connected to" not in str(error):
                raise
        finally:
            self._touch(container_id)

    async def connected(self, *, without: str) -> list[ContainerSeen]:
        """Containers on networks of ours that carry no such label."""
        return await self._call(lambda client: nets.connected(client, without))

    # ------------------------------------------------------------ running

    async def start(self, container_id: str) -> None:
        """Start it; started already is fine."""
        try:
            await self._call(lambda client: client.start(container_id))
        finally:
            self._touch(container_id)

    async def stop(self, container_id: str, grace_seconds: float) -> None:
        """Stop signal, then SIGKILL after the grace period, which the Engine counts in whole seconds."""
        try:
            await self._call(lambda client: client.stop(container_id, timeout=math.ceil(grace_seconds)))
        finally:
            self._touch(container_id)

    async def remove(self, container_id: str) -> None:
        """Remove by force, with anonymous volumes; missing, or being removed already, is fine."""
        try:
            await self._call(lambda client: client.remove_container(container_id, v=True, force=True))
        except EngineError as error:
            if not error.missing and not (error.conflict and "already in progress" in str(error)):
                raise
        finally:
            self._touch(container_id)

    # ------------------------------------------------------------ streams

    async def events(self) -> AsyncIterator[EngineEvent]:
        """Container events from now on. Raises EngineGoneError when the Engine goes."""
        self._cache.clear()
        self._watchers += 1
        try:
            async with aclosing(Stream[EngineEvent](self._produce_events).items()) as events:
                async for event in events:
                    self._touch(event.container_id)
                    if event.action == "destroy":
                        self._touched.pop(event.container_id, None)
                    yield event
        finally:
            self._watchers -= 1

    def _produce_events(self, cut: Cut, emit: Callable[[EngineEvent], None]) -> None:
        filters = json.dumps({"type": ["container"], "event": list(ACTIONS)})

        def ask(client: docker.APIClient) -> None:
            url = client._url("/events")
            response = cut.attach(client._get(url, params={"filters": filters}, stream=True, timeout=None))
            client._raise_for_status(response)
            for line in split_lines(response.raw.stream(_CHUNK)):
                event = parsed(line)
                actor = event.get("Actor") or {}
                container_id, attributes = str(actor.get("ID", "")), actor.get("Attributes") or {}
                action = str(event.get("Action", "")).partition(":")[0]  # "health_status: healthy"
                emit(EngineEvent(action, container_id, attributes))
            if not cut.done:
                raise ConnectionError("the event stream ended")

        self._streaming(cut, ask)

    async def logs(self, container_id: str, query: LogQuery) -> AsyncIterator[LogFrame]:
        """Output frames; with query.follow until the container stops."""

        def produce(cut: Cut, emit: Callable[[LogFrame], None]) -> None:
            self._streaming(cut, lambda client: self._produce_logs(client, container_id, query, cut, emit))

        async with aclosing(Stream[LogFrame](produce).items()) as frames:
            async for frame in frames:
                yield frame

    @staticmethod
    def _produce_logs(
        client: docker.APIClient,
        container_id: str,
        query: LogQuery,
        cut: Cut,
        emit: Callable[[LogFrame], None],
    ) -> None:
        inspected = client.inspect_container(container_id)
        params = {
            "stdout": int(query.stdout),
            "stderr": int(query.stderr),
            "follow": int(query.follow),
            "timestamps": int(query.timestamps),
            "tail": "all" if query.tail < 0 else str(query.tail),
        }
        if query.since:
            params["since"] = f"{query.since // 10**9}.{query.since % 10**9:09d}"
        url = client._url("/containers/{0}/logs", container_id)
        response = cut.attach(client._get(url, params=params, stream=True, timeout=None))
        client._raise_for_status(response)
        framing = lines if inspected["Config"]["Tty"] else demultiplexed
        for frame in framing(response.raw.stream(_CHUNK), query.timestamps):
            emit(frame)


def _signature(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """What a listing tells of a container's state: "exited", "(137)"; "running", "(healthy)"."""
    return (str(entry.get("State", "")), *re.findall(r"\([^)]*\)", str(entry.get("Status", ""))))
