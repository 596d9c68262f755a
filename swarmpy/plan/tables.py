"""Network tables: what the nodes of a network are told of it, worked out from the world.

What belongs here: which endpoints exist, which of them get traffic, which nodes need which table. What does
not: when it is sent and who has taken it in (manager/dispatcher), how a node carries it out (agent).
"""

from __future__ import annotations

from collections.abc import Iterable

from swarmpy.model import addressing
from swarmpy.model.fabric import Endpoint, IngressNode, PublishedPort, ServiceEntry, Table, mac_of
from swarmpy.model.lifecycle import TERMINAL, NodeState, TaskState
from swarmpy.model.objects import KeyRing, Network, Node, Service, Task
from swarmpy.plan import pools
from swarmpy.state.snapshot import Snapshot

DEFAULT_MTU = 1500
OVERHEAD = {4: 50, 6: 70}
"""Bytes that VXLAN adds to a frame, by the IP version of the underlay."""
ENCRYPTION = 34
"""Bytes that ESP adds with AES-GCM: header 8, initialization vector 8, trailer 2, check value 16. (Docker's
networks have 8 bytes more, for a check value of 8.)"""
ALIGNMENT = 4
"""ESP fills up to a multiple of this: an underlay's odd bytes are lost to it."""
LEAST_MTU = 68
LEAST_MTU6 = 1280
"""Narrower links carry no IPv6: the ingress network, which has it unasked, does without on such."""
SHORT_ID = 12
"""Characters of a container's id that are its host name, where it was given none."""


def table(world: Snapshot, network: Network) -> Table:
    """The table of one network."""
    spec = network.view
    tasks = [task for _, task in sorted((world.bucket_in(network.id) or {}).items()) if present(task)]
    nodes = members(world, network, tasks)
    mtu = _mtu(network, nodes)
    six = not spec.ingress or mtu >= LEAST_MTU6
    ingress = _ingress_nodes(network, nodes, six=six) if spec.ingress else ()
    ring = world.cluster.network_keys if world.cluster and spec.encrypted else KeyRing()
    return Table(
        id=network.id, name=network.name, vni=network.vni, mtu=mtu,
        subnets=tuple(one.subnet for one in network.subnets),
        gateways=tuple(f"{one.gateway}/{addressing.parse(one.subnet).prefixlen}" for one in network.subnets),
        port=world.cluster.data_path_port if world.cluster else 4789,
        internal=spec.internal, ingress=spec.ingress, encrypted=spec.encrypted, attachable=spec.attachable,
        peers=tuple(sorted({node.vtep for node in nodes if node.vtep})),
        endpoints=_endpoints(world, network, tasks, six=six), services=_services(world, network, tasks),
        ports=_ports(world) if spec.ingress else (), nodes=ingress, keys=ring.keys, sending=ring.sending,
    )  # fmt: skip


def of_node(world: Snapshot, node_id: str) -> frozenset[str]:
    """Ids of the networks that the node carries: those that its tasks and guests are on, and the ingress
    network once a port is published anywhere."""
    found = {
        place.network_id
        for task in (world.bucket_on(node_id) or {}).values()
        if present(task)
        for place in task.networks
    }
    for guest in (world.guests_on(node_id) or {}).values():
        found.update(place.network_id for place in guest.networks)
    ingress = world.ingress_network()
    if ingress is not None and any(_meshed(service) for service in world.services.rows.values()):
        found.add(ingress.id)
    return frozenset(key for key in found if key in world.networks)


def present(task: Task) -> bool:
    """Whether the task has, or will have at once, a container on its node."""
    state = task.status.state
    return bool(task.node_id) and state >= TaskState.ASSIGNED and state not in TERMINAL


def members(world: Snapshot, network: Network, tasks: Iterable[Task]) -> list[Node]:
    """The nodes that carry the network, by id. `tasks`: its present ones."""
    if network.view.ingress:
        return list(world.nodes)
    ids = {task.node_id for task in tasks}
    ids.update(guest.node_id for guest in (world.guests_in(network.id) or {}).values())
    return [node for node in (world.nodes.get(one) for one in sorted(ids)) if node is not None]


def _mtu(network: Network, nodes: list[Node]) -> int:
    """One MTU for the whole network: what the narrowest of its nodes can carry."""
    spec = network.view
    underlay = spec.underlay_mtu or min(
        (node.description.mtu for node in nodes if node.description.mtu), default=DEFAULT_MTU
    )
    version = 6 if any(":" in node.vtep for node in nodes) else 4
    if spec.encrypted:
        underlay -= ENCRYPTION + underlay % ALIGNMENT
    return max(LEAST_MTU, underlay - OVERHEAD[version])


# ---------------------------------------------------------------- endpoints


def _endpoints(world: Snapshot, network: Network, tasks: list[Task], *, six: bool) -> tuple[Endpoint, ...]:
    serving = in_traffic(world, tasks)
    found: list[Endpoint] = []
    for task in tasks:
        node = world.nodes.get(task.node_id)
        place = next(one for one in task.networks if one.network_id == network.id)
        if node is None:
            continue
        found.append(
            Endpoint(
                id=task.id,
                name=task.name,
                service_id=task.service_id,
                node_id=task.node_id,
                hostname=task.view.container.hostname,
                slot=str(task.slot or task.node_id),
                vtep=node.vtep,
                mac=mac_of(task.id, network.id),
                addresses=_reached(network, node, place.addresses, six=six),
                aliases=place.aliases,
                serving=task.id in serving,
            )
        )
    found += _guests(world, network)
    return tuple(sorted(found, key=lambda one: one.id))


def _reached(network: Network, node: Node, addresses: Iterable[str], *, six: bool) -> tuple[str, ...]:
    """Where a task is reached. In the ingress network it has no IPv6 on a node without: it got its addresses
    before its node was chosen."""
    six = six and (not network.view.ingress or any(":" in one for one in node.ingress))
    return tuple(addressing.bare(one) for one in addresses if six or ":" not in one)


def _guests(world: Snapshot, network: Network) -> Iterable[Endpoint]:
    """Containers that are no tasks: found by their own names, behind no service's address."""
    for guest in (world.guests_in(network.id) or {}).values():
        node = world.nodes.get(guest.node_id)
        if node is None:
            continue
        place = next(one for one in guest.networks if one.network_id == network.id)
        yield Endpoint(
            id=guest.id,
            name=guest.name,
            hostname=guest.hostname or guest.container_id[:SHORT_ID],
            node_id=node.id,
            vtep=node.vtep,
            mac=mac_of(guest.id, network.id),
            addresses=tuple(addressing.bare(one) for one in place.addresses),
            aliases=place.aliases,
        )


def in_traffic(world: Snapshot, tasks: Iterable[Task]) -> frozenset[str]:
    """Ids of the tasks that are to get traffic: running, wanted, and on a node that is heard.

    A node that a new leader has not heard yet counts as heard: a change of leader takes nothing out of
    traffic. And where all tasks of a service are on suspect nodes they stay: something may still answer,
    nothing surely will not.
    """
    heard: dict[str, list[str]] = {}
    suspect: dict[str, list[str]] = {}
    for task in tasks:
        if task.status.state != TaskState.RUNNING or task.desired != TaskState.RUNNING:
            continue
        node = world.nodes.get(task.node_id)
        state = node.status.state if node is not None else NodeState.DOWN
        if state in (NodeState.READY, NodeState.UNKNOWN):
            heard.setdefault(task.service_id, []).append(task.id)
        elif state is NodeState.DISCONNECTED:
            suspect.setdefault(task.service_id, []).append(task.id)
    for service_id, ids in suspect.items():
        heard.setdefault(service_id, ids)
    return frozenset(task_id for ids in heard.values() for task_id in ids)


# ---------------------------------------------------------------- services


def _services(world: Snapshot, network: Network, tasks: list[Task]) -> tuple[ServiceEntry, ...]:
    ids = {task.service_id for task in tasks}
    ids.update(
        service.id for service in world.services.rows.values()
        if any(vip.network_id == network.id for vip in service.vips)
    )  # fmt: skip
    found: list[ServiceEntry] = []
    for service_id in sorted(ids):
        service = world.services.get(service_id)
        if service is not None:
            found.append(_service(service, network))
    return tuple(found)


def _service(service: Service, network: Network) -> ServiceEntry:
    attached = [one for one in service.view.task_template.networks if one.target == network.id]
    return ServiceEntry(
        id=service.id, name=service.name,
        aliases=tuple(sorted({alias for one in attached for alias in one.aliases})),
        vips=tuple(addressing.bare(vip.address) for vip in service.vips if vip.network_id == network.id),
    )  # fmt: skip


# ---------------------------------------------------------------- the routing mesh


def _meshed(service: Service) -> bool:
    return any(port.publish_mode != "host" for port in service.ports)


def _source(protocol: str) -> str:
    """What a backend sees of a client where the service does not say. An SCTP program answers from the
    address on the way to whom it answers, and the way to a client outside is not by this network."""
    return "snat" if protocol == "sctp" else "preserve"


def _ports(world: Snapshot) -> tuple[PublishedPort, ...]:
    return tuple(
        PublishedPort(
            service_id=service.id, protocol=port.protocol, published=port.published_port,
            target=port.target_port, source=port.source or _source(port.protocol),
            host=pools.canonical(port.host_ip),
        )
        for service in world.services
        for port in service.ports
        if port.publish_mode != "host"
    )  # fmt: skip


def _ingress_nodes(network: Network, nodes: list[Node], *, six: bool) -> tuple[IngressNode, ...]:
    found: list[IngressNode] = []
    for node in nodes:
        addresses = tuple(addressing.bare(one) for one in node.ingress if six or ":" not in one)
        if addresses:
            found.append(
                IngressNode(
                    id=node.id,
                    number=addressing.offset(addresses[0], network.subnets[0].subnet),
                    vtep=node.vtep,
                    mac=mac_of(node.id, network.id),
                    addresses=addresses,
                )
            )
    return tuple(found)
