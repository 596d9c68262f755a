"""The house is tidy, and the command line stays light."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from tests import tidy

HEAVY = ("asyncio", "aiohttp", "docker", "pyroute2", "pysyncobj", "msgspec", "msgpack", "cryptography")


@pytest.mark.parametrize("rule", tidy.RULES, ids=lambda rule: rule.__name__)
def test_tidy(rule: Callable[[], Iterator[str]]) -> None:
    assert list(rule()) == []


def test_the_command_line_loads_nothing_heavy() -> None:
    program = (
        "import sys\nfrom swarmpy.cli.main import main\n"
        "main(['service', 'ls', '--help'])\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tidy.ROOT
    )
    assert done.stderr.strip() == "[]"
