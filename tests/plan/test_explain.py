"""Explain and progress: the reasons, the numbers, and that the smallest change really helps."""

from __future__ import annotations

import msgspec
import pytest

from swarmpy.model.errors import InvalidArgument, NotFound
from swarmpy.model.lifecycle import NodeState, Role, TaskState
from swarmpy.plan.explain import explain
from swarmpy.plan.progress import progress
from swarmpy.plan.verdicts import cpus, size

from .worlds import GIB, SECOND, Stage, node, spec


def reserve(**what):
    return {"Resources": {"Reservations": what}}


def placed(*constraints):
    return {"Placement": {"Constraints": list(constraints)}}


HOST_PORT = {"Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 80, "PublishMode": "host"}]}


@pytest.mark.parametrize(
    ("nodes", "rest", "reasons", "change"),
    [
        ([node("a", availability="drain")], {}, ("it is drained",), "set node a active"),
        ([node("a", availability="pause")], {}, ("it is paused",), "set node a active"),
        ([node("a", state=NodeState.DOWN)], {}, ("it is down",), "bring node a back"),
        ([node("a", cpus=1.5)], {"template": reserve(NanoCPUs=2 * 10**9)},
         ("needs 2 CPU, free 1.5 of 1.5",), "lower reserve-cpu to 1.5"),
        ([node("a", memory=GIB // 2)], {"template": reserve(MemoryBytes=GIB)},
         ("needs 1GiB memory, free 512MiB of 512MiB",), "lower reserve-memory to 512MiB"),
        ([node("a")], {"template": placed("node.labels.zone==b")},
         ("does not satisfy node.labels.zone==b: it has ''",), "add label zone=b to node a"),
        ([node("a", labels={"zone": "b"})], {"template": placed("node.labels.zone!=b")},
         ("does not satisfy node.labels.zone!=b: it has 'b'",), "remove label zone from node a"),
        ([node("a")], {"template": placed("node.role==manager")},
         ("does not satisfy node.role==manager: it has 'worker'",), "promote node a"),
        ([node("a")], {"template": {"Placement": {"Platforms": [{"OS": "linux", "Architecture": "arm64"}]}}},
         ("is linux/x86_64, the image is for linux/arm64",), "use an image built for linux/x86_64"),
        ([node("a")], {"template": reserve(GenericResources=[{"DiscreteResourceSpec": {"Kind": "gpu", "Value": 1}}])},
         ("needs 1 gpu, free 0 of 0",), "free 1 gpu on node a"),
        ([node("a", plugins=(("Log", "json-file"),))], {"template": {"LogDriver": {"Name": "syslog"}}},
         ("lacks the log plugin syslog",), "install the log plugin syslog on node a"),
        ([node("a", availability="drain", cpus=1)], {"template": reserve(NanoCPUs=2 * 10**9)},
         ("it is drained", "needs 2 CPU, free 1 of 1"), "set node a active and lower reserve-cpu to 1"),
    ],
)  # fmt: skip
def test_verdicts(nodes, rest, reasons, change):
    stage = Stage(*nodes)
    stage.create(spec("web", **rest))
    told = explain(stage.world, "web")
    [verdict] = told.nodes
    assert (verdict.fits, verdict.reasons, verdict.change) == (False, reasons, change)
    assert told.smallest_change == change
    assert explain(stage.world, "web.1").smallest_change == change
    msgspec.to_builtins(told)


NAMES = (
    "node.id, node.hostname, node.ip, node.role, node.platform.os, node.platform.arch, node.labels.NAME or "
    "engine.labels.NAME"
)


@pytest.mark.parametrize(
    ("constraints", "change"),
    [
        (("node.zzz==1",), f"correct the name node.zzz: constraints know {NAMES}"),
        (("node.zzz==1", "node.zzz!=2"), f"correct the name node.zzz: constraints know {NAMES}"),
        (("node.label.zone==b",), "write node.labels.zone for node.label.zone"),
        (("NODE.hostnam==b",), "write node.hostname for NODE.hostnam"),
        (("engine.label.os==b",), "write engine.labels.os for engine.label.os"),
        (("node.labels.==b",), f"correct the name node.labels.: constraints know {NAMES}"),
        (("node.ip==foo",), "correct the address in node.ip==foo: an IP address or a subnet is expected"),
    ],
)
def test_a_name_that_no_node_has_is_one_thing_to_correct(constraints, change):
    stage = Stage(node("a"), node("b", role=Role.MANAGER))
    stage.create(spec("web", template=placed(*constraints)))
    told = explain(stage.world, "web")
    assert told.smallest_change == change
    assert [one.change for one in told.nodes] == [change, change]
    assert told.summary == f"0 of 1 tasks run; to place the rest: {change}"


def test_a_log_driver_that_no_engine_has_is_said_on_the_task_and_explained():
    stage = Stage(node("a", plugins=(("Log", "json-file"),)), node("b", plugins=(("Log", "json-file"),)))
    stage.create(spec("web", template={"LogDriver": {"Name": "zz"}}))
    [task] = stage.world.tasks
    assert task.status.err == "no suitable node (missing plugin on 2 nodes)"
    assert explain(stage.world, "web").smallest_change == "install the log plugin zz on node a"


def test_the_cheapest_node_is_advised():
    stage = Stage(node("a", state=NodeState.DOWN), node("b", cpus=1), node("c", availability="pause"))
    stage.create(spec("web", template=reserve(NanoCPUs=2 * 10**9)))
    assert explain(stage.world, "web").smallest_change == "set node c active"
    stage.set_node("c", availability="active")
    assert explain(stage.world, "web").smallest_change == ""
    assert len(stage.live("service-web")) == 1


def test_a_taken_port_names_its_holder():
    stage = Stage(node("a"))
    first = stage.create(spec("web", EndpointSpec=HOST_PORT))
    stage.create(spec("shop", EndpointSpec=HOST_PORT))
    [holder] = stage.live(first)
    [verdict] = explain(stage.world, "shop").nodes
    assert verdict.reasons == (f"host port 80/tcp is taken by task {holder.name}",)


def test_max_replicas():
    stage = Stage(node("a"))
    stage.create(spec("web", 2, template={"Placement": {"MaxReplicas": 1}}))
    assert explain(stage.world, "web").smallest_change == "raise replicas-max-per-node to 2"


def test_one_more_task_is_judged_where_none_waits():
    stage = Stage(node("a"), node("b", availability="drain"))
    stage.create(spec("web", 1))
    stage.agents()
    told = explain(stage.world, "web")
    assert told.summary == "1 of 1 tasks run: all is as it should be"
    assert [(one.node, one.fits) for one in told.nodes] == [("a", True), ("b", False)]
    assert told.smallest_change == ""


def waits(stage, reference):
    return explain(stage.world, reference).tasks[0].waits


def test_a_task_that_publishes_ports_waits_for_its_program():
    stage = Stage(node("a"))
    ports = [{"TargetPort": 80}, {"TargetPort": 443}, {"TargetPort": 53, "Protocol": "udp"}]
    hosts = [{**one, "PublishedPort": one["TargetPort"], "PublishMode": "host"} for one in ports]
    key = stage.create(spec("web", EndpointSpec={"Ports": hosts}))
    [task] = stage.live(key)
    stage.report(task, TaskState.STARTING)
    [told] = waits(stage, task.id)
    assert told.startswith("node a starts it: it has to listen on TCP ports 80, 443, or 10 s to pass")
    key = stage.create(
        spec(
            "mail",
            EndpointSpec={"Ports": [hosts[1] | {"PublishedPort": 444}]},
            Labels={"io.swarmpy.listen-wait": "0s"},
        )
    )
    [task] = stage.live(key)
    stage.report(task, TaskState.STARTING)
    assert waits(stage, task.id) == ("node a starts it (an image with a health check must become healthy)",)


def test_what_a_task_waits_for_along_its_life():
    stage = Stage(node("a"))
    check = {"ContainerSpec": {"Image": "app:1", "Healthcheck": {"Test": ["CMD", "true"]}}}
    key = stage.create(spec("web", template=check))
    [task] = stage.live(key)
    assert waits(stage, "web") == ("node a has not taken it yet",)
    stage.report(task, TaskState.PREPARING)
    assert waits(stage, task.id[:8]) == ("node a prepares it (pulls image app:1 where it is missing)",)
    stage.report(task, TaskState.STARTING)
    assert waits(stage, task.name) == ("it was started on node a and is not healthy yet",)
    stage.report(task, TaskState.RUNNING)
    assert waits(stage, task.id) == ()
    stage.report(task, TaskState.FAILED, "task: non-zero exit (1)")
    told = explain(stage.world, "web")
    assert "it waits for the restart delay" in told.tasks[0].waits
    assert told.tasks[0].until == stage.now + 5 * SECOND
    assert explain(stage.world, task.id).summary == "it is over: failed (task: non-zero exit (1))"


def test_waiting_for_the_old_task_and_the_update():
    stage = Stage(node("a"))
    key = stage.create(spec("web", 2))
    stage.agents()
    stage.update(key, spec("web", 2, image="app:2"))
    told = explain(stage.world, "web")
    assert told.notes == (
        "update in progress: 1 slots to go, 1 being renewed, 0 in the delay of 0 s (1 at a time, stop-first)",
    )
    [old] = [task for task in stage.tasks(key) if task.desired == TaskState.SHUTDOWN]
    new = next(task for task in told.tasks if task.desired == "ready")
    assert f"it waits for {old.name} to stop (at most 60 s)" in new.waits
    assert waits(stage, old.id) == ("it is stopping on node a; it has 10 s before it is killed",)


def test_a_slot_that_stays_empty_is_explained():
    stage = Stage(node("a"))
    key = stage.create(spec("web", template={"RestartPolicy": {"Condition": "none"}}))
    stage.agents()
    stage.report(stage.running(key)[0], TaskState.COMPLETE)
    [note] = explain(stage.world, "web").notes
    assert note.endswith("is complete and is not replaced: its restart policy is none")


def test_global_services_name_the_nodes_that_they_skip():
    stage = Stage(node("a"), node("b", availability="drain"))
    stage.create(spec("agent", None))
    assert explain(stage.world, "agent").notes == ("no task on node b: it is drained",)


def test_a_suspect_node_is_mentioned():
    stage = Stage(node("a"))
    stage.create(spec("web"))
    stage.agents()
    stage.set_node("a", state=NodeState.DISCONNECTED)
    told = explain(stage.world, "web")
    assert told.tasks[0].waits[-1].startswith("node a does not answer")
    assert told.tasks[0].until == stage.now + int(4.5 * SECOND)


def test_nodes_and_references():
    stage = Stage(node("a", cpus=4), node("b", availability="pause"))
    stage.create(spec("web", template=reserve(NanoCPUs=10**9)))
    assert explain(stage.world, "a").summary == (
        "it takes new tasks: ready, active; free 3 of 4 CPU and 8GiB of 8GiB memory; 1 tasks"
    )
    assert "takes no new tasks" in explain(stage.world, "node-b").summary
    with pytest.raises(NotFound):
        explain(stage.world, "nothing")
    with pytest.raises(NotFound):
        explain(stage.world, "")
    with pytest.raises(InvalidArgument):
        explain(stage.world, "node-")


@pytest.mark.parametrize(
    ("number", "text"), [(512 << 20, "512MiB"), (3 << 29, "1.5GiB"), (100, "100B"), (0, "0B")]
)
def test_size(number, text):
    assert size(number) == text


def test_cpus():
    assert [cpus(n) for n in (0, 5 * 10**8, 2 * 10**9)] == ["0", "0.5", "2"]


def test_progress():
    stage = Stage(node("a"), node("b"))
    key = stage.create(spec("web", 2))
    service = stage.world.services[key]
    assert progress(stage.world, service) == msgspec.convert(
        {"running": 0, "desired": 2, "completed": 0, "current": 0, "converged": False},
        type(progress(stage.world, service)),
    )
    stage.agents()
    assert progress(stage.world, stage.world.services[key]).converged
    stage.update(key, spec("web", 2, image="app:2"))
    seen = progress(stage.world, stage.world.services[key])
    assert (seen.running, seen.current, seen.converged) == (1, 0, False)
    stage.agents()
    stage.pass_time(5)
    assert progress(stage.world, stage.world.services[key]).converged
    stage.set_node("a", state=NodeState.DOWN)
    seen = progress(stage.world, stage.world.services[key])
    assert (seen.running, seen.desired, seen.converged) == (1, 2, False)
    agent = stage.create(spec("agent", None))
    stage.agents()
    seen = progress(stage.world, stage.world.services[agent])
    assert (seen.running, seen.desired, seen.converged) == (1, 1, True)
