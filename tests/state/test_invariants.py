"""Every invariant catches what it is there for."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from msgspec.structs import replace as with_

from swarmpy.model.lifecycle import NodeState, TaskState
from swarmpy.model.objects import (
    Attachment,
    Cluster,
    Description,
    Guest,
    Network,
    Node,
    NodeStatus,
    Service,
    Subnet,
    Task,
    TaskStatus,
)  # fmt: skip
from swarmpy.model.specs import Port
from swarmpy.state.changes import Delete, Put
from swarmpy.state.invariants import RULES, STEP_RULES, check, check_transition
from swarmpy.state.snapshot import Snapshot

SERVICE = Service(id="s", name="web", spec='{"Name":"web"}')
NODE = Node(
    id="n", spec="{}", status=NodeStatus(state=NodeState.READY), description=Description(nano_cpus=10**9)
)


def task(key="t", state=TaskState.RUNNING, **fields):
    fields = {"node_id": "n", "slot": 1} | fields
    return Task(id=key, service_id="s", service_name="web", status=TaskStatus(state=state), **fields)


def world(*items, base=None):
    return (base or Snapshot()).evolve([Put(one) for one in items], (base.version if base else 0) + 1, 10)


def reserving(key):
    template = json.dumps({"Resources": {"Reservations": {"NanoCPUs": 6 * 10**8}}})
    return task(key, template=template, slot=int(key[1:]))


ended = [task(f"t{n}", TaskState.FAILED, desired=TaskState.SHUTDOWN) for n in range(7)]

NET = Network(id="x", name="front", vni=4097, subnets=(Subnet(subnet="10.0.1.0/24", gateway="10.0.1.1"),))
ATTACHABLE = with_(NET, spec='{"Attachable":true}')
GUEST = Guest(id="g", node_id="n", networks=(Attachment(network_id="x", addresses=("10.0.1.5/24",)),))
PORT = Port(target_port=80, published_port=8080)


def placed(key, address, **fields):
    place = Attachment(network_id="x", addresses=(address,))
    return task(key, slot=int(key[1:]), networks=(place,), **fields)


BAD = [
    ("addresses-unique", world(SERVICE, NODE, NET, placed("t1", "10.0.1.5/24"), placed("t2", "10.0.1.5/24"))),
    ("addresses-inside", world(SERVICE, NODE, NET, placed("t1", "10.0.2.5/24"))),
    ("subnets-disjoint", world(NET, with_(NET, id="y", name="back", vni=4098))),
    ("network-ids-unique", world(NET, with_(NET, id="y", name="back", subnets=()))),
    ("ports-unique", world(with_(SERVICE, ports=(PORT,)), with_(SERVICE, id="r", name="db", ports=(PORT,)))),
    ("indexes", replace(world(SERVICE, task()), _by_node={})),
    ("indexes", replace(world(ATTACHABLE, GUEST), _guests_in={})),
    ("indexes", replace(world(ATTACHABLE, GUEST), _guests_on={})),
    ("addresses-unique", world(SERVICE, NODE, ATTACHABLE, GUEST, placed("t1", "10.0.1.5/24"))),
    (
        "addresses-inside",
        world(ATTACHABLE, with_(GUEST, networks=(Attachment(network_id="x", addresses=("10.0.2.5/24",)),))),
    ),
    ("guests-settled", world(NET, GUEST)),
    ("guests-settled", world(GUEST)),
    ("guests-settled", world(ATTACHABLE, with_(GUEST, networks=()))),
    ("guests-settled", world(ATTACHABLE, with_(GUEST, networks=(Attachment(network_id="x"),)))),
    ("guests-settled", world(SERVICE, NODE, ATTACHABLE, with_(GUEST, id="t"), task())),
    ("names-unique", world(SERVICE, with_(SERVICE, id="r", name="WEB"))),
    ("versions-bounded", replace(world(SERVICE), version=-5)),
    ("specs-readable", world(with_(SERVICE, spec='{"Name":7}'))),
    ("placed-when-told", world(SERVICE, task(node_id=""))),
    ("slots", world(SERVICE, NODE, task(slot=0))),
    ("one-running", world(SERVICE, NODE, task(), task("u"))),
    ("reservations", world(SERVICE, NODE, reserving("t1"), reserving("t2"))),
    ("history-bounded", world(Cluster(id="c"), SERVICE, NODE, *ended)),
]


@pytest.mark.parametrize(("name", "bad"), BAD, ids=[name for name, _ in BAD])
def test_each_rule_catches_its_fault(name, bad):
    found = {violation.name for violation in check(bad)}
    assert name in found


START = world(SERVICE, NODE, task())
FRESH = world(SERVICE, NODE, task(state=TaskState.NEW, node_id="", desired=TaskState.READY, not_before=99))
STEPS = [
    ("time-forward", START, replace(START, at=1)),
    ("state-monotone", START, world(task(state=TaskState.STARTING), base=START)),
    ("desired-monotone", START, world(task(desired=TaskState.READY), base=START)),
    ("task-fixed", START, world(task(node_id="m"), base=START)),
    ("task-fixed", START, world(task(slot=2), base=START)),
    ("placed-on-ready", FRESH,
     world(with_(NODE, spec='{"Availability":"drain"}'), task(state=TaskState.ASSIGNED, not_before=99), base=FRESH)),
    ("placed-on-ready", FRESH, world(
        with_(NODE, status=NodeStatus(state=NodeState.DISCONNECTED)),
        task(state=TaskState.ASSIGNED, not_before=99), base=FRESH)),
    ("delay-obeyed", FRESH, world(task(state=TaskState.ASSIGNED, not_before=99), base=FRESH)),
    ("places-fixed", world(NET, placed("t1", "10.0.1.5/24")), world(NET, placed("t1", "10.0.1.6/24"))),
]  # fmt: skip


@pytest.mark.parametrize(("name", "old", "new"), STEPS)
def test_each_step_rule_catches_its_fault(name, old, new):
    assert name in {violation.name for violation in check_transition(old, new)}


def test_all_rules_are_tested_and_good_worlds_pass():
    assert {name for name, _, _ in RULES} == {name for name, _ in BAD}
    assert {name for name, _, _ in STEP_RULES} == {name for name, _, _ in STEPS}
    assert check(Snapshot()) == check(START) == check(world(NODE, ATTACHABLE, GUEST)) == []
    assert check_transition(Snapshot(), START) == []
    assert check_transition(START, START.evolve([Delete("task", "t")], 2, 11)) == []
