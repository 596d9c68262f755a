"""What networks must look like at rest: every node's tables and kernel are as the leader's world says, and
nothing is left over.

What does not belong here: what must hold while things move (netwatch.py, netoracle.py).
"""

from __future__ import annotations

from collections.abc import Iterator

from swarmpy.model.fabric import Table
from swarmpy.plan.container import OPTION
from swarmpy.plan.share import Sandboxes, link_of, mesh_of, neighbours, served_at
from swarmpy.plan.tables import of_node, table
from swarmpy.sim.containers import Container
from swarmpy.sim.invariants import Broken
from swarmpy.sim.netwatch import agent_of, of_container
from swarmpy.sim.overlay import SimOverlay
from swarmpy.sim.stage import Box
from swarmpy.state.snapshot import Snapshot


def check_networks_rest(world: Snapshot, boxes: dict[str, Box]) -> Iterator[Broken]:
    """See the file's charter."""
    made = {network.id: table(world, network) for network in world.networks}
    for node in world.nodes:
        box = boxes.get(node.hostname)
        agent = agent_of(box) if box is not None else None
        if box is None or agent is None or agent._node_id != node.id:
            continue
        tables = {key: made[key] for key in sorted(of_node(world, node.id))}
        if agent._fabric.tables != tables:
            yield (
                "tables-agree",
                f"{box.name} has other network tables than the leader: {_which(agent, tables)}",
            )
        yield from _box(box, node.id, node.vtep, tables)
        yield from _engine(box, world)


def _which(agent: object, tables: dict[str, Table]) -> str:
    known = agent._fabric.tables  # type: ignore[attr-defined]  # an Agent
    return ", ".join(sorted(key for key in {*known, *tables} if known.get(key) != tables.get(key)))


def _box(box: Box, node_id: str, vtep: str, tables: dict[str, Table]) -> Iterator[Broken]:
    running = [one for one in box.dockerd.listed if one.state == "running" and one.places]
    yield from _links(box, node_id, vtep, tables, running)
    wanted = Sandboxes(tables)
    rules = box.kernel.filter
    paths = {one.sandbox: wanted.table(of_container(one)) for one in running}
    for path in sorted({*paths, *rules.sandboxes}):
        held = rules.sandboxes.get(path)
        if held is None or path not in paths or held.table != paths[path]:
            yield "sandboxes-agree", f"the rules of {path} on {box.name} are not as they should be"
    if set(box.kernel.namespaces) != set(paths):
        left = sorted(set(box.kernel.namespaces) ^ set(paths))
        yield "nothing-leaks", f"namespaces of {box.name} without containers, or the reverse: {left}"
    ingress = [one for one in tables.values() if one.ingress]
    mesh = mesh_of(ingress[0], node_id) if ingress else None
    have = rules.mesh.table if rules.mesh is not None else None
    if have != mesh:
        yield "mesh-agrees", f"the routing mesh of {box.name} is not as it should be"


def _links(
    box: Box, node_id: str, vtep: str, tables: dict[str, Table], running: list[Container]
) -> Iterator[Broken]:
    seen = SimOverlay(box.kernel.stack)._look()
    for key in sorted({*seen, *tables}):
        if key not in tables or key not in seen:
            yield "links-agree", f"{box.name} has links of network {key}, or lacks them, against its table"
            continue
        link, one = seen[key], tables[key]
        if link.link != link_of(one, node_id, vtep):
            yield "links-agree", f"the links of {one.name} on {box.name} are not as they should be"
        if dict(link.neighbours) != {n.mac: n for n in neighbours(one, node_id)}:
            yield "neighbours-agree", f"the neighbours of {one.name} on {box.name} are not as they should be"
        ends = {end for container in running for end in _ends(container, key)}
        if set(link.plugs) != ends:
            odd = sorted(set(link.plugs) ^ ends)
            yield (
                "plugs-agree",
                f"the plugs of {one.name} on {box.name} are not those of its containers: {odd}",
            )
        served = box.kernel.served.get(key)
        where = served[1] if served is not None else ()
        if where != served_at(one):
            yield "names-served", f"names of {one.name} are served at {where} on {box.name}"
        elif served is not None and served[0] not in box.kernel.stack.rooms.values():
            yield (
                "names-served",
                f"the name server of {one.name} on {box.name} is in a namespace that is gone",
            )
    for key in sorted(set(box.kernel.served) - set(tables)):
        yield "nothing-leaks", f"{box.name} serves names of network {key}, which it is not on"


def _ends(container: Container, network_id: str) -> Iterator[str]:
    for name, options in container.places.items():
        if options.get(OPTION + "network") == network_id:
            yield container.endpoint(name)


def _engine(box: Box, world: Snapshot) -> Iterator[Broken]:
    for name, key in sorted(box.dockerd.networks.items()):
        if key not in world.networks:
            yield "nothing-leaks", f"the Engine of {box.name} keeps network {name}, which was removed"
