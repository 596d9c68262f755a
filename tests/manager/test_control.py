"""The control plane on a follower: reads by index, writes carried to the leader, retried safely."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from swarmpy.manager.control import ManagerControl
from swarmpy.manager.doctor import NetDoctor
from swarmpy.manager.logs import LogBroker
from swarmpy.manager.store import Store
from swarmpy.manager.writer import Writer
from swarmpy.model import codec
from swarmpy.model.commands import AnyCommand, CreateService, Result, decode_command
from swarmpy.model.errors import AlreadyExists, Ambiguous, Unavailable
from swarmpy.ports import (
    Body,
    LogRole,
    LogStatus,
    ManagersView,
    Member,
    NoQuorumError,
    RefusedError,
    WireError,
)
from tests.manager.fakes import LocalLog
from tests.manager.test_writer import StepClock

COMMAND = CreateService(id="s", spec="{}")


class FollowerLog(LocalLog):
    """Never leads, knows who does."""

    def status(self) -> LogStatus:
        members = (Member("m1", "m1:2377"), Member("m2", "m2:2377"))
        return LogStatus(LogRole.FOLLOWER, 1, "m2", 9, 9, members)

    async def wait_applied(self, index: int, *, timeout: float = 5.0) -> None:
        assert index == 9


class LeaderWire:
    """The wire as the follower uses it: each call is answered by the next of `answers`."""

    def __init__(self, *answers: Body | Exception) -> None:
        self.answers = list(answers)
        self.commands: list[AnyCommand] = []

    async def call(self, address: str, method: str, body: Body, *, timeout: float = 5.0) -> Body:
        assert address == "m2:2377"
        if "command" in body:
            self.commands.append(decode_command(body["command"]))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


class Dice:
    """Entropy that counts."""

    def __init__(self) -> None:
        self.count = 0

    def token(self, size: int) -> bytes:
        self.count += 1
        return self.count.to_bytes(size, "big")

    def uniform(self, low: float, high: float) -> float:
        return low


def follower(wire: LeaderWire) -> ManagerControl:
    store = Store()
    log = FollowerLog(store)
    doctor = NetDoctor(
        Dice(), "m1:2377", lambda method, body: wire.call("m2:2377", method, body), lambda _: None
    )  # type: ignore[arg-type, return-value]  # nobody is told
    broker = LogBroker(store, Dice(), "m1:2377", lambda method, body: wire.call("m2:2377", method, body))
    return ManagerControl(log, store, Writer(log, store, StepClock()), wire, Dice(), broker, doctor)  # type: ignore[arg-type]  # only calls are made


DONE = {"result": codec.encode(Result(id="s", index=9))}


async def test_a_read_asks_the_leader_how_far_to_apply() -> None:
    assert (await follower(LeaderWire({"index": 9})).world()).version == 0


async def test_the_world_and_the_managers_are_one_question() -> None:
    told = {"index": 9, "leader": "m2", "reachable": ["m2", "m3"]}
    world, managers = await follower(LeaderWire(told)).world_and_managers()
    assert world.version == 0
    assert managers == ManagersView("m2", frozenset({"m2", "m3"}))
    # A leader of an older version tells the index only.
    _, managers = await follower(LeaderWire({"index": 9}, told)).world_and_managers()
    assert managers == ManagersView("m2", frozenset({"m2", "m3"}))


@pytest.mark.parametrize(
    "trouble",
    [
        RefusedError("NotLeader", "this manager is not the leader", {"leader": ""}),
        RefusedError("Unavailable", "the leader has too much to do"),
        RefusedError("Ambiguous", "the leader changed"),
        WireError("broken"),
    ],
)
async def test_a_write_is_retried_under_one_request_id(trouble: Exception) -> None:
    wire = LeaderWire(trouble, DONE)
    assert (await follower(wire).submit(COMMAND)).id == "s"
    assert len({command.request_id for command in wire.commands}) == 1
    assert len(wire.commands) == 2


async def test_a_refusal_for_good_is_not_retried() -> None:
    wire = LeaderWire(RefusedError("AlreadyExists", "name conflicts"), DONE)
    with pytest.raises(AlreadyExists, match="name conflicts"):
        await follower(wire).submit(COMMAND)
    assert len(wire.commands) == 1


async def quickly(monkeypatch: pytest.MonkeyPatch, call: Callable[[], object]) -> None:
    monkeypatch.setattr("swarmpy.manager.control.PATIENCE", 0.2)
    async with asyncio.timeout(5):
        await call()  # type: ignore[misc]  # a coroutine function


async def test_a_lost_answer_is_reported_as_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    control = follower(LeaderWire(WireError("broken")))
    with pytest.raises(Ambiguous, match="outcome is unknown"):
        await quickly(monkeypatch, lambda: control.submit(COMMAND))


async def test_without_a_leader_reads_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    control = follower(LeaderWire(WireError("broken")))
    with pytest.raises(Unavailable, match="does not have a leader"):
        await quickly(monkeypatch, control.world)


async def test_who_waits_hears_at_once_why_this_managers_log_stops() -> None:
    """A full disk, say: `info` waited ten seconds for what needs somebody to make room."""
    why = "the log of this manager is stopped because its disk is full"

    class FailingLog(FollowerLog):
        async def wait_applied(self, index: int, *, timeout: float = 5.0) -> None:
            self.failure = why
            raise NoQuorumError(why)

    control = follower(LeaderWire({"index": 9}))
    control._log = FailingLog(Store())
    async with asyncio.timeout(5):
        with pytest.raises(Unavailable, match="its disk is full"):
            await control.world()
