"""The four laws and the invariants, on whatever users, nodes and agents do.

Fixed point: planning again on what a plan made changes nothing. Order-blind: the order in which objects came
into the tables does not matter. Invariants hold after every step. Wakes are in the future, and a plan's wake
is never later than what planning again would ask for (a leader sleeps on the first one).
"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from swarmpy.model.commands import AttachContainer, DetachContainer, RemoveNetwork
from swarmpy.model.errors import FailedPrecondition, Refusal
from swarmpy.model.lifecycle import NodeState, TaskState, may_follow
from swarmpy.model.objects import Attachment
from swarmpy.model.specs import VNI_OPTION
from swarmpy.plan import constraints, manager, progress, tables
from swarmpy.plan.admission import attachment
from swarmpy.plan.admission import network as networks
from swarmpy.plan.explain import explain
from swarmpy.state import rows
from swarmpy.state.changes import Delete
from swarmpy.state.invariants import check, check_transition
from swarmpy.state.snapshot import Snapshot
from swarmpy.state.table import Table

from .worlds import GIB, Stage, node, spec

NAMES = ("web", "db", "agent")
NETWORKS = ("small", "front")
NODES = ("w1", "w2", "w3", "w4")
AGENT_STATES = (
    TaskState.ACCEPTED, TaskState.PREPARING, TaskState.READY, TaskState.STARTING, TaskState.RUNNING,
    TaskState.COMPLETE, TaskState.SHUTDOWN, TaskState.FAILED, TaskState.REJECTED,
)  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def small_tables_are_large():
    """Tables are shared like those of a hundred thousand tasks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "LARGE", 5)
        patch.setattr(rows, "SHARE", 2)
        yield


def shuffled(world: Snapshot) -> Snapshot:
    """The same world, its tables filled in the opposite order."""

    def turned(rows):
        return dict(reversed(list(rows.items())))

    return replace(
        world,
        **{
            kind: Table(turned(getattr(world, kind).rows))
            for kind in ("nodes", "services", "tasks", "networks", "guests")
        },
        _by_service={key: turned(rows) for key, rows in reversed(list(world._by_service.items()))},
        _by_node={key: turned(rows) for key, rows in reversed(list(world._by_node.items()))},
        _by_network={key: turned(rows) for key, rows in reversed(list(world._by_network.items()))},
        _guests_in={key: turned(rows) for key, rows in reversed(list(world._guests_in.items()))},
        _guests_on={key: turned(rows) for key, rows in reversed(list(world._guests_on.items()))},
        _unplaced=turned(world._unplaced),
    )


@st.composite
def templates(draw):
    body = {}
    if draw(st.booleans()):
        body["RestartPolicy"] = {
            "Condition": draw(st.sampled_from(["any", "on-failure", "none"])),
            "Delay": draw(st.sampled_from([0, 2_000_000_000])),
            "MaxAttempts": draw(st.integers(0, 2)),
            "Window": draw(st.sampled_from([0, 30_000_000_000])),
        }
    placement = {}
    if draw(st.booleans()):
        placement["Constraints"] = draw(st.lists(
            st.sampled_from(["node.labels.zone==a", "node.labels.zone!=b", "node.hostname!=w2"]), max_size=1
        ))  # fmt: skip
    if draw(st.booleans()):
        placement["Preferences"] = [{"Spread": {"SpreadDescriptor": "node.labels.zone"}}]
    placement["MaxReplicas"] = draw(st.sampled_from([0, 0, 2]))
    body["Placement"] = placement
    places = draw(st.lists(st.sampled_from(NETWORKS), unique=True, max_size=2))
    if places:
        body["Networks"] = [{"Target": f"network-{name}"} for name in places]
    if draw(st.booleans()):
        body["Resources"] = {"Reservations": {"MemoryBytes": draw(st.sampled_from([GIB, 3 * GIB]))}}
    return body


@st.composite
def specs(draw, name, *, is_global):
    rest = {}
    if draw(st.booleans()):
        rest["UpdateConfig"] = {
            "Parallelism": draw(st.integers(0, 2)),
            "Delay": draw(st.sampled_from([0, 3_000_000_000])),
            "Order": draw(st.sampled_from(["stop-first", "start-first"])),
        }
    if draw(st.integers(0, 3)) == 0:
        rest["EndpointSpec"] = {
            "Ports": [{"TargetPort": 80, "PublishedPort": 8080, "PublishMode": "host", "Protocol": "tcp"}]
        }
    elif draw(st.integers(0, 2)) == 0:
        rest["EndpointSpec"] = draw(st.sampled_from([
            {"Mode": "dnsrr"}, {"Ports": [{"TargetPort": 80}]}, {"Ports": [{"TargetPort": 80}, {"TargetPort": 81}]},
        ]))  # fmt: skip
    replicas = None if is_global else draw(st.integers(0, 5))
    image = draw(st.sampled_from(["app:1", "app:2"]))
    return spec(name, replicas, image=image, template=draw(templates()), **rest)


class Cluster(RuleBasedStateMachine):
    """Users, operators, agents and time, in any order."""

    @initialize(history=st.sampled_from([0, 1, 2, 5]))
    def begin(self, history: int) -> None:
        nodes = [node(name, labels={"zone": "ab"[place % 2]}, features=("encryption", "ipv6")[: 1 + place % 2])
                 for place, name in enumerate(NODES)]  # fmt: skip
        self.stage = Stage(*nodes, planner=self.lawful, history=history)
        self.planner = manager.Planner()
        self.before = self.stage.world
        self.stage.ingress()
        # So small that it fills up.
        self.stage.network("small", Attachable=True, IPAM={"Config": [{"Subnet": "10.9.0.0/29"}]})
        self.stage.network("front", Attachable=True, EnableIPv6=True)

    def lawful(self, now, world):
        """The planner under test, with its laws checked on every use."""
        decided = manager.plan(now, world)
        assert manager.plan(now, shuffled(world)) == decided, "order-blind"
        assert self.planner.plan(now, world) == decided, "the planner with a memory decides alike"
        assert self.planner.plan(now, world) == decided, "also when nothing came of what it decided"
        late = manager.Planner()
        for _ in late.prepare(self.before):
            pass
        assert late.plan(now, world) == decided, "also when it got to know an earlier world in portions"
        after = world.evolve(decided.changes, world.version + 1, now) if decided.changes else world
        again = manager.plan(now, after)
        assert not again.changes, f"not a fixed point: {[c.cause for c in again.changes]}"
        assert decided.wake_at is None or decided.wake_at > now
        if again.wake_at is not None:
            assert decided.wake_at is not None, (again.wake_at - now, [c.cause for c in decided.changes])
            assert decided.wake_at <= again.wake_at
        assert all(change.cause for change in decided.changes)
        keys = [change.key for change in decided.changes]
        assert len(keys) == len(set(keys))
        self.check_assignments(world, after)
        self.check_keys(world.cluster.network_keys, after)
        self.check_mesh(after)
        for change in decided.changes:
            if isinstance(change, Delete) and change.kind == "guest":
                where = after.nodes.get(world.guests[change.id].node_id)
                assert where is None or where.status.state == NodeState.DOWN, change
            elif isinstance(change, Delete) and "must move" not in change.cause:
                task = world.tasks[change.id]
                where = after.nodes.get(task.node_id)
                assert where is None or where.status.state == NodeState.DOWN or not (
                    TaskState.ASSIGNED <= task.status.state <= TaskState.RUNNING
                ), change  # fmt: skip
        # A leader may commit only the first part of a large plan, and plan again at once.
        part = world.evolve(decided.changes[: len(decided.changes) // 2], world.version + 1, now)
        rest = manager.plan(now, part)
        assert self.planner.plan(now, part) == rest, "also when only a part was committed"
        assert late.plan(now, after) == again, "also when all was"
        whole = part.evolve(rest.changes, part.version + 1, now)
        assert not manager.plan(now, whole).changes
        assert check(whole) == []
        assert check_transition(world, whole) == []
        self.check_parts(now, world, len(decided.changes))
        violations = check(after)
        assert violations == [], violations
        violations = check_transition(self.before, after)
        assert violations == [], violations
        self.before = after
        return decided

    def check_parts(self, now, world, changes):
        """A step may stop after any of its changes, and go on in the next plan."""
        slow, remembering = world, manager.Planner(most=1)
        for _ in range(20 * changes + 5):
            some = manager.plan(now, slow, most=1)
            assert remembering.plan(now, slow) == some, "the planner with a memory decides alike"
            if not some.changes:
                assert some.wake_at is None or some.wake_at > now
                break
            slow = slow.evolve(some.changes, slow.version + 1, now)
            assert check(slow) == []
        else:
            raise AssertionError("never at rest")
        assert check_transition(world, slow) == []

    def check_assignments(self, old, new):
        for task in new.tasks:
            was = old.tasks.get(task.id)
            known = was is not None and was.status.state >= TaskState.ASSIGNED
            if task.status.state == TaskState.ASSIGNED and not known:
                where = new.nodes[task.node_id]
                assert constraints.satisfied(task.view.placement.constraints, where)
                most = task.view.placement.max_replicas
                same = [one for one in new.tasks_on(where.id)
                        if one.spec_version == task.spec_version and one.service_id == task.service_id
                        and one.desired <= TaskState.COMPLETE
                        and TaskState.ASSIGNED <= one.status.state <= TaskState.RUNNING]  # fmt: skip
                assert not most or len(same) <= most

    def check_keys(self, was, after):
        """Whoever heard of the change and whoever did not can read each other."""
        ring = after.cluster.network_keys
        if any(network.view.encrypted for network in after.networks):
            assert len(ring.keys) == 3
            assert len({key.secret for key in ring.keys}) == 3
        if was.keys:
            assert {was.sending, ring.sending} <= {key.number for key in was.keys} & {
                key.number for key in ring.keys
            }
            assert set(was.keys) & set(ring.keys) >= {key for key in was.keys if key.number == ring.sending}
        for network in after.networks:
            assert bool(tables.table(after, network).keys) == network.view.encrypted

    def check_mesh(self, after):
        """IPv6 in the routing mesh is where kernels have it, and nowhere else."""
        ingress = after.ingress_network()
        six = {one.id for one in after.nodes if "ipv6" in one.description.features}
        assert {one.id for one in after.nodes if any(":" in address for address in one.ingress)} == (
            six if ingress else set()
        )
        for one in tables.table(after, ingress).endpoints if ingress else ():
            assert [":" in address for address in one.addresses] == [
                False,
                *([True] if one.node_id in six else []),
            ]

    # ---- users

    @precondition(lambda self: len(self.stage.world.services) < len(NAMES))
    @rule(data=st.data())
    def create(self, data):
        free = [name for name in NAMES if f"service-{name}" not in self.stage.world.services]
        name = data.draw(st.sampled_from(free))
        self.stage.create(data.draw(specs(name, is_global=name == "agent")))

    @precondition(lambda self: len(self.stage.world.services))
    @rule(data=st.data())
    def update(self, data):
        service = data.draw(st.sampled_from(list(self.stage.world.services)))
        self.stage.update(service.id, data.draw(specs(service.name, is_global=service.name == "agent")))

    @precondition(lambda self: len(self.stage.world.services))
    @rule(data=st.data(), replicas=st.integers(0, 6))
    def scale(self, data, replicas):
        service = data.draw(st.sampled_from(list(self.stage.world.services)))
        raw = json.loads(service.spec)
        if "Replicated" in raw["Mode"]:
            raw["Mode"] = {"Replicated": {"Replicas": replicas}}
            self.stage.update(service.id, json.dumps(raw))

    @precondition(lambda self: len(self.stage.world.services))
    @rule(data=st.data())
    def remove(self, data):
        self.stage.remove(data.draw(st.sampled_from(list(self.stage.world.services))).id)

    @rule(
        name=st.sampled_from(NODES), key=st.sampled_from(["g1", "g2", "g3", "g4"]),
        nets=st.lists(st.sampled_from(NETWORKS), min_size=1, max_size=2),
    )  # fmt: skip
    def attach(self, name, key, nets):
        """A user runs a container in the cluster's networks, or connects one to more of them."""
        places = tuple(Attachment(network_id=f"network-{one}") for one in nets)
        command = AttachContainer(id=key, node=f"node-{name}", name=key, networks=places)
        try:
            changes, _ = attachment.attach(self.stage.now, self.stage.world, command)
        except Refusal:
            return
        self.stage.put(*changes)
        self.stage.plan()

    @precondition(lambda self: len(self.stage.world.guests))
    @rule(data=st.data(), nets=st.lists(st.sampled_from(NETWORKS), max_size=1))
    def detach(self, data, nets):
        guest = data.draw(st.sampled_from(list(self.stage.world.guests)))
        command = DetachContainer(
            id=guest.id, node=guest.node_id, networks=tuple(f"network-{one}" for one in nets)
        )
        changes, _ = attachment.detach(self.stage.now, self.stage.world, command)
        self.stage.put(*changes)
        self.stage.plan()

    # ---- operators

    @rule()
    def mesh(self):
        """The ingress network goes when nobody needs it, and comes back."""
        present = self.stage.world.ingress_network()
        if present is None:
            self.stage.ingress()
            return
        try:
            changes, _ = networks.remove(self.stage.now, self.stage.world, RemoveNetwork(network=present.id))
        except FailedPrecondition:
            return
        self.stage.put(*changes)
        self.stage.plan()

    @rule()
    def seal(self):
        """An encrypted network comes, or goes."""
        if "network-sealed" not in self.stage.world.networks:
            # Its own VXLAN id: `mesh` brings the ingress network back with the one that it began with.
            options = {"encrypted": "", VNI_OPTION: "5000"}
            self.stage.network("sealed", Options=options, IPAM={"Config": [{"Subnet": "10.8.0.0/24"}]})
            return
        self.stage.put(Delete("network", "network-sealed"))
        self.stage.plan()

    @rule(name=st.sampled_from(NODES), availability=st.sampled_from(["active", "pause", "drain"]))
    def set_availability(self, name, availability):
        if f"node-{name}" in self.stage.world.nodes:
            self.stage.set_node(name, availability=availability)

    @rule(name=st.sampled_from(NODES), six=st.booleans())
    def boot(self, name, six):
        """A node comes back with another kernel."""
        if f"node-{name}" in self.stage.world.nodes:
            self.stage.set_node(name, about={"features": ("encryption", "ipv6") if six else ("encryption",)})

    @rule(name=st.sampled_from(NODES), zone=st.sampled_from(["a", "b", ""]))
    def label(self, name, zone):
        if f"node-{name}" in self.stage.world.nodes:
            self.stage.set_node(name, labels={"zone": zone} if zone else {})

    @rule(name=st.sampled_from(NODES), state=st.sampled_from(NodeState))
    def see(self, name, state):
        present = self.stage.world.nodes.get(f"node-{name}")
        if present is not None and not (present.status.state == NodeState.DOWN and state != NodeState.READY):
            self.stage.set_node(name, state=state)

    @rule(name=st.sampled_from(NODES[2:]))
    def remove_node(self, name):
        if f"node-{name}" in self.stage.world.nodes:
            self.stage.remove_node(name)

    # ---- agents and time

    @precondition(lambda self: any(task.node_id for task in self.stage.world.tasks))
    @rule(data=st.data(), state=st.sampled_from(AGENT_STATES))
    def report(self, data, state):
        task = data.draw(st.sampled_from([task for task in self.stage.world.tasks if task.node_id]))
        if task.status.state >= TaskState.ASSIGNED and may_follow(task.status.state, state):
            self.stage.report(task, state, "task: non-zero exit (1)" if state == TaskState.FAILED else "")

    @rule()
    def settle(self):
        self.stage.agents()

    @rule(seconds=st.sampled_from([0.1, 1, 5, 61, 86_401]))
    def wait(self, seconds):
        self.stage.pass_time(seconds)

    @rule()
    def look(self):
        world = self.stage.world
        for service in world.services:
            explain(world, service.id)
        for network in world.networks:
            found = tables.table(world, network)
            assert len({one.mac for one in found.endpoints}) == len(found.endpoints)
            assert len({one.number for one in found.nodes}) == len(found.nodes)
        for service in world.services:
            progress.progress(world, service)

    def teardown(self):
        """When everything is well again, every service gets what it asks for, or a reason."""
        if not hasattr(self, "stage"):
            return
        stage = self.stage
        for present in list(stage.world.nodes):
            name = present.id.removeprefix("node-")
            stage.set_node(name, availability="active", state=NodeState.READY)
        for _ in range(60):
            stage.agents(rounds=40)
            wake = stage.plan().wake_at
            if wake is None or wake - stage.now > 3600 * 10**9:
                break
            stage.now = wake
            stage.plan()
        else:
            raise AssertionError("the cluster never comes to rest")
        for service in stage.world.services:
            for task in stage.live(service.id):
                assert task.status.state == TaskState.RUNNING or task.status.err or self.blocked(task)

    def blocked(self, task):
        """Prepared, but waiting for something that waits for room."""
        return task.desired == TaskState.READY


TestLaws = Cluster.TestCase
TestLaws.settings = settings(
    max_examples=120, stateful_step_count=30, deadline=None, report_multiple_bugs=False, derandomize=True,
    # Shrinking such long stories takes minutes; the failing one is printed as it is.
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)  # fmt: skip
