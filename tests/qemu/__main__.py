"""swarmpy on a stock Debian kernel with systemd, IPVS, IPsec and control groups of version 2 only, by emulation.

What belongs here: the command. What does not: the machine (machine.py), what is tested in it (cases_*.py).

    python -m tests.qemu                     all cases; prints a table, exit status 0 only if all of them hold
    python -m tests.qemu -k encrypted        the cases whose name holds the word (pytest's -k)
    python -m tests.qemu --bench             overlay networks beside those of Docker Swarm, in figures
    python -m tests.qemu --hold              boots and says how to get in; ends with its input, or Ctrl-C

Needs root and an x86-64 Debian or Ubuntu; installs what is missing (`tools/setup.sh qemu`).
"""

from __future__ import annotations

import argparse
import compileall
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from types import FrameType
from xml.etree import ElementTree

from tests.qemu import image, machine
from tests.qemu.errors import MachineError

CASES = (
    "tests/qemu/cases_systemd.py",
    "tests/qemu/cases_lab.py",
    "tests/uml/test_ipvs.py",
    "tests/uml/test_encryption.py",
    "tests/uml/sctp_cases.py",
)
BROUGHT = ("swarmpy", "tests", "deploy", "pyproject.toml", "requirements.lock")
PATIENCE = 10
"""Emulation makes everything about ten times slower; so much longer do the tests wait."""
_COMPILED = ".cpython-311.pyc"
_DEADLINE = 5400.0
_BENCH = (
    # The Engine switches forwarding on where it runs; the namespaces that it makes take it from the machine's own.
    "sysctl -qw net.ipv4.ip_forward=1 && "
    f"exec {machine.PYTHON} -m tests.bench.beside_swarm --managers 1 --balancer ipvs --rounds 1 --only mesh "
    "--only many-services"
)
_BEGAN = time.monotonic()


def main(argv: list[str]) -> int:
    """Run it; returns the exit status: 0 all hold, 1 some do not, 2 the machine cannot run here."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.qemu", description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("-k", dest="only", default="", metavar="WORDS", help="only these cases (pytest's -k)")
    parser.add_argument("--bench", action="store_true", help="measure beside Docker Swarm instead of testing")
    parser.add_argument("--hold", action="store_true", help="run nothing; say how to get in, and wait")
    args = parser.parse_args(argv)
    try:
        _install()
        found = image.ensure(_say)
        _say("booting (emulated: this takes about a minute)")
        with machine.running(found) as made:
            _say(f"booted: Linux {made.run('uname', '-r').strip()}")
            made.bring(image.ROOT, _files())
            if args.hold:
                return _hold(made)
            if args.bench:
                return made.follow(
                    f"cd {machine.PLACE} && export {_settings()} && {_BENCH}", deadline=_DEADLINE
                )
            return _cases(made, args.only)
    except MachineError as error:
        print(f"\nNOTHING WAS SHOWN: the machine cannot run.\n{error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nNOTHING WAS SHOWN: interrupted", file=sys.stderr)
        return 130


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _say(line: str) -> None:
    print(f"[{time.monotonic() - _BEGAN:6.1f}s] {line}", flush=True)


def _install() -> None:
    if lacks := machine.missing():
        _say(f"installing what is missing: {' '.join(lacks)}")
        done = subprocess.run([image.ROOT / "tools" / "setup.sh", "qemu"], check=False)
        if done.returncode or machine.missing():
            raise MachineError(f"these programs are missing here: {' '.join(machine.missing())}")


def _files() -> Iterator[str]:
    """The project's files that the machine needs, as they are now, committed or not; compiled, where this Python
    can do it for that one: emulated it would take a minute."""
    for name in BROUGHT:
        path = image.ROOT / name
        if path.is_dir():
            compileall.compile_dir(path, quiet=2)
        for one in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if one.is_file() and (one.suffix != ".pyc" or one.name.endswith(_COMPILED)):
                yield str(one.relative_to(image.ROOT))


def _hold(made: machine.Machine) -> int:
    _say(f"the project is in {machine.PLACE}; get in by\n  {shlex.join(made.line('')[:-1])}")
    sys.stdin.read()
    return 0


def _settings() -> str:
    return f"SWARMPY_KERNEL=here SWARMPY_LAB_PATIENCE={PATIENCE} PYTHONPATH={machine.PLACE}"


def _cases(made: machine.Machine, only: str) -> int:
    words = [machine.PYTHON, "-m", "pytest", "-p", "no:randomly", "-v", "--tb=short", "-rP", "--color=no"]
    words += [
        "-o",
        f"timeout={300 * PATIENCE}",
        "--junitxml=/root/junit.xml",
        *(["-k", only] if only else []),
    ]
    status = made.follow(
        f"cd {machine.PLACE} && {_settings()} exec {shlex.join([*words, *CASES])}", deadline=_DEADLINE
    )
    report = made.run("cat", "/root/junit.xml")
    cases = list(ElementTree.fromstring(report).iter("testcase"))
    print(f"\n{'CASE':<78} {'SECONDS':>8}  RESULT")
    for case in cases:
        bad = sorted({one.tag for one in case if one.tag in ("failure", "error", "skipped")})
        result = " and ".join(bad) or "holds"
        name = case.attrib["name"].removeprefix("test_").replace("_", " ")
        print(f"{name:<78} {float(case.attrib['time']):>8.1f}  {result}")
        status = status or (1 if bad else 0)
    if not cases:
        raise MachineError("no case was run")
    return 1 if status else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _interrupt)
    sys.exit(main(sys.argv[1:]))
