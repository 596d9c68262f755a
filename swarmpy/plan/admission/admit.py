"""One door for all commands: `admit` finds the admission of each and returns its changes.

Admission validates a command against the world as it would be with all earlier commands of the same batch,
and either refuses with a sentence or answers with changes and a Result. It decides nothing that the planners
decide. What does not belong here: the admissions themselves (one file per noun).
"""

from __future__ import annotations

from swarmpy.model import commands as c
from swarmpy.plan.admission import attachment, cluster, network, node, service, tasks
from swarmpy.state.changes import Change
from swarmpy.state.snapshot import Snapshot


def admit(
    now: int, world: Snapshot, command: c.AnyCommand, reachable: frozenset[str]
) -> tuple[list[Change], c.Result]:
    """Changes and answer of a command at cluster time `now` (ns).

    `reachable`: ids of the managers that the leader heard from lately, itself included.
    Raises model.errors.Refusal.
    """
    match command:
        case c.ReportTasks():
            return tasks.report(now, world, command)
        case c.CreateService():
            return service.create(now, world, command)
        case c.UpdateService():
            return service.update(now, world, command)
        case c.RemoveService():
            return service.remove(now, world, command)
        case c.CreateNetwork() | c.RemoveNetwork() | c.AttachContainer() | c.DetachContainer():
            return _admit_network(now, world, command)
        case c.InitCluster():
            return cluster.init(now, world, command)
        case c.UpdateCluster():
            return cluster.update(now, world, command)
        case c.AddPools():
            return cluster.add_pools(now, world, command)
        case _:
            return _admit_node(now, world, command, reachable)


def _admit_network(now: int, world: Snapshot, command: c.NetworkCommand) -> tuple[list[Change], c.Result]:
    match command:
        case c.CreateNetwork():
            return network.create(now, world, command)
        case c.RemoveNetwork():
            return network.remove(now, world, command)
        case c.AttachContainer():
            return attachment.attach(now, world, command)
        case c.DetachContainer():
            return attachment.detach(now, world, command)


def _admit_node(
    now: int, world: Snapshot, command: c.NodeCommand, reachable: frozenset[str]
) -> tuple[list[Change], c.Result]:
    match command:
        case c.ObserveNode():
            return node.observe(now, world, command)
        case c.UpdateNode():
            return node.update(now, world, command, reachable)
        case c.RemoveNode():
            return node.remove(now, world, command)
        case c.JoinNode():
            return node.join(now, world, command)
        case c.RenewCertificate():
            return node.renew(now, world, command)
        case c.SetRole():
            return node.set_role(now, world, command)
        case c.Leave():
            return node.leave(now, world, command)
