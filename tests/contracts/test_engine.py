"""The contract of the Engine port, held against the simulated Engine and a real one alike.

Every promise of ports/engine.py that the agent builds on. A difference between the two is a defect of one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from swarmpy.ports import ContainerSeen, Engine, EngineError, EngineEvent, EngineGoneError, LogQuery
from tests.contracts.engines import House, Real, Simulated, until


@pytest.fixture(scope="module")
def real() -> Iterator[Real]:
    house = Real()
    yield house
    house.close()


@pytest.fixture(params=["simulated", pytest.param("real", marks=pytest.mark.lab)])
def house(request: pytest.FixtureRequest) -> Iterator[House]:
    if request.param == "real":
        real = request.getfixturevalue("real")
        yield real
        real.tidy()
        return
    simulated = Simulated()
    yield simulated
    simulated.close()


async def launch(engine: Engine, house: House, persona: str = "serve", name: str = "c1", **more: Any) -> str:
    key = await engine.create(name, house.body(persona, **more))
    await engine.start(key)
    return key


async def reaches(engine: Engine, key: str, **wanted: Any) -> ContainerSeen:
    """The container once it looks like this."""
    last: list[ContainerSeen] = []

    async def there() -> bool:
        last[:] = [await engine.inspect(key)]
        return all(getattr(last[0], name) == value for name, value in wanted.items())

    try:
        await until(there)
    except AssertionError:
        pytest.fail(f"{wanted} was not reached: {last}")
    return last[0]


@asynccontextmanager
async def watching(engine: Engine, house: House) -> AsyncIterator[list[EngineEvent]]:
    """Events from here on; the last entry is the exception that ended them."""
    seen: list[Any] = []

    async def watch() -> None:
        try:
            async for event in engine.events():
                seen.append(event)  # noqa: PERF401  what came before the end counts
        except EngineError as error:
            seen.append(error)

    task = asyncio.create_task(watch())
    # The subscription is begun when the Engine says so: a container made for that purpose is heard of.
    for number in range(100):
        herald = await engine.create(f"herald{number}", house.body("serve"))
        await engine.remove(herald)
        await asyncio.sleep(0.02)
        if seen:
            break

    async def last_heard() -> bool:
        return (seen[-1].action, seen[-1].container_id) == ("destroy", herald)

    await until(last_heard)
    seen.clear()
    try:
        yield seen
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


# ------------------------------------------------------------ looking


def test_info_and_version(house: House) -> None:
    async def scenario(engine: Engine) -> None:
        info = await engine.info()
        assert info["OSType"] == "linux"
        assert info["NCPU"] > 0
        assert info["MemTotal"] > 0
        assert info["Name"]
        assert info["ServerVersion"] == (await engine.version())["Version"]
        assert (await engine.version())["ApiVersion"]

    house.run(scenario)


def test_create_shows_in_all_views(house: House) -> None:
    async def scenario(engine: Engine) -> None:
        labels = {"k": "v", "empty": "", "eq": "a=b"}
        key = await engine.create("c1", house.body("serve", Labels=labels))
        other = await engine.create("c2", house.body("serve", Labels={"k": "w"}))
        seen = await engine.inspect(key)
        assert (seen.id, seen.name, seen.state) == (key, "c1", "created")
        assert dict(seen.labels) == labels
        assert (seen.pid, seen.exit_code, seen.error, seen.health, seen.ports) == (0, 0, "", "", ())
        assert (seen.started_at, seen.finished_at, seen.oom_killed) == (0, 0, False)

        async def ids(*wanted: str) -> set[str]:
            return {one.id for one in await engine.containers(wanted)}

        assert await ids() == {key, other}
        assert await ids("k") == {key, other}
        assert await ids("k=v") == {key}
        assert await ids("k=v", "empty") == {key}
        assert await ids("k=v", "empty=") == {key}
        assert await ids("eq=a=b") == {key}
        assert await ids("k=v", "k=w") == set()
        assert await ids("nothing") == set()
        assert await engine.containers(["k=v"]) == [seen]

    house.run(scenario)


def test_images(house: House) -> None:
    async def scenario(engine: Engine) -> None:
        assert await engine.has_image(house.image)
        assert not await engine.has_image(house.missing)

    house.run(scenario)


# ------------------------------------------------------------ create


def test_a_taken_name_is_a_conflict(house: House) -> None:
    async def scenario(engine: Engine) -> None:
        await engine.create("c1", house.body("serve"))
        with pytest.raises(EngineError, match=r"c1.*already in use") as refused:
            await engine.create("c1", house.body("job"))
        assert (refused.value.conflict, refused.value.missing) == (True, False)
        assert not isinstance(refused.value, EngineGoneError)

    house.run(scenario)


def test_a_missing_image_refuses_the_container(house: House) -> None:
    async def scenario(engine: Engine) -> None:
        with pytest.raises(EngineError, match=f"No such image: {house.missing}") as refused:
            await engine.create("c1", {"Image": house.missing})
        assert (refused.value.conflict, refused.value.missing) == (False, True)
        assert await engine.containers([]) == []

    house.run(scenario)


def test_everything_says_what_is_missing(house: House) -> None:
    async def scenario(engine: Engine) -> None:
        lost = "f" * 64
        for ask in (engine.inspect(lost), engine.start(lost), engine.stop(lost, 1)):
            with pytest.raises(EngineError, match=f"No such container: {lost}") as refused:
                await ask
            assert refused.value.missing
        with pytest.raises(EngineError, match=f"No such container: {lost}") as unread:
            async for _ in engine.logs(lost, LogQuery()):
                pass
        assert unread.value.missing
        await engine.remove(lost)

    house.run(scenario)


# ------------------------------------------------------------ start and stop


def test_a_life(house: House) -> None:
    async def scenario(engine: Engine) -> None:
        key = await launch(engine, house)
        await engine.start(key)
        running = await engine.inspect(key)
        assert running.state == "running"
        assert running.pid > 0
        assert running.started_at > 0
        await asyncio.sleep(0.2)
        await engine.stop(key, 10)
        await engine.stop(key, 10)
        ended = await engine.inspect(key)
        assert (ended.state, ended.exit_code, ended.pid, ended.error) == ("exited", 0, 0, "")
        assert ended.finished_at >= ended.started_at == running.started_at
        await engine.start(key)
        again = await engine.inspect(key)
        assert (again.state, again.exit_code) == ("running", 0)
        assert again.started_at > running.started_at

    house.run(scenario)


def test_a_container_that_never_ran_is_stopped_already(house: House) -> None:
    async def scenario(engine: Engine) -> None:
        key = await engine.create("c1", house.body("serve"))
        await engine.stop(key, 1)
        assert (await engine.inspect(key)).state == "created"

    house.run(scenario)


def test_after_the_grace_comes_the_kill(house: House) -> None:
    async def scenario(engine: Engine) -> None:
        loop = asyncio.get_running_loop()
        key = await launch(engine, house, "stubborn")
        await asyncio.sleep(0.3)
        began = loop.time()
        await engine.stop(key, 1)
        assert 0.9 < loop.time() - began < 10
        ended = await engine.inspect(key)
        assert (ended.state, ended.exit_code, ended.oom_killed) == ("exited", 137, False)

    house.run(scenario)


@pytest.mark.parametrize(("persona", "code"), [("job", 0), ("crash", 3)])
def test_exit_codes(house: House, persona: str, code: int) -> None:
    async def scenario(engine: Engine) -> None:
        key = await launch(engine, house, persona)
        ended = await reaches(engine, key, state="exited")
        assert (ended.exit_code, ended.pid, ended.error, ended.oom_killed) == (code, 0, "", False)

    house.run(scenario)


def test_out_of_memory_is_told(house: House) -> None:
    async def scenario(engine: Engine) -> None:
        key = await launch(engine, house, "hungry")
        ended = await reaches(engine, key, state="exited")
        assert (ended.exit_code, ended.oom_killed) == (137, True)

    house.run(scenario)


def test_what_cannot_start_says_why_and_stays_created(house: House) -> None:
    async def scenario(engine: Engine) -> None:
        key = await engine.create("c1", house.body("broken"))
        with pytest.raises(EngineError, match="OCI runtime create failed") as refused:
            await engine.start(key)
        assert not refused.value.missing
        assert not isinstance(refused.value, EngineGoneError)
        left = await engine.inspect(key)
        assert (left.state, left.pid, left.exit_code) == ("created", 0, 127)
        assert left.error
        assert left.error in str(refused.value)

    house.run(scenario)


def test_host_ports_are_reported_while_it_runs(house: House) -> None:
    async def scenario(engine: Engine) -> None:
        config = {
            "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
            "HostConfig": {
                "PortBindings": {"80/tcp": [{"HostPort": "8080"}], "53/udp": [{"HostPort": "5353"}]}
            },
        }
        key = await launch(engine, house, **config)
        assert (await engine.inspect(key)).ports == (("tcp", 80, 8080), ("udp", 53, 5353))
        second = await engine.create("c2", house.body("serve", **config))
        with pytest.raises(EngineError, match="already allocated"):
            await engine.start(second)
        assert (await engine.inspect(second)).ports == ()
        await asyncio.sleep(0.2)
        await engine.stop(key, 5)
        assert (await engine.inspect(key)).ports == ()
        await engine.start(second)
        assert len((await engine.inspect(second)).ports) == 2

    house.run(scenario)


# ------------------------------------------------------------ remove


@pytest.mark.parametrize("start", [True, False])
def test_remove_by_force(house: House, start: bool) -> None:
    async def scenario(engine: Engine) -> None:
        key = await engine.create("c1", house.body("stubborn"))
        if start:
            await engine.start(key)
        await engine.remove(key)
        with pytest.raises(EngineError):
            await engine.inspect(key)
        assert await engine.containers([]) == []
        await engine.remove(key)
        await engine.create("c1", house.body("serve"))

    house.run(scenario)


def test_removing_twice_at_once(house: House) -> None:
    async def scenario(engine: Engine) -> None:
        key = await launch(engine, house, "stubborn")
        await asyncio.gather(*(engine.remove(key) for _ in range(4)))
        await until(lambda: _empty(engine))

    house.run(scenario)


async def _empty(engine: Engine) -> bool:
    return not await engine.containers([])


def test_anonymous_volumes_go_with_their_container(house: House) -> None:
    async def scenario(engine: Engine) -> None:
        key = await launch(engine, house, Volumes={"/data": {}})
        assert house.volumes() == 1
        await engine.remove(key)
        assert house.volumes() == 0

    house.run(scenario)


# ------------------------------------------------------------ health


def test_health_becomes_good(house: House) -> None:
    async def scenario(engine: Engine) -> None:
        key = await launch(engine, house, "probed")
        assert (await engine.inspect(key)).health in ("starting", "healthy")
        seen = await reaches(engine, key, health="healthy")
        assert seen.state == "running"
        assert "fine" in seen.health_log
        await engine.stop(key, 5)
        assert (await engine.inspect(key)).health == ""

    house.run(scenario)


def test_health_becomes_bad(house: House) -> None:
    async def scenario(engine: Engine) -> None:
        async with watching(engine, house) as seen:
            key = await launch(engine, house, "sick")
            sick = await reaches(engine, key, health="unhealthy")
            assert sick.state == "running"
            assert "not well" in sick.health_log
            await until(lambda: _told(seen, key, ["create", "start", "health_status"]))

    house.run(scenario)


async def _told(seen: list[Any], key: str, actions: list[str]) -> bool:
    return actions_of(seen, key)[: len(actions)] == actions


def actions_of(seen: list[Any], key: str) -> list[str]:
    return [one.action for one in seen if isinstance(one, EngineEvent) and one.container_id == key]


# ------------------------------------------------------------ events


def test_events_tell_a_life_in_order(house: House) -> None:
    async def scenario(engine: Engine) -> None:
        async with watching(engine, house) as seen:
            job = await launch(engine, house, "job")
            served = await launch(engine, house, "serve", "c2")
            await reaches(engine, job, state="exited")
            await engine.remove(job)
            await engine.remove(served)
            life = ["create", "start", "die", "destroy"]
            await until(lambda: _told(seen, job, life))
            await until(lambda: _told(seen, served, life))
            assert all(one.labels["k"] == "v" for one in seen)
            assert actions_of(seen, job) == actions_of(seen, served) == life

    house.run(scenario)


def test_a_killed_container_is_told(house: House) -> None:
    async def scenario(engine: Engine) -> None:
        async with watching(engine, house) as seen:
            key = await launch(engine, house)
            house.kill_container(key)
            await until(lambda: _told(seen, key, ["create", "start", "die"]))
            assert (await engine.inspect(key)).exit_code == 137

    house.run(scenario)


def test_what_events_tell_is_true_when_it_is_told(house: House) -> None:
    """Whoever looks at an event's news sees them: nothing older is remembered by the adapter."""

    async def scenario(engine: Engine) -> None:
        async with watching(engine, house) as seen:
            key = await launch(engine, house)
            await engine.containers(["k=v"])
            house.kill_container(key)
            await until(lambda: _told(seen, key, ["create", "start", "die"]))
            (one,) = await engine.containers(["k=v"])
            assert (one.state, one.exit_code) == ("exited", 137)

    house.run(scenario)


def test_listeners_come_and_go(house: House) -> None:
    async def scenario(engine: Engine) -> None:
        async with watching(engine, house) as one, watching(engine, house) as two:
            key = await launch(engine, house)
            for seen in (one, two):
                await until(lambda seen=seen: _told(seen, key, ["create", "start"]))
        await until(lambda: _no_threads(house))

    house.run(scenario)


async def _no_threads(house: House) -> bool:
    return house.threads() == 0


# ------------------------------------------------------------ logs


async def read(engine: Engine, key: str, **query: Any) -> list[tuple[str, bytes]]:
    return [(frame.stream, frame.data) async for frame in engine.logs(key, LogQuery(**query))]


def test_logs_by_stream_and_tail(house: House) -> None:
    async def scenario(engine: Engine) -> None:
        key = await launch(engine, house, "talker")
        await until(lambda: _has_lines(engine, key, 3))
        out = [("stdout", b"out 1\n"), ("stdout", b"out 2\n")]
        err = [("stderr", b"err 1\n")]
        everything = await read(engine, key)
        assert sorted(everything) == sorted(out + err)
        assert everything[-1] == out[-1]
        assert await read(engine, key, stderr=False) == out
        assert await read(engine, key, stdout=False) == err
        assert await read(engine, key, tail=1) == out[1:]
        assert await read(engine, key, tail=0) == []
        assert len(await read(engine, key, tail=100)) == 3

    house.run(scenario)


async def _has_lines(engine: Engine, key: str, count: int) -> bool:
    return len(await read(engine, key)) >= count


def test_logs_since_and_stamps(house: House) -> None:
    async def scenario(engine: Engine) -> None:
        key = await launch(engine, house, "talker")
        await until(lambda: _has_lines(engine, key, 3))
        frames = [frame async for frame in engine.logs(key, LogQuery(timestamps=True))]
        assert all(frame.data in (b"out 1\n", b"out 2\n", b"err 1\n") for frame in frames)
        assert all(frame.time[10] == "T" and frame.time.endswith("Z") for frame in frames)
        started = (await engine.inspect(key)).started_at
        assert await read(engine, key, since=started + 300_000_000) == [("stdout", b"out 2\n")]
        assert await read(engine, key, since=started + 3_600_000_000_000) == []
        assert len(await read(engine, key, since=started - 1_000_000_000)) == 3

    house.run(scenario)


def test_followed_logs_end_with_the_container(house: House) -> None:
    async def scenario(engine: Engine) -> None:
        key = await launch(engine, house, "talker")
        following = asyncio.create_task(read(engine, key, follow=True))
        await until(lambda: _has_lines(engine, key, 3))
        assert not following.done()
        await engine.stop(key, 5)
        async with asyncio.timeout(10):
            lines = await following
        assert sorted(data for _, data in lines) == [b"err 1\n", b"out 1\n", b"out 2\n"]
        assert await read(engine, key, follow=True) == lines

    house.run(scenario)


def test_followed_logs_break_with_the_engine(house: House) -> None:
    async def scenario(engine: Engine) -> None:
        key = await launch(engine, house)
        following = asyncio.create_task(read(engine, key, follow=True))
        await until(lambda: _has_lines(engine, key, 1))
        await asyncio.sleep(0.2)
        assert not following.done()
        house.kill()
        with pytest.raises(EngineGoneError):
            await asyncio.wait_for(following, 10)

    house.run(scenario)


# ------------------------------------------------------------ pull


def test_a_missing_image_cannot_be_pulled(house: House) -> None:
    async def scenario(engine: Engine) -> None:
        with pytest.raises(EngineError, match=house.missing.rpartition(":")[0]) as refused:
            await engine.pull(house.missing)
        assert not isinstance(refused.value, EngineGoneError)
        assert not await engine.has_image(house.missing)

    house.run(scenario)


def test_a_registry_that_is_away_is_not_the_engine_being_away(house: House) -> None:
    async def scenario(engine: Engine) -> None:
        with pytest.raises(EngineError, match=f"{house.unreachable} .*connection refused") as refused:
            await engine.pull(house.unreachable)
        assert not isinstance(refused.value, EngineGoneError)

    house.run(scenario)


def test_a_pull_that_is_given_up_ends(house: House) -> None:
    async def scenario(engine: Engine) -> None:
        if isinstance(house, Simulated):
            house.daemon.pull_time = (30, 60)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(engine.pull(house.slow), 0.5)
        await until(lambda: _no_threads(house))
        if isinstance(house, Simulated):
            await asyncio.sleep(100)
        assert not await engine.has_image(house.slow)

    house.run(scenario)


def test_a_pull_breaks_with_the_engine(house: House) -> None:
    async def scenario(engine: Engine) -> None:
        if isinstance(house, Simulated):
            house.daemon.pull_time = (30, 60)
        pulling = asyncio.create_task(engine.pull(house.slow))
        await asyncio.sleep(0.5)
        house.kill()
        house.revive()
        with pytest.raises(EngineGoneError):
            await asyncio.wait_for(pulling, 10)

    house.run(scenario)


# ------------------------------------------------------------ the Engine is away


async def asks(engine: Engine, key: str, image: str) -> list[BaseException | Any]:
    """What every method answers."""

    async def first(stream: AsyncIterator[Any]) -> Any:
        async for one in stream:
            return one
        return None

    return await asyncio.gather(
        engine.info(), engine.version(), engine.containers([]), engine.inspect(key), engine.has_image(image),
        engine.pull(image), engine.create("c9", {"Image": image}), engine.start(key), engine.stop(key, 1),
        engine.remove(key), first(engine.events()), first(engine.logs(key, LogQuery())),
        return_exceptions=True,
    )  # fmt: skip


def test_without_engine_every_method_says_so(house: House) -> None:
    async def scenario(engine: Engine) -> None:
        key = await launch(engine, house)
        before = await engine.inspect(key)
        house.kill()
        for answer in await asyncio.wait_for(asks(engine, key, house.image), 10):
            assert isinstance(answer, EngineGoneError)
            assert "container engine" in str(answer)
            assert "does not answer" in str(answer)
        house.revive()
        after = await engine.inspect(key)
        assert (after.state, after.pid, after.started_at) == ("running", before.pid, before.started_at)

    house.run(scenario)


def test_the_death_of_the_engine_ends_events_and_leaves_containers(house: House) -> None:
    async def scenario(engine: Engine) -> None:
        config = {
            "ExposedPorts": {"80/tcp": {}},
            "HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}},
        }
        served = await launch(engine, house, **config)
        done = await launch(engine, house, "crash", "c2")
        idle = await engine.create("c3", house.body("serve"))
        await reaches(engine, done, state="exited")
        before = {one.id: one for one in await engine.containers(["k=v"])}
        async with watching(engine, house) as seen:
            house.kill()
            await until(lambda: _ended(seen))
            assert [type(one) for one in seen] == [EngineGoneError]
        house.revive()
        after = {one.id: one for one in await engine.containers(["k=v"])}
        assert after == before
        assert set(after) == {served, done, idle}
        async with watching(engine, house) as seen:
            await engine.stop(served, 5)
            await until(lambda: _told(seen, served, ["die"]))
        assert (await engine.inspect(served)).exit_code == 0

    house.run(scenario)


async def _ended(seen: list[Any]) -> bool:
    return bool(seen) and isinstance(seen[-1], EngineError)


def test_a_stop_under_way_breaks_with_the_engine(house: House) -> None:
    async def scenario(engine: Engine) -> None:
        key = await launch(engine, house, "stubborn")
        await asyncio.sleep(0.3)
        stopping = asyncio.create_task(engine.stop(key, 60))
        await asyncio.sleep(0.3)
        house.kill()
        house.revive()
        with pytest.raises(EngineGoneError):
            await asyncio.wait_for(stopping, 10)

    house.run(scenario)


def test_a_hanging_engine_holds_up_nobody_but_its_callers(house: House) -> None:
    async def scenario(engine: Engine) -> None:
        key = await launch(engine, house)
        house.freeze()
        answers = asyncio.create_task(asks(engine, key, house.image))
        await asyncio.sleep(0.5)
        assert not answers.done()
        answers.cancel()
        await asyncio.gather(answers, return_exceptions=True)
        for ask in (engine.info(), engine.containers([]), engine.inspect(key)):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(ask, 0.1)
        house.thaw()
        assert await engine.info()
        await until(lambda: _no_threads(house))

    house.run(scenario)


def test_what_a_hanging_engine_was_asked_is_answered_late(house: House) -> None:
    async def scenario(engine: Engine) -> None:
        key = await launch(engine, house)
        house.freeze()
        looking = asyncio.create_task(engine.inspect(key))
        await asyncio.sleep(0.3)
        assert not looking.done()
        house.thaw()
        assert (await asyncio.wait_for(looking, 10)).state == "running"

    house.run(scenario)


def test_a_given_up_request_may_still_be_carried_out(house: House) -> None:
    """Whoever asks again must expect a conflict with himself."""

    async def scenario(engine: Engine) -> None:
        house.freeze()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(engine.create("c1", house.body("serve")), 0.3)
        house.thaw()
        await until(lambda: _made(engine))

    house.run(scenario)


async def _made(engine: Engine) -> bool:
    return [one.name for one in await engine.containers([])] == ["c1"]
