"""The pinned core: pysyncobj's SyncObj from a private copy of its module, with injected surroundings.

What belongs here: loading exactly the source that was audited (by hash) into a module of our own, and
replacing what that module reaches for (clock, chance, pickle, journal, poller). What does not: any change
of Raft's behaviour; that is the subclass in core.py.

Why a private copy: our overrides are bound to name-mangled methods of one exact source file, and the
replaced globals (clock, pickle, …) must not change the library for anybody else in the process.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from types import ModuleType
from typing import Any

import pysyncobj
from pysyncobj.node import Node

CORE_SHA256 = "e8bdf06797085d734df86e24ab4802fe87893dff77268565ec036f7ad4a1cfe4"
"""SHA-256 of pysyncobj 0.3.17's syncobj.py, the file that was audited."""


class WrongCoreError(ImportError):
    """The installed pysyncobj is not the audited one: its private methods cannot be overridden safely."""


class Surroundings:
    """What a core sees of the world: its clock (seconds), its chance ([0, 1)), its journal."""

    def __init__(self, now: Callable[[], float], chance: Callable[[], float], journal: Any) -> None:
        self.now = now
        self.chance = chance
        self.journal = journal


_current: list[Surroundings] = []


@contextmanager
def driving(surroundings: Surroundings) -> Iterator[None]:
    """Calls into a core happen inside this block, so that many cores can live in one process."""
    _current.append(surroundings)
    try:
        yield
    finally:
        _current.pop()


def _now() -> float:
    return _current[-1].now()


class _Chance:
    """Stands where the core imports `random`."""

    @staticmethod
    def random() -> float:
        return _current[-1].chance()


class _NoPickle:
    """Stands where the core imports `pickle`: every use is a bug."""

    @staticmethod
    def dumps(*_: Any) -> bytes:
        raise AssertionError("the raft core must not pickle")

    @staticmethod
    def loads(*_: Any) -> Any:
        raise AssertionError("the raft core must not unpickle")


class _NoPoller:
    """Stands where the core makes a socket poller: it has no sockets."""

    def poll(self, timeout: float) -> None:
        """Nothing to wait for: the core is driven by events."""


def load_core(source_hash: str = CORE_SHA256) -> ModuleType:
    """A private copy of pysyncobj.syncobj. Raises WrongCoreError when the file's hash differs."""
    path = pysyncobj.__path__[0] + "/syncobj.py"
    with open(path, "rb") as file:
        source = file.read()
    found = hashlib.sha256(source).hexdigest()
    if found != source_hash:
        raise WrongCoreError(
            f"pysyncobj's core file is not the audited version 0.3.17 (sha256 {found[:12]}…, expected "
            f"{source_hash[:12]}…); install pysyncobj==0.3.17"
        )
    name = "pysyncobj.syncobj_driven_by_swarmpy"
    spec = importlib.util.spec_from_loader(name, loader=None, origin=path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__dict__["__package__"] = "pysyncobj"
    module.__dict__["__file__"] = path
    sys.modules[name] = module
    exec(compile(source, path, "exec"), module.__dict__)  # noqa: S102 - the very bytes just checked
    module.__dict__.update(
        monotonicTime=_now,
        random=_Chance,
        pickle=_NoPickle,
        createPoller=lambda _: _NoPoller(),
        createJournal=lambda _: _current[-1].journal,
    )
    return module


core_module = load_core()
SyncObj: Any = core_module.SyncObj
SyncObjConf: Any = core_module.SyncObjConf
FAIL_REASON: Any = core_module.FAIL_REASON
RAFT_STATE: Any = core_module._RAFT_STATE


class RaftNode(Node):  # type: ignore[misc]  # pysyncobj has no types
    """A member as the core names it: made by `raft_node`. The hash does not depend on PYTHONHASHSEED, so sets
    of nodes are walked in the same order in every run of the same seed."""

    def __init__(self, node_id: str) -> None:
        super().__init__(node_id)
        self._hash = int.from_bytes(hashlib.blake2s(node_id.encode(), digest_size=7).digest(), "big")

    def __hash__(self) -> int:
        return self._hash


@lru_cache(maxsize=4096)
def raft_node(node_id: str) -> RaftNode:
    """The member with this id. Always the same object where that is possible: a turn looks members up some
    hundred times, and what is identical need not be compared."""
    return RaftNode(node_id)
