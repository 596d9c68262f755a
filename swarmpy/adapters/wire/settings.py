"""The wire's limits and times.

What belongs here: every number that bounds the wire. What does not: sizes of single methods (pki.rpc).
"""

from __future__ import annotations

from dataclasses import dataclass

from swarmpy.pki.rate import Rate

_EACH = Rate(burst=200, per_second=10)
_TOTAL = Rate(burst=1000, per_second=100)


@dataclass(frozen=True, slots=True)
class WireSettings:
    """Times are seconds, sizes bytes.

    A silent peer of a channel is pinged after `heartbeat` and given up after half of that again, so the
    default notices a dead one within 3 s. `window` is how much a channel's receiver lets the other side send
    ahead of what it has taken.
    """

    heartbeat: float = 2.0
    window: int = 1024 * 1024
    handshake_seconds: float = 5.0
    body_seconds: float = 10.0
    close_seconds: float = 1.0
    accept_seconds: float = 1.0
    """A channel handler that neither refuses nor uses its channel for so long has accepted it."""
    connections: int = 4096
    handshakes: int = 256
    """Connections whose TLS handshake is under way."""
    strangers: int = 64
    """Connections without a certificate (bootstrap) at one time."""
    stranger_seconds: float = 15.0
    """How long a connection without a certificate may live."""
    stranger_calls: Rate = _EACH
    """Calls without a certificate from one address. 50 machines may join at once, with two calls each."""
    all_stranger_calls: Rate = _TOTAL
    expiry_sweep: float = 30.0
    """How often live channels are compared with the expiry of their certificates."""
    idle_seconds: float = 15.0
    """How long a pooled connection is kept for the next call."""
