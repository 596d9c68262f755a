"""Networks' links in the Linux kernel: ports.Overlay.

What belongs here: namespaces (netns), netlink (netlink, links), how things carry their identity (identity),
what is right and how it is made so (rooms, mending), and the port itself (overlay). What does not: which
networks, neighbours and plugs there are to be (the agent), balancers and names.

All netlink is raw: pyroute2's objects are hundreds of times slower in bulk, and its sockets bring event loops
of their own.
"""

from __future__ import annotations

from swarmpy.adapters.overlay.overlay import KernelOverlay

__all__ = ["KernelOverlay"]
