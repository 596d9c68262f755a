"""Generated requests over every route that we serve: a status that Docker's clients know, JSON in every answer,
no defect of ours, no secret, and refused requests change nothing."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swarmpy.api.server import ApiServer
from tests.api.conftest import SPEC
from tests.api.engine import FakeEngine
from tests.api.fakes import FakeClock, FakeControl, FakeEntropy, FakeLocal
from tests.fuzz.bytes_ import JSON_BYTES, JSON_TEXTS

KNOWN = {200, 201, 400, 403, 404, 405, 409, 501, 503}
DOCKERS_500 = ("update out of sequence", "filter: '", "code = Unknown")
"""What Docker itself answers with 500."""


class House:
    """A server for many requests, and the cluster behind it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="swarmpy-api-"))
        self.runner = asyncio.Runner()
        self.runner.run(self._begin())

    async def _begin(self) -> None:
        self.engine = FakeEngine(self.folder / "engine.sock")
        await self.engine.start()
        self.local = FakeLocal(FakeControl())
        self.server = ApiServer(
            self.local, f"unix://{self.engine.path}", clock=FakeClock(), entropy=FakeEntropy()
        )
        await self.server.start(self.folder / "api.sock")
        application = self.server._runner.app  # type: ignore[union-attr]
        found = {(route.method, route.resource.canonical) for route in application.router.routes()}  # type: ignore[union-attr]
        self.routes = sorted(found - {(method, path) for method, path in found if path == "/events"})

    def fresh(self) -> FakeControl:
        """A cluster with one service, for the next request."""
        control = FakeControl()
        self.local.control_plane = control
        self.local.shown = FakeLocal(None).shown
        answer = self.runner.run(self.ask("POST", "/services/create", json.dumps(SPEC).encode()))
        assert answer[0] == 201
        return control

    async def ask(self, method: str, target: str, body: bytes) -> tuple[int, bytes, bytes]:
        reader, writer = await asyncio.open_unix_connection(str(self.folder / "api.sock"))
        try:
            writer.write(
                f"{method} {target} HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\n\r\n".encode("latin-1")
                + body
            )
            answer = await asyncio.wait_for(reader.read(), 5)
        finally:
            writer.transport.abort()
        head, _, rest = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), head, rest

    async def _end(self) -> None:
        await self.server.stop()
        await self.engine.stop()

    def close(self) -> None:
        self.runner.run(self._end())
        self.runner.close()
        shutil.rmtree(self.folder)


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    made = House()
    yield made
    made.close()


REFERENCES = st.sampled_from(
    ["web", "node1", "node2", "host3", "web.1", "n", "w", "%ff", "..", "a%2fb", "%00"]
)
VALUES = st.one_of(
    st.sampled_from(
        ["1", "0", "true", "yes", "-1", "5", "99999999999999999999", "previous", "spec", "1e3", ""]
    ),
    JSON_TEXTS.map(lambda text: text.encode("utf-8", "surrogatepass"))
    .map(quote)
    .filter(lambda q: len(q) < 4000),
    st.text(max_size=8).map(lambda text: quote(text.encode("utf-8", "surrogatepass"))),
)
PARAMETERS = st.lists(
    st.tuples(
        st.sampled_from(
            ["filters", "version", "force", "status", "insertDefaults", "registryAuthFrom", "rollback", "stdout",
             "stderr", "since", "tail", "timestamps", "details", "rotateWorkerToken", "ref"]
        ),
        VALUES,
    ),
    max_size=4,
)  # fmt: skip


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A good body with some of its parts replaced, or anything."""
    if draw(st.booleans()):
        return draw(JSON_BYTES)
    good: dict[str, Any] = draw(
        st.sampled_from(
            [SPEC, {"Role": "worker", "Availability": "drain"}, {"Name": "default"},
             {"ListenAddr": "0.0.0.0:2377", "RemoteAddrs": ["10.0.0.1"], "JoinToken": "x"}]
        )
    )  # fmt: skip
    text = json.dumps({**good, "@": "@"})
    key = draw(st.sampled_from([*good, "Labels", "UpdateConfig", "EndpointSpec", "TaskTemplate"]))
    return text.replace('"@": "@"', f"{json.dumps(key)}: {draw(JSON_TEXTS)}").encode("utf-8", "surrogatepass")


@settings(
    max_examples=250, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)
@given(data=st.data())
def test_any_request(house: House, data: st.DataObject) -> None:
    method, route = data.draw(st.sampled_from(house.routes))
    target = route.replace("{id}", data.draw(REFERENCES))
    target = target.replace(
        "{version}", data.draw(st.sampled_from(["1.41", "1.12", "1.99", "0", "9.9.9", "."]))
    )
    pairs = data.draw(PARAMETERS)
    query = "?" + "&".join(f"{name}={value}" for name, value in pairs) if pairs else ""
    control = house.fresh()
    before = control.current
    faults: list[logging.LogRecord] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = faults.append  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    try:
        status, head, text = house.runner.run(house.ask(method, target + query, data.draw(bodies())))
    finally:
        logging.getLogger().removeHandler(handler)
    assert [record.getMessage() for record in faults if record.exc_info] == []
    assert b"Traceback" not in text
    assert b"internal error" not in text
    if status == 500:
        assert any(words in text.decode() for words in DOCKERS_500), text
    else:
        assert status in KNOWN, (status, text)
    if status >= 400:
        assert control.current is before
        if method != "HEAD":
            assert set(json.loads(text)) == {"message"}, text
    elif b"application/json" in head and text:
        json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in an answer"))
    assert b"PRIVATE KEY" not in text
