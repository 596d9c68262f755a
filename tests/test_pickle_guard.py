"""The guard of the suite bites: every way to unpickle raises, and an attempt that is swallowed is seen too."""

from __future__ import annotations

import io
import pickle

import pysyncobj.pickle
import pytest

from tests.conftest import PickleGuard

DATA = pickle.dumps([1])


@pytest.mark.parametrize(
    "attempt",
    [
        lambda: pickle.loads(DATA),
        lambda: pickle.load(io.BytesIO(DATA)),
        lambda: pickle.Unpickler(io.BytesIO(DATA)).load(),
        lambda: pickle._loads(DATA),
        lambda: pysyncobj.pickle.loads(DATA),
        lambda: pysyncobj.pickle.load(io.BytesIO(DATA)),
    ],
)
def test_unpickling_raises_and_is_remembered(attempt, pickle_guard: PickleGuard) -> None:
    with pytest.raises(AssertionError, match="unpickled"):
        attempt()
    assert pickle_guard.seen
    pickle_guard.seen.clear()


def test_the_stock_library_may_be_shown(pickle_allowed: None) -> None:
    assert pickle.loads(DATA) == [1]
