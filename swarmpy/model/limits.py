"""Numbers that both the command line and the managers hold users to. Nothing is imported here."""

from __future__ import annotations

MAX_PORTS = 1000
"""Published ports of one service. Each is stored with every one of its tasks, and is a chain of rules on
every node: more of them cost all nodes more than a range is worth."""

MAX_SPEC = 256 * 1024
"""Bytes of a service's spec. Each of its tasks carries it, to the node that runs it and through the log, and
the service itself has it twice: as it is and as it was."""
