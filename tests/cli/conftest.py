"""Fixtures of the command line's tests: a fake daemon, and ways to run the two command lines against it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from swarmpy.cli.main import main
from tests.cli.fake_swarm_daemon import FakeDaemon

ROOT = Path(__file__).resolve().parents[2]


class Done:
    """How a command line ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err


Run = Callable[..., Done]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[FakeDaemon]:
    made = FakeDaemon(tmp_path / "d.sock")
    yield made
    made.close()


@pytest.fixture
def env(daemon: FakeDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of both command lines: the same daemon, an empty home."""
    for name in ("DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_TLS_VERIFY", "DOCKER_API_VERSION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (("SWARMPY_HOST", daemon.host), ("DOCKER_HOST", daemon.host), ("HOME", str(tmp_path)),
                        ("COLUMNS", "80")):  # fmt: skip
        monkeypatch.setenv(name, value)
    return dict(os.environ)


@pytest.fixture
def swarmpy(env: dict[str, str], capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a swarmpy command in this process."""

    def run(*words: str) -> Done:
        capfd.readouterr()
        code = main(list(words))
        sys.stdout.flush()
        out, err = capfd.readouterr()
        return Done(code, out, err)

    return run


@pytest.fixture
def docker(env: dict[str, str]) -> Run:
    """Run the real docker client, the judge of what a command should send and print."""

    def run(*words: str) -> Done:
        done = subprocess.run(
            ["docker", *words], env=env, capture_output=True, text=True, check=False, timeout=30
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return run


def start(env: dict[str, str], *words: str) -> subprocess.Popen[str]:
    """Start a swarmpy command as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "swarmpy", *words], env=env, cwd=ROOT, text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
