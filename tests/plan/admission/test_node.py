"""Admission of what happens to nodes and to the cluster itself."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from swarmpy.model import commands as c
from swarmpy.model.errors import FailedPrecondition, InvalidArgument, NotFound, OutOfSequence, Refusal
from swarmpy.model.lifecycle import NodeState, Role, TaskState
from swarmpy.model.objects import (
    Cluster,
    Description,
    Network,
    Node,
    NodeStatus,
    Service,
    Subnet,
    Task,
    TaskStatus,
)
from swarmpy.model.specs import Port
from swarmpy.plan.admission import cluster, node, tasks
from swarmpy.plan.admission.admit import admit
from swarmpy.state.changes import Put
from swarmpy.state.snapshot import Snapshot

NOW = 1_000_000_000_000


def manager(name: str, *, seat: bool = True) -> Node:
    return Node(
        id=name,
        spec='{"Role":"manager","Availability":"active"}',
        role=Role.MANAGER,
        status=NodeStatus(state=NodeState.READY, address="10.0.0.1", since=1),
        manager_address=f"{name}:2377" if seat else "",
    )


def worker(name: str, state: NodeState = NodeState.READY) -> Node:
    spec = '{"Role":"worker","Availability":"active"}'
    return Node(id=name, spec=spec, status=NodeStatus(state=state, since=1))


def world(*items: Node | Service | Task) -> Snapshot:
    return Snapshot().evolve([Put(Cluster(id="c")), *(Put(item) for item in items)], index=7, at=NOW)


def do(before: Snapshot, command: c.AnyCommand, *reachable: str) -> Snapshot:
    changes, _ = admit(NOW, before, command, frozenset(reachable))
    return before.evolve(changes, index=8)


def published(*numbers: int, mode: str = "ingress") -> Service:
    return Service(
        id="s", name="web", spec="{}",
        ports=tuple(Port(target_port=80, published_port=one, publish_mode=mode) for one in numbers),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("address", "data", "named"),
    [
        ("10.20.0.9", "", "--advertise-addr"),
        ("192.0.2.9", "10.20.0.255", "--data-path-addr"),
        ("fd12::9", "", "--advertise-addr"),
        ("192.0.2.9", "192.0.2.10", ""),
        ("10.20.1.0", "", ""),
        ("node-9.example", "", ""),
    ],
)
def test_a_node_inside_a_networks_subnet_is_not_let_in(address: str, data: str, named: str) -> None:
    subnets = (
        Subnet(subnet="10.20.0.0/24", gateway="10.20.0.1"),
        Subnet(subnet="fd12::/64", gateway="fd12::1"),
    )
    net = Network(id="n", name="back", spec="{}", subnets=subnets)
    before = world().evolve([Put(net)], index=8)
    join = c.JoinNode(
        id="w9", role=Role.WORKER, address=address, certificate="PEM", hostname="nine", data_address=data
    )
    if not named:
        assert "w9" in do(before, join).nodes
        return
    with pytest.raises(InvalidArgument) as refused:
        do(before, join)
    held = data or address
    subnet = "fd12::/64" if ":" in held else "10.20.0.0/24"
    assert refused.value.message == (
        f"this node's address {held} lies in {subnet}, the subnet of network back: its tasks could not reach this "
        f"machine, nor it them; join with {named} and an address outside of it, or make the network anew with "
        "another subnet"
    )


def test_a_manager_whose_port_is_published_is_not_let_in() -> None:
    join = c.JoinNode(
        id="m2", role=Role.MANAGER, address="10.0.0.2", certificate="PEM", hostname="two", listen_port=2400
    )
    with pytest.raises(FailedPrecondition) as refused:
        do(world(published(2400)), join)
    assert refused.value.message == (
        "node two cannot be a manager: it listens on port 2400, which service 'web' (s) has published through "
        "the routing mesh on every node; join with another --listen-addr, or publish the service at another port"
    )
    for harmless in (published(2401), published(2400, mode="host")):
        assert do(world(harmless), join).nodes["m2"].listen_port == 2400
    as_worker = do(world(published(2400)), replace(join, role=Role.WORKER))
    assert as_worker.nodes["m2"].listen_port == 2400


def test_a_worker_whose_port_is_published_is_not_promoted() -> None:
    before = world(replace(worker("w1"), listen_port=2400), published(2400), manager("m1"))
    promote = c.UpdateNode(node="w1", version=7, spec='{"Role":"manager","Availability":"active"}')
    with pytest.raises(FailedPrecondition) as refused:
        do(before, promote)
    assert "let the node join again with another --listen-addr" in refused.value.message
    drain = replace(promote, spec='{"Role":"worker","Availability":"drain"}')
    assert do(before, drain).nodes["w1"].view.availability == "drain"
    unknown = world(
        worker("w1"), published(2400), manager("m1")
    )  # it joined before nodes said where they listen
    assert do(unknown, promote).nodes["w1"].view.role == "manager"


def test_init_makes_the_cluster_and_its_first_manager() -> None:
    command = c.InitCluster(
        cluster=Cluster(id="c"), node_id="m1", address="10.0.0.1", manager_address="10.0.0.1:2377",
        certificate="PEM", description=Description(hostname="one"), availability="drain",
    )  # fmt: skip
    made = do(Snapshot(), command)
    assert made.nodes["m1"].role is Role.MANAGER
    assert made.nodes["m1"].view.availability == "drain"
    with pytest.raises(FailedPrecondition):
        do(made, command)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ('{"Name":"other"}', "the cluster's name is fixed"),
        ('{"CAConfig":{"NodeCertExpiry":1000}}', "minimum certificate expiry time is: 1h0m0s"),
        ('{"CAConfig":{"ExternalCAs":[{"URL":"x"}]}}', "ExternalCAs is not supported"),
        ('{"Dispatcher":{"HeartbeatPeriod":-1}}', "negative"),
        (
            '{"Dispatcher":{"HeartbeatPeriod":99999999}}',
            "invalid heartbeat period 0.099999999 s: nodes would count as "
            "dead between two beats; choose 100ms at least, such as the usual 5s",
        ),
        ('{"EncryptionConfig":{"AutoLockManagers":true}}', "autolock is not supported"),
        ('{"Dispatcher":{"HeartbeatPeriod":"soon"}}', "$.Dispatcher.HeartbeatPeriod"),
    ],
)
def test_cluster_specs_that_cannot_be(spec: str, sentence: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        do(world(), c.UpdateCluster(version=7, spec=spec))
    assert sentence in refused.value.message


def test_updating_the_cluster_keeps_tokens_that_are_not_rotated() -> None:
    before = world().evolve([Put(Cluster(id="c", worker_token="w", manager_token="m"))], index=7)
    after = do(before, c.UpdateCluster(version=7, spec="{}", new_worker_token="w2"))
    assert after.cluster is not None
    assert (after.cluster.worker_token, after.cluster.manager_token) == ("w2", "m")
    with pytest.raises(OutOfSequence):
        do(before, c.UpdateCluster(version=6, spec="{}"))
    with pytest.raises(FailedPrecondition):
        cluster.present(Snapshot())


def test_joining() -> None:
    after = do(world(), c.JoinNode(id="w1", role=Role.WORKER, address="10.0.0.2", certificate="PEM"))
    assert after.nodes["w1"].status.state is NodeState.UNKNOWN
    assert after.nodes["w1"].view.role == "worker"
    with pytest.raises(InvalidArgument):
        do(world(), c.JoinNode(id="w1", role=Role.WORKER, address="", certificate="", availability="often"))


def test_all_nodes_carry_networks_over_one_ip_version() -> None:
    def joins(before: Snapshot, key: str, address: str, **more: str) -> Snapshot:
        return do(before, c.JoinNode(id=key, role=Role.WORKER, address=address, certificate="PEM", **more))

    old = joins(Snapshot(cluster=world().cluster), "w1", "10.0.0.2")
    with pytest.raises(InvalidArgument) as refused:
        joins(old, "w2", "2001:db8::2")
    assert refused.value.message == (
        "this node would carry overlay networks over IPv6 (2001:db8::2), but node w1 does over IPv4 (10.0.0.2), and "
        "no network can use both: join with --data-path-addr and an IPv4 address of this node"
    )
    assert joins(old, "w2", "2001:db8::2", data_address="10.0.0.3").nodes["w2"].vtep == "10.0.0.3"
    six = joins(Snapshot(cluster=world().cluster), "w1", "2001:db8::1")
    assert joins(six, "w2", "2001:db8::2").nodes["w2"].vtep == "2001:db8::2"
    with pytest.raises(InvalidArgument, match=r"over IPv4 \(10\.0\.0\.2\), but node w1 does over IPv6"):
        joins(six, "w2", "10.0.0.2")


@pytest.mark.parametrize(
    ("command", "kind", "sentence"),
    [
        (c.UpdateNode(node="w9", version=7, spec="{}"), NotFound, "node w9 not found"),
        (c.UpdateNode(node="w1", version=6, spec="{}"), OutOfSequence, "update out of sequence"),
        (c.UpdateNode(node="w1", version=7, spec='{"Role":"king"}'), InvalidArgument, "invalid Role"),
        (
            c.UpdateNode(node="w1", version=7, spec='{"Availability":"maybe"}'),
            InvalidArgument,
            "invalid Availability",
        ),
        (c.RemoveNode(node="w1"), FailedPrecondition, "is not down and can't be removed"),
        (c.RemoveNode(node="m1", force=True), FailedPrecondition, "must be demoted"),
    ],
)
def test_refusals(command: c.AnyCommand, kind: type[Refusal], sentence: str) -> None:
    with pytest.raises(kind) as refused:
        do(world(manager("m1"), worker("w1")), command, "m1")
    assert sentence in refused.value.message


DEMOTED = '{"Role":"worker","Availability":"active"}'


def test_demotions_that_would_cost_the_quorum_are_refused() -> None:
    alone = world(manager("m1"))
    with pytest.raises(FailedPrecondition, match="last manager"):
        do(alone, c.UpdateNode(node="m1", version=7, spec=DEMOTED), "m1")
    three = world(manager("m1"), manager("m2"), manager("m3"))
    with pytest.raises(FailedPrecondition, match="loss of quorum"):
        do(three, c.UpdateNode(node="m3", version=7, spec=DEMOTED), "m1", "m3")
    after = do(three, c.UpdateNode(node="m3", version=7, spec=DEMOTED), "m1", "m2", "m3")
    assert node.effective_role(after.nodes["m3"]) is Role.WORKER
    assert after.nodes["m3"].role is Role.MANAGER


def test_a_removed_node_is_revoked() -> None:
    after = do(world(manager("m1"), worker("w1", NodeState.DOWN)), c.RemoveNode(node="w1"))
    assert after.nodes.get("w1") is None
    assert after.cluster is not None
    assert [entry.node_id for entry in after.cluster.revoked] == ["w1"]


def test_a_node_that_is_down_stays_down_until_it_is_ready() -> None:
    down = world(worker("w1", NodeState.DOWN))
    same = do(down, c.ObserveNode(node="w1", state=NodeState.DISCONNECTED))
    assert same.nodes["w1"].status.state is NodeState.DOWN
    back = do(down, c.ObserveNode(node="w1", state=NodeState.READY, address="10.0.0.9"))
    status = back.nodes["w1"].status
    assert (status.state, status.since, status.address) == (NodeState.READY, NOW, "10.0.0.9")


def test_roles_certificates_and_goodbyes() -> None:
    before = world(manager("m1"), worker("w1"))
    after = do(before, c.SetRole(node="w1", role=Role.MANAGER, manager_address="w1:2377"))
    assert after.nodes["w1"].manager_address == "w1:2377"
    assert (
        node.set_role(NOW, after, c.SetRole(node="w1", role=Role.MANAGER, manager_address="w1:2377"))[0] == []
    )
    assert do(before, c.RenewCertificate(node="w1", certificate="P2")).nodes["w1"].certificate == "P2"
    assert do(before, c.Leave(node="w1")).nodes["w1"].status.state is NodeState.DOWN


def report(before: Snapshot, state: TaskState, by: str = "w1") -> TaskState:
    command = c.ReportTasks(node=by, statuses=(("t", TaskStatus(state=state)), ("unknown", TaskStatus())))
    changes, _ = tasks.report(NOW, before, command)
    return before.evolve(changes).tasks["t"].status.state


def test_reports_only_move_the_nodes_own_tasks_and_only_forward() -> None:
    running = Task(
        id="t", service_id="s", service_name="web", node_id="w1", status=TaskStatus(state=TaskState.RUNNING)
    )
    before = world(worker("w1"), running)
    assert report(before, TaskState.FAILED) is TaskState.FAILED
    assert report(before, TaskState.STARTING) is TaskState.RUNNING
    assert report(before, TaskState.ORPHANED) is TaskState.RUNNING
    assert report(before, TaskState.FAILED, by="w2") is TaskState.RUNNING
