"""Machines that answer nothing, in virtual time: every call ends in time, and logs name who is missing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from swarmpy.manager import control as manager_control
from swarmpy.manager import logs as manager_logs
from swarmpy.manager.control import ManagerControl
from swarmpy.manager.doctor import NetDoctor
from swarmpy.manager.logs import LogBroker
from swarmpy.manager.sessions import Session
from swarmpy.manager.store import Store
from swarmpy.manager.writer import Writer
from swarmpy.model.errors import Ambiguous, Unavailable
from swarmpy.model.objects import Task
from swarmpy.ports import Body, LogQuery, NoQuorumError, Peer, RefusedError, TaskLogFrame, WireError
from swarmpy.sim.loop import SimLoop
from swarmpy.state.changes import Put
from tests.manager.fakes import Pipe, pipe
from tests.manager.test_control import COMMAND, DONE, Dice, FollowerLog
from tests.manager.test_writer import StepClock

READER = Peer("m1", "manager", "c", "1")
EVER = 10_000.0


def in_virtual_time(work: Callable[[], Awaitable[None]]) -> float:
    """Run it; how many virtual seconds it took."""
    loop = SimLoop()
    try:
        began = loop.time()
        loop.run_until_complete(work())
        return loop.time() - began
    finally:
        loop.close()


class BlackHole:
    """The wire to a machine whose power is gone: nothing comes back, not even a reset."""

    async def call(self, address: str, method: str, body: Body, *, timeout: float = 5.0) -> Body:
        try:
            async with asyncio.timeout(timeout):
                await asyncio.sleep(EVER)
        except TimeoutError:
            raise WireError(f"{address} did not answer within {timeout:g} s") from None
        raise AssertionError("unreachable")


class DeafLog(FollowerLog):
    """Believes in its leader for ever."""

    applies = True

    async def wait_status(self, seen):  # type: ignore[no-untyped-def]
        await asyncio.sleep(EVER)

    async def wait_applied(self, index: int, *, timeout: float = 5.0) -> None:
        if not self.applies:
            await asyncio.sleep(timeout)
            raise NoQuorumError("cut off")


def control_over(wire: object, *, applies: bool = True) -> ManagerControl:
    store = Store()
    log = DeafLog(store)
    log.applies = applies
    doctor = NetDoctor(
        Dice(), "m1:2377", lambda method, body: wire.call("m2:2377", method, body), lambda _: None
    )  # type: ignore[arg-type, return-value]  # nobody is told
    broker = LogBroker(store, Dice(), "m1:2377", lambda method, body: wire.call("m2:2377", method, body))  # type: ignore[attr-defined]
    return ManagerControl(log, store, Writer(log, store, StepClock()), wire, Dice(), broker, doctor)  # type: ignore[arg-type]


@pytest.mark.parametrize("call", ["world", "managers"])
def test_reads_through_a_silent_leader_end(call: str) -> None:
    async def read() -> None:
        with pytest.raises(Unavailable, match="does not have a leader"):
            await getattr(control_over(BlackHole()), call)()

    assert in_virtual_time(read) <= manager_control.DEADLINE


def test_a_write_through_a_silent_leader_ends_as_unknown() -> None:
    async def write() -> None:
        with pytest.raises(Ambiguous, match="outcome is unknown"):
            await control_over(BlackHole()).submit(COMMAND)

    assert in_virtual_time(write) <= manager_control.DEADLINE


def test_a_read_that_never_arrives_here_ends() -> None:
    class Wire:
        async def call(self, address: str, method: str, body: Body, *, timeout: float = 5.0) -> Body:
            return {"index": 9}

    async def read() -> None:
        with pytest.raises(Unavailable, match="lags behind"):
            await control_over(Wire(), applies=False).world()

    assert in_virtual_time(read) <= manager_control.DEADLINE


def test_a_write_that_is_carried_out_is_no_failure_though_this_manager_is_cut_off() -> None:
    class Wire:
        async def call(self, address: str, method: str, body: Body, *, timeout: float = 5.0) -> Body:
            return DONE

    async def write() -> None:
        assert (await control_over(Wire(), applies=False).submit(COMMAND)).id == "s"

    assert in_virtual_time(write) <= manager_control.DEADLINE


# ------------------------------------------------------------ logs


def placed(*nodes: str) -> Store:
    """A world with a task per node, named after it."""
    store = Store()
    tasks = [Put(Task(id=f"t-{node}", service_id="s", service_name="web", node_id=node)) for node in nodes]
    store.world = store.world.evolve(tasks, 1, 1)
    return store


async def gathered(broker: LogBroker, *nodes: str) -> list[TaskLogFrame]:
    tasks = tuple(f"t-{node}" for node in nodes)
    return [frame async for frame in broker.read(tasks, LogQuery(stdout=True, stderr=True))]


def problems(frames: list[TaskLogFrame]) -> list[str]:
    return sorted(frame.problem for frame in frames if frame.problem)


def test_logs_through_a_silent_leader_end_and_name_every_node() -> None:
    async def read() -> None:
        hole = BlackHole()
        broker = LogBroker(placed("a", "b"), Dice(), "m1:2377", lambda how, body: hole.call("m2", how, body))
        frames = await gathered(broker, "a", "b")
        assert problems(frames) == ["node a is not available", "node b is not available"]

    assert in_virtual_time(read) <= 2 * manager_logs.ANSWER


def test_logs_wait_for_the_next_leader() -> None:
    async def read() -> None:
        answers: list[Body | Exception] = [
            WireError("gone"),
            RefusedError("NotLeader", "no"),
            {"missing": ["a"]},
            {},
        ]

        async def call(method: str, body: Body) -> Body:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        frames = await gathered(LogBroker(placed("a"), Dice(), "m1:2377", call), "a")
        assert problems(frames) == ["node a is not available"]
        assert len(answers) <= 1

    assert in_virtual_time(read) < 2


class Stuck(Pipe):
    """A session to a machine that takes nothing any more, and whose end nobody has noticed yet."""

    async def send(self, body: Body) -> None:
        await asyncio.sleep(EVER)


def test_silent_nodes_do_not_hold_the_others_logs_up() -> None:
    async def read() -> None:
        store = placed("a", "b", "c", "d")
        broker = LogBroker(store, Dice(), "m1:2377", lambda how, body: broker.serve_subscribe(READER, body))
        far = {node: Peer(node, "worker", "c", "2") for node in "abcd"}
        near_end, leaders_end = pipe(far["d"], READER)
        held = {node: Session(node, Stuck(far[node]), 0.0) for node in "abc"}  # type: ignore[arg-type]
        held["d"] = Session("d", leaders_end, 0.0)  # type: ignore[arg-type]
        broker.sessions = lambda: held

        async def agent() -> None:
            asked = await near_end.recv()
            mine, readers = pipe(far["d"], READER)
            serving = asyncio.ensure_future(
                broker.serve_publish(readers, {"subscription": asked["subscription"]})
            )
            await mine.send({"task": "t-d", "stream": "stdout", "time": "", "data": b"hello\n"})
            await mine.send({"end": True})
            await mine.close()
            await serving

        working = asyncio.ensure_future(agent())
        frames = await gathered(broker, "a", "b", "c", "d")
        await working
        assert problems(frames) == [f"node {node} is not available" for node in "abc"]
        assert [frame.data for frame in frames if frame.data] == [b"hello\n"]
        for job in list(broker._background):
            job.cancel()

    assert in_virtual_time(read) <= manager_logs.TELL + 1


@pytest.mark.parametrize("says_end", [True, False])
def test_a_node_that_breaks_off_is_named(says_end: bool) -> None:
    async def read() -> None:
        asked: asyncio.Queue[Body] = asyncio.Queue()

        async def call(method: str, body: Body) -> Body:
            if "subscription" in body:
                asked.put_nowait(body)
            return {"missing": []}

        broker = LogBroker(placed("a"), Dice(), "m1:2377", call)
        reading = asyncio.ensure_future(gathered(broker, "a"))
        body = await asked.get()
        mine, readers = pipe(Peer("a", "worker", "c", "2"), READER)
        serving = asyncio.ensure_future(broker.serve_publish(readers, {"subscription": body["subscription"]}))
        await mine.send({"task": "t-a", "stream": "stdout", "time": "", "data": b"half"})
        if says_end:
            await mine.send({"end": True})
        await mine.close()
        frames = await reading
        await serving
        assert frames[0].data == b"half"
        assert problems(frames) == ([] if says_end else ["node a is not available"])

    assert in_virtual_time(read) < 2
