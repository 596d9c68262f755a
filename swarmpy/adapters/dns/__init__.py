"""The name servers of this node's networks: DNS over UDP and TCP inside the networks' namespaces.

names: the port Names. zone: one network's sockets and limits. answers: from a packet to what to say.
wire: packets. memory: answers kept, and clients' allowances. upstream: asking others. sockets: namespaces.
standin: who answers while the daemon is away. keeper: the daemon's side of it. handover: what they say.

What belongs here: the protocol and its bounds. What does not: which names exist (the agent's `resolve`).
"""

from swarmpy.adapters.dns.keeper import Keeper
from swarmpy.adapters.dns.names import NameServers
from swarmpy.adapters.dns.zone import Limits

__all__ = ["Keeper", "Limits", "NameServers"]
