"""Who still answers: the laws of the planner, and its promises kept against a simulated wire in virtual time."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from swarmpy.model.fabric import Table
from swarmpy.plan import names, probing, share
from swarmpy.plan.probing import MISSES, PACE, QUICK, SILENCE, WITNESS, Peer, Watch, turn
from tests.plan.test_fabric import ME, OTHER, endpoint, mesh, table

PEERS = ("10.0.0.2", "10.0.0.3", "10.0.0.4")
Passes = Callable[[str, float, random.Random], bool]


class Wire:
    """Peers that answer after `delay` while `passes` lets the round trip through."""

    def __init__(
        self, passes: Passes, peers: tuple[str, ...] = PEERS, delay: float = 0.001, seed: int = 1
    ) -> None:
        self.passes, self.peers, self.delay = passes, peers, delay
        self.random = random.Random(seed)
        self.watch, self.now = Watch(), 100.0
        self.on_the_way: list[tuple[float, str]] = []
        self.losses: list[tuple[float, str]] = []
        self.asked = 0
        self.stall: tuple[float, float] | None = None

    def until(self, end: float, stop: Callable[[], bool] = lambda: False) -> None:
        while self.now < end and not stop():
            if self.stall and self.now >= self.stall[0]:
                self.now, self.stall = self.now + self.stall[1], None
            here = [(key, when) for when, key in self.on_the_way if when <= self.now]
            self.on_the_way = [one for one in self.on_the_way if one[0] > self.now]
            before = self.watch.lost
            found = turn(self.watch, self.now, self.peers, here)
            self.watch = found.watch
            self.losses += [(self.now, key) for key in sorted(self.watch.lost - before)]
            self.asked += len(found.ask)
            for key in found.ask:
                if self.passes(key, self.now, self.random):
                    self.on_the_way.append((self.now + self.delay, key))
            assert found.wake_at is not None
            assert found.wake_at > self.now
            self.now = found.wake_at

    @property
    def lost(self) -> set[str]:
        return set(self.watch.lost)


def dead(*keys: str, since: float) -> Passes:
    return lambda key, now, _random: key not in keys or now < since


@given(st.floats(101, 102), st.floats(0.0001, 0.15))
@settings(max_examples=60, deadline=None)
def test_a_dead_peer_is_lost_within_a_second_and_nobody_else_is(since: float, delay: float) -> None:
    wire = Wire(dead(PEERS[1], since=since), delay=delay)
    wire.until(since + 10, lambda: bool(wire.lost))
    assert wire.losses
    assert SILENCE - PACE <= wire.losses[0][0] - since <= 1.0
    wire.until(since + 5)
    assert wire.lost == {PEERS[1]}


@given(st.floats(101, 102), st.integers(0, 2**32), st.floats(0, 0.05))
@settings(max_examples=60, deadline=None)
def test_where_all_are_silent_nobody_is_lost(since: float, seed: int, loss: float) -> None:
    def passes(_key: str, now: float, chance: random.Random) -> bool:
        return now < since and chance.random() > loss

    wire = Wire(passes, seed=seed)
    wire.until(since + 20)
    assert wire.losses == []


def test_a_lone_peer_is_never_lost_and_neither_is_one_that_was_never_heard() -> None:
    wire = Wire(dead(PEERS[0], since=101), peers=PEERS[:1])
    wire.until(110)
    assert wire.lost == set()
    blocked = Wire(dead(PEERS[0], since=0))
    blocked.until(110)
    assert blocked.lost == set()


def test_who_was_lost_before_we_were_cut_off_stays_lost_and_nobody_joins_him() -> None:
    wire = Wire(lambda key, now, _: now < 101 or (key != PEERS[0] and now < 105))
    wire.until(120)
    assert wire.lost == {PEERS[0]}


def test_all_but_one_may_die_at_once() -> None:
    wire = Wire(dead(*PEERS[:2], since=101))
    wire.until(102.05)
    assert wire.lost == set(PEERS[:2])


def test_a_peer_is_back_after_a_few_good_answers_and_not_after_one() -> None:
    back = 105.0
    wire = Wire(lambda key, now, _: key != PEERS[0] or now < 101 or now >= back)
    wire.until(back + 0.5)
    assert wire.lost == {PEERS[0]}
    wire.until(back + 1.5)
    assert wire.lost == set()


def test_single_answers_between_long_silences_bring_nobody_back() -> None:
    wire = Wire(lambda key, now, _: key != PEERS[0] or now < 101 or int(now * 10) % 20 == 0)
    wire.until(160)
    assert wire.lost == {PEERS[0]}
    assert len(wire.losses) == 1


@pytest.mark.parametrize("seconds", [0.5, 2.0, 60.0])
def test_our_own_pause_is_not_their_silence(seconds: float) -> None:
    wire = Wire(lambda *_: True)
    wire.stall = (101.0, seconds)
    wire.until(101 + seconds + 5)
    assert wire.losses == []


# ---------------------------------------------------------------- five percent of loss


def questions_until_lost() -> int:
    """How many questions in succession must be lost for a false alarm."""
    wire = Wire(lambda key, now, _: key != PEERS[0] or now < 101)
    asked: list[float] = []
    inner = wire.passes
    wire.passes = lambda key, now, chance: (
        asked.append(now) if key == PEERS[0] else None,
        inner(key, now, chance),
    )[1]
    wire.until(110, lambda: bool(wire.lost))
    return sum(now >= 101 for now in asked)


def test_five_percent_of_loss_is_no_loss_by_calculation() -> None:
    round_trip = 1 - 0.95**2  # the question and the answer may be lost
    chances = 3600 / PACE
    assert questions_until_lost() >= 11
    assert round_trip ** questions_until_lost() * chances < 1e-5  # false alarms an hour and peer


def test_five_percent_of_loss_is_no_loss_for_an_hour() -> None:
    wire = Wire(lambda _key, _now, chance: chance.random() > 0.05 and chance.random() > 0.05)
    wire.until(100 + 3600)
    assert wire.losses == []


def test_a_dead_peer_is_found_on_a_bad_wire_too() -> None:
    for seed in range(50):
        wire = Wire(
            lambda key, now, chance: chance.random() > 0.1 and (key != PEERS[0] or now < 101), seed=seed
        )
        wire.until(102.3)
        assert wire.lost == {PEERS[0]}


# ---------------------------------------------------------------- cost


@pytest.mark.parametrize(("count", "within"), [(3, 1.0), (32, 1.0), (100, 1.3), (250, 2.3)])
def test_many_peers_cost_no_more_than_the_budget_and_are_still_found(count: int, within: float) -> None:
    peers = tuple(f"10.0.{one // 250}.{one % 250 + 1}" for one in range(count))
    wire = Wire(dead(peers[1], since=110), peers=peers)
    wire.until(110)
    assert wire.asked <= min(count / PACE, probing.BUDGET) * 10 * 1.1 + count
    wire.until(120, lambda: bool(wire.lost))
    assert wire.losses[0][0] - 110 <= within


def test_in_a_large_cluster_everybody_is_asked_by_as_many() -> None:
    addresses = [f"10.{one // 200}.0.{one % 200}" for one in range(1000)]
    asked = dict.fromkeys(addresses, 0)
    for own in addresses:
        found = probing.chosen(own, addresses)
        assert len(found) == probing.MOST
        assert own not in found
        for one in found:
            asked[one] += 1
    assert set(asked.values()) == {probing.MOST}
    assert probing.chosen("10.0.0.1", ["10.0.0.2", "10.0.0.1", ""]) == ("10.0.0.2",)


# ---------------------------------------------------------------- laws

peer_states = st.builds(
    Peer,
    heard=st.sampled_from([float("-inf"), 90.0, 99.0, 99.3, 99.8, 100.0]),
    asked=st.sampled_from([float("-inf"), 99.0, 99.8, 99.95, 100.0]),
    missed=st.integers(0, 20),
    good=st.integers(0, 4),
    lost=st.booleans(),
)
watches = st.dictionaries(st.sampled_from(PEERS), peer_states).map(lambda peers: Watch(peers, wake=100.0))


@given(watches, st.lists(st.tuples(st.sampled_from(PEERS), st.floats(99, 100)), max_size=8), st.randoms())
@example(
    Watch({PEERS[0]: Peer(heard=90.0, missed=7), PEERS[1]: Peer(heard=100.0)}, wake=100.0),
    [],
    random.Random(1),
)
def test_laws(watch: Watch, answers: list[tuple[str, float]], chance: random.Random) -> None:
    found = turn(watch, 100.0, PEERS, answers)
    assert found.wake_at is not None
    assert found.wake_at > 100.0
    again = turn(found.watch, 100.0, PEERS)
    assert again.ask == ()
    assert again.watch.lost == found.watch.lost
    assert replace(again.watch, wake=0) == replace(found.watch, wake=0)
    mixed, peers = list(answers), list(PEERS)
    chance.shuffle(mixed)
    chance.shuffle(peers)
    assert turn(Watch(dict(reversed(watch.peers.items())), wake=100.0), 100.0, peers, mixed) == found


def test_numbers_that_belong_together() -> None:
    assert WITNESS < MISSES * QUICK
    assert MISSES * QUICK + PACE + probing.LATE <= SILENCE
    assert turn(Watch(), 1.0, ()).wake_at is None


# ---------------------------------------------------------------- what it means for networks

THERE = frozenset({"192.0.2.2"})


def seen(of: Table) -> set[str]:
    return {one.id for one in probing.reachable(of, THERE).endpoints if one.serving}


def test_tasks_on_lost_nodes_leave_balancers_mesh_and_names_of_this_node() -> None:
    here, there = endpoint(1), endpoint(2, OTHER)
    front, ingress = table(here, there), mesh(here, there)
    assert share.Sandboxes({"n1": front}).table("t1").services[0].backends == ("10.0.1.1", "10.0.1.2")
    cut = probing.reachable(front, THERE)
    assert share.Sandboxes({"n1": cut}).table("t1").services[0].backends == ("10.0.1.1",)
    assert share.mesh_of(probing.reachable(ingress, THERE), ME).ports[0].backends == ("10.0.0.1",)
    resolver = names.Resolver({"n1": cut}, {})
    asked = names.Question("n1", "10.0.1.1", "tasks.web", "A")
    assert resolver.answer(asked).addresses == ("10.0.1.1",)
    # Links stay: it may be back at any moment.
    assert list(share.neighbours(cut, ME)) == list(share.neighbours(front, ME))


def test_a_service_whose_tasks_are_all_on_lost_nodes_keeps_them() -> None:
    gone, other = endpoint(2, OTHER), endpoint(3, OTHER, service="s2")
    both = table(endpoint(1), gone, other)
    assert seen(both) == {"t1", "t3"}
    assert probing.reachable(table(gone, other), THERE) == table(gone, other)
    # Who does not serve anyway keeps nobody out.
    assert seen(table(endpoint(1, serving=False), gone)) == {"t2"}


def test_the_table_that_nobody_is_missing_from_is_the_same_one() -> None:
    front = table(endpoint(1), endpoint(2, OTHER))
    assert probing.reachable(front, frozenset()) is front
    assert probing.reachable(front, frozenset({"192.0.2.99"})) is front


def test_widths_are_of_the_widest_network_and_make_the_packet_that_vxlan_makes() -> None:
    front = table(endpoint(1), endpoint(2, OTHER))
    assert probing.widths({"n1": front})["192.0.2.2"] + 28 == 1500
    wide = replace(front, mtu=8950)
    assert probing.widths({"n1": front, "n2": wide})["192.0.2.2"] + 28 == 9000
    encrypted = replace(front, mtu=1424, encrypted=True)
    assert probing.widths({"n1": encrypted})["192.0.2.2"] + 28 == 1500
    assert "1500 bytes" in probing.narrow("192.0.2.2", 1472)
    assert "1500 bytes" in probing.narrow("fd00::2", 1452)
