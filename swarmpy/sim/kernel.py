"""A machine's simulated kernel as far as networks go, and the ports of the agent that lives on it.

It holds links (netstack.py), balancers (balancer.py) and containers' namespaces. All of that outlives the
agent's process and goes with the machine; name servers and the network driver are the process's own.
What does not belong here: how a container gets its networks (libnetwork.py), when the kernel fails (faults).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from swarmpy.adapters.driver import NetworkDriver
from swarmpy.adapters.overlay.identity import room_name
from swarmpy.adapters.overlay.sentences import doing
from swarmpy.model.links import Answer, Question
from swarmpy.ports import FabricError, FabricPorts, Plumber
from swarmpy.ports.fabric import Resolve
from swarmpy.sim.balancer import Netfilter, SimBalancer, SimMesh
from swarmpy.sim.guard import SimCipher, SimGuard
from swarmpy.sim.loop import NEUTRAL, Killed, Process, SimLoop
from swarmpy.sim.netstack import Netstack, Room
from swarmpy.sim.overlay import SimOverlay
from swarmpy.sim.prober import NoTrials, SimProber, Underlay
from swarmpy.sim.trace import Trace

T = TypeVar("T")

MTU = 1500
DIAL = (0.0002, 0.002)
"""Seconds between a call of the Engine and the driver, each way."""


class DriverAway(Exception):
    """Nobody serves the driver's socket, or who did died during the call."""


class Kernel:
    """One machine's. `unexpected` hears of what programs raise that they should not."""

    def __init__(
        self, loop: SimLoop, name: str, seed: str, trace: Trace, host: str,
        unexpected: Callable[[str, BaseException], None],
    ) -> None:  # fmt: skip
        self.loop, self.name, self.trace = loop, name, trace
        self._unexpected = unexpected
        self.stack = Netstack(loop, name, f"{seed} links", trace, {host: MTU})
        self.filter = Netfilter(loop, name, f"{seed} rules", trace, self.exists)
        self.namespaces: dict[str, None] = {}
        """Containers' namespaces, by path."""
        self.served: dict[str, tuple[Room | None, tuple[str, ...]]] = {}
        """Where names are answered: the network's room as it was then, and the addresses."""
        self.resolve: Resolve | None = None
        self.disturbed = 0.0
        """When something last befell it."""
        self.flushed = 0.0
        """When somebody last took rules away."""
        self.die_after: int | None = None
        """The agent's process dies before so many more changes of links."""
        self.on_death: Callable[[], None] | None = None
        """Called when that comes true."""
        self._driver: tuple[Process, SimDriver] | None = None
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._number = 0

    # ------------------------------------------------------------ what the agent gets

    def ports(self, process: Process) -> FabricPorts:
        """The ports of one life of the agent."""
        return FabricPorts(
            overlay=SimOverlay(self.stack, self._step), sandboxes=SimSandboxes(self),
            balancer=SimBalancer(self.filter), mesh=SimMesh(self.filter),
            guard=SimGuard(self.filter), cipher=SimCipher(self.filter),
            names=SimNames(self), driver=SimDriver(self, process),
            prober=SimProber(Underlay(lambda _source, _target: False)), trials=NoTrials(),
        )  # fmt: skip

    def _step(self, name: str) -> None:
        if self.die_after is None or self.on_death is None:
            return
        self.die_after -= 1
        if self.die_after > 0:
            return
        self.die_after = None
        self.trace.emit(self.name, f"dies before the step {name}")
        self.on_death()
        raise Killed

    # ------------------------------------------------------------ namespaces

    def exists(self, path: str) -> bool:
        """Whether there is such a namespace."""
        return path in self.namespaces

    def open(self, path: str) -> None:
        """A container's namespace appears."""
        self.namespaces[path] = None
        waiting, self._waiting = self._waiting, {}
        for number in sorted(waiting):
            if not waiting[number].done():
                waiting[number].set_result(None)

    def close(self, path: str) -> None:
        """It ends, with all that is in it."""
        self.namespaces.pop(path, None)
        self.stack.end_sandbox(path)
        self.filter.sandboxes.pop(path, None)

    async def changed(self) -> None:
        """Return when a namespace appears."""
        self._number += 1
        waiter = self._waiting[self._number] = self.loop.create_future()
        await waiter

    # ------------------------------------------------------------ the driver

    def serve(self, process: Process, driver: SimDriver) -> None:
        """From now on the Engine finds this driver."""
        self._driver = (process, driver)

    def withdraw(self, driver: SimDriver) -> None:
        """It serves no longer."""
        if self._driver is not None and self._driver[1] is driver:
            self._driver = None

    async def call(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The Engine's call to the driver. Raises DriverAway."""
        await asyncio.sleep(self.stack.chance.uniform(*DIAL))
        if self._driver is None:
            raise DriverAway
        process, driver = self._driver
        self._number += 1
        number = self._number
        answer: asyncio.Future[dict[str, Any]] = self.loop.create_future()
        self._calls[number] = answer
        task = self.loop.spawn(process, driver.answer(path, json.dumps(body).encode()))
        task.add_done_callback(lambda done: self._answered(number, done), context=NEUTRAL)
        reply = await answer
        await asyncio.sleep(self.stack.chance.uniform(*DIAL))
        return reply

    def _answered(self, number: int, done: asyncio.Future[Any]) -> None:
        answer = self._calls.pop(number, None)
        if answer is None or answer.done():
            return
        error = None if done.cancelled() else done.exception()
        if done.cancelled() or isinstance(error, Killed):
            answer.set_exception(DriverAway())
        elif error is not None:
            self._unexpected(self.name, error)
            answer.set_exception(DriverAway())
        else:
            answer.set_result(done.result())

    # ------------------------------------------------------------ what befalls it

    def process_gone(self) -> None:
        """The agent's process died: what it served is away."""
        self._driver, self.resolve, self.served = None, None, {}
        self.die_after = None
        calls, self._calls = self._calls, {}
        for number in sorted(calls):
            if not calls[number].done():
                calls[number].set_exception(DriverAway())

    def power_cut(self) -> None:
        """The machine goes down."""
        self.namespaces = {}
        self.stack.reboot()
        self.filter.power_cut()
        self.disturbed = self.loop.instant

    def heal(self) -> None:
        """Behave well from now on."""
        self.stack.heal()
        self.filter.heal()
        self.die_after = None

    @property
    def well(self) -> bool:
        """Whether nothing is the matter with it right now."""
        stack, rules = self.stack, self.filter
        return not (stack.hanging or rules.hanging or stack.refuse or rules.refuse or rules.unsealed)


class SimSandboxes:
    """ports.Sandboxes."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def appeared(self, path: str, *, patience: float) -> bool:
        """Return True once it exists."""
        try:
            async with asyncio.timeout(patience):
                while not self._kernel.exists(path):
                    await self._kernel.changed()
        except TimeoutError:
            return False
        return True


class SimNames:
    """ports.Names: records who answers, and where."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def begin(self, resolve: Resolve) -> None:
        """Answer with this."""
        self._kernel.resolve = resolve

    async def serve(self, network_id: str, namespace: str, addresses: Sequence[str]) -> None:
        """Serve there. Raises FabricError where the namespace is not there."""
        with doing("serve names", network_id):
            room = await self._kernel.stack.call(lambda: self._kernel.stack.rooms.get(room_name(network_id)))
        if room is None:
            raise FabricError(f"names cannot be served in {namespace}: No such file or directory")
        self._kernel.served[network_id] = (room, tuple(addresses))

    async def withdraw(self, network_id: str) -> None:
        """Serve it no longer."""
        self._kernel.served.pop(network_id, None)

    def changed(self) -> None:
        """Nothing is remembered here."""

    async def stop(self) -> None:
        """Serve nothing."""
        self._kernel.served = {}

    async def wipe(self) -> None:
        """Serve nothing; nobody stands in here."""
        self._kernel.served = {}

    def ask(self, question: Question) -> Answer | None:
        """The answer a container would get."""
        return self._kernel.resolve(question) if self._kernel.resolve else None


class SimDriver(NetworkDriver):
    """ports.Driver: the real one without its socket."""

    def __init__(self, kernel: Kernel, process: Process) -> None:
        super().__init__(f"/run/{kernel.name}.sock")
        self._kernel, self._process = kernel, process

    async def start(self, plumber: Plumber) -> None:
        """Serve."""
        self._plumber = plumber
        self._kernel.serve(self._process, self)

    async def stop(self) -> None:
        """Serve no longer."""
        self._kernel.withdraw(self)
        for task in sorted(self._running, key=lambda one: one.get_name()):
            task.cancel()
