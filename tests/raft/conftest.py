"""In these tests unpickling anything is a failure."""

from __future__ import annotations

import pickle
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def no_pickle(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """pickle.load and pickle.loads raise, except where the stock library is shown (marker `stock`)."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("something was unpickled")

    if "stock" not in request.fixturenames:
        for name in ("load", "loads", "_load", "_loads", "Unpickler", "_Unpickler"):
            monkeypatch.setattr(pickle, name, refuse)
