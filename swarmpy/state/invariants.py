"""Named invariants: what must be true of every world, and of every step from one world to the next.

Each has a name and a reason. They are checked in the simulator at every step and in the planners' tests; they
look at worlds alone, so what only time can show (a drained node empties, updates end) is not here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from swarmpy.model.errors import Refusal
from swarmpy.model.lifecycle import Availability, NodeState, TaskState, is_held, may_follow
from swarmpy.model.objects import Node, Service, Task
from swarmpy.state import netinvariants as net
from swarmpy.state.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Violation:
    """An invariant that does not hold, and of what."""

    name: str
    why: str


Rule = Callable[[Snapshot], Iterator[str]]
StepRule = Callable[[Snapshot, Snapshot], Iterator[str]]


def check(world: Snapshot) -> list[Violation]:
    """All violations in one world. Where a spec cannot be read, only that: the other rules read them all."""
    if any(_specs(world)):
        return [Violation("specs-readable", what) for what in _specs(world)]
    return [Violation(name, f"{what} ({why})") for name, why, rule in RULES for what in rule(world)]


def check_transition(old: Snapshot, new: Snapshot) -> list[Violation]:
    """All violations in a step from one world to a later one (one batch, or several)."""
    return [Violation(name, f"{what} ({why})") for name, why, rule in STEP_RULES for what in rule(old, new)]


# ---------------------------------------------------------------- one world


def _indexes(world: Snapshot) -> Iterator[str]:
    by_service: dict[str, set[str]] = {}
    by_node: dict[str, set[str]] = {}
    by_network: dict[str, set[str]] = {}
    for task in world.tasks:
        by_service.setdefault(task.service_id, set()).add(task.id)
        if task.node_id:
            by_node.setdefault(task.node_id, set()).add(task.id)
        for place in task.networks:
            by_network.setdefault(place.network_id, set()).add(task.id)
    yield from _differing("tasks_of", by_service, lambda key: {task.id for task in world.tasks_of(key)})
    yield from _differing("tasks_on", by_node, lambda key: {task.id for task in world.tasks_on(key)})
    yield from _differing("bucket_in", by_network, lambda key: set(world.bucket_in(key) or ()))
    guests_in: dict[str, set[str]] = {}
    guests_on: dict[str, set[str]] = {}
    for guest in world.guests:
        guests_on.setdefault(guest.node_id, set()).add(guest.id)
        for place in guest.networks:
            guests_in.setdefault(place.network_id, set()).add(guest.id)
    yield from _differing("guests_in", guests_in, lambda key: set(world.guests_in(key) or ()))
    yield from _differing("guests_on", guests_on, lambda key: set(world.guests_on(key) or ()))
    open_ids = {task.id for task in world.tasks if task.status.state < TaskState.ASSIGNED}
    if {task.id for task in world.unplaced()} != open_ids:
        yield "unplaced() differs"
    for service in world.services:
        if world.service_named(service.name) != service:
            yield f"service_named({service.name}) differs"
    if set(world.orphan_services()) != {key for key in by_service if key not in world.services}:
        yield "orphan_services() differs"
    if set(world.lost_nodes()) != {key for key in by_node if key not in world.nodes}:
        yield "lost_nodes() differs"


def _differing(name: str, expected: dict[str, set[str]], stored: Callable[[str], set[str]]) -> Iterator[str]:
    for key, ids in expected.items():
        if stored(key) != ids:
            yield f"{name}({key}) differs"


def _names(world: Snapshot) -> Iterator[str]:
    seen: dict[str, str] = {}
    for service in world.services:
        other = seen.setdefault(service.name.lower(), service.id)
        if other != service.id:
            yield f"services {other} and {service.id} are both called {service.name}"


def _versions(world: Snapshot) -> Iterator[str]:
    # A draft stamps what it writes as of the next version.
    for table in (world.nodes, world.services, world.tasks, world.networks, world.guests):
        for item in table:
            if item.version > world.version + 1:
                yield f"{item.id} has version {item.version}, the world is at {world.version}"


def _specs(world: Snapshot) -> Iterator[str]:
    for item in (*world.services, *world.nodes, *world.networks):
        try:
            _ = item.view
        except Refusal as refusal:
            yield f"{item.id}: {refusal.message}"


def _tasks_placed(world: Snapshot) -> Iterator[str]:
    for task in world.tasks:
        told = task.status.state >= TaskState.ASSIGNED
        if told and not task.node_id and task.status.state not in (TaskState.SHUTDOWN, TaskState.ORPHANED):
            yield f"task {task.id} is {task.status.state.word} on no node"


def _slots(world: Snapshot) -> Iterator[str]:
    for service in world.services:
        for task in world.tasks_of(service.id):
            if service.view.is_global:
                if task.slot != 0 or not task.node_id:
                    yield f"task {task.id} of global service {service.name} has slot {task.slot}"
            elif task.slot < 1 and not _is_job(service):
                yield f"task {task.id} of service {service.name} has slot {task.slot}"


def _place(service: Service, task: Task) -> int | str:
    return task.node_id if service.view.is_global else task.slot


def _is_job(service: Service) -> bool:
    mode = service.view.mode
    return mode.replicated_job is not None or mode.global_job is not None


def _one_running(world: Snapshot) -> Iterator[str]:
    for service in world.services:
        if _is_job(service) or _may_overlap(service):
            continue
        running: dict[int | str, list[Task]] = {}
        for task in world.tasks_of(service.id):
            node = world.nodes.get(task.node_id)
            reachable = node is not None and node.status.state != NodeState.DOWN
            if task.status.state == TaskState.RUNNING and task.desired == TaskState.RUNNING and reachable:
                running.setdefault(_place(service, task), []).append(task)
        for place, tasks in running.items():
            if len(tasks) > 1:
                yield f"{service.name}.{place} runs {len(tasks)} times: {', '.join(t.id for t in tasks)}"


def _may_overlap(service: Service) -> bool:
    view = service.view
    configs = (view.update_config, view.rollback_config)
    return any(one is not None and one.order == "start-first" for one in configs)


def _reservations(world: Snapshot) -> Iterator[str]:
    for node in world.nodes:
        about = node.description
        cpus = memory = 0
        for task in world.tasks_on(node.id):
            if is_held(task.status.state):
                asked = task.view.resources.reservations
                cpus, memory = cpus + asked.nano_cpus, memory + asked.memory_bytes
        # What a node shrank by is the enforcer's business; a node that was never that big is a fault.
        if (cpus > about.nano_cpus and about.nano_cpus) or (
            memory > about.memory_bytes and about.memory_bytes
        ):
            yield f"node {node.hostname}: {cpus} nano-CPUs and {memory} bytes are reserved"


def _history(world: Snapshot) -> Iterator[str]:
    limit = world.cluster.view.history_limit if world.cluster else 5
    if limit < 0:
        return
    for service in world.services:
        if _is_job(service):
            continue
        # Restarts are counted from history, so as many tasks as may be counted are kept.
        attempts = [task.view.restart_policy.max_attempts for task in world.tasks_of(service.id)]
        bound = max(limit, max(attempts, default=0) + 1)
        ended: dict[int | str, int] = {}
        for task in world.tasks_of(service.id):
            if task.status.state > TaskState.RUNNING and TaskState.RUNNING < task.desired < TaskState.REMOVE:
                place = _place(service, task)
                ended[place] = ended.get(place, 0) + 1
        for place, count in ended.items():
            if count > bound:
                yield f"{service.name}.{place} keeps {count} ended tasks, at most {bound} are allowed"


RULES: tuple[tuple[str, str, Rule], ...] = (
    ("indexes", "an index that differs from its table makes planners blind", _indexes),
    ("names-unique", "a name must find one service", _names),
    ("versions-bounded", "an object cannot be newer than the world", _versions),
    ("specs-readable", "planners read every spec in every pass", _specs),
    ("placed-when-told", "only a node can have moved a task beyond PENDING", _tasks_placed),
    ("slots", "a task's place is its slot, or its node for a global service", _slots),
    ("one-running", "two tasks of one slot would both serve and both write", _one_running),
    ("reservations", "a reservation is a promise of the node's resources", _reservations),
    ("history-bounded", "a crash loop must not fill the store", _history),
    ("addresses-unique", "two tasks with one address steal each other's traffic", net.addresses_unique),
    ("addresses-inside", "an address outside its subnet is reached by nobody", net.addresses_inside),
    ("subnets-disjoint", "an address must mean one network", net.subnets_disjoint),
    ("network-ids-unique", "frames of one network must not end in another", net.ids_unique),
    ("guests-settled", "a container without its place is reached by nobody", net.guests_settled),
    ("ports-unique", "a published port leads to one service", net.ports_unique),
)


# ---------------------------------------------------------------- from one world to the next


def _both(old: Snapshot, new: Snapshot) -> Iterator[tuple[Task, Task]]:
    for key, before in old.tasks.rows.items():
        after = new.tasks.get(key)
        if after is not None and after is not before:
            yield before, after


def _monotone(old: Snapshot, new: Snapshot) -> Iterator[str]:
    for before, after in _both(old, new):
        if not may_follow(before.status.state, after.status.state):
            yield f"task {after.id} went from {before.status.state.word} to {after.status.state.word}"


def _desired(old: Snapshot, new: Snapshot) -> Iterator[str]:
    for before, after in _both(old, new):
        if after.desired < before.desired:
            yield f"task {after.id} was wanted {before.desired.word}, now {after.desired.word}"


def _fixed(old: Snapshot, new: Snapshot) -> Iterator[str]:
    for before, after in _both(old, new):
        if (before.service_id, before.slot, before.template, before.spec_version, before.created_at) != (
            after.service_id, after.slot, after.template, after.spec_version, after.created_at,
        ):  # fmt: skip
            yield f"task {after.id} changed what it is"
        if before.node_id and after.node_id != before.node_id:
            yield f"task {after.id} moved from node {before.node_id} to {after.node_id or 'none'}"


def _time(old: Snapshot, new: Snapshot) -> Iterator[str]:
    if new.at < old.at or new.version < old.version:
        yield f"from version {old.version} at {old.at} to version {new.version} at {new.at}"


def _assignments(old: Snapshot, new: Snapshot) -> Iterator[tuple[Task, Node]]:
    """Tasks that were given to a node in this step."""
    for key, after in new.tasks.rows.items():
        before = old.tasks.get(key)
        if after is before or after.status.state != TaskState.ASSIGNED:
            continue
        if before is None or before.status.state < TaskState.ASSIGNED:
            node = new.nodes.get(after.node_id)
            if node is not None:
                yield after, node


def _placed_well(old: Snapshot, new: Snapshot) -> Iterator[str]:
    for task, node in _assignments(old, new):
        if node.status.state != NodeState.READY:
            yield f"task {task.id} was placed on node {node.hostname}, which is {node.status.state.word}"
        elif node.view.availability != Availability.ACTIVE.word:
            yield f"task {task.id} was placed on node {node.hostname}, which is {node.view.availability}"


def _delay_obeyed(old: Snapshot, new: Snapshot) -> Iterator[str]:
    for key, after in new.tasks.rows.items():
        before = old.tasks.get(key)
        was = before.desired if before is not None else TaskState.READY
        began = after is not before and was == TaskState.READY and after.desired == TaskState.RUNNING
        if began and new.at < after.not_before:
            yield f"task {key} was started {after.not_before - new.at} ns before its restart delay ended"


STEP_RULES: tuple[tuple[str, str, StepRule], ...] = (
    ("time-forward", "cluster time and versions never go back", _time),
    ("state-monotone", "an ended task must not come back; only the table's transitions exist", _monotone),
    ("desired-monotone", "an agent may act on a wish at once, so none may be taken back", _desired),
    ("task-fixed", "a task is one run of one slot on one node; anything else is another task", _fixed),
    ("placed-on-ready", "a node that is lost, paused or drained takes nothing new", _placed_well),
    ("delay-obeyed", "the delay is what slows a crash loop", _delay_obeyed),
    ("places-fixed", "connections of a task would break under it", net.places_fixed),
)
