"""Placement constraints: `KEY==VALUE` and `KEY!=VALUE`, their grammar and when a node satisfies them.

Used by placement, the global planner, the enforcer and by admission, which refuses what does not parse.
What does not belong here: the other filters (filters.py), choosing a node (placement.py).
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache

from swarmpy.model.objects import Node

_OPERATORS = ("==", "!=")
# The grammar is SwarmKit's (manager/constraint): a key of two or more word characters; a value free of
# characters that are or may become operators.
_KEY = re.compile(r"[a-z_][a-z0-9\-_.]+\Z", re.IGNORECASE)
_VALUE = re.compile(r"[a-z0-9:\-_\s.*()?+\[\]\\^$|/]+\Z", re.IGNORECASE)

NODE_LABELS = "node.labels."
ENGINE_LABELS = "engine.labels."
PROPERTIES = ("node.id", "node.hostname", "node.ip", "node.role", "node.platform.os", "node.platform.arch")
"""Keys beside the labels."""


@dataclass(frozen=True, slots=True)
class Constraint:
    """`key` must (not, with `equal` False) have `value`; values compare without regard to case."""

    key: str
    equal: bool
    value: str

    def __str__(self) -> str:
        """As a user writes it."""
        return f"{self.key}{'==' if self.equal else '!='}{self.value}"

    def allows(self, node: Node) -> bool:
        """Whether the node satisfies it. An unknown key or a malformed address is never satisfied."""
        if self.key.lower() == "node.ip":
            return self._allows_address(node.status.address)
        found = lookup(self.key, node)
        return found is not None and (found.lower() == self.value.lower()) == self.equal

    def _allows_address(self, address: str) -> bool:
        try:
            network = ipaddress.ip_network(self.value, strict=False)
        except ValueError:
            return False
        try:
            inside = ipaddress.ip_address(address) in network
        except ValueError:
            inside = False
        return inside == self.equal


def correction(one: Constraint) -> str:
    """What to correct in a constraint that no node can ever satisfy, "" in one that some could."""
    lower = one.key.lower()
    if lower == "node.ip":
        try:
            ipaddress.ip_network(one.value, strict=False)
        except ValueError:
            return f"correct the address in {one}: an IP address or a subnet is expected"
        return ""
    prefix, _, label = lower.rpartition(".")
    if lower in PROPERTIES or (label and lower.startswith((NODE_LABELS, ENGINE_LABELS))):
        return ""
    if label and prefix in {"node.label", "engine.label"}:
        return f"write {prefix}s.{one.key.rpartition('.')[2]} for {one.key}"
    near = get_close_matches(lower, PROPERTIES, 1, cutoff=0.8)
    if near:
        return f"write {near[0]} for {one.key}"
    return (
        f"correct the name {one.key}: constraints know {', '.join(PROPERTIES)}, {NODE_LABELS}NAME or "
        f"{ENGINE_LABELS}NAME"
    )


def lookup(key: str, node: Node) -> str | None:
    """What the node has for a constraint's key: "" for a missing label, None for an unknown key.

    Label names are case-sensitive, everything before them is not. The role is the node's actual one.
    """
    lower = key.lower()
    about = node.description
    known = {
        "node.id": node.id,
        "node.hostname": about.hostname,
        "node.ip": node.status.address,
        "node.role": node.role.word,
        "node.platform.os": about.os,
        "node.platform.arch": about.architecture,
    }
    if lower in known:
        return known[lower]
    if lower.startswith(NODE_LABELS) and len(key) > len(NODE_LABELS):
        return node.view.labels.get(key[len(NODE_LABELS) :], "")
    if lower.startswith(ENGINE_LABELS) and len(key) > len(ENGINE_LABELS):
        return about.engine_labels.get(key[len(ENGINE_LABELS) :], "")
    return None


@lru_cache(maxsize=10_000)
def parse(text: str) -> Constraint:
    """Parse one constraint. Raises ValueError with SwarmKit's sentence."""
    for operator in _OPERATORS:
        key, found, value = text.partition(operator)
        if not found:
            continue
        key, value = key.strip(), value.strip()
        if not _KEY.match(key):
            raise ValueError(f"key '{key}' is invalid")
        if not _VALUE.match(value):
            raise ValueError(f"value '{value}' is invalid")
        return Constraint(key, operator == "==", value)
    raise ValueError(f"constraint expected one operator from {', '.join(_OPERATORS)}")


@lru_cache(maxsize=10_000)
def parse_all(texts: tuple[str, ...]) -> tuple[Constraint, ...] | None:
    """The constraints of a template; None where one does not parse (admission refuses it, an older
    version of the program may not have): then no node satisfies them."""
    try:
        return tuple(parse(text) for text in texts)
    except ValueError:
        return None


def satisfied(texts: tuple[str, ...], node: Node) -> bool:
    """Whether the node satisfies every constraint."""
    if not texts:
        return True
    parsed = parse_all(texts)
    return parsed is not None and all(constraint.allows(node) for constraint in parsed)
