"""The doctor's judgement: what the nodes report of a network, against what the leader's tables say.

What belongs here: whom a node tries to reach through a network, and the findings, as sentences that say node,
network, what, and what would help. What does not: asking the nodes (manager/doctor), looking (agent/doctor).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from swarmpy.model.examination import Finding, NodeReport, Path
from swarmpy.model.fabric import Table, digest
from swarmpy.model.lifecycle import NodeState
from swarmpy.model.links import Station
from swarmpy.plan import published, tables
from swarmpy.plan.probing import PORT, narrow
from swarmpy.state.snapshot import Snapshot

PROBLEM, NOTE, MENDED = "problem", "note", "mended"

RESTART = "the agent mends this by itself; if it stays, restart the daemon on that node and look at its log"


def stations(table: Table, node_id: str) -> tuple[Station | None, dict[str, Station]]:
    """In whose name the node tries the network, and one station on each other node, by node id. IPv4 only:
    every network has it."""
    if table.ingress:
        found = {one.id: Station(one.mac, _v4(one.addresses)) for one in table.nodes if _v4(one.addresses)}
    else:
        found = {}
        for one in table.endpoints:
            if one.serving and _v4(one.addresses):
                found.setdefault(one.node_id, Station(one.mac, _v4(one.addresses)))
    return found.pop(node_id, None), found


def _v4(addresses: Iterable[str]) -> str:
    return next((one for one in addresses if ":" not in one), "")


@dataclass(frozen=True, slots=True)
class Case:
    """All that the doctor knows. `before` and `after`: the world when he asked and when all had answered;
    `asked`: ids of the networks; `reports` by node id; `silent`: nodes that were asked and did not answer."""

    before: Snapshot
    after: Snapshot
    asked: tuple[str, ...]
    reports: Mapping[str, NodeReport]
    silent: Collection[str]


def patients(world: Snapshot, networks: Collection[str], *, all_nodes: bool) -> tuple[str, ...]:
    """The nodes to ask: those that carry one of the networks, or all."""
    return tuple(
        node.id for node in world.nodes if all_nodes or tables.of_node(world, node.id) & set(networks)
    )


def findings(case: Case) -> tuple[Finding, ...]:
    """What there is to say, problems first."""
    found = {*_silent(case), *_stale(case), *_reported(case), *_unreached(case), *_spared(case)}
    order = {PROBLEM: 0, NOTE: 1, MENDED: 2}
    return tuple(sorted(found, key=lambda one: (order[one.kind], one)))


class _Names:
    """Ids and addresses as people know them."""

    def __init__(self, world: Snapshot) -> None:
        self._world = world
        self._by_vtep = {node.vtep: node.id for node in world.nodes if node.vtep}

    def node(self, node_id: str) -> str:
        node = self._world.nodes.get(node_id)
        return node.description.hostname or node_id if node is not None else node_id

    def peer(self, address: str) -> str:
        known = self._by_vtep.get(address)
        return self.node(known) if known else address

    def network(self, network_id: str) -> str:
        network = self._world.networks.get(network_id)
        return network.name if network is not None else network_id


def _silent(case: Case) -> Iterable[Finding]:
    names = _Names(case.after)
    for node_id in case.silent:
        node = case.after.nodes.get(node_id)
        if node is None:
            continue
        address = node.vtep
        deaf = sorted(names.node(key) for key, one in case.reports.items() if address in one.lost)
        seen = f"; nor do {', '.join(deaf)} hear it" if deaf else ""
        down = node.status.state is NodeState.DOWN
        yield Finding(
            NOTE if down else PROBLEM, names.node(node_id), "",
            f"it did not answer (the leader knows it as {node.status.state.word}){seen}",
            "see that the machine runs, that its swarmpy daemon does, and that it reaches the managers at "
            "TCP port 2377",
        )  # fmt: skip


def _stale(case: Case) -> Iterable[Finding]:
    """Nodes whose tables are not the leader's."""
    names = _Names(case.after)
    for network_id in case.asked:
        made = [tables.table(world, world.networks[network_id]) for world in (case.before, case.after)
                if network_id in world.networks]  # fmt: skip
        digests = [digest(one) for one in made]
        for node_id, report in sorted(case.reports.items()):
            worlds = (case.before, case.after)
            wanted = [network_id in tables.of_node(world, node_id) for world in worlds]
            held = report.digests.get(network_id, "")
            if held in digests or (not held and not all(wanted)):
                continue
            moving = len(set(digests)) != 1 or wanted[0] != wanted[1]
            what = f"its table is {held}, the leader's {digests[-1]}" if held else "it has no table of it"
            if not digests:
                what = "it still has a table of it, though the network is gone"
            yield Finding(
                NOTE if moving else PROBLEM, names.node(node_id), names.network(network_id),
                f"{what}; the network was changing just now" if moving else what,
                "ask again" if moving else RESTART,
            )  # fmt: skip


def _reported(case: Case) -> Iterable[Finding]:
    names = _Names(case.after)
    for node_id, report in sorted(case.reports.items()):
        node = names.node(node_id)
        told: set[tuple[str, str]] = set()
        for wrong in report.wrong:
            if not wrong.network_id or wrong.network_id in case.asked:
                network = names.network(wrong.network_id) if wrong.network_id else ""
                yield Finding(PROBLEM, node, network, wrong.what, RESTART)
        for one in report.mended:
            key = (one.network_id, one.what)
            if key not in told and (not one.network_id or one.network_id in case.asked):
                told.add(key)  # newest first: how often it was mended before is in the node's log
                network = names.network(one.network_id) if one.network_id else ""
                yield Finding(
                    MENDED, node, network, f"{one.what}; mended {one.ago:.0f} s ago",
                    "find out what changes it: another program that writes nft rules or links?",
                )  # fmt: skip
        for address in report.lost:
            yield Finding(
                PROBLEM, node, "",
                f"it does not hear {names.peer(address)} any more: tasks there get no traffic from here",
                f"see that both machines run, and that UDP port {PORT} passes between them",
            )  # fmt: skip


def _spared(case: Case) -> Iterable[Finding]:
    """Published ports that are not published where a node needs them itself."""
    ingress = case.after.ingress_network()
    if ingress is None or ingress.id not in case.asked:
        return
    for service, port, user in published.hidden(case.after):
        yield Finding(
            PROBLEM, "all nodes", ingress.name,
            f"port {port.published_port}/{port.protocol} of service {service.name} is published on no "
            f"node where {user} of this cluster use it",
            "publish the service at another port",
        )  # fmt: skip


def _unreached(case: Case) -> Iterable[Finding]:
    names = _Names(case.after)
    silent = {one.vtep for key in case.silent if (one := case.after.nodes.get(key)) is not None}
    ways: dict[tuple[str, str, bool], set[str]] = {}
    for node_id, report in sorted(case.reports.items()):
        for path in report.paths:
            if path.peer not in silent and path.peer not in report.lost:
                yield _path(names.node(node_id), names.peer(path.peer), path)
        for way in report.crossings:
            if way.node_id not in case.silent and way.network_id in case.asked:
                ways.setdefault((node_id, way.node_id, way.small), set()).add(names.network(way.network_id))
    port = case.after.cluster.data_path_port if case.after.cluster else 4789
    blocked = f"let UDP port {port} (VXLAN) pass between the nodes, both ways: look at the firewalls"
    yield from _crossings(case, names, ways, blocked)


def _path(node: str, peer: str, path: Path) -> Finding:
    if path.small:
        return Finding(PROBLEM, node, "", f"to {peer}: {narrow(path.peer, path.size)}",
                       "raise the MTU of what lies between")  # fmt: skip
    return Finding(
        PROBLEM, node, "", f"{peer} ({path.peer}) does not answer its probes",
        f"let UDP port {PORT} pass between the nodes, both ways: without it a machine that dies stays in "
        "traffic until the leader misses it",
    )  # fmt: skip


def _crossings(
    case: Case, names: _Names, ways: Mapping[tuple[str, str, bool], set[str]], blocked: str
) -> Iterable[Finding]:
    """One finding for each way that fails; a node that is in the middle of all of them is named alone."""
    dead = {frozenset((one, other)) for one, other, small in ways if not small}
    centre: set[str] = set()
    for node_id in sorted(case.reports):
        others = {one for pair in dead if node_id in pair for one in pair} - {node_id}
        if len(others) > 1 and others >= set(case.reports) - {node_id}:
            centre.add(node_id)
    if len(centre) > 1 and len(centre) == len(case.reports):
        yield Finding(PROBLEM, "all nodes", _listed(*ways.values()),
                      "no node reaches another one through the network", blocked)  # fmt: skip
        return
    for node_id in sorted(centre):
        touched = [
            found for (one, other, small), found in ways.items() if node_id in (one, other) and not small
        ]
        yield Finding(
            PROBLEM, names.node(node_id), _listed(*touched),
            "nothing passes between it and any other node through the network", blocked,
        )  # fmt: skip
    for (node_id, other, small), found in sorted(ways.items(), key=lambda one: one[0]):
        if small:
            yield Finding(
                PROBLEM, names.node(node_id), _listed(found),
                f"its large packets do not reach {names.node(other)}, small ones do",
                "raise the MTU of what lies between, or make the network with a smaller "
                "com.docker.network.driver.mtu",
            )  # fmt: skip
        elif not centre & {node_id, other}:
            yield Finding(PROBLEM, names.node(node_id), _listed(found),
                          f"it does not reach {names.node(other)} through the network", blocked)  # fmt: skip


def _listed(*names: set[str]) -> str:
    return ", ".join(sorted(set().union(*names)))
