"""What a node tells the leader of its guests: containers that the Engine has + places that the tables have.

A guest's container carries all that is needed in its endpoints' options, so nothing is remembered for it: one
that is there and has no place (its node was lost for long) asks for the same place again; a place whose
container is gone is given up. What belongs here: the comparison, pure and level-triggered. What does not:
asking the Engine and the leader (agent/guests.py), the leader's judgement (guests.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from swarmpy.model.fabric import Endpoint, Table
from swarmpy.model.objects import Attachment
from swarmpy.plan.container import OPTION
from swarmpy.plan.tables import SHORT_ID

ALIASES = OPTION + "aliases"
"""Option of a guest's endpoint: its further names in the network, comma-separated."""
SERVERS = OPTION + "dns"
"""Option of a guest's endpoint: the name servers that its user asked for, comma-separated."""
GONE = 1.0
"""Seconds that a place waits for its container: what the Engine and the tables say is not of one instant."""

Pair = tuple[str, str]
"""A guest's id and a network's."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """A guest as the Engine shows it. `places` by the name of the Engine's network."""

    guest_id: str
    container_id: str
    name: str
    hostname: str
    places: Mapping[str, Attachment]


@dataclass(frozen=True, slots=True)
class Visits:
    """All that is known. `missing`: since when (seconds of any clock) places have had no container.
    `expected`: guests whose container is just being made or connected."""

    node_id: str
    tables: Mapping[str, Table]
    visitors: tuple[Visitor, ...]
    missing: Mapping[Pair, float] = field(default_factory=dict)
    expected: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Tell:
    """Say what this guest is and has."""

    visitor: Visitor


@dataclass(frozen=True, slots=True)
class Free:
    """Give up a guest's places in these networks."""

    guest_id: str
    networks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do, what to remember, and in how many seconds to look again (None: only when something
    happens)."""

    tell: tuple[Tell, ...]
    free: tuple[Free, ...]
    missing: Mapping[Pair, float]
    wait: float | None


def visitor_of(
    container_id: str, name: str, hostname: str, options: Mapping[str, Mapping[str, str]]
) -> Visitor | None:
    """The guest that a container is by its endpoints' options; None where it is none."""
    guest_id = ""
    places: dict[str, Attachment] = {}
    for network, found in sorted(options.items()):
        owner, network_id = found.get(OPTION + "task", ""), found.get(OPTION + "network", "")
        if owner and network_id and guest_id in ("", owner):
            guest_id = owner
            places[network] = Attachment(
                network_id=network_id,
                addresses=_split(found.get(OPTION + "addresses", "")),
                aliases=_split(found.get(ALIASES, "")),
            )
    return Visitor(guest_id, container_id, name, hostname, places) if guest_id else None


def _split(text: str) -> tuple[str, ...]:
    return tuple(one for one in text.split(",") if one)


def judge(now: float, visits: Visits) -> Verdict:
    """Compare. Only to be asked once the leader has sent all tables."""
    known = {(end.id, network_id): end for network_id, end in _own(visits)}
    here = {(one.guest_id, place.network_id): one for one in visits.visitors for place in one.places.values()}
    lacking = {
        one.guest_id: one for pair, one in sorted(here.items())
        if pair not in known or not _same(known[pair], one)
    }  # fmt: skip
    missing = {
        pair: visits.missing.get(pair, now) for pair in sorted(known)
        if pair not in here and pair[0] not in visits.expected
    }  # fmt: skip
    left = {pair: since + GONE - now for pair, since in missing.items()}
    over: dict[str, list[str]] = {}
    for (guest_id, network_id), seconds in left.items():
        if seconds <= 0:
            over.setdefault(guest_id, []).append(network_id)
    return Verdict(
        tell=tuple(Tell(one) for one in lacking.values()),
        free=tuple(Free(guest_id, tuple(networks)) for guest_id, networks in over.items()),
        missing=missing,
        wait=min((seconds for seconds in left.values() if seconds > 0), default=None),
    )


def _own(visits: Visits) -> Iterable[tuple[str, Endpoint]]:
    """The places of this node's guests, as the leader sees them."""
    for network_id, table in visits.tables.items():
        for end in table.endpoints:
            if end.node_id == visits.node_id and not end.service_id:
                yield network_id, end


def _same(known: Endpoint, one: Visitor) -> bool:
    return known.name == one.name and known.hostname == (one.hostname or one.container_id[:SHORT_ID])
