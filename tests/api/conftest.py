"""A real ApiServer on a unix socket over a cluster in memory and a small Engine."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from swarmpy.api.server import ApiServer
from tests.api.engine import FakeEngine
from tests.api.fakes import FakeClock, FakeControl, FakeEntropy, FakeLocal

SPEC: dict[str, Any] = {
    "Name": "web",
    "TaskTemplate": {"ContainerSpec": {"Image": "nginx:1.25"}},
    "Mode": {"Replicated": {"Replicas": 2}},
}


@dataclass
class Rig:
    socket: Path
    engine: FakeEngine
    control: FakeControl
    local: FakeLocal
    server: ApiServer
    session: aiohttp.ClientSession
    clock: FakeClock = field(default_factory=FakeClock)

    async def call(self, method: str, path: str, body: object = None, **more: Any) -> tuple[int, Any]:
        """Status and decoded body (text where it is not JSON)."""
        if body is not None:
            more["json"] = body
        async with self.session.request(method, f"http://docker{path}", **more) as reply:
            text = await reply.text()
            try:
                return reply.status, json.loads(text) if text else None
            except json.JSONDecodeError:
                return reply.status, text

    async def create(self, **parts: Any) -> str:
        status, body = await self.call("POST", "/v1.41/services/create", {**SPEC, **parts})
        assert status == 201, body
        return str(body["ID"])


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    # Not tmp_path: a unix socket's path may have 107 characters at most.
    folder = Path(tempfile.mkdtemp(prefix="swarmpy-api-"))
    engine = FakeEngine(folder / "engine.sock")
    await engine.start()
    control = FakeControl()
    local = FakeLocal(control)
    local.engine_networks = engine.networks
    clock = FakeClock()
    server = ApiServer(local, f"unix://{engine.path}", clock=clock, entropy=FakeEntropy())
    await server.start(folder / "api.sock")
    session = aiohttp.ClientSession(connector=aiohttp.UnixConnector(path=str(folder / "api.sock")))
    try:
        yield Rig(folder / "api.sock", engine, control, local, server, session, clock)
    finally:
        await session.close()
        await server.stop()
        await engine.stop()
        shutil.rmtree(folder)
