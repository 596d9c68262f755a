"""Published ports: one port space per protocol for the routing mesh, and the ports that it chooses itself.

What belongs here: which port a service gets, and why it cannot have one. What does not: form (validate.py).
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from swarmpy.model.errors import FailedPrecondition, InvalidArgument
from swarmpy.model.fabric import sealed_port
from swarmpy.model.objects import Service
from swarmpy.model.specs import Port
from swarmpy.plan.probing import PORT as PROBES
from swarmpy.state.snapshot import Snapshot

FIRST, LAST = 30000, 32767
"""The ports that are given where none is asked for, as in Swarm."""


def resolve(
    world: Snapshot, service_id: str, asked: tuple[Port, ...], before: tuple[Port, ...]
) -> tuple[Port, ...]:
    """The service's ports with those left open chosen: what it had `before` is kept. Host-mode ports that are
    left open stay 0: the node's Engine chooses. Raises InvalidArgument where a port is another's,
    FailedPrecondition where none is left."""
    taken = {
        (port.protocol, port.published_port): (port.publish_mode, other)
        for other in world.services.rows.values() if other.id != service_id
        for port in other.ports if port.published_port
    }  # fmt: skip
    plain = [replace(port, protocol=port.protocol or "tcp", publish_mode=port.publish_mode or "ingress")
             for port in asked]  # fmt: skip
    for port in plain:
        if port.published_port:
            _check(port, taken)
    clusters = reserved(world)
    for port in plain:
        if port.publish_mode != "host":
            _check_ours(port, clusters)
    own = {(port.protocol, port.published_port) for port in plain if port.published_port}
    # All that is kept first: a new port must not take the number of one that was there before.
    kept = [_settled(port, own, lambda port: _kept(port, before, own)) for port in plain]
    return tuple(_settled(port, own, lambda port: _free(port.protocol, own | taken.keys() | clusters.keys()))
                 for port in kept)  # fmt: skip


def through_mesh(world: Snapshot) -> dict[tuple[str, int], Service]:
    """The services that have a port published on every node, by protocol and port."""
    return {
        (port.protocol, port.published_port): service
        for service in world.services
        for port in service.ports if port.publish_mode != "host" and port.published_port
    }  # fmt: skip


def reserved(world: Snapshot) -> dict[tuple[str, int], str]:
    """What the nodes themselves listen on, by protocol and port, and what for. The mesh takes a port on every
    node before any program there sees it: one of these would cut the nodes off, from the news that it was
    withdrawn as well. (A node spares what it listens on itself, see plan/fabric: the port would be no
    service's there.)"""
    found = {("udp", PROBES): "the nodes' questions to each other"}
    if world.cluster is not None:
        found["udp", world.cluster.data_path_port] = "the overlay networks"
        found["udp", sealed_port(world.cluster.data_path_port)] = "the encrypted networks"
    for node in world.nodes:
        number = node.manager_address.rpartition(":")[2]
        if number.isdigit():
            found["tcp", int(number)] = "the managers"
        if node.listen_port and node.view.role == "manager":
            found["tcp", node.listen_port] = "the managers"
    return found


def hidden(world: Snapshot) -> tuple[tuple[Service, Port, str], ...]:
    """Published ports that the mesh leaves to the nodes, each with its user: admission refuses them, but a
    service may have been there before the user was."""
    own = reserved(world)
    return tuple(
        (service, port, own[port.protocol, port.published_port])
        for service in world.services
        for port in service.ports
        if port.publish_mode != "host" and (port.protocol, port.published_port) in own
    )


def _check_ours(port: Port, clusters: dict[tuple[str, int], str]) -> None:
    user = clusters.get((port.protocol, port.published_port))
    if user is not None:
        raise InvalidArgument(
            f"port '{port.published_port}/{port.protocol}' cannot be published through the routing mesh: "
            f"{user} of this cluster use it on the nodes; choose another port, or publish with mode=host"
        )


def _settled(port: Port, own: set[tuple[str, int]], choose: Callable[[Port], int]) -> Port:
    """The port with the number chosen for it, 0 for none yet, which then counts among its service's `own`."""
    if port.published_port or port.publish_mode == "host":
        return port
    number = choose(port)
    if number:
        own.add((port.protocol, number))
    return replace(port, published_port=number)


def _check(port: Port, taken: dict[tuple[str, int], tuple[str, Service]]) -> None:
    mode, other = taken.get((port.protocol, port.published_port), ("", None))
    if other is None or (mode == "host" and port.publish_mode == "host"):
        return  # host-mode ports are the nodes' business: different nodes may publish the same one
    kind = "a host-published port" if mode == "host" else "an ingress port"
    raise InvalidArgument(
        f"port '{port.published_port}' is already in use by service '{other.name}' ({other.id}) as {kind}"
    )


def _kept(port: Port, before: tuple[Port, ...], own: set[tuple[str, int]]) -> int:
    for old in before:
        same = (old.protocol, old.target_port, old.publish_mode) == (
            port.protocol, port.target_port, port.publish_mode,
        )  # fmt: skip
        if same and (old.protocol, old.published_port) not in own:
            return old.published_port
    return 0


def _free(protocol: str, taken: set[tuple[str, int]]) -> int:
    for number in range(FIRST, LAST + 1):
        if (protocol, number) not in taken:
            return number
    raise FailedPrecondition(
        f"all {protocol} ports from {FIRST} to {LAST} are published already: name a port, or remove services"
    )
