"""Logs and events: framing, following, filters, replay, hanging up."""

from __future__ import annotations

import asyncio
import json

from hypothesis import given
from hypothesis import strategies as st

from swarmpy.api.logs import framed, lines_of
from swarmpy.ports import TaskLogFrame
from tests.api.conftest import SPEC, Rig


def frame(
    task: str, data: bytes, *, stream: str = "stdout", time: str = "", problem: str = ""
) -> TaskLogFrame:
    return TaskLogFrame(task, "n" * 25, "s" * 25, stream, data, time, problem)


async def first_task(rig: Rig) -> str:
    await rig.create()
    return next(iter(rig.control.current.tasks)).id


async def test_lines_are_framed(rig: Rig) -> None:
    task = await first_task(rig)
    rig.control.frames = [frame(task, b"a\nb\n"), frame(task, b"c\n", stream="stderr")]
    async with rig.session.get("http://d/v1.42/services/web/logs") as reply:
        assert reply.status == 400  # newer than the Engine
    async with rig.session.get("http://d/v1.41/services/web/logs?stdout=1&stderr=1&tail=all") as reply:
        assert "Content-Type" not in reply.headers or "docker" not in reply.headers["Content-Type"]
        assert await reply.read() == framed(1, b"a\n") + framed(1, b"b\n") + framed(2, b"c\n")
    assert rig.control.queries[-1].tail == -1


async def test_details_come_behind_the_time(rig: Rig) -> None:
    task = await first_task(rig)
    rig.control.frames = [frame(task, b"a\n", time="2024-01-01T00:00:00Z")]
    source = f"com.docker.swarm.node.id={'n' * 25},com.docker.swarm.service.id={'s' * 25}"
    line = f"2024-01-01T00:00:00Z {source},com.docker.swarm.task.id={task} a\n"
    url = f"http://d/tasks/{task}/logs?stdout=1&details=1&timestamps=1&tail=5"
    async with rig.session.get(url) as reply:
        assert await reply.read() == framed(1, line.encode())
    query = rig.control.queries[-1]
    assert (query.tail, query.timestamps, query.stderr) == (5, True, False)


async def test_terminals_are_not_framed(rig: Rig) -> None:
    await rig.create(TaskTemplate={"ContainerSpec": {"Image": "x", "TTY": True}})
    task = next(iter(rig.control.current.tasks)).id
    rig.control.frames = [frame(task, b"raw\r\n")]
    async with rig.session.get("http://d/services/web/logs?stdout=1") as reply:
        assert await reply.read() == b"raw\r\n"


async def test_what_is_missing_is_said_at_the_end(rig: Rig) -> None:
    task = await first_task(rig)
    rig.control.frames = [frame(task, b"", problem="node n is not available"), frame(task, b"a\n")]
    async with rig.session.get("http://d/services/web/logs?stdout=1") as reply:
        data = await reply.read()
    assert data.startswith(framed(1, b"a\n") + b"\x03")
    assert b"incomplete log stream" in data
    assert b"node n is not available" in data


async def test_following_delivers_at_once_takes_up_new_tasks_and_ends_with_the_client(rig: Rig) -> None:
    task = await first_task(rig)
    reply = await rig.session.get("http://d/services/web/logs?stdout=1&follow=1")
    await rig.control.follow.put(frame(task, b"now\n"))
    assert await reply.content.readexactly(12) == framed(1, b"now\n")
    _, shown = await rig.call("GET", "/services/web")
    spec = {**shown["Spec"], "Mode": {"Replicated": {"Replicas": 4}}}
    await rig.call("POST", f"/services/web/update?version={shown['Version']['Index']}", spec)
    await rig.control.readers(2)
    reply.close()
    await rig.control.readers(0)


@given(st.binary(max_size=200), st.booleans())
def test_framing_loses_nothing(data: bytes, details: bool) -> None:
    pieces = list(lines_of(frame("t" * 25, data), details=details))
    joined = b"".join(line.split(b" ", 1)[1] if details else line for _, line in pieces)
    assert joined == data
    assert all(b"\n" not in line[:-1] for _, line in pieces)


async def test_events_of_both_sources_in_one_stream(rig: Rig) -> None:
    reply = await rig.session.get("http://d/v1.41/events")
    await rig.engine.events.put(b'{"Type":"container","scope":"local"}\n')
    assert json.loads(await reply.content.readline())["scope"] == "local"
    key = await rig.create()
    event = json.loads(await reply.content.readline())
    assert event["Actor"] == {"ID": key, "Attributes": {"name": "web"}}
    assert (event["Type"], event["Action"], event["scope"]) == ("service", "create", "swarm")
    assert event["timeNano"] // 10**9 == event["time"]
    reply.close()
    await asyncio.wait_for(rig.engine.hung_up.wait(), 5)


async def test_event_attributes_and_filters(rig: Rig) -> None:
    url = 'http://d/events?filters={"type":["service"],"event":["update"]}'
    reply = await rig.session.get(url)
    await rig.create()
    _, shown = await rig.call("GET", "/services/web")
    spec = {**shown["Spec"], "Mode": {"Replicated": {"Replicas": 3}}}
    spec["TaskTemplate"] = {**spec["TaskTemplate"], "ContainerSpec": {"Image": "nginx:2"}}
    await rig.call("POST", f"/services/web/update?version={shown['Version']['Index']}", spec)
    event = json.loads(await reply.content.readline())
    wanted = {
        "name": "web",
        "image.old": "nginx:1.25",
        "image.new": "nginx:2",
        "replicas.old": "2",
        "replicas.new": "3",
    }
    assert wanted.items() <= event["Actor"]["Attributes"].items()  # the update's state may come along
    reply.close()


async def test_history_is_merged_by_time_and_ends(rig: Rig) -> None:
    seen = rig.server._events.subscribe()
    await rig.call("GET", "/nodes")  # the events are followed from here on
    await rig.create()
    await seen.get()
    rig.clock.time += 10**12
    until = rig.clock.time // 10**9
    async with rig.session.get(f"http://d/events?since=1&until={until}") as reply:
        events = [json.loads(line) for line in (await reply.text()).splitlines()]
    assert [event["scope"] for event in events][:2] == ["local", "swarm"]


async def test_events_survive_an_absent_engine_and_workers_have_none_of_ours(rig: Rig) -> None:
    await rig.engine.stop()
    reply = await rig.session.get("http://d/events")
    await rig.create()
    assert json.loads(await reply.content.readline())["Type"] == "service"
    reply.close()
    rig.local.become("active")
    status, body = await rig.call("GET", "/events")
    assert (status, "does not answer" in body["message"]) == (503, True)
    status, body = await rig.call("POST", "/services/create", SPEC)
    assert (status, "Worker nodes can't be used" in body["message"]) == (503, True)
