"""Calls of strangers are bounded, honest ones pass: in virtual time."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmpy.pki.rate import Rate, RateLimit, source_of

EACH, TOTAL = Rate(burst=10, per_second=2), Rate(burst=30, per_second=20)


def test_a_burst_passes_then_the_rate_holds() -> None:
    limit = RateLimit(EACH, TOTAL)
    assert [limit.admit("a", 100.0) for _ in range(10)] == [0.0] * 10
    assert limit.admit("a", 100.0) == pytest.approx(0.5)
    assert limit.admit("a", 100.25) == pytest.approx(0.25)
    assert limit.admit("a", 100.5) == 0.0
    assert limit.admit("a", 100.5) > 0
    assert limit.admit("a", 10_000.0) == 0.0


def test_a_flood_from_one_source_keeps_nobody_else_out() -> None:
    limit = RateLimit(EACH, TOTAL)
    now, served = 0.0, 0
    for step in range(10_000):
        now = step / 1000
        served += limit.admit("flood", now) == 0.0
        if step % 100 == 0:
            assert limit.admit(f"honest {step}", now) == 0.0
    assert served <= 10 + 2 * now + 1


def test_many_sources_are_bounded_together() -> None:
    limit = RateLimit(EACH, TOTAL, sources=100)
    served = sum(limit.admit(f"{n}", n / 1000) == 0.0 for n in range(10_000))
    assert 30 <= served <= 30 + 20 * 10 + 1
    assert len(limit) == 100


@settings(derandomize=True, max_examples=100, database=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(-1, 5)), max_size=100))
def test_who_waits_as_told_is_served_and_the_bound_holds(calls: list[tuple[str, float]]) -> None:
    limit = RateLimit(EACH, TOTAL)
    now, latest, served = 0.0, 0.0, dict.fromkeys("abc", 0)
    for source, step in calls:
        now += step
        latest = max(latest, now)
        wait = limit.admit(source, now)
        served[source] += wait == 0.0
        assert wait >= 0.0
        if wait:
            now += wait
            latest = max(latest, now)
            # Only the total can have been the reason again, and nobody else has called since.
            again = limit.admit(source, now)
            assert again == 0.0 or again < wait + 1
            served[source] += again == 0.0
    # Clocks that go back must not mint tokens without end: at most what flowed in forwards.
    forwards = latest + sum(max(0.0, -step) for _, step in calls)
    assert all(count <= 10 + 2 * forwards + 1 for count in served.values())


@pytest.mark.parametrize(
    ("host", "source"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("a name", "a name"),
    ],
)
def test_what_counts_as_one_source(host: str, source: str) -> None:
    assert source_of(host) == source
