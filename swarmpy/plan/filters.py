"""Filters: what a task needs of a node, and whether a node has it.

The filters, their order and their sentences are SwarmKit's, because users read the sentences on pending
tasks. What belongs here: one node against one task. What does not: choosing among fitting nodes
(placement.py), the long explanation (explain.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

from swarmpy.model.lifecycle import Availability, NodeState, TaskState, is_active, is_held
from swarmpy.model.objects import Description, Node, Task
from swarmpy.model.specs import GenericResource, Platform, TaskTemplate, endpoint_view, template_view
from swarmpy.plan import constraints
from swarmpy.plan.slots import availability

HostPort = tuple[str, int]
"""(protocol, published port) of a port published in host mode."""

_SAME_ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True)
class Needs:
    """What a task asks of its node. CPU in nano-CPUs, memory in bytes; limits do not count."""

    cpus: int
    memory: int
    generic: tuple[tuple[str, int], ...]
    ports: tuple[HostPort, ...]
    max_replicas: int
    constraints: tuple[str, ...]
    platforms: tuple[Platform, ...]
    volume_drivers: tuple[str, ...]
    log_driver: str
    spread: tuple[str, ...]

    @property
    def static(self) -> tuple[object, ...]:
        """What does not depend on the node's other tasks: equal keys, equal candidates."""
        return (self.constraints, self.platforms, self.volume_drivers, self.log_driver)


@lru_cache(maxsize=20_000)
def needs(template: str, endpoint: str) -> Needs:
    """What a task of that template and endpoint (JSON texts) needs."""
    view = template_view(template)
    asked = view.resources.reservations
    log = view.log_driver.name if view.log_driver else ""
    return Needs(
        cpus=asked.nano_cpus, memory=asked.memory_bytes, generic=_generic(asked.generic_resources),
        ports=tuple(
            (port.protocol, port.published_port) for port in endpoint_view(endpoint).ports
            if port.publish_mode == "host" and port.published_port
        ),
        max_replicas=view.placement.max_replicas, constraints=view.placement.constraints,
        platforms=view.placement.platforms, volume_drivers=_volume_drivers(view),
        log_driver="" if log == "none" else log,
        spread=tuple(
            one.spread.spread_descriptor for one in view.placement.preferences
            if one.spread and _is_label(one.spread.spread_descriptor)
        ),
    )  # fmt: skip


def needs_of(task: Task) -> Needs:
    """What the task needs."""
    return needs(task.template, task.endpoint)


def _generic(asked: tuple[GenericResource, ...]) -> tuple[tuple[str, int], ...]:
    totals: dict[str, int] = {}
    for one in asked:
        if one.discrete_resource_spec:
            kind, value = one.discrete_resource_spec.kind, one.discrete_resource_spec.value
        elif one.named_resource_spec:
            kind, value = one.named_resource_spec.kind, 1
        else:
            continue
        totals[kind] = totals.get(kind, 0) + value
    return tuple(sorted(totals.items()))


def _volume_drivers(view: TaskTemplate) -> tuple[str, ...]:
    drivers = {
        mount.volume_options.driver_config.name
        for mount in view.container.mounts
        if mount.type == "volume" and mount.volume_options and mount.volume_options.driver_config
    }
    return tuple(sorted(drivers - {"", "local"}))


def _is_label(descriptor: str) -> bool:
    lower = descriptor.lower()
    return any(
        lower.startswith(prefix) and len(lower) > len(prefix)
        for prefix in (constraints.NODE_LABELS, constraints.ENGINE_LABELS)
    )


@dataclass(slots=True)
class Seat:
    """A node as placement fills it: what is left of it and what it holds. `rank` breaks ties."""

    node: Node
    rank: int
    cpus: int
    memory: int
    generic: dict[str, int]
    ready: bool
    total: int = 0
    """Active tasks on it."""
    services: dict[str, int] = field(default_factory=dict)
    """Active tasks on it by service."""
    ports: set[HostPort] = field(default_factory=set)

    def hold(self, task: Task, need: Needs) -> None:
        """Account for a task that the node holds (assigned, not ended); it counts as active while it is
        wanted, and keeps its reservations and ports until it has ended."""
        self.cpus -= need.cpus
        self.memory -= need.memory
        for kind, value in need.generic:
            self.generic[kind] = self.generic.get(kind, 0) - value
        self.ports.update(need.ports)
        if task.desired <= TaskState.COMPLETE:
            self.total += 1
            self.services[task.service_id] = self.services.get(task.service_id, 0) + 1

    def release(self, task: Task, need: Needs) -> None:
        """Undo `hold`, but for ports: which of them others hold too is not kept."""
        self.cpus += need.cpus
        self.memory += need.memory
        for kind, value in need.generic:
            self.generic[kind] += value
        if task.desired <= TaskState.COMPLETE:
            self.total -= 1
            self.services[task.service_id] -= 1
            if not self.services[task.service_id]:
                del self.services[task.service_id]


def seat_of(node: Node, rank: int, tasks: list[Task]) -> Seat:
    """The node with the tasks that it holds."""
    about = node.description
    generic: dict[str, int] = {}
    for one in about.generic:
        generic[one.kind] = generic.get(one.kind, 0) + (len(one.names) or one.value)
    seat = Seat(node, rank, about.nano_cpus, about.memory_bytes, generic, is_ready(node))
    for task in tasks:
        if is_held(task.status.state):
            seat.hold(task, needs_of(task))
    return seat


def is_ready(node: Node) -> bool:
    """Whether new tasks may be placed on the node: ready (a suspect one is not), active, in no trouble."""
    ready = node.status.state == NodeState.READY and not node.description.trouble
    return ready and availability(node) == Availability.ACTIVE


def counts_as_active(task: Task) -> bool:
    """Whether the task counts on its node."""
    return is_active(task.desired, task.status.state)


# ---- the filters, one node against one task


def _ready(need: Needs, seat: Seat, service_id: str) -> bool:
    return seat.ready


def _resources(need: Needs, seat: Seat, service_id: str) -> bool:
    # A node that was shrunk may have less than nothing left: that is no matter for who asks for nothing.
    return (
        (not need.cpus or need.cpus <= seat.cpus)
        and (not need.memory or need.memory <= seat.memory)
        and all(value <= seat.generic.get(kind, 0) for kind, value in need.generic)
    )


def _plugins(need: Needs, seat: Seat, service_id: str) -> bool:
    return not missing_plugins(need, seat.node.description)


def missing_plugins(need: Needs, about: Description) -> list[tuple[str, str]]:
    """(type, name) of the drivers that the node lacks. Engines that list no log drivers are not asked."""
    if not need.volume_drivers and not need.log_driver:
        return []
    have = {(kind.lower(), name.removesuffix(":latest")) for kind, name in about.plugins}
    wanted = [("Volume", name) for name in need.volume_drivers]
    if need.log_driver and any(kind == "log" for kind, _ in have):
        wanted.append(("Log", need.log_driver))
    return [(kind, name) for kind, name in wanted if (kind.lower(), name.removesuffix(":latest")) not in have]


def _constraints(need: Needs, seat: Seat, service_id: str) -> bool:
    return constraints.satisfied(need.constraints, seat.node)


def _platforms(need: Needs, seat: Seat, service_id: str) -> bool:
    return supports(need.platforms, seat.node.description)


def supports(platforms: tuple[Platform, ...], about: Description) -> bool:
    """Whether the node is one of the platforms (none given: any)."""
    return not platforms or any(
        (not one.architecture or _architecture(one.architecture) == _architecture(about.architecture))
        and (not one.os or one.os.lower() == about.os.lower())
        for one in platforms
    )


def _architecture(word: str) -> str:
    return _SAME_ARCHITECTURE.get(word.lower(), word.lower())


def _host_ports(need: Needs, seat: Seat, service_id: str) -> bool:
    return not need.ports or seat.ports.isdisjoint(need.ports)


def _max_replicas(need: Needs, seat: Seat, service_id: str) -> bool:
    return not need.max_replicas or seat.services.get(service_id, 0) < need.max_replicas


Check = Callable[[Needs, Seat, str], bool]


@dataclass(frozen=True, slots=True)
class Filter:
    """A reason for which a node cannot take a task. `one` and `many` are SwarmKit's sentences."""

    name: str
    check: Check
    one: str
    many: str

    def sentence(self, nodes: int) -> str:
        """The reason, for so many nodes."""
        return self.one if nodes == 1 else self.many.format(nodes)


FILTERS = (
    Filter("ready", _ready, "1 node not available for new tasks", "{} nodes not available for new tasks"),
    Filter("resources", _resources, "insufficient resources on 1 node", "insufficient resources on {} nodes"),
    Filter("plugins", _plugins, "missing plugin on 1 node", "missing plugin on {} nodes"),
    Filter("constraints", _constraints, "scheduling constraints not satisfied on 1 node",
           "scheduling constraints not satisfied on {} nodes"),
    Filter("platforms", _platforms, "unsupported platform on 1 node", "unsupported platform on {} nodes"),
    Filter("host-ports", _host_ports, "host-mode port already in use on 1 node",
           "host-mode port already in use on {} nodes"),
    Filter("max-replicas", _max_replicas, "max replicas per node limit exceed",
           "max replicas per node limit exceed"),
)  # fmt: skip
"""In SwarmKit's order: a node counts for the first filter that it fails."""


def static_fit(need: Needs, seat: Seat) -> bool:
    """Whether the node may ever take such a task, whatever else it holds."""
    return (seat.ready and _plugins(need, seat, "") and _constraints(need, seat, "")
            and _platforms(need, seat, ""))  # fmt: skip


def room_for(need: Needs, seat: Seat, service_id: str) -> bool:
    """Whether the node has room for one more such task now."""
    return (_resources(need, seat, service_id) and _host_ports(need, seat, service_id)
            and _max_replicas(need, seat, service_id))  # fmt: skip


def first_failing(need: Needs, seat: Seat, service_id: str) -> Filter | None:
    """The first filter that the node fails; None where the task fits."""
    for one in FILTERS:
        if not one.check(need, seat, service_id):
            return one
    return None


def sentence(counts: list[int]) -> str:
    """Why none of the nodes fits, of how many fail each filter first: the filters' sentences, most frequent
    first ("" without nodes)."""
    found = sorted((place for place in range(len(FILTERS)) if counts[place]), key=lambda one: -counts[one])
    return "; ".join(FILTERS[place].sentence(counts[place]) for place in found)


def why_not(need: Needs, seat: Seat, service_id: str) -> str:
    """Why the one node cannot take the task ("" if it can)."""
    failing = first_failing(need, seat, service_id)
    return failing.sentence(1) if failing is not None else ""
