"""Planted bugs of networks (see bugs.py).

What belongs here: mistakes in addresses, tables, traffic and kernels' programming. What does not: their
discovery.
"""

from __future__ import annotations

from typing import Any

from swarmpy.agent import fabric as hands
from swarmpy.agent.fabric import FabricWorker
from swarmpy.agent.joining import Joining
from swarmpy.agent.naming import EngineNetworks
from swarmpy.agent.tethers import TetherKeeper
from swarmpy.manager.tables import Told
from swarmpy.model import addressing
from swarmpy.model.lifecycle import TERMINAL, TaskState
from swarmpy.model.messages import Networks
from swarmpy.plan import addresses, fabric, leaving, listening, published, share, tables
from swarmpy.plan.carried import forwarded
from swarmpy.sim.bugs import Patch, bug

CALM = ("events-lost",)
"""Faults that do not keep anybody from being judged."""


@bug(
    "address-reused", "an address is given away while its last task still stops", world="cluster", faults=CALM
)
def _address_reused() -> list[Patch]:
    right = addresses.held

    def hasty(world: Any, network: Any) -> set[str]:
        going = {
            addressing.bare(address)
            for task in (world.bucket_in(network.id) or {}).values()
            if task.desired > TaskState.RUNNING and task.status.state not in TERMINAL
            for place in task.networks
            for address in place.addresses
        }
        found: set[str] = right(world, network) - going
        return found

    return [(addresses, "held", hasty)]


@bug("neighbour-forgotten", "an agent programs only the first of several new neighbours", world="cluster",
     faults=CALM)  # fmt: skip
def _neighbour_forgotten() -> list[Patch]:
    right = FabricWorker._act

    async def careless(self: FabricWorker, action: fabric.Action) -> None:
        if isinstance(action, fabric.Forward) and len(action.add) > 1:
            few = fabric.Forward(action.network_id, action.add[:1], action.remove)
            await self.ports.overlay.forward(action.network_id, few.add, few.remove)
            links = self._links
            if links is not None and action.network_id in links:
                links[action.network_id] = forwarded(links[action.network_id], action)
        else:
            await right(self, action)

    return [(FabricWorker, "_act", careless)]


@bug("dead-backend-kept", "a task stays in traffic until it has stopped", world="cluster", faults=CALM)
def _dead_backend_kept() -> list[Patch]:
    def blind(world: Any, tasks: Any) -> frozenset[str]:
        return frozenset(task.id for task in tasks if task.status.state == TaskState.RUNNING)

    return [(tables, "in_traffic", blind)]


@bug("starting-in-traffic", "a task gets traffic before it is healthy", world="cluster", faults=CALM)
def _starting_in_traffic() -> list[Patch]:
    right = tables.in_traffic

    def eager(world: Any, tasks: Any) -> frozenset[str]:
        tasks = list(tasks)
        early = {task.id for task in tasks if task.status.state == TaskState.STARTING}
        return right(world, tasks) | early

    return [(tables, "in_traffic", eager)]


@bug("acknowledged-unread", "an agent says that its kernel is up to date before it is", world="cluster",
     faults=("slow-rules",))  # fmt: skip
def _acknowledged_unread() -> list[Patch]:
    right = FabricWorker.take

    def boastful(self: FabricWorker, message: Networks) -> None:
        right(self, message)
        self._applied(message.seq)

    return [(FabricWorker, "take", boastful)]


@bug("no-drain", "a task is told to stop as soon as it left traffic", world="cluster", faults=CALM)
def _no_drain() -> list[Patch]:
    return [(leaving, "wait", lambda now, leaver, silent: 0.0)]


@bug(
    "joining-swept", "links of a container that is being started are swept away", world="cluster", faults=CALM
)
def _joining_swept() -> list[Patch]:
    return [
        (Joining, "endpoints", lambda self, now: frozenset()),
        (hands, "unfinished", lambda links, tasks, complete: frozenset()),
    ]


@bug("cut-off-kept", "a container that lost its link to a network runs on without it", world="cluster",
     faults=("link-removed",))  # fmt: skip
def _cut_off_kept() -> list[Patch]:
    return [(TetherKeeper, "severed", lambda self, task_id: "")]


@bug("node-forgotten", "the tables of a second network are not sent to a node", world="cluster", faults=CALM)
def _node_forgotten() -> list[Patch]:
    right = tables.of_node
    return [(tables, "of_node", lambda world, node_id: frozenset(sorted(right(world, node_id))[:1]))]


@bug("stale-tables", "after a new session an agent keeps what it knew, and hears only differences",
     world="cluster", faults=("resets", "sessions-cut", "reset-all"))  # fmt: skip
def _stale_tables() -> list[Patch]:
    right = Told.news

    def sparing(self: Told, known: Any, world: Any, node_id: str, seq: int, *, full: bool) -> Networks | None:
        message = right(self, known, world, node_id, seq, full=full)
        if message is None or not full or self.settled:
            return message
        return Networks(seq=seq, full=False, deltas=message.deltas[:0], removed=())

    return [(Told, "news", sparing)]


@bug("unwired-traffic", "a task is said to run before its namespace is programmed", world="cluster",
     faults=("slow-rules",))  # fmt: skip
def _unwired_traffic() -> list[Patch]:
    async def late(self: FabricWorker, task_id: str, path: str) -> None:
        return None

    return [(FabricWorker, "is_wired", lambda self, task_id: True), (FabricWorker, "_program_early", late)]


@bug("unlistening-traffic", "a task is said to run before its program listens", world="cluster", faults=CALM)
def _unlistening_traffic() -> list[Patch]:
    return [(listening, "missing", lambda assigned, health, looked: (frozenset(), 0.0))]


@bug("port-twice", "a port is published by two services", world="cluster", faults=CALM)
def _port_twice() -> list[Patch]:
    return [(published, "_check", lambda port, taken: None)]


@bug("flushed-unseen", "an agent never looks at what others did to its balancers", world="cluster",
     faults=("rules-flushed",))  # fmt: skip
def _flushed_unseen() -> list[Patch]:
    async def trusting(self: FabricWorker, *, whole: bool) -> None:
        return None

    return [(FabricWorker, "_verify", trusting)]


@bug("engine-network-kept", "the Engine's networks stay when the cluster's are removed", world="cluster",
     faults=CALM)  # fmt: skip
def _engine_network_kept() -> list[Patch]:
    async def lazy(self: EngineNetworks, needed: Any) -> None:
        self.stale = False

    return [(EngineNetworks, "tidy", lazy)]


@bug("ipv6-unreturned", "a container cannot answer clients of the mesh over IPv6", world="cluster",
     faults=CALM)  # fmt: skip
def _ipv6_unreturned() -> list[Patch]:
    right = share._returns
    return [(share, "_returns", lambda table, six: right(table, six=False))]
