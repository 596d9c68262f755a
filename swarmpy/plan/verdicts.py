"""Verdicts: every node's full judgement on one task, with numbers and names, and what would change it.

Where placement stops at the first filter that fails, this lists all of them. What belongs here: one node, one
task, in words. What does not: deciding (placement.py), what else a task waits for (explain.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from swarmpy.model.lifecycle import Availability, NodeState, Role, is_held
from swarmpy.model.objects import Node, Task
from swarmpy.plan import constraints
from swarmpy.plan.constraints import NODE_LABELS, Constraint
from swarmpy.plan.filters import Needs, Seat, missing_plugins, needs_of, seat_of, supports
from swarmpy.plan.slots import availability
from swarmpy.state.snapshot import Snapshot

_UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a node cannot take a task, what would change that, and how much that asks for (1: a flag;
    10: another machine)."""

    text: str
    change: str
    cost: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """A node's judgement: it fits, or all reasons why not and the change that would make it fit."""

    node_id: str
    node: str
    fits: bool
    reasons: tuple[str, ...] = ()
    change: str = ""
    cost: int = 0


def verdicts(world: Snapshot, task: Task) -> list[Verdict]:
    """Every node on such a task, by host name. A task that is given to a node hears only that node."""
    nodes = [node for node in world.nodes if not task.node_id or node.id == task.node_id]
    need = needs_of(task)
    found = [
        judge(world, need, seat_of(node, 0, [one for one in world.tasks_on(node.id) if one.id != task.id]),
              task.service_id)
        for node in nodes
    ]  # fmt: skip
    return sorted(found, key=lambda one: (one.node, one.node_id))


def smallest_change(found: list[Verdict]) -> str:
    """The cheapest of the changes that would make one node fit ("" where one fits or nothing would)."""
    if any(one.fits for one in found):
        return ""
    best = min(found, key=lambda one: (one.cost, len(one.reasons), one.node), default=None)
    return best.change if best else "add a node to the cluster"


def judge(world: Snapshot, need: Needs, seat: Seat, service_id: str) -> Verdict:
    """One node's verdict."""
    found = [
        *_of_state(seat.node), *_of_resources(need, seat), *_of_plugins(need, seat),
        *_of_constraints(need, seat), *_of_platform(need, seat),
        *_of_ports(world, need, seat), *_of_replicas(need, seat, service_id),
    ]  # fmt: skip
    node = seat.node
    changes = {one.change: one.cost for one in found}  # one change may mend several things
    return Verdict(
        node.id, node.hostname, not found, tuple(one.text for one in found),
        " and ".join(changes), sum(changes.values()),
    )  # fmt: skip


def _of_state(node: Node) -> list[Reason]:
    name, state = node.hostname, node.status.state
    found: list[Reason] = []
    if state == NodeState.DOWN:
        note = f" ({node.status.message})" if node.status.message else ""
        found.append(Reason(f"it is down{note}", f"bring node {name} back", 10))
    elif state != NodeState.READY:
        word = "suspect: its connection broke" if state == NodeState.DISCONNECTED else "not connected yet"
        found.append(Reason(f"it is {word}", f"wait for node {name} to connect", 6))
    if node.description.trouble:
        found.append(Reason(f"it is in trouble: {node.description.trouble}", f"mend node {name}", 8))
    asked = availability(node)
    if asked != Availability.ACTIVE:
        word = "paused" if asked == Availability.PAUSE else "drained"
        found.append(Reason(f"it is {word}", f"set node {name} active", 1))
    return found


def _of_resources(need: Needs, seat: Seat) -> list[Reason]:
    about, found = seat.node.description, []
    if need.cpus > max(seat.cpus, 0):
        found.append(_short("CPU", cpus(need.cpus), cpus(max(seat.cpus, 0)), cpus(about.nano_cpus),
                            "reserve-cpu", seat, seat.cpus > 0))  # fmt: skip
    if need.memory > max(seat.memory, 0):
        found.append(_short("memory", size(need.memory), size(max(seat.memory, 0)), size(about.memory_bytes),
                            "reserve-memory", seat, seat.memory > 0))  # fmt: skip
    for kind, value in need.generic:
        free = max(0, seat.generic.get(kind, 0))
        if value > free:
            total = sum(len(one.names) or one.value for one in about.generic if one.kind == kind)
            found.append(_short(kind, str(value), str(free), str(total), "generic-resource", seat, free > 0))
    return found


def _short(what: str, asked: str, free: str, total: str, flag: str, seat: Seat, some: bool) -> Reason:
    text = f"needs {asked} {what}, free {free} of {total}"
    if some:
        return Reason(text, f"lower {flag} to {free}", 2)
    return Reason(text, f"free {asked} {what} on node {seat.node.hostname}", 5)


def _of_plugins(need: Needs, seat: Seat) -> list[Reason]:
    return [
        Reason(f"lacks the {kind.lower()} plugin {name}",
               f"install the {kind.lower()} plugin {name} on node {seat.node.hostname}", 4)
        for kind, name in missing_plugins(need, seat.node.description)
    ]  # fmt: skip


def _of_constraints(need: Needs, seat: Seat) -> list[Reason]:
    found: list[Reason] = []
    for text in need.constraints:
        try:
            one = constraints.parse(text)
        except ValueError as error:
            found.append(
                Reason(f"no node satisfies '{text}': {error}", f"correct the constraint '{text}'", 2)
            )
            continue
        if not one.allows(seat.node):
            value = constraints.lookup(one.key, seat.node)
            has = "no node has such a property" if value is None else f"it has '{value}'"
            found.append(Reason(f"does not satisfy {one}: {has}", *_to_satisfy(one, seat.node)))
    return found


def _to_satisfy(one: Constraint, node: Node) -> tuple[str, int]:
    wrong = constraints.correction(one)
    if wrong:
        return wrong, 1
    if one.key.lower().startswith(NODE_LABELS):
        label = one.key[len(NODE_LABELS) :]
        if one.equal:
            return f"add label {label}={one.value} to node {node.hostname}", 1
        return f"remove label {label} from node {node.hostname}", 1
    if one.key.lower() == "node.role":
        verb = "demote" if node.role == Role.MANAGER else "promote"
        return f"{verb} node {node.hostname}", 3
    return f"drop the constraint {one}", 3


def _of_platform(need: Needs, seat: Seat) -> list[Reason]:
    about = seat.node.description
    if supports(need.platforms, about):
        return []
    wanted = ", ".join(f"{one.os or 'any'}/{one.architecture or 'any'}" for one in need.platforms)
    here = f"{about.os}/{about.architecture}"
    return [Reason(f"is {here}, the image is for {wanted}", f"use an image built for {here}", 5)]


def _of_ports(world: Snapshot, need: Needs, seat: Seat) -> list[Reason]:
    found: list[Reason] = []
    for protocol, number in need.ports:
        if (protocol, number) in seat.ports:
            holder = _holder(world, seat.node, (protocol, number))
            found.append(Reason(f"host port {number}/{protocol} is taken by task {holder}",
                                f"publish another port than {number}/{protocol}", 3))  # fmt: skip
    return found


def _holder(world: Snapshot, node: Node, port: tuple[str, int]) -> str:
    for task in world.tasks_on(node.id):
        if is_held(task.status.state) and port in needs_of(task).ports:
            return task.name
    return "of the same service"


def _of_replicas(need: Needs, seat: Seat, service_id: str) -> list[Reason]:
    here = seat.services.get(service_id, 0)
    if not need.max_replicas or here < need.max_replicas:
        return []
    return [Reason(f"has {here} tasks of the service already, at most {need.max_replicas} are allowed",
                   f"raise replicas-max-per-node to {here + 1}", 1)]  # fmt: skip


def size(number: int) -> str:
    """Bytes for people: 512MiB, 1.5GiB. Rounded down, so that the value can be used as a reservation."""
    for unit, word in _UNITS:
        if number >= unit:
            return f"{number * 100 // unit / 100:g}{word}"
    return f"{number}B"


def cpus(nano: int) -> str:
    """Nano-CPUs for people: 0.5. Rounded down."""
    return f"{nano // 1_000_000 / 1000:g}"
