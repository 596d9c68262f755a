"""Ids, the lifecycle's table, specs and the codec."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmpy.model import codec, ids, lifecycle
from swarmpy.model.errors import InvalidArgument, Refusal, refusal_from
from swarmpy.model.lifecycle import DESIRED, TERMINAL, TRANSITIONS, TaskState, may_follow
from swarmpy.model.objects import KINDS, Cluster, Node, Service, Task, TaskStatus, kind_of
from swarmpy.model.specs import compact, node_view, service_view, swarm_view, template_view


@given(st.binary(min_size=17, max_size=32))
def test_ids_have_dockers_shape(entropy):
    made = ids.from_bytes(entropy)
    assert ids.is_id(made)
    assert len(made) == 25


@given(st.lists(st.one_of(st.text(), st.integers()), min_size=1))
def test_derived_ids_are_ids_and_repeat(parts):
    assert ids.derive(*parts) == ids.derive(*parts)
    assert ids.is_id(ids.derive(*parts))


def test_too_little_entropy_is_refused():
    with pytest.raises(ValueError, match="17 bytes"):
        ids.from_bytes(b"x" * 16)


@given(st.integers(0, 1 << 130))
def test_base36_is_base_36(number):
    assert int(ids.base36(number), 36) == number


def test_observed_states_only_grow():
    for state, following in TRANSITIONS.items():
        assert all(later > state for later in following)
    assert set(TRANSITIONS) == set(TaskState)
    assert all(not TRANSITIONS[state] for state in TERMINAL)
    assert list(DESIRED) == sorted(DESIRED)
    assert may_follow(TaskState.RUNNING, TaskState.RUNNING)
    assert not may_follow(TaskState.RUNNING, TaskState.STARTING)
    assert may_follow(TaskState.ASSIGNED, TaskState.RUNNING)


def test_every_end_can_be_reached_from_every_state_before():
    for state in (TaskState.ASSIGNED, TaskState.PREPARING, TaskState.RUNNING):
        assert TRANSITIONS[state] >= TERMINAL


def test_words():
    assert lifecycle.STATE_BY_WORD["running"] is TaskState.RUNNING
    assert [one.word for one in lifecycle.NodeState] == ["unknown", "ready", "disconnected", "down"]


@pytest.mark.parametrize("item", [
    Cluster(id="c"), Node(id="n"), Service(id="s", name="web", spec="{}"),
    Task(id="t", service_id="s", service_name="web", status=TaskStatus(state=TaskState.RUNNING)),
])  # fmt: skip
def test_objects_round_trip(item):
    assert codec.decode(type(item), codec.encode(item)) == item
    assert KINDS[kind_of(item)] is type(item)


def test_the_codec_names_the_path():
    with pytest.raises(codec.CodecError, match=r"\$.slot"):
        codec.decode(
            Task,
            codec.encode({"type": "task", "id": "t", "service_id": "s", "service_name": "w", "slot": "x"}),
        )


def test_defaults_are_swarms():
    spec = service_view('{"Name":"web"}')
    assert (spec.replicas, spec.is_global) == (1, False)
    assert (spec.update.parallelism, spec.update.order, spec.update.failure_action) == (
        1,
        "stop-first",
        "pause",
    )
    present = service_view('{"UpdateConfig":{}}')
    assert present.update.parallelism == 0
    assert present.update.monitor == 5 * 10**9
    restart = spec.task_template.restart_policy
    assert (restart.condition, restart.delay, restart.max_attempts) == ("any", 5 * 10**9, 0)
    assert spec.task_template.container.grace_seconds == 10
    cluster = swarm_view("{}")
    assert (cluster.history_limit, cluster.heartbeat_seconds) == (5, 5.0)
    assert swarm_view('{"Orchestration":{"TaskHistoryRetentionLimit":0}}').history_limit == 0
    assert node_view("{}").availability == "active"


def test_nulls_mean_absent_and_unknown_fields_are_no_matter():
    text = '{"Name":"web","UpdateConfig":null,"New":{"a":1},"TaskTemplate":{"ContainerSpec":{"Image":"a","Env":null}}}'
    assert service_view(text).task_template.container.image == "a"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('{"Name":1}', r"\$.Name"),
        ('{"Mode":{"Replicated":{"Replicas":"3"}}}', r"\$.Mode.Replicated.Replicas"),
        ('{"TaskTemplate":{"ContainerSpec":{"Mounts":[{"ReadOnly":"yes"}]}}}', r"Mounts\[0\].ReadOnly"),
        ("{", "not JSON"),
    ],
)
def test_wrong_types_are_refused_with_their_path(text, path):
    with pytest.raises(InvalidArgument, match=path):
        service_view(text)


def test_names_of_fields_are_dockers():
    view = template_view(json.dumps({
        "Resources": {"Reservations": {"NanoCPUs": 1, "MemoryBytes": 2}}, "LogDriver": {"Name": "x"},
        "Placement": {"Platforms": [{"OS": "linux"}]}, "ContainerSpec": {"TTY": True, "DNSConfig": {"Search": ["a"]}},
    }))  # fmt: skip
    asked = view.resources.reservations
    assert (asked.nano_cpus, asked.memory_bytes, view.log_driver.name) == (1, 2, "x")
    assert (view.placement.platforms[0].os, view.container.tty, view.container.dns_config.search) == (
        "linux", True, ("a",),
    )  # fmt: skip


def test_compact_keeps_order_and_unicode():
    assert compact({"b": 1, "a": "é"}) == '{"b":1,"a":"é"}'


def test_refusals_travel_by_name():
    for kind in Refusal.__subclasses__():
        again = refusal_from(kind.__name__, "why")
        assert type(again) is kind
        assert again.message == "why"


@pytest.mark.parametrize(("path", "value"), [
    (("RestartPolicy", "Delay"), 2**63), (("RestartPolicy", "MaxAttempts"), 2**64),
    (("RestartPolicy", "Window"), -(2**63) - 1), (("ForceUpdate",), -1), (("Placement", "MaxReplicas"), 10**400),
    (("ContainerSpec", "StopGracePeriod"), 2**63), (("Resources", "Limits", "NanoCPUs"), 2**63),
    (("Resources", "Reservations", "MemoryBytes"), 2**64 - 1), (("Unknown", "Number"), 2**64),
])  # fmt: skip
def test_numbers_that_go_has_no_room_for_are_refused(path, value):
    """Once stored, one of them made every `docker service ls` fail."""
    template = {"ContainerSpec": {"Image": "app:1"}}
    part = template
    for key in path[:-1]:
        part = part.setdefault(key, {})
    part[path[-1]] = value
    with pytest.raises(InvalidArgument, match=r"Expected `int`|more than 64 bits"):
        service_view(json.dumps({"Name": "web", "TaskTemplate": template}))
