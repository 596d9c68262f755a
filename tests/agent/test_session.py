"""The agent's end of its session: finding the leader, being sure that what it says arrives, leaving."""

from __future__ import annotations

import asyncio

import pytest

from swarmpy.agent.session import Session
from swarmpy.model import messages as m
from swarmpy.model.lifecycle import TaskState
from swarmpy.model.objects import Description, TaskStatus
from swarmpy.ports import Body, Peer, RefusedError, WireError
from swarmpy.sim.clock import SimEntropy
from swarmpy.sim.net import Conditions
from tests.agent.rig import HOSTS, Rig, task


async def settled(rig: Rig) -> None:
    await rig.leader.assign(task("t1"))
    await rig.boot()
    await rig.reaches("t1", "running")


# ------------------------------------------------------------ finding the leader


def test_a_follower_points_to_the_leader() -> None:
    rig = Rig()

    async def scenario() -> None:
        rig.leader.refusal = RefusedError("NotLeader", "not the leader", {"leader": rig.second.address})
        await rig.second.assign(task("t1"))
        await rig.boot()
        await rig.until(lambda: rig.second.state("t1") == "running")

    rig.run(scenario)


def test_two_managers_that_point_at_each_other_are_asked_with_pauses() -> None:
    rig = Rig()

    async def scenario() -> None:
        asked: list[float] = []

        async def serve(leader: object, other: str) -> None:
            asked.append(rig.loop.time())
            raise RefusedError("NotLeader", "not the leader", {"leader": other})

        rig.leader.wire.on_channel("session", lambda channel, hello: serve(rig.leader, rig.second.address))
        rig.second.wire.on_channel("session", lambda channel, hello: serve(rig.second, rig.leader.address))
        await rig.boot()
        await asyncio.sleep(60)
        assert 20 < len(asked) < 200

    rig.run(scenario)


def test_a_silent_leader_is_left_for_another() -> None:
    rig = Rig()

    async def scenario() -> None:
        rig.leader.managers = (m.Manager("m1", rig.leader.address), m.Manager("m2", rig.second.address))
        await settled(rig)
        rig.leader.mute = True
        await rig.second.assign(task("t1"))
        await rig.until(lambda: rig.second.state("t1") == "running", 30)
        assert len(rig.dockerd.starts) == 1

    rig.run(scenario)


def test_managers_outlive_a_restart_of_the_agent() -> None:
    """The manager that it joined through is gone; the others were learned, and remembered."""
    rig = Rig()

    async def scenario() -> None:
        rig.leader.managers = (m.Manager("m2", rig.second.address),)
        await settled(rig)
        await asyncio.sleep(1)
        rig.crash()
        await rig.leader.wire.stop()
        await rig.second.assign(task("t1"))
        await rig.boot()
        await rig.until(lambda: rig.second.state("t1") == "running")

    rig.run(scenario)


def test_an_empty_list_of_managers_forgets_none() -> None:
    rig = Rig()

    async def scenario() -> None:
        await settled(rig)
        await rig.leader.send(m.Cluster(node_role="worker", managers=()))
        await asyncio.sleep(1)
        assert rig.agent.managers == [("m1", rig.leader.address)]
        rig.net.reset(HOSTS[0], "10.0.0.9")
        await rig.until(lambda: len(rig.leader.hellos) == 2)

    rig.run(scenario)


def test_a_cluster_message_brings_new_managers() -> None:
    rig = Rig()

    async def scenario() -> None:
        await settled(rig)
        await rig.leader.send(m.Cluster(node_role="worker", managers=(m.Manager("m2", rig.second.address),)))
        await asyncio.sleep(1)
        await rig.leader.wire.stop()
        await rig.until(lambda: len(rig.second.hellos) == 1)

    rig.run(scenario)


# ------------------------------------------------------------ assignments


def test_a_gap_in_the_numbers_means_a_fresh_session() -> None:
    rig = Rig()

    async def scenario() -> None:
        await settled(rig)
        rig.leader.want["t2"] = task("t2")
        await rig.leader.send(m.Assignments(seq=rig.leader.seq + 2, full=False, tasks=(task("t3"),)))
        await rig.reaches("t2", "running")
        assert len(rig.leader.hellos) == 2
        await asyncio.sleep(10)
        assert rig.of("t3") == [], "what came after a gap is not taken over"

    rig.run(scenario)


def test_an_assignment_that_comes_twice_means_a_fresh_session() -> None:
    rig = Rig()

    async def scenario() -> None:
        await settled(rig)
        await rig.leader.send(m.Assignments(seq=rig.leader.seq, full=True, tasks=()))
        await rig.until(lambda: len(rig.leader.hellos) == 2)
        await asyncio.sleep(10)
        assert rig.running() == {"t1"}

    rig.run(scenario)


def test_a_message_that_is_none_ends_the_session_and_not_the_agent() -> None:
    rig = Rig()

    async def scenario() -> None:
        await settled(rig)
        assert rig.leader.channel is not None
        await rig.leader.channel.send({"type": "assignments", "seq": "two"})
        await rig.until(lambda: len(rig.leader.hellos) == 2)
        await rig.leader.assign(task("t2"))
        await rig.reaches("t2", "running")

    rig.run(scenario)


# ------------------------------------------------------------ statuses


def test_statuses_are_sent_until_they_are_acknowledged() -> None:
    rig = Rig()

    async def scenario() -> None:
        await settled(rig)
        rig.leader.acknowledging = False
        rig.dockerd.finish(rig.of("t1")[0], 3)
        await asyncio.sleep(1)
        sent = len(rig.leader.batches)
        await asyncio.sleep(30)
        assert len(rig.leader.batches) == sent, "on one session a status is sent once"
        assert rig.leader.state("t1") == "running"
        rig.net.reset(HOSTS[0], "10.0.0.9")
        rig.leader.acknowledging = True
        await rig.reaches("t1", "failed", 5)

    rig.run(scenario)


def test_a_status_survives_the_crash_of_the_agent_before_its_acknowledgement() -> None:
    rig = Rig()

    async def scenario() -> None:
        await settled(rig)
        rig.leader.acknowledging = False
        rig.dockerd.finish(rig.of("t1")[0], 3)
        await asyncio.sleep(1)
        rig.crash()
        rig.dockerd.delete(rig.of("t1")[0].id)
        rig.leader.acknowledging = True
        await rig.boot()
        status = await rig.reaches("t1", "failed", 10)
        assert "non-zero exit (3)" in status.err, "it is remembered, though its container is gone"

    rig.run(scenario)


@pytest.mark.parametrize("number", [0, -1, 10_000])
def test_acknowledgements_of_nothing_are_harmless(number: int) -> None:
    rig = Rig()

    async def scenario() -> None:
        await settled(rig)
        rig.leader.acknowledging = False
        rig.dockerd.finish(rig.of("t1")[0], 3)
        await asyncio.sleep(1)
        await rig.leader.send(m.Acknowledged(number=number))
        await rig.leader.send(m.Acknowledged(number=rig.leader.batches[0].number))
        await asyncio.sleep(1)
        rig.leader.acknowledging = True
        rig.net.reset(HOSTS[0], "10.0.0.9")
        await rig.reaches("t1", "failed", 5)

    rig.run(scenario)


def test_statuses_of_many_tasks_go_together() -> None:
    rig = Rig()

    async def scenario() -> None:
        await rig.leader.assign(*(task(f"t{number}", image="missing:1") for number in range(50)))
        await rig.boot()
        await rig.until(lambda: all(rig.leader.state(f"t{number}") == "rejected" for number in range(50)))
        assert len(rig.leader.batches) < 60
        assert max(len(batch.items) for batch in rig.leader.batches) >= 40

    rig.run(scenario)


def test_a_slow_network_orders_and_loses_nothing() -> None:
    rig = Rig()

    async def scenario() -> None:
        rig.net.usual = Conditions(latency=(0.01, 0.6), loss=0.2)
        await rig.leader.assign(task("t1"), task("t2", image="crash:1"))
        await rig.boot()
        await rig.reaches("t1", "running")
        await rig.reaches("t2", "failed")
        order = [TaskState[state.upper()] for state in rig.leader.history["t2"]]
        assert order == sorted(order)

    rig.run(scenario)


class Picky:
    """A channel that refuses to carry statuses, as a real one does whose message would be too large."""

    peer = Peer("m1", "manager", "c", "1")

    def __init__(self) -> None:
        self.inbox: asyncio.Queue[Body | None] = asyncio.Queue()
        self.inbox.put_nowait(m.to_body(m.Welcome(beat_seconds=1.0, node_role="worker", managers=())))
        self.closed = False

    async def send(self, body: Body) -> None:
        if body["type"] == "statuses":
            raise WireError("the message is too large")
        self.inbox.put_nowait(m.to_body(m.Acknowledged(number=0)))

    async def recv(self) -> Body:
        body = await self.inbox.get()
        if body is None:
            raise WireError("closed")
        return body

    async def close(self) -> None:
        self.closed = True
        self.inbox.put_nowait(None)


def test_a_session_that_cannot_report_does_not_go_on_beating() -> None:
    rig = Rig()

    async def scenario() -> None:
        opened: list[Picky] = []

        class OneWire:
            async def open(self, *args: object, **more: object) -> Picky:
                opened.append(Picky())
                return opened[-1]

        session = Session(
            "n1", OneWire(), SimEntropy("s"), [("m1", "10.0.0.1:2377")], "", Description,  # type: ignore[arg-type]  # what the session uses of it
            lambda message: None, lambda: [("t1", TaskStatus(state=TaskState.RUNNING))],
        )  # fmt: skip
        running = asyncio.create_task(session.run())
        await asyncio.sleep(10)
        assert opened[0].closed
        assert len(opened) > 1
        running.cancel()

    rig.run(scenario)


# ------------------------------------------------------------ leaving


@pytest.mark.parametrize("how", ["goodbye", "unknown", "revoked"])
def test_a_removed_node_is_told_once(how: str) -> None:
    rig = Rig()

    async def scenario() -> None:
        await settled(rig)
        if how == "goodbye":
            await rig.leader.send(m.Goodbye(reason="the node was removed", removed=True))
        else:
            refusals = {
                "unknown": RefusedError("NotFound", "node n1 is not a member"),
                "revoked": RefusedError("PermissionDenied", "revoked", {"reason": "revoked"}),
            }
            rig.leader.refusal = refusals[how]
            rig.net.reset(HOSTS[0], "10.0.0.9")
        await rig.until(lambda: rig.removed == [1], 10)
        hellos = len(rig.leader.hellos)
        await asyncio.sleep(30)
        assert rig.removed == [1]
        assert len(rig.leader.hellos) == hellos
        assert rig.running() == {"t1"}, "whether containers go is for the node to say"

    rig.run(scenario)


def test_a_plain_goodbye_means_come_back() -> None:
    rig = Rig()

    async def scenario() -> None:
        await settled(rig)
        await rig.leader.send(m.Goodbye(reason="the leader stops"))
        await rig.until(lambda: len(rig.leader.hellos) == 2, 5)
        assert rig.removed == []

    rig.run(scenario)


def test_other_refusals_are_not_a_removal() -> None:
    rig = Rig()

    async def scenario() -> None:
        for code in ("Unavailable", "PermissionDenied", "Internal"):
            rig.leader.refusal = RefusedError(code, "not now")
            if not rig.lives:
                await rig.boot()
            await asyncio.sleep(10)
        assert rig.removed == []
        rig.leader.refusal = None
        await rig.until(lambda: len(rig.leader.hellos) == 1, 5)

    rig.run(scenario)


def test_a_new_description_is_told() -> None:
    rig = Rig()

    async def scenario() -> None:
        await settled(rig)
        heard: list[m.Up] = []
        rig.net.tap = lambda source, target, body: (
            heard.append(body) if body.get("type") == "describe" else None
        )
        rig.dockerd.memory = 1 << 30
        await asyncio.sleep(45)
        (body,) = heard
        assert m.up_from(body).description.memory_bytes == 1 << 30  # type: ignore[union-attr,arg-type]  # a Describe

    rig.run(scenario)


def test_an_engine_that_was_asked_just_now_is_not_waited_for() -> None:
    rig = Rig()

    async def scenario() -> None:
        rig.dockerd.hang()
        await rig.boot({"Name": "asked", "OSType": "linux", "MemTotal": 1 << 30})
        await rig.until(lambda: rig.leader.hellos, 1.0)
        said = rig.leader.hellos[0].description
        assert (said.hostname, said.os, said.memory_bytes) == ("asked", "linux", 1 << 30)

    rig.run(scenario)


def troubles(rig: Rig) -> list[str]:
    """What the node says of its Engine from now on, each time that it describes itself."""
    heard: list[str] = []
    rig.net.tap = lambda source, target, body: (
        heard.append(body["description"]["trouble"]) if body.get("type") == "describe" else None
    )
    return heard


@pytest.mark.parametrize("trouble", ["dies", "hangs"])
def test_a_node_whose_engine_went_says_so_until_it_is_back(trouble: str) -> None:
    rig = Rig()

    async def scenario() -> None:
        await settled(rig)
        heard = troubles(rig)
        rig.dockerd.die() if trouble == "dies" else rig.dockerd.hang()
        await rig.until(lambda: len(heard) == 1, 30)
        assert ("does not answer" if trouble == "dies" else "has not answered for 15 seconds") in heard[0]
        rig.dockerd.revive() if trouble == "dies" else rig.dockerd.unhang()
        await rig.until(lambda: len(heard) == 2, 20)
        assert heard[1] == ""

    rig.run(scenario)


def test_an_engine_that_tells_what_it_is_but_not_what_it_runs_is_in_trouble_all_the_same() -> None:
    """One container that is stuck in it is enough for that."""
    rig = Rig()

    async def scenario() -> None:
        await settled(rig)
        heard = troubles(rig)
        rig.stuck = asyncio.Event()
        await rig.until(lambda: len(heard) == 1, 30)
        rig.dockerd.memory += 1 << 20  # news that are to be told, of another kind
        await rig.until(lambda: len(heard) == 2, 60)
        assert heard[1] == heard[0] != ""
        rig.stuck.set()
        await rig.until(lambda: heard[-1] == "", 20)

    rig.run(scenario)


# ------------------------------------------------------------ logs


def wanted(rig: Rig, number: str, *tasks: str, **more: bool) -> m.LogsWanted:
    return m.LogsWanted(subscription=number, address=rig.leader.address, tasks=tasks, **more)  # type: ignore[arg-type]  # flags


def test_logs_are_sent_and_ended() -> None:
    rig = Rig()

    async def scenario() -> None:
        await settled(rig)
        await rig.leader.send(wanted(rig, "s1", "t1", "unknown"))
        await rig.until(lambda: {"end": True} in rig.leader.logs, 5)
        assert rig.leader.logs[0] == {"subscription": "s1"}
        lines = [body["data"] for body in rig.leader.logs if "data" in body]
        assert lines == [b"hello from web.1.t1\n"]

    rig.run(scenario)


def test_followed_logs_end_with_the_container_and_with_the_reader() -> None:
    rig = Rig()

    async def scenario() -> None:
        await settled(rig)
        await rig.leader.send(wanted(rig, "s1", "t1", follow=True))
        await rig.leader.send(wanted(rig, "s1", "t1", follow=True))
        await rig.leader.send(wanted(rig, "s2", "t1", follow=True))
        await rig.until(lambda: len([body for body in rig.leader.logs if "data" in body]) == 2, 5)
        assert {"end": True} not in rig.leader.logs
        await rig.leader.send(m.LogsDone(subscription="s1"))
        await rig.leader.send(m.LogsDone(subscription="never"))
        await rig.until(lambda: list(rig.agent._logs._running) == ["s2"], 5)
        rig.dockerd.finish(rig.of("t1")[0], 0)
        await rig.until(lambda: {"end": True} in rig.leader.logs, 5)
        assert rig.agent._logs._running == {}

    rig.run(scenario)


@pytest.mark.parametrize("trouble", ["engine", "reader", "address"])
def test_logs_that_break_leave_nothing(trouble: str) -> None:
    rig = Rig()

    async def scenario() -> None:
        await settled(rig)
        if trouble == "address":
            await rig.leader.send(
                m.LogsWanted(subscription="s1", address="10.0.0.1:1", tasks=("t1",), follow=True)
            )
            await asyncio.sleep(0.1)
        else:
            await rig.leader.send(wanted(rig, "s1", "t1", follow=True))
            await rig.until(lambda: len(rig.leader.logs) == 2, 5)
        if trouble == "engine":
            rig.dockerd.die()
            rig.loop.call_later(2, rig.dockerd.revive)
        if trouble == "reader":
            rig.net.reset(HOSTS[0], "10.0.0.9")
            rig.dockerd.containers[rig.of("t1")[0].id].print(rig.clock.now(), "stdout", "one more")
        await rig.until(lambda: rig.agent._logs._running == {}, 10)
        await rig.leader.assign(task("t2"))
        await rig.reaches("t2", "running")

    rig.run(scenario)
