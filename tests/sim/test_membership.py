"""The membership under faults: each scene is played in a whole simulated cluster and must end at rest."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from swarmpy.ports import LogError, RefusedError
from swarmpy.sim.cluster import Cluster
from swarmpy.sim.faults import down
from swarmpy.sim.runs import first_violation, quiet_logs
from swarmpy.sim.stage import Box

Scene = Callable[[Cluster], Awaitable[None]]
FAULTS = ("join-worker", "join-manager", "crash-joining", "promote", "demote", "crash-promoted", "crash-demoted",
          "demote-leader", "transfer", "leave", "remove-node", "remove-lost", "wipe", "amnesia")  # fmt: skip


def play(scene: Scene, *, seed: int = 1, workers: int = 1) -> Cluster:
    """Form a cluster, play the scene, and see that everything comes to rest."""
    cluster = Cluster(seed, workers=workers, faults=[])

    async def main() -> None:
        await cluster.form()
        await scene(cluster)
        cluster.stage.heal()
        tidying = asyncio.create_task(cluster.keeper.tidy())
        await cluster.settle()
        tidying.cancel()
        cluster.last_checks()

    cluster.main = main  # type: ignore[method-assign]  # this scene instead of chance
    with quiet_logs():
        outcome = cluster.run()
    assert outcome.violation is None, outcome.violation
    return cluster


async def until(cluster: Cluster, condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Return once the condition holds."""
    end = cluster.stage.loop.instant + seconds
    while not condition():
        assert cluster.stage.loop.instant < end, "it does not happen in time"
        await asyncio.sleep(0.1)


def is_worker(cluster: Cluster, box: Box) -> bool:
    """Whether the machine's node has become a worker and runs no manager."""
    return cluster.world_of(box) is None


def test_changes_of_the_membership_alone_are_survived() -> None:
    broken = first_violation("cluster", range(3), faults=FAULTS)
    assert broken is None, f"seed {broken.seed}: {broken.violation}"


def test_without_its_memory_an_agent_finds_the_managers_of_today() -> None:
    """It went back to those that there were when it joined, although all of them may be gone since."""

    async def scene(cluster: Cluster) -> None:
        first, worker = cluster.stage.boxes["m1"], cluster.stage.boxes["w1"]
        await cluster.keeper.set_role(cluster.keeper.node_of(first), "worker")
        await until(cluster, lambda: is_worker(cluster, first))
        down(worker, power=False)
        worker.platter.erase("agent/tasks")

    play(scene)


def test_a_log_that_is_stopped_refuses_who_waits_for_it() -> None:
    """Stopping the log of a demoted manager cancelled the requests that were under way there."""
    seen: list[BaseException | None] = []

    async def scene(cluster: Cluster) -> None:
        box = cluster.stage.boxes["m2"]
        log = cluster.log_of(box)
        assert log is not None
        waiting = cluster.stage.loop.spawn(box.process, log.wait_applied(1 << 40, timeout=60.0))
        await cluster.keeper.set_role(cluster.keeper.node_of(box), "worker")
        await until(cluster, lambda: is_worker(cluster, box))
        await asyncio.wait({waiting}, timeout=5.0)
        assert waiting.done()
        seen.append(None if waiting.cancelled() else waiting.exception())

    play(scene)
    assert isinstance(seen[0], LogError)


def test_a_demoted_manager_is_refused_what_is_for_managers() -> None:
    """Its certificate still says manager until it is renewed: the leader knows better."""
    answers: list[tuple[str, str]] = []

    async def scene(cluster: Cluster) -> None:
        box = cluster.stage.boxes["m3"]
        node_id, wire = cluster.keeper.node_of(box), box.program_state["wires"][-1]

        async def ask() -> None:
            leader = next(box for box in cluster.stage.up if box.leads())
            with pytest.raises(RefusedError) as refused:
                await wire.call(leader.address, "control.read_index", {})
            answers.append((wire.me.role, refused.value.code))

        cluster.keeper.begin(cluster.keeper.demote(node_id))
        while cluster.newest_world().nodes[node_id].role.word == "manager":
            await asyncio.sleep(0.0005)
        await asyncio.wait({cluster.stage.loop.spawn(box.process, ask())}, timeout=20.0)

    play(scene)
    assert answers == [("manager", "PermissionDenied")]


@pytest.mark.parametrize(
    ("wanted", "share"),
    [("node.json", 0.3), ("node.json", 0.97), ("pki/identity.sealed", 0.5), ("raft/journal/", 0.1),
     ("raft/journal/", 0.5), ("agent/tasks", 0.5)],
)  # fmt: skip
def test_a_rotten_bit_is_never_served(wanted: str, share: float) -> None:
    """It is refused with a sentence that says the way back, or, in a mere memory, done without; the other
    managers go on, and an empty disk and a join bring the machine back."""
    said: list[str] = []

    async def scene(cluster: Cluster) -> None:
        box = cluster.stage.boxes["m2"]
        await asyncio.sleep(1.0)
        down(box, power=False)
        path = next(path for path in sorted(box.platter.live, reverse=True) if path.startswith(wanted))
        box.platter.rot(path, int(len(box.platter.live[path].data) * share), 4)
        box.rotted = True
        box.start()
        await until(cluster, lambda: bool(box.broken or box.program_state.get("joined")))
        said.append(box.broken)
        other = cluster.control(cluster.stage.boxes["m1"])
        assert other is not None
        await other.world()

    cluster = play(scene)
    if wanted == "agent/tasks":
        assert said == [""]
    elif wanted != "raft/journal/" or said != [""]:  # padding that nothing reads may rot unseen
        assert "join" in said[0]
        assert cluster.stage.boxes["m2"].platter.generation == 1


def test_a_paused_node_holds_up_no_update() -> None:
    """Seed 1: a node was paused when the update of a global service had begun on it, and all others waited."""
    broken = first_violation("cluster", [1])
    assert broken is None, f"{broken.violation}"
