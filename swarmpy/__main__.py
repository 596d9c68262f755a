"""`python -m swarmpy`: the same as the `swarmpy` command."""

from __future__ import annotations

import sys

from swarmpy.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
