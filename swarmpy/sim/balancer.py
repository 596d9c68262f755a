"""A simulated kernel's balancing of connections, which outlives the agent's process, and the ports to it.

What belongs here: tables of sandboxes and of the routing mesh, who would get the next connection, and the
ways in which all that misbehaves. What does not: deciding when it does (faults), packets.

A change reaches the kernel after a while and is carried out there even when the agent has died meanwhile; its
answer comes a while later. An agent that died between a change and its seal leaves a table without a
fingerprint, as the real one does.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from swarmpy.model import codec
from swarmpy.ports import FabricError, MeshTable, SandboxTable
from swarmpy.sim.loop import NEUTRAL, SimLoop
from swarmpy.sim.trace import Trace

T = TypeVar("T")


@dataclass(slots=True)
class Held:
    """A table in the kernel. `label` is "" where it is not as it was left."""

    table: Any
    label: str


class Netfilter:
    """One machine's kernel. `exists` tells which sandboxes there are."""

    def __init__(self, loop: SimLoop, name: str, seed: str, trace: Trace,
                 exists: Callable[[str], bool] = lambda sandbox: True) -> None:  # fmt: skip
        self.loop = loop
        self.name = name
        self.chance = random.Random(seed)  # noqa: S311  a simulation must be repeatable
        self.trace = trace
        self.exists = exists
        self.latency = (0.001, 0.02)
        self.refuse = 0.0
        """Chance that a change is refused, with nothing done."""
        self.unsealed = 0.0
        """Chance that a change is done, but ends with an error before it is sealed."""
        self.hanging = False
        self.sandboxes: dict[str, Held] = {}
        self.mesh: Held | None = None
        self.guard: Held | None = None
        self.cipher: Held | None = None
        self.changes = 0
        """Changes that were carried out."""
        self._turns: dict[tuple[str, object], int] = {}
        self._stuck: list[Callable[[], None]] = []

    # ------------------------------------------------------------ what connections meet

    def pick(self, sandbox: str, vip: str) -> str | None:
        """Who gets the next connection from the sandbox to the virtual address: a backend, "" where it is
        refused at once, None where it is sent into the void."""
        held = self.sandboxes.get(sandbox)
        if held is None or not self.exists(sandbox):
            return None
        for service in held.table.services:
            if service.vip == vip:
                return self._next(sandbox, vip, service.backends)
        return None

    def enter(self, protocol: str, port: int, address: str = "", *, six: bool = False) -> str | None:
        """Who gets the next connection from outside to this port (of that address; `six`: of an IPv6 one) of
        the node, as `pick`; None where the port is not published."""
        six = six or ":" in address
        if self.mesh is None or not any((":" in own) == six for own in self.mesh.table.addresses):
            return None
        if not {(protocol, port, ""), (protocol, port, address)} & set(self.mesh.table.hosts):
            return None
        for one in self.mesh.table.ports:
            if (one.protocol, one.published) == (protocol, port):
                backends = tuple(backend for backend in one.backends if (":" in backend) == six)
                return self._next("", (protocol, port, six), backends)
        return ""

    def returned(self, sandbox: str) -> frozenset[str]:
        """Addresses of the nodes through which the sandbox can answer clients of the routing mesh."""
        held = self.sandboxes.get(sandbox)
        ways = held.table.returns if held else ()
        return frozenset(address for one in ways for address in (one.address, one.address6) if address)

    def _next(self, sandbox: str, what: object, backends: tuple[str, ...]) -> str:
        turn = self._turns.get((sandbox, what), 0)
        self._turns[sandbox, what] = turn + 1
        return backends[turn % len(backends)] if backends else ""

    # ------------------------------------------------------------ what befalls it

    def flush(self, sandbox: str) -> None:
        """Somebody flushes the rules of a sandbox."""
        if self.sandboxes.pop(sandbox, None):
            self.trace.emit(self.name, f"rules of {sandbox} are flushed")

    def flush_mesh(self) -> None:
        """Somebody flushes the rules of the host."""
        self.mesh = None
        self.trace.emit(self.name, "rules of the routing mesh are flushed")

    def flush_guard(self) -> None:
        """Somebody flushes the firewall of the VXLAN ports."""
        self.guard = None
        self.trace.emit(self.name, "rules of the guard are flushed")

    def flush_cipher(self) -> None:
        """Somebody flushes what IPsec has."""
        self.cipher = None
        self.trace.emit(self.name, "IPsec is flushed")

    def hang(self) -> None:
        """Changes wait."""
        self.hanging = True

    def unhang(self) -> None:
        """Go on, first with what waited."""
        self.hanging = False
        stuck, self._stuck = self._stuck, []
        for begin in stuck:
            begin()

    def power_cut(self) -> None:
        """The machine goes down; nothing of this is on a disk."""
        self.sandboxes, self.mesh, self._turns, self._stuck = {}, None, {}, []
        self.guard = self.cipher = None
        self.hanging = False

    def heal(self) -> None:
        """Behave well from now on."""
        self.refuse = self.unsealed = 0.0
        self.latency = (0.001, 0.02)
        self.unhang()

    # ------------------------------------------------------------ requests

    async def ask(self, action: Callable[[], T]) -> T:
        """Have the kernel do something."""
        answer: asyncio.Future[T] = self.loop.create_future()
        self._later(self._begin, action, answer)
        return await answer

    def _later(self, action: Callable[..., None], *arguments: Any) -> None:
        delay = self.chance.uniform(*self.latency) / 2
        self.loop.call_at(self.loop.instant + delay, action, *arguments, context=NEUTRAL)

    def _begin(self, action: Callable[[], T], answer: asyncio.Future[T]) -> None:
        if self.hanging:
            self._stuck.append(lambda: self._begin(action, answer))
            return
        result: Any = None
        error: FabricError | None = None
        try:
            result = action()
        except FabricError as refused:
            error = refused
        self._later(_settle, answer, result, error)

    def change(self, hold: Callable[[Held], None], table: object) -> str:
        """Carry out a change: it may be refused, or end before it is sealed."""
        if self.refuse and self.chance.random() < self.refuse:
            raise FabricError("nftables refused: Cannot allocate memory")
        label = hashlib.blake2b(codec.encode(table), digest_size=8).hexdigest()
        self.changes += 1
        if self.unsealed and self.chance.random() < self.unsealed:
            hold(Held(table, ""))
            raise FabricError("the kernel does not answer about its network tables")
        hold(Held(table, label))
        return label

    def seen(self, sandbox: str) -> str:
        """Fingerprint of a sandbox. Raises FabricError."""
        self.present(sandbox)
        held = self.sandboxes.get(sandbox)
        return held.label if held else ""

    def present(self, sandbox: str) -> None:
        """Raises FabricError where there is no such sandbox; its table goes with it."""
        if not self.exists(sandbox):
            self.sandboxes.pop(sandbox, None)
            raise FabricError(f"the network namespace {sandbox} cannot be opened: No such file or directory")


def _settle(answer: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if answer.done():
        return
    if error is None:
        answer.set_result(result)
    else:
        answer.set_exception(error)
        answer.exception()  # seen, even when the client has gone


class SimBalancer:
    """ports.Balancer: one agent's."""

    name = "nftables"

    def __init__(self, kernel: Netfilter) -> None:
        self.kernel = kernel

    async def probe(self) -> bool:
        """Whether the kernel can do it."""
        return True

    async def observe(self, sandbox: str) -> str:
        """Fingerprint of what the kernel has."""
        return await self.kernel.ask(lambda: self.kernel.seen(sandbox))

    async def apply(self, sandbox: str, table: SandboxTable, before: SandboxTable | None) -> str:
        """Make the sandbox as the table says."""

        def carry_out() -> str:
            self.kernel.present(sandbox)
            return self.kernel.change(lambda held: self.kernel.sandboxes.update({sandbox: held}), table)

        return await self.kernel.ask(carry_out)

    async def clear(self, sandbox: str) -> None:
        """Remove everything of ours from the sandbox."""
        await self.kernel.ask(lambda: self.kernel.sandboxes.pop(sandbox, None))


class SimMesh:
    """ports.Mesh: one agent's."""

    def __init__(self, kernel: Netfilter) -> None:
        self.kernel = kernel

    async def observe(self) -> str:
        """Fingerprint of what the kernel has."""
        return await self.kernel.ask(lambda: self.kernel.mesh.label if self.kernel.mesh else "")

    async def apply(self, table: MeshTable, before: MeshTable | None) -> str:
        """Make host and ingress namespace as the table says."""

        def hold(held: Held) -> None:
            self.kernel.mesh = held

        return await self.kernel.ask(lambda: self.kernel.change(hold, table))

    async def clear(self) -> None:
        """Remove everything of ours."""

        def forget() -> None:
            self.kernel.mesh = None

        await self.kernel.ask(forget)
