"""Which other nodes still answer: questions to them, and what their silence means.

A machine that dies says nothing; until the leader misses it, every node would go on giving it requests. So
nodes ask each other, a few times a second, and take a peer that is silent out of their own balancers and
names at once. What belongs here: whom to ask and when, who counts as lost, what a network looks like without
them. What does not: sending (ports.Prober), moving tasks (that is the leader's, plan/liveness).

The rules against false alarms:
- A peer is lost only if it was heard before: where the port is blocked, nothing changes.
- It is asked faster as soon as it is late, so that a loss is judged by many questions, not by a few.
- It is lost only while another one answers. Where all are silent it is we who are cut off: nothing changes.
- Time in which we did not get to work ourselves does not count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import ceil, inf

from msgspec import Struct, field
from msgspec.structs import replace

from swarmpy.model.fabric import Endpoint, Table

PORT = 7946
"""UDP port of questions and answers: the one that Swarm's nodes keep open for each other, so that existing
firewalls let it pass."""

PACE = 0.2
"""Seconds between two questions to a peer that answers."""
BUDGET = 160.0
"""Questions a second to all peers together: with more than 32 peers each is asked less often."""
MOST = 256
"""Peers that one node asks: with more, those that follow it in the order of their addresses."""
QUICK = 0.04
"""Seconds between two questions to a peer whose answer is late."""
LATE = 0.1
"""Seconds after which the answer to a question asked in time is late; also how late we may be ourselves."""
SILENCE = 0.7
"""Seconds of silence that mean loss..."""
MISSES = 8
"""...if at least so many questions were asked in them."""
WITNESS = 0.3
"""Seconds within which somebody else must have answered. Less than MISSES * QUICK: when our own link dies,
the last answer that came through it vouches for nobody."""
GOOD = 5
"""Answers in succession that bring a lost peer back."""
BURST = 32
"""Questions sent at once, at most."""
SOON = 0.01
"""Seconds until the rest of a burst."""


class Peer(Struct, frozen=True, gc=False):
    """What is known of a peer. Times are our own working time; -inf for never. `missed`: questions since its
    last answer; `good`: answers in succession while it is lost."""

    heard: float = -inf
    asked: float = -inf
    missed: int = 0
    good: int = 0
    lost: bool = False


class Watch(Struct, frozen=True):
    """All peers by address. `skew`: seconds of the clock in which we did not work; `wake`: when the next turn
    was due."""

    peers: Mapping[str, Peer] = field(default_factory=dict)
    skew: float = 0.0
    wake: float = inf

    @property
    def lost(self) -> frozenset[str]:
        """Addresses of the peers that are lost."""
        return frozenset(key for key, peer in self.peers.items() if peer.lost)


class Turn(Struct, frozen=True):
    """What follows: whom to ask now, and when to look again (None: when there are peers)."""

    watch: Watch
    ask: tuple[str, ...]
    wake_at: float | None


def chosen(own: str, addresses: Iterable[str]) -> tuple[str, ...]:
    """Whom the node with this address asks."""
    others = sorted(set(addresses) - {own, ""})
    if len(others) <= MOST:
        return tuple(others)
    after = [one for one in others if one > own]
    return tuple(sorted([*after, *others][:MOST]))


def turn(watch: Watch, now: float, peers: Iterable[str], answers: Iterable[tuple[str, float]] = ()) -> Turn:
    """One look. `answers`: (who, when) since the last one."""
    skew = watch.skew
    if now - watch.wake > LATE:
        skew += now - watch.wake
    at = now - skew
    names = sorted(set(peers))
    pace = max(PACE, len(names) / BUDGET)
    # Many peers are asked in groups, so that there is always a fresh witness; few together: fewer wakes.
    groups = ceil(round(pace / PACE, 6))
    known = {
        key: watch.peers.get(key) or Peer(asked=at - pace + place % groups * PACE)
        for place, key in enumerate(names)
    }
    for key, when in sorted(answers, key=lambda one: one[1]):
        if key in known:
            known[key] = _answered(known[key], when - skew)
    known = _judged(known, at)
    due = sorted((peer.asked + _interval(peer, pace, at), key) for key, peer in known.items())
    ask = tuple(key for when, key in due if when <= at + 1e-9)[:BURST]
    for key in ask:
        known[key] = replace(known[key], asked=at, missed=known[key].missed + 1)
    wakes = [peer.asked + _interval(peer, pace, at) for peer in known.values()]
    # A peer that answered in time may be late before its next question is due.
    wakes += [one for peer in known.values() if (one := peer.heard + pace + LATE) > at and not peer.lost]
    wake = max(now + SOON, min(wakes) + skew) if wakes else None
    return Turn(Watch(known, skew, inf if wake is None else wake), ask, wake)


def _answered(peer: Peer, when: float) -> Peer:
    good = peer.good + 1 if peer.lost else 0
    back = good >= GOOD
    return replace(
        peer, heard=max(peer.heard, when), missed=0, good=0 if back else good, lost=peer.lost and not back
    )


def _judged(known: Mapping[str, Peer], at: float) -> dict[str, Peer]:
    witnessed = any(at - peer.heard <= WITNESS for peer in known.values())
    found: dict[str, Peer] = {}
    for key, peer in known.items():
        silent = at - peer.heard
        if peer.lost:
            found[key] = replace(peer, good=0) if silent > SILENCE else peer
        elif witnessed and peer.heard > -inf and silent >= SILENCE and _unanswered(peer, at) >= MISSES:
            found[key] = replace(peer, lost=True, good=0)
        else:
            found[key] = peer
    return found


def _unanswered(peer: Peer, at: float) -> int:
    """Questions that were not answered in time: the last one may have been asked just now."""
    return peer.missed if at - peer.asked >= QUICK - 1e-9 else peer.missed - 1


def _interval(peer: Peer, pace: float, at: float) -> float:
    doubtful = peer.heard > -inf and not peer.lost and at - peer.heard >= pace + LATE - 1e-9
    return QUICK if doubtful else pace


# ---------------------------------------------------------------- what it means for networks


def reachable(table: Table, lost: frozenset[str]) -> Table:
    """The table as this node uses it: endpoints on lost peers get no traffic. Where all that serve of a
    service are there, they stay: something may still answer, nothing surely will not."""
    if not any(one.serving and one.vtep in lost for one in table.endpoints):
        return table
    alive = {one.service_id for one in table.endpoints if one.serving and one.vtep not in lost}

    def seen(one: Endpoint) -> Endpoint:
        out = one.serving and one.vtep in lost and one.service_id in alive
        return replace(one, serving=False) if out else one

    return replace(table, endpoints=tuple(seen(one) for one in table.endpoints))


def stations(tables: Mapping[str, Table]) -> frozenset[str]:
    """Underlay addresses of all nodes in the tables."""
    found = {one for table in tables.values() for one in table.peers}
    found |= {node.vtep for table in tables.values() for node in table.nodes}
    found |= {one.vtep for table in tables.values() for one in table.endpoints}
    return frozenset(found - {""})


# ---------------------------------------------------------------- how wide the way is

FRAME = 22
"""Bytes that a datagram of ours must be longer than an overlay's packet to make the same packet on the wire:
VXLAN adds an Ethernet head and its own to what UDP carries."""
ENCRYPTED = 26
"""Bytes more where the overlay is encrypted (plan/tables.ENCRYPTION)."""


def widths(tables: Mapping[str, Table]) -> dict[str, int]:
    """Bytes of the datagram that must reach each peer whole, by its address."""
    found: dict[str, int] = {}
    for table in tables.values():
        size = table.mtu + FRAME + (ENCRYPTED if table.encrypted else 0)
        for peer in stations({table.id: table}):
            found[peer] = max(size, found.get(peer, 0))
    return found


def narrow(peer: str, size: int) -> str:
    """The sentence for a path that passes small packets only."""
    head = 48 if ":" in peer else 28
    return (
        f"the path to {peer} does not pass packets of {size + head} bytes, but small ones: connections over "
        "the overlay will hang in large transfers; raise the MTU of what lies between (a switch, a tunnel, a "
        "cloud network), or make the network with a lower --opt com.docker.network.driver.mtu"
    )
