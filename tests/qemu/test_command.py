"""The command says loudly when it can show nothing. (What it shows is no part of this suite: `python -m tests.qemu`.)"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.qemu import __main__ as command
from tests.qemu import image, machine
from tests.qemu.errors import MachineError


def test_where_the_machine_cannot_be_made_nothing_was_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The programs are there, the disk is not, and there is no source to make it from."""
    monkeypatch.setattr(machine, "_NEEDED", ())
    monkeypatch.setattr(image, "_SOURCES", tmp_path)
    monkeypatch.setattr(image, "_PYTHON", image.sys.version_info[:2])
    monkeypatch.setattr(image.os, "geteuid", lambda: 0)
    monkeypatch.setenv("SWARMPY_QEMU_CACHE", str(tmp_path / "none"))
    assert command.main([]) == 2
    said = capsys.readouterr().err
    assert "NOTHING WAS SHOWN: the machine cannot run." in said
    assert f"{tmp_path} names no source of them" in said
    assert not (tmp_path / "none").exists()


def test_a_machine_that_ends_while_it_boots_is_told_from_one_that_runs(tmp_path: Path) -> None:
    """What stands for the emulator ends at once: its own words are in the sentence, and no file of it is left."""
    for name in ("disk", "kernel", "initrd", "key"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(MachineError, match="the machine ended while it booted"):  # noqa: SIM117
        with machine.running(image.Image(tmp_path)):
            pytest.fail("it runs")


def test_all_cases_it_names_are_there() -> None:
    assert [one for one in command.CASES if not (image.ROOT / one).is_file()] == []
    found = {f"tests/qemu/{one.name}" for one in (image.ROOT / "tests" / "qemu").glob("cases_*.py")}
    assert found <= set(command.CASES)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Types: deb\nURIs: http://mirror.example/debian\nSuites: x\n", "http://mirror.example/debian"),
        ("# deb http://old.example/debian x\ndeb [trusted=yes] http://a.example/debian/ x main\n", "http://a.example/debian/"),
        ("deb http://a.example/other x main\n", None),
    ],
)  # fmt: skip
def test_the_source_of_packages_is_the_machines_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, found: str | None
) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d" / "own.sources").write_text(text)
    monkeypatch.setattr(image, "_SOURCES", tmp_path)
    if found:
        assert image._mirror() == found
    else:
        with pytest.raises(MachineError, match="names no source"):
            image._mirror()
