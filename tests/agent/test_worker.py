"""The worker on a simulated Engine: adoption, an Engine that errs, hands that meddle, limits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmpy.agent import journal
from swarmpy.model.lifecycle import TERMINAL, TaskState
from swarmpy.ports import EngineError
from swarmpy.sim.disk import SimDisk
from tests.agent.rig import Rig, task

READY, SHUTDOWN, REMOVE = TaskState.READY, TaskState.SHUTDOWN, TaskState.REMOVE
LIFE = ["accepted", "preparing", "ready", "starting", "running"]


async def settled(rig: Rig, *keys: str) -> None:
    """The agent runs these tasks and has said so."""
    await rig.leader.assign(*(task(key) for key in keys))
    if rig.lives == 0:
        await rig.boot()
    for key in keys:
        await rig.reaches(key, "running")


def test_a_task_is_run_stopped_and_forgotten() -> None:
    rig = Rig()

    async def scenario() -> None:
        await settled(rig, "t1")
        assert [state for state in LIFE if state in rig.leader.history["t1"]] == rig.leader.history["t1"]
        status = rig.leader.statuses["t1"]
        (container,) = rig.of("t1")
        assert (status.container_id, status.pid) == (container.id, container.pid)
        await rig.leader.assign(task("t1", SHUTDOWN))
        await rig.reaches("t1", "shutdown")
        assert [one.state for one in rig.of("t1")] == ["exited"], "kept for its output"
        await rig.leader.drop("t1")
        await rig.until(lambda: not rig.of("t1"))

    rig.run(scenario)


def test_ready_waits_for_running() -> None:
    rig = Rig()

    async def scenario() -> None:
        await rig.leader.assign(task("t1", READY))
        await rig.boot()
        await rig.reaches("t1", "ready")
        await asyncio.sleep(60)
        assert [one.state for one in rig.of("t1")] == ["created"]
        await rig.leader.assign(task("t1"))
        await rig.reaches("t1", "running", 5)

    rig.run(scenario)


# ------------------------------------------------------------ adoption


def test_a_restart_touches_nothing() -> None:
    rig = Rig()

    async def scenario() -> None:
        await settled(rig, "t1", "t2")
        starts = len(rig.dockerd.starts)
        rig.crash()
        await asyncio.sleep(5)
        await rig.boot()
        await asyncio.sleep(30)
        assert rig.running() == {"t1", "t2"}
        assert len(rig.dockerd.starts) == starts
        assert rig.leader.history["t1"][-1] == "running"

    rig.run(scenario)


def test_without_managers_the_journal_is_enough() -> None:
    """A container that ends while no manager is there is still looked after, and told of later."""
    rig = Rig()

    async def scenario() -> None:
        await settled(rig, "t1", "t2")
        rig.crash()
        heal = rig.net.wall(["10.0.0.9"], ["10.0.0.1", "10.0.0.2"])
        rig.dockerd.finish(rig.of("t1")[0], 3)
        await rig.boot()
        await asyncio.sleep(30)
        assert rig.running() == {"t2"}
        heal()
        status = await rig.reaches("t1", "failed")
        assert "non-zero exit (3)" in status.err
        assert rig.leader.state("t2") == "running"

    rig.run(scenario)


@pytest.mark.parametrize("damage", ["lost", "garbled", "cut", "empty", "other shape"])
def test_without_a_journal_containers_are_adopted_by_label(
    damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig()

    async def scenario() -> None:
        await settled(rig, "t1")
        await asyncio.sleep(1)
        rig.crash()
        kept = bytes(rig.platter.live[journal.FILE].data)
        left = {
            "lost": None,
            "garbled": b"\xff" * 64,
            "cut": kept[:-5],
            "empty": b"",
            "other shape": b"\x93\x01\x02\x03",
        }
        if left[damage] is None:
            del rig.platter.live[journal.FILE]
        else:
            rig.platter.live[journal.FILE].data = bytearray(left[damage] or b"")
        starts = len(rig.dockerd.starts)
        await rig.boot()
        await asyncio.sleep(30)
        assert rig.running() == {"t1"}
        assert len(rig.dockerd.starts) == starts
        (again,) = journal.load(SimDisk(rig.platter)).tasks
        assert (again.assigned.id, again.status.state) == ("t1", TaskState.RUNNING), "it is written anew"

    rig.run(scenario)
    assert ("memory cannot be read" in caplog.text) == (damage != "lost")


def test_a_stale_journal_yields_to_the_managers() -> None:
    """It knows a task that is none any more, and lacks one that is."""
    rig = Rig()

    async def scenario() -> None:
        await settled(rig, "old")
        await asyncio.sleep(1)
        rig.crash()
        rig.leader.want = {"new": task("new")}
        rig.plant("new")
        rig.plant("orphan", name="orphan")
        await rig.boot()
        await rig.reaches("new", "running")
        await rig.until(
            lambda: {one.labels["com.docker.swarm.task.id"] for one in rig.dockerd.listed} == {"new"}
        )
        assert len(rig.of("new")) == 1

    rig.run(scenario)


def test_before_the_managers_speak_no_stranger_is_touched() -> None:
    rig = Rig()

    async def scenario() -> None:
        heal = rig.net.wall(["10.0.0.9"], ["10.0.0.1"])
        rig.plant("unknown")
        await rig.boot()
        await asyncio.sleep(60)
        assert rig.running() == {"unknown"}
        heal()
        await rig.until(lambda: not rig.dockerd.listed)

    rig.run(scenario)


def test_containers_of_another_cluster_and_of_nobody_are_left_alone() -> None:
    rig = Rig()

    async def scenario() -> None:
        rig.plant("theirs", cluster="another")
        rig.plant("nobodys", name="by-hand", cluster="")
        await settled(rig, "t1")
        await rig.leader.drop("t1")
        await rig.until(lambda: not rig.of("t1"))
        await asyncio.sleep(60)
        assert [one.state for one in rig.dockerd.listed] == ["running", "running"]

    rig.run(scenario)


def test_a_restart_while_an_action_is_under_way() -> None:
    """Whatever the last life had asked for is carried out in the middle of the next: one container comes of it."""
    for cut in ("pull", "create", "start", "stop", "remove"):
        rig = Rig(cut)

        async def scenario(rig: Rig = rig, cut: str = cut) -> None:
            def before(name: str) -> None:
                if name == cut and rig.lives == 1:
                    rig.loop.call_later(0.0005, rig.crash)

            rig.before = before
            await rig.leader.assign(task("t1"))
            await rig.boot()
            if cut in ("stop", "remove"):
                await rig.reaches("t1", "running")
                await rig.leader.drop("t1")
            await rig.until(lambda: not rig.process.alive)
            await rig.boot()
            if cut in ("stop", "remove"):
                await rig.until(lambda: not rig.dockerd.listed)
                return
            await rig.reaches("t1", "running")
            assert len(rig.of("t1")) == 1
            assert len(rig.dockerd.starts) == 1

        rig.run(scenario)


# ------------------------------------------------------------ the Engine is away


def test_without_engine_at_start_the_node_waits() -> None:
    rig = Rig()

    async def scenario() -> None:
        rig.dockerd.die()
        await rig.leader.assign(task("t1"))
        await rig.boot()
        await asyncio.sleep(30)
        assert rig.leader.hellos == [], "a node without an Engine says nothing of itself"
        rig.dockerd.revive()
        await rig.reaches("t1", "running", 10)
        assert rig.leader.hellos[0].description.memory_bytes == rig.dockerd.memory

    rig.run(scenario)


@pytest.mark.parametrize("trouble", ["dies", "hangs"])
def test_an_engine_away_in_the_middle_ends_no_task(trouble: str) -> None:
    rig = Rig()

    async def scenario() -> None:
        await settled(rig, "t1")
        said, beats = list(rig.leader.history["t1"]), rig.leader.beats
        rig.dockerd.die() if trouble == "dies" else rig.dockerd.hang()
        await rig.leader.assign(task("t2"))
        await asyncio.sleep(120)
        assert rig.leader.history["t1"] == said
        assert "t2" not in rig.leader.history or rig.leader.state("t2") in ("accepted", "preparing")
        assert rig.leader.beats > beats + 100, "the session lives on"
        assert len(rig.leader.hellos) == 1
        rig.dockerd.revive() if trouble == "dies" else rig.dockerd.unhang()
        await rig.reaches("t2", "running", 10)
        assert rig.leader.history["t1"] == said

    rig.run(scenario)


@pytest.mark.parametrize("trouble", ["dies", "hangs"])
@pytest.mark.parametrize("action", ["pull", "create", "start", "stop", "remove"])
def test_an_engine_away_during_an_action(action: str, trouble: str) -> None:
    rig = Rig()

    async def scenario() -> None:
        def before(name: str) -> None:
            if name == action:
                rig.before = lambda name: None
                away = rig.dockerd.die if trouble == "dies" else rig.dockerd.hang
                back = rig.dockerd.revive if trouble == "dies" else rig.dockerd.unhang
                rig.loop.call_later(0.0001, away)
                rig.loop.call_later(20, back)

        rig.before = before
        await rig.leader.assign(task("t1"))
        await rig.boot()
        await rig.reaches("t1", "running")
        await rig.leader.assign(task("t1", SHUTDOWN))
        await rig.reaches("t1", "shutdown")
        await rig.leader.drop("t1")
        await rig.until(lambda: not rig.dockerd.listed)
        assert rig.asked.count(action) <= 2
        assert not {"failed", "rejected"} & set(rig.leader.history["t1"])

    rig.run(scenario)


def test_an_engine_that_kills_its_containers_with_itself_is_told_of_truly() -> None:
    rig = Rig()

    async def scenario() -> None:
        await settled(rig, "t1")
        rig.dockerd.live_restore = False
        rig.dockerd.die()
        await asyncio.sleep(20)
        assert rig.leader.state("t1") == "running"
        rig.dockerd.revive()
        status = await rig.reaches("t1", "failed", 10)
        assert "137" in status.err

    rig.run(scenario)


def test_a_death_while_events_are_taken_up_again_is_seen_soon() -> None:
    rig = Rig()

    async def scenario() -> None:
        await settled(rig, "t1")
        rig.dockerd.die()
        await asyncio.sleep(3)
        listen = rig.dockerd.listen
        calls: list[float] = []

        def late_listen() -> object:
            """The container ends after the Engine was looked at, and just before it is listened to."""
            if rig.dockerd.up:
                calls.append(rig.loop.time())
                if len(calls) == 1:
                    raise rig.dockerd.absent()
                if len(calls) == 2:
                    rig.dockerd.finish(rig.of("t1")[0], 9)
            return listen()

        rig.dockerd.listen = late_listen  # type: ignore[method-assign,assignment]  # one moment is chosen
        rig.dockerd.revive()
        await rig.reaches("t1", "failed", 3)

    rig.run(scenario)


def test_lost_events_are_healed_by_looking_round() -> None:
    rig = Rig()

    async def scenario() -> None:
        await settled(rig, "t1", "t2")
        rig.dockerd.deaf = 1.0
        rig.dockerd.finish(rig.of("t1")[0], 1)
        rig.dockerd.delete(rig.of("t2")[0].id)
        await rig.reaches("t1", "failed", 15)
        await rig.reaches("t2", "failed", 15)

    rig.run(scenario)


# ------------------------------------------------------------ hands


@pytest.mark.parametrize(
    ("meddle", "sentence"),
    [
        (lambda rig, one: rig.dockerd.finish(one, 137), "non-zero exit (137)"),
        (lambda rig, one: rig.dockerd.finish(one, 137, oom=True), "out of memory"),
        (lambda rig, one: rig.dockerd.delete(one.id), "No such container"),
    ],
)
def test_a_container_ended_by_hand(meddle: Callable[[Rig, object], None], sentence: str) -> None:
    rig = Rig()

    async def scenario() -> None:
        await settled(rig, "t1")
        meddle(rig, rig.of("t1")[0])
        status = await rig.reaches("t1", "failed", 2)
        assert sentence in status.err
        await asyncio.sleep(60)
        assert len(rig.dockerd.starts) == 1, "what ended is not started again: that is for the managers"

    rig.run(scenario)


def test_a_container_started_again_by_hand_after_its_task_ended_is_stopped() -> None:
    rig = Rig()

    async def scenario() -> None:
        await settled(rig, "t1")
        rig.dockerd.finish(rig.of("t1")[0], 1)
        await rig.reaches("t1", "failed")
        rig.dockerd.begin(rig.of("t1")[0].id)
        await rig.until(lambda: rig.of("t1")[0].state == "exited", 5)
        assert rig.leader.history["t1"][-1] == "failed"

    rig.run(scenario)


# ------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("image", "sentence"),
    [("missing:1", "pull access denied for missing:1"), ("reg:1/unreachable:1", "connection refused")],
)
def test_an_image_that_cannot_be_pulled_rejects_the_task(image: str, sentence: str) -> None:
    rig = Rig()

    async def scenario() -> None:
        await rig.leader.assign(task("t1", image=image))
        await rig.boot()
        status = await rig.reaches("t1", "rejected")
        assert sentence in status.err
        assert rig.asked.count("pull") == 1
        assert rig.dockerd.listed == []

    rig.run(scenario)


def test_a_local_image_will_do_where_the_registry_is_away() -> None:
    rig = Rig()

    async def scenario() -> None:
        rig.dockerd.images.add("reg:1/unreachable:1")
        await rig.leader.assign(task("t1", image="reg:1/unreachable:1", auth="secret"))
        await rig.boot()
        await rig.reaches("t1", "running")
        assert rig.pulls == [("reg:1/unreachable:1", "secret")]

    rig.run(scenario)


def test_a_pinned_image_that_is_here_is_not_pulled() -> None:
    rig, image = Rig(), "web@sha256:" + "0" * 64

    async def scenario() -> None:
        rig.dockerd.images.add(image)
        await rig.leader.assign(task("t1", image=image))
        await rig.boot()
        await rig.reaches("t1", "running")
        assert rig.pulls == []

    rig.run(scenario)


def test_what_cannot_start_fails_with_the_engines_sentence() -> None:
    rig = Rig()

    async def scenario() -> None:
        await rig.leader.assign(task("t1", image="broken:1"))
        await rig.boot()
        status = await rig.reaches("t1", "failed")
        assert "OCI runtime create failed" in status.err
        assert rig.asked.count("start") == 1

    rig.run(scenario)


def test_a_container_that_an_earlier_request_made_is_adopted() -> None:
    """A create that was given up may be carried out later: the second meets a conflict with the first."""
    rig = Rig()

    async def scenario() -> None:
        def before(name: str) -> None:
            if name == "create":
                rig.before = lambda name: None
                rig.plant("t1", start=False)

        rig.before = before
        await rig.leader.assign(task("t1"))
        await rig.boot()
        await rig.reaches("t1", "running", 10)
        assert len(rig.of("t1")) == 1

    rig.run(scenario)


def test_a_strangers_container_of_the_same_name_rejects_the_task() -> None:
    rig = Rig()

    async def scenario() -> None:
        rig.plant("t1", cluster="")
        await rig.leader.assign(task("t1"))
        await rig.boot()
        status = await rig.reaches("t1", "rejected")
        assert "already in use" in status.err
        assert [one.state for one in rig.dockerd.listed] == ["running"]

    rig.run(scenario)


@pytest.mark.parametrize("action", ["pull", "create", "start"])
def test_a_defect_in_an_action_ends_the_task_and_nothing_else(action: str) -> None:
    rig = Rig()

    async def scenario() -> None:
        rig.before = lambda name: ZeroDivisionError("a defect") if name == action else None
        await rig.leader.assign(task("t1"))
        await rig.boot()
        await rig.until(lambda: rig.leader.state("t1") in ("rejected", "failed"), 10)
        assert "a defect" in rig.leader.statuses["t1"].err
        assert rig.asked.count(action) == 1
        rig.before = lambda name: None
        await settled(rig, "t2")
        assert rig.loop.problems, "and it is not kept quiet"
        rig.loop.problems.clear()

    rig.run(scenario)


def test_a_defect_in_looking_does_not_end_the_worker() -> None:
    rig = Rig()

    async def scenario() -> None:
        await settled(rig, "t1")
        rig.before = lambda name: ZeroDivisionError("a defect") if name == "containers" else None
        await rig.leader.assign(task("t2"))
        await asyncio.sleep(30)
        assert rig.leader.state("t1") == "running"
        rig.before = lambda name: None
        await rig.reaches("t2", "running", 10)
        assert rig.loop.problems
        rig.loop.problems.clear()

    rig.run(scenario)


def test_removals_that_fail_are_tried_until_they_succeed() -> None:
    rig = Rig()

    async def scenario() -> None:
        await settled(rig, "t1")
        rig.before = lambda name: EngineError("device or resource busy") if name == "remove" else None
        await rig.leader.drop("t1")
        await asyncio.sleep(30)
        assert 5 < rig.asked.count("remove") <= 61, "tried again, and not without pause"
        rig.before = lambda name: None
        await rig.until(lambda: not rig.dockerd.listed, 5)

    rig.run(scenario)


# ------------------------------------------------------------ a stop in between


@pytest.mark.parametrize("action", ["pull", "create", "start"])
@pytest.mark.parametrize("how", ["shutdown", "dropped"])
def test_a_stop_while_an_action_is_under_way(action: str, how: str) -> None:
    rig = Rig()

    async def scenario() -> None:
        rig.dockerd.pull_time = rig.dockerd.start_time = (5, 5)
        rig.dockerd.latency = (1, 1)
        await rig.leader.assign(task("t1"))
        await rig.boot()
        await rig.until(lambda: action in rig.asked)
        await asyncio.sleep(0.1)
        began = rig.loop.time()
        await (rig.leader.assign(task("t1", SHUTDOWN)) if how == "shutdown" else rig.leader.drop("t1"))
        if how == "shutdown":
            await rig.reaches("t1", "shutdown", 30)
        else:
            await rig.until(lambda: "t1" not in rig.agent._worker.tasks, 30)
            assert rig.dockerd.listed == []
        if action == "pull":
            assert rig.loop.time() - began < 4, "a pull that nobody wants is given up"
            await asyncio.sleep(30)
            assert rig.dockerd.images == set()
        await asyncio.sleep(30)
        assert rig.running() == set()

    rig.run(scenario)


# ------------------------------------------------------------ the memory's disk


def test_a_full_disk_stops_no_work_and_is_written_to_later(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()

    async def scenario() -> None:
        rig.platter.capacity = 0
        await settled(rig, "t1")
        assert journal.FILE not in rig.platter.live
        rig.platter.capacity = None
        await rig.until(lambda: journal.FILE in rig.platter.live, 15)
        await asyncio.sleep(1)
        rig.crash()
        rig.net.wall(["10.0.0.9"], ["10.0.0.1"])
        rig.dockerd.finish(rig.of("t1")[0], 3)
        await rig.boot()
        await rig.until(lambda: rig.agent._worker.tasks["t1"].status.state == TaskState.FAILED)

    rig.run(scenario)
    assert "memory cannot be saved" in caplog.text


def test_credentials_are_never_written() -> None:
    rig = Rig()

    async def scenario() -> None:
        await rig.leader.assign(task("t1", auth="hunter2"))
        await rig.boot()
        await rig.reaches("t1", "running")
        await asyncio.sleep(1)
        assert rig.pulls == [("web:1", "hunter2")]
        assert b"hunter2" not in bytes(rig.platter.live[journal.FILE].data)

    rig.run(scenario)


# ------------------------------------------------------------ leaving, and many


def test_wipe_leaves_nothing_of_the_cluster() -> None:
    rig = Rig()

    async def scenario() -> None:
        await settled(rig, "t1", "t2")
        rig.plant("theirs", cluster="another")
        await rig.loop.spawn(rig.process, rig.agent.wipe())
        assert [one.labels["com.docker.swarm.task.id"] for one in rig.dockerd.listed] == ["theirs"]
        await rig.loop.spawn(rig.process, rig.agent.stop())

    rig.run(scenario)


def test_many_tasks_with_few_at_a_time() -> None:
    rig = Rig()

    async def scenario() -> None:
        keys = [f"t{number:04}" for number in range(150)]
        await rig.leader.assign(*(task(key, image=f"web{key}:1") for key in keys))
        await rig.boot()
        await rig.until(lambda: all(rig.leader.state(key) == "running" for key in keys), 900)
        assert rig.asked.count("create") == len(keys), "a look that is older than an action decides nothing"
        assert rig.most["start"] <= 2
        assert rig.most["pull"] <= 3
        await rig.leader.drop(*keys)
        await rig.until(lambda: not rig.dockerd.listed, 900)

    rig.run(scenario)


# ------------------------------------------------------------ anything may happen in between

KEYS = ("a", "b", "c")
STEPS = st.one_of(
    st.tuples(st.just("assign"), st.sampled_from(KEYS), st.sampled_from(["web:1", "crash:1", "missing:1", "sick:1", "stubborn:1"])),
    st.tuples(st.just("shut"), st.sampled_from(KEYS), st.just("")),
    st.tuples(st.just("drop"), st.sampled_from(KEYS), st.just("")),
    st.tuples(st.just("kill"), st.sampled_from(KEYS), st.just("")),
    st.tuples(st.just("remove"), st.sampled_from(KEYS), st.just("")),
    st.tuples(st.sampled_from(["die", "revive", "hang", "unhang", "deaf", "crash", "cut", "plant"]), st.just(""), st.just("")),
)  # fmt: skip


async def step(rig: Rig, what: str, key: str, image: str, number: int) -> None:
    daemon, leader = rig.dockerd, rig.leader
    current = {one.partition("-")[0]: one for one in leader.want}
    match what:
        case "assign" if key not in current:
            await leader.assign(task(f"{key}-{number}", image=image))
        case "shut" if key in current:
            await leader.assign(task(current[key], SHUTDOWN))
        case "drop" if key in current:
            await leader.drop(current[key])
        case "kill" if key in current:
            for one in rig.of(current[key]):
                if one.state == "running":
                    daemon.finish(one, 9)
        case "remove" if key in current:
            for one in rig.of(current[key]):
                daemon.delete(one.id)
        case "die" if daemon.up:
            daemon.die()
        case "revive" if not daemon.up:
            daemon.revive()
        case "hang":
            daemon.hang()
        case "unhang":
            daemon.unhang()
        case "deaf":
            daemon.deaf = 0.7
        case "crash":
            rig.crash()
            await rig.boot()
        case "cut":
            rig.net.reset("10.0.0.1", "10.0.0.9")
        case "plant":
            rig.plant(f"orphan{number}", name=f"orphan{number}")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(STEPS, st.floats(0, 3)), max_size=14))
def test_whatever_happens_containers_become_what_is_wanted(
    steps: list[tuple[tuple[str, str, str], float]],
) -> None:
    rig = Rig()

    async def scenario() -> None:
        await rig.boot()
        for number, ((what, key, image), pause) in enumerate(steps):
            await step(rig, what, key, image, number)
            await asyncio.sleep(pause)
        rig.dockerd.heal()
        await rig.until(lambda: right(rig), 120)
        await asyncio.sleep(30)
        assert right(rig)
        starts: dict[str, int] = {}
        for _, _, labels in rig.dockerd.starts:
            owner = labels["com.docker.swarm.task.id"]
            starts[owner] = starts.get(owner, 0) + 1
        assert max(starts.values(), default=0) <= 1, "no task is started twice"
        for states in rig.leader.history.values():
            ends = [state for state in states if TaskState[state.upper()] in TERMINAL]
            assert len(set(ends)) <= 1, "an end is the end"

    rig.run(scenario)


def right(rig: Rig) -> bool:
    """Running are the wanted tasks that have not ended; nothing is left of tasks that are gone; all is told."""
    ended = {key for key, status in rig.leader.statuses.items() if status.state in TERMINAL}
    wanted = {key for key, one in rig.leader.want.items() if one.desired == TaskState.RUNNING} - ended
    present = {one.labels["com.docker.swarm.task.id"] for one in rig.dockerd.listed}
    told = all(rig.leader.state(key) for key in rig.leader.want)
    shut = {key for key, one in rig.leader.want.items() if one.desired == SHUTDOWN}
    return told and rig.running() == wanted and present <= set(rig.leader.want) and shut <= ended


def test_looks_leave_time_for_the_rest() -> None:
    """Each start wants looks, and each look costs as much as there are containers: that 40 tasks start is no reason
    to look at them all the time."""
    rig = Rig()
    keys = [f"t{number:02}" for number in range(40)]

    async def scenario() -> None:
        await settled(rig, "first")
        rig.dockerd.latency = (0.05, 0.05)
        rig.asked.clear()
        began = rig.loop.time()
        await rig.leader.assign(*map(task, keys))
        await rig.until(lambda: rig.running() >= {*keys})
        passed = rig.loop.time() - began
        looks = rig.asked.count("containers") * 0.05
        assert passed / 10 < looks < passed / 2

    rig.run(scenario)
