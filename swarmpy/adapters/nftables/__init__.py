"""Virtual addresses, the routing mesh and the guard of the VXLAN ports with nftables.

What belongs here: rule sets, and how they get into the kernel and are checked there. What does not: which
services there are, and who serves them (plan, agent).
"""

from __future__ import annotations

from swarmpy.adapters.nftables.balancer import NftBalancer
from swarmpy.adapters.nftables.guard import NftGuard
from swarmpy.adapters.nftables.mesh import NftMesh

__all__ = ["NftBalancer", "NftGuard", "NftMesh"]
