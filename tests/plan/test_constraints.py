"""Constraints: grammar and matching."""

from __future__ import annotations

import pytest

from swarmpy.model.lifecycle import Role
from swarmpy.plan.constraints import Constraint, parse, satisfied

from .worlds import node


@pytest.mark.parametrize(
    ("text", "constraint"),
    [
        ("node.role==manager", Constraint("node.role", True, "manager")),
        (" node.labels.a != b c ", Constraint("node.labels.a", False, "b c")),
        ("node.ip==10.0.0.0/8", Constraint("node.ip", True, "10.0.0.0/8")),
    ],
)
def test_parse(text, constraint):
    assert parse(text) == constraint
    assert parse(str(constraint)) == constraint


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("node.role", "constraint expected one operator from ==, !="),
        ("node.role=manager", "constraint expected one operator from ==, !="),
        ("node role==x", "key 'node role' is invalid"),
        ("==x", "key '' is invalid"),
        ("node.role==", "value '' is invalid"),
        ("node.role==a==b", "value 'a==b' is invalid"),
        ("node.role==a>b", "value 'a>b' is invalid"),
    ],
)
def test_what_does_not_parse(text, sentence):
    with pytest.raises(ValueError, match=r".") as caught:
        parse(text)
    assert str(caught.value) == sentence


ONE = node("w1", labels={"Zone": "East", "empty": ""}, role=Role.WORKER, engine_labels={"disk": "ssd"})


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("node.id==NODE-w1", True),
        ("node.hostname==W1", True),
        ("node.hostname!=w1", False),
        ("node.role==worker", True),
        ("node.role!=manager", True),
        ("node.platform.os==Linux", True),
        ("node.platform.arch==x86_64", True),
        ("node.platform.arch==amd64", False),
        ("node.labels.Zone==east", True),
        ("node.labels.zone==east", False),
        ("node.labels.zone!=east", True),
        ("NODE.LABELS.Zone==east", True),
        ("node.labels.Zone==eas", False),
        ("engine.labels.disk==ssd", True),
        ("engine.labels.other!=ssd", True),
        ("node.ip==192.0.2.1", True),
        ("node.ip!=192.0.2.1", False),
        ("node.ip==192.0.2.0/24", True),
        ("node.ip==10.0.0.0/8", False),
        ("node.ip!=10.0.0.0/8", True),
        ("node.ip==nonsense", False),
        ("node.ip!=nonsense", False),
        ("node.unknown==x", False),
        ("node.unknown!=x", False),
    ],
)
def test_allows(text, allowed):
    assert parse(text).allows(ONE) is allowed
    assert satisfied((text,), ONE) is allowed


def test_all_must_hold_and_none_always_does():
    assert satisfied((), ONE)
    assert not satisfied(("node.role==worker", "node.role==manager"), ONE)
    assert not satisfied(("not a constraint",), ONE)
