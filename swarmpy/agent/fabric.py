"""The agent's network: keeps links, balancers, routing mesh and names as the tables say, for ever.

It compares (plan/fabric), carries out, and looks again: at once when something changed, and every second so
that what others broke is mended. What does not belong here: decisions (plan/), the Engine's questions
(plumber.py), the kernel (adapters).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress

from swarmpy.agent import journal
from swarmpy.agent.drift import Drift
from swarmpy.agent.fence import Fence, cleared
from swarmpy.agent.joining import PATIENCE, Joining, Sandbox, unfinished
from swarmpy.agent.rules import Rules
from swarmpy.model.fabric import Table, patched
from swarmpy.model.links import Answer, LinkSeen, Question, SandboxTable
from swarmpy.model.messages import Networks
from swarmpy.plan import fabric as p
from swarmpy.plan import guarding, share, wires
from swarmpy.plan.carried import finished, forwarded
from swarmpy.plan.container import Wire
from swarmpy.plan.names import Resolver, upstreams
from swarmpy.plan.node import LocalTask
from swarmpy.plan.probing import reachable
from swarmpy.ports import Disk, FabricError, FabricPorts

logger = logging.getLogger(__name__)

VERIFY = 0.5
"""Seconds between looks at the guard of the ports: someone else may have changed it."""
VERIFY_ROUND = 2
"""Looks at the guard between two looks at the balancers and the encryption."""
LOOK_ROUND = 10
"""Looks at the guard between two looks at links and forwarding."""
RETRY = 0.5
"""Seconds before what the kernel refused is tried again."""


class FabricWorker:
    """`sandboxes` tells of running containers by task id, None while that is not known; `wired` is called
    when what they wait for is done; `applied` with the sequence number up to which all is carried out.
    `complete`: the leader told of all networks, `told`: of all tasks; `guests_upstreams`: guests' servers."""

    def __init__(
        self,
        node_id: str,
        address: str,
        ports: FabricPorts,
        disk: Disk,
        sandboxes: Callable[[], Mapping[str, Sandbox] | None],
        tasks: Callable[[], Mapping[str, LocalTask]],
        wired: Callable[[], None],
        applied: Callable[[int], None],
    ) -> None:
        self._node_id, self._address, self.ports, self._disk = node_id, address, ports, disk
        self._sandboxes, self._tasks, self._wired, self._applied = sandboxes, tasks, wired, applied
        self.tables: dict[str, Table] = {}
        self.complete, self._seq, self._session = False, 0, 0
        self._links: dict[str, LinkSeen] | None = None
        self.drift = Drift()
        self._rules, self._fence = Rules(ports, self.drift), Fence(ports)
        self._joining, self._early = Joining(), set[asyncio.Task[None]]()
        self._done_with = frozenset[str]()
        self._wake = asyncio.Event()
        self._resolver: Resolver | None = None
        self._unsaved, self._fresh, self.listening = False, True, frozenset[int]()
        self.problems: dict[str, str] = {}
        self.probe_key, self._lost = b"", frozenset[str]()
        self._seen: dict[str, Table] | None = None
        self._saved_guests: dict[str, tuple[str, ...]] = {}
        self._waiting: list[asyncio.Future[None]] = []
        self._locks: dict[str, asyncio.Lock] = {}
        self.guests_upstreams: Callable[[], dict[str, tuple[str, ...]]] = dict
        self.on_links: Callable[[Mapping[str, LinkSeen], float], None] = lambda _links, _began: None
        self.told: Callable[[], bool] = lambda: True
        ports.names.begin(self.resolve)

    # ------------------------------------------------------------ what is wanted

    def remember(self, kept: journal.KeptNetworks) -> None:
        """Begin with what was known before the restart."""
        self.tables, self.probe_key = dict(kept.tables), kept.probe_key
        self.changed()

    def take(self, message: Networks) -> None:
        """Take over changes of tables."""
        if message.full:
            self.tables = {}
            self.complete = True
        for delta in message.deltas:
            self.tables[delta.head.id] = patched(self.tables.get(delta.head.id), delta)
        for network_id in message.removed:
            self.tables.pop(network_id, None)
        self._seq = message.seq
        self._unsaved = True
        self.changed()

    def begin_session(self, probe_key: bytes) -> None:
        """Sequence numbers begin anew."""
        self._seq = 0
        self._session += 1
        self._unsaved |= self.probe_key != probe_key
        self.probe_key = probe_key

    def without(self, lost: frozenset[str]) -> None:
        """Tasks on the nodes with these addresses get no traffic from here."""
        self._lost = lost
        self.changed()

    @property
    def seen(self) -> dict[str, Table]:
        """The tables as this node uses them: without the nodes that do not answer it."""
        if self._seen is None:
            self._seen = {key: reachable(table, self._lost) for key, table in self.tables.items()}
        return self._seen

    def abandon(self) -> None:
        """Nothing is wanted any more."""
        self.tables, self.complete = {}, True
        self.changed()

    def changed(self) -> None:
        """What answers depend on, or containers, changed."""
        self._resolver = self._seen = None
        self._fresh = True
        self.ports.names.changed()
        self.look()

    def look(self) -> None:
        """Compare again, soon."""
        self._wake.set()

    def wires(self) -> Mapping[str, Wire]:
        """What containers' creation needs to know of the networks."""
        return wires.wires_of(self.tables, self._node_id)

    def is_wired(self, task_id: str) -> bool:
        """Whether the task's container has everything that it needs of us."""
        sandbox = (self._sandboxes() or {}).get(task_id)
        return sandbox is not None and sandbox.path in self._done_with

    # ------------------------------------------------------------ names

    def resolve(self, question: Question) -> Answer:
        """The answer to a question of one of the node's containers."""
        if self._resolver is None:
            self._resolver = Resolver(self.seen, self._upstreams())
        return self._resolver.answer(question)

    def _upstreams(self) -> dict[str, tuple[str, ...]]:
        return upstreams(one.assigned for one in self._tasks().values()) | self.guests_upstreams()

    # ------------------------------------------------------------ the loop

    async def run(self) -> None:
        """Work until cancelled; what is programmed stays."""
        try:
            await self._run()
        finally:
            for task in self._early:
                task.cancel()
            if self._early:  # gathering nothing makes a loop where none runs any more
                await asyncio.gather(*self._early, return_exceptions=True)

    async def _run(self) -> None:
        rounds, clock = 0, asyncio.get_running_loop().time
        due = clock() + VERIFY
        while True:
            self._wake.clear()
            seq, session = self._seq, self._session
            waiting, self._waiting = self._waiting, []
            if waiting or self._links is None or rounds >= LOOK_ROUND:
                await self._observe()
                rounds = 0
            if waiting:
                await self._verify(whole=True)
            clean = await self._turn()
            for one in waiting:
                if not one.done():
                    one.set_result(None)
            if clean and seq and session == self._session:
                self._applied(seq)
            await self._save()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(due if clean else min(due, clock() + RETRY)):
                    await self._wake.wait()
            if clock() >= due:  # however often it is woken
                due = clock() + VERIFY
                rounds += 1
                await self._fence.verify_guard()
                if rounds % VERIFY_ROUND == 0:
                    await self._verify(whole=False)

    async def looked(self) -> None:
        """Look at everything at once and mend it; returns when that is done, or could not be."""
        self._waiting.append(done := asyncio.get_running_loop().create_future())
        self.look()
        await done

    async def _observe(self) -> None:
        began = asyncio.get_running_loop().time()
        try:
            self._links = dict(await self.ports.overlay.observe())
            self.problems.pop("links", None)
            self.on_links(self._links, began)
        except FabricError as error:
            self._complain("links", error)

    async def _verify(self, *, whole: bool) -> None:
        """What was changed behind our back is programmed again. News cannot wait for all of it."""
        running = {one.path for one in (self._sandboxes() or {}).values()}
        if await self._rules.verify(running, lambda: self._wake.is_set() and not whole):
            await self._fence.verify_cipher()

    def world(self) -> p.World:
        """All that is known at the moment."""
        now = asyncio.get_running_loop().time()
        known, rules = self._sandboxes(), self._rules
        sandboxes = {key: one.path for key, one in (known or {}).items()}
        endpoints = None
        if known is not None:
            paths = {*sandboxes.values(), *self._joining.paths(now)}
            rules.keep(paths)
            endpoints = unfinished(self._links or {}, self._tasks(), complete=self.told())
            endpoints |= self._joining.endpoints(now)
            endpoints |= {end for one in known.values() for end in one.endpoints}
        return p.World(
            node_id=self._node_id, local=self.local(), tables=self.seen, links=self._links,
            sandboxes=sandboxes, programmed=rules.tables(), mesh=rules.mesh, mesh_known=rules.mesh_known,
            listening=self.listening, served=rules.served, endpoints=endpoints, fenced=self._fence.seen(),
            complete=self.complete,
        )  # fmt: skip

    def local(self) -> str:
        """This node's VXLAN address, as the others know it."""
        return share.local_of(self.tables, self._node_id) or self._address

    async def _turn(self) -> bool:
        """Carry out until nothing is left to do that can be done; whether all went well."""
        failed: set[str] = set()
        while actions := [one for one in p.plan(self.world()) if not p.blocked(one, failed, self.tables)]:
            for action in actions:
                if p.blocked(action, failed, self.tables):
                    continue  # something before it failed in this very turn
                try:
                    await self._act(action)
                    if not self._fresh and (what := p.drift(action)):
                        self.drift.note(p.network_of(action), what)
                except FabricError as error:
                    failed.update(p.subjects(action))
                    self._complain(p.key(action), error)
        self._settle()
        self.problems = {key: text for key, text in self.problems.items() if key in {"links", *failed}}
        self._fresh &= bool(failed) or self._links is None
        return not failed and self._links is not None

    def _settle(self) -> None:
        """Containers whose namespace holds all that they need."""
        done = finished(self.world())
        if done != self._done_with:
            self._done_with = done
            self._wired()

    def _complain(self, key: str, error: FabricError) -> None:
        """Once, and only of what lasts: a container that ends meanwhile is no trouble."""
        if self.problems.get(key) == str(error):
            return
        log = logger.warning if key in self.problems else logger.info
        self.problems[key] = str(error)
        log("%s: %s", key, error)

    async def _act(self, action: p.Action) -> None:
        ports = self.ports
        match action:
            case guarding.Guard() | guarding.Cipher():
                await self._fence.act(action)
            case p.Ensure(link):
                async with self.lock(link.network_id):
                    await ports.overlay.ensure(link)
                    await self._observe()
            case p.Forward(network_id, add, remove):
                await ports.overlay.forward(network_id, add, remove)
                if self._links is not None and (seen := self._links.get(network_id)):
                    self._links[network_id] = forwarded(seen, action)
            case p.Balance(path, table, before):
                await self._rules.balance(path, table, before)
            case p.Mesh(table, before):
                await self._rules.set_mesh(table, before)
            case p.Serve(network_id, addresses):
                await self._rules.serve(network_id, addresses)
            case p.Unplug(network_id, endpoint_id):
                await ports.overlay.unplug(network_id, endpoint_id)
                await self._observe()
            case p.Drop(network_id):
                await self._rules.serve(network_id, ())
                await ports.overlay.remove(network_id)
                await self._observe()

    # ------------------------------------------------------------ for the plumber

    def lock(self, network_id: str) -> asyncio.Lock:
        """One change of a network's links at a time."""
        return self._locks.setdefault(network_id, asyncio.Lock())

    async def prepare(self, network_id: str) -> Table:
        """The network's table, its links made. Raises FabricError."""
        table = self.tables.get(network_id)
        if table is None:
            raise FabricError(f"network {network_id} is not known on this node: no task of it is here")
        link = share.link_of(table, self._node_id, self.local())
        seen = (self._links or {}).get(network_id)
        if seen is None or seen.link != link:
            for first in guarding.before(self.tables, link.local, self._fence.seen()):
                await self._fence.act(first)
            async with self.lock(network_id):
                await self.ports.overlay.ensure(link)
                await self._observe()
            self.look()
        return table

    def joined(self, task_id: str, endpoint_id: str, path: str) -> None:
        """A container joins. Its namespace is made later; its process must find its balancers there."""
        self._joining.began(endpoint_id, path, asyncio.get_running_loop().time())
        task = asyncio.get_running_loop().create_task(self._program_early(task_id, path), name="early")
        self._early.add(task)
        task.add_done_callback(self._early.discard)

    async def _program_early(self, task_id: str, path: str) -> None:
        if not await self.ports.sandboxes.appeared(path, patience=PATIENCE):
            return
        table = share.Sandboxes(self.seen).table(task_id)
        known = self._rules.tables().get(path)
        if table is None or (known is not None and known.services == table.services):
            return
        # The link that replies of the routing mesh take is not there yet: that part comes after the start.
        try:
            await self._rules.balance(path, SandboxTable(services=table.services), known, early=True)
        except FabricError as error:
            logger.info("%s is programmed after its start: %s", path, error)

    def left(self, endpoint_id: str) -> None:
        """A container left."""
        self._joining.ended(endpoint_id)
        self.look()

    # ------------------------------------------------------------ life

    async def wipe(self) -> None:
        """Remove everything of ours from the node."""
        self.abandon()
        await self.ports.names.wipe()
        await cleared(self.ports)

    async def _save(self) -> None:
        guests = self.guests_upstreams()
        if not self._unsaved and guests == self._saved_guests:
            return
        self._unsaved, self._saved_guests = False, guests
        kept = journal.KeptNetworks(tables=dict(self.tables), probe_key=self.probe_key, upstreams=guests)
        try:
            await self._disk.work(lambda: journal.save_networks(self._disk, kept))
        except OSError as error:
            logger.warning("the agent's networks cannot be saved: %s", error)
            self._unsaved = True
