"""The replicated log: pysyncobj as a Raft core that we drive (see node.py)."""

import swarmpy.adapters.raft.tamed  # noqa: F401  first of all: see there
from swarmpy.adapters.raft.errors import ApplyError, MembershipError
from swarmpy.adapters.raft.frames import CorruptError
from swarmpy.adapters.raft.node import RaftLog
from swarmpy.adapters.raft.settings import RaftSettings

__all__ = [
    "ApplyError",
    "CorruptError",
    "MembershipError",
    "RaftLog",
    "RaftSettings",
]
