"""The two Engines that the contract is held against, each behind the same few words.

What belongs here: how a scenario is run on a real or a simulated Engine, what containers of each persona are
made of, and how the Engine is killed, frozen and brought back. What does not: any promise (test_engine.py).

A persona is what a container does: serve (stops when told), stubborn (does not), job (ends with 0), crash
(ends with 3), talker (prints on both streams, and once more half a second later), hungry (takes more memory
than it may), broken (cannot be started), probed and sick (with health checks).
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import docker

from swarmpy.adapters.docker import DockerEngine
from swarmpy.ports import Engine
from swarmpy.sim.clock import SimClock
from swarmpy.sim.containers import Behaviour
from swarmpy.sim.dockerd import Dockerd
from swarmpy.sim.engine import SimEngine
from swarmpy.sim.loop import SimLoop
from swarmpy.sim.trace import Trace
from tests.contracts.dockerd import IMAGE, BridgedEngine

Scenario = Callable[[Engine], Coroutine[Any, Any, Any]]
PATIENCE = 20.0


class House(Protocol):
    """An Engine under test."""

    image: str
    missing: str
    """A reference that its registry does not know."""
    unreachable: str
    """A reference whose registry refuses connections."""
    slow: str
    """A reference whose pull takes longer than any test."""

    def run(self, scenario: Scenario) -> Any: ...
    def body(self, persona: str, **more: Any) -> dict[str, Any]: ...
    def kill(self) -> None: ...
    def revive(self) -> None: ...
    def freeze(self) -> None: ...
    def thaw(self) -> None: ...
    def kill_container(self, container_id: str) -> None: ...
    def volumes(self) -> int: ...
    def threads(self) -> int: ...


async def until(condition: Callable[[], Coroutine[Any, Any, Any]], seconds: float = PATIENCE) -> Any:
    """The condition's value as soon as it is true."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not (value := await condition()):
        assert loop.time() < deadline, "what was waited for did not come"
        await asyncio.sleep(0.05)
    return value


# ------------------------------------------------------------ simulated


class Simulated:
    """A fresh simulated Engine; its time is virtual."""

    image, missing, unreachable = "web:1", "registry:5000/missing:1", "registry:1/unreachable:1"
    slow = "registry:5000/slow:1"

    def __init__(self) -> None:
        self.loop = SimLoop()
        self.daemon = Dockerd(self.loop, "w1", "contract", SimClock(self.loop.time), Trace(self.loop.time))

    def run(self, scenario: Scenario) -> Any:
        async def main() -> Any:
            for image in ("web", "stubborn", "job", "crash", "talker", "hungry", "broken", "probed", "sick"):
                self.daemon.images.add(f"{image}:1")
            self.daemon.behaviours["crash:1"] = Behaviour(runs_for=(0.05, 0.5), exit_code=3)
            async with asyncio.timeout(300):
                return await scenario(SimEngine(self.daemon))

        result = self.loop.run(main())
        assert not self.loop.problems
        return result

    def body(self, persona: str, **more: Any) -> dict[str, Any]:
        image = "web" if persona == "serve" else persona
        return {"Image": f"{image}:1", "Labels": {"k": "v"}, **more}

    def kill(self) -> None:
        self.daemon.die()

    def revive(self) -> None:
        self.daemon.revive()

    def freeze(self) -> None:
        self.daemon.hang()

    def thaw(self) -> None:
        self.daemon.unhang()

    def kill_container(self, container_id: str) -> None:
        self.daemon.finish(self.daemon.find(container_id), 137)

    def volumes(self) -> int:
        return sum(container.volumes for container in self.daemon.listed)

    def threads(self) -> int:
        return 0

    def close(self) -> None:
        self.loop.dispose()


# ------------------------------------------------------------ real

REGISTRY = """
import http.server, time
class Registry(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if "slow" in self.path:
            time.sleep(3600)
        good = self.path == "/v2/"
        body = b"{}" if good else b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}'
        self.send_response(200 if good else 404)
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
    do_HEAD = do_GET
    def log_message(self, *words):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 5000), Registry)
server.daemon_threads = True
print("ready", flush=True)
server.serve_forever()
"""
_STOPS = "trap 'exit 0' TERM; sleep 1000 & wait"
_SCRIPTS = {
    "serve": f"echo hello; {_STOPS}",
    "stubborn": "trap '' TERM; while true; do sleep 1000; done",
    "job": "exit 0",
    "crash": "exit 3",
    "talker": f"echo out 1; echo err 1 >&2; sleep 0.5; echo out 2; {_STOPS}",
    # The kernel's word on why it ended comes by another way than its end: give it the time to.
    "hungry": "busybox dd if=/dev/zero of=/dev/null bs=64M count=1; sleep 0.3; exit 137",
    "broken": "",
    "probed": _STOPS,
    "sick": _STOPS,
}
_PROBE = {"Interval": 200_000_000, "Timeout": 5_000_000_000, "Retries": 1}


class Real:
    """A private dockerd with a registry beside it that knows nothing."""

    image, unreachable = IMAGE, IMAGE.replace("probe", "unreachable")
    missing, slow = "127.0.0.1:5000/missing:1", "127.0.0.1:5000/slow:1"

    def __init__(self) -> None:
        self.private = BridgedEngine()
        self._registry: subprocess.Popen[bytes] | None = None
        self._alive = False
        try:
            self.private.start()
            self._alive = True
            self.private.load_image()
            registry = [*self.private.inside(), sys.executable, "-c", REGISTRY]
            self._registry = subprocess.Popen(registry, stdout=subprocess.PIPE)
            assert self._registry.stdout is not None
            assert self._registry.stdout.readline() == b"ready\n"
        except BaseException:
            self.close()
            raise

    def run(self, scenario: Scenario) -> Any:
        async def main() -> Any:
            engine = DockerEngine(self.private.url)
            try:
                async with asyncio.timeout(45):
                    return await scenario(engine)
            finally:
                engine.close()

        return asyncio.run(main())

    def body(self, persona: str, **more: Any) -> dict[str, Any]:
        body: dict[str, Any] = {
            "Image": IMAGE, "Labels": {"k": "v"}, "Cmd": ["sh", "-c", _SCRIPTS[persona]], **more,
        }  # fmt: skip
        if persona == "broken":
            body["Cmd"] = ["/no/such/program"]
        if persona == "hungry":
            body["HostConfig"] = {"Memory": 16 << 20, "MemorySwap": 16 << 20}
        if persona == "probed":
            body["Healthcheck"] = {"Test": ["CMD-SHELL", "echo fine"], **_PROBE}
        if persona == "sick":
            body["Healthcheck"] = {"Test": ["CMD-SHELL", "echo not well; false"], **_PROBE}
        return body

    def kill(self) -> None:
        self.private.kill_dockerd()
        self._alive = False

    def revive(self) -> None:
        self.private.start_dockerd()
        self._alive = True

    def freeze(self) -> None:
        self.private.freeze()

    def thaw(self) -> None:
        self.private.thaw()

    def kill_container(self, container_id: str) -> None:
        self._ask(lambda client: client.kill(container_id))

    def volumes(self) -> int:
        return self._ask(lambda client: len(client.volumes()["Volumes"] or ()))

    def _ask(self, job: Callable[[Any], Any]) -> Any:
        client = docker.APIClient(self.private.url, version="auto", timeout=30)
        try:
            return job(client)
        finally:
            client.close()

    def threads(self) -> int:
        return sum(thread.name.startswith("engine-") for thread in threading.enumerate())

    def tidy(self) -> None:
        """Between tests: alive, empty, and no thread left from the last one."""
        self.private.thaw() if self._alive else self.revive()
        self.private._remove_containers()
        deadline = time.monotonic() + PATIENCE
        while self.threads():
            assert time.monotonic() < deadline, "a thread of the adapter is stuck"
            time.sleep(0.02)

    def close(self) -> None:
        if self._registry is not None:
            self._registry.kill()
            self._registry.wait()
            assert self._registry.stdout is not None
            self._registry.stdout.close()
        if self._alive:
            self.private.thaw()
        self.private.stop()
