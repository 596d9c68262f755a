"""The log as its callers see it: proposing, reading, failover, restarts, membership."""

from __future__ import annotations

import asyncio

import pytest

from swarmpy.adapters.raft import MembershipError
from swarmpy.ports import (
    AmbiguousError,
    LogRole,
    Member,
    NoQuorumError,
    NotLeaderError,
)
from tests.raft.cluster import Cluster
from tests.raft.fakes import run_virtual


def now() -> float:
    return asyncio.get_running_loop().time()


def test_one_member_leads_at_once_and_applies() -> None:
    async def main() -> None:
        cluster = await Cluster("a").boot()
        begin = now()
        leader = await cluster.wait_leader()
        assert now() - begin < 0.1
        index, result = await leader.propose(b"x")
        assert result == 1
        assert await leader.read_index() >= index
        assert cluster.machines["a"].values() == [b"x"]

    run_virtual(main())


def test_three_members_replicate_and_survive_the_loss_of_the_leader() -> None:
    async def main() -> None:
        cluster = await Cluster("abc").boot()
        for number in range(20):
            await cluster.propose(b"%d" % number)
        old = (await cluster.wait_leader()).self_id
        await cluster.kill(old)
        begin = now()
        index = await cluster.propose(b"after")
        assert now() - begin < 2.0
        await cluster.start(old)
        await cluster.logs[old].wait_applied(index)
        await cluster.settle()
        assert cluster.machines[old].values() == [b"%d" % n for n in range(20)] + [b"after"]

    run_virtual(main())


@pytest.mark.parametrize("seed", range(20))
def test_writes_resume_within_two_seconds_of_a_kill(seed: int) -> None:
    async def main() -> None:
        cluster = await Cluster("abc", seed).boot()
        await cluster.propose(b"before")
        await cluster.kill((await cluster.wait_leader()).self_id)
        begin = now()
        await cluster.propose(b"after")
        assert now() - begin < 2.0

    run_virtual(main())


def test_all_restart_and_keep_everything() -> None:
    async def main() -> None:
        cluster = await Cluster("abc").boot()
        for number in range(50):
            await cluster.propose(b"%d" % number)
        for name in "abc":
            await cluster.kill(name)
        for name in "abc":
            await cluster.start(name)
        leader = await cluster.wait_leader()
        await leader.read_index()
        assert cluster.machines[leader.self_id].values() == [b"%d" % n for n in range(50)]

    run_virtual(main())


def test_a_follower_refuses_and_names_the_leader() -> None:
    async def main() -> None:
        cluster = await Cluster("abc").boot()
        leader = await cluster.wait_leader()
        await leader.propose(b"x")
        await cluster.settle()
        follower = next(log for log in cluster.logs.values() if log is not leader)
        for call in (follower.propose(b"y"), follower.read_index(), follower.transfer()):
            with pytest.raises(NotLeaderError) as error:
                await call
            assert error.value.leader == leader.self_id

    run_virtual(main())


def test_without_a_majority_proposals_are_ambiguous_and_reads_fail() -> None:
    async def main() -> None:
        cluster = await Cluster("abc").boot()
        leader = await cluster.wait_leader()
        await leader.propose(b"x")
        for name in "abc":
            if name != leader.self_id:
                await cluster.kill(name)
        results = await asyncio.gather(
            leader.propose(b"y", timeout=5),
            leader.read_index(timeout=5),
            return_exceptions=True,
        )
        assert isinstance(results[0], AmbiguousError)
        assert isinstance(results[1], NotLeaderError | NoQuorumError)
        assert leader.status().role is not LogRole.LEADER

    run_virtual(main())


def test_many_proposals_share_turns_and_keep_their_order() -> None:
    async def main() -> None:
        cluster = await Cluster("abc").boot()
        leader = await cluster.wait_leader()
        await leader.propose(b"first")
        before = cluster.disks[leader.self_id].operations
        results = await asyncio.gather(*(leader.propose(b"%d" % n) for n in range(1000)))
        indexes = [index for index, _ in results]
        assert indexes == sorted(indexes)
        assert cluster.disks[leader.self_id].operations - before < 40
        await cluster.settle()
        assert all(len(m.values()) == 1001 for m in cluster.machines.values())

    run_virtual(main())


def test_a_large_proposal_is_refused_and_the_largest_goes_through() -> None:
    async def main() -> None:
        cluster = await Cluster("abc").boot()
        leader = await cluster.wait_leader()
        with pytest.raises(ValueError, match="more than"):
            await leader.propose(bytes(cluster.settings.max_entry + 1))
        await asyncio.gather(*(leader.propose(bytes(cluster.settings.max_entry)) for _ in range(9)))
        await cluster.settle()

    run_virtual(main())


def test_a_machine_that_raises_poisons_nothing() -> None:
    async def main() -> None:
        cluster = await Cluster("abc").boot()
        leader = await cluster.wait_leader()
        with pytest.raises(Exception, match="poison"):
            await leader.propose(b"raise")
        await leader.propose(b"after")
        await cluster.settle()
        assert cluster.machines["a"].values() == [b"raise", b"after"]

    run_virtual(main())


def test_wait_status_returns_on_change() -> None:
    async def main() -> None:
        cluster = await Cluster("abc").boot()
        leader = await cluster.wait_leader()
        await cluster.settle()
        follower = next(log for log in cluster.logs.values() if log is not leader)
        seen = await follower.wait_status(None)
        await cluster.kill(leader.self_id)
        changed = await asyncio.wait_for(follower.wait_status(seen), 5)
        assert changed != seen

    run_virtual(main())


def test_the_silence_of_a_dead_leader_does_not_begin_with_the_next_term() -> None:
    async def main() -> None:
        cluster = await Cluster("abc").boot()
        first = await cluster.wait_leader()
        await cluster.settle()
        await cluster.kill(first.self_id)
        died = asyncio.get_running_loop().time()
        second = await cluster.wait_leader()
        await asyncio.sleep(2)
        silence = second.status().silence
        passed = asyncio.get_running_loop().time() - died
        assert passed <= silence[first.self_id] < passed + 0.5
        (other,) = set("abc") - {first.self_id, second.self_id}
        assert silence[other] < 0.5

    run_virtual(main())


# ---------------------------------------------------------------- membership


def test_a_member_joins_catches_up_and_votes() -> None:
    async def main() -> None:
        cluster = await Cluster("a").boot()
        leader = await cluster.wait_leader()
        for number in range(100):
            await leader.propose(b"%d" % number)
        for name in "bc":
            joiner = await cluster.start(name)
            assert joiner.status().role is LogRole.LEARNER
            await leader.add_member(Member(name, f"{name}:2377"))
        assert [m.voter for m in leader.status().members] == [True] * 3
        await cluster.settle()
        await cluster.kill("a")
        await cluster.propose(b"after")
        assert (await cluster.wait_leader()).self_id in "bc"

    run_virtual(main())


def test_an_unreachable_joiner_stays_a_learner_and_harms_nobody() -> None:
    async def main() -> None:
        cluster = await Cluster("a").boot()
        leader = await cluster.wait_leader()
        with pytest.raises(NoQuorumError, match="catch up"):
            await leader.add_member(Member("b", "b:2377"), timeout=3)
        await leader.propose(b"still works")
        await cluster.start("b")
        await leader.add_member(Member("b", "b:2377"))
        await leader.propose(b"with two")

    run_virtual(main())


def test_a_removed_member_learns_it_and_its_id_is_spent() -> None:
    async def main() -> None:
        cluster = await Cluster("abc").boot()
        leader = await cluster.wait_leader()
        await leader.propose(b"x")
        gone, away = (n for n in "abc" if n != leader.self_id)
        with pytest.raises(MembershipError, match="itself"):
            await leader.remove_member(leader.self_id)
        await leader.remove_member(gone)
        await asyncio.sleep(1)
        assert cluster.logs[gone].status().role is LogRole.REMOVED
        with pytest.raises(MembershipError, match="never used again"):
            await leader.add_member(Member(gone, f"{gone}:2377"))
        assert away in leader.status().reachable

    run_virtual(main())


def test_a_member_removed_while_away_learns_it_when_it_returns() -> None:
    async def main() -> None:
        cluster = await Cluster("abc").boot()
        leader = await cluster.wait_leader()
        await leader.propose(b"x")
        gone = next(n for n in "abc" if n != leader.self_id)
        await cluster.kill(gone)
        await leader.remove_member(gone)
        term = leader.status().term
        await cluster.start(gone)
        await asyncio.sleep(5)
        assert cluster.logs[gone].status().role is LogRole.REMOVED
        assert leader.status().term == term

    run_virtual(main())


def test_removing_a_live_member_when_the_rest_has_no_majority_is_refused() -> None:
    async def main() -> None:
        cluster = await Cluster("abc").boot()
        leader = await cluster.wait_leader()
        await leader.propose(b"x")
        live, dead = (n for n in "abc" if n != leader.self_id)
        await cluster.kill(dead)
        await asyncio.sleep(1.5)
        with pytest.raises(MembershipError, match="no majority"):
            await leader.remove_member(live)
        await leader.remove_member(dead)
        await leader.remove_member(live)
        await leader.propose(b"alone")

    run_virtual(main())


def test_leadership_is_handed_over_and_the_old_leader_can_be_removed() -> None:
    async def main() -> None:
        cluster = await Cluster("abc").boot()
        leader = await cluster.wait_leader()
        await leader.propose(b"x")
        begin = now()
        await leader.transfer()
        assert now() - begin < 0.5
        after = await cluster.wait_leader(besides=leader.self_id)
        await after.propose(b"y")
        await after.remove_member(leader.self_id)
        await after.propose(b"z")

    run_virtual(main())


def test_proposals_during_a_transfer_are_never_lost_or_doubted_without_need() -> None:
    async def main() -> None:
        cluster = await Cluster("abc").boot()
        leader = await cluster.wait_leader()
        await leader.propose(b"x")
        transfer = asyncio.ensure_future(leader.transfer())
        await asyncio.sleep(0)
        results = await asyncio.gather(*(leader.propose(b"%d" % n) for n in range(5)), return_exceptions=True)
        await transfer
        assert all(isinstance(r, NotLeaderError | tuple) for r in results)

    run_virtual(main())


def test_a_long_absent_member_hears_a_leader_it_does_not_know() -> None:
    async def main() -> None:
        cluster = await Cluster("abc").boot()
        leader = await cluster.wait_leader()
        await leader.propose(b"x")
        away = next(n for n in "abc" if n != leader.self_id)
        await cluster.settle()
        await cluster.kill(away)
        await cluster.start("d")
        await leader.add_member(Member("d", "d:2377"))
        await leader.transfer("d")
        await (await cluster.wait_leader(besides=leader.self_id)).propose(b"y")
        await cluster.start(away)
        await cluster.settle()
        assert away in {m.id for m in cluster.logs["d"].status().members}

    run_virtual(main())


def test_recover_alone_keeps_everything_and_spends_the_other_ids() -> None:
    async def main() -> None:
        cluster = await Cluster("abc").boot()
        for number in range(10):
            await cluster.propose(b"%d" % number)
        await cluster.settle()
        for name in "abc":
            await cluster.kill(name)
        log = await cluster.start("a")
        await log.stop()
        await log.recover_alone()
        await log.start()
        leader = await cluster.wait_leader()
        await leader.propose(b"alone")
        assert cluster.machines["a"].values() == [b"%d" % n for n in range(10)] + [b"alone"]
        with pytest.raises(MembershipError):
            await leader.add_member(Member("b", "b:2377"))
        for name in "bc":
            await cluster.start(name)
        await asyncio.sleep(5)
        assert leader.status().role is LogRole.LEADER

    run_virtual(main())
