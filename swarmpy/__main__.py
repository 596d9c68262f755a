"""`python -m swarmpy`: the same as the `swarmpy` command."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    try:
        from swarmpy.cli.main import main
    except KeyboardInterrupt:  # while it was loading
        sys.exit(130)
    sys.exit(main())
