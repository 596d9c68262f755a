"""The two linearizability checkers, held against each other and against known histories."""

from __future__ import annotations

import itertools
import random

from swarmpy.sim.history import Op, check_indexed, linearizable


def test_known_histories() -> None:
    write = Op(1, "write", "k", 0, 1, value="a", ok=True)
    assert linearizable([write, Op(2, "read", "k", 2, 3, value="a", ok=True)])
    assert not linearizable([write, Op(2, "read", "k", 2, 3, value=None, ok=True)])
    assert linearizable([write, Op(2, "read", "k", 0.5, 3, value=None, ok=True)])
    unknown = Op(1, "write", "k", 0, value="a")
    assert linearizable([unknown, Op(2, "read", "k", 5, 6, value="a", ok=True)])
    assert linearizable([unknown, Op(2, "read", "k", 5, 6, value=None, ok=True)])
    back = [Op(2, "read", "k", 5, 6, value="a", ok=True), Op(2, "read", "k", 7, 8, value=None, ok=True)]
    assert not linearizable([unknown, *back])
    cas = Op(3, "cas", "k", 2, 3, value="b", expected="a", ok=True)
    assert linearizable([write, cas])
    assert not linearizable([write, Op(3, "cas", "k", 2, 3, value="b", expected="z", ok=True)])


def test_the_search_agrees_with_brute_force() -> None:
    chance = random.Random(7)
    verdicts = []
    for _ in range(400):
        ops = [random_op(chance, number) for number in range(chance.randint(1, 5))]
        verdict = linearizable(ops)
        assert verdict == brute(ops)
        verdicts.append(verdict)
    assert True in verdicts
    assert False in verdicts


def random_op(chance: random.Random, number: int) -> Op:
    began = chance.uniform(0, 10)
    value = chance.choice(["a", "b", None])
    kind, expected = chance.choice(["read", "write", "cas"]), chance.choice(["a", None])
    op = Op(number, kind, "k", began, began + chance.uniform(0.1, 5), value=value, expected=expected, ok=True)
    op.took = chance.random() < 0.7
    return op


def brute(ops: list[Op]) -> bool:
    for order in itertools.permutations(ops):
        if any(late.ended < early.began for place, early in enumerate(order) for late in order[place + 1 :]):
            continue
        value = None
        for op in order:
            if op.kind == "read" and op.value != value:
                break
            if op.kind == "cas" and op.took != (op.expected == value):
                break
            if op.kind == "write" or (op.kind == "cas" and op.took):
                value = op.value
        else:
            return True
    return False


def test_indexed_histories() -> None:
    states = {0: {}, 1: {"k": "a"}, 2: {"k": "b"}}
    one = Op(1, "write", "k", 0, 1, value="a", ok=True, index=1)
    two = Op(1, "write", "k", 2, 3, value="b", ok=True, index=2)
    assert check_indexed([one, two, Op(2, "read", "k", 4, 5, value="b", ok=True, index=2)], states) is None
    stale = Op(2, "read", "k", 4, 5, value="a", ok=True, index=1)
    assert "before it" in str(check_indexed([one, two, stale], states))
    wrong = Op(2, "read", "k", 4, 5, value="z", ok=True, index=2)
    assert "should have read" in str(check_indexed([one, two, wrong], states))
    lost = Op(1, "write", "k", 4, 5, value="c", ok=True, index=9)
    assert "no manager applied" in str(check_indexed([one, lost], states))
    hasty = Op(2, "write", "k", 3.5, 5, value="c", ok=True, index=2)
    assert "already seen" in str(check_indexed([one, two, hasty], states))
