"""Addresses and tables: who gets which, when they are free again, what nodes are told."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from swarmpy.model import addressing
from swarmpy.model.lifecycle import NodeState, TaskState
from swarmpy.plan import pools, tables
from swarmpy.plan.addresses import MESSAGE
from swarmpy.plan.wires import wires_of
from swarmpy.state.changes import Put

from .worlds import Stage, node, spec


def attached(*names: str, **rest):
    return {"Networks": [{"Target": f"network-{name}"} for name in names], **rest}


def stage(*names: str) -> Stage:
    made = Stage(node("w1"), node("w2"))
    made.ingress()
    for name in names:
        made.network(name)
    return made


def addresses(found: Stage, key: str) -> list[str]:
    return [task.networks[0].addresses[0] for task in found.live(key)]


def test_a_service_has_a_vip_and_each_task_an_address_in_the_first_batch():
    cluster = stage("front")
    key = cluster.create(spec("web", 3, template=attached("front")))
    service = cluster.world.services[key]
    assert [vip.address for vip in service.vips] == ["10.0.1.2/24"]
    assert addresses(cluster, key) == ["10.0.1.3/24", "10.0.1.4/24", "10.0.1.5/24"]
    assert all(task.status.state == TaskState.ASSIGNED for task in cluster.live(key))


def test_dnsrr_has_no_vip():
    cluster = stage("front")
    key = cluster.create(spec("web", 1, template=attached("front"), EndpointSpec={"Mode": "dnsrr"}))
    assert cluster.world.services[key].vips == ()
    assert addresses(cluster, key) == ["10.0.1.2/24"]


def test_a_service_has_a_vip_of_each_version_that_its_network_has_but_in_the_mesh():
    cluster = Stage(node("w1", features=("ipv6",)))
    ingress = cluster.ingress()
    cluster.network("six", EnableIPv6=True)
    ports = {"Ports": [{"TargetPort": 80}]}
    key = cluster.create(spec("web", 1, template=attached("six"), EndpointSpec=ports))
    first = cluster.world.services[key].vips
    assert [(one.network_id, pools.version(one.address)) for one in first] == [
        ("network-six", 4), ("network-six", 6), (ingress, 4),
    ]  # fmt: skip
    (entry,) = table_of(cluster, "six").services
    assert entry.vips == tuple(addressing.bare(one.address) for one in first[:2])
    cluster.update(key, spec("web", 2, template=attached("six"), EndpointSpec=ports))
    assert cluster.world.services[key].vips == first
    # One that was made when virtual addresses were IPv4 only gets the other one with its next change.
    cluster.put(Put(replace(cluster.world.services[key], vips=(first[0], first[2])), "as it was"))
    cluster.update(key, spec("web", 1, template=attached("six"), EndpointSpec=ports))
    assert [pools.version(one.address) for one in cluster.world.services[key].vips] == [4, 6, 4]


def test_a_published_port_brings_places_in_the_ingress_network():
    cluster = stage("front")
    ports = {"Ports": [{"TargetPort": 80}]}
    key = cluster.create(spec("web", 1, template=attached("front"), EndpointSpec=ports))
    (task,) = cluster.live(key)
    ingress = cluster.world.ingress_network()
    assert [place.network_id for place in task.networks] == ["network-front", ingress.id]
    assert [vip.network_id for vip in cluster.world.services[key].vips] == ["network-front", ingress.id]
    assert cluster.world.services[key].ports[0].published_port == 30000
    assert all(one.ingress for one in cluster.world.nodes)


def test_an_update_keeps_the_vip_and_a_freed_address_comes_round_last():
    cluster = stage("front")
    key = cluster.create(spec("web", 2, template=attached("front")))
    vip, before = cluster.world.services[key].vips, addresses(cluster, key)
    cluster.agents()
    cluster.update(key, spec("web", 2, image="app:2", template=attached("front")))
    cluster.agents()
    for _ in range(5):
        cluster.pass_time(5)
        cluster.agents()
    assert cluster.world.services[key].vips == vip
    assert not set(before) & set(addresses(cluster, key))


def test_a_full_network_is_a_sentence_on_the_task_that_waits_and_a_free_address_ends_it():
    cluster = stage()
    cluster.network("small", IPAM={"Config": [{"Subnet": "10.9.0.0/29"}]})
    key = cluster.create(spec("web", 5, template=attached("small")))
    cluster.agents()
    assert len(cluster.running(key)) == 4
    (waiting,) = [task for task in cluster.live(key) if task.status.state == TaskState.PENDING]
    assert waiting.status.message == MESSAGE
    assert "no address is free in network small (10.9.0.0/29): all 5 are in use" in waiting.status.err
    cluster.report(cluster.running(key)[0], TaskState.FAILED)
    for _ in range(3):
        cluster.pass_time(6)
        cluster.agents()
    assert len(cluster.running(key)) == 4
    cluster.update(key, spec("web", 4, template=attached("small")))
    cluster.agents()
    assert len(cluster.running(key)) == 4
    assert not [task for task in cluster.live(key) if task.status.state == TaskState.PENDING]


def test_two_networks_give_all_or_nothing():
    cluster = stage("front")
    cluster.network("small", IPAM={"Config": [{"Subnet": "10.9.0.0/30"}]})
    key = cluster.create(spec("web", 1, template=attached("front", "small")))
    assert not addresses_of_waiting(cluster, key)
    assert cluster.world.networks["network-front"].subnets[0].cursor == 2  # the VIP only


def addresses_of_waiting(cluster: Stage, key: str):
    return [task.networks for task in cluster.live(key) if task.networks]


# ---------------------------------------------------------------- tables


def table_of(cluster: Stage, name: str):
    return tables.table(cluster.world, cluster.world.networks[f"network-{name}"])


def test_a_table_tells_endpoints_before_they_serve_and_takes_them_out_before_they_stop():
    cluster = stage("front")
    key = cluster.create(spec("web", 2, template=attached("front")))
    assert [one.serving for one in table_of(cluster, "front").endpoints] == [False, False]
    cluster.agents()
    found = table_of(cluster, "front")
    assert [one.serving for one in found.endpoints] == [True, True]
    assert [(one.name, one.vips) for one in found.services] == [("web", ("10.0.1.2",))]
    cluster.update(key, spec("web", 1, template=attached("front")))
    assert sorted(one.serving for one in table_of(cluster, "front").endpoints) == [False, True]


def test_a_suspect_node_leaves_traffic_unless_nothing_else_is_left():
    cluster = stage("front")
    cluster.create(spec("web", 2, template=attached("front")))
    cluster.agents()
    cluster.set_node("w1", state=NodeState.DISCONNECTED)
    served = {one.node_id for one in table_of(cluster, "front").endpoints if one.serving}
    assert served == {"node-w2"}
    cluster.set_node("w2", state=NodeState.DISCONNECTED)
    assert sum(one.serving for one in table_of(cluster, "front").endpoints) == 2


def test_a_change_of_leader_takes_nothing_out_of_traffic():
    cluster = stage("front")
    cluster.create(spec("web", 2, template=attached("front")))
    cluster.agents()
    for name in ("w1", "w2"):
        cluster.set_node(name, state=NodeState.UNKNOWN)
    assert all(one.serving for one in table_of(cluster, "front").endpoints)


def test_the_narrowest_node_sets_the_mtu():
    cluster = stage("front")
    cluster.create(spec("web", 2, template=attached("front")))
    assert table_of(cluster, "front").mtu == 1450
    cluster.set_node("w1", about={"mtu": 1400})
    assert table_of(cluster, "front").mtu == 1350
    cluster.network("fixed", Options={"com.docker.network.driver.mtu": "9000", "encrypted": "false"})
    assert table_of(cluster, "fixed").mtu == 8950


def test_a_node_carries_the_networks_of_its_tasks_and_the_mesh_once_a_port_is_published():
    cluster = stage("front", "back")
    ingress = cluster.world.ingress_network()
    cluster.create(spec("web", 2, template=attached("front")))
    assert tables.of_node(cluster.world, "node-w1") == {"network-front"}
    ports = {"Ports": [{"TargetPort": 80, "PublishedPort": 8080}]}
    only = {"Placement": {"Constraints": ["node.hostname==w2"]}}
    cluster.create(spec("api", 1, template=attached("back", **only), EndpointSpec=ports))
    assert tables.of_node(cluster.world, "node-w1") == {"network-front", ingress.id}
    assert tables.of_node(cluster.world, "node-w2") == {"network-front", "network-back", ingress.id}
    mesh = tables.table(cluster.world, ingress)
    assert [(one.published, one.target, one.source) for one in mesh.ports] == [(8080, 80, "preserve")]
    assert [one.number for one in mesh.nodes] == [2, 3]


def test_an_sctp_program_answers_to_the_node_that_the_client_came_through():
    cluster = stage("front")
    ports = [
        {"TargetPort": 80, "PublishedPort": 8080, "Protocol": protocol} for protocol in ("sctp", "tcp", "udp")
    ]
    cluster.create(spec("api", 1, template=attached("front"), EndpointSpec={"Ports": ports}))
    mesh = tables.table(cluster.world, cluster.world.ingress_network())
    assert {one.protocol: one.source for one in mesh.ports} == {
        "sctp": "snat", "tcp": "preserve", "udp": "preserve",
    }  # fmt: skip


# ---------------------------------------------------------------- the routing mesh over IPv6


def ways(cluster: Stage, name: str) -> list[bool]:
    """By address of the node in the ingress network: whether it is an IPv6 one."""
    return [":" in one for one in cluster.world.nodes[f"node-{name}"].ingress]


def test_a_node_has_ipv6_in_the_mesh_while_its_kernel_has_it():
    cluster = Stage(node("w1", features=("ipv6",)), node("w2"))
    ingress = cluster.ingress()
    assert (ways(cluster, "w1"), ways(cluster, "w2")) == ([False, True], [False])
    first = cluster.world.nodes["node-w1"].ingress
    cluster.set_node("w2", about={"features": ("ipv6", "overlay")})
    assert ways(cluster, "w2") == [False, True]
    cluster.set_node("w1", about={"features": ()})
    assert cluster.world.nodes["node-w1"].ingress == first[:1]
    numbers = {
        one.id: one.number for one in tables.table(cluster.world, cluster.world.networks[ingress]).nodes
    }
    assert numbers == {"node-w1": 2, "node-w2": 3}


def test_a_task_has_no_ipv6_in_the_mesh_on_a_node_without():
    cluster = Stage(node("w1", features=("ipv6",)), node("w2"))
    ingress = cluster.ingress()
    cluster.network("six", EnableIPv6=True)
    ports = {"Ports": [{"TargetPort": 80, "HostIP": "2001:DB8:0::1"}]}
    cluster.create(spec("web", None, template=attached("six"), EndpointSpec=ports))
    mesh = tables.table(cluster.world, cluster.world.networks[ingress])
    assert {one.node_id: len(one.addresses) for one in mesh.endpoints} == {"node-w1": 2, "node-w2": 1}
    assert [one.host for one in mesh.ports] == ["2001:db8::1"]
    # Elsewhere IPv6 is what the network's user asked for: who cannot, says so.
    assert {len(one.addresses) for one in table_of(cluster, "six").endpoints} == {2}
    assert {key: one.ipv6 for key, one in wires_of({"i": mesh}, "node-w1").items()} == {"i": True}
    assert not wires_of({"i": mesh}, "node-w2")["i"].ipv6
    assert wires_of({"n": table_of(cluster, "six")}, "node-w2")["n"].ipv6


def test_the_mesh_does_without_ipv6_where_links_are_too_narrow_for_it():
    cluster = Stage(node("w1", features=("ipv6",)), node("w2", features=("ipv6",)))
    ingress = cluster.ingress()
    cluster.create(spec("web", None, EndpointSpec={"Ports": [{"TargetPort": 80}]}))
    for mtu, count in ((1330, 2), (1329, 1)):
        cluster.set_node("w1", about={"mtu": mtu})
        mesh = tables.table(cluster.world, cluster.world.networks[ingress])
        assert (mesh.mtu, {len(one.addresses) for one in (*mesh.nodes, *mesh.endpoints)}) == (
            mtu - 50,
            {count},
        )


def test_an_ingress_network_without_ipv6_gives_nodes_none():
    cluster = Stage(node("w1", features=("ipv6",)))
    cluster.network("old", Ingress=True)
    assert ways(cluster, "w1") == [False]


def test_a_full_ipv6_subnet_leaves_the_mesh_over_ipv4():
    cluster = Stage(*(node(f"w{number}", features=("ipv6",)) for number in (1, 2, 3)))
    cluster.network("tight", Ingress=True, EnableIPv6=True, IPAM={"Config": [{"Subnet": "2001:db8::/126"}]})
    found = sorted(tuple(ways(cluster, f"w{number}")) for number in (1, 2, 3))
    assert found == [(False,), (False, True), (False, True)]


# ---------------------------------------------------------------- pools


def test_subnets_in_order_around_what_is_taken():
    assert pools.next_subnet(["10.0.0.0/8"], 24, []) == "10.0.0.0/24"
    assert pools.next_subnet(["10.0.0.0/8"], 24, ["10.0.0.0/24", "10.0.1.0/25"]) == "10.0.2.0/24"
    assert pools.next_subnet(["10.0.0.0/23"], 24, ["10.0.0.0/16"]) is None
    assert pools.next_subnet(["10.0.0.0/24", "10.7.0.0/16"], 24, ["10.0.0.0/20"]) == "10.7.0.0/24"
    assert pools.next_subnet(["10.0.0.0/24"], 20, []) is None


@pytest.mark.parametrize(("subnet", "count"), [("10.0.0.0/29", 6), ("10.0.0.0/30", 2), ("fd00::/64", 65536)])
def test_offsets(subnet, count):
    first, last = pools._offsets(pools.Subnet(subnet=subnet, gateway=""))
    assert last - first + 1 == count
