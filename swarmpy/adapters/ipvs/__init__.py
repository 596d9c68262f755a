"""Virtual addresses with IPVS.

What belongs here: services in the kernel's IPVS, and the marks by which packets get to them. What does not:
which services there are, and who serves them (plan, agent); the routing mesh (nftables).
"""

from __future__ import annotations

from swarmpy.adapters.ipvs.balancer import IpvsBalancer
from swarmpy.adapters.ipvs.leftovers import sweep

__all__ = ["IpvsBalancer", "sweep"]
