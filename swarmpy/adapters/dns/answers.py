"""From a packet to what to say: ourselves, or another server.

What belongs here: the protocol's decisions; pure but for the shuffling. What does not: sockets, waiting.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass

from swarmpy.adapters.dns import wire
from swarmpy.model.links import Answer, Question
from swarmpy.ports.fabric import Resolve

log = logging.getLogger(__name__)

TURNS = 16
"""Different orders of an answer that are made ready, where it will be remembered."""
TRANSFERS = range(249, 255)
"""TKEY to MAILA: transfers of zones and the like, which are no questions about a name."""


@dataclass(slots=True)
class Ours:
    """Our own reply, without the id, in several orders that take turns. `lasting`: the same packet gets the
    same answer until something changes."""

    bodies: Sequence[bytes]
    lasting: bool = False
    turn: int = 0

    def next(self) -> bytes:
        """The body whose turn it is."""
        body = self.bodies[self.turn]
        self.turn = (self.turn + 1) % len(self.bodies)
        return body


@dataclass(frozen=True, slots=True)
class Ask:
    """Another server is to be asked. () is the node's own."""

    query: wire.Query
    upstream: tuple[str, ...]
    limit: int


def decide(packet: bytes, network_id: str, client: str, resolve: Resolve, *, tcp: bool) -> Ours | Ask | None:
    """What to say to the packet; None: nothing."""
    query = wire.decode(packet)
    if query is None:
        return None
    if isinstance(query, bytes):
        return Ours((query[2:],))
    limit = wire.LARGEST_TCP if tcp else query.limit
    if query.version > 0:
        return Ours((wire.render(query, rcode=wire.BADVERS, limit=limit),))
    if query.klass != 1 or query.kind in TRANSFERS or query.kind in (0, wire.OPT):
        return Ours((wire.render(query, rcode=wire.REFUSED, limit=limit),))
    try:
        answer = resolve(Question(network_id, client, query.name, query.kind_name))
        if answer.forward:
            return Ask(query, answer.upstream, limit)
        return _ours(query, answer, limit, turns=1 if tcp else TURNS)
    except Exception:
        # Whatever a client asks, the others are served on.
        log.exception("no answer for %s %s", query.kind_name, query.name)
        return failure(query, limit)


def failure(query: wire.Query, limit: int) -> Ours:
    """The reply where there is no answer."""
    return Ours((wire.render(query, rcode=wire.SERVFAIL, limit=limit),))


def _ours(query: wire.Query, answer: Answer, limit: int, turns: int) -> Ours:
    if answer.refused:
        body = wire.render(query, rcode=wire.NXDOMAIN, limit=limit, negative=True)
        return Ours((body,), lasting=query.plain)
    ttl = max(0, min(answer.ttl, 0x7FFFFFFF))
    records = wire.address_records(query, answer.addresses, ttl)
    if answer.name and query.kind in (wire.PTR, wire.ANY):
        records.append(wire.name_record(answer.name, ttl))
    if not records:
        return Ours((wire.render(query, limit=limit, negative=True),), lasting=query.plain)
    random.shuffle(records)
    turns = min(len(records), turns)
    starts = [number * len(records) // turns for number in range(turns)]
    bodies = [wire.render(query, [*records[at:], *records[:at]], limit=limit) for at in starts]
    return Ours(bodies, lasting=query.plain)
