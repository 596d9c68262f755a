"""What IPVS leaves in a namespace in which another balancer has taken over.

What belongs here: taking it away without ending an open connection. What does not: when (balancers.py), and
the rules by which nftables marked packets: they are in the table that the other balancer replaces.

IPVS finds packets of open connections by their addresses, without a mark, so those go on until they end:
their servers drain, as those of a service that is removed do.
"""

from __future__ import annotations

from collections.abc import Collection

from swarmpy.adapters.ipvs import kernel, steps
from swarmpy.adapters.ipvs.iptmarks import IptMarks
from swarmpy.adapters.nftables import conntrack


def sweep(vips: Collection[str] = (), *, patient: bool = True) -> bool:
    """Take away what is ours of IPVS in the thread's namespace; whether something is left, because
    connections are open (not `patient`: they end). `vips` are the virtual addresses of the other balancer:
    datagrams that went to them by IPVS go by that one from now on. Raises FabricError."""
    if not kernel.is_loaded():
        return False
    services = kernel.services()
    if not services and not kernel.has_any_way():
        return False
    if not patient or kernel.has_any_way() or any(steps.takes_new(one) for one in services.values()):
        IptMarks().clear("")
        kernel.carry_out(steps.changes(services, {}, {}, ""))
        moved = {steps.plain(vip) for vip in vips}
        conntrack.cut(lambda flow: flow.target in moved)
        kernel.clear_ways()  # comes last: as long as one is there, all of this is done again
        services = kernel.services()
    if patient:
        kernel.carry_out(steps.drained(services, ()))
    else:
        kernel.carry_out(steps.Step(steps.Verb.REMOVE_SERVICE, mark) for mark in services)
    return bool(kernel.services())
