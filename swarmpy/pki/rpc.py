"""THE role table: who may call what between nodes, as data.

What belongs here: a row for every method of the wire, the judgement of a caller by it, and the set of revoked
nodes. What does not: serving the methods. A method without a row is refused, whoever calls.

To add a method, add a row; the tests try every row with every kind of credentials.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from swarmpy.pki.certs import MANAGER, WORKER

NONE = "none"
"""The role of a caller without a certificate."""

Kind = Literal["call", "channel"]

KIB = 1024
MIB = 1024 * KIB

UNAUTHENTICATED = "unauthenticated"
FORBIDDEN = "forbidden"
REVOKED = "revoked"
UNKNOWN_METHOD = "unknown_method"
NOT_SERVED = "not_served"
TOO_LARGE = "too_large"
BAD_REQUEST = "bad_request"
BUSY = "busy"
RATE_LIMITED = "rate_limited"
INTERNAL = "internal"
"""Reasons of refusals made by the wire itself; programs may act on them (a revoked node stops dialling)."""

CODES: Mapping[str, str] = {
    UNAUTHENTICATED: "PermissionDenied",
    FORBIDDEN: "PermissionDenied",
    REVOKED: "PermissionDenied",
    UNKNOWN_METHOD: "Unimplemented",
    NOT_SERVED: "Unavailable",
    TOO_LARGE: "InvalidArgument",
    BAD_REQUEST: "InvalidArgument",
    BUSY: "Unavailable",
    RATE_LIMITED: "Unavailable",
    INTERNAL: "Internal",
}
"""Reason to the code of model.errors that users see."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A row. `own_node`: a "node_id" in the body must be the caller's own (managers included: nobody speaks
    for another node). `max_body`, `max_reply`: bytes; for a channel, of one message either way."""

    method: str
    kind: Kind
    roles: frozenset[str]
    own_node: bool = False
    max_body: int = 1 * MIB
    max_reply: int = 1 * MIB


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a caller is turned away: a reason from the list above and a sentence."""

    reason: str
    message: str

    @property
    def code(self) -> str:
        """The code of model.errors."""
        return CODES[self.reason]


_ANYONE = frozenset({NONE, WORKER, MANAGER})
_STRANGERS = frozenset({NONE})
_NODES = frozenset({WORKER, MANAGER})
_MANAGERS = frozenset({MANAGER})

_ROWS = (
    # Bootstrap: the only methods without a certificate.
    Rule("ca.bundle", "call", _ANYONE, max_body=1 * KIB, max_reply=256 * KIB),
    Rule("join", "call", _STRANGERS, max_body=64 * KIB, max_reply=256 * KIB),
    # Every node, for itself.
    Rule("ping", "call", _NODES, max_body=1 * KIB, max_reply=1 * KIB),
    Rule("ca.renew", "call", _NODES, own_node=True, max_body=64 * KIB, max_reply=256 * KIB),
    Rule("cluster.managers", "call", _NODES, max_body=1 * KIB),
    Rule("node.attach", "call", _NODES, own_node=True, max_body=64 * KIB, max_reply=64 * KIB),
    Rule("node.detach", "call", _NODES, own_node=True, max_body=16 * KIB, max_reply=1 * KIB),
    Rule("node.leave", "call", _NODES, own_node=True, max_body=4 * KIB),
    Rule("session", "channel", _NODES, own_node=True, max_body=16 * MIB, max_reply=16 * MIB),
    Rule("logs.publish", "channel", _NODES, own_node=True, max_body=1 * MIB),
    Rule("net.report", "call", _NODES, own_node=True, max_body=1 * MIB, max_reply=1 * KIB),
    # Managers among themselves.
    Rule("raft", "channel", _MANAGERS, max_body=16 * MIB, max_reply=16 * MIB),
    Rule("control.submit", "call", _MANAGERS, max_body=4 * MIB, max_reply=16 * MIB),
    Rule("control.read_index", "call", _MANAGERS, max_body=4 * KIB),
    Rule("control.status", "call", _MANAGERS, max_body=4 * KIB, max_reply=4 * MIB),
    Rule("control.join_raft", "call", _MANAGERS, own_node=True, max_body=4 * KIB),
    Rule("logs.subscribe", "call", _MANAGERS, max_body=64 * KIB),
    Rule("logs.read", "channel", _MANAGERS, max_body=1 * MIB),
    Rule("net.examine", "call", _MANAGERS, max_body=4 * MIB),
    Rule("net.told", "call", _MANAGERS, max_body=1 * KIB, max_reply=4 * MIB),
    # The leader dials a new manager's advertised address back, to see that it answers as that node.
    Rule("node.probe", "call", _MANAGERS, max_body=1 * KIB, max_reply=1 * KIB),
)

TABLE: Mapping[str, Rule] = {rule.method: rule for rule in _ROWS}
"""Method to its row."""


def find_rule(method: str, kind: Kind) -> Rule | None:
    """The method's row, if it is served in this way."""
    rule = TABLE.get(method)
    return rule if rule is not None and rule.kind == kind else None


def authorize(method: str, kind: Kind, role: str) -> Refusal | None:
    """Whether a caller in `role` ("none", "worker", "manager") may use the method; None when it may."""
    rule = find_rule(method, kind)
    if rule is None:
        return Refusal(
            UNKNOWN_METHOD,
            f"this node serves no {kind} {method[:64]!r}: the nodes' versions may differ",
        )
    if role in rule.roles:
        return None
    if role == NONE:
        return Refusal(
            UNAUTHENTICATED,
            f"{method} needs a certificate of this cluster: join the cluster first",
        )
    if rule.roles == _STRANGERS:
        return Refusal(FORBIDDEN, f"{method} is for machines that are not yet nodes of this cluster")
    return Refusal(FORBIDDEN, f"a {role} may not call {method}: it is for managers only")


def authorize_body(method: str, node_id: str, body: Mapping[str, Any]) -> Refusal | None:
    """The own-node rule: None, or why this body may not come from `node_id`."""
    rule = TABLE.get(method)
    if rule is None or not rule.own_node or "node_id" not in body:
        return None
    if body["node_id"] == node_id:
        return None
    return Refusal(FORBIDDEN, f"node {node_id} may call {method} only for itself")


class Revoked:
    """The nodes and certificates that are no longer trusted, though their certificates are still in time.

    A removed node is revoked by id; a demoted manager's or a replaced certificate by its serial (lower-case
    hex). Every node keeps this set as the cluster's state says; whoever serves consults it at every call and
    listens to it to cut live channels at once.
    """

    def __init__(self, nodes: Iterable[str] = (), serials: Iterable[str] = ()) -> None:
        self._nodes = frozenset(nodes)
        self._serials = frozenset(serials)
        self._listeners: list[Callable[[], None]] = []

    @property
    def nodes(self) -> frozenset[str]:
        """Revoked node ids."""
        return self._nodes

    @property
    def serials(self) -> frozenset[str]:
        """Revoked certificate serials."""
        return self._serials

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` after every change of the set; returns what ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def replace(self, nodes: Iterable[str], serials: Iterable[str]) -> None:
        """Take over the cluster's list."""
        fresh = (frozenset(nodes), frozenset(serials))
        if fresh == (self._nodes, self._serials):
            return
        self._nodes, self._serials = fresh
        for listener in tuple(self._listeners):
            listener()

    def revoke(self, node_id: str = "", serial: str = "") -> None:
        """Add a node, a certificate, or both."""
        self.replace(
            self._nodes | ({node_id} if node_id else set()),
            self._serials | ({serial} if serial else set()),
        )

    def refuse(self, node_id: str, serial: str) -> Refusal | None:
        """None, or why this caller is not trusted any more."""
        if node_id and node_id in self._nodes:
            return Refusal(
                REVOKED,
                f"node {node_id} was removed from this cluster: leave with --force and join again",
            )
        if serial and serial in self._serials:
            return Refusal(REVOKED, f"this certificate of node {node_id} was revoked: renew it or join again")
        return None
