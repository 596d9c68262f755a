"""What holds for the whole suite: its order, that nothing is left out unnoticed, and that nothing is unpickled.

The clusters in namespaces come last, and are not begun when something faster has failed already. On a build
machine (CI is set) a skipped test is a failure: a machine that cannot run the lab must say so.
"""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from swarmpy.adapters.raft.tamed import pysyncobj
from swarmpy.lab.processes import patience

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Begun in the background by a shell: what is started from here would be deaf to interrupts too.
    signal.signal(signal.SIGINT, signal.default_int_handler)

LIBRARY = pysyncobj.pickle
"""Imported by now, tamed: it changes pickle's own unpickler (before the guard stands there), and sockets."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("lab") is not None)
    if patience() > 1:  # an emulated machine: the tests' own deadlines are put off too
        for item in items:
            marker = item.get_closest_marker("timeout")
            if marker is not None:
                item.add_marker(pytest.mark.timeout(marker.args[0] * patience()), append=False)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("lab") is None:
        return
    failed = [
        test
        for test in item.session.items[: item.session.items.index(item)]
        if test.get_closest_marker("lab") is None and test.stash.get(_FAILED, False)
    ]
    if failed:
        item.session.shouldfail = f"the lab is not begun: {len(failed)} faster tests failed"
        pytest.fail("not begun, since faster tests failed", pytrace=False)


class PickleGuard:
    """Unpickling runs code for whoever made the bytes: in this process every way to it raises.

    `seen` remembers attempts, since pysyncobj swallows what its loaders raise. `lifted` is for tests that show
    what the stock library does.
    """

    NAMES = ("load", "loads", "_load", "_loads", "Unpickler", "_Unpickler")

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.real = {name: getattr(pickle, name) for name in self.NAMES}
        guard = self

        class Refuser(self.real["_Unpickler"]):
            def __init__(self, *_: Any, **__: Any) -> None:
                guard.refuse()

        self.refusers = dict.fromkeys(("load", "loads", "_load", "_loads"), self.refuse)
        self.refusers |= {"Unpickler": Refuser, "_Unpickler": Refuser}

    def refuse(self, *_: Any, **__: Any) -> Any:
        self.seen.append("something was unpickled")
        raise AssertionError("something was unpickled")

    def stand(self) -> None:
        for name, refuser in self.refusers.items():
            setattr(pickle, name, refuser)

    def lift(self) -> None:
        for name, real in self.real.items():
            setattr(pickle, name, real)


@pytest.fixture(scope="session", autouse=True)
def pickle_guard() -> Iterator[PickleGuard]:
    guard = PickleGuard()
    guard.stand()
    yield guard
    guard.lift()


@pytest.fixture(autouse=True)
def nothing_is_unpickled(pickle_guard: PickleGuard) -> Iterator[None]:
    pickle_guard.seen.clear()
    yield
    assert not pickle_guard.seen


@pytest.fixture
def pickle_allowed(pickle_guard: PickleGuard) -> Iterator[None]:
    """For the tests of the stock library only."""
    pickle_guard.lift()
    yield
    pickle_guard.stand()


_FAILED = pytest.StashKey[bool]()
_SKIPPED = pytest.StashKey[list[str]]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    report = yield
    if report.failed:
        item.stash[_FAILED] = True
    if report.skipped and not hasattr(report, "wasxfail"):
        item.config.stash.setdefault(_SKIPPED, []).append(item.nodeid)
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    if os.environ.get("CI") and session.config.stash.get(_SKIPPED, []) and not session.exitstatus:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for name in terminalreporter.config.stash.get(_SKIPPED, []):
        terminalreporter.write_line(f"skipped, which fails on a build machine: {name}")
