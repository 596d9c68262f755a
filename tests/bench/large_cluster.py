"""A service of 100,000 replicas on 5,000 nodes: from accepted to committed and sent out, and the leader's turns.

    python -m tests.bench.large_cluster [--nodes 5000] [--replicas 100000] [--report]

The leader's real shells (writer, store, dispatcher) in one process; agents are but ends of their sessions, in
memory: they take what they are told, and with `--report` say that it runs. The log has one member that keeps
nothing: entries are encoded and decoded, but neither sent nor synced. A turn is one of the event loop, in CPU
time, so that a busy machine counts less; the agents' ends are part of it.
"""

from __future__ import annotations

import argparse
import asyncio
import time

from swarmpy.manager.dispatcher import Dispatcher
from swarmpy.manager.store import Store
from swarmpy.manager.writer import Writer
from swarmpy.model import messages as m
from swarmpy.model.commands import CreateService, RemoveService
from swarmpy.model.lifecycle import TaskState
from swarmpy.model.objects import TaskStatus
from swarmpy.ports import Peer
from tests.manager.fakes import LocalLog, Pipe, pipe

from .scheduler import service, world_of

BOSS = Peer("m1", "manager", "c", "1", "10.0.0.1")


class Clock:
    """ports.Clock of this machine."""

    def now(self) -> int:
        return time.time_ns()

    def monotonic(self) -> float:
        return time.monotonic()


class TimedLoop(asyncio.SelectorEventLoop):
    """An event loop that remembers what its longest turn took, in seconds of CPU."""

    longest = 0.0

    def _run_once(self) -> None:
        start = time.process_time()
        super()._run_once()
        self.longest = max(self.longest, time.process_time() - start)


class Agents:
    """The far ends of all sessions."""

    def __init__(self, dispatcher: Dispatcher, *, report: bool) -> None:
        self.dispatcher, self.report = dispatcher, report
        self.told: set[str] = set()
        self.greeted: set[str] = set()

    async def serve(self, node_id: str, about: object) -> None:
        """Have a session, and another one when that ends: the leader turns some away when all come at once."""
        hello = m.to_body(m.Hello(node_id=node_id, description=about))
        while True:
            near, far = pipe(Peer(node_id, "worker", "c", "2", "10.0.0.2"), BOSS)
            mine = [asyncio.create_task(self._listen(node_id, near)), asyncio.create_task(self._beat(near))]
            try:
                await self.dispatcher.serve(far, hello)
            finally:
                for task in mine:
                    task.cancel()
            await asyncio.sleep(1)

    async def _beat(self, near: Pipe) -> None:
        while True:
            await asyncio.sleep(1)
            await near.send(m.to_body(m.Beat(seq=0)))

    async def _listen(self, node_id: str, near: Pipe) -> None:
        number = 0
        while True:
            message = m.down_from(await near.recv())
            if isinstance(message, m.Welcome):
                self.greeted.add(node_id)
            if isinstance(message, m.Assignments):
                self.told.update(task.id for task in message.tasks)
                self.told.difference_update(message.removed)
                items = tuple(
                    (task.id, TaskStatus(state=TaskState.RUNNING if task.desired <= TaskState.RUNNING else TaskState.SHUTDOWN))
                    for task in message.tasks
                )  # fmt: skip
                if self.report and items:
                    number += 1
                    await near.send(m.to_body(m.Statuses(number=number, items=items)))


async def until(what: str, loop: TimedLoop, done: object, since: float) -> None:
    """Wait for it and print when it was."""
    while not done():
        await asyncio.sleep(0.05)
    print(
        f"  {what} after {time.monotonic() - since:.1f} s; longest turn so far {loop.longest * 1000:.0f} ms"
    )


async def run(options: argparse.Namespace, loop: TimedLoop) -> None:
    store = Store()
    store.world = world_of(options.nodes, 0, 0, plain=True)
    log = LocalLog(store)
    log._index = store.world.version
    writer = Writer(log, store, Clock())
    dispatcher = Dispatcher(writer.submit, lambda: store.world, Clock(), log.status)
    store.watch(dispatcher.moved)
    agents = Agents(dispatcher, report=options.report)
    shells = [asyncio.create_task(writer.lead()), asyncio.create_task(dispatcher.run())]
    await writer.opened.wait()
    since = time.monotonic()
    shells += [asyncio.create_task(agents.serve(one.id, one.description)) for one in store.world.nodes]
    await until("all agents had their sessions", loop, lambda: len(agents.greeted) == options.nodes, since)
    await asyncio.sleep(3)
    loop.longest, since, want = 0.0, time.monotonic(), options.replicas
    made = await writer.submit(CreateService(id="service", spec=service(1, want, plain=True).spec))
    print(f"  accepted after {(time.monotonic() - since) * 1000:.0f} ms")
    await until(
        "committed", loop, lambda: len(store.world.tasks) == want and not store.world.unplaced(), since
    )
    await until("sent out", loop, lambda: len(agents.told) == want, since)
    if options.report:
        await until("all reported, and that committed,", loop, lambda: all_run(store), since)
    loop.longest, since = 0.0, time.monotonic()
    await writer.submit(RemoveService(service=made.id))
    await until("removed: told", loop, lambda: not store.world.tasks or not options.report, since)
    for shell in shells:
        shell.cancel()
    await asyncio.gather(*shells, return_exceptions=True)


def all_run(store: Store) -> bool:
    return all(task.status.state == TaskState.RUNNING for task in store.world.tasks.rows.values())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=5000)
    parser.add_argument("--replicas", type=int, default=100_000)
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args()
    loop = TimedLoop()
    print(f"{options.replicas} replicas on {options.nodes} nodes")
    asyncio.set_event_loop(loop)
    loop.run_until_complete(run(options, loop))


if __name__ == "__main__":
    main()
