"""The ring of keys of encrypted networks: when it turns, what it never does, and who is told."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from swarmpy.agent import journal
from swarmpy.api import netrender, render
from swarmpy.manager.tables import Tables, Told
from swarmpy.model import codec
from swarmpy.model.fabric import patched
from swarmpy.model.messages import Networks
from swarmpy.model.objects import KeyRing
from swarmpy.pki.ca import Authority
from swarmpy.plan import keys, tables
from swarmpy.sim.disk import Platter, SimDisk
from swarmpy.state.changes import Delete, Put
from swarmpy.state.snapshot import Snapshot

from .worlds import SECOND, START, Stage, node, spec

HOUR = 3600 * SECOND


def stage(*names: str, encrypted: bool = True) -> Stage:
    made = Stage(*(node(name, features=("encryption",)) for name in names or ("w1", "w2")))
    made.network("plain")
    if encrypted:
        made.network("sealed", Options={"encrypted": ""})
    return made


def ring(world: Snapshot) -> KeyRing:
    assert world.cluster is not None
    return world.cluster.network_keys


def test_no_keys_and_no_timer_without_an_encrypted_network() -> None:
    made = stage(encrypted=False)
    assert ring(made.world).keys == ()
    assert keys.plan(made.now, made.world) == keys.Plan()


def test_an_encrypted_network_brings_three_and_a_timer() -> None:
    made = stage()
    found = ring(made.world)
    assert [key.number for key in found.keys] == [1, 2, 3]
    assert found.sending == 2
    assert found.since == made.now
    assert keys.plan(made.now, made.world) == keys.Plan(wake_at=made.now + 12 * HOUR)


def test_a_turn_is_due_after_twelve_hours_and_not_before() -> None:
    made = stage()
    before = ring(made.world)
    made.pass_time(12 * 3600 - 1)
    assert ring(made.world) == before
    made.pass_time(1)
    after = ring(made.world)
    assert after.keys[:2] == before.keys[1:]
    assert [key.number for key in after.keys] == [2, 3, 4]
    assert after.sending == 3
    assert after.since == made.now
    assert made.causes == ["the keys of encrypted networks were rotated"]


def test_however_late_the_ring_turns_by_one() -> None:
    """A leader that was away for a week must not leave behind nodes that have last week's ring."""
    made = stage()
    before = ring(made.world)
    made.pass_time(7 * 24 * 3600)
    assert ring(made.world).keys[:2] == before.keys[1:]
    made.plan()
    assert ring(made.world).keys[:2] == before.keys[1:]


def test_numbers_and_secrets_never_come_again() -> None:
    """Not even when the last encrypted network goes and another comes."""
    made = stage()
    seen = set(ring(made.world).keys)
    for day in range(1, 20):
        if day % 3 == 0:
            made.put(Delete("network", "network-sealed"))
            made.plan()
            made.pass_time(13 * 3600)
            made.network("sealed", Options={"encrypted": ""})
        else:
            made.pass_time(13 * 3600)
        seen |= set(ring(made.world).keys)
    assert len({key.number for key in seen}) == len({key.secret for key in seen}) == len(seen) == 22


def test_what_is_kept_does_not_tell_what_was() -> None:
    """Each turn makes the seed anew, from the old one; no secret follows from what comes later."""
    made = stage()
    first = ring(made.world)
    for _ in range(4):
        made.pass_time(13 * 3600)
    kept = codec.encode(made.world.cluster)
    for key in first.keys:
        assert key.secret.encode() not in kept
    assert first.seed.encode() not in kept


def test_clusters_share_no_secret() -> None:
    one, two = (keys.turn(KeyRing(seed=seed * 32), 0) for seed in ("00", "01"))
    assert not {key.secret for key in one.keys} & {key.secret for key in two.keys}


@given(st.lists(st.integers(0, 100 * HOUR), max_size=30))
def test_one_turn_apart_all_understand_each_other(pauses: list[int]) -> None:
    now, old = START, keys.turn(KeyRing(seed="07" * 32), START)
    for pause in pauses:
        now += pause
        new = keys.turn(old, now)
        assert {old.sending, new.sending} <= {key.number for key in old.keys}
        assert {old.sending, new.sending} <= {key.number for key in new.keys}
        old = new


def test_a_cluster_from_before_has_no_seed_and_no_keys() -> None:
    made = stage()
    made.put(Put(replace(made.world.cluster, network_keys=KeyRing())))
    assert keys.plan(made.now, made.world) == keys.Plan()


# ---------------------------------------------------------------- who is told


def test_only_nodes_that_carry_an_encrypted_network_are_told() -> None:
    made = stage("w1", "w2")
    for name in ("plain", "sealed"):
        made.create(spec(name, 1, template={
            "Networks": [{"Target": f"network-{name}"}],
            "Placement": {"Constraints": [f"node.hostname=={'w1' if name == 'sealed' else 'w2'}"]},
        }))  # fmt: skip
    known = Tables()
    one = Told().news(known, made.world, "node-w1", 1, full=True)
    two = Told().news(known, made.world, "node-w2", 1, full=True)
    assert one is not None
    assert two is not None
    secret = ring(made.world).keys[1].secret.encode()
    assert secret in codec.encode(one)
    assert [delta.head.name for delta in two.deltas] == ["plain"]
    assert secret not in codec.encode(two)


def test_a_turn_reaches_the_nodes() -> None:
    made = stage("w1")
    made.create(spec("web", 1, template={"Networks": [{"Target": "network-sealed"}]}))
    known, told = Tables(), Told()
    first = told.news(known, made.world, "node-w1", 1, full=True)
    assert first is not None
    assert told.news(known, made.world, "node-w1", 2, full=False) is None
    made.pass_time(13 * 3600)
    news = told.news(known, made.world, "node-w1", 2, full=False)
    assert isinstance(news, Networks)
    table = patched(patched(None, first.deltas[0]), news.deltas[0])
    assert (table.keys, table.sending) == (ring(made.world).keys, 3)


def test_neither_the_api_nor_the_agents_disk_shows_any() -> None:
    made = stage("w1")
    found = ring(made.world)
    authority = Authority.create(made.now)
    cluster = replace(made.world.cluster, root_cert=authority.cert_pem.decode())
    shown = repr(render.cluster_with_tokens(cluster))
    shown += repr([netrender.network(one, {}) for one in made.world.networks])
    assert cluster.id in shown
    disk = SimDisk(Platter("seed"))
    table = tables.table(made.world, made.world.networks["network-sealed"])
    journal.save_networks(disk, journal.KeptNetworks(tables={"network-sealed": table}))
    assert journal.load_networks(disk).tables["network-sealed"] == replace(table, keys=(), sending=0)
    for word in (found.seed, *(key.secret for key in found.keys)):
        assert word not in shown
        assert word.encode() not in disk.read(journal.NETWORKS)


def test_room_for_encryption_is_left_to_the_byte() -> None:
    """ESP fills up to a multiple of four, so an underlay's odd bytes cannot be used."""
    made = stage("w1")
    made.create(
        spec("web", 1, template={"Networks": [{"Target": "network-sealed"}, {"Target": "network-plain"}]})
    )
    for underlay, plain, sealed in (
        (1500, 1450, 1416),
        (1501, 1451, 1416),
        (1503, 1453, 1416),
        (1504, 1454, 1420),
    ):
        made.set_node("w1", about={"mtu": underlay})
        found = [
            tables.table(made.world, made.world.networks[f"network-{name}"]).mtu
            for name in ("plain", "sealed")
        ]
        assert found == [plain, sealed]
        esp = 20 + 8 + 8 + (sealed + 50 - 20) + 2 + 16
        assert esp % 4 == 0
        assert esp <= underlay < esp + 4
