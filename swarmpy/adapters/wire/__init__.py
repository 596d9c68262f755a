"""The wire between nodes: calls and channels over mutual TLS, with aiohttp.

What belongs here: one implementation of ports.Wire and the bootstrap client that joins use. What does not:
who may call what (pki.rpc) and what methods do (manager/, agent/, adapters/raft).
"""

from swarmpy.adapters.wire.bootstrap import bootstrap_call, fetch_bundle
from swarmpy.adapters.wire.settings import WireSettings
from swarmpy.adapters.wire.tls import TlsWire, WireIdentity

__all__ = ["TlsWire", "WireIdentity", "WireSettings", "bootstrap_call", "fetch_bundle"]
