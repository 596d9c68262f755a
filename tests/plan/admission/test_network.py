"""Admission of networks and published ports: what is settled, what is refused and in which words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from swarmpy.model import addressing
from swarmpy.model.commands import (
    AddPools,
    CreateNetwork,
    CreateService,
    InitCluster,
    RemoveNetwork,
    RemoveService,
    UpdateService,
)
from swarmpy.model.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Refusal,
    Unimplemented,
)
from swarmpy.model.lifecycle import NodeState, TaskState
from swarmpy.model.objects import (
    Attachment,
    Cluster,
    Description,
    Network,
    Node,
    NodeStatus,
    Service,
    Task,
    TaskStatus,
)
from swarmpy.model.specs import MTU_OPTION, VNI_OPTION, Port
from swarmpy.plan import pools, published
from swarmpy.plan.admission import cluster, network, service
from swarmpy.state.changes import Put
from swarmpy.state.snapshot import Snapshot

NOW = 1_700_000_000_000_000_000
CLUSTER = Cluster(id="c" * 25, address_pools=("10.0.0.0/8",), subnet_size=24)


def begin(about: Cluster = CLUSTER, *features: str, nodes: int = 1) -> Snapshot:
    """A cluster with its ingress network and nodes of these features."""
    machines = [
        Node(id=f"n{number}", description=Description(hostname=f"host{number}", features=features))
        for number in range(nodes)
    ]
    return Snapshot().evolve([Put(one) for one in (about, network.first(about, NOW), *machines)], 1, NOW)


def create(world: Snapshot, name: str = "back", **parts: Any) -> Snapshot:
    command = CreateNetwork(id=f"id-{name}", spec=json.dumps({"Name": name, "Driver": "overlay", **parts}))
    changes, result = network.create(NOW, world, command)
    assert result.id == f"id-{name}"
    return world.evolve(changes, world.version + 1, NOW)


def the(world: Snapshot, name: str = "back") -> Network:
    found = world.network_named(name)
    assert found is not None
    return found


def ipam(*configs: dict[str, Any]) -> dict[str, Any]:
    return {"IPAM": {"Config": list(configs)}}


def subnets(world: Snapshot, name: str = "back") -> list[str]:
    return [one.subnet for one in the(world, name).subnets]


# ------------------------------------------------------------ subnets


def test_subnets_are_taken_in_order_and_given_back() -> None:
    world = begin()
    assert subnets(world, "ingress") == ["10.0.0.0/24", pools.of_cluster(CLUSTER.id)]
    for number in (1, 2, 3):
        world = create(world, f"n{number}")
        assert subnets(world, f"n{number}") == [f"10.0.{number}.0/24"]
        assert the(world, f"n{number}").subnets[0].gateway == f"10.0.{number}.1"
    changes, _ = network.remove(NOW, world, RemoveNetwork(network="id-n2"))
    world = create(world.evolve(changes, 9, NOW), "again")
    assert subnets(world, "again") == ["10.0.2.0/24"]


def test_the_mesh_has_a_unique_local_subnet_of_the_clusters_own() -> None:
    """RFC 4193: fd, the last 40 bits of a SHA-1, then our own numbers; worked out by hand."""
    assert pools.of_cluster("c" * 25) == "fd5a:c796:888::/64"
    world = begin()
    assert the(world, "ingress").view.enable_ipv6
    assert the(world, "ingress").subnets[1].gateway == "fd5a:c796:888::1"
    changes, _ = network.remove(NOW, world, RemoveNetwork(network=the(world, "ingress").id))
    bare = world.evolve(changes, 2, NOW)
    assert subnets(create(bare, "mesh", Ingress=True, EnableIPv6=True), "mesh")[1] == "fd5a:c796:888::/64"
    assert [":" in one for one in subnets(create(bare, "mesh", Ingress=True), "mesh")] == [False]
    named = ipam({"Subnet": "10.7.0.0/24"}, {"Subnet": "2001:db8:7::/64"})
    asked = create(bare, "mesh", Ingress=True, EnableIPv6=True, **named)
    assert subnets(asked, "mesh") == ["10.7.0.0/24", "2001:db8:7::/64"]
    taken = create(bare, "mine", EnableIPv6=True, **ipam({"Subnet": "fd5a:c796:888::/48"}))
    assert subnets(create(taken, "mesh", Ingress=True, EnableIPv6=True), "mesh")[1] == pools.unique_local(
        "id-mesh"
    )


def test_an_ipv6_address_is_published_where_the_mesh_has_ipv6() -> None:
    asked = endpoint({"TargetPort": 80, "PublishedPort": 8080, "HostIP": "2001:db8::1"})
    assert ports(serve(begin(), "web", **asked), "web") == [("tcp", 80, 8080)]
    world = begin()
    changes, _ = network.remove(NOW, world, RemoveNetwork(network=the(world, "ingress").id))
    old = create(world.evolve(changes, 2, NOW), "ingress", Ingress=True)
    with pytest.raises(FailedPrecondition) as refused:
        serve(old, "web", **asked)
    assert refused.value.message == (
        "host_ip 2001:db8::1: the ingress network has no IPv6; once no service needs it, make it anew with "
        "'swarmpy network create --ingress --ipv6', or publish with mode=host"
    )
    host = {"TargetPort": 80, "PublishedPort": 8080, "HostIP": "2001:db8::1", "PublishMode": "host"}
    serve(old, "web", **endpoint(host))


def test_a_named_subnet_is_stepped_over() -> None:
    world = create(begin(), "mine", **ipam({"Subnet": "10.0.1.128/25"}))
    assert subnets(create(world)) == ["10.0.2.0/24"]


def test_the_second_pool_is_used_when_the_first_is_full_and_then_nothing_is() -> None:
    small = replace(CLUSTER, address_pools=("10.1.0.0/29", "10.2.0.0/28"), subnet_size=29)
    world = begin(small)
    assert subnets(world, "ingress")[0] == "10.1.0.0/29"
    world = create(create(world, "a"), "b")
    assert subnets(world, "a") + subnets(world, "b") == ["10.2.0.0/29", "10.2.0.8/29"]
    with pytest.raises(FailedPrecondition) as refused:
        create(world)
    assert refused.value.message == (
        "no subnet /29 is free in the cluster's address pools (10.1.0.0/29, 10.2.0.0/28): remove networks that "
        "are not needed, or name one with --subnet"
    )
    changes, _ = cluster.add_pools(NOW, world, AddPools(pools=("10.3.0.0/24",)))
    world = create(world.evolve(changes, 9, NOW))
    assert subnets(world) == ["10.3.0.0/29"]
    assert subnets(create(world, "named", **ipam({"Subnet": "192.168.0.0/24"})), "named") == [
        "192.168.0.0/24"
    ]


def test_several_subnets_ranges_gateways_and_reserved_addresses() -> None:
    world = create(begin(), EnableIPv6=True, **ipam(
        {"Subnet": "2001:db8::/64", "Gateway": "2001:db8::5"},
        {"Subnet": "10.8.0.0/24", "IPRange": "10.8.0.64/26", "Gateway": "10.8.0.254",
         "AuxiliaryAddresses": {"router": "10.8.0.70", "a": "10.8.0.65/24"}},
        {"Subnet": "10.9.0.0/24"},
    ))  # fmt: skip
    four, other, six = the(world).subnets  # IPv4 first, whatever the order in which they were named
    assert (four.subnet, four.gateway, four.ip_range) == ("10.8.0.0/24", "10.8.0.254", "10.8.0.64/26")
    assert four.reserved == ("10.8.0.65", "10.8.0.70")
    assert (other.subnet, other.gateway) == ("10.9.0.0/24", "10.9.0.1")
    assert (six.subnet, six.gateway) == ("2001:db8::/64", "2001:db8::5")


def test_ipv6_is_unique_local_and_beside_ipv4() -> None:
    world = create(create(begin(), "a", EnableIPv6=True), "b", EnableIPv6=True)
    (four, six), (_, other) = the(world, "a").subnets, the(world, "b").subnets
    assert four.subnet == "10.0.1.0/24"
    assert addressing.parse(six.subnet).is_private
    assert six.subnet.startswith("fd")
    assert six.subnet != other.subnet
    assert six.gateway == pools.first_address(six.subnet)
    only = create(begin(), EnableIPv6=True, **ipam({"Subnet": "fd00:1::/64"}))
    assert subnets(only) == ["10.0.1.0/24", "fd00:1::/64"]


# ------------------------------------------------------------ VXLAN ids and options


def test_vxlan_ids_are_the_first_free_ones() -> None:
    world = create(create(begin(), "a"), "b", Options={VNI_OPTION: "4098"})
    assert [the(world, name).vni for name in ("ingress", "a", "b")] == [4096, 4097, 4098]
    world = create(world, "c")
    assert the(world, "c").vni == 4099
    changes, _ = network.remove(NOW, world, RemoveNetwork(network="id-a"))
    assert the(create(world.evolve(changes, 9, NOW))).vni == 4097


def test_all_vxlan_ids_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "LAST_VNI", 4097)
    world = create(begin(), "a")
    with pytest.raises(FailedPrecondition, match="all VXLAN ids are in use"):
        create(world)


def test_an_option_without_effect_is_said_so() -> None:
    command = CreateNetwork(
        id="x",
        spec=json.dumps({"Name": "x", "Options": {"odd": "1", MTU_OPTION: "9000"}}),
    )
    changes, result = network.create(NOW, begin(), command)
    assert len(changes) == 1
    assert result.warnings == ("the overlay driver does not know the option odd: it has no effect",)


def test_encryption_needs_every_nodes_kernel() -> None:
    able = begin(CLUSTER, "encryption", nodes=2)
    assert the(create(able, Options={"encrypted": ""})).view.encrypted
    assert not the(create(begin(), Options={"encrypted": "false"})).view.encrypted
    with pytest.raises(FailedPrecondition) as refused:
        create(begin(nodes=2), Options={"encrypted": ""})
    assert "the kernel of host0, host1 has no IPsec" in refused.value.message
    with pytest.raises(
        FailedPrecondition, match="the kernel of host0, host1, host2 and 2 more nodes has no IPsec"
    ):
        create(begin(nodes=5), Options={"encrypted": "true"})


# ------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("raw", "kind", "text"),
    [
        ({"Name": ""}, InvalidArgument, "meta: name must be provided"),
        ({"Name": "a.b"}, InvalidArgument, "name must be valid as a DNS name component"),
        ({"Name": "-a"}, InvalidArgument, "DNS name component"),
        ({"Name": "a\n"}, InvalidArgument, "DNS name component"),
        ({"Name": "a" * 64}, InvalidArgument, "DNS name component"),
        *(({"Name": name}, PermissionDenied, f"operation is not permitted on predefined {name} network")
          for name in ("bridge", "host", "none", "default", "docker_gwbridge")),
        ({"Name": "INGRESS"}, AlreadyExists, "network with name INGRESS already exists"),
        ({"Driver": "macvlan"}, Unimplemented, "networks of driver 'macvlan' cannot span the cluster"),
        ({"ConfigOnly": True}, Unimplemented, "config-only networks are for drivers of a single node"),
        ({"ConfigFrom": {"Network": "x"}}, Unimplemented, "config-only networks"),
        ({"EnableIPv4": False}, Unimplemented, "overlay networks without IPv4"),
        ({"IPAM": {"Driver": "dhcp"}}, Unimplemented, "IPAM driver 'dhcp' is not supported"),
        ({"IPAM": {"Options": {"a": "b"}}}, Unimplemented, "IPAM options are not supported"),
        ({"Ingress": True}, AlreadyExists, "is already present: remove it first"),
        ({"Ingress": True, "Attachable": True}, InvalidArgument, "the ingress network cannot be attachable"),
        ({"Ingress": True, "Internal": True}, InvalidArgument, "the ingress network cannot be internal"),
        ({"Options": {MTU_OPTION: "575"}}, InvalidArgument, "invalid MTU '575'"),
        ({"Options": {MTU_OPTION: "65536"}}, InvalidArgument, "invalid MTU '65536'"),
        ({"EnableIPv6": True, "Options": {MTU_OPTION: "1349"}}, InvalidArgument,
         "invalid MTU '1349': IPv6 needs 1280 bytes in the network, so 1350 between the nodes"),
        ({"Options": {MTU_OPTION: "big"}}, InvalidArgument, "invalid MTU 'big'"),
        ({"Options": {VNI_OPTION: "4096"}}, InvalidArgument, "VXLAN id 4096 is in use by another network"),
        ({"Options": {VNI_OPTION: "0"}}, InvalidArgument, "invalid VXLAN id '0'"),
        ({"Options": {VNI_OPTION: str(2**24)}}, InvalidArgument, "invalid VXLAN id '16777216'"),
        ({"Options": {VNI_OPTION: "1,2"}}, InvalidArgument, "invalid VXLAN id '1,2'"),
        (ipam({"Subnet": "nope"}), InvalidArgument, "invalid subnet nope: it should be in CIDR notation"),
        (ipam({"Subnet": "10.1.0.5/24"}), InvalidArgument, "with no host bits"),
        (ipam({"Subnet": "10.1.0.0/31"}), InvalidArgument, "has no room for a gateway and a task"),
        *((ipam({"Subnet": one}), InvalidArgument,
           f"invalid subnet {one}: {why} cannot be given to tasks; choose another one, such as 10.20.0.0/24")
          for one, why in (
              ("224.0.0.0/24", "multicast addresses (224.0.0.0/4)"),
              ("240.0.0.0/4", "reserved addresses (240.0.0.0/4)"),
              ("255.255.255.0/24", "reserved addresses (240.0.0.0/4)"),
              ("126.0.0.0/7", "loopback addresses (127.0.0.0/8)"),
              ("0.0.0.0/0", "addresses of this network (0.0.0.0/8)"),
              ("169.254.7.0/24", "link-local addresses (169.254.0.0/16)"),
              ("fe80::/64", "link-local addresses (fe80::/10)"),
              ("ff02::/64", "multicast addresses (ff00::/8)"),
              ("::/64", "reserved addresses (::/8)"),
              ("::ffff:0:0/96", "reserved addresses (::/8)"),
          )),
        ({"Scope": "local"}, InvalidArgument,
         "cannot downgrade network scope for overlay networks: they span the cluster; leave --scope away, or "
         "use --driver bridge for a network of one node"),
        ({"Scope": "foo"}, InvalidArgument, "invalid network scope 'foo': it is swarm for overlay networks"),
        ({"Scope": "Swarm"}, InvalidArgument, "invalid network scope 'Swarm'"),
        (ipam({"Subnet": "10.0.0.0/16"}), InvalidArgument,
         "subnet 10.0.0.0/16 overlaps 10.0.0.0/24, which is in use"),
        (ipam({"Subnet": "10.5.0.0/24"}, {"Subnet": "10.5.0.0/25"}), InvalidArgument,
         "subnet 10.5.0.0/25 overlaps 10.5.0.0/24, which is in use"),
        (ipam({"Subnet": "fd00::/64"}), InvalidArgument, "needs IPv6 to be enabled: add --ipv6"),
        (ipam({"Subnet": "10.1.0.0/24", "IPRange": "x"}), InvalidArgument, "invalid ip-range x"),
        (ipam({"Subnet": "10.1.0.0/24", "IPRange": "10.1.0.5/25"}), InvalidArgument,
         "invalid ip-range 10.1.0.5/25: it should be in CIDR notation with no host bits, like 10.1.0.0/25"),
        (ipam({"Subnet": "10.1.0.0/24", "IPRange": "10.2.0.0/25"}), InvalidArgument,
         "no matching subnet for range 10.2.0.0/25: it must lie in 10.1.0.0/24"),
        (ipam({"Subnet": "10.1.0.0/24", "IPRange": "10.0.0.0/8"}), InvalidArgument, "no matching subnet for range"),
        (ipam({"Subnet": "10.1.0.0/24", "IPRange": "fd00::/80"}), InvalidArgument, "no matching subnet for range"),
        (ipam({"Subnet": "10.1.0.0/24", "Gateway": "10.2.0.1"}), InvalidArgument,
         "no matching subnet for gateway 10.2.0.1: it must lie in 10.1.0.0/24"),
        (ipam({"Subnet": "10.1.0.0/24", "Gateway": "10.1.0.0"}), InvalidArgument,
         "invalid gateway 10.1.0.0: it is the first or last address of 10.1.0.0/24"),
        (ipam({"Subnet": "10.1.0.0/24", "Gateway": "10.1.0.255"}), InvalidArgument, "invalid gateway 10.1.0.255"),
        (ipam({"Subnet": "10.1.0.0/24", "Gateway": "x"}), InvalidArgument, "invalid address 'x' for gateway"),
        (ipam({"Subnet": "10.1.0.0/24", "AuxiliaryAddresses": {"r": "10.2.0.1"}}), InvalidArgument,
         "no matching subnet for r 10.2.0.1"),
        (ipam({"Gateway": "10.1.0.1"}), InvalidArgument, "needs a subnet"),
        (ipam({"IPRange": "10.1.0.0/25"}), InvalidArgument, "needs a subnet"),
        (ipam({"AuxiliaryAddresses": {"r": "10.1.0.1"}}), InvalidArgument, "needs a subnet"),
    ],
)  # fmt: skip
def test_refused(raw: dict[str, Any], kind: type[Refusal], text: str) -> None:
    with pytest.raises(kind) as refused:
        create(begin(), raw.get("Name", "back"), **raw)
    assert text in refused.value.message


def addressed(*addresses: tuple[str, str]) -> Snapshot:
    """A cluster whose nodes have these addresses (the node's, that of its data path)."""
    nodes = [
        Node(id=f"a{number}", description=Description(hostname=f"host{number}"),
             status=NodeStatus(state=NodeState.READY, address=address, since=NOW), data_address=data)
        for number, (address, data) in enumerate(addresses)
    ]  # fmt: skip
    return Snapshot().evolve(
        [Put(one) for one in (CLUSTER, network.first(CLUSTER, NOW, ["10.0.0.7"]), *nodes)], 1, NOW
    )


@pytest.mark.parametrize(
    ("subnet", "node", "address"),
    [("192.0.2.0/24", "host0", "192.0.2.7"), ("10.9.0.0/16", "host1", "10.9.0.2"),
     ("2001:db8::/64", "host2", "2001:db8::1"), ("192.0.2.0/25", "host0", "192.0.2.7")],
)  # fmt: skip
def test_a_subnet_that_holds_a_nodes_address_is_refused(subnet: str, node: str, address: str) -> None:
    world = addressed(("192.0.2.7", ""), ("192.168.0.1", "10.9.0.2"), ("2001:db8::1", ""))
    with pytest.raises(InvalidArgument) as refused:
        create(world, EnableIPv6=True, **ipam({"Subnet": subnet}))
    assert refused.value.message == (
        f"subnet {subnet} holds {address}, the address of node {node}: the network's tasks could not reach "
        "that machine, nor it them; choose another subnet"
    )
    create(world, EnableIPv6=True, **ipam({"Subnet": "192.0.2.128/25"}))


def test_subnets_of_the_pools_step_over_the_nodes_addresses() -> None:
    world = addressed(("10.0.2.9", ""), ("192.0.2.1", "10.0.3.1"))
    assert subnets(world, "ingress")[0] == "10.0.1.0/24"
    assert subnets(create(world)) == ["10.0.0.0/24"]
    world = create(create(world), "b")
    assert subnets(world, "b") == ["10.0.4.0/24"]


def test_the_first_nodes_address_is_not_in_the_meshs_network() -> None:
    command = InitCluster(
        cluster=CLUSTER, node_id="m1", address="10.0.0.1", manager_address="10.0.0.1:2377", certificate="",
        description=Description(hostname="one"), data_address="10.0.1.1",
    )  # fmt: skip
    changes, _ = cluster.init(NOW, Snapshot(), command)
    assert subnets(Snapshot().evolve(changes, 1, NOW), "ingress")[0] == "10.0.2.0/24"


def test_names_and_ids_are_unique() -> None:
    world = create(begin())
    with pytest.raises(AlreadyExists, match="network with name BACK already exists"):
        create(world, "BACK")
    with pytest.raises(AlreadyExists):
        network.create(NOW, world, CreateNetwork(id="id-back", spec='{"Name":"other"}'))


# ------------------------------------------------------------ removal


def test_removal_is_refused_while_anything_needs_it() -> None:
    with pytest.raises(NotFound, match="network nope not found"):
        network.remove(NOW, begin(), RemoveNetwork(network="nope"))
    remove = RemoveNetwork(network="id-back")
    world = serve(create(begin()), "web", TaskTemplate={"Networks": [{"Target": "back"}]})
    with pytest.raises(FailedPrecondition, match="network id-back is in use by service id-web"):
        network.remove(NOW, world, remove)
    changes, _ = service.remove(NOW, world, RemoveService(service="id-web"))
    world = world.evolve(changes, 20, NOW)
    for state, used in ((TaskState.RUNNING, True), (TaskState.NEW, True), (TaskState.SHUTDOWN, False)):
        task = Task(id="t", service_id="id-web", service_name="web", status=TaskStatus(state=state),
                    networks=(Attachment(network_id="id-back", addresses=("10.0.1.3/24",)),))  # fmt: skip
        with_task = world.evolve([Put(task)], 21, NOW)
        if used:
            with pytest.raises(FailedPrecondition, match="network id-back is in use by task t"):
                network.remove(NOW, with_task, remove)
        else:
            assert len(network.remove(NOW, with_task, remove)[0]) == 1


def test_the_mesh_can_go_when_nothing_is_published_and_come_back() -> None:
    world = begin()
    key = the(world, "ingress").id
    meshed = serve(world, "web", EndpointSpec={"Ports": [{"TargetPort": 80}]})
    with pytest.raises(
        FailedPrecondition, match=f"ingress network {key} cannot be removed because service id-web"
    ):
        network.remove(NOW, meshed, RemoveNetwork(network=key))
    host = serve(world, "web", EndpointSpec={"Ports": [{"TargetPort": 80, "PublishMode": "host"}]})
    changes, _ = network.remove(NOW, host, RemoveNetwork(network=key))
    without = host.evolve(changes, 9, NOW)
    with pytest.raises(FailedPrecondition, match="no ingress network is present"):
        serve(without, "b", EndpointSpec={"Ports": [{"TargetPort": 80}]})
    again = create(without, "mesh", Ingress=True, **ipam({"Subnet": "10.77.0.0/16"}))
    assert again.ingress_network() is the(again, "mesh")
    serve(again, "b", EndpointSpec={"Ports": [{"TargetPort": 80}]})


# ------------------------------------------------------------ attaching services


def serve(world: Snapshot, name: str, **parts: Any) -> Snapshot:
    parts["TaskTemplate"] = {"ContainerSpec": {"Image": "x"}, **parts.get("TaskTemplate", {})}
    command = CreateService(id=f"id-{name}", spec=json.dumps({"Name": name, **parts}))
    return world.evolve(service.create(NOW, world, command)[0], world.version + 1, NOW)


def update(world: Snapshot, name: str, **parts: Any) -> Snapshot:
    item = world.services[f"id-{name}"]
    parts["TaskTemplate"] = {"ContainerSpec": {"Image": "x"}, **parts.get("TaskTemplate", {})}
    command = UpdateService(
        service=item.id, version=item.version, spec=json.dumps({"Name": name, **parts}),
        rollback=parts.pop("rollback", ""),
    )  # fmt: skip
    return world.evolve(service.update(NOW, world, command)[0], world.version + 1, NOW)


def test_targets_are_stored_as_ids_in_one_place() -> None:
    world = create(create(begin(), "back"), "front")
    for sent in (
        {"TaskTemplate": {"Networks": [{"Target": "back", "Aliases": ["a"]}, {"Target": "id-f"}]}},
        {"Networks": [{"Target": "BACK", "Aliases": ["a"]}, {"Target": "id-front"}]},
    ):
        stored = json.loads(serve(world, "web", **sent).services["id-web"].spec)
        assert "Networks" not in stored
        assert stored["TaskTemplate"]["Networks"] == [
            {"Target": "id-back", "Aliases": ["a"]},
            {"Target": "id-front"},
        ]


@pytest.mark.parametrize(
    ("targets", "kind", "text"),
    [
        (["nope"], NotFound, "network nope not found"),
        ([""], NotFound, "network  not found"),
        (["id-"], InvalidArgument, "network id- is ambiguous (2 matches found)"),
        (["back", "id-back"], InvalidArgument, "service cannot be attached to network back more than once"),
        (["ingress"], InvalidArgument,
         'Service cannot be explicitly attached to the ingress network "ingress"'),
        (["none"], InvalidArgument, "cannot be attached to the network 'none'"),
        (["bridge", "back"], InvalidArgument, "can be on no other"),
    ],
)  # fmt: skip
def test_targets_that_are_refused(targets: list[str], kind: type[Refusal], text: str) -> None:
    world = create(create(begin(), "back"), "front")
    with pytest.raises(kind) as refused:
        serve(world, "web", TaskTemplate={"Networks": [{"Target": one} for one in targets]})
    assert text in refused.value.message


# ------------------------------------------------------------ published ports


def ports(world: Snapshot, name: str) -> list[tuple[str, int, int]]:
    return [(one.protocol, one.target_port, one.published_port) for one in world.services[f"id-{name}"].ports]


def endpoint(*published_ports: dict[str, Any]) -> dict[str, Any]:
    return {"EndpointSpec": {"Ports": list(published_ports)}}


def test_ports_left_open_are_chosen_from_30000_and_kept() -> None:
    world = serve(begin(), "a", **endpoint({"TargetPort": 80}, {"TargetPort": 80, "Protocol": "udp"}))
    assert ports(world, "a") == [("tcp", 80, 30000), ("udp", 80, 30000)]  # a space of its own per protocol
    world = serve(world, "b", **endpoint({"TargetPort": 80, "PublishedPort": 30001}, {"TargetPort": 81}))
    assert ports(world, "b") == [("tcp", 80, 30001), ("tcp", 81, 30002)]
    first = world.services["id-a"].spec
    assert (
        "PublishedPort" not in json.loads(first)["EndpointSpec"]["Ports"][0]
    )  # the spec stays as it was sent
    world = update(world, "a", Labels={"x": "y"}, **endpoint(
        {"TargetPort": 90}, {"TargetPort": 80}, {"TargetPort": 80, "Protocol": "udp"}))  # fmt: skip
    assert ports(world, "a") == [("tcp", 90, 30003), ("tcp", 80, 30000), ("udp", 80, 30000)]
    world = update(world, "a", **endpoint({"TargetPort": 80, "PublishedPort": 31000}, {"TargetPort": 80}))
    assert ports(world, "a") == [("tcp", 80, 31000), ("tcp", 80, 30000)]
    changes, _ = service.remove(NOW, world, RemoveService(service="id-a"))
    world = serve(world.evolve(changes, 30, NOW), "c", **endpoint({"TargetPort": 1}))
    assert ports(world, "c") == [("tcp", 1, 30000)]


def test_a_rollback_takes_its_ports_back_or_is_refused() -> None:
    world = serve(begin(), "a", **endpoint({"TargetPort": 80, "PublishedPort": 8080}))
    world = update(world, "a", **endpoint({"TargetPort": 80, "PublishedPort": 9090}))
    back = update(world, "a", rollback="previous", **endpoint({"TargetPort": 80, "PublishedPort": 9090}))
    assert ports(back, "a") == [("tcp", 80, 8080)]
    world = serve(world, "b", **endpoint({"TargetPort": 80, "PublishedPort": 8080}))
    with pytest.raises(InvalidArgument, match="port '8080' is already in use by service 'b'"):
        update(world, "a", rollback="previous", **endpoint({"TargetPort": 80, "PublishedPort": 9090}))


@pytest.mark.parametrize(
    ("mine", "theirs", "text"),
    [
        ({}, {}, "port '8080' is already in use by service 'web' (id-web) as an ingress port"),
        ({"PublishMode": "host"}, {},
         "port '8080' is already in use by service 'web' (id-web) as a host-published port"),
        ({}, {"PublishMode": "host"}, "port '8080' is already in use by service 'web' (id-web) as an ingress port"),
        ({"PublishMode": "host"}, {"PublishMode": "host"}, ""),
        ({"Protocol": "udp"}, {}, ""),
        ({"HostIP": "192.0.2.1"}, {"HostIP": "192.0.2.2"},
         "port '8080' is already in use by service 'web' (id-web) as an ingress port"),
    ],
)  # fmt: skip
def test_ports_in_use(mine: dict[str, Any], theirs: dict[str, Any], text: str) -> None:
    port = {"TargetPort": 80, "PublishedPort": 8080}
    world = serve(begin(), "web", **endpoint({**port, **mine}))
    if not text:
        serve(world, "b", **endpoint({**port, **theirs}))
        return
    with pytest.raises(InvalidArgument) as refused:
        serve(world, "b", **endpoint({**port, **theirs}))
    assert refused.value.message == text
    world = serve(world, "b")
    with pytest.raises(InvalidArgument) as refused:
        update(world, "b", **endpoint({**port, **theirs}))
    assert refused.value.message == text


def test_host_ports_left_open_are_the_engines_to_choose() -> None:
    assert ports(serve(begin(), "a", **endpoint({"TargetPort": 80, "PublishMode": "host"})), "a") == [
        ("tcp", 80, 0)
    ]


def with_managers(*addresses: str, data_path_port: int = 4789) -> Snapshot:
    about = Cluster(id="c" * 25, data_path_port=data_path_port)
    nodes = [
        Node(id=f"m{number}", spec='{"Role":"manager"}', manager_address=one, listen_port=2400)
        for number, one in enumerate(addresses)
    ]
    return begin(about).evolve([Put(one) for one in nodes], 2, NOW)


@pytest.mark.parametrize(
    ("protocol", "number", "user"),
    [
        ("tcp", 2377, "the managers"),
        ("tcp", 9377, "the managers"),
        ("tcp", 2400, "the managers"),
        ("udp", 5789, "the overlay networks"),
        ("udp", 5790, "the encrypted networks"),
        ("udp", 7946, "the nodes' questions to each other"),
    ],
)
def test_the_mesh_never_takes_a_port_that_the_nodes_need(protocol: str, number: int, user: str) -> None:
    world = with_managers("192.0.2.1:2377", "[2001:db8::2]:9377", "", data_path_port=5789)
    port = {"TargetPort": 80, "PublishedPort": number, "Protocol": protocol}
    text = (
        f"port '{number}/{protocol}' cannot be published through the routing mesh: {user} of this cluster use "
        "it on the nodes; choose another port, or publish with mode=host"
    )
    with pytest.raises(InvalidArgument) as refused:
        serve(world, "a", **endpoint(port))
    assert refused.value.message == text
    served = serve(world, "a")
    with pytest.raises(InvalidArgument) as refused:
        update(served, "a", **endpoint(port))
    assert refused.value.message == text
    other = {"tcp": "udp", "udp": "tcp"}[protocol]
    for harmless in ({**port, "Protocol": other}, {**port, "PublishMode": "host"}):
        assert ports(serve(world, "a", **endpoint(harmless)), "a") == [(harmless["Protocol"], 80, number)]


def test_a_worker_listens_nowhere() -> None:
    world = begin().evolve([Put(Node(id="w", spec='{"Role":"worker"}', listen_port=2400))], 2, NOW)
    assert ports(serve(world, "a", **endpoint({"TargetPort": 80, "PublishedPort": 2400})), "a") == [
        ("tcp", 80, 2400)
    ]


def test_a_port_left_open_is_none_that_the_nodes_need() -> None:
    world = with_managers("192.0.2.1:30000", data_path_port=30001)
    world = serve(world, "a", **endpoint({"TargetPort": 1}, {"TargetPort": 2},
                                         {"TargetPort": 1, "Protocol": "udp"}, {"TargetPort": 2, "Protocol": "udp"}))  # fmt: skip
    assert ports(world, "a") == [("tcp", 1, 30001), ("tcp", 2, 30002), ("udp", 1, 30000), ("udp", 2, 30003)]


def test_all_ports_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "LAST", 30001)
    world = serve(begin(), "a", **endpoint({"TargetPort": 1}, {"TargetPort": 2}))
    with pytest.raises(FailedPrecondition, match="all tcp ports from 30000 to 30001 are published already"):
        serve(world, "b", **endpoint({"TargetPort": 1}))
    serve(world, "b", **endpoint({"TargetPort": 1, "Protocol": "udp"}))


PORT = st.builds(
    Port,
    protocol=st.sampled_from(["", "tcp", "udp"]),
    target_port=st.integers(1, 4),
    published_port=st.sampled_from([0, 0, 30000, 30001, 8080]),
    publish_mode=st.sampled_from(["", "ingress", "host"]),
)


@given(st.lists(st.lists(PORT, max_size=4), max_size=4))
def test_no_two_services_ever_share_a_port_of_the_mesh(asked: list[list[Port]]) -> None:
    world = begin()
    for number, wanted in enumerate(asked):
        explicit = [(one.protocol or "tcp", one.published_port) for one in wanted if one.published_port]
        if len(set(explicit)) < len(explicit):
            continue  # refused by form
        try:
            found = published.resolve(world, f"s{number}", tuple(wanted), ())
        except InvalidArgument:
            continue
        item = Service(id=f"s{number}", name=f"s{number}", spec="{}", ports=found)
        # What was chosen stays chosen.
        after = world.evolve([Put(item)], world.version + 1, NOW)
        assert published.resolve(after, item.id, tuple(wanted), found) == found
        world = after
    taken = [(one.protocol, one.published_port, one.publish_mode, item.id)
             for item in world.services for one in item.ports if one.published_port]  # fmt: skip
    for protocol, number, mode, owner in taken:
        sharing = [one for one in taken if one[:2] == (protocol, number) and one[3] != owner]
        assert mode == "host" and all(one[2] == "host" for one in sharing) if sharing else True
    for item in world.services:
        mesh = [(one.protocol, one.published_port) for one in item.ports if one.publish_mode == "ingress"]
        assert len(set(mesh)) == len(mesh)
        assert all(number for _, number in mesh)


# ------------------------------------------------------------ the cluster's pools


def test_pools_are_kept_in_plain_form() -> None:
    assert cluster.checked_pools(("10.1.2.3/16", " 172.16.0.0/12"), 24) == ("10.1.0.0/16", "172.16.0.0/12")
    assert cluster.checked_pools(("10.0.0.0/29",), 29) == ("10.0.0.0/29",)


@pytest.mark.parametrize(
    ("given_pools", "size", "text"),
    [
        (("10.0.0.0/8",), 30, "invalid subnet size 30: subnets of networks have a mask length of 1 to 29"),
        (("10.0.0.0/8",), 0, "invalid subnet size 0"),
        (("10.0.0.0/8",), -1, "invalid subnet size -1"),
        (
            ("10.0.0.0/25",),
            24,
            "invalid address pool 10.0.0.0/25: it is smaller than one subnet of mask length 24",
        ),
        (("nope",), 24, "invalid address pool 'nope': it should be in CIDR notation"),
        (("",), 24, "invalid address pool ''"),
        (("fd00::/8",), 24, "pools are IPv4"),
        (("126.0.0.0/7",), 24, "loopback addresses (127.0.0.0/8) cannot be given to tasks"),
        (("240.0.0.0/8",), 24, "reserved addresses (240.0.0.0/4) cannot be given to tasks"),
        (("10.0.0.0/8", "10.9.0.0/16"), 24, "address pool 10.9.0.0/16 overlaps 10.0.0.0/8"),
    ],
)
def test_pools_that_are_refused(given_pools: tuple[str, ...], size: int, text: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        cluster.checked_pools(given_pools, size)
    assert text in refused.value.message
    command = InitCluster(
        cluster=replace(CLUSTER, address_pools=given_pools, subnet_size=size), node_id="n", address="10.0.0.1",
        manager_address="", certificate="", description=Description(),
    )  # fmt: skip
    with pytest.raises(InvalidArgument, match=r"invalid subnet size|address pool"):
        cluster.init(NOW, Snapshot(), command)


def test_pools_are_added_behind_the_old_ones() -> None:
    changes, _ = cluster.add_pools(NOW, begin(), AddPools(pools=("172.16.9.9/12", "192.168.0.0/16")))
    (change,) = changes
    assert isinstance(change, Put)
    assert isinstance(change.item, Cluster)
    assert change.item.address_pools == ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
    for given_pools, text in (
        ((), "no address pool is named"),
        (("10.0.0.0/8",), "overlaps"),
        (("192.168.0.0/16", "192.168.1.0/24"), "overlaps"),
    ):
        with pytest.raises(InvalidArgument, match=text):
            cluster.add_pools(NOW, begin(), AddPools(pools=given_pools))
