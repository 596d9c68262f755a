"""RaftLog: the replicated log as ports.Log.

What belongs here: what callers see: proposals, reads, membership, status, starting and stopping. What does
not: the turns (engine.py), Raft (core.py), the disk's layout (store.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from swarmpy.adapters.raft.blob import Snapshot
from swarmpy.adapters.raft.config import REGULAR, Membership
from swarmpy.adapters.raft.core import ApplyFailed, Core, Proposal
from swarmpy.adapters.raft.engine import Engine
from swarmpy.adapters.raft.errors import ApplyError, DiskError, MembershipError
from swarmpy.adapters.raft.journal import Journal
from swarmpy.adapters.raft.pinned import FAIL_REASON, Surroundings, driving, raft_node
from swarmpy.adapters.raft.settings import RaftSettings
from swarmpy.adapters.raft.state import CANDIDATE, LEADER
from swarmpy.adapters.raft.store import Store, first_image
from swarmpy.adapters.raft.transport import Transport
from swarmpy.pki.seal import Sealing
from swarmpy.ports import (
    AmbiguousError,
    Clock,
    Disk,
    Entropy,
    Image,
    LogError,
    LogRole,
    LogStatus,
    Machine,
    Member,
    NoQuorumError,
    NotLeaderError,
    Wire,
)

T = TypeVar("T")


class RaftLog:
    """A member of a Raft cluster. See ports.Log.

    A new cluster starts with `bootstrap_members` (the same everywhere; usually just this member); a joining
    member starts without and with an empty disk, and waits as a learner until a leader adds it. After
    that the members come from the disk only, and the argument is ignored. `disk` has to be the log's own
    when it works in threads. `bulk` may be a second Disk on the same folder for slow work (snapshots).
    """

    def __init__(  # noqa: PLR0913 - one for each port and the identity
        self,
        self_id: str,
        address: str,
        disk: Disk,
        wire: Wire,
        clock: Clock,
        entropy: Entropy,
        machine: Machine,
        sealer: Sealing,
        *,
        bootstrap_members: Sequence[Member] | None = None,
        settings: RaftSettings | None = None,
        folder: str = "raft",
        bulk: Disk | None = None,
    ) -> None:
        self.self_id, self.address = self_id, address
        self.failed = asyncio.Event()
        """Set when the log stopped by itself; `failure` says why. It may be started again."""
        self.failure: str | None = None
        self._disks = (disk, bulk or disk)
        self._wire = wire
        self._clock, self._entropy = clock, entropy
        self._machine, self._sealer = machine, sealer
        self._bootstrap = tuple(bootstrap_members or ())
        self._settings = settings or RaftSettings()
        self._folder = folder
        self._engine: Engine | None = None
        self._blank: Image | None = None
        self._changing = asyncio.Lock()
        self._waiters: dict[asyncio.Future[Any], LogError] = {}
        """Who waits for the core, and what they hear if the log ends before it answers."""
        self._ended = asyncio.Event()

    # -------------------------------------------------- life

    async def start(self) -> None:
        """Recover from disk and take part. Raises DiskError or CorruptError with a sentence, which
        `failure` then says too."""
        if self._engine is not None:
            raise RuntimeError("the log is running")
        try:
            await self._start()
        except (OSError, ValueError) as error:
            shown = DiskError.explaining(error) if isinstance(error, OSError) else error
            self.failure = str(shown)
            raise shown from error

    async def _start(self) -> None:
        store = self._new_store()
        found = await self._disks[0].work(store.open)
        image = found.image
        if found.fresh:
            image = first_image(self._bootstrap)
            await self._disks[0].work(lambda: store.create(image))
        await self._load_machine(found.snapshot)
        surroundings = Surroundings(
            self._clock.monotonic, lambda: self._entropy.uniform(0.0, 1.0), Journal(image)
        )
        with driving(surroundings):
            core = Core(self.self_id, surroundings, self._machine, self._settings, found.snapshot)
        self.failed.clear()
        self.failure, self._ended = None, asyncio.Event()
        engine = Engine(core, store, self._disks, self._settings, self._on_failed)
        transport = Transport(self.self_id, self._wire, self._entropy, self._settings, engine)
        self._engine = engine
        engine.start(transport)

    def _new_store(self) -> Store:
        return Store(self._disks[0], self._folder, self._sealer, self.self_id, self._disks[1])

    async def _load_machine(self, snapshot: Snapshot | None) -> None:
        """The machine starts from the snapshot, or as it was before the first start."""
        if self._blank is None:
            self._blank = self._machine.save()()
        image = self._blank if snapshot is None else snapshot.image
        (await self._disks[0].work(lambda: self._machine.load(image)))()

    async def stop(self) -> None:
        """Stop taking part; nothing acknowledged is lost. Stopping twice is fine."""
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.stop()
        self._fail_waiters()

    def _on_failed(self, reason: str) -> None:
        self.failure = reason
        self.failed.set()
        self._fail_waiters()

    def _fail_waiters(self) -> None:
        self._ended.set()
        for future, told in list(self._waiters.items()):
            if not future.done():
                future.set_exception(told)

    async def recover_alone(self) -> None:
        """With the log stopped: keep all that is on disk and make this member the only one.

        For a cluster that lost its majority for good. The ids of all other members are spent: they are
        refused if they come back. Call `start` afterwards.
        """
        if self._engine is not None:
            raise RuntimeError("stop the log before recovering it alone")
        store = self._new_store()
        found = await self._disks[0].work(store.open)
        if found.fresh:
            raise MembershipError(
                "there is nothing to recover: this manager has no log; start a new cluster instead"
            )
        image = found.alone(Member(self.self_id, self.address))
        await self._disks[0].work(lambda: store.create(image))

    # -------------------------------------------------- status

    def status(self) -> LogStatus:
        """The present view."""
        if self._engine is None or self.failure is not None:
            return LogStatus(LogRole.STOPPED, 0, None, 0, 0, ())
        core = self._engine.core
        return LogStatus(
            role=self._role(core),
            term=core.term,
            leader=None if core.leader is None else str(core.leader.id),
            commit_index=core.commit_index,
            applied_index=core.applied_index,
            members=core.membership.members,
            reachable=core.reachable(),
            silence=core.silence(),
        )

    @staticmethod
    def _role(core: Core) -> LogRole:
        if core.removed:
            return LogRole.REMOVED
        if core.raft_state == LEADER:
            return LogRole.LEADER
        if not core.is_voter():
            return LogRole.LEARNER
        return LogRole.CANDIDATE if core.raft_state == CANDIDATE or core.prevotes else LogRole.FOLLOWER

    async def wait_status(self, seen: LogStatus | None) -> LogStatus:
        """Return as soon as role, term, leader or members differ from `seen`."""
        known = seen and (seen.role, seen.term, seen.leader, seen.members)
        while known is not None and self._mark() == known:
            engine = self._engine
            if engine is None or self.failure is not None:
                raise NoQuorumError(self.failure or "the log is stopped")
            await self._or_end(engine.until(lambda: self._mark() != known))
        return self.status()

    def _mark(self) -> tuple[object, ...]:
        """What `wait_status` looks at. It is asked after every turn: as little of `status` as will do."""
        if self._engine is None or self.failure is not None:
            return (LogRole.STOPPED, 0, None, ())
        core = self._engine.core
        return (self._role(core), core.term, core.leader and core.leader.id, core.membership.members)

    # -------------------------------------------------- entries

    async def propose(self, entry: bytes, *, timeout: float = 10.0) -> tuple[int, Any]:
        """Append, replicate, commit, apply; returns (index, what Machine.apply returned).

        Raises ValueError for an entry that is too large, NotLeaderError (definitely not appended),
        AmbiguousError, or ApplyError.
        """
        if len(entry) > self._settings.max_entry:
            raise ValueError(
                f"the change has {len(entry)} bytes, more than the {self._settings.max_entry} that fit "
                "one log entry; make it smaller or split it"
            )
        engine = self._leading()
        future: asyncio.Future[tuple[int, Any]] = asyncio.get_running_loop().create_future()
        self._waiters[future] = AmbiguousError("the log of this manager stopped")
        try:
            async with asyncio.timeout(timeout):
                if engine.backlog() >= self._settings.proposals:
                    await self._or_end(engine.until(lambda: engine.backlog() < self._settings.proposals))
                engine.propose(Proposal(REGULAR + entry, self._settle(future)))
                return await future
        except TimeoutError:
            raise AmbiguousError(
                f"the change was not confirmed by a majority of managers within {timeout:g} s; it may "
                "or may not take effect"
            ) from None
        finally:
            del self._waiters[future]

    def _settle(self, future: asyncio.Future[tuple[int, Any]]) -> Callable[[int, Any, int], None]:
        """A callback for the core that resolves the future."""

        def done(index: int, result: Any, reason: int) -> None:
            if future.done():
                return
            if reason == FAIL_REASON.NOT_LEADER:
                future.set_exception(NotLeaderError(self.status().leader))
            elif reason != FAIL_REASON.SUCCESS:
                future.set_exception(
                    AmbiguousError(
                        "the leadership was lost before the change was confirmed; it may or may not "
                        "take effect"
                    )
                )
            elif isinstance(result, ApplyFailed):
                future.set_exception(ApplyError(f"entry {index} failed: {result.reason}"))
            else:
                future.set_result((index, result))

        return done

    async def read_index(self, *, timeout: float = 5.0) -> int:
        """Prove leadership to a majority; see ports.Log. Raises NotLeaderError or NoQuorumError."""
        engine = self._leading()
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def done(index: int | None) -> None:
            if future.done():
                return
            if index is None:
                future.set_exception(NotLeaderError(self.status().leader))
            else:
                future.set_result(index)

        self._waiters[future] = NoQuorumError("the log of this manager stopped")
        engine.post(lambda: engine.core.read(done))
        try:
            return await self._in_time(future, timeout, "a majority of managers did not confirm this leader")
        finally:
            del self._waiters[future]

    async def wait_applied(self, index: int, *, timeout: float = 5.0) -> None:
        """Return once this member applied `index`. Raises NoQuorumError after `timeout`."""
        engine = self._running()
        core = engine.core
        if core.applied_index < index:
            applied = engine.until(lambda: core.applied_index >= index)
            await self._in_time(self._or_end(applied), timeout, f"entry {index} did not reach this manager")

    # -------------------------------------------------- membership

    async def add_member(self, member: Member, *, timeout: float = 30.0) -> None:
        """Add as learner, promote to voter when caught up. One change at a time.

        When it times out half-way the member stays a learner (harmless to the quorum); calling again
        goes on. Raises MembershipError, NotLeaderError, NoQuorumError or AmbiguousError.
        """
        await self._in_time(
            self._add(member), timeout, f"manager {member.id} did not catch up (still a learner)"
        )

    async def _add(self, member: Member) -> None:
        async with self._changing:
            engine = self._leading()
            core = engine.core
            refusal = core.membership.refusal(member)
            if refusal:
                raise MembershipError(refusal)
            learner = Member(member.id, member.address, voter=False)
            if core.membership.find(member.id) is None:
                await self._change(engine, lambda m: m.with_member(learner))
            if member.voter and member != core.membership.find(member.id):
                await self._or_end(
                    engine.until(lambda: core.raft_state != LEADER or core.caught_up(member.id))
                )
                await self._change(engine, lambda m: m.with_member(member))

    async def remove_member(self, member_id: str, *, timeout: float = 10.0) -> None:
        """Remove. Raises MembershipError for the leader itself and when the rest had no quorum."""
        await self._in_time(
            self._remove(member_id), timeout, "a majority of managers did not confirm the removal"
        )

    async def _remove(self, member_id: str) -> None:
        async with self._changing:
            engine = self._leading()
            core = engine.core
            if member_id == self.self_id:
                raise MembershipError(
                    "the leader cannot remove itself; hand leadership to another manager first"
                )
            if core.membership.find(member_id) is None:
                raise MembershipError(f"{member_id} is not a manager of this cluster")
            rest = core.membership.without([member_id]).voters()
            up = core.reachable().intersection(rest)
            if len(up) * 2 <= len(rest):
                raise MembershipError(
                    f"removing {member_id} would leave {len(up)} reachable of {len(rest)} managers, "
                    "which is no majority; bring another manager back first"
                )
            await self._change(engine, lambda m: m.without([member_id]))

    async def _change(self, engine: Engine, build: Callable[[Membership], Membership]) -> None:
        future: asyncio.Future[tuple[int, Any]] = asyncio.get_running_loop().create_future()
        engine.change((build, self._settle(future)))
        await self._or_end(future)

    async def transfer(self, member_id: str | None = None, *, timeout: float = 5.0) -> None:
        """Hand leadership over; proposals wait meanwhile. Raises MembershipError or NoQuorumError."""
        engine = self._leading()
        core = engine.core
        target = member_id or core.best_successor()
        if target is None or raft_node(target) not in core.voters:
            raise MembershipError(
                f"{target or 'no other manager'} cannot take over: a reachable voting manager is needed"
            )
        try:
            core.transfer_to = target
            await self._in_time(
                self._or_end(engine.until(lambda: core.leader not in {None, core.me})),
                timeout,
                f"manager {target} did not take over",
            )
        finally:
            core.transfer_to = None

    # -------------------------------------------------- inside

    def _running(self) -> Engine:
        if self._engine is None or self.failure is not None:
            raise NotLeaderError(None)
        return self._engine

    def _leading(self) -> Engine:
        engine = self._running()
        if engine.core.raft_state != LEADER:
            raise NotLeaderError(self.status().leader)
        return engine

    async def _in_time(self, work: Awaitable[T], timeout: float, what: str) -> T:
        try:
            async with asyncio.timeout(timeout):
                return await work
        except TimeoutError:
            raise NoQuorumError(f"{what} within {timeout:g} s") from None

    async def _or_end(self, work: Awaitable[T]) -> T:
        """Wait for the work, or for the log to end."""
        task = asyncio.ensure_future(work)
        ended = asyncio.ensure_future(self._ended.wait())
        try:
            await asyncio.wait({task, ended}, return_when=asyncio.FIRST_COMPLETED)
            if task.done() and not task.cancelled():  # stopping the log cancels what waits for it
                return task.result()
            raise NoQuorumError(self.failure or "the log of this manager stopped")
        finally:
            ended.cancel()
            task.cancel()
