"""Admission of services: what is stored, what moves, what is refused and in which words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmpy.model.commands import CreateService, RemoveService, UpdateService
from swarmpy.model.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    OutOfSequence,
    Refusal,
    Unimplemented,
    Unknown,
)
from swarmpy.model.objects import Service
from swarmpy.plan.admission import service
from swarmpy.state.snapshot import Snapshot

NOW = 1_700_000_000_000_000_000
KEY = "s" * 25


def spec(**parts: Any) -> dict[str, Any]:
    return {"Name": "web", "TaskTemplate": {"ContainerSpec": {"Image": "nginx"}}, **parts}


def container(**parts: Any) -> dict[str, Any]:
    return spec(TaskTemplate={"ContainerSpec": {"Image": "nginx", **parts}})


def task(**parts: Any) -> dict[str, Any]:
    return spec(TaskTemplate={"ContainerSpec": {"Image": "nginx"}, **parts})


def port(**parts: Any) -> dict[str, Any]:
    return {"TargetPort": 80, "PublishMode": "host", **parts}


def create(world: Snapshot, raw: object, key: str = KEY, auth: str = "") -> Snapshot:
    command = CreateService(id=key, spec=json.dumps(raw), auth=auth, fallback_name="calm_noether")
    changes, result = service.create(NOW, world, command)
    assert result.id == key
    return world.evolve(changes, world.version + 5, NOW)


def update(world: Snapshot, raw: object, **parts: Any) -> Snapshot:
    command = UpdateService(
        service=KEY, version=parts.pop("version", world.services[KEY].version), spec=json.dumps(raw), **parts
    )
    changes, _ = service.update(NOW, world, command)
    return world.evolve(changes, world.version + 5, NOW)


def the(world: Snapshot) -> Service:
    return world.services[KEY]


def test_what_has_no_effect_is_warned_of() -> None:
    """Swarm admits both, and ignores the one and waits for ever on the other."""
    placement = {
        "Constraints": ["node.label.zone==b", "node.role==worker", "node.ip!=x", "node.labels.a==b"],
        "Preferences": [{"Spread": {"SpreadDescriptor": one}} for one in ("rack", "node.labels.rack", "engine.labels.x")],
    }  # fmt: skip
    task = {"ContainerSpec": {"Image": "web:1"}, "Placement": placement}
    made = CreateService(id="s", spec=json.dumps({"Name": "web", "TaskTemplate": task}))
    changes, result = service.create(1, Snapshot(), made)
    assert result.warnings == (
        "no node will ever satisfy the constraint node.label.zone==b: write node.labels.zone for node.label.zone",
        "no node will ever satisfy the constraint node.ip!=x: correct the address in node.ip!=x: an IP address or a "
        "subnet is expected",
        "the placement preference spread=rack has no effect: tasks are spread over node.labels.NAME or "
        "engine.labels.NAME only",
    )
    world = Snapshot().evolve(changes, 5, 1)
    changed = UpdateService(service="s", version=5, spec=world.services["s"].spec, auth_from="spec")
    assert service.update(1, world, changed)[1].warnings == result.warnings


def test_stored_form() -> None:
    raw = json.loads(service.stored(json.dumps(spec(Labels=None, Extra=[1, {"a": None}])), ""))
    assert raw == {
        "Name": "web",
        "Labels": {},
        "TaskTemplate": {
            "ContainerSpec": {"Image": "nginx", "DNSConfig": {}, "Isolation": "default"},
            "Resources": {"Limits": {}, "Reservations": {}},
            "ForceUpdate": 0,
            "Runtime": "container",
        },
        "Extra": [1, {}],
        "Mode": {"Replicated": {"Replicas": 1}},
    }


def test_storing_what_was_stored_changes_nothing() -> None:
    once = service.stored(json.dumps(spec(Mode={"Global": {}})), "")
    assert service.stored(once, "") == once


def test_scaling_and_labels_keep_the_tasks_version() -> None:
    world = create(Snapshot(), spec())
    first = the(world).spec_version
    for parts in (
        {"Mode": {"Replicated": {"Replicas": 9}}},
        {"Labels": {"a": "b"}},
        {"UpdateConfig": {"Parallelism": 2}},
    ):
        world = update(world, spec(**parts))
        assert the(world).spec_version == first
    world = update(world, container(Env=["A=b"]))
    second = the(world).spec_version
    assert second > first
    world = update(world, {**container(Env=["A=b"]), "EndpointSpec": {"Ports": [port(PublishedPort=8080)]}})
    assert the(world).spec_version > second


def test_two_updates_in_one_batch_have_different_versions() -> None:
    world = create(Snapshot(), spec())
    versions = {the(world).spec_version}
    for value in "abc":
        command = UpdateService(
            service=KEY, version=the(world).version, spec=json.dumps(container(User=value))
        )
        world = world.evolve(service.update(NOW, world, command)[0])  # a draft: the version stays
        versions.add(the(world).spec_version)
    assert len(versions) == 4


def test_manual_rollback_swaps_and_swaps_back() -> None:
    old = create(Snapshot(), spec(), auth="one")
    new = update(old, container(User="x"), auth="two")
    back = update(new, container(User="x"), rollback="previous")
    for field in ("spec", "spec_version", "auth"):
        assert getattr(the(back), field) == getattr(the(old), field)
        assert getattr(the(back), f"previous_{field}") == getattr(the(new), field)
    assert the(back).update is not None
    assert the(back).update.state == "rollback_started"  # type: ignore[union-attr]
    again = update(back, spec(), rollback="previous")
    assert the(again).spec == the(new).spec


def test_auth_is_kept_unless_given() -> None:
    world = update(create(Snapshot(), spec(), auth="one"), spec(), auth="two")
    assert the(update(world, spec())).auth == "two"
    assert the(update(world, spec(), auth_from="previous-spec")).auth == "one"
    with pytest.raises(FailedPrecondition, match="does not have a previous spec"):
        update(create(Snapshot(), spec()), spec(), auth_from="previous-spec")


def test_what_the_world_forbids() -> None:
    world = create(Snapshot(), spec())
    with pytest.raises(
        AlreadyExists, match="name conflicts with an existing object: service WEB already exists"
    ):
        create(world, spec(Name="WEB"), key="t" * 25)
    with pytest.raises(OutOfSequence, match="update out of sequence"):
        update(world, spec(), version=the(world).version - 1)
    with pytest.raises(Unimplemented, match="renaming services is not supported"):
        update(world, spec(Name="other"))
    with pytest.raises(Unimplemented, match="service mode change is not allowed"):
        update(world, spec(Mode={"Global": {}}))
    with pytest.raises(FailedPrecondition, match="does not have a previous spec"):
        update(world, spec(), rollback="previous")
    with pytest.raises(NotFound, match="service nope not found"):
        service.remove(NOW, world, RemoveService(service="nope"))
    changes, _ = service.remove(NOW, world, RemoveService(service=KEY))
    assert create(world.evolve(changes, 99, NOW), spec(), key="t" * 25).service_named("web")


@pytest.mark.parametrize(
    ("raw", "kind", "text"),
    [
        (spec(Name="a.b"), InvalidArgument, "name must be valid as a DNS name component"),
        (spec(Name="a" * 64), InvalidArgument, "name must be 63 characters or fewer"),
        (spec(Name="-a"), InvalidArgument, "DNS name component"),
        (spec(TaskTemplate={}), InvalidArgument, "mismatched Runtime"),
        (container(Image=""), InvalidArgument, "ContainerSpec: image reference must be provided"),
        (container(Image="UPPER"), InvalidArgument, '"UPPER" is not a valid repository/tag'),
        (container(Image="a b"), InvalidArgument, "not a valid repository/tag"),
        (container(Image="a" * 64), InvalidArgument, "not a valid repository/tag"),
        (task(Resources={"Limits": {"NanoCPUs": 999_999}}), InvalidArgument, "Must be at least 0.001"),
        (task(Resources={"Reservations": {"MemoryBytes": 4 * 2**20 - 1}}), InvalidArgument, "at least 4MiB"),
        (task(Resources={"SwapBytes": 0}), Unimplemented, "limits on swap"),
        (task(Resources={"Reservations": {"GenericResources": [{}]}}), InvalidArgument, "discrete or named"),
        (task(RestartPolicy={"Condition": "x"}), InvalidArgument, 'invalid RestartCondition: "x"'),
        (task(RestartPolicy={"Delay": -1}), InvalidArgument, "restart-delay cannot be negative"),
        (task(Placement={"Constraints": ["node.role"]}), Unknown, "constraint expected one operator"),
        (task(Placement={"Constraints": ["?==x"]}), Unknown, "key '?' is invalid"),
        (task(Placement={"Preferences": [{}]}), InvalidArgument, "must be spread=LABEL"),
        (task(Runtime="plugin"), Unimplemented, "plugins are not supported"),
        (task(Runtime="attachment"), InvalidArgument, "unsupported runtime"),
        (task(Networks=[{"Target": "n"}]), NotFound, "network n not found"),
        (spec(Networks=[{"Target": "n"}]), NotFound, "network n not found"),
        (task(Networks=[{"Target": "none"}]), InvalidArgument, "cannot be attached to the network 'none'"),
        (task(Networks=[{"Target": "host"}, {"Target": "bridge"}]), InvalidArgument, "can be on no other"),
        (task(Networks=[{"Target": "host"}, {"Target": "host"}]), InvalidArgument, "more than once"),
        (
            task(Networks=[{"Target": "host"}]) | {"EndpointSpec": {"Ports": [{"TargetPort": 80}]}},
            InvalidArgument,
            "the node's own ports",
        ),
        (container(Secrets=[{}]), Unimplemented, "secrets are not supported"),
        (container(Configs=[{}]), Unimplemented, "configs are not supported"),
        (container(Privileges={"NoNewPrivileges": True}), Unimplemented, "privileges"),
        (container(Isolation="hyperv"), Unimplemented, "Windows"),
        (container(Env=["A={{.Nope}}"]), InvalidArgument, "Nope"),
        (
            container(Mounts=[{"Target": "/a"}, {"Target": "/a"}]),
            InvalidArgument,
            "duplicate mount point: /a",
        ),
        (container(Mounts=[{"Target": "a"}]), InvalidArgument, "must be an absolute path"),
        (
            container(Mounts=[{"Type": "bind", "Source": "a", "Target": "/a"}]),
            InvalidArgument,
            "bind mount source",
        ),
        (container(Mounts=[{"Type": "npipe", "Target": "/a"}]), Unimplemented, "npipe"),
        (
            container(Healthcheck={"Interval": 5}),
            InvalidArgument,
            "Interval in HealthConfig cannot be less than 1ms",
        ),
        (
            container(Healthcheck={"Retries": -1}),
            InvalidArgument,
            "Retries in HealthConfig cannot be negative",
        ),
        (spec(Mode={"Replicated": {}, "Global": {}}), InvalidArgument, "must specify only one service mode"),
        (
            spec(Mode={"Replicated": {"Replicas": -1}}),
            InvalidArgument,
            "Number of replicas must be non-negative",
        ),
        (spec(Mode={"Replicated": {"Replicas": 10**9}}), InvalidArgument, "more than one service can have"),
        (spec(Mode={"ReplicatedJob": {}}), Unimplemented, "jobs are not supported"),
        (
            spec(Mode={"GlobalJob": {}}, UpdateConfig={}),
            InvalidArgument,
            "Jobs may not have an update config",
        ),
        (
            spec(UpdateConfig={"MaxFailureRatio": 1.5}),
            InvalidArgument,
            "update-maxfailureratio cannot be less than 0",
        ),
        (spec(UpdateConfig={"FailureAction": "rollback"}), Unimplemented, "--update-failure-action pause"),
        (
            spec(RollbackConfig={"FailureAction": "continue"}),
            Unimplemented,
            "--rollback-failure-action pause",
        ),
        (spec(UpdateConfig={"Order": "x"}), InvalidArgument, "unrecognized update order x"),
        (
            spec(EndpointSpec={"Ports": [{"TargetPort": 80}]}),
            FailedPrecondition,
            "no ingress network is present",
        ),
        (spec(EndpointSpec={"Mode": "dnsrr", "Ports": [{"TargetPort": 80}]}), InvalidArgument, "dnsrr mode"),
        (
            spec(EndpointSpec={"Ports": [port(PublishedPort=1), port(PublishedPort=1)]}),
            InvalidArgument,
            "EndpointSpec: duplicate published ports provided",
        ),
        (spec(EndpointSpec={"Ports": [port(TargetPort=0)]}), InvalidArgument, "invalid target port 0"),
        (spec(EndpointSpec={"Mode": "x"}), InvalidArgument, 'invalid resolution mode: "x"'),
        (
            spec(EndpointSpec={"Ports": [{"TargetPort": 80, "HostIP": "nope"}]}),
            InvalidArgument,
            "invalid host_ip 'nope': an IP address is expected",
        ),
        (
            spec(EndpointSpec={"Ports": [{"TargetPort": 80, "HostIP": "fe80::1"}]}),
            InvalidArgument,
            "host_ip fe80::1: the routing mesh does not reach link-local addresses",
        ),
        (
            spec(EndpointSpec={"Ports": [{"TargetPort": 80, "HostIP": "2001:db8::1%eth0"}]}),
            InvalidArgument,
            "the routing mesh does not reach link-local addresses",
        ),
        (
            spec(EndpointSpec={"Ports": [{"TargetPort": 80, "HostIP": "::ffff:192.0.2.1"}]}),
            InvalidArgument,
            "write it as 192.0.2.1",
        ),
        (
            spec(EndpointSpec={"Ports": [{"TargetPort": 80, "HostIP": "::"}]}),
            InvalidArgument,
            "leave host_ip away to publish on all",
        ),
        (
            spec(EndpointSpec={"Ports": [{"TargetPort": 80, "Source": "x"}]}),
            InvalidArgument,
            "invalid port source 'x': it is preserve, snat or local",
        ),
        (
            spec(EndpointSpec={"Ports": [port(Source="snat")]}),
            InvalidArgument,
            "keeps its client's address: leave source away",
        ),
        *(
            (
                spec(EndpointSpec={"Ports": [{"TargetPort": 80, "Protocol": "sctp", "Source": source}]}),
                InvalidArgument,
                f"source={source} is not possible for SCTP",
            )
            for source in ("preserve", "local")
        ),
        *(
            (
                spec(Labels={"io.swarmpy.drain-delay": text}),
                InvalidArgument,
                f"invalid label io.swarmpy.drain-delay={text}: a number of seconds from 0 to 3600",
            )
            for text in ("10s", "", "-1", "nan", "3601")
        ),
        *(
            (
                spec(Labels={"io.swarmpy.listen-wait": text}),
                InvalidArgument,
                f"invalid label io.swarmpy.listen-wait={text}: a duration from 0s (do not wait) to 1h is expected",
            )
            for text in ("10", "", "-1s", "ten", "1h1s", "1d")
        ),
        (spec(Labels={"a": 1}), InvalidArgument, r"$.Labels"),
        ([], InvalidArgument, "invalid ServiceSpec"),
    ],
)
def test_refused(raw: object, kind: type[Refusal], text: str) -> None:
    with pytest.raises(kind) as refused:
        create(Snapshot(), raw)
    assert text in refused.value.message


@pytest.mark.parametrize(
    "raw",
    [
        container(Image="registry.example.com:5000/a/b_c:v1.2@sha256:" + "a" * 64),
        container(Image="[::1]:5000/x"),
        container(Image="localhost/a--b"),
        container(Privileges={"CredentialSpec": None, "SELinuxContext": {}, "NoNewPrivileges": False}),
        container(Env=["A={{.Node.Hostname}}"], Mounts=[{"Source": "{{.Task.Slot}}", "Target": "/x"}]),
        container(
            Mounts=[{"Type": "tmpfs", "Target": "/t"}, {"Type": "bind", "Source": "/a", "Target": "/b"}]
        ),
        task(Placement={"Constraints": ["node.labels.a != b"], "MaxReplicas": 2}),
        task(Resources={"Limits": {"NanoCPUs": 1_000_000, "MemoryBytes": 4 * 2**20}}),
        spec(Mode={"Global": {}}, UpdateConfig={"FailureAction": "pause", "Parallelism": 0, "Monitor": 1}),
        spec(
            EndpointSpec={
                "Mode": "vip",
                "Ports": [port(PublishedPort=53), port(PublishedPort=53, Protocol="udp")],
            }
        ),
        spec(Labels={"io.swarmpy.drain-delay": "0.5"}),
        *(spec(Labels={"io.swarmpy.listen-wait": text}) for text in ("0", "0s", "1m30s", "1h", "2.5s")),
        spec(EndpointSpec={"Ports": [port(HostIP="::1"), port(HostIP="192.0.2.1", PublishedPort=80)]}),
        spec(Name="a_b-c", Mode={"Replicated": {"Replicas": 0}}),
    ],
)
def test_admitted(raw: object) -> None:
    assert the(create(Snapshot(), raw)).created_at == NOW


def test_host_ports_may_repeat_across_services() -> None:
    raw = {"Ports": [port(PublishedPort=80)]}
    world = create(Snapshot(), spec(EndpointSpec=raw))
    assert len(create(world, spec(Name="b", EndpointSpec=raw), key="t" * 25).services) == 2


@given(st.text(max_size=70))
def test_names_are_admitted_as_swarm_does(name: str) -> None:
    valid = (
        0 < len(name) <= 63
        and all(c.isascii() and (c.isalnum() or c in "-_") for c in name)
        and name[0].isalnum()
        and name[-1].isalnum()
    )
    try:
        create(Snapshot(), spec(Name=name))
        admitted = True
    except InvalidArgument:
        admitted = False
    assert admitted == (valid or name == "")  # a service without a name is given one
