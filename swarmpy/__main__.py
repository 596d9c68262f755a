"""`python -m swarmpy` and the `swarmpy` command: loads the command line and runs it."""

from __future__ import annotations

import sys


def main() -> int:
    """The exit status; see cli/main. Ctrl-C is quiet while the command line loads, too."""
    try:
        from swarmpy.cli.main import main as run
    except KeyboardInterrupt:
        return 130
    return run()


if __name__ == "__main__":
    sys.exit(main())
