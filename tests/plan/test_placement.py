"""Placement: filters and their sentences, the order of nodes, spreading; a naive twin as the oracle."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmpy.model.lifecycle import NodeState, TaskState
from swarmpy.model.objects import Resource, Service
from swarmpy.plan import placement
from swarmpy.plan.constraints import lookup
from swarmpy.plan.filters import first_failing, needs_of, seat_of
from swarmpy.plan.seats import shuffle
from swarmpy.plan.waiting import group_of
from swarmpy.state.changes import Put

from .worlds import GIB, SECOND, Stage, node, spec


def err(*nodes, replicas=1, **rest):
    """Status.Err of the first task that waits."""
    stage = Stage(*nodes)
    key = stage.create(spec("web", replicas, **rest))
    waiting = [task for task in stage.live(key) if task.status.state == TaskState.PENDING]
    assert all(task.status.message == "pending task scheduling" for task in waiting)
    return waiting[0].status.err if waiting else ""


def reserve(**what):
    return {"Resources": {"Reservations": what}}


HOST_PORT = {"Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 80, "PublishMode": "host"}]}


@pytest.mark.parametrize(
    ("nodes", "rest", "sentence"),
    [
        ((), {}, "no suitable node"),
        ((node("a", availability="drain"),), {}, "no suitable node (1 node not available for new tasks)"),
        ((node("a", state=NodeState.DISCONNECTED), node("b", availability="pause")), {},
         "no suitable node (2 nodes not available for new tasks)"),
        ((node("a"),), {"template": reserve(NanoCPUs=5 * 10**9)},
         "no suitable node (insufficient resources on 1 node)"),
        ((node("a"), node("b")), {"template": reserve(MemoryBytes=9 * GIB)},
         "no suitable node (insufficient resources on 2 nodes)"),
        ((node("a"),), {"template": reserve(
            GenericResources=[{"DiscreteResourceSpec": {"Kind": "gpu", "Value": 1}}])},
         "no suitable node (insufficient resources on 1 node)"),
        ((node("a", plugins=(("Log", "json-file"),)),),
         {"template": {"LogDriver": {"Name": "syslog"}}}, "no suitable node (missing plugin on 1 node)"),
        ((node("a"),), {"template": {"Placement": {"Constraints": ["node.labels.x==1"]}}},
         "no suitable node (scheduling constraints not satisfied on 1 node)"),
        ((node("a"),), {"template": {"Placement": {"Platforms": [{"OS": "linux", "Architecture": "arm64"}]}}},
         "no suitable node (unsupported platform on 1 node)"),
        ((node("a"),), {"replicas": 2, "EndpointSpec": HOST_PORT},
         "no suitable node (host-mode port already in use on 1 node)"),
        ((node("a"), node("b")), {"replicas": 3, "template": {"Placement": {"MaxReplicas": 1}}},
         "no suitable node (max replicas per node limit exceed)"),
        ((node("a", availability="drain"), node("b"), node("c")),
         {"template": {"Placement": {"Constraints": ["node.labels.x==1"]}}},
         "no suitable node (scheduling constraints not satisfied on 2 nodes; "
         "1 node not available for new tasks)"),
    ],
)  # fmt: skip
def test_sentences(nodes, rest, sentence):
    assert err(*nodes, **rest) == sentence


@pytest.mark.parametrize(
    ("about", "rest"),
    [
        ({"generic": (Resource("gpu", names=("g0", "g1")),)},
         {"template": reserve(GenericResources=[{"DiscreteResourceSpec": {"Kind": "gpu", "Value": 2}}])}),
        ({"plugins": (("Log", "syslog"), ("Volume", "rexray:latest"))},
         {"template": {"LogDriver": {"Name": "syslog"}, "ContainerSpec": {"Image": "a", "Mounts": [
             {"Type": "volume", "Target": "/d", "VolumeOptions": {"DriverConfig": {"Name": "rexray"}}}]}}}),
        ({}, {"template": {"LogDriver": {"Name": "syslog"}}}),
        ({}, {"template": {"Placement": {"Platforms": [{"OS": "linux", "Architecture": "amd64"}]}}}),
        ({"architecture": "aarch64"},
         {"template": {"Placement": {"Platforms": [{"OS": "linux", "Architecture": "arm64"}]}}}),
    ],
)  # fmt: skip
def test_what_fits(about, rest):
    assert err(node("a", **about), **rest) == ""


def test_limits_are_not_reservations():
    assert err(node("a"), template={"Resources": {"Limits": {"NanoCPUs": 99 * 10**9}}}) == ""


def test_identical_reasons_are_not_written_again():
    stage = Stage(node("a", availability="drain"))
    stage.create(spec("web"))
    before = stage.world.version
    stage.pass_time(60)
    assert stage.world.version == before


def test_room_is_used_as_soon_as_it_appears():
    stage = Stage(node("a", availability="drain"))
    key = stage.create(spec("web"))
    stage.set_node("a", availability="active")
    [task] = stage.live(key)
    assert task.status.message == "scheduler assigned task to node"
    assert task.status.err == ""


def test_a_stopping_task_keeps_its_reservation_until_it_has_stopped():
    stage = Stage(node("a"))
    key = stage.create(spec("web", template=reserve(NanoCPUs=3 * 10**9)))
    stage.agents()
    stage.remove(key)
    other = stage.create(spec("db", template=reserve(NanoCPUs=3 * 10**9)))
    assert stage.live(other)[0].status.state == TaskState.PENDING
    stage.agents()
    assert stage.live(other)[0].status.state == TaskState.RUNNING


def test_fewest_tasks_of_the_service_come_before_fewest_tasks():
    stage = Stage(node("a"), node("b"))
    stage.set_node("b", availability="pause")
    busy = stage.create(spec("busy", 4))
    stage.set_node("b", availability="active")
    web = stage.create(spec("web", 4))
    assert stage.places(busy) == {"a": 4}
    assert stage.places(web) == {"a": 2, "b": 2}
    assert stage.places(stage.create(spec("db", 1))) == {"b": 1}


def test_a_node_with_five_recent_failures_goes_last():
    stage = Stage(node("a"), node("b", availability="pause"))
    key = stage.create(spec("web", template={"RestartPolicy": {"Delay": 0}}))
    stage.agents()
    for _ in range(4):
        stage.report(stage.running(key)[0], TaskState.FAILED)
        stage.agents()
    stage.set_node("b", availability="active")
    for _ in range(8):
        stage.create(spec(f"filler{_}", 1))
    stage.set_node("a", availability="active")
    assert stage.places(key) == {"a": 1}
    filler = stage.create(spec("filler", 30, template={"Placement": {"Constraints": ["node.hostname==b"]}}))
    assert stage.places(filler) == {"b": 30}
    stage.report(stage.running(key)[0], TaskState.FAILED)
    assert stage.places(key) == {"b": 1}
    # Five minutes later the failures are forgotten, and the emptier node is the better one again.
    stage.agents()
    stage.now += 301 * SECOND
    stage.report(stage.running(key)[0], TaskState.FAILED)
    assert stage.places(key) == {"a": 1}


def test_spread_evens_out_the_zones_before_the_nodes():
    nodes = [
        node("a1", labels={"zone": "a"}),
        *(node(f"b{n}", labels={"zone": "b"}) for n in range(3)),
        node("x"),
    ]
    stage = Stage(*nodes)
    spread = {"Placement": {"Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.zone"}}]}}
    places = stage.places(stage.create(spec("web", 9, template=spread)))
    assert (places["a1"], places["x"], sum(places[f"b{n}"] for n in range(3))) == (3, 3, 3)


def test_spread_overflows_a_full_branch():
    stage = Stage(node("a", cpus=1, labels={"zone": "a"}), node("b", cpus=8, labels={"zone": "b"}))
    spread = {
        "Placement": {"Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.zone"}}]}, **reserve(NanoCPUs=10**9)
    }  # fmt: skip
    assert stage.places(stage.create(spec("web", 5, template=spread))) == {"a": 1, "b": 4}


def test_nested_spread():
    nodes = [node(f"{zone}{rack}", labels={"zone": zone, "rack": rack}) for zone in "ab" for rack in "12"]
    extra = node("b3", labels={"zone": "b", "rack": "3"})
    stage = Stage(*nodes, extra)
    spread = {"Placement": {"Preferences": [
        {"Spread": {"SpreadDescriptor": "node.labels.zone"}}, {"Spread": {"SpreadDescriptor": "node.labels.rack"}},
    ]}}  # fmt: skip
    assert stage.places(stage.create(spec("web", 12, template=spread))) == {
        "a1": 3, "a2": 3, "b1": 2, "b2": 2, "b3": 2,
    }  # fmt: skip


# ---------------------------------------------------------------- the naive twin


def naive(now, world):
    """Place every open task alone, looking at every node afresh each time."""
    tasks = [task for task in world.unplaced() if task.desired <= TaskState.COMPLETE]
    ages = {}
    for task in tasks:
        group = group_of(task)
        ages[group] = min(ages.get(group, task.created_at), task.created_at)
    order = sorted(tasks, key=lambda task: (ages[group_of(task)], group_of(task), task.slot, task.id))
    ranked = sorted(world.nodes, key=lambda one: shuffle(one.id))
    seats = {one.id: seat_of(one, rank, world.tasks_on(one.id)) for rank, one in enumerate(ranked)}
    placed = {}
    for task in order:
        need, failures = needs_of(task), {}
        for other in world.tasks_of(task.service_id):
            if (other.status.state in (TaskState.FAILED, TaskState.REJECTED)
                    and other.spec_version == task.spec_version
                    and other.state_since > now - placement.FAILURE_WINDOW):  # fmt: skip
                failures[other.node_id] = failures.get(other.node_id, 0) + 1
        failures = {key: count for key, count in failures.items() if count >= placement.MAX_FAILURES}
        fitting = [seat for seat in seats.values() if first_failing(need, seat, task.service_id) is None]

        def key(seat, task=task, failures=failures):
            return placement.order_of(seat, task.service_id, failures)

        for depth in range(len(need.spread)):
            # Keep the branches with the fewest tasks; of those, the one that has the best node.
            def branch(seat, depth=depth, need=need):
                return tuple(lookup(one, seat.node) or "" for one in need.spread[: depth + 1])

            counts = {}
            for seat in seats.values():
                counts[branch(seat)] = counts.get(branch(seat), 0) + seat.services.get(task.service_id, 0)
            least = min((counts[branch(seat)] for seat in fitting), default=0)
            fitting = [seat for seat in fitting if counts[branch(seat)] == least]
            if fitting:
                best = best_of(fitting, need, depth, counts_of(seats, need, task), key)
                fitting = [seat for seat in fitting if branch(seat) == branch(best)]
        if fitting:
            best = min(fitting, key=key)
            best.hold(task, need)
            placed[task.id] = best.node.id
    return placed


def counts_of(seats, need, task):
    """Tasks of the service by every prefix of the label path."""
    counts = {}
    for seat in seats.values():
        path = tuple(lookup(one, seat.node) or "" for one in need.spread)
        for length in range(1, len(path) + 1):
            counts[path[:length]] = counts.get(path[:length], 0) + seat.services.get(task.service_id, 0)
    return counts


def best_of(fitting, need, depth, counts, key):
    """The node that each branch would offer, found level by level; the best of them."""

    def offer(group, level):
        if level == len(need.spread):
            return min(group, key=key)
        branches = {}
        for seat in group:
            path = tuple(lookup(one, seat.node) or "" for one in need.spread[: level + 1])
            branches.setdefault(path, []).append(seat)
        least = min(counts[path] for path in branches)
        return min(
            (offer(rest, level + 1) for path, rest in branches.items() if counts[path] == least), key=key
        )

    branches = {}
    for seat in fitting:
        path = tuple(lookup(one, seat.node) or "" for one in need.spread[: depth + 1])
        branches.setdefault(path, []).append(seat)
    return min((offer(rest, depth + 1) for rest in branches.values()), key=key)


@st.composite
def crowds(draw):
    nodes = [
        node(f"n{place}", cpus=draw(st.integers(1, 4)), labels=draw(st.sampled_from(
            [{}, {"zone": "a"}, {"zone": "b"}, {"zone": "a", "rack": "1"}, {"zone": "b", "rack": "2"}])))
        for place in range(draw(st.integers(1, 6)))
    ]  # fmt: skip
    services = []
    for place in range(draw(st.integers(1, 4))):
        body = {"Placement": {
            "MaxReplicas": draw(st.sampled_from([0, 0, 1, 2])),
            "Constraints": draw(st.sampled_from([[], [], ["node.labels.zone==a"], ["node.labels.zone!=b"]])),
            "Preferences": [{"Spread": {"SpreadDescriptor": f"node.labels.{label}"}} for label in draw(
                st.sampled_from([[], [], ["zone"], ["zone", "rack"]]))],
        }}  # fmt: skip
        if draw(st.booleans()):
            body |= reserve(NanoCPUs=draw(st.sampled_from([5 * 10**8, 10**9])))
        rest = {"EndpointSpec": HOST_PORT} if draw(st.integers(0, 4)) == 0 else {}
        services.append(spec(f"s{place}", draw(st.integers(0, 9)), template=body, **rest))
    failing = draw(st.booleans())
    return nodes, services, failing


@settings(max_examples=150, deadline=None, derandomize=True)
@given(crowds())
def test_placement_equals_its_naive_twin(crowd):
    nodes, services, failing = crowd

    def compared(now, world, seats):
        decided = placement.plan(now, world, seats)
        assert decided == placement.plan(now, world)
        found = {
            change.item.id: change.item.node_id for change in decided.changes
            if change.item.status.state == TaskState.ASSIGNED
        }  # fmt: skip
        assert found == naive(now, world)
        return decided

    stage = Stage(*nodes, history=20)
    from swarmpy.plan import manager

    def planner(now, world):
        steps = tuple(
            manager.Step(seats=compared, apart=True) if step.seats is placement.plan else step
            for step in manager.STEPS
        )
        original, manager.STEPS = manager.STEPS, steps
        try:
            return manager.plan(now, world)
        finally:
            manager.STEPS = original

    # All services at once, so that they meet in one plan; then one after the other.
    names = [json.loads(text)["Name"] for text in services]
    stage.put(*(
        Put(Service(id=f"service-{name}", name=name, spec=text, spec_version=1))
        for name, text in zip(names, services, strict=True)
    ))  # fmt: skip
    stage.planner = planner
    stage.plan()
    for name in names:
        key = f"service-{name}"
        if failing:
            for _ in range(6):
                for task in stage.live(key)[:1]:
                    if task.status.state == TaskState.ASSIGNED:
                        stage.report(task, TaskState.FAILED)
    for text in services:
        raw = json.loads(text)
        raw["Mode"] = {"Replicated": {"Replicas": 7}}
        stage.update(f"service-{raw['Name']}", json.dumps(raw))


def test_a_node_in_trouble_keeps_what_it_has_and_gets_nothing_new():
    stage = Stage(node("w1"), node("w2"))
    key = stage.create(spec("web", 2))
    stage.agents()
    stage.set_node("w1", about={"trouble": "the container engine does not answer"})
    stage.update(key, spec("web", 6))
    stage.agents()
    assert stage.places(key) == {"w1": 1, "w2": 5}
    stage.set_node("w1", about={"trouble": ""})
    stage.update(key, spec("web", 8))
    assert stage.places(key) == {"w1": 3, "w2": 5}
