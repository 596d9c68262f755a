"""What holds for the whole suite: its order, and that nothing is left out unnoticed.

The clusters in namespaces come last, and are not begun when something faster has failed already. On a build
machine (CI is set) a skipped test is a failure: a machine that cannot run the lab must say so.
"""

from __future__ import annotations

import os

import pytest


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("lab") is not None)


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
