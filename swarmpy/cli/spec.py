"""Putting flags into specs: paths, defaults, zero values.

Used for service specs (create and update) and the cluster's spec. What does not belong here: which flag
sets which field (the tables).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from swarmpy.cli.tables import Flag, Parsed

SECOND = 1_000_000_000
Spec = dict[str, Any]

# A flag of one of these objects sends the whole object, filled from Docker's defaults.
DEFAULTS: dict[str, Spec] = {
    "TaskTemplate.RestartPolicy": {"Condition": "any", "Delay": 5 * SECOND, "MaxAttempts": 0},
    "UpdateConfig": {
        "Parallelism": 1,
        "FailureAction": "pause",
        "Monitor": 5 * SECOND,
        "MaxFailureRatio": 0,
        "Order": "stop-first",
    },
    "RollbackConfig": {
        "Parallelism": 1,
        "FailureAction": "pause",
        "Monitor": 5 * SECOND,
        "MaxFailureRatio": 0,
        "Order": "stop-first",
    },
}


def section(spec: Spec, path: str) -> Spec:
    """The object at a dotted path, made where it is missing or null."""
    for name in path.split(".") if path else ():
        inner = spec.get(name)
        if inner is None:
            inner = spec[name] = {}
        spec = inner
    return spec


def put(spec: Spec, path: str, value: Any, *, pointer: bool = False) -> None:
    """Set the field at a dotted path. A zero value removes the field, unless it is a pointer in the API
    (then zero is something other than absent)."""
    home, _, name = path.rpartition(".")
    target = section(spec, home)
    if value or pointer:
        target[name] = value
    else:
        target.pop(name, None)


def apply_fields(spec: Spec, flags: Iterable[Flag], parsed: Parsed) -> None:
    """Set every field whose flag was given; whole objects are filled from their defaults first."""
    for flag in flags:
        if not flag.field or flag.name not in parsed.given:
            continue
        home = flag.field.rpartition(".")[0]
        if home in DEFAULTS:
            _fill(spec, home)
        put(spec, flag.field, parsed.values[flag.name], pointer=flag.pointer)


def _fill(spec: Spec, path: str) -> None:
    home, _, name = path.rpartition(".")
    target = section(spec, home)
    if target.get(name) is None:
        target[name] = dict(DEFAULTS[path])
