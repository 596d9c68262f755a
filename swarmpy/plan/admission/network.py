"""Admission of networks: a network's subnets and VXLAN id are settled when it is created, or it is refused.

What belongs here: the rules for creating and removing a network. What does not: the addresses of services
and tasks in it (plan/addresses), the arithmetic (plan/pools), networks of a single node, which are the
Engine's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address

from swarmpy.model import addressing, ids
from swarmpy.model.commands import CreateNetwork, RemoveNetwork, Result
from swarmpy.model.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unimplemented,
)
from swarmpy.model.lifecycle import TERMINAL, TaskState
from swarmpy.model.objects import Cluster, Network, Subnet
from swarmpy.model.specs import MTU_OPTION, VNI_OPTION, IPAMConfig, NetworkSpec, compact, network_view
from swarmpy.plan import pools, tables
from swarmpy.state.changes import Change, Delete, Put
from swarmpy.state.snapshot import Snapshot

Admitted = tuple[list[Change], Result]

INGRESS = "ingress"
PREDEFINED = frozenset({"bridge", "host", "none", "default", "docker_gwbridge"})
LEAST_MTU = 576
LEAST_IPV6 = 1280
"""A link that carries less has no IPv6."""
KNOWN_OPTIONS = frozenset({"encrypted", MTU_OPTION, VNI_OPTION})
_NAME = re.compile(r"[a-zA-Z0-9](?:[-_]*[A-Za-z0-9]+)*\Z")


def create(now: int, world: Snapshot, command: CreateNetwork) -> Admitted:
    """Admit POST /networks/create of an overlay network. Raises Refusal. `now` is cluster time in ns."""
    spec = network_view(command.spec)
    _check_name(spec.name)
    if world.network_named(spec.name) is not None or command.id in world.networks:
        raise AlreadyExists(f"network with name {spec.name} already exists")
    _check(world, spec)
    network = Network(
        id=command.id, name=spec.name, spec=command.spec, created_at=now,
        subnets=_subnets(world, spec, command.id), vni=_vni(world, spec),
    )  # fmt: skip
    unknown = sorted(set(spec.options) - KNOWN_OPTIONS)
    warnings = [f"the overlay driver does not know the option {name}: it has no effect" for name in unknown]
    return [Put(network, "network create")], Result(id=network.id, warnings=tuple(warnings))


def remove(_now: int, world: Snapshot, command: RemoveNetwork) -> Admitted:
    """Admit DELETE /networks/{id}. Raises Refusal while anything needs the network."""
    network = world.networks.get(command.network)
    if network is None:
        raise NotFound(f"network {command.network} not found")
    if network.view.ingress:
        for service in world.services:
            if any(port.publish_mode != "host" for port in service.ports):
                raise FailedPrecondition(
                    f"ingress network {network.id} cannot be removed because service {service.id} "
                    "depends on it"
                )
    for service in world.services:
        if any(one.target == network.id for one in service.view.task_template.networks):
            raise FailedPrecondition(f"network {network.id} is in use by service {service.id}")
    for key, task in sorted((world.bucket_in(network.id) or {}).items()):
        if task.status.state not in TERMINAL:
            raise FailedPrecondition(f"network {network.id} is in use by task {key}")
    for _, guest in sorted((world.guests_in(network.id) or {}).items()):
        node = world.nodes.get(guest.node_id)
        where = f" on node {node.hostname}" if node is not None else ""
        raise FailedPrecondition(
            f"network {network.id} is in use by container {guest.name or guest.container_id or guest.id}"
            f"{where}: remove or disconnect it first"
        )
    return [Delete("network", network.id, "network remove")], Result(id=network.id)


def is_being_left(world: Snapshot, network: Network) -> bool:
    """Whether nothing keeps `remove` from it but tasks that are to stop and have not yet, if any."""
    tasks = (world.bucket_in(network.id) or {}).values()
    services = (one.view.task_template.networks for one in world.services)
    return (
        not network.view.ingress
        and not world.guests_in(network.id)
        and not any(one.target == network.id for networks in services for one in networks)
        and all(task.desired > TaskState.RUNNING or task.status.state in TERMINAL for task in tasks)
    )


def first(cluster: Cluster, now: int, nodes: Iterable[str] = ()) -> Network:
    """The ingress network with which a cluster begins, of both IP versions, beside these addresses of its
    first node. Raises FailedPrecondition or InvalidArgument where the cluster's address pools have no room
    for it."""
    world = Snapshot(cluster=cluster)
    sent = {"Name": INGRESS, "Driver": "overlay", "Ingress": True, "Scope": "swarm", "EnableIPv6": True}
    command = CreateNetwork(id=ids.derive(cluster.id, INGRESS), spec=compact(sent))
    spec = network_view(command.spec)
    return Network(
        id=command.id, name=INGRESS, spec=command.spec, created_at=now,
        subnets=_subnets(world, spec, command.id, nodes), vni=_vni(world, spec),
    )  # fmt: skip


# ---------------------------------------------------------------- the spec alone


def _check_name(name: str) -> None:
    if not name:
        raise InvalidArgument("meta: name must be provided")
    if name in PREDEFINED:
        raise PermissionDenied(f"operation is not permitted on predefined {name} network")
    if not _NAME.match(name) or len(name) > 63:
        raise InvalidArgument("name must be valid as a DNS name component")


def _check(world: Snapshot, spec: NetworkSpec) -> None:
    if spec.driver not in {"", "overlay"}:
        raise Unimplemented(
            f"networks of driver {spec.driver!r} cannot span the cluster: use --driver overlay, or "
            "--scope local"
        )
    _check_scope(spec.scope)
    if spec.config_only or (spec.config_from is not None and spec.config_from.network):
        raise Unimplemented(
            "config-only networks are for drivers of a single node: give the overlay its options"
        )
    if not spec.enable_ipv4:
        raise Unimplemented("overlay networks without IPv4 are not supported by this version of swarmpy")
    if spec.ipam.driver not in {"", "default"}:
        raise Unimplemented(
            f"IPAM driver {spec.ipam.driver!r} is not supported: addresses come from the cluster's own "
            "allocator"
        )
    if spec.ipam.options:
        raise Unimplemented("IPAM options are not supported: addresses come from the cluster's own allocator")
    if spec.ingress and spec.attachable:
        raise InvalidArgument("the ingress network cannot be attachable: it carries the routing mesh only")
    if spec.ingress and spec.internal:
        raise InvalidArgument("the ingress network cannot be internal: it carries traffic from outside")
    present = world.ingress_network()
    if spec.ingress and present is not None:
        raise AlreadyExists(f"ingress network ({present.id}) is already present: remove it first")
    _check_mtu(spec)
    _check_encryption(world, spec)


def _check_scope(scope: str) -> None:
    if scope == "local":
        raise InvalidArgument(
            "cannot downgrade network scope for overlay networks: they span the cluster; leave --scope away, "
            "or use --driver bridge for a network of one node"
        )
    if scope not in {"", "swarm"}:
        raise InvalidArgument(f"invalid network scope {scope!r}: it is swarm for overlay networks")


def _check_mtu(spec: NetworkSpec) -> None:
    mtu = spec.options.get(MTU_OPTION)
    if mtu is not None and not LEAST_MTU <= spec.underlay_mtu <= 65535:
        raise InvalidArgument(
            f"invalid MTU {mtu!r}: {MTU_OPTION} is a number of bytes from {LEAST_MTU} to 65535"
        )
    if mtu is not None and spec.enable_ipv6:
        least = LEAST_IPV6 + tables.OVERHEAD[6]
        least += tables.ENCRYPTION + tables.ALIGNMENT if spec.encrypted else 0
        if spec.underlay_mtu < least:
            raise InvalidArgument(
                f"invalid MTU {mtu!r}: IPv6 needs {LEAST_IPV6} bytes in the network, so {least} between the "
                "nodes"
            )


def _check_encryption(world: Snapshot, spec: NetworkSpec) -> None:
    if not spec.encrypted:
        return
    unable = [node.hostname for node in world.nodes if "encryption" not in node.description.features]
    if unable:
        raise FailedPrecondition(
            f"the network cannot be encrypted: the kernel of {_names(unable)} has no IPsec (ESP with "
            "AES-GCM); load the modules esp4 and xfrm_user there, or leave --opt encrypted away"
        )


def _names(names: list[str]) -> str:
    shown = ", ".join(sorted(names)[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more nodes"


# ---------------------------------------------------------------- subnets and ids


def _vni(world: Snapshot, spec: NetworkSpec) -> int:
    taken = {network.vni for network in world.networks}
    asked = spec.options.get(VNI_OPTION)
    if asked is None:
        free = pools.next_vni(taken)
        if free is None:
            raise FailedPrecondition("all VXLAN ids are in use: remove networks that are not needed")
        return free
    if not (asked.isascii() and asked.isdigit() and 1 <= int(asked) <= pools.LAST_VNI):
        raise InvalidArgument(
            f"invalid VXLAN id {asked!r}: one number from 1 to {pools.LAST_VNI} is expected"
        )
    if int(asked) in taken:
        raise InvalidArgument(f"VXLAN id {asked} is in use by another network")
    return int(asked)


def _machines(world: Snapshot) -> dict[str, str]:
    """The nodes' host names by their addresses."""
    return {
        plain: node.hostname
        for node in world.nodes for address in (node.status.address, node.data_address)
        if (plain := pools.canonical(address))
    }  # fmt: skip


def _subnets(
    world: Snapshot, spec: NetworkSpec, network_id: str, beside: Iterable[str] = ()
) -> tuple[Subnet, ...]:
    """The subnets of a new network. `beside`: addresses of machines that the world does not know yet."""
    networks = [subnet.subnet for network in world.networks for subnet in network.subnets]
    machines = _machines(world)
    taken = [*networks, *(one for one in {*machines, *map(pools.canonical, beside)} if one)]
    found: list[Subnet] = []
    for config in spec.ipam.config:
        _check_alone(config)
        subnet = _given(config) if config.subnet else _from_pools(world, [*taken, *(s.subnet for s in found)])
        for other in (*networks, *(one.subnet for one in found)):
            if addressing.overlaps(subnet.subnet, other):
                raise InvalidArgument(f"subnet {subnet.subnet} overlaps {other}, which is in use")
        held = next((one for one in sorted(machines) if addressing.inside(one, subnet.subnet)), "")
        if held:
            raise InvalidArgument(
                f"subnet {subnet.subnet} holds {held}, the address of node {machines[held]}: the network's "
                "tasks could not reach that machine, nor it them; choose another subnet"
            )
        found.append(subnet)
    versions = {addressing.parse(one.subnet).version for one in found}
    if 6 in versions and not spec.enable_ipv6:
        raise InvalidArgument("an IPv6 subnet needs IPv6 to be enabled: add --ipv6")
    if 4 not in versions:
        found.insert(0, _from_pools(world, taken))
    if spec.enable_ipv6 and 6 not in versions:
        local = _unique_local(world, spec, network_id, taken)
        found.append(Subnet(subnet=local, gateway=pools.first_address(local)))
    # IPv4 first: that is the order of every task's addresses.
    return tuple(sorted(found, key=lambda one: addressing.parse(one.subnet).version))


def _unique_local(world: Snapshot, spec: NetworkSpec, network_id: str, taken: Iterable[str]) -> str:
    """The ingress network has the cluster's own subnet, so that it is the same one when it is made anew."""
    if spec.ingress and world.cluster is not None:
        subnet = pools.of_cluster(world.cluster.id)
        if not any(addressing.overlaps(subnet, other) for other in taken):
            return subnet
    return pools.unique_local(network_id)


def _from_pools(world: Snapshot, taken: Iterable[str]) -> Subnet:
    cluster = world.cluster
    ranges, size = (cluster.address_pools, cluster.subnet_size) if cluster else (("10.0.0.0/8",), 24)
    subnet = pools.next_subnet(ranges, size, list(taken))
    if subnet is None:
        raise FailedPrecondition(
            f"no subnet /{size} is free in the cluster's address pools ({', '.join(ranges)}): remove "
            "networks that are not needed, or name one with --subnet"
        )
    return Subnet(subnet=subnet, gateway=pools.first_address(subnet))


def _given(config: IPAMConfig) -> Subnet:
    try:
        net = addressing.parse(config.subnet)
    except ValueError:
        raise InvalidArgument(
            f"invalid subnet {config.subnet}: it should be in CIDR notation with no host bits, like "
            "10.20.0.0/24"
        ) from None
    if net.prefixlen > net.max_prefixlen - 2:
        raise InvalidArgument(f"invalid subnet {config.subnet}: it has no room for a gateway and a task")
    nobodys = pools.unusable(config.subnet)
    if nobodys:
        raise InvalidArgument(
            f"invalid subnet {config.subnet}: {nobodys} cannot be given to tasks; choose another one, such "
            "as 10.20.0.0/24"
        )
    if config.ip_range:
        _check_range(config)
    gateway = config.gateway or pools.first_address(config.subnet)
    for what, address in (("gateway", gateway), *config.auxiliary_addresses.items()):
        _check_inside(what, address, config.subnet)
    if net.version == 4 and _plain(gateway) in {str(net.network_address), str(net.broadcast_address)}:
        raise InvalidArgument(
            f"invalid gateway {gateway}: it is the first or last address of {config.subnet}"
        )
    return Subnet(
        subnet=config.subnet, gateway=_plain(gateway), ip_range=config.ip_range,
        reserved=tuple(sorted(_plain(one) for one in config.auxiliary_addresses.values())),
    )  # fmt: skip


def _plain(address: str) -> str:
    """The address in its usual spelling, without a prefix length: the kernel knows no other."""
    return str(ip_address(addressing.bare(address)))


def _check_alone(config: IPAMConfig) -> None:
    """A range or an address means nothing without the subnet that it lies in."""
    aux = ", ".join(config.auxiliary_addresses.values())
    for what, said in (("gateway", config.gateway), ("ip-range", config.ip_range), ("aux-address", aux)):
        if said and not config.subnet:
            raise InvalidArgument(f"{what} {said} needs a subnet: name the one that it lies in with --subnet")


def _check_range(config: IPAMConfig) -> None:
    try:
        part = addressing.parse(config.ip_range)
    except ValueError:
        raise InvalidArgument(
            f"invalid ip-range {config.ip_range}: it should be in CIDR notation with no host bits, like "
            "10.1.0.0/25"
        ) from None
    whole = addressing.parse(config.subnet)
    if part.version != whole.version or not _within(part, whole):
        raise InvalidArgument(
            f"no matching subnet for range {config.ip_range}: it must lie in {config.subnet}"
        )


def _within(part: addressing.AnyNetwork, whole: addressing.AnyNetwork) -> bool:
    return part.network_address in whole and part.broadcast_address in whole


def _check_inside(what: str, address: str, subnet: str) -> None:
    try:
        ip_address(addressing.bare(address))
    except ValueError:
        raise InvalidArgument(f"invalid address {address!r} for {what}: an IP address is expected") from None
    if not addressing.inside(addressing.bare(address), subnet):
        raise InvalidArgument(f"no matching subnet for {what} {address}: it must lie in {subnet}")
