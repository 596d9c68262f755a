"""The dispatcher: the leader's end of every agent's session.

It registers sessions, sends each node the difference between what it should run and what it was told,
takes in reports and beats, and turns silence and broken connections into observations of the node. It keeps
nothing that matters: after a change of leader every agent comes back and is told everything again.
What does not belong here: deciding what a node runs (plan/), what happens to a silent node (plan/liveness).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

from msgspec.structs import replace

from swarmpy.manager.claims import usable_address
from swarmpy.manager.heap import Heap
from swarmpy.manager.leaving import Leaving
from swarmpy.manager.sessions import Session, differs
from swarmpy.manager.tables import Tables, Told
from swarmpy.manager.turns import Turns
from swarmpy.model import messages as m
from swarmpy.model.commands import AnyCommand, ObserveNode, ReportTasks, Result
from swarmpy.model.errors import Refusal
from swarmpy.model.ids import node_of
from swarmpy.model.lifecycle import NodeState, TaskState
from swarmpy.model.objects import Guest, Node, Task
from swarmpy.pki.probes import probe_key
from swarmpy.plan.admission.tasks import portions
from swarmpy.ports import Body, Channel, Clock, LogStatus, RefusedError, WireError
from swarmpy.state.snapshot import Snapshot
from swarmpy.state.table import differing

logger = logging.getLogger(__name__)

BEATS_PER_PERIOD = 5
"""An agent beats this often per heartbeat period (5 s by default: once a second)."""
SUSPECT_SHARE = 0.4
"""Share of the heartbeat period after which a silent node is suspect (2 s by default)."""

TOLD = 100
"""Nodes that are told something in one turn of the event loop, at most."""

Submit = Callable[[AnyCommand], Awaitable[Result]]


class Dispatcher:
    """Runs while this manager leads."""

    def __init__(
        self, submit: Submit, world: Callable[[], Snapshot], clock: Clock, managers: Callable[[], LogStatus]
    ) -> None:
        self._submit, self._world, self._clock, self._managers = submit, world, clock, managers
        self._sessions: dict[str, Session] = {}
        self._tables = Tables()
        self._leaving = Leaving(clock, self._answering, self._lost)
        self._turns, self._heap = Turns(TOLD), Heap()
        self._known_managers: tuple[object, tuple[m.Manager, ...]] | None = None

    @property
    def sessions(self) -> dict[str, Session]:
        """Live sessions by node id."""
        return self._sessions

    # ------------------------------------------------------------ leadership

    async def run(self) -> None:
        """Watch over the nodes until cancelled; all sessions end with it."""
        try:
            while True:
                await self._find_silent()
                self._heap.settle(len(self._sessions))
                await asyncio.sleep(self._period() / BEATS_PER_PERIOD / 2)
        finally:
            self._heap.release()
            sessions, self._sessions = list(self._sessions.values()), {}
            # All at once: each of them may be to a machine that answers nothing any more.
            async with asyncio.TaskGroup() as group:
                for one in sessions:
                    group.create_task(_close(one.channel))

    def moved(self, before: Snapshot, after: Snapshot) -> None:
        """The world changed: wake the sessions that it concerns."""
        if before.cluster is not after.cluster or before.networks is not after.networks:
            everyone = True
        elif before.nodes is not after.nodes:
            everyone = self._seated(before) != self._seated(after)
        else:
            everyone = False
        if everyone:
            for session in self._sessions.values():
                session.dirty.set()
        else:
            self._wake(before, after)
        self._tables.forget(after)
        self._leaving.follow(before, after)

    def _wake(self, before: Snapshot, after: Snapshot) -> None:
        """Wake the sessions whose node, or a task or guest on it, is another one now, and those with networks
        in whose tables that shows. What is said of a task tells of its service, too."""
        changed: list[Task | Guest | None] = []
        for key in differing(before.tasks, after.tasks):
            changed += (before.tasks.get(key), after.tasks.get(key))
        for key in differing(before.guests, after.guests):
            changed += (before.guests.get(key), after.guests.get(key))
        held = [one for one in changed if one is not None]
        nodes = {one.node_id for one in held} | differing(before.nodes, after.nodes)
        for service_id in differing(before.services, after.services):
            nodes.update(task.node_id for task in (after.bucket(service_id) or {}).values())
        for node_id in sorted(nodes & self._sessions.keys()):  # in the same order in every run
            self._sessions[node_id].dirty.set()
        every = before.nodes is not after.nodes or before.services is not after.services
        networks = {place.network_id for one in held for place in one.networks}
        for session in self._sessions.values() if every or networks else ():
            if session.networks.tables and (every or not networks.isdisjoint(session.networks.tables)):
                session.dirty.set()

    def _seated(self, world: Snapshot) -> tuple[m.Manager, ...]:
        """The managers of a world; looked for once as long as no node changes."""
        if self._known_managers is None or self._known_managers[0] is not world.nodes:
            self._known_managers = (world.nodes, managers_of(world))
        return self._known_managers[1]

    def _answering(self) -> Iterable[tuple[str, Told]]:
        return [(key, one.networks) for key, one in self._sessions.items() if not one.suspect]

    def _lost(self) -> Iterable[str]:
        heard = {key for key, _ in self._answering()}
        return [one.id for one in self._world().nodes if one.id not in heard]

    async def _find_silent(self) -> None:
        allowed = SUSPECT_SHARE * self._period()
        for session in list(self._sessions.values()):
            silent = self._clock.monotonic() - session.heard
            if silent > allowed:
                if not session.suspect:
                    session.suspect = True
                    await self._observe(session.node_id, NodeState.DISCONNECTED, "heartbeat failure", silent)
            elif session.welcomed and not session.suspect:
                await self._repair(session)
        # A leader that begins waits for all nodes, but it knows since when a manager is silent: the one that
        # led before it, above all.
        unheard = {node_of(seat): silent for seat, silent in self._managers().silence.items()}
        for known in self._world().nodes:
            node = self._world().nodes.get(known.id)  # as it is by now: the one before took a commit
            held = self._sessions.get(known.id)
            if node is None or (held is not None and not held.suspect):
                continue
            if node.status.state is NodeState.READY:
                await self._observe(node.id, NodeState.DISCONNECTED, "heartbeat failure")
            elif node.status.state is NodeState.UNKNOWN and (silent := unheard.get(node.id, 0.0)) > allowed:
                await self._observe(node.id, NodeState.DISCONNECTED, "heartbeat failure", silent)

    async def _repair(self, session: Session) -> None:
        """A node that is heard is ready: an observation that could not be recorded is made again."""
        node = self._world().nodes.get(session.node_id)
        if node is not None and node.status.state is not NodeState.READY:
            await self._observe(session.node_id, NodeState.READY, "")

    def _period(self) -> float:
        cluster = self._world().cluster
        return cluster.view.heartbeat_seconds if cluster else 5.0

    async def _observe(self, node_id: str, state: NodeState, message: str, silent: float = 0.0) -> None:
        """Record what was seen of a node; `silent`: for how many seconds it was so already."""
        seen = ObserveNode(node=node_id, state=state, message=message, silent_ns=int(silent * 1e9))
        try:
            await self._submit(seen)
        except Refusal as refusal:
            logger.info("node %s could not be recorded as %s: %s", node_id, state.word, refusal)

    # ------------------------------------------------------------ one session

    async def serve(self, channel: Channel, body: Body) -> None:
        """Serve an agent's session until it ends. Raises RefusedError where the agent has no place here."""
        try:
            hello = m.hello_from(body)
        except ValueError as error:
            raise RefusedError("InvalidArgument", f"the session's hello is malformed: {error}") from None
        if hello.node_id != channel.peer.node_id:
            raise RefusedError("PermissionDenied", "a node may only open a session for itself")
        if self._world().cluster is None:
            raise RefusedError("Unavailable", "the cluster is still being initialised; try again")
        if hello.node_id not in self._world().nodes:
            raise RefusedError("NotFound", f"node {hello.node_id} is not a member of this cluster")
        now = self._clock.monotonic()
        session = Session(hello.node_id, channel, now, networks=Told(since=now))
        before = self._sessions.get(hello.node_id)
        self._sessions[hello.node_id] = session
        if before is not None:
            await before.channel.close()
        try:
            await self._converse(session, hello)
        except (WireError, ValueError, Refusal) as error:
            logger.info("session of node %s ended: %s", hello.node_id, error)
        finally:
            if self._sessions.get(hello.node_id) is session:
                del self._sessions[hello.node_id]
                await self._observe(hello.node_id, NodeState.DISCONNECTED, "its connection broke")

    async def _converse(self, session: Session, hello: m.Hello) -> None:
        # What a node says of itself ends up in every node's kernel: an address, or what the connection shows.
        address = usable_address(hello.address) or session.channel.peer.address
        await self._submit(
            ObserveNode(
                node=session.node_id,
                state=NodeState.READY,
                message="",
                address=address,
                description=hello.description,
            )
        )
        session.welcomed = True
        session.dirty.set()
        async with asyncio.TaskGroup() as group:
            teller = group.create_task(self._tell(session))
            try:
                while True:
                    await self._hear(session, m.up_from(await session.channel.recv()))
            except (WireError, ValueError, Refusal) as error:
                logger.info("session of node %s: %s", session.node_id, error)
            finally:
                teller.cancel()

    async def _hear(self, session: Session, message: m.Up) -> None:
        session.heard = self._clock.monotonic()
        if session.suspect:
            session.suspect = False
            await self._observe(session.node_id, NodeState.READY, "")
        match message:
            case m.Beat():
                _tell_of_lost(session, message.lost)
                await session.send(m.Acknowledged(number=0))  # so that the agent notices a silent leader
            case m.Applied():
                session.networks.applied(message.seq)
                if self._leaving:
                    for one in self._sessions.values():
                        one.dirty.set()
            case m.Statuses():
                for part in portions(self._world(), message.items):
                    await self._submit(ReportTasks(node=session.node_id, statuses=part))
                await session.send(m.Acknowledged(number=message.number))
            case m.Describe():
                await self._submit(
                    ObserveNode(node=session.node_id, state=NodeState.READY, description=message.description)
                )

    async def _tell(self, session: Session) -> None:
        """Send what the node should know, and every difference from then on."""
        with suppress(WireError):
            await session.send(self._welcome(session))
            first = True
            pause: float | None = None
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await session.dirty.wait()
                await self._turns.wait()
                session.dirty.clear()
                if not await self._send_cluster(session):
                    return
                await self._send_networks(session, full=first)
                pause = await self._send_tasks(session, full=first)
                first = False

    def _welcome(self, session: Session) -> m.Welcome:
        world = self._world()
        node = world.nodes.get(session.node_id)
        session.cluster = self._cluster_message(world, node) if node else None
        return m.Welcome(
            beat_seconds=self._period() / BEATS_PER_PERIOD,
            node_role=node.role.word if node else "worker",
            managers=self._seated(world),
            root_cert=world.cluster.root_cert if world.cluster else "",
            probe_key=probe_key(world.cluster.root_key) if world.cluster else b"",
        )

    def _cluster_message(self, world: Snapshot, node: Node) -> m.Cluster:
        return m.Cluster(node_role=node.role.word, managers=self._seated(world))

    async def _send_cluster(self, session: Session) -> bool:
        """Tell of managers and roles where they changed; False when the node is no member any more."""
        world = self._world()
        node = world.nodes.get(session.node_id)
        if node is None:
            await session.send(m.Goodbye(reason="the node was removed from the cluster", removed=True))
            await session.channel.close()
            return False
        fresh = self._cluster_message(world, node)
        if fresh != session.cluster:
            session.cluster = fresh
            await session.send(fresh)
        return True

    async def _send_networks(self, session: Session, *, full: bool) -> None:
        """Tables go before the tasks that need them."""
        seq = session.seq + 1
        message = session.networks.news(self._tables, self._world(), session.node_id, seq, full=full)
        if message is not None:
            session.seq = seq
            await session.send(message)

    async def _send_tasks(self, session: Session, *, full: bool) -> float | None:
        """Send what differs. Returns after how many seconds to look again: a task that leaves traffic is
        told to stop only then."""
        world = self._world()
        wanted, told = session.wanted(world), session.told
        waits: list[float] = []
        for key in sorted(wanted):
            task = session.made[key][0]
            if task.desired <= TaskState.RUNNING and not self._leaving:
                continue  # as almost all are: nobody is on the way out of traffic
            # What an earlier leader said is not known: whoever runs is taken to be in traffic.
            known = told.get(key) or (replace(wanted[key], desired=TaskState.RUNNING) if full else None)
            seconds = self._leaving.wait(world, task, known.desired if known else None)
            if seconds > 0 and known is not None:
                wanted[key] = known
                waits.append(seconds)
        changed = tuple(wanted[key] for key in sorted(wanted) if differs(wanted[key], told.get(key)))
        removed = tuple(sorted(key for key in told if key not in wanted))
        session.told = wanted
        if full or changed or removed:
            session.seq += 1
            await session.send(m.Assignments(seq=session.seq, full=full, tasks=changed, removed=removed))
        return min(waits, default=None)


async def _close(channel: Channel) -> None:
    with suppress(WireError):
        await channel.close()


def _tell_of_lost(session: Session, lost: tuple[str, ...]) -> None:
    """For whoever reads the log: a partition between two nodes is seen by nobody else."""
    if lost != session.lost:
        session.lost = lost
        logger.info("node %s does not hear: %s", session.node_id, ", ".join(lost) or "nobody any more")


def managers_of(world: Snapshot) -> tuple[m.Manager, ...]:
    """The managers that hold a seat, by node id."""
    return tuple(m.Manager(node.id, node.manager_address) for node in world.nodes if node.manager_address)
