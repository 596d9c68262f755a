"""Commands whose command line belongs to another room: `daemon`, `lab`, `sim`.

Their modules are loaded by name at the moment of the call, so that no other command pays for them.
"""

from __future__ import annotations

from importlib import import_module

from swarmpy.cli.tables import CommandError, Parsed


def _run(module: str, what: str, parsed: Parsed) -> int:
    try:
        main = import_module(module).main
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("swarmpy"):
            raise CommandError(
                f"{what} needs the Python package {error.name}, which is not installed; install swarmpy with "
                "its dependencies"
            ) from None
        raise CommandError(f"this installation of swarmpy has no {what}") from None
    try:
        code = main(parsed.args)
    except SystemExit as end:  # argparse: --help, or what is wrong with the words
        code = end.code
    return int(code or 0)


def daemon(parsed: Parsed) -> int:
    """Run the node's daemon in the foreground."""
    return _run("swarmpy.daemon", "daemon", parsed)


def lab(parsed: Parsed) -> int:
    """Run the lab's own command line."""
    return _run("swarmpy.lab.main", "lab", parsed)


def sim(parsed: Parsed) -> int:
    """Run the simulator's own command line."""
    return _run("swarmpy.sim.main", "simulator", parsed)
