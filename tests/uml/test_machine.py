"""The machine that other tests run in: what it gives back, and that nothing outlives it."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.uml import machine

pytestmark = [pytest.mark.uml, pytest.mark.timeout(240)]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's machines have their files: other runs on this computer have machines too."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def leftovers(place: Path) -> list[str]:
    """Processes that were started with files of the place, and files."""
    found = [str(one) for one in place.iterdir()]
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if str(place).encode() in (process / "cmdline").read_bytes():
                found.append(process.name)
    return found


def test_status_output_and_files_come_back_and_nothing_is_left(place: Path) -> None:
    program = (
        "import os, pathlib, platform\n"
        "pathlib.Path('/run/out/note').write_text(platform.release())\n"
        "print('said', os.getpid() > 1, os.environ['GIVEN'], pathlib.Path('/proc/net/ip_vs').exists())\n"
        "try: pathlib.Path('swarmpy/written').write_text('')\n"
        "except OSError as error: print('refused', error.strerror)\n"
        "raise SystemExit(7)"
    )
    done = machine.run(
        [sys.executable, "-c", program], modules=["ip_vs"], environment={"GIVEN": "a b'c"}, deadline=120
    )
    assert done.status == 7
    assert "said True a b'c True" in done.output
    assert "refused Read-only file system" in done.output
    assert done.files["note"] != os.uname().release
    assert leftovers(place) == []


def test_one_that_does_not_end_is_ended(place: Path) -> None:
    began = time.monotonic()
    with pytest.raises(machine.MachineError, match="did not end within 4 s; so far:"):
        machine.run(["sh", "-c", "sleep 1000 & exec sleep 1000"], deadline=4)
    assert time.monotonic() - began < 60
    assert leftovers(place) == []


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "KERNEL", "linux.of-another-machine")
    with pytest.raises(machine.MachineError, match="apt-get install user-mode-linux"):
        machine.run(["true"])


def test_a_module_that_is_not_there_fails_the_run() -> None:
    done = machine.run(["echo", "reached"], modules=["there_is_no_such_module"], deadline=120)
    assert done.status
    assert "reached" not in done.output
