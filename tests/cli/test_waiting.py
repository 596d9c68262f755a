"""Waiting for services: progress lines, pauses, interruption; and following logs."""

from __future__ import annotations

import copy
import io
import signal
import struct
import threading
import time

import pytest

from swarmpy.cli.client import Client
from swarmpy.cli.logs import frames, since_seconds
from swarmpy.cli.progress import Screen, Watch, bar, shortened
from swarmpy.cli.tables import CommandError
from tests.cli.conftest import Run, start
from tests.cli.fake_swarm_daemon import NODE_M, FakeDaemon

QUICK = ("--update-monitor", "10ms", "--no-resolve-image")


def unrepeated(text: str) -> list[str]:
    """Lines that say something new of their subject: docker writes some again though nothing changed."""
    said: dict[str, str] = {}
    news = []
    for line in text.splitlines():
        subject = line.partition(":")[0]
        if said.get(subject) != line:
            news.append(line)
        said[subject] = line
    return news


@pytest.mark.parametrize("flags", [("--replicas", "2"), ("--mode", "global"), ("--replicas", "21"),
                                   ("--replicas", "0"), ("--quiet", "--replicas", "1")])  # fmt: skip
def test_create_shows_the_same_progress(
    flags: tuple[str, ...], daemon: FakeDaemon, swarmpy: Run, docker: Run
) -> None:
    shown = []
    for run in (docker, swarmpy):
        daemon.cluster.services.clear()
        daemon.cluster.tasks.clear()
        daemon.cluster.index = 100
        done = run("service", "create", *QUICK, *flags, "nginx:1")
        shown.append((done.code, unrepeated(done.out), done.err))
    assert shown[1] == shown[0]


STATUSES = [
    {"State": "paused", "Message": "update paused due to failure"},
    {"State": "rollback_paused", "Message": "rollback paused"},
    {"State": "rollback_completed", "Message": "rollback completed"},
    {"State": "rollback_started", "Message": "rolling back"},
    {"State": "completed", "Message": "update completed"},
]


@pytest.mark.parametrize("status", STATUSES, ids=lambda status: status["State"])
def test_update_status_ends_the_wait_as_docker(status: dict[str, str], daemon: FakeDaemon, swarmpy: Run,
                                               docker: Run) -> None:  # fmt: skip
    shown = []
    for run in (docker, swarmpy):
        daemon.cluster.services.clear()
        daemon.cluster.tasks.clear()
        service = daemon.cluster.create({
            "Name": "a", "TaskTemplate": {"ContainerSpec": {"Image": "nginx:1"}},
            "Mode": {"Replicated": {"Replicas": 1}}, "UpdateConfig": {"Monitor": 10000000}})  # fmt: skip
        daemon.cluster.services[service["ID"]]["UpdateStatus"] = copy.deepcopy(status)
        done = run("service", "update", "--force", "a")
        shown.append((done.code, unrepeated(done.out), done.err))
    assert shown[1] == shown[0]


def test_an_update_that_completes_between_two_looks_is_still_verified(daemon: FakeDaemon) -> None:
    """Without a monitoring period of its own the update is complete as soon as its last task runs: that is not
    the end of what there is to show."""
    service = daemon.cluster.create({
        "Name": "a", "TaskTemplate": {}, "Mode": {"Replicated": {"Replicas": 1}},
        "UpdateConfig": {"Monitor": 10000000}})  # fmt: skip
    kept = daemon.cluster.services[service["ID"]]
    daemon.cluster.stuck, kept["UpdateStatus"] = True, {"State": "updating"}
    stream, clock = io.StringIO(), iter(range(100))
    watch = Watch("a", Screen(stream, dumb=True), lambda: next(clock))
    client = Client(daemon.host)
    assert not watch.step(client)
    next(iter(daemon.cluster.tasks.values()))["Status"]["State"] = "running"
    kept["UpdateStatus"] = {"State": "completed"}
    while not watch.step(client):
        pass
    assert "overall progress: 1 out of 1 tasks" in stream.getvalue()
    assert stream.getvalue().splitlines()[-1] == "verify: Service a converged"
    client.close()


def test_a_failure_is_said_once_where_lines_stay(daemon: FakeDaemon) -> None:
    stream = io.StringIO()
    screen = Screen(stream, dumb=True)
    for _ in range(3):
        screen.line("1/1", "no such image")
        screen.line("1/1", "preparing", " [=> ]")
    assert stream.getvalue() == "1/1: no such image\n"


def test_failing_tasks_are_shown(daemon: FakeDaemon) -> None:
    daemon.cluster.create({"Name": "a", "TaskTemplate": {}, "Mode": {"Replicated": {"Replicas": 1}}})
    daemon.cluster.stuck = True
    daemon.cluster.task_error = "no suitable node (insufficient\nresources on 3 nodes)"
    stream = io.StringIO()
    watch = Watch("a", Screen(stream, dumb=True), time.monotonic)
    client = Client(daemon.host)
    assert not watch.step(client)
    assert not watch.step(client)
    assert stream.getvalue().splitlines() == [
        "overall progress: 0 out of 1 tasks", "1/1:  ", "1/1: no suitable node (insufficient resources on 3 nodes)",
    ]  # fmt: skip
    client.close()


def test_a_failure_while_verifying_starts_again(daemon: FakeDaemon) -> None:
    daemon.cluster.create({"Name": "a", "TaskTemplate": {}, "Mode": {"Replicated": {"Replicas": 1}}})
    task = next(iter(daemon.cluster.tasks.values()))
    clock = [100.0]
    stream = io.StringIO()
    watch = Watch("a", Screen(stream, dumb=True), lambda: clock[0])
    client = Client(daemon.host)
    task["Status"]["State"] = "running"
    assert not watch.step(client)
    assert watch.converged
    task["Status"]["State"] = "failed"
    assert not watch.step(client)
    task["Status"]["State"] = "running"
    clock[0] += 100
    assert not watch.step(client)
    clock[0] += 2
    assert not watch.step(client)
    clock[0] += 3
    assert watch.step(client)
    said = stream.getvalue().splitlines()
    assert "verify: Detected task failure" in said
    assert "verify: Waiting 3 seconds to verify that tasks are stable..." in said
    assert said[-1] == "verify: Service a converged"
    client.close()


def test_tasks_on_dead_nodes_do_not_count(daemon: FakeDaemon) -> None:
    daemon.cluster.create({"Name": "a", "TaskTemplate": {}, "Mode": {"Replicated": {"Replicas": 1}}})
    next(iter(daemon.cluster.tasks.values()))["Status"]["State"] = "running"
    daemon.cluster.nodes[NODE_M]["Status"]["State"] = "down"
    client = Client(daemon.host)
    watch = Watch("a", Screen(io.StringIO(), dumb=True), time.monotonic)
    assert not watch.step(client)
    assert not watch.converged
    client.close()


def test_a_terminal_gets_lines_rewritten_in_place() -> None:
    stream = io.StringIO()
    screen = Screen(stream, dumb=False)
    screen.line("overall progress", "0 out of 1 tasks")
    screen.line("1/1", "new      ", " " + bar(1, 9))
    screen.line("1/1", "new      ", " " + bar(1, 9))
    screen.line("overall progress", "1 out of 1 tasks")
    assert stream.getvalue() == (
        "\x1b[2K\roverall progress: 0 out of 1 tasks\n"
        f"\x1b[2K\r1/1: new       [=====>{' ' * 44}]\n"
        "\x1b[2A\x1b[2K\roverall progress: 1 out of 1 tasks\n\x1b[1B"
    )
    assert bar(9, 9) == "[" + "=" * 50 + "]"
    assert shortened("x" * 100) == "x" * 74 + "…"


def test_interrupted_wait_leaves_the_service_to_the_cluster(daemon: FakeDaemon, env: dict[str, str]) -> None:
    daemon.cluster.stuck = True
    child = start(env, "service", "create", "--name", "a", *QUICK, "nginx:1")
    assert child.stdout is not None
    lines = [child.stdout.readline() for _ in range(3)]
    assert lines[1] == "overall progress: 0 out of 1 tasks\n"
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=20)
    assert (child.returncode, err) == (0, "")
    assert out.splitlines()[-2:] == [
        "Operation continuing in background.",
        f"Use `swarmpy service ps {lines[0].strip()}` to check progress.",
    ]


def test_followed_lines_arrive_at_once_and_an_interrupt_is_quiet(
    daemon: FakeDaemon, env: dict[str, str]
) -> None:
    daemon.cluster.create({"Name": "a", "TaskTemplate": {"ContainerSpec": {"TTY": False}}})
    daemon.cluster.logs = [(1, b"first line\n")]
    daemon.hold_streams = threading.Event()
    child = start(env, "service", "logs", "--raw", "--follow", "a")
    assert child.stdout is not None
    assert child.stdout.readline() == "first line\n"
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=20)
    assert (child.returncode, out, err) == (130, "", "")


def test_a_service_may_say_nothing_for_as_long_as_it_likes(
    daemon: FakeDaemon, env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swarmpy.cli.client.TIMEOUT", 0.2)
    daemon.cluster.create({"Name": "a", "TaskTemplate": {"ContainerSpec": {"TTY": False}}})
    daemon.cluster.logs = [(1, b"first line\n")]
    daemon.hold_streams = threading.Event()
    pieces = Client().stream("/services/a/logs", {"follow": "1"})
    assert next(pieces).endswith(b"first line\n")
    threading.Timer(0.6, daemon.hold_streams.set).start()
    assert list(pieces) == []


def test_a_reader_that_goes_away_ends_the_command_quietly(daemon: FakeDaemon, env: dict[str, str]) -> None:
    daemon.cluster.create({"Name": "a", "TaskTemplate": {"ContainerSpec": {}}})
    daemon.cluster.logs = [(1, b"x" * 70000 + b"\n")] * 20
    child = start(env, "service", "logs", "--raw", "a")
    assert child.stdout is not None
    child.stdout.read(10)
    child.stdout.close()
    assert child.stderr is not None
    err = child.stderr.read()
    child.stderr.close()
    assert (child.wait(20), err) == (141, "")


LOG_FLAGS = [(), ("--details",), ("--no-task-ids",), ("--no-resolve",), ("--no-trunc",), ("-t",),
             ("-t", "--details"), ("--raw",), ("--raw", "--details")]  # fmt: skip


@pytest.mark.parametrize("flags", LOG_FLAGS, ids=" ".join)
@pytest.mark.parametrize("target", ["web", "task"])
def test_logs_look_the_same(
    target: str, flags: tuple[str, ...], daemon: FakeDaemon, swarmpy: Run, docker: Run
) -> None:
    service = daemon.cluster.create({"Name": "web", "TaskTemplate": {"ContainerSpec": {"Image": "x"}},
                                     "Mode": {"Replicated": {"Replicas": 12}}})["ID"]  # fmt: skip
    tasks = list(daemon.cluster.tasks)
    stamp = b"2026-01-01T00:00:00.123Z " if "-t" in flags else b""
    for stream, task, extra, text in (
        (1, 0, "", b"hello world"),
        (2, 10, "", b""),
        (1, 1, ",zz=1,aa=b%20c", b" x"),
    ):
        details = (f"com.docker.swarm.node.id={NODE_M},com.docker.swarm.service.id={service},"
                   f"com.docker.swarm.task.id={tasks[task]}{extra}")  # fmt: skip
        daemon.cluster.logs.append((stream, stamp + details.encode() + b" " + text + b"\n"))
    shown = [
        run("service", "logs", *flags, tasks[10] if target == "task" else target) for run in (docker, swarmpy)
    ]
    assert (shown[1].code, shown[1].out, shown[1].err) == (shown[0].code, shown[0].out, shown[0].err)
    query = [request["query"] for request in daemon.sent("GET", "/(services|tasks)/.*/logs")]
    assert query[0] == query[1]


def test_a_failed_log_stream_is_an_error(daemon: FakeDaemon, swarmpy: Run) -> None:
    daemon.cluster.create({"Name": "web", "TaskTemplate": {"ContainerSpec": {}}})
    daemon.cluster.logs = [(3, b"incomplete log stream: w2 did not answer\n")]
    done = swarmpy("service", "logs", "--raw", "web")
    assert (done.code, done.err) == (
        1,
        "error from daemon in stream: incomplete log stream: w2 did not answer\n",
    )


def test_tty_logs_need_raw(daemon: FakeDaemon, swarmpy: Run) -> None:
    daemon.cluster.create({"Name": "web", "TaskTemplate": {"ContainerSpec": {"TTY": True}}})
    assert swarmpy("service", "logs", "web").err == "tty service logs only supported with --raw\n"


def test_frames_come_in_any_pieces() -> None:
    data = (
        struct.pack(">BxxxI", 1, 3)
        + b"abc"
        + struct.pack(">BxxxI", 2, 0)
        + struct.pack(">BxxxI", 2, 1)
        + b"z"
    )
    whole = [(1, b"abc"), (2, b""), (2, b"z")]
    for size in range(1, len(data) + 1):
        assert list(frames(data[at : at + size] for at in range(0, len(data), size))) == whole
    with pytest.raises(CommandError, match="middle of a line"):
        list(frames([data[:-1]]))
    with pytest.raises(CommandError, match="Unrecognized input header: 72"):
        list(frames([b"HTTP/1.1 200 OK\r\n"]))


def test_since() -> None:
    assert since_seconds("1700000000") == "1700000000"
    assert since_seconds("1700000000.5") == "1700000000"
    assert since_seconds("2026-01-02T03:04:05Z") == "1767323045"
    assert since_seconds("2026-01-02T04:04:05.9+01:00") == "1767323045"
    assert abs(int(since_seconds("42m")) - (time.time() - 42 * 60)) < 5
    with pytest.raises(CommandError, match="failed to parse value"):
        since_seconds("yesterday")
