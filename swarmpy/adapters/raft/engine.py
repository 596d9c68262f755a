"""The engine: turns of the core with the disk as a barrier between what it decides and what it says.

What belongs here: the loop, the barrier, snapshots in the background, and waiting for conditions. What does
not: Raft (core.py) and what callers mean (node.py).

A turn: what arrived goes into the core, the core ticks once, what it wrote goes to disk in one append and
one sync, and only then its messages and callbacks go out, in order. While the disk works, nothing enters
the core. An I/O error, a corrupt file or a broken invariant ends the engine before anything more goes out.
One thing does not wait for the disk: a leader's entries travel to the others while it writes them itself
(Ongaro 2014, 10.2.1). They promise nothing of its own disk, and no answer to them is heard before it is done.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from swarmpy.adapters.raft.blob import Snapshot, checksum
from swarmpy.adapters.raft.config import Membership
from swarmpy.adapters.raft.core import Core, Proposal
from swarmpy.adapters.raft.errors import DiskError
from swarmpy.adapters.raft.frames import CorruptError
from swarmpy.adapters.raft.installing import Arrived
from swarmpy.adapters.raft.journal import Batch
from swarmpy.adapters.raft.pinned import FAIL_REASON, driving
from swarmpy.adapters.raft.settings import RaftSettings
from swarmpy.adapters.raft.state import LEADER, Drop, Outgoing, Send
from swarmpy.adapters.raft.store import Store
from swarmpy.adapters.raft.transport import Transport
from swarmpy.ports import Disk, Image

logger = logging.getLogger(__name__)

Event = Callable[[], None]
"""Something for the core to do at the beginning of the next turn."""

Change = tuple[Callable[[Membership], Membership], Callable[[int, Any, int], None]]


class Engine:
    """One running member. Ends by `stop`, or by itself with `failed` called with the reason."""

    def __init__(
        self,
        core: Core,
        store: Store,
        disks: tuple[Disk, Disk],
        settings: RaftSettings,
        on_failed: Callable[[str], None],
    ) -> None:
        self.core = core
        self.transport: Transport
        self._store = store
        self._disk, self._bulk = disks
        self._settings = settings
        self._on_failed = on_failed
        self._events: deque[Event] = deque()
        self._changes: deque[Change] = deque()
        self._watchers: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        self._wake = asyncio.Event()
        self._alarm: asyncio.TimerHandle | None = None
        self._room = asyncio.Event()
        self._background: set[asyncio.Task[None]] = set()
        self._snapshotting = False
        self._snapshot_pause = 0.0
        self._size_at_snapshot = core.log.size
        self._dialled: tuple[int, Membership] | None = None
        self._stopping = False
        self._loop_task: asyncio.Task[None] | None = None
        spread = core.surroundings.chance() / 5
        self._snapshot_entries = int(settings.snapshot_entries * (1 + spread))

    def start(self, transport: Transport) -> None:
        """Begin."""
        self.transport = transport
        transport.start()
        self._after_turn()
        self._loop_task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Finish the turn, close the connections, fail who waits."""
        self._stopping = True
        self._wake.set()
        self._silence()
        tasks = list(self._background)
        if self._loop_task is not None and self._loop_task is not asyncio.current_task():
            await asyncio.wait({self._loop_task}, timeout=5.0)
            tasks.append(self._loop_task)
        await self.transport.stop()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for _, future in self._watchers:
            future.cancel()
        self._watchers.clear()
        # What a worker thread has begun goes on when its caller is cancelled: a snapshot of this life must
        # not appear on the disk of the next one, or in a folder that was wiped.
        await self._bulk.work(lambda: None)

    # -------------------------------------------------- what comes in

    def post(self, event: Event) -> None:
        """Let the core do this in the next turn."""
        self._events.append(event)
        self._wake.set()

    def propose(self, proposal: Proposal) -> None:
        """Append in one of the next turns, when this member leads."""
        self.core.proposals.append(proposal)
        self._wake.set()

    def change(self, change: Change) -> None:
        """Change the membership as soon as the change before is committed."""
        self._changes.append(change)
        self._wake.set()

    def backlog(self) -> int:
        """Proposals that wait to be appended."""
        return len(self.core.proposals)

    async def message(self, peer: str, body: dict[str, Any]) -> None:
        """From the transport: waits while too much waits for a turn."""
        while len(self._events) >= self._settings.inbox and not self._stopping:
            self._room.clear()
            await self._room.wait()
        self.post(partial(self.core.receive, peer, body))

    def up(self, peer: str) -> None:
        """From the transport."""
        self.post(partial(self.core.connection_up, peer))

    def down(self, peer: str) -> None:
        """From the transport."""
        self.post(partial(self.core.connection_down, peer))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds after some turn. Cancelled when the engine ends."""
        if condition():
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (condition, future)
        self._watchers.append(entry)
        try:
            await future
        finally:
            if entry in self._watchers:
                self._watchers.remove(entry)

    # -------------------------------------------------- the loop

    async def _run(self) -> None:
        try:
            while not self._stopping:
                await self._sleep()
                await self._turn()
        except Exception as error:
            self._fail(error)
            await self.transport.stop()

    def _fail(self, error: Exception) -> None:
        """Say why and stop. A disk's refusal and damage are the world's fault, anything else is ours."""
        if self._stopping:
            return
        self._stopping = True
        if isinstance(error, OSError):
            why = str(DiskError.explaining(error))
        elif isinstance(error, CorruptError):
            why = f"the log stopped: {error}"
        else:
            logger.error("the log stops", exc_info=error)
            why = f"the log stopped: {str(error) or type(error).__name__}"
        self._on_failed(why)

    async def _sleep(self) -> None:
        """Until an event, the core's next deadline, or the slow timer."""
        if not self._wake.is_set():
            left = self.core.next_deadline() - self.core.now
            self._ring_within(min(max(left, 0.0005), self._settings.tick))
            await self._wake.wait()
        self._wake.clear()

    def _ring_within(self, delay: float) -> None:
        """Wake the loop in so many seconds at the latest. An alarm that rings too early costs a turn now and
        then; one of its own for each turn would cost more."""
        loop = asyncio.get_running_loop()
        at = loop.time() + delay
        if self._alarm is None or self._alarm.when() > at:
            self._silence()
            self._alarm = loop.call_at(at, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self._wake.set()

    def _silence(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    async def _turn(self) -> None:
        core = self.core
        led_before = core.term if core.raft_state == LEADER else None
        durable = core.last_index
        with driving(core.surroundings):
            while self._events:
                self._events.popleft()()
            self._begin_changes()
            core.tick()
            core.ask_for_reads()
            batch = core.log.take()
            outgoing, core.outbox = core.outbox, []
        self._room.set()
        if batch is not None:
            leads = core.raft_state == LEADER and core.term == led_before
            if leads:
                ahead = [item for item in outgoing if _may_go_ahead(item, durable)]
                outgoing = [item for item in outgoing if not _may_go_ahead(item, durable)]
                self._deliver(ahead)
            await self._barrier(batch, leads=leads)
            if core.raft_state == LEADER and not core.voters:
                self._wake.set()  # durable here is committed, and no answer of another will say so
        self._deliver(outgoing)
        self._after_turn()
        if core.unapplied():
            self._wake.set()
            await asyncio.sleep(0)  # everything else that runs here gets its turn before the next part

    async def _barrier(self, batch: Batch, *, leads: bool) -> None:
        """Wait until the batch is durable. A leader (whose term is durable) keeps its heart beating."""
        write = asyncio.ensure_future(self._disk.work(partial(self._store.write, batch)))
        while not write.done():
            await asyncio.wait({write}, timeout=self._settings.heartbeat)
            if not write.done() and leads:
                with driving(self.core.surroundings):
                    self._deliver(self.core.pulse())
        write.result()

    def _deliver(self, outgoing: list[Outgoing] | list[Send]) -> None:
        for item in outgoing:
            if isinstance(item, Send):
                self.transport.send(item.to, item.body)
            elif isinstance(item, Drop):
                self.transport.drop(item.to)
            else:
                item()

    def _begin_changes(self) -> None:
        core = self.core
        while self._changes and (core.raft_state != LEADER or core.may_change()):
            build, done = self._changes.popleft()
            if core.raft_state != LEADER or not core.change_membership(build(core.membership), done):
                core.outbox.append(partial(done, 0, None, FAIL_REASON.NOT_LEADER))

    def _after_turn(self) -> None:
        core = self.core
        current = (core.membership_index, core.membership)
        if self._dialled != current or core.removed:
            self._dialled = current
            others = [m for m in core.membership.members if m.id != core.me.id]
            members = {} if core.removed else {m.id: m.address for m in others}
            self.transport.set_members(members)
        if core.proposals and core.transfer_to is None:
            self._wake.set()  # more was waiting than fits one turn
        self._snapshot_if_due()
        if core.blob_wanted:
            core.blob_wanted = False
            self._spawn(self._read_blob())
        while core.arrived:
            self._spawn(self._install(core.arrived.pop()))
        ready = [(c, f) for c, f in self._watchers if f.done() or c()]
        for condition, future in ready:
            self._watchers.remove((condition, future))
            if not future.done():
                future.set_result(None)

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    # -------------------------------------------------- snapshots

    def _snapshot_if_due(self) -> None:
        core = self.core
        entries = core.applied_index - core.log.snapshot_index
        grown = core.log.size - self._size_at_snapshot
        due = entries >= self._snapshot_entries or (entries > 0 and grown > self._settings.snapshot_bytes)
        if due and not self._snapshotting and core.now >= self._snapshot_pause:
            self._snapshotting = True
            index = core.applied_index
            term = core.log.term_at(index)
            assert term is not None
            encode = core.machine.save()
            self._spawn(self._snapshot(index, term, core.membership_at(index), encode))

    async def _snapshot(
        self, index: int, term: int, membership: Membership, encode: Callable[[], Image]
    ) -> None:
        def job() -> None:
            blob = Snapshot(index, term, membership, encode()).to_blob()
            self._store.save_snapshot(index, blob)

        try:
            await self._bulk.work(job)
        except OSError as error:
            logger.warning("the snapshot at %d was not stored, will try again: %s", index, error)
            self._snapshot_pause = self.core.now + self._settings.snapshot_retry
        except Exception as error:
            self.post(partial(_raise, error))
        else:
            self.post(partial(self._snapshot_stored, index))
        finally:
            self._snapshotting = False

    def _snapshot_stored(self, index: int) -> None:
        core, settings = self.core, self._settings
        if index > core.log.snapshot_index:
            keep, keep_bytes = settings.keep_entries, settings.keep_bytes
            oldest = core.oldest_transfer()
            if oldest is not None and core.raft_state == LEADER:
                # A member that is being sent an older snapshot needs what follows it; if that were trimmed,
                # it would only ever be sent one snapshot after the other.
                keep = max(keep, index - oldest)
                keep_bytes = max(keep_bytes, settings.snapshot_bytes)
            core.log.snapshot_stored(index, keep, keep_bytes)
            core.forget_memberships(index)
            core.blob = None
        self._size_at_snapshot = core.log.size

    async def _read_blob(self) -> None:
        """Read the newest snapshot for a member that needs it."""

        def job() -> tuple[int, Image, int] | None:
            found = self._store.read_blob()
            return None if found is None else (*found, checksum(found[1]))

        try:
            found = await self._bulk.work(job)
        except Exception as error:
            self.post(partial(_raise, error))
            return
        if found is not None:
            self.post(partial(self.core.give_blob, *found))

    async def _install(self, arrived: Arrived) -> None:
        """Make a received snapshot ready: decoded and durable before the core takes it over."""

        def job() -> tuple[Snapshot, Callable[[], None]]:
            snapshot = arrived.opened()
            take = self.core.machine.load(snapshot.image)
            self._store.save_snapshot(snapshot.index, arrived.blob)
            return snapshot, take

        try:
            found = await self._bulk.work(job)
        except ValueError as error:
            self.post(partial(self.core.refuse_install, arrived, str(error)))
        except Exception as error:
            self.post(partial(_raise, error))
        else:
            self.post(partial(self.core.install, arrived, *found))


def _may_go_ahead(item: Outgoing, durable: int) -> bool:
    """Whether a leader may say this before its disk has what this turn wrote: entries and heartbeats, unless
    they tell of a commit that rests on it. The term is that of the turn before, so it is durable."""
    return (
        isinstance(item, Send)
        and item.body["type"] == "append_entries"
        and item.body["commit_index"] <= durable
    )


def _raise(error: Exception) -> None:
    """What failed beside the turns ends the engine as what fails in them does: nothing more goes out."""
    raise error
