"""Guests: containers that are no tasks get places, are found, and leave nothing behind."""

from __future__ import annotations

import pytest

from swarmpy.model.commands import AttachContainer, DetachContainer, Leave, RemoveNetwork
from swarmpy.model.errors import FailedPrecondition, InvalidArgument, NotFound, PermissionDenied, Refusal
from swarmpy.model.fabric import Endpoint, Table
from swarmpy.model.lifecycle import NodeState
from swarmpy.model.objects import Attachment, Guest
from swarmpy.plan import tables, visits
from swarmpy.plan.admission.admit import admit
from swarmpy.plan.container import OPTION
from swarmpy.state import image
from swarmpy.state.invariants import check

from .worlds import Stage, node, spec


def stage() -> Stage:
    made = Stage(node("w1"), node("w2"))
    made.network("front", Attachable=True)
    made.network("small", Attachable=True, IPAM={"Config": [{"Subnet": "10.9.0.0/30"}]})
    made.network("closed")
    return made


def ask(found: Stage, command: object) -> None:
    changes, _ = admit(found.now, found.world, command, frozenset())
    found.put(*changes)
    found.plan()
    assert check(found.world) == []


def attach(
    found: Stage, key: str, *names: str, on: str = "w1", ip: tuple[str, ...] = (), **more: str
) -> Guest:
    places = tuple(Attachment(network_id=f"network-{one}", addresses=ip) for one in names)
    ask(found, AttachContainer(id=key, node=f"node-{on}", networks=places, **more))
    return found.world.guests[key]


def test_a_guest_has_an_address_of_its_own_and_is_told_to_both_nodes():
    found = stage()
    service = found.create(spec("web", 1, template={"Networks": [{"Target": "network-front"}]}))
    guest = attach(found, "g", "front", on="w2", name="box", container_id="c" * 64)
    held = [found.world.services[service].vips[0].address, found.live(service)[0].networks[0].addresses[0]]
    assert guest.networks[0].addresses[0] not in held
    table = tables.table(found.world, found.world.networks["network-front"])
    (end,) = [one for one in table.endpoints if one.id == "g"]
    assert (end.name, end.hostname, end.service_id, end.serving) == ("box", "c" * 12, "", False)
    assert "network-front" in tables.of_node(found.world, "node-w2")
    assert image.load(image.save(found.world)).guests_in("network-front") == {"g": guest}


def test_the_last_address_goes_to_one_and_is_free_again_when_that_leaves():
    found = stage()
    attach(found, "g1", "small")
    with pytest.raises(FailedPrecondition, match="no address is free in network small"):
        attach(found, "g2", "front", "small")
    assert "g2" not in found.world.guests, "all places or none"
    ask(found, DetachContainer(id="g1", node="node-w1"))
    assert attach(found, "g2", "front", "small").networks[1].addresses == ("10.9.0.2/30",)


def test_saying_it_again_changes_nothing_and_places_come_and_go_one_by_one():
    found = stage()
    first = attach(found, "g", "front", name="box")
    assert attach(found, "g", "front").networks == first.networks
    before = found.world.version
    attach(found, "g", "front", name="box")
    assert found.world.guests["g"] == first
    assert found.world.version <= before + 1
    assert len(attach(found, "g", "small").networks) == 2
    ask(found, DetachContainer(id="g", node="node-w1", networks=("network-small",)))
    assert found.world.guests["g"].networks == first.networks
    assert not found.world.guests_in("network-small")
    ask(found, DetachContainer(id="g", node="node-w1", networks=("network-front",)))
    assert not found.world.guests.rows
    ask(found, DetachContainer(id="g", node="node-w1"))


def test_an_address_that_is_asked_for_is_given_unless_it_is_anothers():
    found = stage()
    assert attach(found, "g1", "front", ip=("10.0.0.77",)).networks[0].addresses == ("10.0.0.77/24",)
    for address, kind, text in (
        ("10.0.0.77/24", FailedPrecondition, "Address already in use"),
        ("10.0.0.1", FailedPrecondition, "Address already in use"),
        ("10.0.0.255", FailedPrecondition, "Address already in use"),
        ("10.5.0.1", InvalidArgument, "does not belong to any of this network's subnets"),
        ("nonsense", InvalidArgument, "does not belong to any of this network's subnets"),
    ):
        with pytest.raises(kind, match=text):
            attach(found, "g2", "front", ip=(address,))


@pytest.mark.parametrize(
    ("command", "kind", "text"),
    [
        (AttachContainer(id="g2", node="node-w1", networks=(Attachment(network_id="network-closed"),)),
         PermissionDenied, "network closed not manually attachable"),
        (AttachContainer(id="g2", node="node-w1", networks=(Attachment(network_id="x"),)), NotFound,
         "network x not found"),
        (AttachContainer(id="g2", node="nobody"), NotFound, "node nobody not found"),
        (AttachContainer(id="g2", node="node-w1"), InvalidArgument, "no network is named"),
        (AttachContainer(id="", node="node-w1"), InvalidArgument, "invalid id"),
        (AttachContainer(id="g", node="node-w2"), PermissionDenied, "belongs to another node"),
        (DetachContainer(id="g", node="node-w2"), PermissionDenied, "belongs to another node"),
        (RemoveNetwork(network="network-front"), FailedPrecondition, "in use by container box on node w1"),
    ],
)  # fmt: skip
def test_refusals(command: object, kind: type[Refusal], text: str):
    found = stage()
    attach(found, "g", "front", name="box")
    with pytest.raises(kind, match=text):
        ask(found, command)


def test_guests_go_with_their_node_and_free_what_tasks_wait_for():
    found = stage()
    attach(found, "g", "small")
    body = spec(
        "web", 1, template={"Networks": [{"Target": "network-small"}]}, EndpointSpec={"Mode": "dnsrr"}
    )
    service = found.create(body)
    assert "no address is free" in found.live(service)[0].status.err
    found.set_node("w1", state=NodeState.DOWN)
    found.pass_time(3600)
    assert "g" in found.world.guests, "it may come back"
    found.pass_time(23 * 3600)
    assert not found.world.guests.rows
    assert found.live(service)[0].networks[0].addresses == ("10.9.0.2/30",)
    attach(found, "g", "front", on="w2")
    ask(found, Leave(node="node-w2"))
    assert not found.world.guests.rows
    found.set_node("w1", state=NodeState.READY)
    attach(found, "g", "front")
    found.remove_node("w1")
    assert not found.world.guests.rows


# ---------------------------------------------------------------- what a node tells


def seen(**options: str) -> visits.Visitor | None:
    given = {OPTION + "task": "g", OPTION + "network": "n", OPTION + "addresses": "10.0.0.5/24"} | options
    return visits.visitor_of("c" * 64, "box", "box1", {"front": given})


def told(*guests: str, name: str = "box") -> dict[str, Table]:
    ends = tuple(
        Endpoint(id=one, name=name, hostname="box1", node_id="n1", vtep="v", mac="m", addresses=("10.0.0.5",))
        for one in guests
    )
    other = Endpoint(id="t", name="web.1.t", service_id="s", node_id="n1", vtep="v", mac="m", addresses=())
    far = Endpoint(id="f", name="far", node_id="n2", vtep="v", mac="m", addresses=())
    return {
        "n": Table(
            id="n", name="front", vni=1, mtu=1450, subnets=(), gateways=(), endpoints=(*ends, other, far)
        )
    }


def look(tables_: dict[str, Table], *here: visits.Visitor, **more) -> visits.Verdict:
    return visits.judge(more.pop("now", 0.0), visits.Visits("n1", tables_, here, **more))


def test_a_place_without_container_is_given_up_but_not_while_one_is_being_made():
    first = look(told("g"))
    assert (first.free, first.wait) == ((), visits.GONE)
    later = look(told("g"), now=visits.GONE, missing=first.missing)
    assert later.free == (visits.Free("g", ("n",)),)
    assert look(told("g"), now=99.0, expected=frozenset({"g"})).missing == {}
    one = seen()
    assert one is not None
    kept = look(told("g"), one, now=99.0, missing=first.missing)
    assert (kept.free, kept.tell, kept.missing, kept.wait) == ((), (), {}, None)


def test_a_container_without_place_or_with_another_name_is_told_with_its_address():
    one = seen(**{visits.ALIASES: "a,b"})
    assert one is not None
    assert look(told(), one).tell == (visits.Tell(one),)
    assert look(told("g", name="old"), one).tell == (visits.Tell(one),)
    (place,) = one.places.values()
    assert (place.addresses, place.aliases) == (("10.0.0.5/24",), ("a", "b"))
    assert visits.visitor_of("c", "x", "x", {"bridge": {}}) is None
