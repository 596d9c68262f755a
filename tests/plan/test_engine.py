"""plan/engine: what an agent does next, step by step and by its laws."""

from __future__ import annotations

import json
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmpy.model.lifecycle import TaskState, may_follow
from swarmpy.model.messages import Assigned
from swarmpy.model.objects import TaskStatus
from swarmpy.plan import engine as p
from swarmpy.plan import listening
from swarmpy.plan import node as n
from swarmpy.plan.container import TASK_LABEL, create_body
from swarmpy.plan.template import NodeFacts

NODE = NodeFacts("n1", "host-1", "linux", "x86_64")
TEMPLATE = json.dumps(
    {"ContainerSpec": {"Image": "web:1", "Env": ["SLOT={{.Task.Slot}}"], "StopGracePeriod": 3_000_000_000}}
)


def assigned(desired: TaskState = TaskState.RUNNING, template: str = TEMPLATE) -> Assigned:
    return Assigned(
        id="t", service_id="s", service_name="web", slot=2, node_id="n1", template=template,
        endpoint="{}", desired=desired,
    )  # fmt: skip


def local(state: TaskState, desired: TaskState = TaskState.RUNNING, **more: object) -> n.LocalTask:
    status = TaskStatus(state=state, container_id="c" if state >= TaskState.READY else "")
    return n.LocalTask(assigned=assigned(desired), status=status, **more)  # type: ignore[arg-type]  # by name


def container(state: str, **more: object) -> n.Container:
    return n.Container(id="c", state=state, labels={TASK_LABEL: "t"}, **more)  # type: ignore[arg-type]  # by name


def decide(task: n.LocalTask | None, *containers: n.Container, complete: bool = True) -> list[n.Action]:
    tasks = {"t": task} if task else {}
    return list(p.plan(7, n.NodeWorld(NODE, "cluster", tasks, containers, complete=complete)))


def kinds(actions: list[n.Action]) -> list[str]:
    return [
        action.status.state.word if isinstance(action, n.Report) else type(action).__name__
        for action in actions
    ]


@pytest.mark.parametrize(
    ("task", "containers", "expected"),
    [
        (local(TaskState.ASSIGNED), (), ["accepted", "preparing", "Pull"]),
        (local(TaskState.PREPARING, prepared=True), (), ["Create"]),
        (local(TaskState.PREPARING, problem="No such image: web:1"), (), ["rejected"]),
        (local(TaskState.PREPARING, TaskState.READY), (container("created"),), ["ready"]),
        (local(TaskState.READY, TaskState.READY), (container("created"),), []),
        (local(TaskState.READY), (container("created"),), ["starting", "Start"]),
        (local(TaskState.STARTING, problem="port is taken"), (container("created"),), ["failed"]),
        (local(TaskState.STARTING), (container("running", pid=9),), ["running"]),
        (local(TaskState.STARTING), (container("running", pid=9, health="healthy"),), ["running"]),
        (local(TaskState.RUNNING), (container("exited", exit_code=0),), ["complete"]),
        (local(TaskState.RUNNING), (container("exited", exit_code=3),), ["failed"]),
        (local(TaskState.RUNNING), (), ["failed"]),
        (local(TaskState.RUNNING, TaskState.SHUTDOWN), (container("running"),), ["Stop"]),
        (local(TaskState.RUNNING, TaskState.SHUTDOWN), (container("exited"),), ["shutdown"]),
        (local(TaskState.ASSIGNED, TaskState.SHUTDOWN), (), ["shutdown"]),
        (local(TaskState.READY, TaskState.SHUTDOWN), (container("created"),), ["shutdown"]),
        (local(TaskState.STARTING, TaskState.SHUTDOWN), (container("created"),), ["Remove"]),
        (local(TaskState.SHUTDOWN, TaskState.REMOVE), (container("exited"),), ["Remove"]),
        (local(TaskState.SHUTDOWN, TaskState.SHUTDOWN), (container("exited"),), []),
        (local(TaskState.RUNNING, leaving=True), (container("running"),), ["Stop"]),
        (local(TaskState.RUNNING, leaving=True), (container("exited"),), ["Remove"]),
        (local(TaskState.RUNNING, leaving=True), (), ["Forget"]),
        (None, (container("running"),), ["Stop"]),
        (None, (container("exited"),), ["Remove"]),
        (None, (container("removing"),), []),
    ],
)
def test_next_step(
    task: n.LocalTask | None, containers: tuple[n.Container, ...], expected: list[str]
) -> None:
    assert kinds(decide(task, *containers)) == expected


def test_orphans_wait_until_the_node_knows_all_its_tasks() -> None:
    assert decide(None, container("running"), complete=False) == []


def test_unhealthy_is_stopped_and_then_failed() -> None:
    task = local(TaskState.RUNNING)
    said, stop = decide(task, container("running", health="unhealthy"))
    assert isinstance(said, n.Report)
    assert isinstance(stop, n.Stop)
    assert (said.doomed, stop.grace) == ("unhealthy container", 3.0)
    doomed = n.LocalTask(assigned=task.assigned, status=said.status, doomed=said.doomed)
    (end,) = decide(doomed, container("exited", exit_code=143))
    assert isinstance(end, n.Report)
    assert end.status.err == "task: non-zero exit (143): unhealthy container"


def test_a_container_that_lost_a_network_is_stopped_and_then_failed() -> None:
    task = local(TaskState.RUNNING)
    said, stop = decide(task, container("running", pid=9, severed="its link is gone"))
    assert isinstance(said, n.Report)
    assert isinstance(stop, n.Stop)
    assert (said.doomed, said.status.state, stop.grace) == ("its link is gone", TaskState.RUNNING, 3.0)
    doomed = msgspec.structs.replace(task, doomed=said.doomed)
    for code, err in ((0, "its link is gone"), (143, "task: non-zero exit (143): its link is gone")):
        (end,) = decide(doomed, container("exited", exit_code=code))
        assert isinstance(end, n.Report)
        assert (end.status.state, end.status.err) == (TaskState.FAILED, err)


def test_a_pull_nobody_wants_is_given_up() -> None:
    task = local(TaskState.PREPARING, TaskState.SHUTDOWN)
    world = n.NodeWorld(NODE, "cluster", {"t": task}, (), busy=frozenset({"t"}), pulling=frozenset({"t"}))
    assert p.plan(7, world) == (n.Cancel("t"),)


def test_adoption_never_goes_back() -> None:
    known = local(TaskState.RUNNING)
    assert p.adopt(assigned(), known).status.state is TaskState.RUNNING
    told = p.adopt(replace_state(assigned(), TaskState.FAILED), known)
    assert told.status.state is TaskState.FAILED


def replace_state(task: Assigned, state: TaskState) -> Assigned:
    import msgspec

    return msgspec.structs.replace(task, state=state)


states = st.sampled_from([s for s in TaskState if s >= TaskState.ASSIGNED and s is not TaskState.REMOVE])
desires = st.sampled_from([TaskState.READY, TaskState.RUNNING, TaskState.SHUTDOWN, TaskState.REMOVE])
words = st.sampled_from(["created", "running", "paused", "exited", "dead", "removing"])
healths = st.sampled_from(["", "starting", "healthy", "unhealthy"])


published = st.lists(
    st.tuples(
        st.integers(79, 82), st.sampled_from(["tcp", "udp", "sctp"]), st.sampled_from(["ingress", "host"])
    ),
    max_size=3,
)
looks = st.builds(
    listening.Looked,
    ports=st.frozensets(st.integers(79, 82)),
    seconds=st.floats(0, 30),
    hidden=st.booleans(),
)
waits = st.sampled_from([None, "0s", "2s", "20s"])


def publishing(task: n.LocalTask, ports: list[tuple[int, str, str]], wait: str | None) -> n.LocalTask:
    """The task with published ports (target, protocol, mode) and the label that says how long it may wait."""
    rows = [{"TargetPort": one, "Protocol": protocol, "PublishMode": mode} for one, protocol, mode in ports]
    labels = {} if wait is None else {listening.LABEL: wait}
    changed = msgspec.structs.replace(
        task.assigned, endpoint=json.dumps({"Ports": rows}), service_labels=labels
    )
    return msgspec.structs.replace(task, assigned=changed)


@given(
    states, desires, st.none() | st.tuples(words, healths, st.integers(0, 255)), st.booleans(), st.booleans(),
    published, looks, waits, st.booleans(),
)  # fmt: skip
def test_laws(
    state: TaskState, desired: TaskState, seen: tuple[str, str, int] | None, prepared: bool, leaving: bool,
    ports: list[tuple[int, str, str]], looked: listening.Looked, wait: str | None, wired: bool,
) -> None:  # fmt: skip
    """States move along the lifecycle; at most one Engine action; planning after the reports repeats it. A task
    begins to run only when it is healthy, connected, and listens or was waited for."""
    task = publishing(local(state, desired, prepared=prepared, leaving=leaving), ports, wait)
    found = (
        ()
        if seen is None
        else (container(seen[0], health=seen[1], exit_code=seen[2], sockets=looked, wired=wired),)
    )
    actions = decide(task, *found)
    hands = [action for action in actions if not isinstance(action, n.Report | n.Forget)]
    assert len(hands) <= 1
    current = task
    for action in actions:
        if isinstance(action, n.Report):
            assert may_follow(current.status.state, action.status.state)
            current = n.LocalTask(
                assigned=current.assigned, status=action.status, prepared=prepared, leaving=leaving,
                doomed=action.doomed or current.doomed,
            )  # fmt: skip
    again = decide(current, *found)
    assert not any(isinstance(action, n.Report) for action in again) or again != actions
    if hands:
        assert [action for action in again if not isinstance(action, n.Report)] == hands
    waiting = _law_of_listening(task, current, found, ports, wait)
    assert waiting == any(isinstance(action, listening.Await) for action in actions)


def _law_of_listening(
    before: n.LocalTask, after: n.LocalTask, found: tuple[n.Container, ...],
    ports: list[tuple[int, str, str]], wait: str | None,
) -> bool:  # fmt: skip
    """Said once more, so that planning has somebody to differ from. Returns whether sockets are looked at."""
    if not found or not found[0].alive or before.leaving or before.assigned.desired >= TaskState.SHUTDOWN:
        return False
    (one,) = found
    if before.status.state >= TaskState.RUNNING or one.health == "unhealthy":
        assert after.status.state >= before.status.state
        return False
    bound = {None: 10.0, "0s": 0.0, "2s": 2.0, "20s": 20.0}[wait]
    tcp = {number for number, protocol, _ in ports if protocol == "tcp"}
    silent = not tcp <= one.sockets.ports
    waiting = silent and one.health == "" and not one.sockets.hidden and one.sockets.seconds < bound
    runs = not waiting and one.health in ("", "healthy") and one.wired
    assert after.status.state is (TaskState.RUNNING if runs else TaskState.STARTING)
    assert (after.status.message != "started") == (
        not runs or (silent and one.health == "" and not one.sockets.hidden and bound > 0)
    )
    return waiting


def test_what_is_awaited_is_said_whole() -> None:
    """All the ports, also those that listen already: they have to listen together."""
    task = publishing(local(TaskState.STARTING), [(80, "tcp", "ingress"), (81, "tcp", "host")], "20s")
    looked = listening.Looked(frozenset({80}), 5.0)
    assert decide(task, container("running", pid=9, sockets=looked)) == [
        listening.Await("t", "c", 9, frozenset({80, 81}), 15.0)
    ]
    late = listening.Looked(frozenset({80}), 20.0)
    (report,) = decide(task, container("running", pid=9, sockets=late))
    assert isinstance(report, n.Report)
    assert report.status.message == "started: nothing listened on TCP port 81 within 20 s"
    assert report.remark == "nothing listened on TCP port 81 within 20 s"


def test_a_label_that_cannot_be_read_is_the_default() -> None:
    """Managers refuse it, but those of another version may not."""
    assert [listening.bound_of({listening.LABEL: text}) for text in ("ten", "-1s", "2h", "")] == [10.0] * 4
    assert listening.bound_of({}) == 10.0
    assert listening.bound_of({listening.LABEL: "1m30s"}) == 90.0


def test_the_container_of_a_task() -> None:
    body = create_body(assigned(), NODE, "cluster", {})[0]
    assert body["Image"] == "web:1"
    assert "SLOT=2" in body["Env"]
    assert body["Labels"]["com.docker.swarm.task.name"] == "web.2.t"
    assert body["Labels"]["com.docker.swarm.node.id"] == "n1"
    assert body["Labels"]["io.swarmpy.cluster"] == "cluster"


def test_ports_of_the_host_and_the_address_they_are_published_on() -> None:
    endpoint = json.dumps({"Ports": [
        {"TargetPort": 80, "PublishedPort": 8080, "PublishMode": "host", "HostIP": "192.0.2.1"},
        {"TargetPort": 53, "Protocol": "udp", "PublishMode": "host"},
        {"TargetPort": 90, "PublishedPort": 90},
    ]})  # fmt: skip
    body = create_body(msgspec.structs.replace(assigned(), endpoint=endpoint), NODE, "cluster", {})[0]
    assert body["HostConfig"]["PortBindings"] == {
        "80/tcp": [{"HostIp": "192.0.2.1", "HostPort": "8080"}], "53/udp": [{"HostPort": ""}],
    }  # fmt: skip


def test_every_name_of_a_host_entry_is_the_containers() -> None:
    template = json.dumps(
        {"ContainerSpec": {"Image": "web:1", "Hosts": ["10.0.0.1 db db.example", "fd00::1 x"]}}
    )
    body = create_body(msgspec.structs.replace(assigned(), template=template), NODE, "cluster", {})[0]
    assert body["HostConfig"]["ExtraHosts"] == ["db:10.0.0.1", "db.example:10.0.0.1", "x:fd00::1"]


def test_containers_keep_their_order_out_of_it() -> None:
    task = local(TaskState.RUNNING)
    twins = (container("running", pid=1), replace(container("exited"), id="d"))
    assert decide(task, *twins) == decide(task, *reversed(twins))
