"""The one writer: while this manager leads, everything that changes the world goes through here.

It drains commands, admits them one after the other on a draft of the world, plans once, and proposes one
batch; what arrives meanwhile goes into the next batch. Answers, refusals included, go out once the world they
were decided on is committed. What does not belong here: judgement (plan/), retries for callers (control.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from swarmpy.manager.store import Store
from swarmpy.model import codec
from swarmpy.model.commands import AnyCommand, Result
from swarmpy.model.errors import Ambiguous, Internal, InvalidArgument, Refusal, Unavailable
from swarmpy.model.ids import node_of
from swarmpy.plan.admission.admit import admit
from swarmpy.plan.liveness import begin_term
from swarmpy.plan.manager import Planner
from swarmpy.plan.types import Plan
from swarmpy.ports import AmbiguousError, Clock, Log, NotLeaderError
from swarmpy.state.changes import Batch, Change, Put, Request
from swarmpy.state.snapshot import Snapshot

logger = logging.getLogger(__name__)

QUEUE = 4096
"""Commands that may wait; beyond that callers are told to come back."""
BATCH = 512
"""Commands admitted into one batch at most, so that one log entry stays small."""
PLANNED = 1000
"""Planned changes committed in one batch at most: planning is level-triggered, so any first part of a plan
may be committed and the rest planned again. Bounds a log entry, whatever the size of a service."""
ENTRY = 1_200_000
"""Bytes of changes in one batch, so that a log entry (1,500,000 at most) has room for what is around them.
What does not fit waits for the next batch; one command's changes that never would are refused."""
SECOND = 1_000_000_000


class ClusterTime:
    """Time for decisions: starts at the later of this node's wall clock and the world's time, then follows
    the monotonic clock, so that no clock jump and no change of leader ever moves it back."""

    def __init__(self, clock: Clock, world: Snapshot) -> None:
        self._clock = clock
        self._base = max(clock.now(), world.at)
        self._start = clock.monotonic()

    def now(self) -> int:
        """Nanoseconds since the epoch, never decreasing."""
        return self._base + int((self._clock.monotonic() - self._start) * SECOND)


@dataclass(slots=True)
class _Waiting:
    command: AnyCommand
    answer: asyncio.Future[Result]


@dataclass(slots=True)
class _Draft:
    """A batch being put together."""

    world: Snapshot
    changes: list[Change] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    answers: list[tuple[_Waiting, Result | Refusal]] = field(default_factory=list)
    size: int = 0
    """Bytes of the changes."""

    def carried_out(self, request_id: str) -> Request | None:
        """The earlier request with this id, committed or in this batch."""
        if not request_id:
            return None
        known = self.world.requests.get(request_id)
        return known or next((one for one in self.requests if one.id == request_id), None)


class Writer:
    """Runs while this manager leads; see the file's charter."""

    def __init__(
        self, log: Log, store: Store, clock: Clock, planner: Callable[[], Planner] = Planner
    ) -> None:
        self._log, self._store, self._clock, self._new_planner = log, store, clock, planner
        self._planner = planner()
        self._queue: list[_Waiting] = []
        self._arrived = asyncio.Event()
        self._open = False
        self.opened = asyncio.Event()
        """Set while commands are accepted."""

    async def submit(self, command: AnyCommand) -> Result:
        """Admit and commit a command. Raises Refusal; Unavailable where this manager does not lead."""
        if not self._open:
            raise Unavailable("this manager is not the leader")
        if len(self._queue) >= QUEUE:
            raise Unavailable("the leader has too much to do at the moment; try again")
        waiting = _Waiting(command, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self._arrived.set()
        return await waiting.answer

    async def lead(self) -> None:
        """Write until leadership is lost or the task is cancelled. Raises LogError when it is lost."""
        await self._log.read_index()  # proves the leadership and applies all that was committed before it
        time = ClusterTime(self._clock, self._store.world)
        self._planner = self._new_planner()
        try:
            await self._begin(time)
            for _ in self._planner.prepare(self._store.world):
                await asyncio.sleep(0)
            self._open = True
            self.opened.set()
            wake_at: int | None = time.now()
            while True:
                taken = await self._drain(time, wake_at)
                wake_at = await self._turn(time, taken)
        finally:
            self._open = False
            self.opened.clear()
            waiting, self._queue = self._queue, []
            _refuse(waiting, Unavailable("this manager is no longer the leader"))

    async def _begin(self, time: ClusterTime) -> None:
        """What comes before all else of a term, in as many entries as it takes: see liveness.begin_term."""
        began = time.now()
        while changes := fitting(begin_term(began, self._store.world), ENTRY, least=1):
            batch = Batch(based_on=self._store.world.version, at=time.now(), changes=tuple(changes))
            await self._log.propose(codec.encode(batch))

    async def _drain(self, time: ClusterTime, wake_at: int | None) -> list[_Waiting]:
        """Commands to admit now; none when it is time to plan again."""
        if not self._queue:
            self._arrived.clear()
            delay = None if wake_at is None else max(0.0, (wake_at - time.now()) / SECOND)
            try:
                async with asyncio.timeout(delay):
                    await self._arrived.wait()
            except TimeoutError:
                return []
        taken, self._queue = self._queue[:BATCH], self._queue[BATCH:]
        return taken

    async def _turn(self, time: ClusterTime, taken: list[_Waiting]) -> int | None:
        """Admit, plan, commit, answer. Returns when to wake."""
        base, now = self._store.world, time.now()
        draft = _Draft(base)
        status = self._log.status()
        reachable = frozenset(node_of(seat) for seat in status.reachable | {status.leader or ""})
        for place, waiting in enumerate(taken):
            if not self._admit(now, draft, waiting, reachable):
                self._queue[:0], taken = taken[place:], taken[:place]
                break
        decided = self._decide(now, draft.world)
        planned = fitting(decided.changes, ENTRY - draft.size, least=0 if draft.changes else 1)
        changes = coalesce([*draft.changes, *planned])
        wake_at = now if len(decided.changes) > len(planned) else decided.wake_at
        if not changes and not draft.requests:
            _answer(draft, base.version)
            return wake_at
        batch = Batch(based_on=base.version, at=now, changes=changes, requests=tuple(draft.requests))
        try:
            index, accepted = await self._log.propose(codec.encode(batch))
        except NotLeaderError:
            _refuse(taken, Unavailable("this manager is no longer the leader"))
            raise
        except AmbiguousError:
            _refuse(taken, Ambiguous("the leader changed while the change was being committed"))
            raise
        except BaseException:
            _refuse(taken, Ambiguous("the leader stopped while the change was being committed"))
            raise
        if not accepted:  # another leader's entry came between: decide anew on the world as it is now
            self._queue[:0] = taken
            return now
        _answer(draft, index)
        return wake_at

    def _decide(self, now: int, world: Snapshot) -> Plan:
        if world.cluster is None:
            return Plan()
        return self._planner.plan(now, world)

    def _admit(self, now: int, draft: _Draft, waiting: _Waiting, reachable: frozenset[str]) -> bool:
        """Put a command's changes and answer into the draft; False where they fit the next one only."""
        command = waiting.command
        done = draft.carried_out(command.request_id)
        if done is not None:
            draft.answers.append((waiting, Result(id=done.result_id)))
            return True
        try:
            changes, result = admit(now, draft.world, command, reachable)
            size = sum(map(_size, changes))
            if draft.size and draft.size + size > ENTRY:
                return False
            if size > ENTRY:
                raise InvalidArgument(
                    f"the change has {size} bytes, and {ENTRY} are the most that one change may have: make "
                    "it smaller"
                )
        except Refusal as refusal:
            draft.answers.append((waiting, refusal))
            return True
        except Exception:
            logger.exception("admission of %s failed", type(command).__name__)
            draft.answers.append((waiting, Internal("the leader failed on this request; see its log")))
            return True
        draft.answers.append((waiting, result))
        draft.size += size
        if changes:
            draft.world = draft.world.evolve(changes, at=now)
            draft.changes.extend(changes)
        if command.request_id:
            draft.requests.append(Request(command.request_id, result.id, now))
        return True


def _size(change: Change) -> int:
    return len(codec.encode(change))


def fitting(changes: Sequence[Change], room: int, *, least: int) -> list[Change]:
    """The first of the planned changes: as many as fit, and `least` in any case."""
    kept: list[Change] = []
    for change in changes[:PLANNED]:
        room -= _size(change)
        if room < 0 and len(kept) >= least:
            break
        kept.append(change)
    return kept


def coalesce(changes: list[Change]) -> tuple[Change, ...]:
    """One change per object: the last one, at its first place; causes are joined."""
    merged: dict[tuple[str, str], Change] = {}
    for change in changes:
        key = change.key
        before = merged.get(key)
        if isinstance(change, Put) and before is not None and before.cause != change.cause:
            merged[key] = replace(change, cause=f"{before.cause}; {change.cause}")
        else:
            merged[key] = change
    return tuple(merged.values())


def _answer(draft: _Draft, index: int) -> None:
    for waiting, answer in draft.answers:
        if waiting.answer.done():
            continue
        if isinstance(answer, Refusal):
            waiting.answer.set_exception(answer)
        else:
            waiting.answer.set_result(replace(answer, index=index))


def _refuse(waiting: list[_Waiting], refusal: Refusal) -> None:
    for one in waiting:
        if not one.answer.done():
            one.answer.set_exception(refusal)
