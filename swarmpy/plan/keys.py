"""Keys of encrypted networks: a ring of three secrets, turned every twelve hours.

The ring holds the secret that was used before, the one that is sent with, and the one that comes next. A turn
moves each by one place, so that a node that has heard of it and one that has not can always read each other:
what either sends with is in both rings. That holds for nodes that are one turn apart: a node that no manager
has reached for more than a turn is out of touch with encrypted networks until one does.

Planners may not draw. Secrets come from a seed that was drawn when the cluster began, which each turn
replaces by a digest of itself: who sees the ring, or the state as it is now, cannot work out the secrets
before it. (It is worth what the state is worth: who reads that knows all later ones, and the cluster's CA
besides.)

What belongs here: when the ring turns and what it holds. What does not: who is told (tables.py), the keys of
pairs of nodes (adapters/xfrm).
"""

from __future__ import annotations

import hashlib
import hmac

from msgspec.structs import replace

from swarmpy.model.objects import KeyRing, NetworkKey
from swarmpy.plan.types import Plan
from swarmpy.state.changes import Put
from swarmpy.state.snapshot import Snapshot

PERIOD_NS = 12 * 3600 * 1_000_000_000
RING = 3


def plan(now: int, world: Snapshot) -> Plan:
    """Make the ring when the first encrypted network comes, turn it when it is due."""
    cluster = world.cluster
    if cluster is None or not cluster.network_keys.seed:
        return Plan()
    if not any(network.view.encrypted for network in world.networks.rows.values()):
        return Plan()
    ring = cluster.network_keys
    due = ring.since + PERIOD_NS
    if ring.keys and now < due:
        return Plan(wake_at=due)
    turned = turn(ring, now)
    cause = "the keys of encrypted networks were rotated" if ring.keys else "there is an encrypted network"
    return Plan((Put(replace(cluster, network_keys=turned), cause),), now + PERIOD_NS)


def turn(ring: KeyRing, now: int) -> KeyRing:
    """The next ring: by one secret, however long ago it was due, so that nobody loses touch."""
    seed, kept = bytes.fromhex(ring.seed), list(ring.keys[1:])
    number = ring.keys[-1].number if ring.keys else 0
    while len(kept) < RING:
        number += 1
        kept.append(NetworkKey(number, _derived(seed, b"swarmpy network key").hex()))
        seed = _derived(seed, b"swarmpy network seed")
    return KeyRing(seed=seed.hex(), keys=tuple(kept), since=now)


def _derived(seed: bytes, purpose: bytes) -> bytes:
    """HKDF-Expand (RFC 5869) of one block: the seed was drawn evenly and needs no extraction."""
    return hmac.new(seed, purpose + b"\x01", hashlib.sha256).digest()
