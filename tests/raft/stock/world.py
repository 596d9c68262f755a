"""The stage: time, links and members that a scenario moves by hand. No threads, no sockets, no real clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

Message = dict[str, Any]

CHANCE = {name: number / 10 for number, name in enumerate("abcdefgh")}
"""What members draw, always: `a` is the first to lose patience, then `b`, …"""


class Actor(Protocol):
    """A member of either cast."""

    name: str
    failure: Exception | None

    def tick(self) -> None: ...
    def receive(self, source: str, message: Message) -> None: ...
    def deliver(self, source: str, message: Message) -> None: ...
    def up(self, peer: str) -> None: ...
    def down(self, peer: str) -> None: ...
    def die(self) -> None: ...

    # what clients do
    def propose(self, value: bytes, done: Callable[[str], None]) -> None: ...
    def read(self, done: Callable[[list[bytes] | None], None]) -> None: ...
    def add(self, name: str) -> None: ...
    def remove(self, name: str) -> None: ...
    def compact(self) -> None: ...

    # what is seen
    @property
    def values(self) -> list[bytes]: ...
    @property
    def leads(self) -> bool: ...
    @property
    def term(self) -> int: ...
    @property
    def commit_index(self) -> int: ...
    @property
    def applied_index(self) -> int: ...
    @property
    def last_index(self) -> int: ...
    @property
    def voters(self) -> set[str]: ...
    def matched(self, name: str) -> int: ...


class Cast(Protocol):
    """How members are made, and how messages of one meaning look in this implementation."""

    def make(self, world: World, name: str, founders: str, *, joins: bool) -> Actor: ...
    def is_snapshot(self, message: Message) -> bool: ...
    def spoil_snapshot(self, message: Message) -> Message: ...
    def answer(self, term: int, next_index: int) -> Message: ...
    def vote_request(self, term: int, last_index: int, last_term: int) -> Message: ...
    def grants(self, message: Message) -> bool: ...


class World:
    """A cluster of founders that may also gain members. Knobs are read by the casts."""

    STEP = 0.02

    def __init__(self, cast: Cast, root: Path, founders: str, **knobs: Any) -> None:
        self.cast, self.root, self.founders, self.knobs = cast, root, founders, knobs
        self.now = 1000.0
        self.members: dict[str, Actor] = {}
        self.links: dict[tuple[str, str], deque[Message]] = {}
        self.connected: set[frozenset[str]] = set()
        self.blocked: set[tuple[str, str]] = set()
        self.held: set[tuple[str, str]] = set()
        self.tap: Callable[[str, str, Message], Message | None] = lambda _s, _t, message: message
        self.outcomes: dict[bytes, list[str]] = {}
        self.log: list[tuple[str, str, Message]] = []
        """All messages that were sent, in order."""

    # -------------------------------------------------- members

    def boot(self) -> World:
        for name in self.founders:
            self.start(name)
        for name in self.founders:
            self.connect_to(name, self.founders)
        return self

    def start(self, name: str, *, joins: bool = False) -> Actor:
        member = self.cast.make(self, name, self.founders, joins=joins)
        self.members[name] = member
        return member

    def crash(self, name: str) -> None:
        """kill -9."""
        for other in sorted(self.members):
            self.disconnect(name, other)
        self.members.pop(name).die()

    def close(self) -> None:
        for name in sorted(self.members):
            self.crash(name)

    def __getitem__(self, name: str) -> Actor:
        return self.members[name]

    # -------------------------------------------------- links

    def connect(self, one: str, other: str) -> None:
        pair = frozenset((one, other))
        if one != other and pair not in self.connected:
            self.connected.add(pair)
            for me, peer in ((one, other), (other, one)):
                self.members[me].up(peer)

    def connect_to(self, name: str, others: Iterable[str]) -> None:
        for other in others:
            self.connect(name, other)

    def disconnect(self, one: str, other: str) -> None:
        """What is on its way is lost."""
        pair = frozenset((one, other))
        if pair in self.connected:
            self.connected.discard(pair)
            for me, peer in ((one, other), (other, one)):
                self.links.pop((me, peer), None)
                self.members[me].down(peer)

    def block(self, sources: str, targets: str, *, one_way: bool = False) -> None:
        """Messages vanish; the connections seem to work."""
        for source in sources:
            for target in targets:
                self.blocked.add((source, target))
                if not one_way:
                    self.blocked.add((target, source))

    def hold(self, source: str, target: str) -> None:
        """Messages queue until `pass_on`."""
        self.held.add((source, target))

    def release(self) -> None:
        self.held.clear()

    def send(self, source: str, target: str, message: Message) -> None:
        """From a member's transport."""
        if frozenset((source, target)) not in self.connected or (source, target) in self.blocked:
            return
        seen = self.tap(source, target, message)
        if seen is not None:
            self.log.append((source, target, seen))
            self.links.setdefault((source, target), deque()).append(seen)

    def pass_on(self, source: str, target: str, count: int = 1) -> int:
        """Deliver messages of one link, the oldest first; how many there were."""
        queue = self.links.get((source, target), deque())
        done = 0
        while queue and done < count:
            self.members[target].receive(source, queue.popleft())
            done += 1
        return done

    # -------------------------------------------------- time

    def step(self) -> None:
        self.now += self.STEP
        for name in sorted(self.members):
            self.members[name].tick()
        for link in sorted(self.links):
            if link not in self.held and link[1] in self.members:
                self.pass_on(*link, count=len(self.links.get(link, ())))

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / self.STEP)):
            self.step()

    def until(self, condition: Callable[[], bool], limit: float = 20.0) -> None:
        end = self.now + limit
        while not condition():
            assert self.now < end, "it does not come to pass"
            self.step()

    def leader(self, among: str = "") -> str:
        """Wait for a leader of the newest term among these members that has committed its first entry."""
        names = among or "".join(sorted(self.members))

        def leaders() -> list[str]:
            top = max(self[n].term for n in names)
            return [n for n in names if self[n].leads and self[n].term == top]

        self.until(
            lambda: len(leaders()) == 1 and self[leaders()[0]].commit_index == self[leaders()[0]].last_index
        )
        return leaders()[0]

    # -------------------------------------------------- clients

    def propose(self, name: str, *values: bytes) -> None:
        for value in values:
            heard = self.outcomes.setdefault(value, [])
            self[name].propose(value, heard.append)

    def commit(self, name: str, *values: bytes) -> None:
        """Propose, and wait until all are acknowledged."""
        self.propose(name, *values)
        self.until(lambda: all("SUCCESS" in self.outcomes[value] for value in values))

    @property
    def acked(self) -> list[bytes]:
        """What clients believe to be stored."""
        return [value for value, heard in self.outcomes.items() if "SUCCESS" in heard]

    def lost(self, name: str) -> list[bytes]:
        """What was acknowledged and is not in the state of this member."""
        return [value for value in self.acked if value not in self[name].values]

    def read(self, name: str) -> list[list[bytes] | None]:
        """A read; what it answers is in the list, if it answers."""
        answers: list[list[bytes] | None] = []
        self[name].read(answers.append)
        return answers


def numbered(word: str, count: int) -> list[bytes]:
    return [f"{word}{number}".encode() for number in range(count)]
