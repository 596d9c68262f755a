"""Our core where messages are repeated, reordered, lost and held, members are cut off, killed, added and removed,
and logs are compacted, all at random from a seed. A FIFO network is what we ask for; two connections between the
same members already break it, and safety must not depend on it.
"""

from __future__ import annotations

import random

import pytest

from tests.raft.fakes import ListMachine
from tests.raft.stock import ours as cast
from tests.raft.stock.conftest import Stage
from tests.raft.stock.world import World


class Chance:
    """Stands where members look up what they draw."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def __getitem__(self, _name: str) -> float:
        return self._chance.random()


class Chaos:
    def __init__(self, world: World, chance: random.Random) -> None:
        self.world, self.chance = world, chance
        self.repeats = chance.random() * 0.1
        self.losses = chance.choice([0.0, 0.0, 0.05])
        self.reorders = chance.random() < 0.5
        self.leaders: dict[int, str] = {}
        self.applied: dict[int, bytes] = {}
        self.joined: set[str] = set()
        self.down: set[str] = set()
        self.fresh = iter("fgh")
        self.proposed = 0
        self.seen: dict[str, tuple[ListMachine, int, int]] = {}

    # -------------------------------------------------- one moment

    def moment(self) -> None:
        world, chance = self.world, self.chance
        world.now += chance.choice([0.02, 0.05, 0.1])
        for name in sorted(world.members):
            world[name].tick()
        for link in sorted(world.links):
            if link not in world.held:
                self.deliver(*link)
        for name in self.leading():
            if chance.random() < 0.5:
                world.propose(name, b"v%d" % self.proposed)
                self.proposed += 1
        self.trouble()
        self.judge()

    def deliver(self, source: str, target: str) -> None:
        world, chance = self.world, self.chance
        for _ in range(chance.randint(0, len(world.links.get((source, target), ())))):
            queue = world.links.get((source, target))
            if not queue or target not in world.members:
                return
            place = chance.randrange(min(len(queue), 4)) if self.reorders else 0
            message = queue[place]
            if chance.random() >= self.repeats:
                del queue[place]
            if chance.random() >= self.losses:
                world[target].receive(source, message)

    def leading(self) -> list[str]:
        return [name for name in sorted(self.world.members) if self.world[name].leads]

    # -------------------------------------------------- what goes wrong, and what people do

    def trouble(self) -> None:
        world, chance = self.world, self.chance
        alive, dice = sorted(world.members), chance.random()
        one, other = chance.choice(alive), chance.choice(alive)
        if dice < 0.01:
            world.disconnect(one, other)
        elif dice < 0.02 and one != other:
            world.block(one, other, one_way=chance.random() < 0.5)
        elif dice < 0.03:
            world.hold(one, other)
        elif dice < 0.06:
            self.heal()
        elif dice < 0.09 and len(alive) > 1:
            world.crash(one)
            self.down.add(one)
        elif dice < 0.15 and self.down:
            self.rise(chance.choice(sorted(self.down)))
        elif dice < 0.18:
            world[one].compact()
        elif dice < 0.22:
            for leader in self.leading():
                self.change(leader, chance.random() < 0.5)

    def change(self, leader: str, grow: bool) -> None:
        world = self.world
        rest = sorted(world[leader].voters - {leader})
        if grow:
            name = next(self.fresh, None)
            if name is not None:
                self.joined.add(name)
                self.rise(name)
                world[leader].add(name)
        elif len(rest) > 2:
            world[leader].remove(self.chance.choice(rest))

    def rise(self, name: str) -> None:
        self.down.discard(name)
        self.world.start(name, joins=name in self.joined)
        self.world.connect_to(name, sorted(self.world.members))

    def heal(self) -> None:
        self.world.blocked.clear()
        self.world.release()
        for name in sorted(self.world.members):
            self.world.connect_to(name, sorted(self.world.members))

    # -------------------------------------------------- what must hold

    def judge(self) -> None:
        for name in sorted(self.world.members):
            member = self.world[name]
            assert member.failure is None, f"{name} stopped: {member.failure!r}"
            if member.leads:
                assert self.leaders.setdefault(member.term, name) == name, f"two lead term {member.term}"
            self.compare(name, member.machine)  # type: ignore[attr-defined]

    def compare(self, name: str, machine: ListMachine) -> None:
        """What the member applied since we last looked, with what others applied."""
        known, loads, seen = self.seen.get(name, (machine, 0, 0))
        begin = seen if (known, loads) == (machine, machine.loads) else 0
        for index, value in machine.entries[begin:]:
            assert self.applied.setdefault(index, value) == value, f"{name} applied another entry {index}"
        self.seen[name] = (machine, machine.loads, len(machine.entries))

    def calm(self) -> None:
        """With everybody back, one leads, has all that was acknowledged, and the voters are equal."""
        for name in sorted(self.down):
            self.rise(name)
        self.heal()
        world = self.world

        def agreed() -> bool:
            self.judge()
            if len(self.leading()) != 1:
                return False
            leader = world[self.leading()[0]]
            applied = {world[name].applied_index for name in leader.voters}
            return applied == {leader.last_index} and leader.commit_index == leader.last_index

        world.until(agreed, limit=30)
        (leader,) = self.leading()
        assert world.lost(leader) == []
        for name in sorted(world[leader].voters):
            assert world[name].values == world[leader].values


@pytest.mark.parametrize("seed", range(5))
def test_nothing_acknowledged_is_lost_and_nobody_contradicts(
    ours: Stage, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    chance = random.Random(seed)
    monkeypatch.setattr(cast, "CHANCE", Chance(chance))
    world = ours(
        "abcde"[: chance.choice([3, 3, 5])], batch=chance.choice([20, 200]), chunk=chance.choice([64, 4096])
    )
    world.boot()
    chaos = Chaos(world, chance)
    for _ in range(300):
        chaos.moment()
    chaos.calm()
    assert len(world.acked) > 5
