"""The worker: carries out what plan/engine decides for this node, and keeps it true.

Event-driven, with a slow look round as a safety net. At most one Engine action is under way per task, starts
are bounded (a node that starts everything at once starts nothing for seconds), and while the Engine is away
nothing is concluded: tasks are judged again when it answers. What does not belong here: decisions (plan/),
talking to managers (session.py).
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping

from msgspec.structs import replace

from swarmpy.agent import journal
from swarmpy.agent.hands import Hands
from swarmpy.agent.joining import Sandbox
from swarmpy.agent.listening import Listeners
from swarmpy.agent.naming import EngineNetworks
from swarmpy.agent.pace import Pace
from swarmpy.agent.sight import sandboxes, seen
from swarmpy.agent.silence import noticed
from swarmpy.model.lifecycle import TaskState
from swarmpy.model.messages import Assignments, Manager
from swarmpy.model.objects import TaskStatus
from swarmpy.plan import engine as p
from swarmpy.plan.container import CLUSTER_LABEL, TASK_LABEL, Wire
from swarmpy.plan.listening import Await
from swarmpy.plan.node import (
    Action,
    Cancel,
    Container,
    Create,
    EngineAction,
    Forget,
    LocalTask,
    NodeWorld,
    Pull,
    Remove,
    Report,
    Stop,
)
from swarmpy.plan.template import NodeFacts
from swarmpy.ports import Clock, Disk, Engine, EngineError, EngineGoneError, Sockets

logger = logging.getLogger(__name__)

LOOK_ROUND = 10.0
"""Seconds between looks at the Engine when no event came: events may be lost."""
SILENT = 15.0
"""Seconds for which the Engine may think about what it has before the node is in trouble."""
SILENCE = f"the container engine has not answered for {SILENT:.0f} seconds: see `systemctl status docker`"
RETRY = 0.5
"""Seconds before an action that could not be carried out is judged again."""

Heard = Callable[[str, TaskStatus], None]


class Worker:
    """`report` hears of every new status. `facts` is asked at each planning: it may become known late."""

    def __init__(
        self,
        cluster_id: str,
        engine: Engine,
        sockets: Sockets,
        disk: Disk,
        clock: Clock,
        facts: Callable[[], NodeFacts],
        report: Heard,
    ) -> None:
        self._cluster_id, self._engine, self._disk, self._clock = cluster_id, engine, disk, clock
        self._facts, self._report = facts, report
        self.tasks: dict[str, LocalTask] = {}
        self._containers: tuple[Container, ...] | None = None
        self.complete = False
        self._busy: dict[str, tuple[asyncio.Task[None], EngineAction]] = {}
        self._ended: set[str] = set()
        """Keys whose action ended since the last look began: that look may not show what came of it."""
        self._wake = asyncio.Event()
        self._stale, self._pace = True, Pace()
        self._unsaved = False
        self._empty = asyncio.Event()
        self.managers: Callable[[], tuple[Manager, ...]] = tuple
        self.wires: Callable[[], Mapping[str, Wire]] = dict
        """The networks that this node carries, by id."""
        self.networks = EngineNetworks(engine, lambda: self.wires())  # noqa: PLW0108  it is set later
        self._hands = Hands(engine, self.networks)
        self.is_wired: Callable[[str], bool] = lambda _task_id: True
        """Whether a task's running container is connected as it should be."""
        self.severed: Callable[[str], str] = lambda _task_id: ""
        """Why a task's running container lost a network for good, "" where it did not."""
        self.on_engine: Callable[[str], None] = lambda _trouble: None
        """Called when the Engine begins to be away (with its sentence) or answers again ("")."""
        self.on_containers: Callable[[float], None] = lambda _began: None
        """Called when containers were looked at, with the time of the loop at which that began."""
        self.sandboxes: dict[str, Sandbox] | None = None
        """Namespaces of running containers by task id; None while the Engine was not asked."""
        self.listeners = Listeners(sockets, self.wake, self.look)
        """What the containers of starting tasks listen on; its `run` goes beside ours."""

    # ------------------------------------------------------------ what is wanted

    def remember(self, memory: journal.Memory) -> None:
        """Begin with what was known before the restart."""
        for one in memory.tasks:
            if one.status.state < TaskState.READY:
                continue  # it may need a pull, and credentials are not kept: the managers tell it again
            self.tasks[one.assigned.id] = LocalTask(assigned=one.assigned, status=one.status)

    def assign(self, message: Assignments) -> None:
        """Take over assignments."""
        for assigned in message.tasks:
            self.tasks[assigned.id] = p.adopt(assigned, self.tasks.get(assigned.id))
        kept = {assigned.id for assigned in message.tasks}
        gone: Iterable[str] = message.removed
        if message.full:
            gone = [key for key in self.tasks if key not in kept]
            self.complete = True
        for key in gone:
            self._release(key)
        self._unsaved = True
        self._wake.set()

    def abandon(self) -> None:
        """Nothing is wanted any more: everything of the cluster goes."""
        for key in list(self.tasks):
            self._release(key)
        self.complete = True
        self._empty.clear()
        self.look()

    async def emptied(self) -> None:
        """Return once nothing is known and nothing is to do."""
        await self._empty.wait()

    def _release(self, key: str) -> None:
        local = self.tasks.get(key)
        if local is not None:
            self.tasks[key] = replace(local, leaving=True)

    def wake(self) -> None:
        """Judge again what is known."""
        self._wake.set()

    def look(self) -> None:
        """Look at the Engine again, soon."""
        self._stale = True
        self._wake.set()

    @property
    def _idle(self) -> bool:
        return not self.tasks and not self._busy and self._containers == ()

    def save_soon(self) -> None:
        """The memory changed."""
        self._unsaved = True
        self._wake.set()

    # ------------------------------------------------------------ the loop

    async def run(self) -> None:
        """Work until cancelled; containers stay as they are then."""
        loop = asyncio.get_running_loop()
        listening = asyncio.create_task(self._listen(), name="engine-events")
        try:
            while True:
                self._wake.clear()
                began = loop.time()
                looks = self._stale and not self._pace.wait(began)
                if looks:
                    await self._observe()
                if self._containers is not None:
                    self._turn(self._containers)
                    if self._idle and not self._stale:
                        self._empty.set()
                    if self.networks.stale:
                        await self.networks.tidy(self._needed())
                if looks:
                    self._pace.looked(began, loop.time())
                await self._save()
                await self._rest(loop.time())
        finally:
            tasks = [listening, *(task for task, _ in self._busy.values())]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _rest(self, now: float) -> None:
        """Until something is to be done, or it is time to look."""
        resting = self._stale and self._containers is not None
        round_ = LOOK_ROUND if self._containers is not None else RETRY
        try:
            async with asyncio.timeout(self._pace.wait(now) if resting else round_):
                await self._wake.wait()
        except TimeoutError:
            self._stale = True

    async def _observe(self) -> None:
        self._stale, began = False, asyncio.get_running_loop().time()
        self._ended.clear()
        try:
            with noticed(SILENT, lambda: self.on_engine(SILENCE)):
                found = await self._engine.containers([f"{CLUSTER_LABEL}={self._cluster_id}"])
        except EngineError as error:
            if self._containers is not None:
                logger.warning("the Engine does not answer: %s", error)
                self.on_engine(str(error))
            self._containers, self._stale = None, True
            return
        self.on_engine("")
        self._containers = tuple(seen(one) for one in found)
        self.listeners.observed(self._containers)
        self.sandboxes = sandboxes(found)
        self.on_containers(began)

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            # What happened before the Engine heard of us is in no event: look once more when it surely has.
            settled = loop.call_later(RETRY, self.look)
            try:
                async for _ in self._engine.events():
                    self.look()
            except EngineError as error:
                logger.info("Engine events ended: %s", error)
            finally:
                settled.cancel()
            self.look()
            await asyncio.sleep(RETRY)

    def _known(self, one: Container) -> Container:
        """The container, with what is known of its connections and sockets by now."""
        one = self.listeners.known(one)
        if not self._attached(one.task_id):
            return one
        return dataclasses.replace(one, wired=self.is_wired(one.task_id), severed=self.severed(one.task_id))

    def _needed(self) -> set[str]:
        """Networks for which a container is being made."""
        made = [action for _, action in self._busy.values() if isinstance(action, Create)]
        return {place.network_id for action in made for place in action.places}

    def _attached(self, task_id: str) -> bool:
        local = self.tasks.get(task_id)
        return local is not None and bool(local.assigned.networks)

    def _turn(self, containers: tuple[Container, ...]) -> None:
        """Plan and set going until nothing more is decided at once."""
        containers = tuple(self._known(one) for one in containers)
        while True:
            world = NodeWorld(
                node=self._facts(),
                cluster_id=self._cluster_id,
                tasks=self.tasks,
                containers=containers,
                complete=self.complete,
                busy=frozenset(self._busy) | self._ended,
                pulling=frozenset(key for key, (_, action) in self._busy.items() if isinstance(action, Pull)),
                networks=self.wires(),
            )
            actions = p.plan(self._clock.now(), world)
            for action in actions:
                self._begin(action)
            if not any(isinstance(action, Report | Forget) for action in actions):
                self.listeners.awaits(one for one in actions if isinstance(one, Await))
                return

    def _begin(self, action: Action) -> None:
        match action:
            case Report():
                local = self.tasks[action.key]
                self.tasks[action.key] = replace(
                    local, status=action.status, doomed=action.doomed or local.doomed, problem=""
                )
                self._unsaved = True
                if action.remark:
                    logger.warning("task %s runs, but %s", local.assigned.name, action.remark)
                self._report(action.key, action.status)
            case Forget():
                del self.tasks[action.key]
                self._unsaved = True
            case Cancel():
                self._busy[action.key][0].cancel()
            case Await():
                pass  # of all of them at once, when this turn is over
            case _:
                task = asyncio.create_task(self._carry_out(action), name=f"{type(action).__name__}")
                self._busy[action.key] = (task, action)

    async def _carry_out(self, action: EngineAction) -> None:
        try:
            await self._hands.act(action)
            if isinstance(action, Pull):
                self._note(action.key, prepared=True)
        except EngineGoneError as error:
            logger.info("%s waits for the Engine: %s", type(action).__name__, error)
            await asyncio.sleep(RETRY)
        except EngineError as error:
            await self._refused(action, error)
        except Exception as error:
            # A defect: it ends this task, with a sentence, and is told; the others go on.
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"{type(action).__name__} of {action.key} failed", "exception": error}
            )
            what = f"this node failed in its {type(action).__name__.lower()} step ({error!r}): see its log"
            await self._refused(action, EngineError(what))
        finally:
            self._busy.pop(action.key, None)
            self._ended.add(action.key)
            self.look()

    async def _refused(self, action: EngineAction, error: EngineError) -> None:
        if isinstance(action, Stop | Remove):
            if not error.missing:
                logger.warning("%s of %s failed: %s", type(action).__name__, action.container_id, error)
                await asyncio.sleep(RETRY)
            return
        if isinstance(action, Create) and error.conflict and await self._made_already(action.key):
            return
        self._note(action.key, problem=str(error))

    async def _made_already(self, key: str) -> bool:
        """Whether the name is taken by the task's own container: a request that was given up, by this life of
        the agent or the last, may have been carried out after all. The next look finds it."""
        own = [f"{CLUSTER_LABEL}={self._cluster_id}", f"{TASK_LABEL}={key}"]
        try:
            return bool(await self._engine.containers(own))
        except EngineError:
            return True  # not known: asked again with the next look

    def _note(self, key: str, *, prepared: bool | None = None, problem: str = "") -> None:
        local = self.tasks.get(key)
        if local is not None:
            made = local.prepared if prepared is None else prepared
            self.tasks[key] = replace(local, prepared=made, problem=problem)

    # ------------------------------------------------------------ memory

    async def _save(self) -> None:
        if not self._unsaved:
            return
        self._unsaved = False
        kept = tuple(
            journal.Remembered(replace(local.assigned, auth=""), local.status)
            for _, local in sorted(self.tasks.items())
            if not local.leaving
        )
        memory = journal.Memory(tasks=kept, managers=self.managers())
        try:
            await self._disk.work(lambda: journal.save(self._disk, memory))
        except OSError as error:
            logger.warning("the agent's memory cannot be saved: %s", error)
            self._unsaved = True

    def statuses(self) -> list[tuple[str, TaskStatus]]:
        """The last status of every task that has come far enough to be reported."""
        return [
            (key, local.status)
            for key, local in sorted(self.tasks.items())
            if local.status.state >= TaskState.ACCEPTED and not local.leaving
        ]

    def container_of(self, task_id: str) -> str:
        """The container of a task, "" while it has none."""
        return next((one.id for one in self._containers or () if one.task_id == task_id), "")
